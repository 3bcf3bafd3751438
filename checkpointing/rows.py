"""Rows of the database to what LangGraph reads: checkpoint tuples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    PendingWrite,
    writes_sort_key,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from clew.checkpointing import codec, manifest, metadata, text
from clew.checkpointing.errors import UnknownBody
from clew.checkpointing.manifest import Kind, Layout, Place, Range
from clew.checkpointing.snapshot import Snapshot

Row = Mapping[str, Any]
Item = tuple[int, int, int]  # lineage, stream, number

_FIELDS = {
    "v", "id", "ts", "channel_values", "channel_versions", "versions_seen", "updated_channels",
}  # fmt: skip


class ReadAt(str):
    """A thread id that remembers when its checkpoint was read.

    LangGraph hands the `thread_id` of what it read back with everything that the run goes on to
    put; so each checkpoint can say what its run knew, and nobody else sees a difference.
    """

    __slots__ = ("clock",)
    clock: int

    def __new__(cls, thread_id: str, clock: int) -> Self:
        self = super().__new__(cls, thread_id)
        self.clock = clock
        return self

    def __getnewargs__(self) -> tuple[str, int]:  # type: ignore[override]  # str says `tuple[str]`
        return str(self), self.clock


@dataclass(slots=True)
class Write:
    """One stored write, in the form in which it is sorted and collapsed."""

    task_id: str
    slot: int
    channel: str
    path: str
    body: bytes


def config_of(thread_id: str, ns: str, checkpoint_id: str) -> RunnableConfig:
    return {
        "configurable": {
            "thread_id": thread_id, "checkpoint_ns": ns, "checkpoint_id": checkpoint_id,
        }
    }  # fmt: skip


def make(
    thread_id: str,
    row: Row,
    layout: Layout,
    values: dict[str, Any],
    writes: list[PendingWrite],
) -> CheckpointTuple:
    ns = text.unescape(row["ns"])
    parent_id = row["parent_id"]
    return CheckpointTuple(
        config=config_of(thread_id, ns, row["checkpoint_id"]),
        checkpoint=checkpoint(row, layout, values),
        metadata=cast("CheckpointMetadata", metadata.join(row)),
        parent_config=config_of(thread_id, ns, parent_id) if parent_id else None,
        pending_writes=writes,
    )


def checkpoint(row: Row, layout: Layout, values: dict[str, Any]) -> Checkpoint:
    found: dict[str, Any] = {
        "v": layout.v,
        "ts": layout.ts or row["created_at"].astimezone(UTC).isoformat(),
        "id": row["checkpoint_id"],
        "channel_values": values,
        "channel_versions": layout.versions,
        "versions_seen": layout.versions_seen,
        "updated_channels": layout.updated,
        **layout.rest,
    }
    return cast("Checkpoint", found)


def layout_from(checkpoint: Checkpoint, places: dict[str, Place], ts: str | None) -> Layout:
    return Layout(
        versions=checkpoint["channel_versions"],
        places=places,
        versions_seen=checkpoint["versions_seen"],
        v=checkpoint["v"],
        ts=ts,
        updated=checkpoint.get("updated_channels"),
        rest={k: v for k, v in checkpoint.items() if k not in _FIELDS and v},
    )


def time_of(ts: str) -> tuple[datetime, str | None]:
    """A checkpoint's time as a column, and as text too where the column would not say the same."""
    try:
        at = datetime.fromisoformat(ts)
    except ValueError:
        return datetime.now(UTC), ts
    if at.tzinfo is None:
        return at.replace(tzinfo=UTC), ts
    return at, None if at.astimezone(UTC).isoformat() == ts else ts


def layout_of(row: Row) -> Layout:
    return manifest.decode(row["state"], row["ranges"], row["lineage_id"])


def values_of(
    serde: SerializerProtocol, layout: Layout, bodies: Sequence[bytes] | None
) -> dict[str, Any]:
    """The channels' values, from the bodies in the order of the ranges."""
    bodies = bodies or ()
    if len(bodies) != sum(place.size for place in layout.places.values()):
        raise UnknownBody("a checkpoint refers to values that are not there")
    values: dict[str, Any] = {}
    at = 0
    for channel, place in layout.places.items():
        if place.kind == Kind.ABSENT:
            continue
        size = place.size
        values[channel] = value_of(
            place, [codec.load(serde, body) for body in bodies[at : at + size]]
        )
        at += size
    return values


def value_of(place: Place, parts: list[Any]) -> Any:
    match place.kind:
        case Kind.NULL:
            return None
        case Kind.VALUE:
            return parts[0]
        case Kind.SNAPSHOT:
            return Snapshot(parts)
        case _:
            return parts


def items_of(ranges: Iterable[Range]) -> list[Item]:
    return [(r.lineage_id, r.stream, r.first + i) for r in ranges for i in range(r.size)]


def writes_of(serde: SerializerProtocol, writes: Iterable[Write]) -> list[PendingWrite]:
    """Pending writes as LangGraph sorts them; of an interrupt or an answer, the last one."""
    latest: dict[tuple[str, int], tuple[int, Write]] = {}
    found: list[tuple[tuple[str, str, int], Write]] = []
    for write in writes:
        if write.slot >= 0:
            found.append((writes_sort_key(write.path, write.task_id, write.slot), write))
            continue
        seq, code = divmod(-write.slot, 8)
        if seq >= latest.get((write.task_id, code), (0, write))[0]:
            latest[write.task_id, code] = (seq, write)
    for (task_id, code), (_, write) in latest.items():
        found.append((writes_sort_key(write.path, task_id, -code), write))
    found.sort(key=lambda pair: pair[0])
    return [
        (write.task_id, text.unescape(write.channel), codec.load(serde, write.body))
        for _, write in found
    ]


def slots(writes: Sequence[tuple[str, Any]]) -> list[int]:
    return [WRITES_IDX_MAP.get(channel, i) for i, (channel, _) in enumerate(writes)]


def unzip(row: Row) -> list[Write]:
    """The writes that came with a row, as arrays."""
    if not row["tasks"]:
        return []
    return [
        Write(task_id, slot, channel, text.unescape(path), bytes(body))
        for task_id, slot, channel, path, body in zip(
            row["tasks"], row["slots"], row["channels"], row["paths"], row["writes"], strict=True
        )
    ]
