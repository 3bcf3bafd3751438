"""What a run came to, as `wait` and `join` answer it: one JSON object, kept alive by newlines."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta

from clew.api.auth import Caller
from clew.api.deps import Parts
from clew.api.sse import HEARTBEAT_SECONDS
from clew.runtime import errors, sessions, states, wire
from clew.runtime.runs import Run

PATIENCE = timedelta(seconds=60)
_INTERRUPT = b'"__interrupt__"'


async def body(clew: Parts, who: Caller, run: Run) -> AsyncIterator[bytes]:
    """Newlines while it takes, then the result: both are legal JSON together."""
    result = asyncio.ensure_future(of(clew, who, run))
    try:
        while not (await asyncio.wait({result}, timeout=HEARTBEAT_SECONDS))[0]:
            yield b"\n"
        yield result.result()
    finally:
        result.cancel()


async def of(clew: Parts, who: Caller, run: Run) -> bytes:
    """The last values, the questions it stopped to ask, or the error it ended with."""
    values: bytes | None = None
    asked: list[bytes] = []
    events = clew.feed.follow(who.principal, run.thread_id, run.run_id, want=_tells)
    async for event in events:
        if event.name == "error":
            return b'{"__error__":' + event.data + b"}"
        if _INTERRUPT in event.data:
            asked.append(event.data)
        elif event.name == "values" and not event.ns:
            values = event.data
    questions = [json.loads(data) for data in asked]
    questions = [chunk for chunk in questions if chunk.get("__interrupt__")]
    if len(questions) == 1:
        return wire.encode(questions[0])
    if questions:
        merged = {item["id"]: item for chunk in questions for item in chunk["__interrupt__"]}
        return wire.encode({"__interrupt__": list(merged.values())})
    return values if values is not None else await _at_rest(clew, who, run)


def _tells(name: str, ns: tuple[str, ...]) -> bool:
    return not ns and name in ("values", "updates", "error")


async def _at_rest(clew: Parts, who: Caller, run: Run) -> bytes:
    """For a run whose stream says nothing of its values: what its session says now."""
    try:
        session = await sessions.get(clew.db, who.principal, run.thread_id)
    except (errors.NotFound, errors.Gone):
        return b"{}"
    if session.status == "error" and session.error:
        return wire.encode({"__error__": session.error})
    if session.status == "interrupted" and session.interrupts:
        asked = [item for items in session.interrupts.values() for item in items]
        return wire.encode({"__interrupt__": asked})
    state = await states.of_session(clew.graphs, clew.saver, clew.store, session)
    return wire.encode(state["values"])
