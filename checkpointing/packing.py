"""Writing a session's bundle, of one moment in time, in memory that does not grow with its values.

Clocks, item numbers and lineages are counted anew from one, so that the same session gives the
same file wherever it is.
"""

from __future__ import annotations

import importlib.metadata
from base64 import b64encode
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import aclosing
from typing import Any
from uuid import UUID

from psycopg.rows import DictRow

from clew.checkpointing import chain, encryption, reach, text
from clew.checkpointing.errors import BundleError, UnknownKey
from clew.checkpointing.keys import Vault
from clew.checkpointing.lineage import Scope
from clew.checkpointing.postgres import Connection, Database, Principal
from clew.checkpointing.reach import Key, Line, Reach, Runs
from clew.checkpointing.sql import Queries

VERSION = 1

_queries = Queries("clew.checkpointing.queries")
_PACKAGES = ("clew", "langgraph", "langgraph-checkpoint", "langchain-core")
_PAGE = 200
_LINE = 262_144  # bytes of values that share a line
_MUCH = 1_000_000  # bytes of values that are fetched together


async def dump(
    db: Database,
    who: Principal,
    thread_id: str,
    *,
    scope: Scope = "all",
    session: Mapping[str, Any] | None = None,
    vault: Vault | None = None,
) -> AsyncGenerator[bytes]:
    """The lines of a session's bundle, of one moment in time, each handed out as it is made.

    `all` is every line that the session was ever on with all its branches, `path` what led to
    its head. `session` is carried in the header as it is. Raises `UnknownThread`.
    """
    writer = chain.Writer()
    counts = {"lineages": 0, "items": 0, "checkpoints": 0, "writes": 0}
    async with db.connection() as conn, conn.transaction():
        await conn.execute("set transaction isolation level repeatable read, read only")
        await db.become(conn, who)
        reached = await reach.find(conn, thread_id, scope)
        plain = _Opener(conn, who, vault)
        yield writer.line({"bundle": _header(reached, scope, session)})
        for lineage_id in reached.lines:
            counts["lineages"] += 1
            yield writer.line({"lineage": _lineage(reached, lineage_id)})
        async with aclosing(_items(conn, reached, plain)) as pages:
            async for page in pages:
                counts["items"] += len(page[3])
                yield writer.line({"items": page})
        for line in reached.lines.values():
            async with aclosing(_checkpoints(conn, reached, line, plain)) as records:
                async for record in records:
                    counts["checkpoints"] += 1
                    counts["writes"] += len(record["writes"])
                    yield writer.line(record)
        yield writer.line({"marks": await _marks(conn, reached, plain)})
    yield writer.line({"end": counts})


class _Opener:
    """Bodies in clear, whether they were stored so or not."""

    def __init__(self, conn: Connection, who: Principal, vault: Vault | None) -> None:
        self._conn, self._who, self._vault = conn, who, vault
        self._sealers: dict[int, encryption.Sealer] = {}

    async def ready(self, bodies: list[bytes]) -> None:
        """Get the keys for these. With a vault nothing plain passes, without one nothing sealed."""
        if self._vault is None:
            if any(encryption.is_sealed(body) for body in bodies):
                raise UnknownKey("the session is encrypted: set CLEW_ENCRYPTION_KEYS")
            return
        needed = encryption.lineages(bodies) - self._sealers.keys()
        if needed:
            self._sealers |= await self._vault.sealers_in(self._conn, self._who, needed)

    def open(self, body: bytes, place: bytes) -> bytes:
        return body if self._vault is None else encryption.open_body(self._sealers, body, place)


def _header(reached: Reach, scope: Scope, session: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "version": VERSION,
        "thread_id": text.unescape(reached.head["thread_id"]),
        "scope": scope,
        "head": reached.numbers[reached.head["lineage_id"]],
        "clock": len(reached.clock),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "session": session,
    }


def _lineage(reached: Reach, lineage_id: int) -> dict[str, Any]:
    line = reached.lines[lineage_id]
    row = line.row
    return {
        "own": line.own,
        "kind": row["kind"],
        "scope": row["scope"],
        "parent": reached.numbers.get(row["parent_id"]),
        "source": reached.numbers.get(row["source_id"]),
        "fork_id": _text(row["fork_id"]),
        "fork_parent": _text(row["fork_parent"]),
        "fork_seq": _tick(reached, row["fork_seq"]),
        "moment": _tick(reached, row["moment"]),
        "cut": _tick(reached, row["cut"]),
        "created_at": row["created_at"].isoformat(),
    }


async def _items(
    conn: Connection, reached: Reach, plain: _Opener
) -> AsyncGenerator[tuple[int, int, int, list[str]]]:
    """Neighbours in the bundle's own numbers, as many as fit a line."""
    for (lineage_id, stream), runs in reached.items.items():
        index = reached.numbers.get(lineage_id)
        if index is None:
            raise BundleError(f"a checkpoint refers to lineage {lineage_id}, which is not there")
        first, size = 0, 0
        some: list[str] = []
        async with aclosing(_bodies(conn, lineage_id, stream, runs, plain)) as bodies:
            async for body in bodies:
                if some and (size + len(body) > _LINE or len(some) == _PAGE):
                    yield index, stream, first, some
                    first, size, some = first + len(some), 0, []
                some.append(b64encode(body).decode())
                size += len(body)
        if some:
            yield index, stream, first, some


async def _bodies(
    conn: Connection, lineage_id: int, stream: int, runs: Runs, plain: _Opener
) -> AsyncGenerator[bytes]:
    for first, end in runs.spans:
        at = first
        while at < end:
            wanted = {
                "lineage_id": lineage_id,
                "stream": stream,
                "first": at,
                "last": end - 1,
                "page": _PAGE,
            }
            cursor = await conn.execute(_queries["bundle_items"], wanted)
            rows = await cursor.fetchall()
            if not rows or [row["number"] for row in rows] != [*range(at, at + len(rows))]:
                raise BundleError("a checkpoint refers to values that are not there")
            await plain.ready([row["body"] for row in rows])
            for row in rows:
                place = encryption.item(lineage_id, stream, row["number"])
                yield plain.open(row["body"], place)
            at += len(rows)


async def _checkpoints(
    conn: Connection, reached: Reach, line: Line, plain: _Opener
) -> AsyncGenerator[dict[str, Any]]:
    for page in _pages(line):
        wanted = {"lineage_id": line.lineage_id, "checkpoint_ids": [key[0] for key in page]}
        cursor = await conn.execute(_queries["bundle_checkpoints"], wanted)
        rows = {(row["checkpoint_id"], row["ns"]): row for row in await cursor.fetchall()}
        cursor = await conn.execute(_queries["bundle_writes"], wanted | {"until": line.limit})
        writes: dict[Key, list[DictRow]] = {key: [] for key in page}
        for write in await cursor.fetchall():
            writes.get((write["checkpoint_id"], write["ns"]), []).append(write)
        await plain.ready([write["body"] for some in writes.values() for write in some])
        for key in page:
            yield {
                "checkpoint": _checkpoint(reached, line, rows[key]),
                "writes": [_write(reached, write, plain) for write in writes[key]],
            }


def _pages(line: Line) -> Generator[list[Key]]:
    """Checkpoints in their order, as many as have writes of a bounded size."""
    page: list[Key] = []
    size = 0
    for key in sorted(line.checkpoints, key=lambda key: (line.checkpoints[key], key[1])):
        more = line.bytes.get(key, 0)
        if page and (len(page) == _PAGE or size + more > _MUCH):
            yield page
            page, size = [], 0
        page.append(key)
        size += more
    if page:
        yield page


def _checkpoint(reached: Reach, line: Line, row: DictRow) -> dict[str, Any]:
    ranges: list[int] = list(row["ranges"] or ())
    for i in range(0, len(ranges), 3):
        lineage_id, stream = ranges[i] or line.lineage_id, ranges[i + 1] >> 32
        ranges[i] = reached.numbers[ranges[i]] if ranges[i] else 0
        ranges[i + 2] = reached.items[lineage_id, stream].rank(ranges[i + 2])
    return {
        "lineage": reached.numbers[line.lineage_id],
        "checkpoint_id": str(row["checkpoint_id"]),
        "parent_id": _text(row["parent_id"]),
        "root_id": _text(row["root_id"]),
        "run_id": _text(row["run_id"]),
        "ns": row["ns"],
        "seq": reached.tick(row["seq"]),
        "entry": reached.tick(row["entry"]),
        "created_at": row["created_at"].isoformat(),
        "step": row["step"],
        "source": row["source"],
        "ranges": ranges or None,
        "seeds": row["seeds"],
        "state": b64encode(row["state"]).decode(),
        "metadata": row["metadata"],
    }


def _write(reached: Reach, row: DictRow, plain: _Opener) -> list[Any]:
    slot: int = row["slot"]
    place = encryption.write(row["checkpoint_id"], row["task_id"], slot, row["ns"], row["channel"])
    if slot < 0:
        slot = -(8 * reached.tick(-slot >> 3) + (-slot & 7))
    return [
        str(row["task_id"]),
        slot,
        reached.tick(row["seq"]),
        row["channel"],
        row["path"],
        b64encode(plain.open(row["body"], place)).decode(),
    ]


async def _marks(conn: Connection, reached: Reach, plain: _Opener) -> dict[str, Any]:
    """Labels and pins of what is in the bundle."""
    thread = {"thread_id": reached.head["thread_id"]}
    ids = {key[0] for line in reached.lines.values() for key in line.checkpoints}
    labels = await (await conn.execute(_queries["bundle_labels"], thread)).fetchall()
    pins = await (await conn.execute(_queries["bundle_pins"], thread)).fetchall()
    await plain.ready([row["body"] for row in labels if row["body"] is not None])
    return {
        "labels": [
            {
                "name": row["name"],
                "checkpoint_id": str(row["checkpoint_id"]),
                "actor": row["actor"],
                "body": row["body"] and b64encode(plain.open(row["body"], _place(row))).decode(),
                "labelled_at": row["labelled_at"].isoformat(),
            }
            for row in labels
            if row["checkpoint_id"] in ids
        ],
        "pins": [
            {
                "checkpoint_id": str(row["checkpoint_id"]),
                "actor": row["actor"],
                "reason": row["reason"],
                "pinned_at": row["pinned_at"].isoformat(),
                "expires_at": row["expires_at"] and row["expires_at"].isoformat(),
            }
            for row in pins
            if row["checkpoint_id"] in ids
        ],
    }


def _place(row: DictRow) -> bytes:
    return encryption.label(text.unescape(row["thread_id"]), text.unescape(row["name"]))


def _tick(reached: Reach, moment: int | None) -> int | None:
    return None if moment is None else reached.tick(moment)


def _text(value: UUID | None) -> str | None:
    return None if value is None else str(value)
