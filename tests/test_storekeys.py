"""What a session keeps goes with it; what is sealed opens in its own place, under its own key."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import pytest_asyncio
from langgraph.store.base import (
    PutOp,
)

from clew.checkpointing import errors as checkpoint_errors
from clew.checkpointing.encryption import Keyring
from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.runtime import config, errors, purge, sessions, storekeys
from clew.runtime.store import Store
from tests.remembering import OTHER, OWNER, count, session

KEY_1 = ("k1", b"1" * 32)
KEY_2 = ("k2", b"2" * 32)


@pytest_asyncio.fixture
async def opened(db: Database) -> AsyncIterator[Store]:
    async with Store.open(db) as found:
        yield found


@pytest.fixture
def mine(opened: Store) -> Store:
    return opened.bind(OWNER)


@pytest_asyncio.fixture
async def sealed(db: Database) -> AsyncIterator[Store]:
    async with Store.open(db, keyring=Keyring([KEY_1])) as found:
        yield found


# Namespaces of sessions


@pytest.mark.parametrize("encrypted", [False, True])
async def test_row_39_what_a_session_keeps_goes_with_it(
    opened: Store, sealed: Store, db: Database, *, encrypted: bool
) -> None:
    mine = (sealed if encrypted else opened).bind(OWNER)
    thread_id, other = await session(db), await session(db)
    await mine.aput(("sessions", thread_id), "k", {"n": 1})
    await mine.aput(("sessions", thread_id, "deep", "er"), "k", {"n": 2})
    await mine.aput(("sessions", other), "k", {"n": 3})
    await mine.aput(("sessions",), "k", {"n": 4})
    await mine.aput(("sessions", "no id"), "k", {"n": 5})
    async with db.transaction(Principal.owner(OWNER)) as conn:
        assert await purge.sessions(conn, [thread_id]) == [thread_id]
    left = sorted(item.value["n"] for item in await mine.asearch(()))
    assert left == [3, 4, 5]
    assert await count(db) == 3
    assert await count(db, "store_key") == (2 if encrypted else 0)
    with pytest.raises(errors.NotFound, match=thread_id):
        await mine.aput(("sessions", thread_id), "k", {})


async def test_row_39_a_foreign_session_and_an_unknown_one_are_the_same(
    opened: Store, sealed: Store, db: Database
) -> None:
    theirs, unknown = await session(db, OTHER), "0194f3c4-0000-7000-8000-000000000000"
    for found in (opened.bind(OWNER), sealed.bind(OWNER)):
        for thread_id in (theirs, unknown):
            with pytest.raises(errors.NotFound, match=f"^Thread {thread_id} not found$"):
                await found.abatch(
                    [
                        PutOp(("a",), "k", {}),
                        PutOp(("sessions", thread_id), "k", {}),
                        PutOp(("z",), "k", {}),
                    ]
                )
    assert await count(db) == 0  # a batch is done whole or not at all


async def test_a_session_id_that_is_used_again_starts_with_nothing(
    sealed: Store, db: Database
) -> None:
    mine, thread_id = sealed.bind(OWNER), await session(db)
    namespace = ("sessions", thread_id)
    await mine.aput(namespace, "k", {"n": 1})
    async with db.transaction(Principal.owner(OWNER)) as conn:
        await purge.sessions(conn, [thread_id])
    await sessions.create(db, Principal.owner(OWNER), OWNER, thread_id=thread_id)
    assert await mine.aget(namespace, "k") is None
    await mine.aput(namespace, "k", {"n": 2})  # under a new key, though the old is remembered
    async with Store.open(db, keyring=Keyring([KEY_1])) as fresh:
        found = await fresh.bind(OWNER).aget(namespace, "k")
        assert found is not None
        assert found.value == {"n": 2}


@pytest.mark.parametrize("encrypted", [False, True])
async def test_a_session_that_changes_hands_takes_its_items_along(
    opened: Store, sealed: Store, db: Database, *, encrypted: bool
) -> None:
    bare = sealed if encrypted else opened
    thread_id = await session(db)
    await bare.bind(OWNER).aput(("sessions", thread_id), "k", {"n": 1})
    await bare.bind(OWNER).aput(("own",), "k", {"n": 2})
    admin = Principal.tenant_of(OWNER)
    await db.execute(
        admin, "update clew.session set owner_id = %s where thread_id = %s", [OTHER, thread_id]
    )
    assert [item.value for item in await bare.bind(OWNER).asearch(())] == [{"n": 2}]
    assert [item.value for item in await bare.bind(OTHER).asearch(())] == [{"n": 1}]


async def test_deleting_a_session_while_it_is_written_to_leaves_nothing(
    mine: Store, db: Database
) -> None:
    for _ in range(10):
        thread_id = await session(db)
        namespace = ("sessions", thread_id)
        await mine.abatch([PutOp(namespace, str(n), {}) for n in range(5)])

        async def write(number: int, namespace: tuple[str, ...] = namespace) -> None:
            ops = [PutOp(namespace, str(n + number), {"n": n}) for n in range(5)]
            with contextlib.suppress(errors.NotFound):
                await mine.abatch(ops)

        async def delete(thread_id: str = thread_id) -> None:
            async with db.transaction(Principal.owner(OWNER)) as conn:
                await purge.sessions(conn, [thread_id])

        await asyncio.gather(write(0), write(3), delete(), write(6), write(2))
        assert await count(db) == 0


# Encryption


async def test_row_29_nothing_of_a_sealed_value_is_on_disk(sealed: Store, db: Database) -> None:
    mine = sealed.bind(OWNER)
    value = {"text": "the secret 秘密", "n": 1, "odd": "\x00\ud800"}
    await mine.aput(("a",), "k", value)
    await mine.aput(("a",), "other", {"n": 2})
    found = await mine.aget(("a",), "k")
    assert found is not None
    assert found.value == value
    assert {item.key for item in await mine.asearch(("a",))} == {"k", "other"}
    rows = await db.fetch(SERVICE, "select i::text as row from clew.store_item i")
    assert all("secret" not in row["row"] and "秘密" not in row["row"] for row in rows)
    for wanted in ({"filter": {"n": 1}}, {"query": "secret"}):
        with pytest.raises(errors.Unsupported):
            await mine.asearch(("a",), **cast("Any", wanted))


async def test_row_29_a_value_that_was_moved_or_changed_is_refused(
    sealed: Store, db: Database
) -> None:
    mine = sealed.bind(OWNER)
    await mine.aput(("a",), "one", {"n": 1})
    await mine.aput(("a",), "two", {"n": 2})
    await db.execute(
        SERVICE,
        "update clew.store_item set body = (select body from clew.store_item where key = 'one')"
        " where key = 'two'",
    )
    with pytest.raises(checkpoint_errors.Tampered):
        await mine.aget(("a",), "two")


async def test_row_29_plain_and_sealed_items_are_told_apart(
    mine: Store, sealed: Store, db: Database
) -> None:
    await mine.aput(("a",), "plain", {"n": 1, "odd": "\x00"})
    with pytest.raises(checkpoint_errors.NotEncrypted):
        await sealed.bind(OWNER).aget(("a",), "plain")
    assert sealed.keys is not None
    assert await sealed.keys.encrypt(db) == 1
    found = await sealed.bind(OWNER).aget(("a",), "plain")
    assert found is not None
    assert found.value == {"n": 1, "odd": "\x00"}
    with pytest.raises(checkpoint_errors.UnknownKey):
        await mine.aget(("a",), "plain")


async def test_row_29_keys_are_rotated_without_touching_the_items(
    sealed: Store, db: Database
) -> None:
    thread_id = await session(db)
    for owner_id, namespace in ((OWNER, ("a",)), (OTHER, ("a",)), (OWNER, ("sessions", thread_id))):
        await sealed.bind(owner_id).aput(namespace, "k", {"n": owner_id})
    async with Store.open(db, keyring=Keyring([KEY_2, KEY_1])) as rotated:
        assert rotated.keys is not None
        assert await storekeys.in_use(db) == {"k1": 3}
        assert await rotated.bind(OTHER).aget(("a",), "k")
        assert await storekeys.in_use(db) == {"k1": 2, "k2": 1}  # by the way
        assert await rotated.keys.rewrap(db) == 2
        assert await storekeys.in_use(db) == {"k2": 3}
    async with Store.open(db, keyring=Keyring([KEY_2])) as later:
        assert len(await later.bind(OWNER).asearch(())) == 2
    async with Store.open(db, keyring=Keyring([KEY_1])) as without:
        with pytest.raises(checkpoint_errors.UnknownKey):
            await without.bind(OWNER).aget(("a",), "k")
        assert without.keys is not None
        with pytest.raises(checkpoint_errors.UnknownKey, match="left as they were"):
            await without.keys.rewrap(db)


async def test_row_29_vectors_and_encryption_exclude_each_other(db: Database) -> None:
    index = config.Store.model_validate({"index": {"dims": 2, "embed": "openai:any"}})
    with pytest.raises(errors.ConfigError, match="CLEW_ENCRYPTION_KEYS"):
        async with Store.open(db, index, keyring=Keyring([KEY_1])):
            pass
