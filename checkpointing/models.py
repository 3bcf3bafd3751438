"""Where models spoke: the checkpoints right before a new message of a model.

There a client regenerates the message. Only what is new in a list is decoded, and what cannot be
read counts as a message: it is kept.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, cast
from uuid import UUID

from langchain_core.messages import AIMessage
from langgraph.checkpoint.serde.base import SerializerProtocol
from psycopg.rows import DictRow

from clew.checkpointing import codec, jsonable, listing, manifest, path
from clew.checkpointing.choice import Key, key
from clew.checkpointing.errors import CheckpointError
from clew.checkpointing.manifest import Kind, Layout, Place, Range
from clew.checkpointing.postgres import Connection
from clew.checkpointing.reading import Unseal
from clew.checkpointing.rows import Item, items_of
from clew.checkpointing.spans import Spans

_INTERNAL = ("__", "branch:", "join:")
_LISTS = (Kind.LIST, Kind.SNAPSHOT)
_PAGE = 500  # rows whose new values are read together


async def before(
    conn: Connection,
    rows: Sequence[DictRow],
    serde: SerializerProtocol,
    unseal: Unseal | None = None,
) -> set[Key]:
    """Of a session's root checkpoints, those that a child follows with a message of a model."""
    roots = {(row["lineage_id"], row["checkpoint_id"]): row for row in rows if not row["ns"]}
    pairs = [
        (parent, row)
        for row in roots.values()
        if (parent := roots.get((row["lineage_id"], row["parent_id"]))) is not None
    ]
    look = _Look(conn, serde, unseal)
    found: set[Key] = set()
    for at in range(0, len(pairs), _PAGE):
        found |= await look.at(pairs[at : at + _PAGE])
    return found


class _Look:
    def __init__(self, conn: Connection, serde: SerializerProtocol, unseal: Unseal | None) -> None:
        self.conn = conn
        self.serde = serde
        self.unseal = unseal
        self.layouts: dict[tuple[int, UUID], Layout] = {}
        self.no_lists: set[str] = set()  # channels that turned out to hold something else
        self.bodies: dict[Item, bytes] = {}

    async def at(self, pairs: Sequence[tuple[DictRow, DictRow]]) -> set[Key]:
        questions = [
            (parent, had, has, channel)
            for parent, row in pairs
            for channel, had, has in self._changed(parent, row)
        ]
        wanted = [r for _, had, has, _ in questions for r in _new(had, has)]
        self.bodies = await listing.items(path.through(self.conn), wanted)
        found: set[Key] = set()
        for parent, had, has, channel in questions:
            if key(parent) not in found and self._spoke(had, has, channel):
                found.add(key(parent))
        return found

    def _layout(self, row: DictRow) -> Layout:
        where = (row["lineage_id"], row["checkpoint_id"])
        if where not in self.layouts:
            self.layouts[where] = manifest.decode(row["state"], row["ranges"], row["lineage_id"])
        return self.layouts[where]

    def _changed(self, parent: DictRow, row: DictRow) -> list[tuple[str, Place, Place]]:
        above, here = self._layout(parent).places, self._layout(row).places
        return [
            (channel, above.get(channel, Place(Kind.ABSENT)), place)
            for channel, place in here.items()
            if place.ranges
            and place != above.get(channel)
            and not channel.startswith(_INTERNAL)
            and (place.kind in _LISTS or channel not in self.no_lists)
        ]

    def _spoke(self, had: Place, has: Place, channel: str) -> bool:
        try:
            new = self._read(_new(had, has))
            if has.kind in _LISTS:
                return any(_is_model(element) for element in new)
            if not isinstance(new[-1], list):
                self.no_lists.add(channel)
                return False
            told = [element for element in cast("list[Any]", new[-1]) if _is_model(element)]
            if had.kind in _LISTS:
                return bool(told)
            old = new[0] if len(new) > 1 and isinstance(new[0], list) else []
            known = {_mark(element) for element in cast("list[Any]", old)}
            return any(_mark(element) not in known for element in told)
        except CheckpointError:
            return True

    def _read(self, ranges: Collection[Range]) -> list[Any]:
        found: list[Any] = []
        for item in items_of(ranges):
            body = self.bodies[item]
            body = body if self.unseal is None else self.unseal(body, item)
            found.append(codec.load(self.serde, body))
        return found


def _new(had: Place, has: Place) -> list[Range]:
    """What to read: of a list its new elements, of two whole values both."""
    if has.kind in _LISTS:
        return Spans(has.ranges) - Spans(had.ranges)
    return [*(had.ranges if had.kind == Kind.VALUE else ()), *has.ranges]


def _is_model(element: Any) -> bool:
    if isinstance(element, dict):
        told = cast("dict[str, Any]", element)
        return told.get("role") == "assistant" or told.get("type") == "ai"
    return isinstance(element, AIMessage)


def _mark(element: Any) -> str:
    return jsonable.identity(element) or jsonable.canonical(jsonable.render(element))
