"""Threads found by their values. Values are stored once, in checkpoints, and no index knows them:
so they are looked at one by one, in the order of the search, and only so many. Where that was not
enough the search is refused; it never says less than it could see."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any, cast

from clew.api import rows
from clew.api.deps import Parts
from clew.runtime import errors, states, wire
from clew.runtime.pages import Page
from clew.runtime.sessions import Session

Json = dict[str, Any]

MOST = 1000  # threads looked at in one search
AT_ONCE = 20


def allow(clew: Parts) -> None:
    """Refused where values are encrypted: nothing about them is to be found out by asking."""
    if clew.saver.vault is not None:
        raise errors.Unsupported(
            "values: threads cannot be found by their values while these are encrypted; use "
            "metadata",
            option="values",
        )


async def matching(clew: Parts, page: Page[Session], wanted: Json) -> AsyncGenerator[Json]:
    """The threads of the page whose values contain these, shown, in its order."""
    for start in range(0, len(page.items), AT_ONCE):
        for thread in await shown(clew, page.items[start : start + AT_ONCE]):
            if contains(json.loads(wire.encode(thread["values"])), wanted):
                yield thread
    if page.more:
        raise errors.Unsupported(
            f"values: more than {MOST} threads would have to be looked at; narrow the search by "
            "ids, metadata or status",
            option="values",
        )


async def shown(clew: Parts, sessions: Sequence[Session]) -> list[Json]:
    """Threads with the values of their heads; where one cannot be read, no other is read on."""
    try:
        async with asyncio.TaskGroup() as group:
            reads = [group.create_task(show(clew, session)) for session in sessions]
    except ExceptionGroup as several:
        raise several.exceptions[0] from None
    return [read.result() for read in reads]


async def show(clew: Parts, session: Session) -> Json:
    """A thread whose graph is not registered here shows no values; it is there all the same."""
    thread = rows.thread(session)
    if session.graph_id is not None and session.graph_id not in clew.graphs.ids():
        return {**thread, "values": None}
    state = await states.of_session(clew.graphs, clew.saver, clew.store, session)
    thread["values"] = state["values"]
    return thread


def contains(held: Any, wanted: Any) -> bool:
    """As Postgres means it: objects have at least these keys, lists at least these elements."""
    if isinstance(wanted, dict):
        parts = cast("Json", wanted)
        return isinstance(held, dict) and all(
            key in held and contains(held[key], value) for key, value in parts.items()
        )
    if isinstance(wanted, list):
        elements = cast("list[Any]", wanted)
        return isinstance(held, list) and all(
            any(contains(one, element) for one in cast("list[Any]", held)) for element in elements
        )
    return isinstance(held, bool) == isinstance(wanted, bool) and held == wanted
