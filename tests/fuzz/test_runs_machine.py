"""Random histories of turns against a model that has no database: who runs, who waits, who was
stopped, how often each was started, and how the session is left, after every single step.

Two machines. One makes every move of workers itself, so that any order of claims, ends, crashes and
late writes is met. The other lets two real workers run real graphs, one of which dies now and then,
and also compares what each turn did to the state.

`CLEW_LONG=1` makes them long; `CLEW_FUZZ_SEED` another history.
"""

import asyncio
import os
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, TypeVar

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,  # pyright: ignore[reportUnknownVariableType] - untyped upstream
)
from psycopg.errors import UniqueViolation

from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.runtime import errors, leases, runs, sessions
from clew.runtime.events import Entry, PostgresLog, row
from clew.runtime.leases import Ending
from clew.runtime.notifier import QUEUE
from clew.runtime.requests import RunRequest
from clew.runtime.runs import Limits, Run
from clew.runtime.sql import queries
from tests.fuzz.book import Book, Turn
from tests.turns import GATES, engine

T = TypeVar("T")

MOST = 4
SESSIONS = st.integers(0, 1)
STRATEGIES = st.sampled_from(["reject", "enqueue", "interrupt", "rollback"])
ACTIONS = st.sampled_from(["interrupt", "rollback"])
ENDS = st.sampled_from(
    [
        ("success", "idle"),
        ("success", "interrupted"),
        ("error", "error"),
        ("timeout", "error"),
        ("interrupted", "idle"),
        ("interrupted", "interrupted"),
    ]
)
WORKERS = st.integers(0, 1)
TICK = timedelta(hours=1)
LEASE = timedelta(hours=1)

ROWS = """
select run_id::text, thread_id, status, attempt, crashes, cancel, rest, mends, epoch, (
    select count(*) from clew.event e where e.run_id = r.run_id and e.first_n = 1) as openings
from clew.run r
"""
SESSION_ROWS = "select thread_id, status from clew.session"
HEADS = "select thread_id, epoch from clew.head"
PASS = """
update clew.run set due_at = due_at - %(tick)s
"""
DIE = """
update clew.worker set
    heartbeat_at = now() - interval '5 seconds', lease_until = now() - interval '1 second'
where worker_id = %(worker_id)s
"""
ALIVE = """
select from clew.worker where worker_id = %(worker_id)s
"""
# In its first three seconds a server takes nobody for dead.
AGE = """
select pg_sleep(3.1 - extract(epoch from now() - pg_postmaster_start_time()))
"""
CLEAR = """
delete from clew.session
"""
DISCHARGE = """
delete from clew.worker
"""


class Ground:
    """A database and a loop, shared by all histories; each begins with nothing."""

    def __init__(self, runner: asyncio.Runner, dsn: str, db: Database, owner_id: int) -> None:
        self.runner = runner
        self.dsn = dsn
        self.db = db
        self.owner_id = owner_id
        self.who = Principal.owner(owner_id)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)


@pytest.fixture
def ground(dsn: str) -> Iterator[Ground]:
    with asyncio.Runner() as runner:
        opening = Database.open(dsn)
        db = runner.run(opening.__aenter__())
        db.prepares = True
        runner.run(db.fetch(SERVICE, AGE))
        try:
            yield Ground(runner, dsn, db, runner.run(db.owner("acme", "ann")))
        finally:
            runner.run(opening.__aexit__(None, None, None))


class Moves(RuleBasedStateMachine):
    """Every move made by hand."""

    ground: Ground

    def __init__(self) -> None:
        super().__init__()
        self.do, self.db = self.ground.do, self.ground.db
        self.now = 0
        self.threads = [self.do(self._session()) for _ in range(2)]
        self.books = {thread_id: Book() for thread_id in self.threads}
        self.workers = [self.do(leases.enlist(self.db, "one", LEASE)) for _ in range(2)]
        self.held: dict[str, Run] = {}  # by run, as its worker has it
        self.stale: list[Run] = []  # as workers still have them that lost them
        self.epochs: dict[str, int] = {}
        self.log = PostgresLog(self.db)

    async def _session(self) -> str:
        made = await sessions.create(self.db, self.ground.who, self.ground.owner_id)
        return made.thread_id

    def teardown(self) -> None:
        self.do(self.db.execute(SERVICE, CLEAR))
        self.do(self.db.execute(SERVICE, DISCHARGE))

    # What callers do.

    @initialize()
    def begin(self) -> None:
        """Else most short histories end before two turns have met."""
        self._ask(0, "enqueue", 0, 0)
        self._ask(1, "enqueue", None, 0)

    @rule(at=SESSIONS, strategy=STRATEGIES, worker=WORKERS)
    def ask_now(self, at: int, strategy: Any, worker: int) -> None:
        self._ask(at, strategy, worker, 0)

    @rule(at=SESSIONS, worker=st.one_of(st.none(), WORKERS))
    def ask_to_wait(self, at: int, worker: int | None) -> None:
        self._ask(at, "enqueue", worker, 0)

    @rule(
        at=SESSIONS,
        strategy=STRATEGIES,
        worker=st.one_of(st.none(), WORKERS),
        after=st.sampled_from([0, 0, 0, 1, 2]),
    )
    def ask(self, at: int, strategy: Any, worker: int | None, after: int) -> None:
        self._ask(at, strategy, worker, after)

    def _ask(self, at: int, strategy: Any, worker: int | None, after: int) -> None:
        thread_id = self.threads[at]
        book = self.books[thread_id]
        due = self.now + after
        verdict = book.verdict(
            strategy, due=due, now=self.now, stands_by=worker is not None, most=MOST
        )
        request = RunRequest(graph_id="echo", multitask_strategy=strategy, after=after * TICK)
        asking = runs.create(
            self.db,
            self.ground.who,
            self.ground.owner_id,
            thread_id,
            request,
            worker_id=None if worker is None else self.workers[worker],
            limits=Limits(per_session=MOST),
        )
        if verdict in ("busy", "full"):
            with pytest.raises(errors.Conflict if verdict == "busy" else errors.Limited):
                self.do(asking)
            return
        made = self.do(asking)
        assert made.status == ("running" if verdict == "started" else "pending")
        book.ask(made.run_id, strategy, due=due, started=verdict == "started")
        if verdict == "started":
            self.held[made.run_id] = made

    @precondition(lambda self: self.flight)
    @rule(which=st.integers(0, 7), action=ACTIONS)
    def cancel(self, which: int, action: Any) -> None:
        turn = self.flight[which % len(self.flight)]
        self.do(runs.cancel(self.db, self.ground.who, run_ids=[turn.run_id], action=action))
        self._book_of(turn).cancel(turn, action)

    @rule(action=ACTIONS, status=st.sampled_from(["pending", "running", "all"]))
    def cancel_all(self, action: Any, status: Any) -> None:
        met = [turn for turn in self.flight if status in ("all", turn.status)]
        cancelling = runs.cancel(self.db, self.ground.who, status=status, action=action)
        if not met:
            with pytest.raises(errors.NotFound):
                self.do(cancelling)
            return
        assert {run.run_id for run in self.do(cancelling)} == {turn.run_id for turn in met}
        for turn in met:
            self._book_of(turn).cancel(turn, action)

    @rule()
    def tick(self) -> None:
        self.now += 1
        self.do(self.db.execute(SERVICE, PASS, {"tick": TICK}))

    # What workers do.

    @rule(worker=WORKERS, limit=st.integers(1, 3))
    def claim(self, worker: int, limit: int) -> None:
        free = [turn for book in self.books.values() if (turn := book.following(self.now))]
        got = self.do(leases.claim(self.db, self.workers[worker], limit))
        assert len(got) == min(limit, len(free))
        for run in got:
            turn = next(turn for turn in free if turn.run_id == run.run_id)
            self._book_of(turn).start(turn)
            self.held[run.run_id] = run

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 7), how=ENDS)
    def end(self, which: int, how: tuple[Any, Any]) -> None:
        run, turn, book = self._taken(which)
        ended = self.do(leases.finish(self.db, run, Ending(status=how[0], rest=how[1]), []))
        book.end(turn, *how)
        assert ended is not None
        assert ended[1] == (book.following(self.now) is not None)
        self.stale.append(run)

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 7))
    def roll_back(self, which: int) -> None:
        run, turn, book = self._taken(which)
        assert self.do(leases.roll_back(self.db, run))
        book.roll_back(turn)
        self.stale.append(run)

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 7), crashed=st.booleans())
    def hand_back(self, which: int, *, crashed: bool) -> None:
        run, turn, book = self._taken(which)
        assert self.do(leases.release(self.db, run, crashed=crashed))
        book.hand_back(turn, crashed=crashed)
        self.stale.append(run)

    @rule(worker=WORKERS)
    def crash(self, worker: int) -> None:
        gone = self.workers[worker]
        lost = [run for run in self.held.values() if run.worker_id == gone]
        self.do(self.db.execute(SERVICE, DIE, {"worker_id": gone}))
        fallen = self.do(leases.reap(self.db, self.workers[1 - worker]))
        assert set(fallen) == {run.run_id for run in lost}
        for run in lost:
            del self.held[run.run_id]
            turn = next(turn for turn in self.flight if turn.run_id == run.run_id)
            self._book_of(turn).hand_back(turn, crashed=True)
        self.stale += lost
        assert self.do(leases.renew(self.db, gone, LEASE)) is None
        assert self.do(leases.claim(self.db, gone, 9)) == []
        self.workers[worker] = self.do(leases.enlist(self.db, "again", LEASE))

    @precondition(lambda self: self.stale)
    @rule(which=st.integers(0, 40))
    def write_late(self, which: int) -> None:
        """Whatever a worker does with a run that it has lost, nothing comes of it."""
        run = self.stale[which % len(self.stale)]
        ending = Ending(status="success", rest="error")
        assert self.do(leases.finish(self.db, run, ending, [])) is None
        assert not self.do(leases.release(self.db, run, crashed=True))
        assert not self.do(leases.roll_back(self.db, run))
        if self.epochs[run.thread_id] > (run.epoch or 0):
            entries = [Entry(2, 0, "custom", (), None, b"1", b"1")]
            late = row(run.thread_id, run.run_id, run.epoch or 0, entries, v2=False)
            assert not self.do(self.log.append([late]))

    # What must be so.

    @invariant()
    def database_and_book_agree(self) -> None:
        found = {row.pop("run_id"): row for row in self.do(self.db.fetch(SERVICE, ROWS))}
        told = {turn.run_id: (book, turn) for book in self.books.values() for turn in book.turns}
        assert set(found) == set(told)
        for run_id, (_, turn) in told.items():
            row = found[run_id]
            assert (row["status"], row["attempt"], row["crashes"], row["cancel"], row["rest"]) == (
                turn.status,
                turn.attempt,
                turn.crashes,
                turn.cancel,
                turn.rest,
            )
            assert row["openings"] == turn.attempt
            assert row["mends"] == turn.mends
        for session in self.do(self.db.fetch(SERVICE, SESSION_ROWS)):
            assert session["status"] == self.books[session["thread_id"]].status
        for head in self.do(self.db.fetch(SERVICE, HEADS)):
            assert head["epoch"] >= self.epochs.get(head["thread_id"], 0)
            self.epochs[head["thread_id"]] = head["epoch"]

    @invariant()
    def workers_are_told_what_they_hold(self) -> None:
        for worker_id in self.workers:
            held = {each.run_id: each for each in self.do(leases.held(self.db, worker_id))}
            mine = {run.run_id for run in self.held.values() if run.worker_id == worker_id}
            assert set(held) == mine
            for run_id, each in held.items():
                assert each.epoch == self.held[run_id].epoch

    @property
    def flight(self) -> list[Turn]:
        return [turn for book in self.books.values() for turn in book.flight]

    def _book_of(self, turn: Turn) -> Book:
        return next(book for book in self.books.values() if turn in book.turns)

    def _taken(self, which: int) -> tuple[Run, Turn, Book]:
        run = self.held.pop(sorted(self.held)[which % len(self.held)])
        book = self.books[run.thread_id]
        return run, next(turn for turn in book.turns if turn.run_id == run.run_id), book


class Lives(RuleBasedStateMachine):
    """Two real workers and a graph that waits in its second node until it is let on."""

    ground: Ground

    def __init__(self) -> None:
        super().__init__()
        self.do = self.ground.do
        self.stack = AsyncExitStack()
        more: dict[str, Any] = {"heartbeat": 0.1, "max_attempts": 100}
        self.engines = [
            self.do(self.stack.enter_async_context(engine(self.ground.dsn, **more)))
            for _ in range(2)
        ]
        self.here = self.engines[0]
        self.threads = [each.thread_id for each in self.engines]
        self.books = {thread_id: Book() for thread_id in self.threads}
        self.runs: dict[str, Run] = {}
        self.trails: dict[str, list[str]] = {}  # what each turn has done to the state

    def teardown(self) -> None:
        for run in self.runs.values():
            GATES[run.run_id].opened.set()
        self.do(self.stack.aclose())
        self.do(self.ground.db.execute(SERVICE, CLEAR))
        GATES.clear()

    @rule(at=SESSIONS, strategy=STRATEGIES, by=WORKERS)
    def ask(self, at: int, strategy: Any, by: int) -> None:
        thread_id = self.threads[at]
        book = self.books[thread_id]
        name = f"{len(self.runs)}"
        given = {"trail": [name], "gate": name}
        asking = self.engines[by].ask(
            "waits",
            given,
            thread_id=thread_id,
            multitask_strategy=strategy,
            durability="sync",
        )
        verdict = book.verdict(strategy, due=0, now=0, stands_by=True, most=1000)
        if verdict == "busy":
            with pytest.raises(errors.Conflict):
                self.do(asking)
            return
        run = self.do(asking)
        self.runs[name] = run
        turn = book.ask(run.run_id, strategy, due=0, started=verdict == "started")
        self.trails[turn.run_id] = [name, "one"]
        self.settle()

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 1))
    def let_on(self, which: int) -> None:
        turn = self.running[which % len(self.running)]
        GATES[self._name(turn)].opened.set()
        self._book_of(turn).end(turn, "success", "idle")
        self.trails[turn.run_id] += ["waited", "two"]
        self.settle()

    @precondition(lambda self: self.flight)
    @rule(which=st.integers(0, 7), action=ACTIONS, by=WORKERS)
    def cancel(self, which: int, action: Any, by: int) -> None:
        turn = self.flight[which % len(self.flight)]
        run = self.runs[self._name(turn)]
        worker = self.engines[by].worker
        self.do(worker.cancel(self.here.who, run.thread_id, run.run_id, action=action))
        self._book_of(turn).cancel(turn, action)
        self.settle()

    @precondition(lambda self: self.running)
    @rule(by=WORKERS)
    def crash(self, by: int) -> None:
        """A worker that went on for too long without a word: it does not know it yet."""
        gone, other = (self.engines[n].worker.worker_id for n in (by, 1 - by))
        assert gone is not None
        assert other is not None
        mine = {each.run_id for each in self.do(leases.held(self.ground.db, gone))}
        for turn in self.running:
            if turn.run_id in mine:
                GATES[self._name(turn)].entered.clear()
                book = self._book_of(turn)
                book.hand_back(turn, crashed=True)
        self.do(self._buried(gone, other))
        self.here.notifier.publish(QUEUE)
        self.settle()

    async def _buried(self, gone: int, other: int) -> None:
        """It beats on, and a beat before it is buried brings it back: then it dies again."""
        while await self.ground.db.fetch(SERVICE, ALIVE, {"worker_id": gone}):
            await self.ground.db.execute(SERVICE, DIE, {"worker_id": gone})
            await leases.reap(self.ground.db, other)

    def settle(self) -> None:
        """Let workers do what the book says they will, and wait until they have."""
        for book in self.books.values():
            while (turn := book.running or book.following(0)) and turn.status == "pending":
                book.start(turn)
                if turn.cancel is None:
                    break
            while (turn := book.running) and turn.cancel:
                if turn.cancel == "interrupt":
                    book.end(turn, "interrupted", "interrupted")
                else:
                    book.roll_back(turn)
                if turn := book.following(0):
                    book.start(turn)
        known = {turn.run_id for turn in self.flight}
        self.do(self._settled({name for name, run in self.runs.items() if run.run_id not in known}))

    async def _settled(self, over: set[str]) -> None:
        waits = "for nothing"
        try:
            async with asyncio.timeout(10):
                for name in over:
                    waits = f"for the end of {self.runs[name]}"
                    async for _ in self.here.follow(self.runs[name]):
                        pass
                for turn in self.running:
                    waits = f"for the start of {turn}"
                    await GATES[self._name(turn)].entered.wait()
        except TimeoutError:
            found = await self.ground.db.fetch(SERVICE, ROWS)
            workers = await self.ground.db.fetch(SERVICE, "select * from clew.worker")
            raise AssertionError(f"waits {waits}; {found}; {workers}") from None

    @invariant()
    def database_and_book_agree(self) -> None:
        found = {row.pop("run_id"): row for row in self.do(self.ground.db.fetch(SERVICE, ROWS))}
        told = {turn.run_id: turn for book in self.books.values() for turn in book.turns}
        assert set(found) == set(told)
        for run_id, turn in told.items():
            row = found[run_id]
            assert (row["status"], row["attempt"], row["crashes"], row["cancel"], row["rest"]) == (
                turn.status,
                turn.attempt,
                turn.crashes,
                turn.cancel,
                turn.rest,
            )
        for session in self.do(self.ground.db.fetch(SERVICE, SESSION_ROWS)):
            assert session["status"] == self.books[session["thread_id"]].status

    @invariant()
    def every_turn_did_its_part_once(self) -> None:
        for thread_id, book in self.books.items():
            state = self.do(self.here.state("waits", thread_id))
            done = [turn for turn in book.turns if turn.attempt]
            expected = [word for turn in done for word in self.trails[turn.run_id]]
            assert state.values.get("trail", []) == expected

    @property
    def flight(self) -> list[Turn]:
        return [turn for book in self.books.values() for turn in book.flight]

    @property
    def running(self) -> list[Turn]:
        return [turn for turn in self.flight if turn.status == "running"]

    def _book_of(self, turn: Turn) -> Book:
        return next(book for book in self.books.values() if turn in book.turns)

    def _name(self, turn: Turn) -> str:
        return next(name for name, run in self.runs.items() if run.run_id == turn.run_id)


def play(machine: type[RuleBasedStateMachine], *, examples: int, steps: int) -> None:
    long = "CLEW_LONG" in os.environ
    chosen = settings(
        max_examples=examples * (20 if long else 1),
        stateful_step_count=steps * (2 if long else 1),
        derandomize="CLEW_FUZZ_SEED" not in os.environ,
        deadline=None,
        # A history that fails is shown as it was: to look for a shorter one takes minutes.
        phases=[Phase.generate] if not long else list(Phase),
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    if seed := os.environ.get("CLEW_FUZZ_SEED"):
        machine = hypothesis.seed(int(seed))(machine)
    run_state_machine_as_test(machine, settings=chosen)


def test_turns_follow_their_rules_whoever_moves_next(ground: Ground):
    bound: Any = type("Bound", (Moves,), {"ground": ground})
    play(bound, examples=25, steps=30)


def test_real_workers_keep_them_and_do_nothing_twice(ground: Ground):
    bound: Any = type("Bound", (Lives,), {"ground": ground})
    play(bound, examples=4, steps=10)


@pytest.mark.parametrize(
    ("broken", "instead"),
    [
        (
            "(select from flight where status = 'running' or due_at <= now())",
            "(select where false)",
        ),
        ("status = 'running' or due_at <= now()", "status = 'running'"),
        ("when %(strategy)s = 'reject' and", "when false and"),
    ],
    ids=["two at once", "out of turn", "never refused"],
)
def test_a_rule_that_is_broken_is_found_out(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, broken: str, instead: str
):
    """The negative control."""
    texts: dict[str, str] = vars(queries)["_texts"]
    assert broken in texts["create_run"]
    monkeypatch.setitem(texts, "create_run", texts["create_run"].replace(broken, instead))
    bound: Any = type("Bound", (Moves,), {"ground": ground})
    wrong = (AssertionError, UniqueViolation, pytest.fail.Exception)
    with pytest.raises(wrong):
        play(bound, examples=25, steps=30)
