"""The line to Redis, where there is one. It may be cut at any moment, and then nobody waits for it:
what Redis carries are hints and copies, of which Postgres has the original.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self, TypeVar

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError

from clew.runtime import errors

log = logging.getLogger(__name__)

T = TypeVar("T")

ANSWER_SECONDS = 0.5  # a Redis that takes longer is as good as none
LOOK_SECONDS = 0.5
LANES = 16  # commands under way at once, each on a connection of its own
FAULTS = (RedisError, OSError)


class Line:
    """`async with Line(url) as line`. Where Redis is not there it waits for it, and says so."""

    def __init__(self, url: str, patience: float = ANSWER_SECONDS) -> None:
        try:
            self.client: Redis = Redis.from_url(
                url,
                protocol=2,
                socket_timeout=patience,
                socket_connect_timeout=patience,
                # A connection that a restart has cut is found out by its next command. Nothing
                # that is sent here does harm when it is sent twice.
                retry=Retry(NoBackoff(), 1, (exceptions.ConnectionError,)),
            )
        except ValueError as error:
            # The text may quote the URL, and with it the password.
            raise errors.ConfigError("CLEW_REDIS_URL is not a Redis URL.") from error
        self.risen = asyncio.Event()
        self.fallen = asyncio.Event()
        self.fallen.set()
        self.losses = 0
        self._starting = True
        self._lanes = asyncio.Semaphore(LANES)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._stack.push_async_callback(self.client.aclose)
        try:
            await self._look()
        except BaseException:
            await self._stack.aclose()
            raise
        self._starting = False
        if not self.up:
            log.warning("Redis is not there: events and wake-ups travel through Postgres alone")
        tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        self._stack.callback(tasks.create_task(self._watch()).cancel)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What was raised inside goes on as it is, not as a group of one.
        await self._stack.aclose()

    @property
    def up(self) -> bool:
        return self.risen.is_set()

    async def attempt(self, work: Callable[[Redis], Awaitable[T]]) -> T | None:
        """Do it if Redis answers; None if not, and then it is left alone until it does."""
        async with self._lanes:
            if not self.up:
                return None
            try:
                return await heeding(work(self.client))
            except FAULTS as error:
                self.fall(error)
                return None

    def fall(self, error: BaseException) -> None:
        """Something that was asked of Redis failed."""
        if self.up:
            log.warning("Redis is away, Postgres carries everything: %s", error)
            self.losses += 1
            self.risen.clear()
            self.fallen.set()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            was = self.up
            await self._look()
            if self.up and not was:
                log.info("Redis is back")

    async def _look(self) -> None:
        try:
            await heeding(self.client.execute_command("PING"))
        except AuthenticationError as error:
            if self._starting:
                raise errors.ConfigError(
                    "Redis refuses the user or password of CLEW_REDIS_URL."
                ) from error
            self.fall(error)  # changed since: a reason to complain, none to stop serving
        except FAULTS as error:
            self.fall(error)
        else:
            self.fallen.clear()
            self.risen.set()


async def heeding(work: Awaitable[T]) -> T:
    """Await something of the client. On Python 3.11 it may swallow that it was told to stop, which
    a `wait_for` there does when what it waits for is done in the same moment."""
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    try:
        return await work
    finally:
        if task.cancelling() > before:
            raise asyncio.CancelledError
