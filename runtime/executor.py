"""One run, from its start to its end, as a pipeline:

    open its tape -> enter the graph -> stream -> see what is left -> end it all at once

Whatever happens on the way, the end is one transaction: the run's status, the session's, the open
questions, and the last event. A run that is no longer ours ends without a trace.
"""

import asyncio
import dataclasses
import logging
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, Literal, TypeVar, cast

import psycopg
from langgraph.errors import GraphDrained
from langgraph.pregel import Pregel
from langgraph.runtime import RunControl
from langgraph.types import StateSnapshot
from psycopg.errors import DatabaseError

from clew.checkpointing.errors import DatabaseUnreachable, EncryptionError, FenceLost
from clew.checkpointing.postgres import Database
from clew.checkpointing.saver import Fence, Saver
from clew.runtime import compaction, endings, entry, leases, notifier, repair, traced, wire
from clew.runtime.cache import Cache
from clew.runtime.feed import Follower
from clew.runtime.graphs import Graphs
from clew.runtime.leases import Ending
from clew.runtime.legacy import Legacy
from clew.runtime.notifier import Wakeups
from clew.runtime.parts import Parts, modes
from clew.runtime.requests import RunRequest
from clew.runtime.runs import Action, Run
from clew.runtime.store import Store
from clew.runtime.tape import Tape
from clew.runtime.telemetry import Telemetry
from clew.runtime.v2 import V2

log = logging.getLogger(__name__)

T = TypeVar("T")
Json = dict[str, Any]
Graph = Pregel[Any, Any, Any, Any]
Stop = Literal["interrupt", "rollback", "timeout", "drain", "lost"]

# How long a graph that was told to stop may take to do so.
STOPPING_SECONDS = 10.0
LEAVING_SECONDS = 2.0
# What LangGraph streams of its own accord, before and between what nodes have to show.
STATES = frozenset({"values", "checkpoints", "tasks", "debug"})


def _nobody() -> None:
    """Called where nobody listens."""


class Turn:
    """A run while it is executed here, and the ways to stop it."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.began = time.monotonic()
        self.control = RunControl()
        self.stopped: Stop | None = None
        self.reason: str | None = run.cancel_reason
        self.stuck = False
        self.crashed = False
        self.graph: asyncio.Task[None] | None = None
        self.heard: Callable[[], None] = _nobody  # called when a node has something to show
        # Done when the graph was told to stop and had its time to do so.
        self.overdue = asyncio.get_running_loop().create_future()
        if run.cancel is not None:
            self.stopped = run.cancel

    def cancel(self, action: Action, reason: str | None) -> None:
        self.reason = self.reason or reason
        self.stop(action)

    def stop(self, why: Stop) -> None:
        """The first reason counts, except that a lost run is lost whatever else it is."""
        if self.stopped is None or why == "lost":
            self.stopped = why
        if self.graph is not None:
            self.graph.cancel()
            loop = asyncio.get_running_loop()
            loop.call_later(STOPPING_SECONDS, self._insist)

    def _insist(self) -> None:
        if not self.overdue.done():
            self.overdue.set_result(None)

    def drain(self) -> None:
        """Stop at the next superstep, to go on elsewhere."""
        self.control.request_drain()


@dataclass(frozen=True, slots=True)
class Limits:
    run_timeout: timedelta = timedelta(days=1)
    max_attempts: int = 3


@dataclass(frozen=True, slots=True)
class Executor:
    db: Database
    graphs: Graphs
    saver: Saver
    feed: Follower
    wakeups: Wakeups
    limits: Limits = Limits()
    store: Store | None = None
    cache: Cache | None = None
    telemetry: Telemetry = field(default_factory=Telemetry)

    async def execute(self, turn: Turn) -> Run | None:
        """Run it. Returns the run as it ended, or None where it goes on elsewhere."""
        with self.telemetry.run(turn.run) as seen:
            turn.heard = seen.event
            ended = await self._execute(turn)
            if ended is not None:
                seen.end(ended.status, ended.error)
            return ended

    async def _execute(self, turn: Turn) -> Run | None:
        run = turn.run
        request, fault = entry.asked(run)
        tape = self.feed.open(run, lambda: turn.stop("lost"))
        ended: Run | None = None
        waits = True
        try:
            try:
                ending = await self._played(turn, request, tape, fault)
            except asyncio.CancelledError:
                await self._leave(turn, tape)
                raise
            if ending is not None:
                if (written := await self._finish(turn, tape, ending)) is not None:
                    ended, waits = written
            elif turn.stopped == "rollback":
                await self._roll_back(turn)
            elif turn.stopped != "lost":
                await self._release(turn, tape)
        finally:
            self.feed.close(tape, complete=ended is not None)
            if waits:
                self.wakeups.publish(notifier.QUEUE)
        if ended is not None and request.webhook is not None:
            self.wakeups.publish(notifier.WEBHOOK)
        if ended is not None and not tape.replaces:
            await self._compact(ended)
        return ended

    async def _played(
        self, turn: Turn, request: RunRequest, tape: Tape, fault: Exception | None
    ) -> Ending | None:
        """Run the graph; how the run ended, or None where it does not end here. With a `fault`
        nobody knows what to run, and it ends by that."""
        run = turn.run
        stored = not (request.temporary and request.on_completion == "delete")
        saver = self._bound(turn)
        parts = self._parts(tape, request, stored=stored)
        failure: BaseException | None = None
        snapshot: StateSnapshot | None = None
        if turn.stopped is None and run.crashes >= self.limits.max_attempts:
            failure = RuntimeError(
                f"The worker died on it {run.crashes} times; it is not tried again."
            )
        try:
            if fault is not None:
                raise fault
            config = entry.config(run, request, again=False)
            async with self.graphs.open(
                run.graph_id,
                config=config,
                checkpointer=saver if stored else None,
                store=self.store.bind(run.owner_id) if self.store else None,
                cache=self.cache.bind(run.owner_id) if self.cache else None,
                context=request.context,
            ) as graph:
                if turn.stopped is None and failure is None:
                    failure = await self._watched(turn, graph, saver, request, parts)
                    parts.end()
                if turn.stopped in ("rollback", "lost") or isinstance(failure, GraphDrained):
                    return None
                if stored and (turn.stopped or failure or parts.paused):
                    await saver.flush(run.thread_id)
                    snapshot = await graph.aget_state(entry.config_of(run.thread_id))
        except Exception as error:  # noqa: BLE001 - the boundary of a run: a graph's own code
            failure = failure or error
        if turn.stopped in ("drain", "lost", "rollback") or _ours(failure):
            turn.crashed = _infrastructure(failure)
            return None
        ending = self._ending(turn, request, parts, failure, snapshot)
        return dataclasses.replace(ending, bytes_added=saver.tally.bytes)

    async def _watched(
        self, turn: Turn, graph: Graph, saver: Saver, request: RunRequest, parts: Parts
    ) -> BaseException | None:
        """Run the graph in a task of its own, that can be stopped; how it failed, if it did."""
        streaming = self._stream(turn, graph, saver, request, parts)
        turn.graph = task = asyncio.create_task(streaming, name=f"run-{turn.run.run_id}")
        limit = request.timeout or self.limits.run_timeout
        try:
            either = {task, turn.overdue}
            seconds = limit.total_seconds()
            done, _ = await asyncio.wait(
                either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                turn.stop("timeout")
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # The process itself is leaving.
            if not task.done() and turn.stopped is None:
                task.cancel()
                await asyncio.wait({task}, timeout=STOPPING_SECONDS)
        if not task.done():
            log.error("run %s does not stop: it is fenced off", turn.run.run_id)
            turn.stuck = True
            return RuntimeError("The graph did not stop when it was told to.")
        if task.cancelled():
            return None if turn.stopped else RuntimeError("The graph cancelled itself.")
        return task.exception()

    async def _stream(
        self, turn: Turn, graph: Graph, saver: Saver, request: RunRequest, parts: Parts
    ) -> None:
        run = turn.run
        stored = graph.checkpointer is not None
        again = stored and await entry.reenter(self.db, saver, run, request)
        config = entry.config(run, request, again=again)
        if graph.cache is not None:
            config.setdefault("configurable", {})[entry.CACHE] = graph.cache
        given = entry.given(request, again=again)
        if stored and not again and request.command is None:
            given = await repair.mended(graph, saver, run, request)
        if again and (request.interrupt_before or request.interrupt_after):
            state = await graph.aget_state(entry.config_of(run.thread_id))
            breakpoints = (request.interrupt_before, request.interrupt_after)
            if await entry.paused(saver, run, state.next, *breakpoints):
                parts.paused = True
                return
        subgraphs = request.stream_subgraphs or request.protocol == "v2"
        follow: Callable[..., AsyncIterator[Any]] = graph.astream
        if request.protocol == "legacy" and "events" in request.stream_mode:
            follow = partial(traced.stream, graph, tell=parts.event)
        streamed = follow(
            given,
            config,
            context=entry.context(graph.context_schema, request.context),
            stream_mode=modes(request.protocol, request.stream_mode),
            interrupt_before=request.interrupt_before,
            interrupt_after=request.interrupt_after,
            durability=request.durability if stored else None,
            control=turn.control,
            subgraphs=subgraphs,
        )
        async for part in streamed:
            whole: tuple[Any, ...] = part if subgraphs else ((), *part)
            if whole[1] not in STATES:
                turn.heard()
            parts.take(*whole)
            await parts.room()

    def _bound(self, turn: Turn) -> Saver:
        run = turn.run

        def lost(_: FenceLost) -> None:
            self.telemetry.refused_by_fence()
            turn.stop("lost")

        return self.saver.bind(
            owner_id=run.owner_id,
            fence=Fence(run.thread_id, run.epoch or 0),
            on_lost=lost,
        )

    def _parts(self, tape: Tape, request: RunRequest, *, stored: bool) -> Parts:
        kind = V2 if request.protocol == "v2" else Legacy
        return kind(
            tape,
            self.feed.touched,
            request.stream_mode,
            stored=stored and request.durability != "exit",
            edited=bool(request.command and request.command.get("update")),
        )

    def _ending(
        self,
        turn: Turn,
        request: RunRequest,
        parts: Parts,
        failure: BaseException | None,
        snapshot: StateSnapshot | None,
    ) -> Ending:
        status, problem = "success", None
        session_error: Json | None = None
        if turn.stopped == "interrupt":
            status = "interrupted"
            session_error = {"error": "UserInterrupt", "message": turn.reason or "cancelled"}
        elif turn.stopped == "timeout":
            limit = request.timeout or self.limits.run_timeout
            status, problem = "timeout", wire.problem(TimeoutError(f"not done within {limit}"))
        elif failure is not None:
            status, problem = "error", wire.problem(failure)
            log.warning("run %s failed", turn.run.run_id, exc_info=failure)
        waits = snapshot is not None and bool(snapshot.next)
        rest = "error" if problem else "interrupted" if waits else "idle"
        values = snapshot.values if snapshot is not None else parts.values
        default = request.interrupt_default
        forget = request.temporary and request.on_completion == "delete"
        return Ending(
            status=cast("Any", status),
            rest=rest,
            error=problem,
            session_error=problem or session_error,
            interrupts=endings.interrupts(snapshot),
            questions=endings.questions(snapshot, parts.namespaces),
            settles=snapshot is not None or status == "success",
            resumed=bool(request.command and "resume" in request.command),
            interrupt_timeout=request.interrupt_timeout,
            interrupt_default=None if default is None else wire.encode(default),
            message_count=endings.messages(values),
            retire=turn.stuck,
            forget=forget,
            state=wire.encode(values) if forget and request.webhook is not None else None,
        )

    async def _finish(self, turn: Turn, tape: Tape, ending: Ending) -> tuple[Run, bool] | None:
        """The end, all at once; tried until it is written or the run is no longer ours."""
        run = turn.run
        tape.hold()
        for name, data, ns in endings.last_words(run, ending):
            tape.append(name, wire.encode(data), ns=ns)
        rows = await tape.seal()
        work = partial(leases.finish, self.db, run, ending, rows, replaces=tape.replaces)
        return await self._insist(turn, work)

    async def _release(self, turn: Turn, tape: Tape) -> None:
        """Give it back, with what the log lacks of it: a step that is stored is not done again."""
        rows = await tape.seal(ends=False)
        work = partial(leases.release, self.db, turn.run, rows, crashed=turn.crashed)
        await self._insist(turn, work)

    async def _leave(self, turn: Turn, tape: Tape) -> None:
        """The process goes and did not drain: what was streamed is handed over, if it can be."""
        with suppress(TimeoutError, DatabaseError):
            async with asyncio.timeout(LEAVING_SECONDS):
                await self._release(turn, tape)

    async def _insist(self, turn: Turn, work: Callable[[], Awaitable[T]]) -> T | None:
        """Until it is written, or the run is no longer ours."""
        pause = 0.05
        while turn.stopped != "lost":
            try:
                return await work()
            except _OUTAGE as error:
                log.warning("run %s waits for the database: %s", turn.run.run_id, error)
                await asyncio.sleep(pause)
                pause = min(1.0, pause * 2)
        return None

    async def _roll_back(self, turn: Turn) -> None:
        run = turn.run
        saver = self._bound(turn)
        await saver.flush(run.thread_id)
        with suppress(FenceLost):  # then it is the next attempt's to roll back
            await entry.take_back(self.db, saver, run)
            await leases.roll_back(self.db, run)

    async def _compact(self, run: Run) -> None:
        # Only saves room: what is not put together expires with its day all the same.
        with suppress(DatabaseError, DatabaseUnreachable, EncryptionError):
            await compaction.compact(self.db, run.thread_id, run.run_id)


def _ours(failure: BaseException | None) -> bool:
    """Whether it is the engine, and not the graph, that stopped the run."""
    return isinstance(failure, FenceLost | GraphDrained) or _infrastructure(failure)


def _infrastructure(failure: BaseException | None) -> bool:
    """Whether our own database failed the run: then it is tried again, from where it is. A graph's
    own database is its own affair."""
    if not isinstance(failure, _OUTAGE):
        return False
    frames = traceback.walk_tb(failure.__traceback__)
    return any(
        frame.f_globals.get("__name__", "").startswith("clew.checkpointing") for frame, _ in frames
    )


_OUTAGE = (psycopg.OperationalError, psycopg.InterfaceError, DatabaseUnreachable)
