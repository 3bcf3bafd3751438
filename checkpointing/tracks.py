"""What this process knows of where a session's values lie, so that none is stored twice.

All of it may be lost at any time: then more is read, or stored again, and nothing is wrong. What
was learnt holds only while the head says the same lineage and the same sweep.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

from clew.checkpointing.manifest import Place, Range, Version
from clew.checkpointing.postgres import Principal

# Of one session, so many are remembered:
_PLACES = 4096  # places of values
_TIPS = 4096  # streams that were written to
_LISTS = 1024  # lists, and of elements that are in none of them as many as are in them and this


class Spot(NamedTuple):
    """Where one element lies, and how many bytes it takes."""

    lineage_id: int
    stream: int
    number: int
    size: int


@dataclass(slots=True)
class Last:
    """What a list channel held when it was last stored or read."""

    version: Version
    prints: list[bytes]
    blocks: list[bytes | None]
    spots: list[Spot]  # empty when it was kept in one piece
    ranges: tuple[Range, ...] = ()  # the same, as a place has it


class Track:
    """What this process knows of one session's storage. Lineage 0 is the session's own."""

    __slots__ = (
        "_base", "_earlier", "_marks", "_places", "_recent", "_tips",
        "known", "last", "lineage_id", "sweep",
    )  # fmt: skip

    def __init__(self, lineage_id: int, sweep: int, clock: int) -> None:
        self.lineage_id = lineage_id  # 0 until the first write made it
        self.sweep = sweep
        self.known: dict[bytes, Spot] = {}
        self.last: OrderedDict[tuple[str, str], Last] = OrderedDict()
        self._marks = 0  # how many prints `last` holds
        self._places: OrderedDict[tuple[str, str, Version], Place] = OrderedDict()
        self._tips: dict[int, int] = {}
        # Namespaces of single calls, touched since the root last moved, and since it did before.
        self._recent: set[str] = set()
        self._earlier: set[str] = set()
        # Numbers start from the clock's ticks, a million for each, so that processes that never
        # met do not choose the same ones. Where they do, the database refuses the second.
        self._base = clock << 20

    @property
    def weight(self) -> int:
        lists = len(self.last) + self._marks
        return 16 + len(self.known) + len(self._places) + len(self._tips) + lists

    def renew(self, clock: int) -> None:
        """Number from here on, past everything that was used here and before this clock."""
        self._base = max(self._base, clock << 20, max(self._tips.values(), default=0) + 1)
        self._tips.clear()

    def take(self, log: int) -> int:
        """The number for the next item of a stream, the neighbour of the last one if known."""
        if log not in self._tips and len(self._tips) >= _TIPS:
            self.renew(0)
        self._tips[log] = number = self._tips.get(log, self._base - 1) + 1
        return number

    def follow(self, log: int, place: Place) -> None:
        """Let the next element of a list be the neighbour of its last one."""
        if place.ranges:
            end = place.ranges[-1]
            if end.lineage_id == 0 and end.stream == log:
                self._tips[log] = max(self._tips.get(log, 0), end.first + end.size - 1)

    def place(self, ns: str, channel: str, version: Version) -> Place | None:
        return self._places.get((ns, channel, version))

    def remember(self, ns: str, channel: str, version: Version, place: Place) -> None:
        self._touch(ns)
        self._places[ns, channel, version] = place
        self._places.move_to_end((ns, channel, version))
        if len(self._places) > _PLACES:
            self._places.popitem(last=False)

    def learn(self, ns: str, channel: str, last: Last) -> None:
        """Take in a list that is known to be stored."""
        self._touch(ns)
        self._drop((ns, channel))
        self.last[ns, channel] = last
        self._marks += len(last.prints)
        self.known.update(zip(last.prints, last.spots, strict=False))
        if len(self.last) > _LISTS:
            self._drop(next(iter(self.last)))
        if len(self.known) > 2 * self._marks + _LISTS:
            self._recall()

    def settle(self) -> None:
        """The root moved on: calls that were not heard of since it last did are over. One that
        still is under way may be overtaken by the root's checkpoint, which lands when it can."""
        over = self._earlier - self._recent
        self._earlier, self._recent = self._recent, set()
        if over:
            for key in [key for key in self.last if key[0] in over]:
                self._drop(key)
            for place in [place for place in self._places if place[0] in over]:
                del self._places[place]

    def shed(self, limit: int) -> None:
        """Forget what is oldest, down to the limit; but not the lists that were touched last,
        which the process holds anyway and would store again whole."""
        self.renew(0)
        while len(self._places) > limit // 4:
            self._places.popitem(last=False)
        while self._marks + len(self.last) > limit // 4 and len(self.last) > 16:
            self._drop(next(iter(self.last)))
        self._recall()

    def _touch(self, ns: str) -> None:
        if ":" not in ns or ns in self._recent:
            return
        if len(self._recent) >= _LISTS:
            self._earlier, self._recent = self._recent, set()
        self._recent.add(ns)

    def _drop(self, key: tuple[str, str]) -> None:
        if (last := self.last.pop(key, None)) is not None:
            self._marks -= len(last.prints)

    def _recall(self) -> None:
        self.known = {
            mark: spot
            for last in self.last.values()
            for mark, spot in zip(last.prints, last.spots, strict=False)
        }


class Memory:
    """The tracks of the sessions that this process wrote or read last, bounded together.

    Each principal has its own: one who cannot see a session finds that there is none, and that
    must not become what its owner knows of it.
    """

    def __init__(self, limit: int = 200_000) -> None:
        self._tracks: OrderedDict[tuple[Principal, str], Track] = OrderedDict()
        self._limit = limit
        self._calls = 0

    def get(self, who: Principal, thread_id: str) -> Track | None:
        track = self._tracks.get((who, thread_id))
        if track is not None:
            self._used((who, thread_id))
        return track

    def track(
        self, who: Principal, thread_id: str, lineage_id: int, sweep: int, clock: int
    ) -> Track:
        """This session's track, begun anew if its storage is no longer what we knew."""
        key = (who, thread_id)
        track = self._tracks.get(key)
        if track is None or track.lineage_id != lineage_id or track.sweep != sweep:
            track = self._tracks[key] = Track(lineage_id, sweep, clock)
        self._used(key)
        return track

    def forget(self, who: Principal, thread_id: str) -> None:
        self._tracks.pop((who, thread_id), None)

    def _used(self, key: tuple[Principal, str]) -> None:
        self._tracks.move_to_end(key)
        self._calls += 1
        if self._calls % 256 == 0:  # weighing them all each time would be slow
            self._trim()

    def _trim(self) -> None:
        weight = sum(track.weight for track in self._tracks.values())
        while weight > self._limit and len(self._tracks) > 1:
            _, track = self._tracks.popitem(last=False)
            weight -= track.weight
        if weight > self._limit:
            for track in self._tracks.values():
                track.shed(self._limit)


def relative(place: Place, track: Track) -> Place:
    """A place whose ranges are absolute, with the session's own lineage as 0."""
    own = track.lineage_id
    return place._replace(
        ranges=tuple(Range(0, *r[1:]) if r.lineage_id == own else r for r in place.ranges)
    )
