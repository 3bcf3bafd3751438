"""What many sessions write at the same moment, in one exchange.

While an exchange is under way, what comes meanwhile waits, and then goes out together, each
operation a transaction of its own: a stale or a poisoned one fails alone. Nobody waits for long
behind one that waits for a lock: together with others it gives up soon, and waits by itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import psycopg

from clew.checkpointing.exchange import Answer, Operation, Outcome

Send = Callable[[Sequence[Operation]], Awaitable[list[Outcome]]]

_LANES = 2
_MOST = 64  # operations in one exchange
_PATIENCE_SECONDS = 0.05
_ALONE = 4  # connections that may wait for locks by themselves


class CutOff(psycopg.OperationalError):
    """Whoever sent it along was cancelled: it may have landed or not, and nothing is amiss."""


@dataclass(slots=True, eq=False)
class _Waiting:
    operation: Operation
    # What came of it; None if it is to go out now, and take the others along.
    answered: asyncio.Future[Outcome | None]


class Combiner:
    """Whoever finds a lane free sends for all who wait; there is no task that could be left."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._free = _LANES
        self._queue: deque[_Waiting] = deque()
        self._alone = asyncio.Semaphore(_ALONE)

    async def run(self, operation: Operation) -> list[Answer]:
        outcome = await self._together(operation)
        if isinstance(outcome, psycopg.errors.LockNotAvailable):
            async with self._alone:
                (outcome,) = await self._send([operation])
        return _told(outcome)

    async def _together(self, operation: Operation) -> Outcome:
        if self._free == 0:
            outcome = await self._turn(operation)
            if outcome is not None:
                return outcome
        else:
            self._free -= 1
        others = [self._queue.popleft() for _ in range(min(len(self._queue), _MOST - 1))]
        others = [other for other in others if not other.answered.done()]
        lane = _Lane(self._next)
        try:
            first, *more = await self._send([operation, *(other.operation for other in others)])
        except BaseException as error:  # if only we were cancelled, too
            # Theirs may have landed or not, as with any connection that is lost.
            for other in others:
                if not other.answered.done():
                    other.answered.set_result(_lost(error))
            raise
        finally:
            lane.leave()
        for other, outcome in zip(others, more, strict=True):
            if not other.answered.done():
                other.answered.set_result(outcome)
        return first

    async def _turn(self, operation: Operation) -> Outcome | None:
        waiting = _Waiting(operation, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        try:
            return await waiting.answered
        except asyncio.CancelledError:
            if waiting in self._queue:
                self._queue.remove(waiting)
            elif not waiting.answered.cancelled() and waiting.answered.result() is None:
                self._next()
            raise

    def _next(self) -> None:
        while self._queue:
            waiting = self._queue.popleft()
            if not waiting.answered.done():
                waiting.answered.set_result(None)
                return
        self._free += 1


class _Lane:
    """The right to send, handed on when the exchange is done, or earlier where it takes long."""

    def __init__(self, hand_on: Callable[[], None]) -> None:
        self._hand_on: Callable[[], None] | None = hand_on
        self._timer = asyncio.get_running_loop().call_later(_PATIENCE_SECONDS, self.leave)

    def leave(self) -> None:
        self._timer.cancel()
        if self._hand_on is not None:
            hand_on, self._hand_on = self._hand_on, None
            hand_on()


def _lost(error: BaseException) -> Exception:
    if isinstance(error, asyncio.CancelledError):
        return CutOff("the exchange was cut off")
    if isinstance(error, psycopg.Error):
        return type(error)(*error.args)
    return psycopg.OperationalError("the exchange was never sent")


def _told(outcome: Outcome) -> list[Answer]:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
