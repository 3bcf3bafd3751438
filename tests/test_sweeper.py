"""The sweeper announces what time did and removes it, in bounded passes, on any replica."""

import asyncio
from datetime import timedelta

import pytest

from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.runtime import errors, lifecycle, outbox, sessions, sweeper
from clew.runtime.sessions import Ttl
from clew.runtime.sweeper import Rules

NOW = timedelta(0)


async def left(db: Database) -> set[str]:
    rows = await db.fetch(SERVICE, "select thread_id from clew.session")
    return {row["thread_id"] for row in rows}


async def test_row_10_what_expired_is_swept_counted_and_told(db: Database) -> None:
    who = Principal.owner(await db.owner("default", "alice"))
    gone = [await sessions.create(db, who, who.owner_from, ttl=Ttl(NOW)) for _ in range(3)]
    kept = [
        await sessions.create(db, who, who.owner_from),
        await sessions.create(db, who, who.owner_from, ttl=Ttl(timedelta(hours=1))),
    ]
    busy = await sessions.create(db, who, who.owner_from, ttl=Ttl(timedelta(hours=1)))
    await db.execute(
        who,
        "update clew.session set status = 'busy', expires_at = now() where thread_id = %s",
        [busy.thread_id],
    )
    swept = await sweeper.sweep(db, Rules())
    assert (swept.expired, swept.purged, swept.more) == (3, 0, False)
    assert await left(db) == {s.thread_id for s in (*kept, busy)}
    entries = await lifecycle.log(db, who)
    assert {e.thread_id for e in entries} == {s.thread_id for s in gone}
    assert {(e.actor, e.move) for e in entries} == {("sweeper", "expire")}
    rows = await db.fetch(who, "select kind, thread_id from clew.outbox order by outbox_id")
    told = [row["thread_id"] for row in rows if row["kind"] == "session.expired"]
    assert sorted(told) == sorted(s.thread_id for s in gone)


async def test_a_deletion_becomes_final_when_it_can_no_longer_be_undone(db: Database) -> None:
    who = Principal.owner(await db.owner("default", "alice"))
    made = await sessions.create(db, who, who.owner_from)
    await lifecycle.move(db, who, made.thread_id, "delete", actor="a")
    assert (await sweeper.sweep(db, Rules())).purged == 0
    assert (await sweeper.sweep(db, Rules(undo_window=NOW))).purged == 1
    with pytest.raises(errors.NotFound):
        await sessions.find(db, who, made.thread_id)


async def test_a_temporary_session_that_is_done_does_not_wait_for_the_window(
    db: Database,
) -> None:
    who = Principal.owner(await db.owner("default", "alice"))
    await sessions.create(db, who, who.owner_from, temporary=True)
    assert (await sweeper.sweep(db, Rules())).purged == 0
    await db.execute(who, "update clew.session set deleted_at = now()")
    assert (await sweeper.sweep(db, Rules())).purged == 1


async def test_a_pass_is_bounded_and_replicas_share_the_work(db: Database) -> None:
    who = Principal.owner(await db.owner("default", "alice"))
    for _ in range(20):
        await sessions.create(db, who, who.owner_from, ttl=Ttl(NOW))
    swept = await sweeper.sweep(db, Rules(limit=5))
    assert (swept.expired, swept.more) == (5, True)
    passes = await asyncio.gather(*(sweeper.sweep(db, Rules(limit=20)) for _ in range(3)))
    assert sum(p.expired for p in passes) == 15
    assert await left(db) == set()


async def test_a_session_that_keeps_its_latest_checkpoint_lives_on(db: Database) -> None:
    who = Principal.owner(await db.owner("default", "alice"))
    ttl = Ttl(NOW, strategy="keep_latest")
    made = await sessions.create(db, who, who.owner_from, ttl=ttl)
    assert (await sessions.get(db, who, made.thread_id)).state == "active"
    assert (await sweeper.sweep(db, Rules())).thinned == 0  # nobody to thin it: left for later
    thinned: list[str] = []

    async def thin(thread_id: str) -> None:
        thinned.append(thread_id)

    assert (await sweeper.sweep(db, Rules(), thin)).thinned == 1
    assert (await sweeper.sweep(db, Rules(), thin)).thinned == 0
    assert thinned == [made.thread_id]
    # Its next activity gives it a new term.
    await db.execute(who, "update clew.session set last_active_at = now()")
    assert (await sweeper.sweep(db, Rules(), thin)).thinned == 1


async def test_it_sweeps_for_as_long_as_it_runs(db: Database) -> None:
    who = Principal.owner(await db.owner("default", "alice"))
    start, _ = await outbox.end(db)
    async with (
        asyncio.timeout(30),
        sweeper.running(db, Rules(), interval=timedelta(milliseconds=20)),
    ):
        made = await sessions.create(db, who, who.owner_from, ttl=Ttl(NOW))
        async for happening in outbox.follow(db, who, start, poll=timedelta(milliseconds=20)):
            if happening.kind == "session.expired":
                assert happening.thread_id == made.thread_id
                break


async def test_a_session_that_cannot_be_removed_does_not_hold_up_the_others(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    who = Principal.owner(await db.owner("default", "alice"))
    stuck, *others = [
        await sessions.create(db, who, who.owner_from, ttl=Ttl(NOW)) for _ in range(3)
    ]
    await db.execute(
        SERVICE,
        "insert into clew.interrupt (thread_id, interrupt_id, owner_id, value) "
        "values (%s, 'i', %s, '')",
        [stuck.thread_id, who.owner_from],
    )
    async with db.connection() as conn:  # something that refuses the deletion
        await conn.execute(
            "create function public.refuse() returns trigger language plpgsql "
            "as $$ begin raise 'no'; end $$"
        )
        await conn.execute(
            "create trigger refuse before delete on clew.interrupt "
            "for each row execute function public.refuse()"
        )
    assert (await sweeper.sweep(db, Rules())).expired == len(others)
    assert await left(db) == {stuck.thread_id}
    assert stuck.thread_id in caplog.text
