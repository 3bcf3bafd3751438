"""A DeltaChannel's past: the writes since its last snapshot, found in one walk that stops there.

Such a channel stores nothing at most steps; its value is what its reducer makes of the writes on
the way from the nearest ancestor that stored one. The walk crosses lineages.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from langgraph.checkpoint.base import DeltaChannelHistory, PendingWrite, writes_sort_key
from langgraph.checkpoint.serde.base import SerializerProtocol

from clew.checkpointing import codec, listing, path, rows, text
from clew.checkpointing.errors import UnknownBody
from clew.checkpointing.manifest import Kind, Place
from clew.checkpointing.path import Fetch, Line, Seen
from clew.checkpointing.rows import Row
from clew.checkpointing.snapshot import Snapshot
from clew.checkpointing.sql import Queries

_SQL = Queries("clew.checkpointing.queries")
_FOREVER = (1 << 63) - 1


def seeds(
    known: Mapping[str, Any], values: Mapping[str, Any], places: Mapping[str, Place]
) -> list[str] | None:
    """The channels that a walk may stop for here; null where no DeltaChannel is in play."""
    if "counters_since_delta_snapshot" not in known and not any(
        isinstance(value, Snapshot) for value in values.values()
    ):
        return None
    return [text.escape(channel) for channel, place in places.items() if place.kind != Kind.ABSENT]


async def history(
    fetch: Fetch,
    serde: SerializerProtocol,
    lines: Sequence[Line],
    ns: str,
    checkpoint_id: str | None,
    channels: Sequence[str],
) -> dict[str, DeltaChannelHistory]:
    """For each channel: the nearest stored value before this checkpoint, and the writes since."""
    walked: dict[str, list[Seen]] = {channel: [] for channel in channels}
    seed: dict[str, Place] = {}
    left = set(channels)
    target = await _target(fetch, lines, ns, checkpoint_id)
    if target is not None:
        async for seen in _ancestors(fetch, lines, ns, target, left):
            layout = rows.layout_of(seen.row)
            for channel in sorted(left):
                walked[channel].append(seen)
                place = layout.places.get(channel)
                if place is not None and place.kind != Kind.ABSENT:
                    seed[channel] = place
                    left.discard(channel)
            if not left:
                break
    bodies = await listing.items(fetch, (r for place in seed.values() for r in place.ranges))
    writes = await _writes(fetch, serde, walked)
    result: dict[str, DeltaChannelHistory] = {}
    for channel in channels:
        entry: DeltaChannelHistory = {"writes": writes[channel]}
        if channel in seed:
            where = rows.items_of(seed[channel].ranges)
            if any(one not in bodies for one in where):
                raise UnknownBody("a snapshot refers to a value that is not there")
            parts = [codec.load(serde, bodies[one]) for one in where]
            entry["seed"] = rows.value_of(seed[channel], parts)
        result[channel] = entry
    return result


async def _target(
    fetch: Fetch, lines: Sequence[Line], ns: str, checkpoint_id: str | None
) -> tuple[int, Row] | None:
    """The checkpoint, and how far up the lineages it lies."""
    asked = path.Asked(ns=ns, checkpoint_id=checkpoint_id)
    row = await path.first(fetch, lines[0], asked)
    if row is not None:
        return 0, row
    if checkpoint_id is None:
        seen = await path.newest(fetch, lines, ns)
    else:
        seen = await path.find(fetch, lines, ns, checkpoint_id)
    if seen is None:
        return None
    ids = [line.lineage_id for line in lines]
    return ids.index(seen.row["lineage_id"]), seen.row


async def _ancestors(
    fetch: Fetch,
    lines: Sequence[Line],
    ns: str,
    target: tuple[int, Row],
    left: set[str],
) -> AsyncGenerator[Seen]:
    depth, row = target
    want: str | None = row["parent_id"]
    below: int = row["seq"]
    until = _FOREVER
    for child in lines[:depth]:
        until = min(until, path.moment(child))
    for line in lines[depth:]:
        while want is not None and left:
            found = await fetch(
                _SQL["delta_walk"],
                {
                    "lineage_id": line.lineage_id, "ns": ns, "checkpoint_id": want,
                    "until": min(until, below - 1),
                    "channels": [text.escape(channel) for channel in left],
                },
            )  # fmt: skip
            for one in found:
                yield Seen(one, until)
            if not found:
                break
            want, below = found[-1]["parent_id"], found[-1]["seq"]
        if want is None or not left:
            return
        until = min(until, path.moment(line))


async def _writes(
    fetch: Fetch, serde: SerializerProtocol, walked: Mapping[str, list[Seen]]
) -> dict[str, list[PendingWrite]]:
    """Each channel's writes, oldest checkpoint first, and within one as the run applied them."""
    longest = max(walked.values(), key=len)
    found: dict[tuple[int, str], list[Row]] = {}
    if longest:
        params = path.rows_until(longest)
        params["channels"] = [text.escape(channel) for channel in walked]
        for row in await fetch(_SQL["delta_writes"], params):
            found.setdefault((row["lineage_id"], row["checkpoint_id"]), []).append(row)
    result: dict[str, list[PendingWrite]] = {}
    for channel, seen in walked.items():
        result[channel] = []
        for s in reversed(seen):
            here = found.get((s.row["lineage_id"], s.row["checkpoint_id"]), [])
            here.sort(key=lambda row: writes_sort_key(text.unescape(row["path"]), row["task_id"],
                                                      row["slot"]))  # fmt: skip
            result[channel] += [
                (row["task_id"], channel, codec.load(serde, row["body"]))
                for row in here
                if text.unescape(row["channel"]) == channel
            ]
    return result
