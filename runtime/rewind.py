"""Moving a session through its own history: restore, undo, save, delete, clear.

Each is one transaction: the session's row is held, so that no run is in flight; the head moves;
the row and its questions become those of the new head; what was done is written down. While a run
is pending or running all of them are a `Conflict`.
"""

from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from clew.checkpointing import fences, lineage, metadata, retention, view
from clew.checkpointing import labels as marks
from clew.checkpointing.errors import NothingToUndo, UnknownCheckpoint, UnknownThread
from clew.checkpointing.fences import Fence
from clew.checkpointing.labels import Label
from clew.checkpointing.lineage import Head
from clew.checkpointing.postgres import Connection, Principal
from clew.checkpointing.retention import Pruned
from clew.runtime import runs, standing
from clew.runtime.documents import document
from clew.runtime.sessions import Filter, Session
from clew.runtime.sql import queries
from clew.runtime.standing import Ground, Standing, Why


@dataclass(frozen=True, slots=True)
class Moved:
    """A session after its head has moved. `head` is None where nothing ever ran."""

    session: Session
    head: Head | None
    standing: Standing


async def restore(
    ground: Ground,
    who: Principal,
    thread_id: str,
    checkpoint_id: str,
    why: Why,
    *,
    lineage_id: int | None = None,
    allowed: Filter | None = None,
) -> Moved:
    """Put the session back to a checkpoint, of its line or of one that it left before. What came
    after stays and can be returned to."""
    async with _held(ground, who, thread_id, allowed) as (conn, session):

        async def move(line: int | None) -> Head:
            return await lineage.restore(
                conn,
                thread_id,
                checkpoint_id,
                lineage_id=line,
                actor=why.actor,
                reason=why.reason,
            )

        try:
            head = await standing.located(conn, thread_id, checkpoint_id, lineage_id, move)
        except UnknownThread:
            raise UnknownCheckpoint(f"session {thread_id} has no checkpoint yet") from None
        return await _moved(conn, ground, session, head)


async def undo(
    ground: Ground,
    who: Principal,
    thread_id: str,
    why: Why,
    *,
    allowed: Filter | None = None,
) -> Moved:
    """Back to the line that the last restore left. Raises `NothingToUndo`."""
    async with _held(ground, who, thread_id, allowed) as (conn, session):
        try:
            head = await lineage.undo(conn, thread_id, actor=why.actor, reason=why.reason)
        except UnknownThread:
            raise NothingToUndo(f"session {thread_id} has no checkpoint yet") from None
        return await _moved(conn, ground, session, head)


async def save(
    ground: Ground,
    who: Principal,
    thread_id: str,
    name: str,
    data: Any,
    why: Why,
    *,
    move: bool = False,
    allowed: Filter | None = None,
) -> Label:
    """A named checkpoint of the session as it is now, with data of the caller's own."""
    async with _held(ground, who, thread_id, allowed) as (conn, session):
        try:
            head = await lineage.head(conn, thread_id)
        except UnknownThread:
            raise UnknownCheckpoint(f"session {thread_id} has no checkpoint to save yet") from None
        sealer = None
        if ground.vault is not None:
            sealer = await ground.vault.writer_in(conn, who, head.lineage_id)
        saved = await marks.save(
            conn,
            thread_id,
            name,
            data=data,
            serde=ground.saver.serde,
            move=move,
            actor=why.actor,
            sealer=sealer,
        )
        told = {"label": name, "checkpoint_id": saved.checkpoint_id}
        await note(conn, session, "save", why, told)
        return saved


async def saved(ground: Ground, who: Principal, thread_id: str, name: str) -> tuple[Label, Any]:
    """A label, and what was saved with it. Raises `UnknownLabel`."""
    async with ground.db.transaction(who) as conn:
        label = await marks.get(conn, thread_id, name)
        sealers = None
        if ground.vault is not None:
            lines = await view.lines_of(conn, thread_id, every=True)
            sealers = await ground.vault.sealers_in(conn, who, [line.lineage_id for line in lines])
        serde = ground.saver.serde
        return label, await marks.data(conn, thread_id, name, serde=serde, sealers=sealers)


async def delete(
    ground: Ground,
    who: Principal,
    thread_id: str,
    checkpoint_ids: Collection[str],
    why: Why,
    *,
    allowed: Filter | None = None,
) -> Pruned:
    """Delete single checkpoints; what followed them stays. Raises `CheckpointInUse`."""
    async with _held(ground, who, thread_id, allowed) as (conn, session):
        try:
            gone = await retention.delete(conn, thread_id, checkpoint_ids)
        except UnknownThread:
            raise UnknownCheckpoint(f"session {thread_id} has no checkpoint yet") from None
        await shrink(conn, session, gone.bytes)
        told = {"checkpoint_ids": [*checkpoint_ids], "bytes": gone.bytes}
        await note(conn, session, "delete_checkpoints", why, told)
        return gone


async def forget_run(
    ground: Ground,
    who: Principal,
    thread_id: str,
    run_id: str,
    why: Why,
    *,
    allowed: Filter | None = None,
) -> Session:
    """Delete a run that is over, what it streamed and the checkpoints that it wrote; the session is
    then as the newest that is left has it. What forks see of them stays with these."""
    async with _held(ground, who, thread_id, allowed) as (conn, session):
        await runs.delete(standing.Within(ground.db, conn), who, thread_id, run_id)
        try:
            head = await lineage.claim(conn, thread_id)
        except UnknownThread:
            return session  # it wrote nothing
        doomed = [metadata.run_column(run_id)]
        await fences.delete_runs(conn, Fence(thread_id, head.epoch), doomed)
        moved = await _moved(conn, ground, session, head)
        await note(conn, session, "delete_run", why, {"run_id": run_id})
        return moved.session


async def clear(
    ground: Ground,
    who: Principal,
    thread_id: str,
    why: Why,
    *,
    allowed: Filter | None = None,
) -> Session:
    """Delete every checkpoint on every line, with all marks; the session stays, and begins anew."""
    async with _held(ground, who, thread_id, allowed) as (conn, session):
        try:
            await retention.clear(conn, thread_id, actor=why.actor, reason=why.reason)
        except UnknownThread:
            return session  # nothing ever ran, so nothing is there
        await standing.settle(conn, session, Standing(message_count=0), counts=False)
        await shrink(conn, session, 0, empty=True)
        return await standing.look(conn, thread_id)


async def note(
    conn: Connection, session: Session, move: str, why: Why, told: dict[str, Any]
) -> None:
    """A line of the audit log about what moves no head."""
    detail = {**told, **({"reason": why.reason} if why.reason else {})}
    await conn.execute(
        queries["note_audit"],
        {
            "owner_id": session.owner_id,
            "thread_id": session.thread_id,
            "actor": why.actor,
            "move": move,
            "from_state": session.state,
            "to_state": session.state,
            "detail": document("detail", detail, scrubbed=False),
        },
    )


async def shrink(conn: Connection, session: Session, removed: int, *, empty: bool = False) -> None:
    values = {"thread_id": session.thread_id, "bytes": removed, "empty": empty}
    await conn.execute(queries["shrink_session"], values)


@asynccontextmanager
async def _held(
    ground: Ground, who: Principal, thread_id: str, allowed: Filter | None
) -> AsyncGenerator[tuple[Connection, Session]]:
    async with ground.db.transaction(who) as conn:
        yield conn, await standing.hold(conn, thread_id, allowed)


async def _moved(conn: Connection, ground: Ground, session: Session, head: Head) -> Moved:
    now = await standing.read(conn, ground, session)
    await standing.settle(conn, session, now)
    return Moved(await standing.look(conn, session.thread_id), head, now)
