"""Sealed values, the keys that seal them, and what is seen of them in the database."""

import os
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.checkpointing import encryption, keys
from clew.checkpointing.encryption import Keyring, Sealer
from clew.checkpointing.errors import (
    EncryptionError,
    KeyDestroyed,
    NotEncrypted,
    Tampered,
    UnknownKey,
    WrongKey,
)
from clew.checkpointing.keys import Vault
from clew.checkpointing.postgres import SERVICE, Database, Principal

OLD = ("old", os.urandom(32))
NEW = ("new", os.urandom(32))
PLACE = encryption.item(7, 11, 13)


@pytest.fixture
def sealer() -> Sealer:
    return Sealer.of(7, 1, encryption.new_key())


def opened(sealer: Sealer, body: bytes, place: bytes = PLACE) -> bytes:
    return encryption.open_body({sealer.lineage_id: sealer}, body, place)


@given(body=st.binary(max_size=400))
def test_what_was_sealed_opens_and_is_never_the_same_twice(body: bytes) -> None:
    sealer = Sealer.of(7, 1, encryption.new_key())
    first, second = sealer.seal(body, PLACE), sealer.seal(body, PLACE)
    assert opened(sealer, first) == opened(sealer, second) == body
    assert first != second
    assert encryption.lineages([first]) == {7}


@given(data=st.data(), body=st.binary(max_size=80))
def test_no_bit_of_it_can_be_changed(data: st.DataObject, body: bytes) -> None:
    sealer = Sealer.of(7, 1, encryption.new_key())
    sealed = bytearray(sealer.seal(body, PLACE))
    at = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[at // 8] ^= 1 << at % 8
    with pytest.raises(EncryptionError):
        opened(sealer, bytes(sealed))


@given(data=st.data(), body=st.binary(max_size=80))
def test_it_cannot_be_cut_short(data: st.DataObject, body: bytes) -> None:
    sealer = Sealer.of(7, 1, encryption.new_key())
    sealed = sealer.seal(body, PLACE)
    with pytest.raises(EncryptionError):
        opened(sealer, sealed[: data.draw(st.integers(0, len(sealed) - 1))])


def test_it_opens_in_its_own_place_only(sealer: Sealer) -> None:
    checkpoint, task = uuid4(), uuid4()
    places = {
        PLACE,
        encryption.item(8, 11, 13),
        encryption.item(7, 12, 13),
        encryption.item(7, 11, 14),
        encryption.write(checkpoint, task, 0, "", "a"),
        encryption.write(task, checkpoint, 0, "", "a"),
        encryption.write(checkpoint, task, 1, "", "a"),
        encryption.write(checkpoint, task, 0, "a", ""),
        encryption.write(checkpoint, task, 0, "", "b"),
    }
    assert len(places) == 9
    for mine in places:
        sealed = sealer.seal(b"value", mine)
        assert opened(sealer, sealed, mine) == b"value"
        for other in places - {mine}:
            with pytest.raises(Tampered):
                opened(sealer, sealed, other)


def test_another_owner_or_lineage_does_not_open_it_even_with_the_key() -> None:
    data_key = encryption.new_key()
    sealed = Sealer.of(7, 1, data_key).seal(b"value", PLACE)
    with pytest.raises(Tampered):
        opened(Sealer.of(7, 2, data_key), sealed)
    with pytest.raises(KeyDestroyed):
        opened(Sealer.of(8, 1, data_key), sealed)


def test_a_plain_value_is_refused(sealer: Sealer) -> None:
    with pytest.raises(NotEncrypted, match="clew encryption encrypt"):
        opened(sealer, b"\x03plain")
    with pytest.raises(NotEncrypted):
        opened(sealer, b"")
    with pytest.raises(NotEncrypted):
        encryption.lineages([sealer.seal(b"", PLACE), b"\x03plain"])


def test_a_keyring_says_what_is_wrong_with_it_and_shows_no_key() -> None:
    for bad in ([], [("a", b"short")], [OLD, OLD]):
        with pytest.raises(EncryptionError) as caught:
            Keyring(bad)
        assert OLD[1].hex() not in str(caught.value)
    assert repr(Keyring([NEW, OLD])) == "Keyring(new, old)"
    assert "cipher" not in repr(Sealer.of(1, 1, OLD[1]))


def test_an_unknown_key_and_a_wrong_one_are_told_apart() -> None:
    data_key, place = encryption.new_key(), encryption.owned(7, 1)
    wrapped = Keyring([OLD]).wrap(data_key, place)
    assert Keyring([NEW, OLD]).unwrap("old", wrapped, place) == data_key
    with pytest.raises(UnknownKey, match="old"):
        Keyring([NEW]).unwrap("old", wrapped, place)
    with pytest.raises(WrongKey, match="old"):
        Keyring([("old", os.urandom(32))]).unwrap("old", wrapped, place)
    with pytest.raises(WrongKey):
        Keyring([OLD]).unwrap("old", wrapped, encryption.owned(8, 1))


# --- in the database ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    lineage_id: int
    who: Principal


async def line(db: Database, owner: str = "ann") -> Line:
    owner_id = await db.owner("acme", owner)
    row = await db.one(
        Principal.owner(owner_id),
        "insert into clew.lineage (owner_id, thread_id, kind) values (%s, %s, 'root')"
        " returning lineage_id",
        [owner_id, uuid4().hex],
    )
    assert row is not None
    return Line(row["lineage_id"], Principal.owner(owner_id))


async def key_id(db: Database, of: Line) -> str:
    row = await db.one(
        of.who, "select key_id from clew.lineage where lineage_id = %s", [of.lineage_id]
    )
    assert row is not None
    return row["key_id"]


async def test_the_first_write_makes_the_key_and_everyone_finds_it(db: Database) -> None:
    one = await line(db)
    assert await Vault(Keyring([OLD])).sealers(db, one.who, [one.lineage_id]) == {}
    writer = await Vault(Keyring([OLD])).writer(db, one.who, one.lineage_id)
    found = await Vault(Keyring([NEW, OLD])).sealers(db, one.who, [one.lineage_id])
    assert opened(found[one.lineage_id], writer.seal(b"value", PLACE)) == b"value"


async def test_two_processes_that_write_first_agree_on_one_key(db: Database) -> None:
    one = await line(db)
    first, second = Vault(Keyring([OLD])), Vault(Keyring([OLD]))
    async with db.transaction(one.who) as conn:
        mine = await first.writer_in(conn, one.who, one.lineage_id)
    theirs = await second.writer(db, one.who, one.lineage_id)
    assert opened(theirs, mine.seal(b"value", PLACE)) == b"value"


async def test_a_key_made_in_a_transaction_that_rolls_back_is_not_remembered(db: Database) -> None:
    one, vault = await line(db), Vault(Keyring([OLD]))
    async with db.transaction(one.who) as conn:
        await vault.writer_in(conn, one.who, one.lineage_id)
        raise psycopg.Rollback
    assert await vault.sealers(db, one.who, [one.lineage_id]) == {}


async def test_a_remembered_key_is_not_given_to_another_owner(db: Database) -> None:
    ann, bob = await line(db, "ann"), await line(db, "bob")
    vault = Vault(Keyring([OLD]))
    await vault.writer(db, ann.who, ann.lineage_id)
    assert await vault.sealers(db, bob.who, [ann.lineage_id]) == {}
    assert set(await vault.sealers(db, SERVICE, [ann.lineage_id])) == {ann.lineage_id}


async def test_the_wrapped_key_of_one_lineage_does_not_work_on_another(db: Database) -> None:
    one, two = await line(db), await line(db)
    await Vault(Keyring([OLD])).writer(db, one.who, one.lineage_id)
    await db.execute(
        SERVICE,
        "update clew.lineage l set key_id = f.key_id, wrapped_key = f.wrapped_key"
        " from clew.lineage f where f.lineage_id = %s and l.lineage_id = %s",
        [one.lineage_id, two.lineage_id],
    )
    with pytest.raises(WrongKey):
        await Vault(Keyring([OLD])).sealers(db, two.who, [two.lineage_id])


async def test_memory_is_bounded_and_forgets_in_time(db: Database) -> None:
    lines = [await line(db) for _ in range(4)]
    small = Vault(Keyring([OLD]), size=2)
    for one in lines:
        await small.writer(db, one.who, one.lineage_id)
    assert len(small) == 2

    async def destroy(one: Line) -> None:
        await db.execute(
            one.who,
            "update clew.lineage set wrapped_key = null where lineage_id = %s",
            [one.lineage_id],
        )

    last = lines[3]
    await destroy(last)
    assert await small.sealers(db, last.who, [last.lineage_id]) != {}
    small.forget([last.lineage_id])
    assert await small.sealers(db, last.who, [last.lineage_id]) == {}
    brief = Vault(Keyring([OLD]), lifetime=timedelta(0))
    await brief.sealers(db, lines[2].who, [lines[2].lineage_id])
    await destroy(lines[2])
    assert await brief.sealers(db, lines[2].who, [lines[2].lineage_id]) == {}


async def test_reading_moves_a_key_under_the_newest_name(db: Database) -> None:
    one = await line(db)
    old = await Vault(Keyring([OLD])).writer(db, one.who, one.lineage_id)
    assert await key_id(db, one) == "old"
    await Vault(Keyring([NEW, OLD])).sealers(db, one.who, [one.lineage_id])
    assert await key_id(db, one) == "new"
    new = await Vault(Keyring([NEW])).sealers(db, one.who, [one.lineage_id])
    assert opened(new[one.lineage_id], old.seal(b"value", PLACE)) == b"value"


async def test_rotation_by_command_moves_all_keys_and_names_what_it_cannot(db: Database) -> None:
    lines = [await line(db, f"owner-{n}") for n in range(5)]
    for one in lines[:4]:
        await Vault(Keyring([OLD])).writer(db, one.who, one.lineage_id)
    await Vault(Keyring([("lost", os.urandom(32))])).writer(db, lines[4].who, lines[4].lineage_id)
    assert await keys.in_use(db) == {"old": 4, "lost": 1}
    seen: list[int] = []
    with pytest.raises(UnknownKey, match=r"lost.*1 lineages"):
        await Vault(Keyring([NEW, OLD])).rewrap(db, seen.append)
    assert seen == [4]
    assert await keys.in_use(db) == {"new": 4, "lost": 1}
    assert await Vault(Keyring([NEW])).sealers(db, lines[0].who, [lines[0].lineage_id])


async def test_what_was_stored_in_clear_is_encrypted_by_command(db: Database) -> None:
    one, vault = await line(db), Vault(Keyring([OLD]))
    task = uuid4()
    checkpoint = UUID("1f0a0b0c-0d0e-6f00-8000-000000000001")
    owner = one.who.owner_from
    for number in range(1203):
        await db.execute(
            one.who,
            "insert into clew.item (lineage_id, owner_id, stream, number, body)"
            " values (%s, %s, 5, %s, %s)",
            [one.lineage_id, owner, number, b"\x01plain words"],
        )
    await db.execute(
        one.who,
        "insert into clew.write (lineage_id, owner_id, seq, slot, checkpoint_id, task_id, ns,"
        " channel, path, body) values (%s, %s, 1, 0, %s, %s, 'a|b', 'c', '', %s)",
        [one.lineage_id, owner, checkpoint, task, b"\x01plain words"],
    )
    assert await keys.encrypt(db, vault) == 1
    assert await keys.encrypt(db, vault) == 0
    sealers = await vault.sealers(db, one.who, [one.lineage_id])
    for row in await db.fetch(one.who, "select stream, number, body from clew.item"):
        assert b"plain" not in row["body"]
        place = encryption.item(one.lineage_id, row["stream"], row["number"])
        assert encryption.open_body(sealers, row["body"], place) == b"\x01plain words"
    row = await db.one(one.who, "select body from clew.write")
    assert row is not None
    place = encryption.write(checkpoint, task, 0, "a|b", "c")
    assert encryption.open_body(sealers, row["body"], place) == b"\x01plain words"
