"""When did it begin? The first checkpoint of a path at which something holds, in a few loads."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from langgraph.checkpoint.serde.base import SerializerProtocol

from clew.checkpointing import history, view
from clew.checkpointing.errors import UnknownCheckpoint
from clew.checkpointing.postgres import Connection
from clew.checkpointing.reading import RAW, Reader, Unseal

Predicate = Callable[[dict[str, Any]], bool | Awaitable[bool]]
Load = Callable[[str], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Found:
    """The first checkpoint at which it holds, and the last one before."""

    checkpoint_id: str | None  # None: it holds nowhere, not even at the end
    lineage_id: int | None
    before_id: str | None
    loads: int
    length: int  # of the path that was searched


async def find(
    conn: Connection,
    thread_id: str,
    holds: Predicate,
    *,
    tip: str | UUID | None = None,
    since: str | UUID | None = None,
    load: Load | None = None,
    serde: SerializerProtocol = RAW,
    unseal: Unseal | None = None,
) -> Found:
    """Search the path to the newest checkpoint, or to `tip`, after `since` if that is given.

    It is taken for granted that what holds at one checkpoint holds at all that follow; where
    that is not so, what is found is still a checkpoint at which it began to hold. `holds` is
    given the values as they are stored, or what `load` makes of a checkpoint's id: a graph's
    own values, for one with a DeltaChannel or with classes of its own.
    Raises `UnknownThread` and `UnknownCheckpoint`.
    """
    path = await history.path(conn, thread_id, tip=tip)
    if since is not None:
        after = str(view.uuid(since))
        at = next((i for i, (_, checkpoint_id) in enumerate(path) if checkpoint_id == after), None)
        if at is None:
            raise UnknownCheckpoint(f"checkpoint {after} is not on this path")
        path = path[at + 1 :]
    reader = await Reader.of(conn, thread_id, serde=serde, unseal=unseal)
    loads = 0

    async def ask(i: int) -> bool:
        nonlocal loads
        loads += 1
        lineage_id, checkpoint_id = path[i]
        if load is not None:
            values = await load(checkpoint_id)
        else:
            spot = await reader.spot(checkpoint_id, lineage_id=lineage_id)
            values = await reader.values(spot) if spot else {}
        answer = holds(values)
        return bool(await answer) if inspect.isawaitable(answer) else bool(answer)

    if not path or not await ask(len(path) - 1):
        return Found(None, None, path[-1][1] if path else None, loads, len(path))
    low, high = 0, len(path) - 1  # it holds at `high`
    while low < high:
        middle = (low + high) // 2
        if await ask(middle):
            high = middle
        else:
            low = middle + 1
    before = path[low - 1][1] if low else None
    return Found(path[low][1], path[low][0], before, loads, len(path))
