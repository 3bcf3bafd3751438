"""Many at once, each with its own outcome."""

import pytest

from clew.checkpointing.postgres import Database, Principal
from clew.runtime import bulk, errors, ids, lifecycle, sessions


async def test_row_13_what_fails_is_reported_in_its_place(db: Database) -> None:
    who = Principal.owner(await db.owner("acme", "alice"))
    made = [await sessions.create(db, who, who.owner_from) for _ in range(3)]
    wanted = [made[0].thread_id, ids.mint(), made[2].thread_id]
    found = await bulk.each(wanted, lambda thread_id: sessions.get(db, who, thread_id))
    assert (found[0], found[2]) == (made[0], made[2])
    assert isinstance(found[1], errors.NotFound)
    with pytest.raises(errors.TooLarge):
        await bulk.each(["x"] * 1001, lambda thread_id: sessions.get(db, who, thread_id))


async def test_row_13_all_of_an_owner_or_an_agent(db: Database) -> None:
    alice, bob = [Principal.owner(await db.owner("acme", n)) for n in ("alice", "bob")]
    admin = Principal.tenant_of(alice.owner_from)
    for who in (alice, bob):
        for graph_id in ("echo", "echo", "other"):
            await sessions.create(db, who, who.owner_from, graph_id=graph_id)
    busy = await sessions.create(db, alice, alice.owner_from, graph_id="echo")
    await db.execute(
        alice, "update clew.session set status = 'busy' where thread_id = %s", [busy.thread_id]
    )
    gone = await bulk.delete(db, alice, actor="a", graph_id="echo")
    assert gone == bulk.Deleted(2, [busy.thread_id])
    assert await sessions.count(db, alice) == 2
    assert await sessions.count(db, bob) == 3
    # Someone else's, by name: nothing to be seen there.
    assert (await bulk.delete(db, alice, actor="a", owner_id=bob.owner_from)).deleted == 0
    assert (await bulk.delete(db, admin, actor="root", owner_id=bob.owner_from)).deleted == 3
    entries = await lifecycle.log(db, bob)
    assert [(e.actor, e.move) for e in entries] == [("root", "delete")] * 3
    assert entries[0].thread_id is not None
    back = await lifecycle.move(db, bob, entries[0].thread_id, "undelete", actor="bob")
    assert back.state == "active"
    with pytest.raises(errors.Invalid):
        await bulk.delete(db, admin, actor="root")
