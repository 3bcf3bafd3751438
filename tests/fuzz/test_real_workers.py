"""Random histories of turns with two real workers and real graphs, one of which dies now and then:
the rules of tests/fuzz/book.py hold, and each turn does its part to the state once."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from clew.checkpointing.postgres import SERVICE
from clew.runtime import errors, leases
from clew.runtime.notifier import QUEUE
from clew.runtime.runs import Run
from tests.fuzz.book import Book, Turn
from tests.fuzz.ground import (
    ACTIONS,
    CLEAR,
    DIE,
    ROWS,
    SESSION_ROWS,
    SESSIONS,
    STRATEGIES,
    TIMEOUT,
    WORKERS,
    Ground,
    play,
)
from tests.turns import GATES, engine

ALIVE = """
select from clew.worker where worker_id = %(worker_id)s
"""


class Lives(RuleBasedStateMachine):
    """Two real workers and a graph that waits in its second node until it is let on."""

    ground: Ground

    def __init__(self) -> None:
        super().__init__()
        self.do = self.ground.do
        self.stack = AsyncExitStack()
        more: dict[str, Any] = {"heartbeat": 0.1, "lease": 120, "max_attempts": 100}
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
            async with asyncio.timeout(60):
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


@pytest.mark.timeout(TIMEOUT)
def test_real_workers_keep_them_and_do_nothing_twice(ground: Ground):
    bound: Any = type("Bound", (Lives,), {"ground": ground})
    play(bound, examples=4, steps=10)
