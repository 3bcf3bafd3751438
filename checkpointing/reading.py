"""Values as they are stored, for people and tools: no graph and no class of the user is needed.

What the serializer does not know to be harmless comes back as the plain data that it was made of.
A DeltaChannel's value would need its reducer; it is put together the way messages and lists are,
`Spot.deltas` names those channels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

from langchain_core.messages import BaseMessage, RemoveMessage
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Overwrite
from psycopg.rows import DictRow

from clew.checkpointing import (
    codec,
    delta,
    listing,
    manifest,
    metadata,
    path,
    rows,
    text,
    view,
)
from clew.checkpointing.errors import UnknownBody, UnknownCheckpoint
from clew.checkpointing.manifest import Kind, Layout, Place, Range
from clew.checkpointing.postgres import Connection
from clew.checkpointing.rows import Item
from clew.checkpointing.seals import Unsealer
from clew.checkpointing.snapshot import Snapshot
from clew.checkpointing.sql import Queries
from clew.checkpointing.view import Line

Unseal = Unsealer

RAW = JsonPlusSerializer(allowed_msgpack_modules=None)

_queries = Queries("clew.checkpointing.queries")
_COUNTERS = "counters_since_delta_snapshot"
_REMOVE_ALL = "__remove_all__"


@dataclass(frozen=True, slots=True)
class Spot:
    """A checkpoint with its layout, and no value of it."""

    thread_id: str
    lineage_id: int
    checkpoint_id: str
    parent_id: str | None
    layout: Layout
    metadata: dict[str, Any]
    created_at: Any
    deltas: frozenset[str]  # channels whose value is not stored here but has to be put together
    row: DictRow


class Reader:
    """Reads one session's checkpoints inside a transaction of the caller's."""

    def __init__(
        self,
        conn: Connection,
        thread_id: str,
        lines: Sequence[Line],
        *,
        serde: SerializerProtocol = RAW,
        unseal: Unseal | None = None,
    ) -> None:
        self.conn = conn
        self.thread_id = thread_id
        self.lines = lines
        self._serde = serde
        fetch = path.through(conn)
        self._fetch = fetch if unseal is None else unseal.over(fetch)

    @classmethod
    async def of(
        cls,
        conn: Connection,
        thread_id: str,
        *,
        serde: SerializerProtocol = RAW,
        unseal: Unseal | None = None,
    ) -> Reader:
        lines = await view.lines_of(conn, thread_id, every=True)
        return cls(conn, thread_id, lines, serde=serde, unseal=unseal)

    async def spot(
        self, checkpoint_id: str | UUID | None = None, *, lineage_id: int | None = None
    ) -> Spot | None:
        """A checkpoint the session sees, its newest by default: None if it has none."""
        if checkpoint_id is None:
            head = next(line for line in self.lines if line.is_head)
            wanted = {"lineage_id": head.lineage_id}
            cursor = await self.conn.execute(_queries["tip_of_lineage"], wanted)
            tip = await cursor.fetchone()
            if tip is None:
                return None
            checkpoint_id, lineage_id = str(tip["checkpoint_id"]), head.lineage_id
        where = await view.find(self.conn, self.lines, checkpoint_id, lineage_id=lineage_id)
        wanted = {"lineage_id": where["lineage_id"], "seq": where["seq"]}
        row = await (await self.conn.execute(_queries["root_row"], wanted)).fetchone()
        if row is None:  # deleted since it was found
            raise UnknownCheckpoint(f"no checkpoint {checkpoint_id} in session {self.thread_id!r}")
        return _spot(self.thread_id, row)

    async def values(self, spot: Spot, channels: Collection[str] | None = None) -> dict[str, Any]:
        """The values of these channels, of all by default."""
        wanted = {
            channel: place
            for channel, place in spot.layout.places.items()
            if place.kind != Kind.ABSENT and (channels is None or channel in channels)
        }
        found = await self.items([r for place in wanted.values() for r in place.ranges])
        values = {
            channel: _bare(
                rows.value_of(place, [found[item] for item in rows.items_of(place.ranges)])
            )
            for channel, place in wanted.items()
        }
        deltas = [c for c in spot.deltas if channels is None or c in channels]
        if deltas:
            values |= {
                channel: fold(seed, writes)
                for channel, (seed, writes) in (await self.deltas(spot, deltas)).items()
            }
        return values

    async def items(self, ranges: Collection[Range]) -> dict[Item, Any]:
        """The elements in these ranges, each decoded once."""
        bodies = await listing.items(self._fetch, ranges)
        if any(item not in bodies for item in rows.items_of(ranges)):
            raise UnknownBody("a checkpoint refers to values that are not there")
        return {item: codec.load(self._serde, body) for item, body in bodies.items()}

    async def interrupts(self, spot: Spot) -> list[Any]:
        """What was asked at a checkpoint, answered since or not."""
        found: list[Any] = []
        for _, channel, value in await self._writes([spot.row]):
            if channel == "__interrupt__":
                found += value if isinstance(value, list | tuple) else [value]
        return found

    async def deltas(self, spot: Spot, channels: Iterable[str]) -> dict[str, tuple[Any, list[Any]]]:
        """Of DeltaChannels: the last stored value on the way back, and the writes since."""
        lines = await path.chain(self._fetch, spot.lineage_id)
        found = await delta.history(
            self._fetch, self._serde, lines, "", spot.checkpoint_id, list(channels)
        )
        return {
            channel: (_bare(past.get("seed")), [value for _, _, value in past["writes"]])
            for channel, past in found.items()
        }

    async def _writes(self, sources: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, Any]]:
        found = await self._fetch(
            _queries["load_writes"],
            {
                "lineages": [row["lineage_id"] for row in sources],
                "checkpoints": [row["checkpoint_id"] for row in sources],
                "nss": [row["ns"] for row in sources],
                "untils": [view.until(self.lines, row["lineage_id"]) for row in sources],
            },
        )
        return rows.writes_of(
            self._serde,
            [
                rows.Write(
                    task_id=row["task_id"],
                    slot=row["slot"],
                    channel=row["channel"],
                    path=text.unescape(row["path"]),
                    body=bytes(row["body"]),
                )
                for row in found
            ],
        )


def fold(seed: Any, writes: Sequence[Any]) -> Any:
    """What writes make of a DeltaChannel's value, as far as one can tell without its reducer."""
    value: Any = seed
    for write in writes:
        if isinstance(write, dict) and [*cast("dict[str, Any]", write)] == ["__overwrite__"]:
            value = cast("dict[str, Any]", write)["__overwrite__"]
        elif isinstance(write, Overwrite):
            value = write.value
        elif isinstance(write, dict) and isinstance(value, dict | None):
            value = {**(value or {}), **write}
        else:
            more = cast("list[Any]", write) if isinstance(write, list) else [write]
            value = _append(cast("list[Any]", value) if isinstance(value, list) else [], more)
    return value


def _append(value: list[Any], more: list[Any]) -> list[Any]:
    merged = [*value]
    for element in more:
        known = _id(element)
        at = next((i for i, old in enumerate(merged) if known and _id(old) == known), None)
        if isinstance(element, RemoveMessage):
            if element.id == _REMOVE_ALL:
                merged.clear()
            elif at is not None:
                del merged[at]
        elif at is not None:
            merged[at] = element
        else:
            merged.append(element)
    return merged


def _id(element: Any) -> str | None:
    return element.id if isinstance(element, BaseMessage) else None


def _bare(value: Any) -> Any:
    return value.value if isinstance(value, Snapshot) else value


def _spot(thread_id: str, row: DictRow) -> Spot:
    layout = manifest.decode(row["state"], row["ranges"], row["lineage_id"])
    told = metadata.join(row)
    counters = cast("Mapping[str, Any]", told.get(_COUNTERS) or {})
    return Spot(
        thread_id=thread_id,
        lineage_id=row["lineage_id"],
        checkpoint_id=str(row["checkpoint_id"]),
        parent_id=None if row["parent_id"] is None else str(row["parent_id"]),
        layout=layout,
        metadata=told,
        created_at=row["created_at"],
        deltas=frozenset(
            channel
            for channel in counters
            if layout.places.get(channel, Place(Kind.VALUE)).kind == Kind.ABSENT
        ),
        row=row,
    )
