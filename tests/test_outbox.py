"""What happened, told in order and only when it is certain."""

import asyncio
from datetime import timedelta

import pytest

from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.runtime import errors, lifecycle, outbox, sessions
from clew.runtime.outbox import Happening, Place


async def first(
    db: Database, who: Principal, count: int, after: Place = outbox.START
) -> list[Happening]:
    """The next happenings; waits, since transactions of others on this server hold them back."""
    found: list[Happening] = []
    async with asyncio.timeout(30):
        async for happening in outbox.follow(db, who, after):
            found.append(happening)
            if len(found) == count:
                break
    return found


async def test_row_28_the_life_of_a_session_is_told(db: Database) -> None:
    who = Principal.owner(await db.owner("default", "alice"))
    made = await sessions.create(db, who, who.owner_from, title="会话")
    key = made.thread_id
    await sessions.patch(db, who, key, {"title": "new"})
    for move in ("archive", "unarchive", "delete", "undelete"):
        await lifecycle.move(db, who, key, move, actor="a")
    await lifecycle.move(db, who, key, "touch", actor="a")
    await sessions.create(db, who, who.owner_from, temporary=True)
    await sessions.create(db, who, who.owner_from, parent_thread_id=key)
    await sessions.delete(db, who, key, actor="a")
    found = await first(db, who, 8)
    assert [happening.kind for happening in found] == [
        "session.created",
        "session.updated",
        "session.archived",
        "session.unarchived",
        "session.deleted",
        "session.undeleted",
        "session.forked",
        "session.purged",
    ]
    assert found[0].data["title"] == "会话"
    assert found[1].data["version"] == 2
    assert found[6].data["parent_thread_id"] == key
    places = [happening.place for happening in found]
    assert places == sorted(places)
    # From a place on, and of one session.
    assert await first(db, who, 5, after=places[2]) == found[3:]
    assert await outbox.read(db, who, outbox.START, thread_id=found[6].thread_id) == [found[6]]
    bob = Principal.owner(await db.owner("default", "bob"))
    assert await outbox.read(db, bob, outbox.START) == []


async def test_a_transaction_that_commits_late_is_not_overtaken(db: Database) -> None:
    who = Principal.owner(await db.owner("default", "alice"))
    announce = "insert into clew.outbox (owner_id, kind) values (%s, %s)"
    async with db.transaction(who) as conn:
        await conn.execute(announce, [who.owner_from, "early"])
        await db.execute(who, announce, [who.owner_from, "late"])
        assert await outbox.read(db, who, outbox.START) == []
    assert [happening.kind for happening in await first(db, who, 2)] == ["early", "late"]


async def test_a_hook_hears_of_every_owner_from_its_start_on(db: Database) -> None:
    heard: asyncio.Queue[Happening] = asyncio.Queue()
    alice, bob = [Principal.owner(await db.owner("default", n)) for n in ("alice", "bob")]
    await sessions.create(db, alice, alice.owner_from)
    async with outbox.hooked(db, heard.put):
        made = [await sessions.create(db, who, who.owner_from) for who in (alice, bob)]
        async with asyncio.timeout(30):
            found = [await heard.get() for _ in made]
    assert [h.thread_id for h in found] == [s.thread_id for s in made]
    assert heard.empty()


async def test_what_is_old_is_forgotten_a_bounded_number_at_a_time(db: Database) -> None:
    who = Principal.owner(await db.owner("default", "alice"))
    for _ in range(5):
        await sessions.create(db, who, who.owner_from)
    day, none = timedelta(days=1), timedelta(0)
    assert await outbox.trim(db, day) == 0
    assert await outbox.trim(db, none, limit=3) == 3
    assert await outbox.trim(db, none, limit=3) == 2
    [row] = await db.fetch(SERVICE, "select count(*) as rows from clew.outbox")
    assert row["rows"] == 0


@pytest.mark.parametrize("text", ["", "1", "1-", "-1", "a-b", "1-2-3", "1" * 50 + "-1"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(errors.Invalid):
        Place.parse(text)
