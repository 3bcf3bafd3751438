"""Labels: names for checkpoints, each unique in its session, and what was saved with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.serde.base import SerializerProtocol
from psycopg.rows import DictRow

from clew.checkpointing import codec, encryption, lineage, manifest, text, view
from clew.checkpointing.encryption import Sealer
from clew.checkpointing.errors import LabelTaken, UnknownCheckpoint, UnknownLabel
from clew.checkpointing.postgres import Connection
from clew.checkpointing.sql import Queries

_queries = Queries("clew.checkpointing.queries")


@dataclass(frozen=True, slots=True)
class Label:
    name: str
    checkpoint_id: str
    actor: str | None
    labelled_at: datetime
    has_data: bool


async def label(
    conn: Connection,
    thread_id: str,
    checkpoint_id: str | UUID,
    name: str,
    *,
    move: bool = False,
    actor: str | None = None,
) -> Label:
    """Name a checkpoint that the session sees; retention keeps it.

    Raises `UnknownCheckpoint`, and `LabelTaken` where another one has the name, unless it is
    to `move` (what was saved under the name stays behind).
    """
    lines = await view.lines_of(conn, thread_id, every=True)
    await view.find(conn, lines, checkpoint_id)
    return await _label(conn, thread_id, view.uuid(checkpoint_id), name, None, move, actor)


async def unlabel(conn: Connection, thread_id: str, name: str) -> bool:
    """Whether there was such a label. What was saved with it goes too, the checkpoint stays."""
    cursor = await conn.execute(_queries["unlabel"], _key(thread_id, name))
    return cursor.rowcount > 0


async def list_(conn: Connection, thread_id: str) -> list[Label]:
    """Oldest first."""
    wanted = {"thread_id": text.escape(thread_id), "name": None}
    cursor = await conn.execute(_queries["list_labels"], wanted)
    return [_row(row) for row in await cursor.fetchall()]


async def get(conn: Connection, thread_id: str, name: str) -> Label:
    """Raises `UnknownLabel`."""
    cursor = await conn.execute(_queries["list_labels"], _key(thread_id, name))
    row = await cursor.fetchone()
    if row is None:
        raise _unknown(name)
    return _row(row)


async def save(
    conn: Connection,
    thread_id: str,
    name: str,
    *,
    data: Any = None,
    serde: SerializerProtocol,
    epoch: int | None = None,
    move: bool = False,
    actor: str | None = None,
    sealer: Sealer | None = None,
) -> Label:
    """Save a named checkpoint of the session as it is now, with data of the caller's own.

    A session at rest gets a new checkpoint with the same values, so that it can be restored even
    after the turn that follows was. Where a question is pending or a task has failed, the newest
    checkpoint itself is named: a new one would lose what is pending. Takes the session over as a
    writer does (`epoch` as in `lineage.claim`).
    """
    head = await lineage.claim(conn, thread_id, epoch=epoch)
    wanted: dict[str, Any] = {"lineage_id": head.lineage_id}
    cursor = await conn.execute(_queries["tip_of_lineage"], wanted)
    row = await cursor.fetchone()
    if row is None:
        raise UnknownCheckpoint(f"session {thread_id!r} has no checkpoint to save yet")
    checkpoint_id: UUID = row["checkpoint_id"]
    wanted["checkpoint_id"] = checkpoint_id
    cursor = await conn.execute(_queries["is_at_rest"], wanted)
    rest = await cursor.fetchone()
    if rest is not None and rest["at_rest"]:
        checkpoint_id = UUID(str(uuid6(clock_seq=(row["step"] or 0) + 1)))
        again = {**wanted, "new_id": checkpoint_id, "state": _undated(row)}
        await conn.execute(_queries["repeat_checkpoint"], again)
    body = None if data is None else codec.dump(serde, data)
    if body is not None and sealer is not None:
        body = sealer.seal(body, _place(thread_id, name))
    return await _label(conn, thread_id, checkpoint_id, name, body, move, actor)


async def data(
    conn: Connection,
    thread_id: str,
    name: str,
    *,
    serde: SerializerProtocol,
    sealers: Mapping[int, Sealer] | None = None,
) -> Any:
    """What was saved with a label; None if nothing was. Raises `UnknownLabel`."""
    cursor = await conn.execute(_queries["label_body"], _key(thread_id, name))
    row = await cursor.fetchone()
    if row is None:
        raise _unknown(name)
    if row["body"] is None:
        return None
    body = bytes(row["body"])
    if sealers is not None:
        body = encryption.open_body(sealers, body, _place(thread_id, name))
    return codec.load(serde, body)


async def _label(
    conn: Connection,
    thread_id: str,
    checkpoint_id: UUID,
    name: str,
    body: bytes | None,
    move: bool,
    actor: str | None,
) -> Label:
    wanted = {
        **_key(thread_id, name),
        "checkpoint_id": checkpoint_id,
        "body": body,
        "move": move,
        "actor": None if actor is None else text.escape(actor),
    }
    row = await (await conn.execute(_queries["label"], wanted)).fetchone()
    if row is None:
        raise LabelTaken(f"another checkpoint of the session is labelled {name!r}")
    return _row({**row, "has_data": row["body"] is not None})


def _undated(row: DictRow) -> bytes:
    """The state of a row, to be dated by the row that it is copied to."""
    layout = manifest.decode(row["state"], row["ranges"], 0)
    layout.ts = None
    return manifest.encode(layout)[0]


def _place(thread_id: str, name: str) -> bytes:
    """Where a sealed body belongs: moved to another label, it does not open."""
    return f"label{len(thread_id)}:{thread_id}{name}".encode(errors="surrogatepass")


def _key(thread_id: str, name: str) -> dict[str, Any]:
    return {"thread_id": text.escape(thread_id), "name": text.escape(name)}


def _unknown(name: str) -> UnknownLabel:
    return UnknownLabel(f"no checkpoint of the session is labelled {name!r}")


def _row(row: Mapping[str, Any]) -> Label:
    return Label(
        name=text.unescape(row["name"]),
        checkpoint_id=str(row["checkpoint_id"]),
        actor=None if row["actor"] is None else text.unescape(row["actor"]),
        labelled_at=row["labelled_at"],
        has_data=row["has_data"],
    )
