"""One of the two servers, as a script sees it: what is sent, and the record of what came back."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

# What clients read of a response besides its body.
HEADERS = (
    "content-type",
    "content-location",
    "location",
    "x-pagination-total",
    "x-pagination-next",
    "cache-control",
    "x-accel-buffering",
    "allow",
    "access-control-allow-origin",
    "access-control-allow-methods",
    "access-control-expose-headers",
)

PATIENCE = 30.0  # for anything that is waited for: a hang is a difference, not the end of the run

PROJECT = Path(__file__).parent / "project" / "langgraph.json"
GRAPHS = tuple(json.loads(PROJECT.read_text())["graphs"])

Event = tuple[str, Any]


class Impatient(Exception):
    """What was waited for did not come."""


@dataclass
class Reply:
    """One answer as it is compared."""

    label: str
    status: int
    headers: dict[str, str]
    body: Any = None
    events: list[Event] | None = None
    ids: list[str] = field(default_factory=list[str])

    def __getitem__(self, key: str) -> Any:
        return self.body.get(key) if isinstance(self.body, dict) else None

    def values(self, name: str) -> list[Any]:
        return [data for event, data in self.events or [] if event == name]


class Side:
    """A server under one scenario."""

    def __init__(self, http: httpx.AsyncClient, scenario: str) -> None:
        self.http = http
        self.scenario = scenario
        self.replies: list[Reply] = []
        self.gave_up: str | None = None
        self.names = {uuid_of(graph): f"<assistant {graph}>" for graph in GRAPHS}

    def id(self, name: str) -> str:
        """An id that both servers are given, the same on each."""
        value = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.scenario}/{name}"))
        self.names[value] = f"<{name}>"
        return value

    def name(self, value: Any, name: str) -> Any:
        """From here on this id, which the server minted, reads as its name."""
        if isinstance(value, str):
            self.names[value] = f"<{name}>"
        return value

    async def send(
        self,
        label: str,
        method: str,
        path: str,
        json: Any = None,
        *,
        until: Callable[[Event], bool] | None = None,
        opened: bool = False,
        record: bool = True,
        **more: Any,
    ) -> Reply:
        """Send a request; its answer is compared with the other server's under the label. A
        stream is read to its end, or to the first event that `until` holds for; not at all where
        only that it is `opened` matters."""
        if json is not None:
            more["json"] = json
        async with asyncio.timeout(PATIENCE):
            async with self.http.stream(method, path, **more) as response:
                reply = await _read(label, response, until, opened=opened)
        if record:
            self.replies.append(reply)
        return reply

    async def ask(self, method: str, path: str, json: Any = None, **more: Any) -> Reply:
        """Send a request whose answer is not compared."""
        return await self.send("", method, path, json, record=False, **more)

    async def wait_for(
        self, path: str, holds: Callable[[Any], bool], method: str = "GET", json: Any = None
    ) -> Any:
        """Ask until it holds; servers that have no push for it leave no other way."""
        last = None
        for _ in range(int(PATIENCE / 0.05)):
            last = (await self.ask(method, path, json)).body
            if holds(last):
                return last
            await asyncio.sleep(0.05)
        raise Impatient(f"{path}: {last}")

    async def thread(self, name: str = "thread", **more: Any) -> str:
        """A new thread with an id that is the same on both sides."""
        thread_id = self.id(name)
        reply = await self.ask("POST", "/threads", {"thread_id": thread_id, **more})
        if reply.status != 200:
            raise Impatient(f"no thread: {reply.body}")
        return thread_id

    async def settled(self, thread_id: str, run_id: str) -> Any:
        """The run when it is over, and its thread with it."""
        over = await self.wait_for(
            f"/threads/{thread_id}/runs/{run_id}",
            lambda run: run.get("status") not in ("pending", "running"),
        )
        await self.idle(thread_id)
        return over

    async def idle(self, thread_id: str) -> Any:
        return await self.wait_for(
            f"/threads/{thread_id}", lambda thread: thread.get("status") != "busy"
        )

    async def running(self, thread_id: str, run_id: str) -> None:
        """Until a `slow` run has done its first step and waits in the second."""
        await self.wait_for(
            f"/threads/{thread_id}/state",
            lambda state: (
                state.get("next") == ["wait"]
                and (state.get("metadata") or {}).get("run_id", run_id) == run_id
            ),
        )


async def _read(
    label: str,
    response: httpx.Response,
    until: Callable[[Event], bool] | None,
    *,
    opened: bool,
) -> Reply:
    headers = {name: response.headers[name] for name in HEADERS if name in response.headers}
    reply = Reply(label, response.status_code, headers)
    if response.headers.get("content-type", "").startswith("text/event-stream"):
        reply.events = []
        if opened:
            return reply
        async for name, data, number in _events(response.aiter_lines()):
            reply.events.append((name, data))
            if number is not None:
                reply.ids.append(number)
            if until is not None and until((name, data)):
                break
        return reply
    content = await response.aread()
    try:
        reply.body = json.loads(content) if content.strip() else None
    except ValueError:
        reply.body = content.decode()
    return reply


async def _events(lines: AsyncIterator[str]) -> AsyncIterator[tuple[str, Any, str | None]]:
    name, data, number = "message", list[str](), None
    async for line in lines:
        if line.startswith(":"):
            continue
        if not line:
            if data or name != "message":
                text = "\n".join(data)
                yield name, json.loads(text) if text else None, number
            name, data, number = "message", [], None
            continue
        key, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if key == "event":
            name = value
        elif key == "data":
            data.append(value)
        elif key == "id":
            number = value


def uuid_of(graph: str) -> str:
    """The id of the assistant that every graph has."""
    return str(uuid.uuid5(uuid.UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8"), graph))
