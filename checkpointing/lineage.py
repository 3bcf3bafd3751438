"""Which storage a session is on: claim, fork, restore, undo, purge, in the caller's transaction.

Every function takes a connection that is inside an explicit transaction under a principal
(`db.transaction(who)`), so that the caller's own rows commit with it or not at all.
docs/design/lineage.md tells the rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from clew.checkpointing import garbage, path, text
from clew.checkpointing.errors import (
    CyclicLineage,
    FenceLost,
    InvalidId,
    NothingToUndo,
    ThreadExists,
    UnknownCheckpoint,
    UnknownThread,
)
from clew.checkpointing.path import Seen
from clew.checkpointing.postgres import Connection
from clew.checkpointing.rows import Row
from clew.checkpointing.sql import Queries

Scope = Literal["path", "all"]

_SQL = Queries("clew.checkpointing.queries")


@dataclass(frozen=True, slots=True)
class Head:
    """Where a session is, and the epoch that its writers must hold."""

    thread_id: str
    owner_id: int
    lineage_id: int
    epoch: int


async def create(conn: Connection, thread_id: str, owner_id: int) -> Head:
    """The head of a new session, on an empty lineage. Raises `ThreadExists`."""
    return await _add_head(conn, thread_id, owner_id, None)


async def head(conn: Connection, thread_id: str) -> Head:
    """Raises `UnknownThread`."""
    return await _head(conn, "get_head", thread_id, None)


async def claim(conn: Connection, thread_id: str, *, epoch: int | None = None) -> Head:
    """Take the session over: its next epoch, after which no older writer lands anything.

    With `epoch`, only if that is the current one, else `FenceLost`.
    """
    cursor = await conn.execute(_SQL["bump"], {"thread_id": text.escape(thread_id), "epoch": epoch})
    row = await cursor.fetchone()
    if row is None:
        await head(conn, thread_id)
        raise FenceLost(f"session {thread_id} is no longer at epoch {epoch}")
    return _made(row)


async def fork(
    conn: Connection,
    thread_id: str,
    target_id: str,
    *,
    checkpoint_id: str | UUID | None = None,
    lineage_id: int | None = None,
    scope: Scope = "path",
    actor: str | None = None,
    reason: str | None = None,
) -> Head:
    """A new session of the same owner that begins at a checkpoint of this one, head by default.

    `lineage_id` names an abandoned line of the session to look for the checkpoint in.
    """
    branch = _Branch(conn, thread_id, target_id, checkpoint_id, lineage_id, scope, actor, reason)
    made = await branch.make()
    if made is not None:
        return made
    locked: int | None = None
    while True:
        # Whatever was pruned, purged or moved while we waited is not there to be forked any more.
        source = await head(conn, thread_id)
        seen = await _inherited(conn, source, checkpoint_id, lineage_id)
        if seen.row["lineage_id"] == locked:
            return await branch.make_at(seen)
        locked = seen.row["lineage_id"]
        await conn.execute(_SQL["hold_lineage_shared"], {"lineage_id": locked})


async def restore(
    conn: Connection,
    thread_id: str,
    checkpoint_id: str | UUID,
    *,
    lineage_id: int | None = None,
    epoch: int | None = None,
    actor: str | None = None,
    reason: str | None = None,
) -> Head:
    """Put the session back to a checkpoint. Bumps the epoch; `epoch` as in `claim`."""
    branch = _Branch(conn, thread_id, None, checkpoint_id, lineage_id, "path", actor, reason, epoch)
    made = await branch.make()
    if made is not None:
        return made
    source = await head(conn, thread_id)
    return await branch.make_at(await _inherited(conn, source, checkpoint_id, lineage_id))


async def undo(
    conn: Connection,
    thread_id: str,
    *,
    epoch: int | None = None,
    actor: str | None = None,
    reason: str | None = None,
) -> Head:
    """Back to the line that the last restore left."""
    source = await _head(conn, "hold_head", thread_id, epoch)
    lines = await path.chain(path.through(conn), source.lineage_id)
    line = lines[0]
    if line.kind != "restore" or line.source_id is None:
        raise NothingToUndo(f"session {thread_id} is not on a restored line")
    back = await path.chain(path.through(conn), line.source_id)
    if not back or back[0].thread_id != line.thread_id:
        raise NothingToUndo(f"the line that session {thread_id} left is gone")
    undone = await _switch(conn, thread_id, line.source_id)
    await conn.execute(
        _SQL["add_move"],
        {
            "owner_id": undone.owner_id, "thread_id": text.escape(thread_id), "kind": "undo",
            "from_id": source.lineage_id, "to_id": undone.lineage_id, "checkpoint_id": None,
            "actor": actor, "reason": reason,
        },
    )  # fmt: skip
    return undone


async def purge(
    conn: Connection,
    thread_id: str,
    *,
    epoch: int | None = None,
    actor: str | None = None,
    reason: str | None = None,
) -> bool:
    """Delete a session's storage but for what living forks of it reach. False if unknown."""
    try:
        gone = await _head(conn, "hold_head", thread_id, epoch)
    except UnknownThread:
        return False
    await conn.execute(_SQL["drop_head"], {"thread_id": text.escape(thread_id)})
    cursor = await conn.execute(_SQL["disown"], {"thread_id": text.escape(thread_id)})
    for row in await cursor.fetchall():
        await garbage.trim(conn, row["lineage_id"])
    await conn.execute(
        _SQL["add_move"],
        {
            "owner_id": gone.owner_id, "thread_id": text.escape(thread_id), "kind": "purge",
            "from_id": gone.lineage_id, "to_id": None, "checkpoint_id": None,
            "actor": actor, "reason": reason,
        },
    )  # fmt: skip
    return True


async def collect(conn: Connection, *, limit: int = 100) -> int:
    """Remove or trim dead lineages; how many were touched. Nothing is left over but by a fault."""
    return await garbage.collect(conn, limit=limit)


@dataclass(frozen=True, slots=True)
class _Branch:
    """A fork to a target, or a restore where there is none."""

    conn: Connection
    source_id: str
    target_id: str | None
    checkpoint_id: str | UUID | None
    lineage_id: int | None
    scope: Scope
    actor: str | None
    reason: str | None
    epoch: int | None = None

    async def make(self) -> Head | None:
        """At a checkpoint of the session's own line, or the line's that was named. None where
        that has it from an ancestor, if at all."""
        return await self._call(self.lineage_id, self.checkpoint_id, None)

    async def make_at(self, seen: Seen) -> Head:
        """At a checkpoint that was found."""
        row = seen.row
        made = await self._call(row["lineage_id"], row["checkpoint_id"], seen.until)
        if made is None:
            raise UnknownCheckpoint(
                f"session {self.source_id} has no checkpoint {row['checkpoint_id']}"
            )
        return made

    async def _call(
        self, lineage_id: int | None, checkpoint_id: str | UUID | None, until: int | None
    ) -> Head | None:
        cursor = await self.conn.execute(
            _SQL["branch"],
            {
                "source": text.escape(self.source_id),
                "target": None if self.target_id is None else text.escape(self.target_id),
                "scope": self.scope,
                "lineage_id": lineage_id,
                "checkpoint_id": None if checkpoint_id is None else _uuid(checkpoint_id),
                "until": until,
                "epoch": self.epoch,
                "actor": self.actor,
                "reason": self.reason,
            },
        )
        row = await cursor.fetchone()
        assert row is not None
        match row["trouble"]:
            case None:
                return _made(row)
            case "point":
                return None
            case "thread":
                raise UnknownThread(f"there is no session {self.source_id}")
            case "epoch":
                raise FenceLost(f"session {self.source_id} is no longer at epoch {self.epoch}")
            case "line":
                raise UnknownCheckpoint(f"session {self.source_id} has no line {self.lineage_id}")
            case "taken":
                raise ThreadExists(f"there is a session {self.target_id} already")
            case missing:
                raise CyclicLineage(f"the line of session {self.source_id} is {missing}")


async def _inherited(
    conn: Connection, source: Head, checkpoint_id: str | UUID | None, lineage_id: int | None
) -> Seen:
    """What a line has from its ancestors to begin from: a checkpoint, or its newest one."""
    fetch = path.through(conn)
    lines = await path.chain(fetch, lineage_id or source.lineage_id)
    if checkpoint_id is None:
        seen = await path.newest(fetch, lines, "")
        what = "nothing yet"
    else:
        wanted = _uuid(checkpoint_id)
        seen = await path.find(fetch, lines, "", wanted)
        what = f"no checkpoint {wanted}"
    if seen is None:
        raise UnknownCheckpoint(f"session {source.thread_id} has {what}")
    return seen


async def _head(conn: Connection, query: str, thread_id: str, epoch: int | None) -> Head:
    cursor = await conn.execute(_SQL[query], {"thread_id": text.escape(thread_id)})
    row = await cursor.fetchone()
    if row is None:
        raise UnknownThread(f"there is no session {thread_id}")
    if epoch is not None and row["epoch"] != epoch:
        raise FenceLost(f"session {thread_id} is no longer at epoch {epoch}")
    return _made(row)


async def _add_head(
    conn: Connection, thread_id: str, owner_id: int, lineage_id: int | None
) -> Head:
    cursor = await conn.execute(
        _SQL["add_head"],
        {"thread_id": text.escape(thread_id), "owner_id": owner_id, "lineage_id": lineage_id},
    )
    row = await cursor.fetchone()
    if row is None:
        raise ThreadExists(f"there is a session {thread_id} already")
    return _made(row)


async def _switch(conn: Connection, thread_id: str, lineage_id: int) -> Head:
    cursor = await conn.execute(
        _SQL["switch"], {"thread_id": text.escape(thread_id), "lineage_id": lineage_id}
    )
    row = await cursor.fetchone()
    if row is None:
        raise UnknownThread(f"there is no session {thread_id}")
    return _made(row)


def _made(row: Row) -> Head:
    return Head(text.unescape(row["thread_id"]), row["owner_id"], row["lineage_id"], row["epoch"])


def _uuid(checkpoint_id: str | UUID) -> str:
    try:
        return str(UUID(str(checkpoint_id)))
    except ValueError as error:
        raise InvalidId(f"{checkpoint_id!r} is no checkpoint id") from error
