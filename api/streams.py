"""Events as the frames of a legacy stream: `values|child:…`, JSON, and an id to resume by."""

import json
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from datetime import UTC, datetime

from clew.api import protocol, sse
from clew.api.auth import Caller
from clew.api.deps import Parts
from clew.api.schema import STREAM_MODES
from clew.runtime import errors
from clew.runtime.events import START, Cursor, Event, parse
from clew.runtime.runs import Run


def of_run(
    clew: Parts,
    who: Caller,
    run: Run,
    *,
    after: Cursor = START,
    modes: Collection[str] | None = None,
) -> AsyncIterator[bytes]:
    """The events of one run, old and then live, until it is over."""
    events = clew.feed.follow(
        who.principal, run.thread_id, run.run_id, after=after, want=wanted(modes)
    )
    return _frames(events)


async def cursor(clew: Parts, who: Caller, run: Run, last_event_id: str | None) -> Cursor:
    """Where a joiner goes on. Without an id only what is to come, as the protocol has it; a run
    that is over then has nothing left to say."""
    if last_event_id is None:
        return await clew.feed.tip(who.principal, run.thread_id)
    after = parse(last_event_id)
    # The log forgets by the day, so its days tell without a look at it.
    since = datetime.now(UTC) - (run.ended_at or datetime.now(UTC))
    forgotten = since > clew.settings.event_retention
    clew.telemetry.resumed("expired" if forgotten else "hit")
    return after


def modes(named: Sequence[str] | None) -> list[str] | None:
    """Stream modes of a query: repeated, or as one JSON array; an empty value is none."""
    found: list[str] = []
    for text in named or ():
        found += json.loads(text) if text.startswith("[") else [text]
    for mode in filter(None, found):
        if mode not in STREAM_MODES:
            raise errors.Invalid(f"stream_mode: unknown stream mode {mode!r}")
    return [mode for mode in found if mode] or None


def wanted(modes: Collection[str] | None) -> Callable[[str, tuple[str, ...]], bool] | None:
    """Only events of these stream modes, where any were named."""
    if not modes:
        return None
    bases = {"messages" if mode == "messages-tuple" else mode for mode in modes}
    always = {"error", "end"}

    def want(name: str, _ns: tuple[str, ...]) -> bool:
        return name.split("/", maxsplit=1)[0] in bases or name in always

    return want


async def _frames(events: AsyncIterator[Event]) -> AsyncIterator[bytes]:
    async for event in events:
        yield frame(event)


def frame(event: Event) -> bytes:
    if event.protocol == "v2":
        return sse.frame(event.name, protocol.raw(event), event.id)
    return sse.frame("|".join((event.name, *event.ns)), event.data, event.id)
