"""A thread's WebSocket under one scenario: commands out; their answers and the events in."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.compat.side import PATIENCE, Event, Reply, Side


class Socket:
    def __init__(self, side: Side, wire: ClientConnection) -> None:
        self._side = side
        self._wire = wire
        self._events: list[Event] = []
        self._next = 0

    async def send(self, label: str, method: str, **params: Any) -> Any:
        """Send a command; its answer is compared. Events that come before it are kept."""
        self._next += 1
        command = {"id": self._next, "method": method, "params": params}
        return await self.say(label, json.dumps(command))

    async def say(self, label: str, text: str) -> Any:
        await self._wire.send(text)
        while (frame := await self._hear()).get("type") == "event":
            self._events.append((frame["method"], frame))
        self._side.replies.append(Reply(label, 200, {}, frame))
        return frame

    async def told(self, label: str, until: Callable[[Event], bool]) -> None:
        """The events since the last time, to the first that `until` holds for, are compared."""
        found, self._events = self._events, []
        while not (found and until(found[-1])):
            frame = await self._hear()
            found.append((frame.get("method", frame.get("type")), frame))
        self._side.replies.append(Reply(label, 200, {}, events=found))

    async def _hear(self) -> Any:
        async with asyncio.timeout(PATIENCE):
            return json.loads(await self._wire.recv())


@contextlib.asynccontextmanager
async def opened(side: Side, thread_id: str) -> AsyncGenerator[Socket]:
    base = str(side.http.base_url).replace("http", "ws", 1).rstrip("/")
    async with connect(f"{base}/threads/{thread_id}/stream/events", max_size=None) as wire:
        yield Socket(side, wire)
