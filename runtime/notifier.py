"""Wake-ups between processes. A wake-up is a hint that rows have changed: it may be lost, doubled
or for nothing, so whoever waits for one also looks by himself from time to time.

One connection per process listens, whatever the number of waiters. It also holds the advisory lock
by which others see that this process lives: the lock goes when the connection does.
"""

import asyncio
import logging
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager
from types import TracebackType
from typing import Any, Protocol, Self

import psycopg
from psycopg import AsyncConnection

from clew.checkpointing.errors import DatabaseUnreachable
from clew.checkpointing.postgres import SERVICE, Database
from clew.runtime.sql import queries
from clew.runtime.telemetry import Telemetry

log = logging.getLogger(__name__)

QUEUE = "queue"  # a run waits to be claimed
CANCEL = "cancel"  # a run was asked to stop
WEBHOOK = "webhook"  # a run is over that somebody wants to hear of
PAYLOAD = 7900  # a notification takes 8000 bytes
PROBE_SECONDS = 2.0
PACE_SECONDS = 0.003
LOCK_CLASS = 0x636C6577  # "clew"; with a process's number, the lock that shows it is alive
DEAF = (
    "LISTEN does not work on this connection, probably because of a pooler: runs and events of "
    "other processes are found by polling every second, and a killed worker only when its lease "
    "ends. Set CLEW_DIRECT_URL to a DSN past the pooler."
)


def thread(thread_id: str) -> str:
    """The topic of a session: events were logged, a run of it began or ended."""
    return f"t:{thread_id}"


class Bell:
    """Rings when its topic was published, and after a gap in which that might have been missed."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        self._rung.set()

    async def wait(self, seconds: float) -> bool:
        """Wait for a ring, at most so long; says whether there was one since the last wait."""
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        except TimeoutError:
            return False
        self._rung.clear()
        return True


class Wakeups(Protocol):
    @property
    def patience(self) -> float:
        """Seconds after which a waiter looks by himself."""
        ...

    def publish(self, *topics: str) -> None:
        """Ring here at once and everywhere else soon; best effort, coalesced."""
        ...

    def listen(self, topic: str) -> AbstractContextManager[Bell]: ...


class Notifier:
    """Wake-ups by LISTEN and NOTIFY. Where that cannot work (a pooler in between), waiters here are
    rung all the same, and those elsewhere find out by looking. `dsn` leads past any pooler."""

    def __init__(self, db: Database, dsn: str, telemetry: Telemetry | None = None) -> None:
        self._db = db
        self._dsn = dsn
        self._telemetry = telemetry or Telemetry()
        self._bells: defaultdict[str, set[Bell]] = defaultdict(set)
        self._unsent: set[str] = set()
        self._something = asyncio.Event()
        # Says which notifications are our own: their bells have rung already.
        self._name = secrets.token_hex(6)
        self._settled = asyncio.Event()
        self._stack = AsyncExitStack()
        self.lock_key = 0
        self.direct = False  # the line is open, and the lock is held on it

    async def __aenter__(self) -> Self:
        row = await self._db.one(SERVICE, queries["next_lock_key"])
        if row is not None:
            self.lock_key = row["lock_key"]
        tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        for loop in self._loops():
            self._stack.callback(tasks.create_task(self._run(loop)).cancel)
        await self._settled.wait()
        return self

    def _loops(self) -> Sequence[Callable[[], Awaitable[None]]]:
        return (self._listen, self._speak)

    async def _run(self, loop: Callable[[], Awaitable[None]]) -> None:
        await loop()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What was raised inside goes on as it is, not as a group of one.
        await self._stack.aclose()

    @property
    def patience(self) -> float:
        return 10.0 if self.direct else 1.0

    def publish(self, *topics: str) -> None:
        for topic in topics:
            self._ring(topic)
        self._unsent.update(topics)
        self._something.set()

    @contextmanager
    def listen(self, topic: str) -> Generator[Bell]:
        bell = Bell()
        self._bells[topic].add(bell)
        try:
            yield bell
        finally:
            self._bells[topic].discard(bell)
            if not self._bells[topic]:
                del self._bells[topic]

    async def _speak(self) -> None:
        while True:
            await self._something.wait()
            self._something.clear()
            topics, self._unsent = sorted(self._unsent), set[str]()
            await self._send(topics)
            # The first at once; what comes right after it goes out together.
            await asyncio.sleep(PACE_SECONDS)

    async def _send(self, topics: Sequence[str]) -> None:
        try:
            lines = {"lines": list(self._lines(topics))}
            await self._db.execute(SERVICE, queries["notify"], lines)
        except (psycopg.Error, DatabaseUnreachable) as error:
            # Hints: who misses them looks by himself.
            log.debug("wake-ups were not sent: %s", error)

    def _lines(self, topics: Sequence[str]) -> Iterator[str]:
        line = self._name
        for topic in topics:
            if len(line) + len(topic) + 1 > PAYLOAD:
                yield line
                line = self._name
            line += "," + topic
        yield line

    async def _listen(self) -> None:
        pause = 0.1
        while True:
            try:
                async with await self._connect() as conn:
                    if not await self._hears_itself(conn):
                        log.warning(DEAF)
                        self._settled.set()
                        return
                    await conn.execute(
                        "select pg_advisory_lock(%s, %s)", [LOCK_CLASS, self.lock_key]
                    )
                    self.direct = True
                    self._settled.set()
                    pause = 0.1
                    # Whatever was published while nobody listened.
                    self._ring_all()
                    async for notification in conn.notifies():
                        self._hear(notification.payload)
            except (psycopg.Error, DatabaseUnreachable) as error:
                log.warning("the listening connection broke, connecting again: %s", error)
                self._telemetry.missed_wakeups()
            self.direct = False
            self._settled.set()
            await asyncio.sleep(pause)
            pause = min(2.0, pause * 2)

    async def _connect(self) -> AsyncConnection[Any]:
        return await AsyncConnection.connect(
            self._dsn,
            autocommit=True,
            prepare_threshold=None,
            connect_timeout=5,
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=3,
            application_name="clew-listen",
        )

    async def _hears_itself(self, conn: AsyncConnection[Any]) -> bool:
        """A pooler would take the LISTEN, deliver nothing, and say nothing. The call comes over
        another connection, since an answer on the same one would prove nothing."""
        await conn.execute("listen clew")
        async with self._db.connection() as other:
            await other.execute("select pg_notify('clew', %s)", [self._name])
        async for notification in conn.notifies(timeout=PROBE_SECONDS):
            if notification.payload == self._name:
                return True
        return False

    def _hear(self, payload: str) -> None:
        sender, *topics = payload.split(",")
        if sender == self._name:
            return
        for topic in topics:
            self._ring(topic)

    def _ring(self, topic: str) -> None:
        for bell in self._bells.get(topic, ()):
            bell.ring()

    def _ring_all(self) -> None:
        for bells in self._bells.values():
            for bell in bells:
                bell.ring()
