"""Limits and reuse hold under any number of calls at once."""

import asyncio
from collections import Counter

import pytest

from clew.checkpointing.postgres import Database, Principal
from clew.runtime import errors, lifecycle, limits, sessions
from clew.runtime.limits import Limit


async def test_row_8_a_thousand_creations_with_a_limit_of_a_hundred_make_a_hundred(
    db: Database,
) -> None:
    who = Principal.owner(await db.owner("default", "alice"))

    async def create() -> str:
        try:
            await limits.create(db, who, who.owner_from, Limit(100))
        except errors.Limited:
            return "limited"
        return "made"

    # As many at once as the pool lets wait; the rest follows as they finish.
    gate = asyncio.Semaphore(200)

    async def in_turn() -> str:
        async with gate:
            return await create()

    outcomes = Counter(await asyncio.gather(*(in_turn() for _ in range(1000))))
    assert outcomes == {"made": 100, "limited": 900}
    assert await sessions.count(db, who) == 100


@pytest.mark.parametrize("policy", ["archive_oldest", "delete_oldest"])
async def test_row_8_the_oldest_makes_room(db: Database, policy: limits.Policy) -> None:
    who = Principal.owner(await db.owner("default", "alice"))
    limit = Limit(3, policy)
    made = [(await limits.create(db, who, who.owner_from, limit)).session for _ in range(3)]
    # The oldest one is at work and stays; the next oldest goes.
    await db.execute(
        who, "update clew.session set status = 'busy' where thread_id = %s", [made[0].thread_id]
    )
    last = (await limits.create(db, who, who.owner_from, limit)).session
    states = [(await sessions.find(db, who, s.thread_id)).state for s in (*made, last)]
    gone = "archived" if policy == "archive_oldest" else "deleted"
    assert states == ["active", gone, "active", "active"]
    [entry] = await lifecycle.log(db, who)
    assert (entry.thread_id, entry.actor, entry.to_state) == (made[1].thread_id, "limit", gone)


async def test_row_8_one_that_is_about_to_work_is_not_moved_away(db: Database) -> None:
    who = Principal.owner(await db.owner("default", "alice"))
    limit = Limit(2, "archive_oldest")
    made = [(await limits.create(db, who, who.owner_from, limit)).session for _ in range(2)]
    start = "update clew.session set status = 'busy' where thread_id = %s"
    async with db.transaction(who) as conn:
        await conn.execute(start, [made[0].thread_id])
        await limits.create(db, who, who.owner_from, limit)
    states = [(await sessions.find(db, who, s.thread_id)).state for s in made]
    assert states == ["active", "archived"]


async def test_where_all_are_at_work_there_is_no_room_to_make(db: Database) -> None:
    who = Principal.owner(await db.owner("default", "alice"))
    await limits.create(db, who, who.owner_from, Limit(1))
    await db.execute(who, "update clew.session set status = 'busy'")
    with pytest.raises(errors.Limited):
        await limits.create(db, who, who.owner_from, Limit(1, "delete_oldest"))
    assert await sessions.count(db, who) == 1


async def test_a_limit_is_one_owners_and_an_existing_id_needs_no_room(db: Database) -> None:
    alice, bob = [Principal.owner(await db.owner("default", n)) for n in ("alice", "bob")]
    made = (await limits.create(db, alice, alice.owner_from, Limit(1))).session
    await limits.create(db, bob, bob.owner_from, Limit(1))
    again = await limits.create(
        db,
        alice,
        alice.owner_from,
        Limit(1),
        thread_id=made.thread_id,
        if_exists="do_nothing",
    )
    assert again == limits.Created(made, new=False)
    with pytest.raises(errors.Conflict):
        await limits.create(db, alice, alice.owner_from, Limit(1), thread_id=made.thread_id)
    with pytest.raises(errors.Conflict):  # a stranger's id, although there is room
        await limits.create(db, bob, bob.owner_from, Limit(5), thread_id=made.thread_id)


async def test_row_9_fifty_calls_at_once_that_reuse_the_latest_give_one_session(
    db: Database,
) -> None:
    who = Principal.owner(await db.owner("default", "alice"))
    created = await asyncio.gather(
        *(
            limits.create(db, who, who.owner_from, Limit(), reuse="latest", graph_id="echo")
            for _ in range(50)
        )
    )
    assert len({c.session.thread_id for c in created}) == 1
    assert Counter(c.new for c in created) == {True: 1, False: 49}


async def test_row_9_the_latest_is_the_owners_the_agents_and_alive(db: Database) -> None:
    alice, bob = [Principal.owner(await db.owner("default", n)) for n in ("alice", "bob")]
    older = await sessions.create(db, alice, alice.owner_from, graph_id="echo", kind="chat")
    latest = await sessions.create(db, alice, alice.owner_from, graph_id="echo")
    await sessions.create(db, alice, alice.owner_from, graph_id="other")
    await sessions.create(db, bob, bob.owner_from, graph_id="echo")

    async def reused(kind: str | None = None) -> str | None:
        created = await limits.create(
            db, alice, alice.owner_from, Limit(), reuse="latest", graph_id="echo", kind=kind
        )
        return None if created.new else created.session.thread_id

    assert await reused() == latest.thread_id
    assert await reused(kind="chat") == older.thread_id
    await lifecycle.move(db, alice, older.thread_id, "touch", actor="a")
    assert await reused() == older.thread_id
    await lifecycle.move(db, alice, older.thread_id, "archive", actor="a")
    assert await reused() == latest.thread_id
    await lifecycle.move(db, alice, latest.thread_id, "delete", actor="a")
    assert await reused() is None
