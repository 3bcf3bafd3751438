"""A session's history without its values: entries, pages of them, and the tree of all its lines.

Nothing here decodes a body. Three scopes: `path` is what leads to the newest checkpoint (or to
another one); `line` is what LangGraph's history shows, the branches of the session's line
included; `all` adds the lines that restores left behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from clew.checkpointing import manifest, metadata, text, view
from clew.checkpointing.manifest import Range
from clew.checkpointing.postgres import Connection
from clew.checkpointing.spans import Spans
from clew.checkpointing.sql import Queries
from clew.checkpointing.view import Line, Scope

_queries = Queries("clew.checkpointing.queries")


@dataclass(frozen=True, slots=True)
class Entry:
    """One checkpoint, as a list shows it."""

    checkpoint_id: str
    parent_id: str | None
    lineage_id: int
    seq: int
    ns: str
    source: str | None
    step: int | None
    run_id: str | None
    created_at: datetime
    metadata: dict[str, Any]
    labels: tuple[str, ...]
    pinned: bool
    interrupted: bool  # a question was asked here
    failed: bool
    bytes: int  # its row, what was written under it, and the values its parent did not have


@dataclass(frozen=True, slots=True)
class Branch:
    """A line in the tree: where it begins, where it ends, who made it and why."""

    line: Line
    tip: str | None
    checkpoints: int
    actor: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Tree:
    branches: list[Branch]
    entries: list[Entry]  # newest first; a page, as of `list_`


@dataclass(frozen=True, slots=True)
class Filter:
    metadata: Mapping[str, Any] | None = None
    run_id: str | None = None
    source: str | None = None
    step: int | None = None


async def list_(
    conn: Connection,
    thread_id: str,
    *,
    scope: Scope = "line",
    ns: str = "",
    tip: str | UUID | None = None,
    before: str | UUID | None = None,
    limit: int = 10,
    where: Filter | None = None,
) -> list[Entry]:
    """A page, newest first. `before` is the id of the last entry of the page before it.

    With `tip`, the path that leads to that checkpoint rather than to the newest one.
    """
    lines = await view.lines_of(conn, thread_id, every=scope == "all" or tip is not None)
    seen = await view.look(conn, lines, "path" if tip is not None else scope, tip)
    rows = await _rows(conn, seen, ns, before, limit, where or Filter())
    return await _entries(conn, thread_id, seen, rows)


async def latest(conn: Connection, thread_id: str) -> Entry | None:
    """The newest checkpoint of the session; None if it has none."""
    found = await list_(conn, thread_id, limit=1)
    return found[0] if found else None


async def get(
    conn: Connection,
    thread_id: str,
    checkpoint_id: str | UUID,
    *,
    ns: str = "",
    lineage_id: int | None = None,
) -> Entry:
    """One checkpoint that the session sees, on an abandoned line if need be."""
    lines = await view.lines_of(conn, thread_id, every=True)
    where = await view.find(conn, lines, checkpoint_id, ns=ns, lineage_id=lineage_id)
    wanted = {
        **_parameters(ns, 1, Filter()),
        "before": where["seq"] + 1, "before_id": None,
        "lineage_ids": [where["lineage_id"]], "bounds": [where["seq"]], "hidden": [None],
    }  # fmt: skip
    cursor = await conn.execute(_queries["list_lines"], wanted)
    seen = view.View({}, {}, [], [line.lineage_id for line in lines])
    (entry,) = await _entries(conn, thread_id, seen, await cursor.fetchall())
    return entry


async def tree(
    conn: Connection,
    thread_id: str,
    *,
    before: str | UUID | None = None,
    limit: int = 1000,
) -> Tree:
    """All lines of a session and a page of what is on them, each checkpoint once."""
    lines = await view.lines_of(conn, thread_id, every=True)
    seen = await view.look(conn, lines, "all", None)
    rows = await _rows(conn, seen, "", before, limit, Filter())
    entries = await _entries(conn, thread_id, seen, rows)
    cursor = await conn.execute(_queries["moves_of_session"], {"thread_id": text.escape(thread_id)})
    moves = {move["to_id"]: move for move in await cursor.fetchall() if move["kind"] != "undo"}
    cursor = await conn.execute(
        _queries["counts_of_lines"], {"lineage_ids": [line.lineage_id for line in lines]}
    )
    counts = {row["lineage_id"]: row for row in await cursor.fetchall()}
    branches = [
        Branch(
            line=line,
            tip=_text(counts[line.lineage_id]["tip"]),
            checkpoints=counts[line.lineage_id]["checkpoints"],
            actor=moves.get(line.lineage_id, {}).get("actor"),
            reason=moves.get(line.lineage_id, {}).get("reason"),
        )
        for line in lines
        if line.own
    ]
    return Tree(branches, entries)


async def path(
    conn: Connection, thread_id: str, *, tip: str | UUID | None = None
) -> list[tuple[int, str]]:
    """(lineage, checkpoint) of everything that led to a checkpoint, oldest first."""
    lines = await view.lines_of(conn, thread_id, every=tip is not None)
    seen = await view.look(conn, lines, "path", tip)
    rows = await _rows(conn, seen, "", None, None, Filter())
    return [(row["lineage_id"], str(row["checkpoint_id"])) for row in reversed(rows)]


async def _rows(
    conn: Connection,
    seen: view.View,
    ns: str,
    before: str | UUID | None,
    limit: int | None,
    where: Filter,
) -> list[DictRow]:
    params = _parameters(ns, limit, where)
    starts = seen.starts
    whole = seen.whole
    params["before"] = params["before_id"] = None
    if before is not None:
        shown = [at for at in (*whole, *seen.chain) if seen.hidden.get(at) != view.uuid(before)]
        wanted = {
            "lineage_ids": shown,
            "checkpoint_id": view.uuid(before),
            "ns": text.escape(ns),
        }
        row = await (await conn.execute(_queries["find_entry"], wanted)).fetchone()
        if row is None:
            params["before_id"] = view.uuid(
                before
            )  # gone meanwhile: ids are made in the order of time
        else:
            params["before"] = row["seq"]
            if ns == "" and row["lineage_id"] not in whole:
                starts, whole = [(row["lineage_id"], view.uuid(before))], dict[int, int]()
    rows: list[DictRow] = []
    if whole:
        params |= {
            "lineage_ids": [*whole],
            "bounds": [*whole.values()],
            "hidden": [seen.hidden.get(lineage_id) for lineage_id in whole],
        }
        rows = await (await conn.execute(_queries["list_lines"], params)).fetchall()
    if starts and (limit is None or len(rows) < limit):
        plain = where == Filter() and limit is not None and ns == "" and not params["before_id"]
        params |= {
            "from_lineages": [lineage_id for lineage_id, _ in starts],
            "from_ids": [checkpoint_id for _, checkpoint_id in starts],
            "chain": seen.chain,
            "reach": limit + 1 if plain and limit is not None else None,
            "limit": None if limit is None else limit - len(rows),
        }
        rows += await (await conn.execute(_queries["list_path"], params)).fetchall()
    return rows


def _parameters(ns: str, limit: int | None, where: Filter) -> dict[str, Any]:
    wanted = dict(where.metadata or {})
    given = {"source": where.source, "step": where.step, "run_id": where.run_id}
    wanted |= {key: value for key, value in given.items() if value is not None}
    columns = metadata.split("", wanted)
    rest = dict(columns.rest.obj) if columns.rest is not None else {}
    if "parents" not in wanted:
        rest.pop("parents", None)
    return {
        "ns": text.escape(ns),
        "limit": limit,
        "source": columns.source,
        "step": columns.step,
        "run_id": columns.run_id,
        "metadata": Jsonb(rest) if rest else None,
    }


async def _entries(
    conn: Connection, thread_id: str, seen: view.View, rows: Sequence[DictRow]
) -> list[Entry]:
    if not rows:
        return []
    wanted = {
        "thread_id": text.escape(thread_id),
        "lineage_ids": [row["lineage_id"] for row in rows],
        "checkpoint_ids": [row["checkpoint_id"] for row in rows],
        "ns": [row["ns"] for row in rows],
    }
    marks = await (await conn.execute(_queries["marks_of_entries"], wanted)).fetchall()
    brought = await _brought(conn, seen, rows)
    return [
        Entry(
            checkpoint_id=str(row["checkpoint_id"]),
            parent_id=_text(row["parent_id"]),
            lineage_id=row["lineage_id"],
            seq=row["seq"],
            ns=text.unescape(row["ns"]),
            source=row["source"],
            step=row["step"],
            run_id=_text(row["run_id"]),
            created_at=row["created_at"],
            metadata=metadata.join(row),
            labels=tuple(text.unescape(name) for name in mark["labels"] or ()),
            pinned=mark["pinned"],
            interrupted=mark["asked"],
            failed=mark["failed"],
            bytes=row["bytes"] + mark["bytes"] + brought.get(i, 0),
        )
        for i, (row, mark) in enumerate(zip(rows, marks, strict=True))
    ]


async def _brought(conn: Connection, seen: view.View, rows: Sequence[DictRow]) -> dict[int, int]:
    """Bytes of the values that each of these has and its parent has not."""
    known = {(row["checkpoint_id"], row["ns"]): i for i, row in enumerate(rows)}
    missing = [
        row for row in rows if row["parent_id"] and (row["parent_id"], row["ns"]) not in known
    ]
    above: dict[tuple[UUID, str], list[Range]] = {}
    if missing:
        wanted = {
            "lineage_ids": [row["lineage_id"] for row in missing],
            "checkpoint_ids": [row["parent_id"] for row in missing],
            "ns": [row["ns"] for row in missing],
            "chain": [*seen.whole, *seen.chain],
        }
        cursor = await conn.execute(_queries["ranges_of_parents"], wanted)
        for found in await cursor.fetchall():
            row = missing[found["number"] - 1]
            above[row["parent_id"], row["ns"]] = manifest.absolute(
                found["ranges"], found["lineage_id"]
            )
    for key, i in known.items():
        above[key] = manifest.absolute(rows[i]["ranges"], rows[i]["lineage_id"])
    pieces: list[tuple[int, Range]] = []
    for i, row in enumerate(rows):
        own = manifest.absolute(row["ranges"], row["lineage_id"])
        had = above.get((row["parent_id"], row["ns"]), [])
        pieces += [(i, piece) for piece in Spans(own) - Spans(had)]
    if not pieces:
        return {}
    wanted = {
        "numbers": [i for i, _ in pieces],
        "lineage_ids": [piece.lineage_id for _, piece in pieces],
        "streams": [piece.stream for _, piece in pieces],
        "firsts": [piece.first for _, piece in pieces],
        "lasts": [piece.first + piece.size - 1 for _, piece in pieces],
    }
    cursor = await conn.execute(_queries["bytes_of_ranges"], wanted)
    return {row["number"]: row["bytes"] for row in await cursor.fetchall()}


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
