"""Sets of items, as ranges of their numbers: what is in one and not in another."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable

from clew.checkpointing.manifest import Range

Stream = tuple[int, int]  # lineage and stream


class Spans:
    """The items that some ranges cover."""

    __slots__ = ("_ends", "_firsts")

    def __init__(self, ranges: Iterable[Range]) -> None:
        spans: dict[Stream, list[tuple[int, int]]] = defaultdict(list)
        for r in ranges:
            spans[r.lineage_id, r.stream].append((r.first, r.first + r.size))
        self._firsts: dict[Stream, list[int]] = {}
        self._ends: dict[Stream, list[int]] = {}
        for stream, pieces in spans.items():
            pieces.sort()
            firsts, ends = [pieces[0][0]], [pieces[0][1]]
            for first, end in pieces[1:]:
                if first <= ends[-1]:
                    ends[-1] = max(ends[-1], end)
                else:
                    firsts.append(first)
                    ends.append(end)
            self._firsts[stream], self._ends[stream] = firsts, ends

    def __contains__(self, item: tuple[int, int, int]) -> bool:
        lineage_id, stream, number = item
        firsts = self._firsts.get((lineage_id, stream))
        if firsts is None:
            return False
        at = bisect_right(firsts, number) - 1
        return at >= 0 and number < self._ends[lineage_id, stream][at]

    def ranges(self) -> list[Range]:
        return [
            Range(lineage_id, stream, first, end - first)
            for (lineage_id, stream), firsts in self._firsts.items()
            for first, end in zip(firsts, self._ends[lineage_id, stream], strict=True)
        ]

    def __sub__(self, other: Spans) -> list[Range]:
        """The ranges of what is here and not there."""
        left: list[Range] = []
        for r in self.ranges():
            stream = (r.lineage_id, r.stream)
            at, stop = r.first, r.first + r.size
            firsts, ends = other._firsts.get(stream, []), other._ends.get(stream, [])
            i = max(0, bisect_right(firsts, at) - 1)
            while at < stop and i < len(firsts) and firsts[i] < stop:
                if firsts[i] > at:
                    left.append(r._replace(first=at, size=firsts[i] - at))
                at = max(at, ends[i])
                i += 1
            if at < stop:
                left.append(r._replace(first=at, size=stop - at))
        return left
