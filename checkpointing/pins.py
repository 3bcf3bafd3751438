"""Pins: checkpoints that no retention removes, who wants that, why, and until when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.rows import DictRow

from clew.checkpointing import text, view
from clew.checkpointing.postgres import Connection
from clew.checkpointing.sql import Queries

_queries = Queries("clew.checkpointing.queries")


@dataclass(frozen=True, slots=True)
class Pin:
    checkpoint_id: str
    actor: str | None
    reason: str | None
    pinned_at: datetime
    expires_at: datetime | None


async def pin(
    conn: Connection,
    thread_id: str,
    checkpoint_id: str | UUID,
    *,
    actor: str | None = None,
    reason: str | None = None,
    expires_at: datetime | None = None,
) -> Pin:
    """Keep a checkpoint that the session sees, and whatever its state needs.

    Pinned again, the new reason and expiry replace the old. Raises `UnknownCheckpoint`.
    """
    lines = await view.lines_of(conn, thread_id, every=True)
    await view.find(conn, lines, checkpoint_id)
    cursor = await conn.execute(
        _queries["pin"],
        {
            "thread_id": text.escape(thread_id),
            "checkpoint_id": view.uuid(checkpoint_id),
            "actor": _escape(actor),
            "reason": _escape(reason),
            "expires_at": expires_at,
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    return _pin(row)


async def unpin(conn: Connection, thread_id: str, checkpoint_id: str | UUID) -> bool:
    """Whether there was a pin to take away."""
    cursor = await conn.execute(
        _queries["unpin"],
        {"thread_id": text.escape(thread_id), "checkpoint_id": view.uuid(checkpoint_id)},
    )
    return cursor.rowcount > 0


async def list_(conn: Connection, thread_id: str) -> list[Pin]:
    """The pins that hold, oldest first."""
    cursor = await conn.execute(_queries["list_pins"], {"thread_id": text.escape(thread_id)})
    return [_pin(row) for row in await cursor.fetchall()]


def _pin(row: DictRow) -> Pin:
    return Pin(
        checkpoint_id=str(row["checkpoint_id"]),
        actor=_unescape(row["actor"]),
        reason=_unescape(row["reason"]),
        pinned_at=row["pinned_at"],
        expires_at=row["expires_at"],
    )


def _escape(value: str | None) -> str | None:
    return None if value is None else text.escape(value)


def _unescape(value: str | None) -> str | None:
    return None if value is None else text.unescape(value)
