"""Leases: who runs what survives the death of workers, and nobody writes what is no longer his."""

from datetime import timedelta

import psycopg
import pytest_asyncio
from psycopg import AsyncConnection

from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.runtime import interrupts, leases, runs, sessions
from clew.runtime.leases import Ending, Question
from clew.runtime.notifier import LOCK_CLASS
from clew.runtime.requests import RunRequest
from clew.runtime.runs import Run

DONE = Ending(status="success", rest="idle")
LONG = timedelta(seconds=30)
# Advisory locks belong to a database, and each test has its own.
KEY = 7


@pytest_asyncio.fixture
async def run(db: Database) -> Run:
    """A running run of a worker."""
    owner_id = await db.owner("acme", "ann")
    who = Principal.owner(owner_id)
    session = await sessions.create(db, who, owner_id)
    worker_id = await leases.enlist(db, "one", LONG, lock_key=KEY)
    return await runs.create(
        db, who, owner_id, session.thread_id, RunRequest(graph_id="echo"), worker_id=worker_id
    )


async def worker(db: Database) -> int:
    return await leases.enlist(db, "another", LONG)


async def silence(db: Database, run: Run, *, lease_over: bool = False) -> None:
    """Move the worker's last heartbeat, and if asked its lease, into the past."""
    await db.execute(
        SERVICE,
        "update clew.worker set heartbeat_at = now() - interval '5 seconds', "
        "lease_until = lease_until - %s * interval '1 hour' where worker_id = %s",
        [int(lease_over), run.worker_id],
    )


async def long_running_server(db: Database) -> None:
    """The hint of a free lock counts only once the server has run for three seconds."""
    row = await db.one(
        SERVICE, "select now() - pg_postmaster_start_time() > interval '3 seconds' as old"
    )
    assert row is not None
    assert row["old"]


async def test_a_heartbeat_says_what_the_worker_holds(db: Database, run: Run):
    assert run.worker_id is not None
    held = await leases.renew(db, run.worker_id, LONG, lock_key=KEY)
    assert held == [leases.Held(run.run_id, 1, None, None)]
    await runs.cancel(db, SERVICE, run_ids=[run.run_id], reason="because")
    assert await leases.held(db, run.worker_id) == [
        leases.Held(run.run_id, 1, "interrupt", "because")
    ]


async def test_a_live_worker_keeps_its_runs(db: Database, run: Run):
    other = await worker(db)
    assert await leases.reap(db, other) == []


async def test_a_silent_worker_that_holds_its_lock_keeps_its_runs(db: Database, run: Run, dsn: str):
    await long_running_server(db)
    async with await AsyncConnection.connect(dsn, autocommit=True) as conn:
        await conn.execute("select pg_advisory_lock(%s, %s)", [LOCK_CLASS, KEY])
        await silence(db, run)
        assert await leases.reap(db, await worker(db)) == []


async def test_a_silent_worker_without_its_lock_is_dead(db: Database, run: Run):
    await long_running_server(db)
    await silence(db, run)
    other = await worker(db)
    assert await leases.reap(db, other) == [run.run_id]
    (again,) = await leases.claim(db, other, 1)
    assert (again.run_id, again.attempt, again.crashes, again.epoch) == (run.run_id, 2, 1, 2)


async def test_a_worker_whose_lease_ran_out_is_dead_whatever_it_holds(
    db: Database, run: Run, dsn: str
):
    async with await AsyncConnection.connect(dsn, autocommit=True) as conn:
        await conn.execute("select pg_advisory_lock(%s, %s)", [LOCK_CLASS, KEY])
        await silence(db, run, lease_over=True)
        assert await leases.reap(db, await worker(db)) == [run.run_id]
    assert run.worker_id is not None
    assert await leases.renew(db, run.worker_id, LONG, lock_key=KEY) is None


async def test_the_dead_can_neither_claim_nor_finish_nor_release(db: Database, run: Run):
    await silence(db, run, lease_over=True)
    other = await worker(db)
    await leases.reap(db, other)
    assert run.worker_id is not None
    assert await leases.claim(db, run.worker_id, 1) == []
    (again,) = await leases.claim(db, other, 1)
    assert await leases.finish(db, run, DONE, []) is None
    assert await leases.release(db, run) is False
    assert await leases.roll_back(db, run) is False
    assert (await runs.get(db, SERVICE, None, run.run_id)).status == "running"
    assert await leases.finish(db, again, DONE, []) is not None


async def test_a_worker_past_its_lease_starts_nothing_inline(db: Database, run: Run):
    await leases.finish(db, run, DONE, [])
    await silence(db, run, lease_over=True)
    who = Principal.owner(run.owner_id)
    late = await runs.create(
        db, who, run.owner_id, run.thread_id, RunRequest(graph_id="e"), worker_id=run.worker_id
    )
    assert late.status == "pending"


async def test_a_run_given_back_goes_on_elsewhere(db: Database, run: Run):
    assert await leases.release(db, run)
    (again,) = await leases.claim(db, await worker(db), 1)
    assert (again.run_id, again.attempt, again.crashes) == (run.run_id, 2, 0)


async def test_a_worker_that_leaves_gives_everything_back(db: Database, run: Run):
    assert run.worker_id is not None
    assert await leases.discharge(db, run.worker_id) == 1
    assert (await runs.get(db, SERVICE, None, run.run_id)).status == "pending"


async def test_an_end_settles_run_session_and_questions_together(db: Database, run: Run):
    who = Principal.owner(run.owner_id)
    question = Question("i1", ("ask:1",), b'{"q":"ok?"}')
    ending = Ending(
        status="success",
        rest="interrupted",
        interrupts={"task": [{"id": "i1", "value": {"q": "ok?"}}]},
        questions=[question],
        message_count=3,
        interrupt_timeout=timedelta(hours=1),
    )
    assert await leases.finish(db, run, ending, [])
    session = await sessions.get(db, who, run.thread_id)
    assert (session.status, session.message_count) == ("interrupted", 3)
    assert session.interrupts == ending.interrupts
    (asked,) = await interrupts.inbox(db, who)
    assert (asked.interrupt_id, asked.value, asked.namespace) == ("i1", {"q": "ok?"}, ("ask:1",))
    assert asked.deadline_at is not None
    answer = await runs.create(
        db,
        who,
        run.owner_id,
        run.thread_id,
        RunRequest(graph_id="echo", command={"resume": "yes"}),
        worker_id=run.worker_id,
    )
    await leases.finish(db, answer, Ending(status="success", rest="idle", resumed=True), [])
    assert await interrupts.inbox(db, who) == []
    closed = await interrupts.get(db, who, run.thread_id, "i1")
    assert (closed.outcome, closed.answered_by) == ("answered", answer.run_id)


async def test_rolling_back_leaves_no_trace(db: Database, run: Run):
    assert await leases.roll_back(db, run)
    assert await db.fetch(SERVICE, "select from clew.run") == []
    assert await db.fetch(SERVICE, "select from clew.event") == []
    who = Principal.owner(run.owner_id)
    assert (await sessions.get(db, who, run.thread_id)).status == "idle"


async def test_locks_are_taken_in_one_order(db: Database, run: Run, dsn: str):
    """A claim waits for whoever holds the head, and that one can still lock what claims need."""
    await leases.release(db, run)
    async with await psycopg.AsyncConnection.connect(dsn) as holder:
        await holder.execute(
            "select from clew.head where thread_id = %s for update", [run.thread_id]
        )
        async with await AsyncConnection.connect(dsn, autocommit=True) as claimer:
            await claimer.execute("set lock_timeout = '100ms'")
            other = await worker(db)
            try:
                await claimer.execute(
                    leases.queries["claim_runs"], {"worker_id": other, "limit": 1, "opens": []}
                )
                raise AssertionError("claimed under a held head")
            except psycopg.errors.LockNotAvailable:
                pass
    (again,) = await leases.claim(db, other, 1)
    assert again.run_id == run.run_id
