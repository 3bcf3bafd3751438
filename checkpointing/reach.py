"""What of the storage belongs to a session's history: the rows that it reaches, and nothing else.

A fork reaches into its parent's storage, but only along its own path: the parent's other
branches, and what the parent did later, are not its history. Ids only are held here, a few
hundred bytes for each checkpoint.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

from psycopg.rows import DictRow

from clew.checkpointing import manifest, text
from clew.checkpointing.errors import CyclicLineage, UnknownThread
from clew.checkpointing.lineage import Scope
from clew.checkpointing.postgres import Connection
from clew.checkpointing.sql import Queries

_queries = Queries("clew.checkpointing.queries")

Key = tuple[UUID, str]  # a checkpoint's id and namespace


@dataclass(slots=True)
class Line:
    """One lineage, and what of it is reached."""

    row: DictRow
    own: bool  # the session's; the others are its ancestors'
    until: int | None = None  # nothing later than this is seen; None for all of it
    checkpoints: dict[Key, int] = field(default_factory=dict[Key, int])  # and their seq
    bytes: dict[Key, int] = field(default_factory=dict[Key, int])  # of the writes of each
    whole: bool = False
    starts: list[tuple[UUID, int]] = field(default_factory=list[tuple[UUID, int]])
    roots: set[UUID] = field(default_factory=set[UUID])

    @property
    def lineage_id(self) -> int:
        return self.row["lineage_id"]

    @property
    def limit(self) -> int | None:
        """The last tick that is seen of it."""
        return None if self.own and self.whole else self.until


@dataclass(slots=True)
class Reach:
    """The reached lines, parents before children, and the numberings that they use."""

    head: DictRow
    lines: dict[int, Line]
    clock: list[int]
    items: dict[tuple[int, int], Runs]
    numbers: dict[int, int]  # lineages are counted from one

    def tick(self, moment: int) -> int:
        """How many reached things had happened by then: the same order in small numbers."""
        return bisect_right(self.clock, moment)


class Runs:
    """The numbers of one stream that something refers to, and each one's rank among them."""

    __slots__ = ("_before", "_firsts", "_spans")

    def __init__(self, spans: Iterable[tuple[int, int]]) -> None:
        """Of spans of (first, end), which may overlap."""
        self._spans: list[tuple[int, int]] = []
        for first, end in sorted(spans):
            if self._spans and first <= self._spans[-1][1]:
                start, stop = self._spans[-1]
                self._spans[-1] = (start, max(stop, end))
            else:
                self._spans.append((first, end))
        self._firsts = [first for first, _ in self._spans]
        self._before = [0]
        for first, end in self._spans:
            self._before.append(self._before[-1] + end - first)

    @property
    def spans(self) -> list[tuple[int, int]]:
        return self._spans

    def __len__(self) -> int:
        return self._before[-1]

    def rank(self, number: int) -> int:
        at = bisect_right(self._firsts, number) - 1
        return self._before[at] + number - self._firsts[at]


async def find(conn: Connection, thread_id: str, scope: Scope) -> Reach:
    """All that is reached from a session's lines (`all`) or from its head alone (`path`)."""
    cursor = await conn.execute(_queries["get_head"], {"thread_id": text.escape(thread_id)})
    head = await cursor.fetchone()
    if head is None:
        raise UnknownThread(f"there is no session {thread_id}")
    wanted = {
        "lineage_id": head["lineage_id"],
        "thread_id": head["thread_id"],
        "whole": scope == "all",
    }
    cursor = await conn.execute(_queries["bundle_lineages"], wanted)
    lines = {
        row["lineage_id"]: Line(row, own=row["thread_id"] == head["thread_id"])
        for row in await cursor.fetchall()
    }
    spans: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    clock: set[int] = set()
    # Children before parents: each says where its history goes on.
    for lineage_id in sorted(lines, reverse=True):
        line = lines[lineage_id]
        line.whole = line.whole or (scope == "all" and line.own)
        await _select(conn, line, spans, clock, tip=lineage_id == head["lineage_id"])
        await _clock(conn, line, clock)
        _hand_on(lines, line)
    return Reach(
        head,
        lines,
        sorted(clock),
        {key: Runs(spans[key]) for key in sorted(spans)},
        {lineage_id: number for number, lineage_id in enumerate(lines, start=1)},
    )


async def _select(
    conn: Connection,
    line: Line,
    spans: dict[tuple[int, int], list[tuple[int, int]]],
    clock: set[int],
    *,
    tip: bool,
) -> None:
    bounds = {"lineage_id": line.lineage_id, "until": line.limit}
    cursor = await conn.execute(_queries["bundle_skeleton"], bounds)
    rows = await cursor.fetchall()
    roots = {row["checkpoint_id"]: row for row in rows if row["ns"] == ""}
    if tip and not line.whole and roots:
        newest = max(roots.values(), key=lambda row: row["seq"])
        line.starts.append((newest["checkpoint_id"], newest["seq"]))
    chosen = set(roots) if line.whole else _path(line, roots)
    for row in rows:
        root = row["checkpoint_id"] if row["ns"] == "" else row["root_id"]
        if line.whole or root is None or root in chosen or (row["ns"] and root in line.roots):
            line.checkpoints[row["checkpoint_id"], row["ns"]] = row["seq"]
            clock.add(row["seq"])
            for r in manifest.absolute(row["ranges"], line.lineage_id):
                spans[r.lineage_id, r.stream].append((r.first, r.first + r.size))


def _path(line: Line, roots: dict[UUID, DictRow]) -> set[UUID]:
    """The checkpoints on the way back from where each child begins.

    A way that leaves this lineage goes on in its parent; `starts` is left with those.
    """
    chosen: set[UUID] = set()
    leaving: list[tuple[UUID, int]] = []
    for start, until in line.starts:
        at: UUID | None = start
        while at is not None and at not in chosen:
            row = roots.get(at)
            if row is None or row["seq"] > until:
                leaving.append((at, until))
                break
            chosen.add(at)
            at = row["parent_id"]
    line.starts = leaving
    return chosen


def _hand_on(lines: dict[int, Line], line: Line) -> None:
    """Tell the parent what is reached of it."""
    row = line.row
    if row["parent_id"] is None:
        return
    parent = lines.get(row["parent_id"])
    if parent is None or parent.lineage_id >= line.lineage_id:
        raise CyclicLineage(f"lineage {line.lineage_id} has no parent before it")
    moment: int = row["moment"]
    parent.until = moment if parent.until is None else max(parent.until, moment)
    if row["scope"] == "all" and line.whole:
        parent.whole = True
    first = (row["fork_parent"], moment) if row["fork_parent"] else None
    parent.starts += [first] if first else []
    parent.starts += [(at, min(until, moment)) for at, until in line.starts]
    if row["fork_id"] is not None:
        parent.roots.add(row["fork_id"])


async def _clock(conn: Connection, line: Line, clock: set[int]) -> None:
    bounds = {"lineage_id": line.lineage_id, "until": line.limit}
    cursor = await conn.execute(_queries["bundle_write_clock"], bounds)
    for row in await cursor.fetchall():
        key = (row["checkpoint_id"], row["ns"])
        if key in line.checkpoints:
            line.bytes[key] = line.bytes.get(key, 0) + row["bytes"]
            clock.add(row["seq"])
            if row["slot"] < 0:
                clock.add(-row["slot"] >> 3)
