"""The older stream of a whole thread: the events of all its runs, and states that were edited.

It never ends by itself. Without `Last-Event-ID` it begins now; with `-` at the beginning of what is
kept; with an id after that event. An edit is told by those who are there to hear it, with the state
that it led to; it has no id, and is not told again.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response

from clew.api import protocol, sse, streams
from clew.api.auth import Caller, Who
from clew.api.deps import Clew, Parts, reach
from clew.runtime import errors, events, states, wire
from clew.runtime.events import Cursor, Event

# Part of the routes of threads.
routes = APIRouter()

MODES = ("run_modes", "lifecycle", "state_update")
_LOOK_SECONDS = 0.5


@routes.get("/{thread_id}/stream")
async def join(
    clew: Clew,
    who: Who,
    thread_id: UUID,
    stream_mode: Annotated[list[str] | None, Query()] = None,
    stream_modes: Annotated[list[str] | None, Query()] = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """All runs of a thread as they happen, until the reader leaves."""
    wanted = modes([*(stream_mode or ()), *(stream_modes or ())])
    session = await reach(clew, who, thread_id)
    if last_event_id is None:
        after = await clew.feed.tip(who.principal, str(thread_id))
    else:
        after = events.parse(last_event_id)
    sources: list[AsyncGenerator[bytes]] = []
    if "run_modes" in wanted or "lifecycle" in wanted:
        sources.append(_of_runs(clew, who, str(thread_id), after, whole="run_modes" in wanted))
    if "state_update" in wanted:
        sources.append(_of_edits(clew, who, thread_id, session.state_updated_at))
    return sse.stream(_together(sources))


def modes(named: Sequence[str]) -> set[str]:
    """The clients repeat `stream_mode`, the official server reads a list with commas in
    `stream_modes`: both are meant the same."""
    found = {mode for text in named for mode in text.split(",") if mode}
    for mode in sorted(found):
        if mode not in MODES:
            raise errors.Invalid(f"Invalid stream mode: {mode}")
    return found or {"run_modes"}


async def _of_runs(
    clew: Parts, who: Caller, thread_id: str, after: Cursor, *, whole: bool
) -> AsyncGenerator[bytes]:
    def want(name: str, ns: tuple[str, ...]) -> bool:
        return whole or (not ns and name in ("metadata", "end", "lifecycle"))

    async for event in clew.feed.follow(who.principal, thread_id, after=after, want=want):
        for frame in _frames(event, whole=whole):
            yield frame


def _frames(event: Event, *, whole: bool) -> list[bytes]:
    """An event as this stream shows it; the end of a run is told in words of its own."""
    done = sse.frame(
        "metadata", wire.encode({"status": "run_done", "run_id": event.run_id}), event.id
    )
    if event.protocol != "v2":
        return [done] if event.name == "end" else [streams.frame(event)]
    shown = [sse.frame(event.name, protocol.raw(event), event.id)] if whole else []
    if event.name != "lifecycle" or event.ns:
        return shown
    told = json.loads(event.data)
    if told.get("event") == "running":
        begun = {"run_id": event.run_id, "attempt": told.get("attempt", 1)}
        # Without an id: who resumes after it is to get the event itself too.
        return [sse.frame("metadata", wire.encode(begun), None if whole else event.id), *shown]
    return [*shown, done]


async def _of_edits(
    clew: Parts, who: Caller, thread_id: UUID, seen: datetime
) -> AsyncGenerator[bytes]:
    """States that an edit led to. Edits are rare and make no event: they are found by looking."""
    told: str | None = None
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        try:
            session = await reach(clew, who, thread_id)
        except (errors.NotFound, errors.Gone):
            return
        if session.state_updated_at <= seen:
            continue
        seen = session.state_updated_at
        state = await states.of_session(clew.graphs, clew.saver, clew.store, session)
        if (state["metadata"] or {}).get("source") == "update" and state["checkpoint_id"] != told:
            told = state["checkpoint_id"]
            body = {"state": state, "thread_id": session.thread_id}
            yield sse.frame("state_update", wire.encode(body))


async def _together(sources: Sequence[AsyncGenerator[bytes]]) -> AsyncIterator[bytes]:
    """What any of them says, as it comes; none goes on when the reader has left."""
    waiting = {asyncio.ensure_future(anext(source)): source for source in sources}
    try:
        while waiting:
            spoken, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in spoken:
                source = waiting.pop(task)
                try:
                    frame = task.result()
                except StopAsyncIteration:
                    continue
                yield frame
                waiting[asyncio.ensure_future(anext(source))] = source
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for source in sources:
            await source.aclose()
