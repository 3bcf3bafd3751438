"""Where a session's history lies: its lines, and what of each of them a scope covers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from psycopg.rows import DictRow

from clew.checkpointing import text
from clew.checkpointing.errors import InvalidId, UnknownCheckpoint, UnknownThread
from clew.checkpointing.postgres import Connection
from clew.checkpointing.sql import Queries

Scope = Literal["path", "line", "all"]

_queries = Queries("clew.checkpointing.queries")
_EVER = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Line:
    """One lineage that a session is or was on, or has its beginnings from."""

    lineage_id: int
    kind: str
    own: bool  # made by this session, not by the one it was forked from
    is_head: bool
    parent_id: int | None
    source_id: int | None
    fork_id: str | None
    fork_parent: str | None
    scope: str
    moment: int | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class View:
    """What a scope covers: whole lineages up to a moment, and paths that begin somewhere."""

    whole: dict[int, int]
    hidden: dict[int, UUID]  # in these lineages, what another one shows
    starts: list[tuple[int, UUID]]
    chain: list[int]  # where ancestors are looked up


async def lines_of(conn: Connection, thread_id: str, *, every: bool) -> list[Line]:
    """The lineages of a session and their ancestors, oldest first. Raises `UnknownThread`."""
    wanted = {"thread_id": text.escape(thread_id), "every": every}
    cursor = await conn.execute(_queries["session_lines"], wanted)
    rows = await cursor.fetchall()
    if not rows:
        raise UnknownThread(f"there is no session {thread_id!r}")
    return [
        Line(
            lineage_id=row["lineage_id"],
            kind=row["kind"],
            own=row["own"],
            is_head=row["lineage_id"] == row["head_id"],
            parent_id=row["parent_id"],
            source_id=row["source_id"],
            fork_id=_text(row["fork_id"]),
            fork_parent=_text(row["fork_parent"]),
            scope=row["scope"],
            moment=row["moment"],
            created_at=row["created_at"],
        )
        for row in rows
    ]


async def find(
    conn: Connection,
    lines: Sequence[Line],
    checkpoint_id: str | UUID,
    *,
    ns: str = "",
    lineage_id: int | None = None,
) -> DictRow:
    """Where a checkpoint lies (lineage_id, seq, ns). Raises `UnknownCheckpoint`."""
    ids = [line.lineage_id for line in lines if lineage_id in (None, line.lineage_id)]
    wanted = {"lineage_ids": ids, "checkpoint_id": uuid(checkpoint_id), "ns": text.escape(ns)}
    row = await (await conn.execute(_queries["find_entry"], wanted)).fetchone()
    if row is None:
        raise UnknownCheckpoint(f"there is no checkpoint {checkpoint_id} in this session")
    return row


def until(lines: Sequence[Line], lineage_id: int) -> int:
    """The moment up to which the session sees what was written in a lineage."""
    if any(line.own for line in lines if line.lineage_id == lineage_id):
        return _EVER
    seen = [line.moment for line in lines if line.parent_id == lineage_id]
    return max((moment if moment is not None else _EVER for moment in seen), default=_EVER)


def uuid(value: str | UUID) -> UUID:
    try:
        return value if isinstance(value, UUID) else UUID(value)
    except ValueError:
        raise InvalidId(f"{value!r} is not the id of a checkpoint") from None


async def look(
    conn: Connection, lines: Sequence[Line], scope: Scope, tip: str | UUID | None
) -> View:
    by_id = {line.lineage_id: line for line in lines}
    head = next(line for line in lines if line.is_head)
    if scope == "path":
        if tip is not None:
            where = await find(conn, lines, tip)
            return View(
                {}, {}, [(where["lineage_id"], uuid(tip))], _chain(by_id, where["lineage_id"])
            )
        return await _path_of_head(conn, by_id, head)
    whole: dict[int, int] = {}
    hidden: dict[int, UUID] = {}
    starts: set[tuple[int, UUID]] = set()
    seeds = [head] if scope == "line" else [line for line in lines if line.own]
    for seed in seeds:
        whole[seed.lineage_id] = _EVER
        line, bound = seed, _EVER
        # A copied session sees every branch of what it was copied from, up to that moment.
        while line.scope == "all" and line.parent_id is not None:
            bound = min(bound, line.moment if line.moment is not None else _EVER)
            whole[line.parent_id] = max(bound, whole.get(line.parent_id, 0))
            if line.fork_id is not None and scope == "line":
                hidden[line.parent_id] = uuid(line.fork_id)
            line = by_id[line.parent_id]
        if line.parent_id is not None and line.fork_parent is not None:
            starts.add((line.parent_id, uuid(line.fork_parent)))
    outside = sorted(start for start in starts if start[0] not in whole)
    chain = _chain(by_id, max(start[0] for start in outside)) if outside else []
    if scope == "all":
        hidden = _copies(by_id, whole)
    return View(whole, hidden, outside, chain)


def _copies(by_id: Mapping[int, Line], whole: Collection[int]) -> dict[int, UUID]:
    """In each lineage, the first row if it is a copy of what is shown already.

    A restore begins with a copy of the checkpoint that it went back to; restores of what the
    session was forked at are all copies of the same one.
    """
    hidden: dict[int, UUID] = {}
    shown: set[str] = set()
    for line in (by_id[lineage_id] for lineage_id in sorted(whole)):
        if line.fork_id is not None and (line.parent_id in whole or line.fork_id in shown):
            hidden[line.lineage_id] = uuid(line.fork_id)
        elif line.fork_id is not None:
            shown.add(line.fork_id)
    return hidden


async def _path_of_head(conn: Connection, by_id: Mapping[int, Line], head: Line) -> View:
    cursor = await conn.execute(_queries["tip_of_lineage"], {"lineage_id": head.lineage_id})
    row = await cursor.fetchone()
    chain = _chain(by_id, head.lineage_id)
    return View({}, {}, [(head.lineage_id, row["checkpoint_id"])] if row else [], chain)


def _chain(by_id: Mapping[int, Line], lineage_id: int) -> list[int]:
    chain: list[int] = []
    at: int | None = lineage_id
    while at is not None and at in by_id:
        chain.append(at)
        at = by_id[at].parent_id
    return chain


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
