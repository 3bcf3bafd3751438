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
    namespaces: Collection[str] | None = None,
) -> AsyncIterator[bytes]:
    """The events of one run, old and then live, until it is over."""
    batches = clew.feed.batches(
        who.principal, run.thread_id, run.run_id, after=after, want=wanted(modes, namespaces)
    )
    return _frames(batches)


async def cursor(
    clew: Parts,
    who: Caller,
    run: Run,
    last_event_id: str | None,
    checkpoint_id: str | None = None,
) -> Cursor:
    """Where a joiner goes on. Without an id only what is to come, as the protocol has it; a run
    that is over then has nothing left to say. Who shows the state of a checkpoint already is told
    what came after it, or the whole run where it is none of the run's; an id of an event says more.
    """
    after = None if last_event_id is None else parse(last_event_id)
    if checkpoint_id is not None and after in (None, START):
        return await clew.feed.place(who.principal, run.thread_id, run.run_id, checkpoint_id)
    if after is None:
        return await clew.feed.tip(who.principal, run.thread_id)
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


def wanted(
    modes: Collection[str] | None, namespaces: Collection[str] | None = None
) -> Callable[[str, tuple[str, ...]], bool] | None:
    """Only events of these stream modes and of these namespaces, where any were named."""
    if not modes and not namespaces:
        return None
    bases = {"messages" if mode == "messages-tuple" else mode for mode in modes or ()}
    places = [tuple(filter(None, text.split("|"))) for text in namespaces or ()]
    always = {"error", "end"}

    def want(name: str, ns: tuple[str, ...]) -> bool:
        if name in always:
            return True
        if bases and name.split("/", maxsplit=1)[0] not in bases:
            return False
        return not places or name == "metadata" or any(_is_at(ns, place) for place in places)

    return want


def _is_at(ns: tuple[str, ...], place: tuple[str, ...]) -> bool:
    """Whether this is the place, not one within it; a node alone is meant each time it runs."""
    return len(ns) == len(place) and all(
        part == wanted or part.partition(":")[0] == wanted
        for part, wanted in zip(ns, place, strict=True)
    )


async def _frames(batches: AsyncIterator[Sequence[Event]]) -> AsyncIterator[bytes]:
    async for batch in batches:
        for piece in sse.together(frame(event) for event in batch):
            yield piece


def frame(event: Event) -> bytes:
    if event.protocol == "v2":
        return sse.frame(event.name, protocol.raw(event), event.id)
    return sse.frame("|".join((event.name, *event.ns)), event.data, event.id)
