"""Wake-ups by Redis, for fleets: every process hears only the sessions that somebody in it waits
for, where `LISTEN` would wake them all. While Redis is away they go by Postgres, as without it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from clew.checkpointing.postgres import Database
from clew.runtime.line import FAULTS, Line, heeding
from clew.runtime.notifier import Bell, Notifier
from clew.runtime.telemetry import Telemetry

log = logging.getLogger(__name__)

PREFIX = "clew:w:"
BASE = "-"  # a channel that is always open, so that there is a connection to notice a cut by


class Channels(Notifier):
    """A `Notifier` that speaks through Redis while that answers. It listens to both: whoever has
    lost Redis speaks through Postgres. The lock that shows that a process lives stays there."""

    def __init__(
        self, db: Database, dsn: str, line: Line, telemetry: Telemetry | None = None
    ) -> None:
        super().__init__(db, dsn, telemetry)
        self._line = line
        self._hears = False
        self._stirred = asyncio.Event()

    def _loops(self) -> Sequence[Callable[[], Awaitable[None]]]:
        return (*super()._loops(), self._tune)

    @property
    def patience(self) -> float:
        return super().patience if self._hears else 1.0

    @contextmanager
    def listen(self, topic: str) -> Generator[Bell]:
        with super().listen(topic) as bell:
            self._stirred.set()
            try:
                yield bell
            finally:
                self._stirred.set()

    async def _send(self, topics: Sequence[str]) -> None:
        if await self._line.attempt(lambda redis: self._publish(redis, topics)) is None:
            await super()._send(topics)

    async def _publish(self, redis: Redis, topics: Sequence[str]) -> list[Any]:
        pipe = redis.pipeline(transaction=False)
        for topic in topics:
            pipe.publish(PREFIX + topic, self._name)
        return await pipe.execute()

    async def _tune(self) -> None:
        while True:
            await self._line.risen.wait()
            await self._while_up()

    async def _while_up(self) -> None:
        pubsub = self._line.client.pubsub()
        tasks: list[asyncio.Task[None]] = []
        try:
            await heeding(pubsub.subscribe(PREFIX + BASE))
            loops = (self._choose(pubsub), self._attend(pubsub), self._break_off())
            tasks += [asyncio.create_task(loop) for loop in loops]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except FAULTS as error:
            self._line.fall(error)
            self._telemetry.missed_wakeups()
        finally:
            self._hears = False
            # Who waits with the patience of one who hears is told that he does not.
            self._ring_all()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await pubsub.aclose()

    async def _choose(self, pubsub: PubSub) -> None:
        """Subscribe to what somebody waits for, and to nothing else."""
        chosen = {PREFIX + BASE}
        while True:
            self._stirred.clear()
            wanted = {PREFIX + topic for topic in (BASE, *self._bells)}
            if fresh := wanted - chosen:
                await heeding(pubsub.subscribe(*fresh))
            if stale := chosen - wanted:
                await heeding(pubsub.unsubscribe(*stale))
            chosen = wanted
            await self._stirred.wait()

    async def _attend(self, pubsub: PubSub) -> None:
        while True:
            message = await heeding(pubsub.get_message(timeout=5.0))
            if message is None:
                continue
            channel, data = message["channel"], message["data"]
            topic = _text(channel).removeprefix(PREFIX)
            if message["type"] == "subscribe":
                # What was published before there was a line to hear it.
                self._hears = True
                self._ring(topic)
            elif message["type"] == "message" and _text(data) != self._name:
                self._ring(topic)

    async def _break_off(self) -> None:
        """A line that was dead may be open here still, and hear nothing ever after."""
        await self._line.fallen.wait()
        raise ConnectionResetError("the line to Redis fell")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
