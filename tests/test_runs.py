"""Runs: one at a time, first come first served, never lost, never another owner's."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, LiteralString

import pytest
import pytest_asyncio
from psycopg.errors import UniqueViolation

from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.runtime import errors, ids, leases, runs, sessions
from clew.runtime.leases import Ending
from clew.runtime.requests import RunRequest
from clew.runtime.runs import Limits, Run

DONE = Ending(status="success", rest="idle")


class Bench:
    """One owner with one session, and one worker."""

    def __init__(self, db: Database, owner_id: int, thread_id: str, worker_id: int) -> None:
        self.db = db
        self.owner_id = owner_id
        self.who = Principal.owner(owner_id)
        self.thread_id = thread_id
        self.worker_id = worker_id

    async def ask(self, *, inline: bool = False, limits: Limits | None = None, **asked: Any) -> Run:
        thread_id = asked.pop("thread_id", self.thread_id)
        return await runs.create(
            self.db,
            self.who,
            self.owner_id,
            thread_id,
            RunRequest(graph_id="echo", **asked),
            worker_id=self.worker_id if inline else None,
            limits=limits,
        )

    async def claim(self, limit: int = 10) -> list[Run]:
        return await leases.claim(self.db, self.worker_id, limit)

    async def status(self) -> str:
        return (await sessions.get(self.db, self.who, self.thread_id)).status

    async def again(self, run: Run) -> Run:
        return await runs.get(self.db, self.who, self.thread_id, run.run_id)


@pytest_asyncio.fixture
async def bench(db: Database) -> Bench:
    owner_id = await db.owner("acme", "ann")
    session = await sessions.create(db, Principal.owner(owner_id), owner_id)
    worker_id = await leases.enlist(db, "test", timedelta(seconds=30))
    return Bench(db, owner_id, session.thread_id, worker_id)


async def test_a_run_starts_at_once_where_the_session_is_free(bench: Bench):
    run = await bench.ask(inline=True, input={"text": "你好"}, metadata={"m": 1})
    assert (run.status, run.attempt, run.epoch) == ("running", 1, 1)
    assert run.kwargs["input"] == {"text": "你好"}
    assert await bench.status() == "busy"


async def test_a_request_comes_back_from_the_row_as_it_was(bench: Bench):
    request = RunRequest(
        graph_id="echo",
        assistant_id="fe096781-5601-53d2-b2f6-0d3403f7e9ca",
        input={"nul": "a\x00b", "n": [1, 2.5, None]},
        command=None,
        config={"configurable": {"k": "v"}},
        metadata={"m": 1},
        stream_mode=["values", "custom"],
        stream_subgraphs=True,
        checkpoint={"checkpoint_id": "x", "checkpoint_ns": ""},
        interrupt_before=["a"],
        durability="exit",
        timeout=timedelta(seconds=1.5),
        interrupt_timeout=timedelta(minutes=2),
    )
    run = await runs.create(bench.db, bench.who, bench.owner_id, bench.thread_id, request)
    assert (await bench.again(run)).request() == request


async def test_turns_wait_for_each_other_and_keep_their_order(bench: Bench):
    first = await bench.ask(inline=True)
    later = [await bench.ask(inline=True) for _ in range(3)]
    assert [run.status for run in later] == ["pending"] * 3
    assert await bench.claim() == []
    served: list[str] = []
    run = first
    for _ in later:
        assert await leases.finish(bench.db, run, DONE, [])
        assert await bench.status() == "busy"
        (run,) = await bench.claim()
        served.append(run.run_id)
    assert served == [run.run_id for run in later]
    assert await leases.finish(bench.db, run, DONE, [])
    assert await bench.status() == "idle"


async def test_an_inline_run_never_overtakes_one_that_waits(bench: Bench):
    waiting = await bench.ask()
    late = await bench.ask(inline=True)
    assert (waiting.status, late.status) == ("pending", "pending")
    (run,) = await bench.claim()
    assert run.run_id == waiting.run_id


async def test_row_25_the_database_refuses_two_running_runs_of_a_session(bench: Bench):
    await bench.ask(inline=True)
    await bench.ask()
    with pytest.raises(UniqueViolation):
        await bench.db.execute(
            SERVICE,
            "update clew.run set status = 'running', worker_id = 1 where status = 'pending'",
        )


async def test_row_25_many_at_once_start_exactly_one(bench: Bench):
    made = await asyncio.gather(*(bench.ask(inline=True) for _ in range(12)))
    assert sorted(run.status for run in made).count("running") == 1
    assert len({run.run_id for run in made}) == 12


async def test_many_claimers_each_get_runs_of_their_own(bench: Bench):
    for _ in range(20):
        session = await sessions.create(bench.db, bench.who, bench.owner_id)
        await bench.ask(thread_id=session.thread_id)
        await bench.ask(thread_id=session.thread_id)
    claimed = await asyncio.gather(*(bench.claim(3) for _ in range(10)))
    found = [run for batch in claimed for run in batch] + await bench.claim(100)
    assert len({run.run_id for run in found}) == len(found) == 20
    assert len({run.thread_id for run in found}) == 20


async def test_each_claim_moves_the_epoch_on(bench: Bench):
    epochs: list[int | None] = []
    for _ in range(3):
        run = await bench.ask(inline=True)
        epochs.append(run.epoch)
        await leases.finish(bench.db, run, DONE, [])
    assert epochs == [1, 2, 3]


async def test_reject_makes_nothing(bench: Bench):
    await bench.ask()
    with pytest.raises(errors.Conflict, match="already running a task"):
        await bench.ask(multitask_strategy="reject")
    assert await runs.count(bench.db, bench.who, bench.thread_id) == 1


async def test_interrupt_ends_what_waits_and_asks_what_runs_to_stop(bench: Bench):
    running = await bench.ask(inline=True)
    waiting = await bench.ask()
    newest = await bench.ask(inline=True, multitask_strategy="interrupt")
    assert newest.status == "pending"
    assert (await bench.again(waiting)).status == "interrupted"
    asked = await bench.again(running)
    assert (asked.status, asked.cancel) == ("running", "interrupt")
    assert asked.cancel_reason == (
        f"superseded by run {newest.run_id} (multitask_strategy=interrupt)"
    )


async def test_rollback_removes_what_waits(bench: Bench):
    running = await bench.ask(inline=True)
    waiting = await bench.ask()
    await bench.ask(multitask_strategy="rollback")
    with pytest.raises(errors.NotFound):
        await bench.again(waiting)
    assert (await bench.again(running)).cancel == "rollback"


async def test_cancel_of_a_waiting_run_is_over_at_once_and_frees_the_session(bench: Bench):
    run = await bench.ask()
    assert await bench.status() == "busy"
    (stopped,) = await runs.cancel(bench.db, bench.who, run_ids=[run.run_id])
    assert stopped.status == "interrupted"
    assert await bench.status() == "idle"
    with pytest.raises(errors.NotFound, match="No matching runs to cancel"):
        await runs.cancel(bench.db, bench.who, run_ids=[run.run_id])


async def test_a_session_goes_back_to_how_its_last_run_left_it(bench: Bench):
    run = await bench.ask(inline=True)
    left = Ending(status="error", rest="error", error={"error": "ValueError", "message": "boom"})
    await leases.finish(bench.db, run, left, [])
    await bench.ask()
    assert await bench.status() == "busy"
    await runs.cancel(bench.db, bench.who, thread_id=bench.thread_id, status="all")
    assert await bench.status() == "error"


async def test_rolling_back_a_waiting_run_removes_it(bench: Bench):
    run = await bench.ask()
    await runs.cancel(bench.db, bench.who, run_ids=[run.run_id], action="rollback")
    with pytest.raises(errors.NotFound):
        await bench.again(run)
    assert await bench.status() == "idle"


async def test_an_idempotency_key_makes_one_run_however_often_it_is_used(bench: Bench):
    asked = [bench.ask(inline=True, input={"n": 1}, idempotency_key="k") for _ in range(5)]
    made = await asyncio.gather(*asked)
    assert len({run.run_id for run in made}) == 1
    with pytest.raises(errors.Conflict, match="Idempotency-Key"):
        await bench.ask(input={"n": 2}, idempotency_key="k")


async def test_an_idempotency_key_holds_across_stateless_sessions(bench: Bench):
    def stateless() -> Awaitable[Run]:
        return bench.ask(thread_id=ids.mint(), temporary=True, idempotency_key="k")

    made = await asyncio.gather(*(stateless() for _ in range(5)))
    assert len({run.run_id for run in made}) == 1


async def test_a_scheduled_run_waits_for_its_time_and_blocks_nobody(bench: Bench):
    scheduled = await bench.ask(inline=True, after=timedelta(hours=1))
    assert scheduled.status == "pending"
    assert await bench.status() == "busy"
    assert (await bench.ask(inline=True)).status == "running"
    wait = await leases.next_due(bench.db)
    assert wait is not None
    assert timedelta(minutes=59) < wait <= timedelta(hours=1)


async def test_limits_of_a_session_and_of_an_owner(bench: Bench):
    await bench.ask()
    with pytest.raises(errors.Limited) as refused:
        await bench.ask(limits=Limits(per_session=1))
    assert refused.value.retry_after
    other = await sessions.create(bench.db, bench.who, bench.owner_id)
    with pytest.raises(errors.Limited):
        await bench.ask(thread_id=other.thread_id, limits=Limits(per_owner=1))
    assert await bench.ask(thread_id=other.thread_id, limits=Limits(per_owner=2))


async def test_a_session_that_is_not_there_or_not_open_takes_no_runs(bench: Bench):
    with pytest.raises(errors.NotFound):
        await bench.ask(thread_id=ids.mint())
    closings: list[tuple[LiteralString, type[errors.ClewError]]] = [
        ("update clew.session set archived_at = now()", errors.Conflict),
        ("update clew.session set archived_at = null, deleted_at = now()", errors.NotFound),
    ]
    for change, error in closings:
        await bench.db.execute(SERVICE, change)
        with pytest.raises(error):
            await bench.ask()


async def test_runs_are_listed_newest_first_and_counted(bench: Bench):
    made = [await bench.ask() for _ in range(3)]
    listed = await runs.list_(bench.db, bench.who, bench.thread_id, limit=2)
    assert [run.run_id for run in listed] == [made[2].run_id, made[1].run_id]
    assert await runs.count(bench.db, bench.who, bench.thread_id, status="pending") == 3


async def test_a_run_in_flight_is_not_deleted(bench: Bench):
    run = await bench.ask(inline=True)
    with pytest.raises(errors.Conflict):
        await runs.delete(bench.db, bench.who, bench.thread_id, run.run_id)
    await leases.finish(bench.db, run, DONE, [])
    await runs.delete(bench.db, bench.who, bench.thread_id, run.run_id)
    with pytest.raises(errors.NotFound):
        await bench.again(run)
    assert await bench.db.fetch(SERVICE, "select from clew.event") == []


async def test_another_owner_can_do_nothing_with_a_run(bench: Bench):
    run = await bench.ask()
    stranger = Principal.owner(await bench.db.owner("acme", "eve"))
    attempts: list[Callable[[], Awaitable[object]]] = [
        lambda: runs.get(bench.db, stranger, bench.thread_id, run.run_id),
        lambda: runs.get(bench.db, stranger, None, run.run_id),
        lambda: runs.cancel(bench.db, stranger, run_ids=[run.run_id]),
        lambda: runs.cancel(bench.db, stranger, thread_id=bench.thread_id, status="all"),
        lambda: runs.delete(bench.db, stranger, bench.thread_id, run.run_id),
        lambda: runs.create(
            bench.db, stranger, stranger.owner_from, bench.thread_id, RunRequest(graph_id="echo")
        ),
    ]
    for attempt in attempts:
        with pytest.raises(errors.NotFound):
            await attempt()
    assert await runs.list_(bench.db, stranger, bench.thread_id) == []
    assert (await bench.again(run)).status == "pending"


async def test_deleting_a_session_removes_its_runs_and_events(bench: Bench):
    await bench.ask(inline=True)
    await sessions.delete(bench.db, bench.who, bench.thread_id, actor="a")
    rows: list[LiteralString] = [
        "select from clew.run",
        "select from clew.event",
        "select from clew.interrupt",
    ]
    for table in rows:
        assert await bench.db.fetch(SERVICE, table) == []
