"""Turns of sessions, where every move of workers is made by hand, so that any order of claims,
ends, crashes and late writes is met."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from clew.checkpointing.postgres import SERVICE
from clew.runtime import errors, leases, runs, sessions
from clew.runtime.events import Entry, PostgresLog, row
from clew.runtime.leases import Ending
from clew.runtime.requests import RunRequest
from clew.runtime.runs import Limits, Run
from tests.fuzz.book import Book, Turn
from tests.fuzz.ground import (
    ACTIONS,
    CLEAR,
    DIE,
    ROWS,
    SESSION_ROWS,
    SESSIONS,
    STRATEGIES,
    WORKERS,
    Ground,
)

MOST = 4
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
TICK = timedelta(hours=1)
LEASE = timedelta(hours=1)

HEADS = "select thread_id, epoch from clew.head"
PASS = """
update clew.run set due_at = due_at - %(tick)s
"""
DISCHARGE = """
delete from clew.worker
"""


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
        by_rule = "running" if verdict == "started" else "pending"
        assert made.status == by_rule, f"it is {made.status}, and by the rules {by_rule}"
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
