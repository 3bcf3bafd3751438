"""The item log: a list is stored once, element by element, and each checkpoint refers to ranges.

Elements are recognised by a fingerprint of their content, so an old message edited in place is
stored again and an untouched one never is. Fingerprints live in this process only; losing them
costs one read, never a wrong value.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langgraph.checkpoint.base import ChannelVersions, Checkpoint
from langgraph.checkpoint.serde.base import SerializerProtocol

from clew.checkpointing import codec, prints
from clew.checkpointing.manifest import Kind, Layout, Place, Range, Version
from clew.checkpointing.prints import Marked
from clew.checkpointing.snapshot import Snapshot
from clew.checkpointing.tracks import Last, Spot, Track, relative

_SHORT = 4  # a list of no more elements than this may be kept in one piece
_SMALL = 160  # if it takes no more bytes than this
_WORTH = 128  # a repeated element of fewer bytes is stored again rather than split a range for
_FRAGMENTS = 64  # a list in more ranges than this is stored again in one


@dataclass(slots=True)
class New:
    """Items that a put will write."""

    streams: list[int] = field(default_factory=list[int])
    numbers: list[int] = field(default_factory=list[int])
    bodies: list[bytes] = field(default_factory=list[bytes])
    learnt: list[tuple[tuple[str, str], Last]] = field(
        default_factory=list[tuple[tuple[str, str], Last]]
    )

    def add(self, stream: int, number: int, body: bytes) -> None:
        self.streams.append(stream)
        self.numbers.append(number)
        self.bodies.append(body)


def stream(ns: str, channel: str) -> int:
    """The number of a channel's log. Two that collide share a numbering and nothing else."""
    return zlib.crc32(f"{ns}\x00{channel}".encode(errors="surrogatepass")) & 0x7FFFFFFF


def place_all(
    serde: SerializerProtocol,
    track: Track,
    new: New,
    ns: str,
    checkpoint: Checkpoint,
    changed: ChannelVersions,
) -> dict[str, Place]:
    """Where each channel's value lies; what has to be written for that is added to `new`."""
    values = checkpoint["channel_values"]
    places: dict[str, Place] = {}
    for channel, version in checkpoint["channel_versions"].items():
        place = None if channel in changed else track.place(ns, channel, version)
        if place is None and channel in values:
            place = store(serde, track, new, ns, channel, version, values[channel])
        if place is not None:
            places[channel] = place
    return places


def landed(
    track: Track, ns: str, checkpoint: Checkpoint, places: Mapping[str, Place], new: New
) -> None:
    """Remember what is committed now."""
    for channel, version in checkpoint["channel_versions"].items():
        track.remember(ns, channel, version, places.get(channel, Place(Kind.ABSENT)))
    for (_, channel), last in new.learnt:
        track.learn(ns, channel, last)
    if not ns:
        track.settle()


def learn(
    serde: SerializerProtocol,
    track: Track,
    ns: str,
    layout: Layout,
    values: Mapping[str, Any],
    bodies: Sequence[bytes],
) -> None:
    """Remember where what was read lies, so that it is not stored again."""
    at = 0
    for channel, place in layout.places.items():
        version = layout.versions[channel]
        here = relative(place, track)
        track.remember(ns, channel, version, here)
        mine = bodies[at : at + place.size]
        at += place.size
        last = track.last.get((ns, channel))
        if (last is not None and last.version == version) or channel not in values:
            continue
        _, elements = _elements(values[channel])
        if elements is None:
            continue
        spots: list[Spot] = []
        if place.kind in (Kind.LIST, Kind.SNAPSHOT):
            where = [
                (r.lineage_id, r.stream, r.first + i) for r in here.ranges for i in range(r.size)
            ]
            spots = [Spot(*w, len(body)) for w, body in zip(where, mine, strict=True)]
            track.follow(stream(ns, channel), here)
        marked = prints.mark(serde, elements)
        ranges = here.ranges if spots else ()
        track.learn(ns, channel, Last(version, marked.prints, marked.blocks, spots, ranges))


def store(
    serde: SerializerProtocol,
    track: Track,
    new: New,
    ns: str,
    channel: str,
    version: Version,
    value: Any,
) -> Place:
    """Where this value will lie; what has to be written for it is added to `new`."""
    if value is None:
        return Place(Kind.NULL)
    kind, elements = _elements(value)
    if elements is None:
        return _whole(track, new, ns, channel, codec.dump(serde, value))
    return _list(serde, track, new, ns, channel, version, kind, value, elements)


def _elements(value: Any) -> tuple[Kind, list[Any] | None]:
    if type(value) is list:
        return Kind.LIST, value
    if isinstance(value, Snapshot) and type(value.value) is list:
        return Kind.SNAPSHOT, value.value
    return Kind.VALUE, None


def _whole(track: Track, new: New, ns: str, channel: str, body: bytes) -> Place:
    log = stream(ns, channel)
    number = track.take(log)
    new.add(log, number, body)
    return Place(Kind.VALUE, (Range(0, log, number, 1),))


def _list(
    serde: SerializerProtocol,
    track: Track,
    new: New,
    ns: str,
    channel: str,
    version: Version,
    kind: Kind,
    value: Any,
    elements: list[Any],
) -> Place:
    key = (ns, channel)
    last = track.last.get(key)
    if not elements:
        new.learnt.append((key, Last(version, [], [], [])))
        return Place(kind)  # of no range: empty, which is not absent
    if last is None:
        marked = prints.mark(serde, elements)
    else:
        marked = prints.mark(serde, elements, prints=last.prints, blocks=last.blocks)
    found = Last(version, marked.prints, marked.blocks, [])
    new.learnt.append((key, found))
    if len(elements) <= _SHORT:
        body = codec.dump(serde, value)
        if len(body) <= _SMALL:
            return _whole(track, new, ns, channel, body)
    if last is not None and _rewritten(last.prints, marked.prints):
        return _whole(track, new, ns, channel, codec.dump(serde, value))
    log = stream(ns, channel)
    _lay(serde, track, new, log, last, elements, marked, found)
    if len(found.ranges) > _FRAGMENTS:
        found.spots = [
            _append(track, new, log, _body(serde, elements, marked, i))
            for i in range(len(elements))
        ]
        found.ranges = _ranges(found.spots)
    return Place(kind, found.ranges)


def _rewritten(old: Sequence[bytes], new: Sequence[bytes]) -> bool:
    """Whether most of what the list held is gone: then it is no log, and is kept in one piece."""
    if not old or not new or (len(new) >= len(old) and new[len(old) - 1] == old[-1]):
        return False
    left = set(new)
    return sum(mark in left for mark in old) * 2 < len(old)


def _lay(
    serde: SerializerProtocol,
    track: Track,
    new: New,
    log: int,
    last: Last | None,
    elements: list[Any],
    marked: Marked,
    found: Last,
) -> None:
    """Where each element lies: as last time from both ends, and by content in between."""
    ahead, behind = _same(last, marked.prints)
    held = last.spots if last is not None else []
    spots = held[:ahead]
    end = len(elements) - behind
    known = [track.known.get(one) for one in marked.prints[ahead:end]]
    while len(spots) < end:
        at = len(spots)
        run = _run(known, at - ahead)
        if sum(spot.size for spot in run) >= _WORTH:
            spots += run
            continue
        # Unknown, or too little to be worth a range of its own.
        for i in range(at, at + (len(run) or 1)):
            spots.append(_append(track, new, log, _body(serde, elements, marked, i)))
    if last is not None and ahead == len(held):
        # It grew at its end, as most lists do.
        found.ranges = _ranges(spots[ahead:], last.ranges)
    else:
        spots += held[len(held) - behind :]
        found.ranges = _ranges(spots)
    found.spots = spots


def _body(serde: SerializerProtocol, elements: list[Any], marked: Marked, at: int) -> bytes:
    raw = marked.raws.get(at)
    return codec.dump(serde, elements[at]) if raw is None else codec.pack(raw)


def _same(last: Last | None, marks: list[bytes]) -> tuple[int, int]:
    """How many elements at the front, and then at the end, are those of last time."""
    if last is None or not last.spots:
        return 0, 0
    shorter = min(len(marks), len(last.prints))
    if marks[:shorter] == last.prints[:shorter]:
        return shorter, 0
    ahead = 0
    while marks[ahead] == last.prints[ahead]:
        ahead += 1
    behind = 0
    while behind < shorter - ahead and marks[-1 - behind] == last.prints[-1 - behind]:
        behind += 1
    return ahead, behind


def _run(known: Sequence[Spot | None], at: int) -> list[Spot]:
    """The neighbours that are known from here on."""
    run: list[Spot] = []
    for spot in known[at:]:
        if spot is None or (run and not _adjoins(run[-1], spot)):
            break
        run.append(spot)
    return run


def _append(track: Track, new: New, log: int, body: bytes) -> Spot:
    number = track.take(log)
    new.add(log, number, body)
    return Spot(0, log, number, len(body))


def _adjoins(left: Spot, right: Spot) -> bool:
    return (
        left.number + 1 == right.number
        and left.stream == right.stream
        and left.lineage_id == right.lineage_id
    )


def _ranges(spots: Sequence[Spot], begun: tuple[Range, ...] = ()) -> tuple[Range, ...]:
    """The spots as runs of neighbours, going on from what there is."""
    ranges = [*begun]
    for spot in spots:
        if ranges:
            r = ranges[-1]
            if (
                r.first + r.size == spot.number
                and r.stream == spot.stream
                and r.lineage_id == spot.lineage_id
            ):
                ranges[-1] = Range(*r[:3], r.size + 1)
                continue
        ranges.append(Range(spot.lineage_id, spot.stream, spot.number, 1))
    return tuple(ranges)
