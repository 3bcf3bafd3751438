"""The layout of a checkpoint: which channel has which version, and where its value lies.

It is kept beside the values, in clear: listing, comparing, counting bytes and collecting garbage
read it and decode no value. Nothing in it is what a user said; it names channels and nodes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple, cast

import ormsgpack

from clew.checkpointing import text
from clew.checkpointing.errors import UnknownBody

Version = str | int | float

_FORMAT = 1
_VERSION = re.compile(r"(\d{32})\.(\d{16})")
_SIZE = 0xFFFFFFFF


class Kind(IntEnum):
    ABSENT = 0  # the channel has a version and no value
    NULL = 1
    VALUE = 2  # one item
    LIST = 3  # the elements, one item each
    SNAPSHOT = 4  # a DeltaChannel's, of a list: as LIST


class Range(NamedTuple):
    """Neighbouring items. Lineage 0 is the one of the row that refers to them."""

    lineage_id: int
    stream: int
    first: int
    size: int


class Place(NamedTuple):
    """Where a channel's value lies."""

    kind: Kind
    ranges: tuple[Range, ...] = ()

    @property
    def size(self) -> int:
        return sum(r.size for r in self.ranges)


@dataclass(slots=True)
class Layout:
    versions: dict[str, Version]
    places: dict[str, Place]
    versions_seen: dict[str, dict[str, Version]]
    v: int
    ts: str | None  # null where created_at says the same
    updated: list[str] | None
    rest: dict[str, Any]


def encode(layout: Layout) -> tuple[bytes, list[int] | None]:
    """The `state` and `ranges` of a row."""
    names: dict[str, int] = {}
    table: dict[Version, int] = {}

    def name(channel: str) -> int:
        return names.setdefault(text.escape(channel), len(names))

    def version(value: Version) -> int:
        return table.setdefault(value, len(table))

    channels: list[int] = []
    ranges: list[int] = []
    for channel, number in layout.versions.items():
        place = layout.places.get(channel, _ABSENT)
        channels += (name(channel), version(number), place.kind << 16 | len(place.ranges))
        for r in place.ranges:
            ranges += (r.lineage_id, r.stream << 32 | r.size, r.first)
    seen = {
        text.escape(node): [
            n for c, number in channels_seen.items() for n in (name(c), version(number))
        ]
        for node, channels_seen in layout.versions_seen.items()
    }
    updated = None if layout.updated is None else [name(c) for c in layout.updated]
    fields: list[Any] = [
        _FORMAT, [*names], [_short(v) for v in table], channels, seen, updated, layout.v,
    ]  # fmt: skip
    if layout.ts is not None or layout.rest:
        fields.append(layout.ts)
    if layout.rest:
        fields.append(layout.rest)
    return ormsgpack.packb(fields, option=_OPTION), ranges or None


def decode(state: bytes, ranges: Sequence[int] | None, lineage_id: int) -> Layout:
    """The layout of a row of this lineage, every range made absolute."""
    fields = ormsgpack.unpackb(state, option=_OPTION)
    if fields[0] != _FORMAT:
        raise UnknownBody(f"a checkpoint's layout is of the unknown format {fields[0]}")
    _, escaped, short, channels, seen, updated, v, *more = fields
    names = [text.unescape(name) for name in escaped]
    table = [_long(s) for s in short]
    refs = absolute(ranges, lineage_id)
    versions: dict[str, Version] = {}
    places: dict[str, Place] = {}
    at = 0
    for i in range(0, len(channels), 3):
        channel = names[channels[i]]
        versions[channel] = table[channels[i + 1]]
        kind, count = channels[i + 2] >> 16, channels[i + 2] & 0xFFFF
        places[channel] = Place(Kind(kind), tuple(refs[at : at + count])) if kind else _ABSENT
        at += count
    return Layout(
        versions=versions,
        places=places,
        versions_seen={
            text.unescape(node): {names[p[i]]: table[p[i + 1]] for i in range(0, len(p), 2)}
            for node, p in cast("Mapping[str, list[int]]", seen).items()
        },
        v=v,
        ts=more[0] if more else None,
        updated=None if updated is None else [names[i] for i in updated],
        rest=more[1] if len(more) > 1 else {},
    )


def absolute(ranges: Sequence[int] | None, lineage_id: int) -> list[Range]:
    """The ranges of a row of this lineage."""
    if not ranges:
        return []
    return [
        Range(ranges[i] or lineage_id, ranges[i + 1] >> 32, ranges[i + 2], ranges[i + 1] & _SIZE)
        for i in range(0, len(ranges), 3)
    ]


_ABSENT = Place(Kind.ABSENT)
_OPTION = ormsgpack.OPT_NON_STR_KEYS


def _short(version: Version) -> Any:
    """LangGraph's long version strings as two small numbers, anything else as it is."""
    if isinstance(version, str) and (match := _VERSION.fullmatch(version)):
        return [int(match[1]), int(match[2])] if int(match[1]) < 1 << 63 else version
    return version


def _long(short: Any) -> Version:
    return f"{short[0]:032}.{short[1]:016}" if isinstance(short, list) else short
