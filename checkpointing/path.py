"""What a session sees of its past: its own rows, then its ancestors' along its path.

A fork sees neither the branches beside its path nor what its parent did later. A copied session
(`scope = 'all'`) sees every branch that there was at that moment.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, LiteralString
from uuid import UUID

from psycopg.rows import DictRow

from clew.checkpointing import text
from clew.checkpointing.errors import CyclicLineage
from clew.checkpointing.postgres import Connection
from clew.checkpointing.rows import Row
from clew.checkpointing.sql import Queries

Fetch = Callable[[LiteralString, Mapping[str, Any]], Awaitable[list[DictRow]]]

_SQL = Queries("clew.checkpointing.queries")
_PAGE = 64
_FOREVER = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Line:
    """A lineage, as far as reading needs it."""

    lineage_id: int
    owner_id: int
    thread_id: str | None
    kind: str
    scope: str
    parent_id: int | None
    source_id: int | None
    fork_id: UUID | None
    fork_parent: UUID | None
    fork_seq: int | None
    moment: int | None
    cut: int | None


@dataclass(frozen=True, slots=True)
class Seen:
    """A row that is visible, and until when what was written to it is."""

    row: Row
    until: int = _FOREVER


@dataclass(frozen=True, slots=True)
class Asked:
    """What a listing asks for."""

    ns: str | None = None
    checkpoint_id: str | None = None
    before: int | None = None
    before_id: str | None = None
    source: str | None = None
    step: int | None = None
    run_id: UUID | None = None
    rest: Any = None

    def params(self, line: Line, *, size: int, before: int | None, until: int | None) -> Any:
        return {
            "lineage_id": line.lineage_id,
            "ns": self.ns,
            "checkpoint_id": self.checkpoint_id,
            "before": before if before is not None else self.before,
            "before_id": self.before_id,
            "until": until,
            "source": self.source,
            "step": self.step,
            "run_id": self.run_id,
            "rest": self.rest,
            "size": size,
        }


def through(conn: Connection) -> Fetch:
    """Fetch by a connection that is in a transaction of its own."""

    async def fetch(query: LiteralString, params: Mapping[str, Any]) -> list[DictRow]:
        cursor = await conn.execute(query, params, binary=True)
        return await cursor.fetchall()

    return fetch


@dataclass(frozen=True, slots=True)
class Past:
    """Where a session stands, and what its history is made of."""

    line: int
    sweep: int
    clock: int
    lines: list[Line]


async def past(fetch: Fetch, thread_id: str) -> Past | None:
    """None if there is no such session. Raises `CyclicLineage`."""
    found = await fetch(_SQL["past"], {"thread_id": text.escape(thread_id)})
    if not found:
        return None
    head = found[0]
    return Past(head["line"], head["sweep"], head["clock"], _lines(found))


async def chain(fetch: Fetch, lineage_id: int) -> list[Line]:
    """A lineage and its ancestors. Raises `CyclicLineage` where one of them is missing."""
    return _lines(await fetch(_SQL["chain"], {"lineage_id": lineage_id}))


def _lines(found: Sequence[Row]) -> list[Line]:
    lines: list[Line] = []
    for row in found:
        if row["lineage_id"] is None:
            raise CyclicLineage(f"lineage {row['wanted']} is referred to and missing")
        lines.append(Line(**{name: row[name] for name in Line.__slots__}))
    return lines


async def own(
    fetch: Fetch, line: Line, asked: Asked, *, until: int | None = None, page: int = _PAGE
) -> AsyncGenerator[Row]:
    """The rows of one lineage, newest first, a page at a time."""
    before: int | None = None
    while True:
        found = await fetch(
            _SQL["list_own"], asked.params(line, size=page, before=before, until=until)
        )
        for row in found:
            yield row
        if len(found) < page:
            return
        before = found[-1]["seq"]


async def first(fetch: Fetch, line: Line, asked: Asked, *, until: int | None = None) -> Row | None:
    """The newest of them."""
    found = await fetch(_SQL["list_own"], asked.params(line, size=1, before=None, until=until))
    return found[0] if found else None


async def older(
    fetch: Fetch, lines: Sequence[Line], ns: str | None, after: Seen | None = None
) -> AsyncGenerator[Seen]:
    """What is visible of the ancestors, newest first; `after` one of them, if given."""
    if after is None:
        async for seen in _older(fetch, lines, ns):
            yield seen
    elif ns is not None and lines[0].scope != "all":
        # One way leads back, and it goes on at the parent.
        depth = [line.lineage_id for line in lines].index(after.row["lineage_id"])
        want: str | None = after.row["parent_id"]
        until = after.until
        for line, child in zip(lines[depth:], lines[depth - 1 :], strict=False):
            until = min(until, moment(child))
            async for row in _walk(fetch, line, ns, want, until):
                want = row["parent_id"]
                yield Seen(row, until)
    else:
        met = False
        key = (after.row["lineage_id"], after.row["ns"], after.row["checkpoint_id"])
        async for seen in _older(fetch, lines, ns):
            if met:
                yield seen
            row = seen.row
            met = met or (row["lineage_id"], row["ns"], row["checkpoint_id"]) == key


async def _older(fetch: Fetch, lines: Sequence[Line], ns: str | None) -> AsyncGenerator[Seen]:
    told: set[tuple[str, str]] = set()
    until = _FOREVER
    everything = True
    want: str | None = await _start(fetch, lines, ns, until)
    for depth, (child, line) in enumerate(pairwise(lines), start=1):
        until = min(until, moment(child))
        everything = everything and child.scope == "all"
        if everything:
            if not told:
                told = await _own_ids(fetch, lines[0], ns)
            async for row in own(fetch, line, Asked(ns=ns), until=until):
                if (row["ns"], row["checkpoint_id"]) not in told:
                    told.add((row["ns"], row["checkpoint_id"]))
                    yield Seen(row, until)
            want = await _start(fetch, lines[depth:], ns, until)
        elif ns is None:
            async for seen in _whole(fetch, child, line, until, want, told):
                want = seen.row["parent_id"] if not seen.row["ns"] else want
                yield seen
        else:
            async for row in _walk(fetch, line, ns, want, until):
                want = row["parent_id"]
                yield Seen(row, until)


async def _start(fetch: Fetch, lines: Sequence[Line], ns: str | None, until: int) -> str | None:
    """Where a namespace's history goes on after the rows of the first of these lineages."""
    if not ns:
        return _text(lines[0].fork_parent)
    values = {"lineage_id": lines[0].lineage_id, "ns": ns, "until": until}
    if oldest := await fetch(_SQL["oldest_own"], values):
        return oldest[0]["parent_id"]
    seen = await newest(fetch, lines, ns, until)
    return seen.row["checkpoint_id"] if seen else None


async def _own_ids(fetch: Fetch, line: Line, ns: str | None) -> set[tuple[str, str]]:
    found = await fetch(_SQL["own_ids"], {"lineage_id": line.lineage_id, "ns": ns})
    return {(row["ns"], row["checkpoint_id"]) for row in found}


async def _walk(
    fetch: Fetch, line: Line, ns: str, want: str | None, until: int
) -> AsyncGenerator[Row]:
    while want is not None:
        found = await _climb(fetch, line, ns, want, until, size=_PAGE)
        for row in found:
            yield row
        if len(found) < _PAGE:
            return
        want = found[-1]["parent_id"]


async def _climb(
    fetch: Fetch, line: Line, ns: str, want: str | None, until: int, *, size: int
) -> list[DictRow]:
    return await fetch(
        _SQL["walk"],
        {
            "lineage_id": line.lineage_id, "checkpoint_id": want, "ns": ns,
            "until": until, "size": size,
        },
    )  # fmt: skip


async def _whole(
    fetch: Fetch,
    child: Line,
    line: Line,
    until: int,
    want: str | None,
    told: set[tuple[str, str]],
) -> AsyncGenerator[Seen]:
    """Every namespace along the path through one lineage. Gathers it whole, to put it in order."""
    found = [row async for row in _walk(fetch, line, "", want, until)]
    roots = [row["checkpoint_id"] for row in found]
    if child.fork_id is not None:
        roots.append(str(child.fork_id))
    under = await fetch(
        _SQL["under_roots"], {"lineage_id": line.lineage_id, "roots": roots, "until": until}
    )
    if not told:
        told |= await _own_ids(fetch, child, None)
    for row in under:
        late = child.cut is not None and row["seq"] > child.cut
        if (row["ns"], row["checkpoint_id"]) in told or (
            late and row["root_id"] == str(child.fork_id)
        ):
            continue
        found.append(row)
    for row in sorted(found, key=lambda row: row["seq"], reverse=True):
        yield Seen(row, until)


async def newest(
    fetch: Fetch, lines: Sequence[Line], ns: str, until: int = _FOREVER
) -> Seen | None:
    """The newest of a namespace that the first of these lineages has no row of its own in."""
    everything = True
    want = _text(lines[0].fork_parent)
    for child, line in pairwise(lines):
        until = min(until, moment(child))
        everything = everything and child.scope == "all"
        if everything:
            row = await first(fetch, line, Asked(ns=ns), until=until)
            if row is not None:
                return Seen(row, until)
            want = _text(line.fork_parent)
        elif ns:
            found = await fetch(
                _SQL["newest_under"],
                {
                    "lineage_id": line.lineage_id, "ns": ns, "until": until,
                    "fork_id": child.fork_id, "fork_seq": child.fork_seq, "cut": child.cut,
                },
            )  # fmt: skip
            if found:
                return Seen(found[0], until)
        else:
            found = await _climb(fetch, line, ns, want, until, size=1)
            if found:
                return Seen(found[0], until)
    return None


async def find(fetch: Fetch, lines: Sequence[Line], ns: str, checkpoint_id: str) -> Seen | None:
    """A checkpoint of an ancestor, if it is visible from here."""
    found = await fetch(
        _SQL["find"],
        {
            "lineages": [line.lineage_id for line in lines[1:]],
            "ns": ns, "checkpoint_id": checkpoint_id,
        },
    )  # fmt: skip
    ids = [line.lineage_id for line in lines]
    for row in found:
        depth = ids.index(row["lineage_id"])
        until = min(moment(child) for child in lines[:depth])
        everything = all(child.scope == "all" for child in lines[:depth])
        if row["seq"] <= until and (everything or await _visible(fetch, lines, depth, row)):
            return Seen(row, until)
    return None


async def _visible(fetch: Fetch, lines: Sequence[Line], depth: int, row: Row) -> bool:
    """Whether an ancestor's row lies on the path that the session goes back along."""
    if row["ns"] and row["root_id"] is None:
        return True
    child = lines[depth - 1]
    root = row["root_id"] if row["ns"] else row["checkpoint_id"]
    if row["ns"] and root == str(child.fork_id):
        # Under the fork point itself: what was there by the cut was under way when it was made.
        if child.cut is not None and row["seq"] > child.cut:
            return False
        if depth == 1:
            return True
    # The path begins where the last line ends that is seen whole.
    whole = next(i for i, line in enumerate(lines) if line.scope != "all" or i == depth)
    at = await seq_of(fetch, [row["lineage_id"]], root, "")
    if at is None or lines[whole].fork_parent is None:
        return False
    found = await fetch(
        _SQL["on_path"],
        {
            "lineage_id": lines[whole + 1].lineage_id, "from_id": lines[whole].fork_parent,
            "checkpoint_id": root, "floor": at[1],
        },
    )  # fmt: skip
    return bool(found[0]["found"])


async def seq_of(
    fetch: Fetch, lineages: Sequence[int], checkpoint_id: str, ns: str | None
) -> tuple[int, int] | None:
    """The nearest lineage that has this checkpoint in a namespace, and when it was written."""
    found = await fetch(
        _SQL["seq_of"], {"lineages": list(lineages), "checkpoint_id": checkpoint_id}
    )
    placed = {row["lineage_id"]: row["seq"] for row in found if ns is None or row["ns"] == ns}
    for lineage_id in lineages:
        if lineage_id in placed:
            return lineage_id, placed[lineage_id]
    return None


def rows_until(seen: Sequence[Seen]) -> dict[str, Any]:
    """The arrays that `load_writes` asks with."""
    return {
        "lineages": [s.row["lineage_id"] for s in seen],
        "checkpoints": [s.row["checkpoint_id"] for s in seen],
        "nss": [s.row["ns"] for s in seen],
        "untils": [s.until for s in seen],
    }


def moment(line: Line) -> int:
    """Until when a line sees what its parent did."""
    return _FOREVER if line.moment is None else line.moment


def _text(value: UUID | None) -> str | None:
    return None if value is None else str(value)
