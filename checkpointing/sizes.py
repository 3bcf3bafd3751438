"""How many bytes a session stores, and which channels they are in. No value is read."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

from clew.checkpointing import items, manifest, text, view
from clew.checkpointing.postgres import Connection
from clew.checkpointing.sql import Queries

_queries = Queries("clew.checkpointing.queries")
_TASK = re.compile(r":[^|]+")


@dataclass(frozen=True, slots=True)
class Part:
    count: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel of the root graph (`ns` is empty) or of a subgraph, all its calls together."""

    ns: str
    channel: str
    count: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """Rows as they are stored, compressed, without indexes."""

    thread_id: str
    total_bytes: int
    checkpoints: Part
    channel_values: Part
    pending_writes: Part
    channels: tuple[Channel, ...]  # the largest first


async def of(conn: Connection, thread_id: str) -> Sizes:
    """What a session stores itself, on every line. Raises `UnknownThread`."""
    await view.lines_of(conn, thread_id, every=False)
    cursor = await conn.execute(_queries["size_of_rows"], {"thread_id": text.escape(thread_id)})
    row = await cursor.fetchone()
    assert row is not None
    own = {"lineage_ids": row["lineages"]}
    streams = await (await conn.execute(_queries["size_of_streams"], own)).fetchall()
    layouts = await (await conn.execute(_queries["newest_layouts"], own)).fetchall()
    names: dict[int, tuple[str, str]] = {}
    for found in layouts:
        ns = text.unescape(found["ns"])
        layout = manifest.decode(found["state"], found["ranges"], found["lineage_id"])
        for channel in layout.versions:
            names[items.stream(ns, channel)] = (_TASK.sub(":*", ns), channel)
    totals: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for stream in streams:
        total = totals[names.get(stream["stream"], ("", "?"))]
        total[0] += stream["items"]
        total[1] += stream["bytes"]
    values = Part(sum(s["items"] for s in streams), sum(s["bytes"] for s in streams))
    return Sizes(
        thread_id=thread_id,
        total_bytes=row["checkpoint_bytes"] + row["write_bytes"] + values.bytes,
        checkpoints=Part(row["checkpoints"], row["checkpoint_bytes"]),
        channel_values=values,
        pending_writes=Part(row["writes"], row["write_bytes"]),
        channels=tuple(
            Channel(ns, channel, count, size)
            for (ns, channel), (count, size) in sorted(
                totals.items(), key=lambda item: item[1][1], reverse=True
            )
        ),
    )
