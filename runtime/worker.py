"""A process's share of the work: claims runs, executes them within its capacity, keeps its lease,
and takes over from workers that have died.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from itertools import count
from types import TracebackType
from typing import Any, Self

import psycopg

from clew.checkpointing.errors import DatabaseUnreachable
from clew.checkpointing.postgres import Database, Principal
from clew.checkpointing.saver import Saver
from clew.runtime import compaction, deadlines, errors, executor, leases, notifier, rowkeys, runs
from clew.runtime.cache import Cache
from clew.runtime.executor import Executor, Turn
from clew.runtime.feed import Follower
from clew.runtime.graphs import Graphs
from clew.runtime.notifier import Notifier
from clew.runtime.requests import RunRequest
from clew.runtime.runs import Action, Run
from clew.runtime.sessions import Filter
from clew.runtime.settings import Settings
from clew.runtime.store import Store
from clew.runtime.telemetry import Telemetry

log = logging.getLogger(__name__)

REAP_SECONDS = 0.5
DEADLINE_SECONDS = 2.0
UPKEEP_MINUTES = 60
BATCH = 16


class Worker:
    """`async with Worker(...) as worker`: leaving it means that everything of it has stopped, and
    that what it had not finished waits for others. Drain it first to lose no work."""

    def __init__(
        self,
        db: Database,
        graphs: Graphs,
        saver: Saver,
        wakeups: Notifier,
        feed: Follower,
        settings: Settings,
        *,
        store: Store | None = None,
        cache: Cache | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._db = db
        self._wakeups = wakeups
        self._lease = settings.lease
        self._retention = (settings.event_retention, settings.token_retention)
        self._heartbeat = settings.heartbeat
        self._concurrency = 0 if settings.role == "api" else settings.concurrency
        self._telemetry = telemetry or Telemetry()
        self._limits = runs.Limits(per_owner=settings.max_runs)
        self._executor = Executor(
            db,
            graphs,
            saver,
            feed,
            wakeups,
            executor.Limits(settings.run_timeout, settings.max_attempts),
            store,
            cache,
            self._telemetry,
        )
        self.worker_id: int | None = None
        self._turns: dict[str, Turn] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._starting = 0
        self._strays: set[leases.Held] = set()
        self._renewed = time.monotonic()
        self._freed = asyncio.Event()
        self._draining = asyncio.Event()
        self._stack = AsyncExitStack()
        self._group: asyncio.TaskGroup | None = None

    async def __aenter__(self) -> Self:
        self._group = await self._stack.enter_async_context(asyncio.TaskGroup())
        if self._concurrency:
            await self._enlist()
            for loop in (self._claim, self._beat, self._reap, self._deadlines, self._upkeep):
                task = self._group.create_task(self._kept_up(loop))
                self._stack.callback(task.cancel)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._draining.set()
        for turn in self._turns.values():
            turn.stop("drain")
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=executor.STOPPING_SECONDS)
        for task in self._tasks.values():
            task.cancel()
        try:
            # What was raised inside goes on as it is, not as a group of one.
            await self._stack.aclose()
        finally:
            if self.worker_id is not None:
                await self._discharge(self.worker_id)

    @property
    def capacity(self) -> int:
        """How many more runs it can start at once."""
        if self._draining.is_set():
            return 0
        return max(0, self._concurrency - len(self._tasks) - self._starting)

    @property
    def running(self) -> int:
        return len(self._tasks)

    # For those who ask.

    async def submit(
        self,
        who: Principal,
        owner_id: int,
        thread_id: str,
        request: RunRequest,
        *,
        allowed: Filter | None = None,
    ) -> Run:
        """`runs.create`, started here and now where the session and this worker are free."""
        here = self.capacity > 0 and self.worker_id is not None
        self._starting += here
        try:
            run = await runs.create(
                self._db,
                who,
                owner_id,
                thread_id,
                request,
                worker_id=self.worker_id if here else None,
                limits=self._limits,
                allowed=allowed,
            )
        finally:
            self._starting -= here
        if run.status == "running":
            if run.worker_id == self.worker_id:
                self._start(run)
        elif not run.over:
            self._wakeups.publish(notifier.QUEUE)
            if request.multitask_strategy in ("interrupt", "rollback"):
                self._wakeups.publish(notifier.CANCEL, notifier.thread(thread_id))
        return run

    async def cancel(
        self,
        who: Principal,
        thread_id: str,
        run_id: str,
        *,
        action: Action = "interrupt",
        reason: str | None = None,
        wait: timedelta | None = None,
        allowed: Filter | None = None,
    ) -> Run | None:
        """Stop one run; with `wait`, return once it has stopped, at the latest after that time.
        None: it was rolled back and is gone."""
        with self._wakeups.listen(notifier.thread(thread_id)) as bell:
            (run,) = await self.cancel_many(
                who,
                thread_id=thread_id,
                run_ids=[run_id],
                action=action,
                reason=reason,
                allowed=allowed,
            )
            if wait is None:
                return run
            until = time.monotonic() + wait.total_seconds()
            while True:
                try:
                    run = await runs.get(self._db, who, thread_id, run_id)
                except errors.NotFound:
                    return None
                left = until - time.monotonic()
                if run.over or left <= 0:
                    return run
                await bell.wait(min(left, 1.0))

    async def cancel_many(
        self, who: Principal, *, action: Action = "interrupt", **chosen: Any
    ) -> list[Run]:
        """`runs.cancel`, told to whoever runs them."""
        stopped = await runs.cancel(self._db, who, action=action, **chosen)
        for run in stopped:
            if turn := self._turns.get(run.run_id):
                turn.cancel(run.cancel or action, run.cancel_reason)
        elsewhere = any(run.run_id not in self._turns and not run.over for run in stopped)
        self._wakeups.publish(
            *([notifier.CANCEL] if elsewhere else ()),
            *{notifier.thread(run.thread_id) for run in stopped},
        )
        return stopped

    async def abandon(self, thread_id: str) -> None:
        """Stop what runs here of a session that is about to go, and leave no trace of it."""
        tasks: list[asyncio.Task[None]] = []
        for run_id, turn in self._turns.items():
            if turn.run.thread_id == thread_id:
                turn.stop("lost")
                tasks.append(self._tasks[run_id])
        if tasks:
            await asyncio.wait(tasks, timeout=executor.STOPPING_SECONDS)
        self._wakeups.publish(notifier.CANCEL)

    async def drain(self, grace: timedelta) -> None:
        """Start nothing more; stop each run at its next superstep, for others to go on with. What
        is in the middle of a superstep when the grace is over is broken off, and goes on from its
        last checkpoint elsewhere."""
        self._draining.set()
        self._freed.set()
        for turn in self._turns.values():
            turn.drain()
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=grace.total_seconds())
        for turn in self._turns.values():
            turn.stop("drain")
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=executor.STOPPING_SECONDS)

    # Runs.

    def _start(self, run: Run) -> None:
        if run.run_id in self._turns or self._group is None:
            return  # the same request, twice
        turn = self._turns[run.run_id] = Turn(run)
        if self._draining.is_set():
            turn.drain()
        self._tasks[run.run_id] = self._group.create_task(self._execute(turn))

    async def _execute(self, turn: Turn) -> None:
        run_id = turn.run.run_id
        try:
            await self._executor.execute(turn)
        except Exception:
            # The boundary of a run: whatever is wrong with it, the others go on. It is still ours
            # according to the database, and the heartbeat gives back what is not here.
            log.exception("run %s broke", run_id)
        finally:
            del self._turns[run_id], self._tasks[run_id]
            self._freed.set()

    # Loops.

    async def _kept_up(self, loop: Callable[[], Awaitable[None]]) -> None:
        """Run a loop through outages of the database, and past what it comes upon in there."""
        while True:
            try:
                await loop()
            except (psycopg.Error, DatabaseUnreachable) as error:
                log.warning("%s waits for the database: %s", loop.__name__, error)
            except Exception:
                # One fault must not end all that runs here.
                log.exception("%s failed, and begins again", loop.__name__)
            await asyncio.sleep(0.5)
            self._check_lease()

    async def _claim(self) -> None:
        with self._wakeups.listen(notifier.QUEUE) as bell:
            while not self._draining.is_set():
                self._freed.clear()
                if (room := min(self.capacity, BATCH)) == 0:
                    await self._freed.wait()
                    continue
                assert self.worker_id is not None
                # What is submitted meanwhile starts all the same: better a few runs too many for
                # once than a free session that has to wait.
                claimed = await leases.claim(self._db, self.worker_id, room)
                for run in claimed:
                    self._start(run)
                if len(claimed) < room:
                    due = await leases.next_due(self._db)
                    soon = due.total_seconds() if due is not None else self._wakeups.patience
                    await bell.wait(max(0.0, min(soon, self._wakeups.patience)))
            await asyncio.Event().wait()  # until the worker is left

    async def _beat(self) -> None:
        with self._wakeups.listen(notifier.CANCEL) as bell:
            while True:
                cancelled = await bell.wait(self._until_next_beat())
                assert self.worker_id is not None
                if cancelled:
                    began = time.monotonic()
                    self._heed(await leases.held(self._db, self.worker_id), began)
                    continue
                began = time.monotonic()
                held = await leases.renew(
                    self._db, self.worker_id, self._lease, lock_key=self._lock_key()
                )
                if held is None:
                    self._telemetry.lost_lease()
                    log.error("worker %s was taken for dead; it begins anew", self.worker_id)
                    for turn in self._turns.values():
                        turn.stop("lost")
                    await self._enlist()
                    # Under the old id its claims found nothing, whatever there was.
                    self._wakeups.publish(notifier.QUEUE)
                    continue
                self._renewed = began
                self._heed(held, began)
                await self._return_strays(held)

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(REAP_SECONDS)
            assert self.worker_id is not None
            fallen = await leases.reap(self._db, self.worker_id, self._telemetry)
            if fallen:
                log.warning("took over %d runs of workers that died", len(fallen))
                self._wakeups.publish(notifier.QUEUE)

    async def _deadlines(self) -> None:
        while True:
            if await deadlines.meet(self._db):
                self._wakeups.publish(notifier.QUEUE)
            await asyncio.sleep(DEADLINE_SECONDS)

    async def _upkeep(self) -> None:
        for minute in count():
            await rowkeys.complain(self._db)
            if minute % UPKEEP_MINUTES == 0:
                await compaction.expire(self._db, *self._retention)
            await asyncio.sleep(60.0)

    def _heed(self, held: list[leases.Held], asked: float) -> None:
        """Stop what was cancelled, and what is not ours any more; what started since the database
        was asked is neither."""
        known = {each.run_id: each for each in held}
        for run_id, turn in list(self._turns.items()):
            each = known.get(run_id)
            if turn.began >= asked:
                continue
            if each is None or each.epoch != turn.run.epoch:
                # It may also have ended a moment ago, and then nothing is stopped by this.
                turn.stop("lost")
            elif each.cancel is not None and turn.stopped is None:
                turn.cancel(each.cancel, each.cancel_reason)

    async def _return_strays(self, held: list[leases.Held]) -> None:
        """What the database says is ours, twice in a row, and is not here, broke on the way."""
        assert self.worker_id is not None
        strays = {each for each in held if each.run_id not in self._turns}
        # The same run at another epoch was claimed in between, and may be about to start.
        known = {(each.run_id, each.epoch) for each in self._strays}
        for stray in strays:
            if (stray.run_id, stray.epoch) in known:
                await leases.give_back(self._db, self.worker_id, stray)
                self._wakeups.publish(notifier.QUEUE)
        self._strays = strays

    def _until_next_beat(self) -> float:
        passed = time.monotonic() - self._renewed
        return max(0.0, self._heartbeat.total_seconds() - passed)

    def _check_lease(self) -> None:
        """Past the lease others may have our runs: stop, whatever the fence would do about it."""
        if time.monotonic() - self._renewed > self._lease.total_seconds():
            for turn in self._turns.values():
                turn.stop("lost")

    async def _enlist(self) -> None:
        name = f"{socket.gethostname()}:{os.getpid()}"
        began = time.monotonic()
        self.worker_id = await leases.enlist(self._db, name, self._lease, lock_key=self._lock_key())
        self._renewed = began

    def _lock_key(self) -> int | None:
        return self._wakeups.lock_key if self._wakeups.direct else None

    async def _discharge(self, worker_id: int) -> None:
        try:
            if await leases.discharge(self._db, worker_id):
                self._wakeups.publish(notifier.QUEUE)
        except (psycopg.Error, DatabaseUnreachable) as error:
            log.warning("worker %s could not say goodbye: %s", worker_id, error)
