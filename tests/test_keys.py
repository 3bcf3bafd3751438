"""API keys: a digest in the database, a text in one person's hands."""

from datetime import timedelta

import pytest

from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.runtime import errors, keys


async def test_a_key_speaks_for_its_owner_until_it_is_revoked(db: Database) -> None:
    key, text = await keys.create(db, "acme", "alice", name="laptop", scopes=["threads:read"])
    holder = await keys.verify(db, text)
    assert (holder.tenant, holder.owner, holder.key) == ("acme", "alice", key)
    assert (await keys.revoke(db, SERVICE, key.key_id)).revoked_at is not None
    with pytest.raises(errors.Unauthorized):
        await keys.verify(db, text)


@pytest.mark.parametrize("text", ["", "clew_", "clew_x", "other", "clew_\x00\udcff"])
async def test_what_is_no_key_is_refused(db: Database, text: str) -> None:
    with pytest.raises(errors.Unauthorized):
        await keys.verify(db, text)


async def test_a_key_ends_when_its_time_is_up(db: Database) -> None:
    _, text = await keys.create(db, "acme", "alice", name="short", lifetime=timedelta(0))
    with pytest.raises(errors.Unauthorized):
        await keys.verify(db, text)


async def test_the_text_of_a_key_is_nowhere_in_the_database(db: Database) -> None:
    _, text = await keys.create(db, "acme", "alice", name="laptop")
    await keys.verify(db, text)
    [row] = await db.fetch(SERVICE, "select k::text as row from clew.api_key k")
    assert text not in row["row"]
    assert text.removeprefix(keys.PREFIX) not in row["row"]


async def test_keys_of_others_are_not_listed_or_revoked(db: Database) -> None:
    key, text = await keys.create(db, "acme", "alice", name="laptop")
    bob = Principal.owner(await db.owner("acme", "bob"))
    assert await keys.search(db, bob) == []
    with pytest.raises(errors.NotFound):
        await keys.revoke(db, bob, key.key_id)
    await keys.verify(db, text)
    admin = Principal.tenant_of(bob.owner_from)
    assert [k.key_id for k in await keys.search(db, admin)] == [key.key_id]


async def test_a_use_is_noted(db: Database) -> None:
    _, text = await keys.create(db, "acme", "alice", name="laptop")
    assert (await keys.search(db, SERVICE))[0].last_used_at is None
    await keys.verify(db, text)
    assert (await keys.search(db, SERVICE))[0].last_used_at is not None


def test_scopes() -> None:
    assert keys.allows([], "threads", "delete")
    assert keys.allows(["*"], "threads", "delete")
    assert keys.allows(["read"], "store", "list_namespaces")
    assert not keys.allows(["read"], "threads", "create_run")
    assert keys.allows(["threads:write", "read"], "threads", "create_run")
    assert not keys.allows(["threads:write"], "store", "put")


async def test_an_unknown_scope_is_refused(db: Database) -> None:
    with pytest.raises(errors.Invalid):
        await keys.create(db, "acme", "alice", name="k", scopes=["reed"])
