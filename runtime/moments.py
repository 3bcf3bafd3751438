"""A session as it was when one of its checkpoints was the newest: its state then, when something
began to hold, and what differs between two of them.

A checkpoint by itself does not tell: answers and work of later runs lie beside it. So it is forked,
as the graph would find it there, looked at, and the fork is taken back before anybody saw it.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from pydantic_core import from_json

from clew.checkpointing import bisect, diff, lineage, view
from clew.checkpointing.bisect import Found, Predicate
from clew.checkpointing.diff import Ref
from clew.checkpointing.errors import UnknownCheckpoint, UnknownThread
from clew.checkpointing.lineage import Head
from clew.checkpointing.postgres import Connection, Principal
from clew.runtime import ids, standing, states, wire
from clew.runtime.sessions import Filter, Json, Session
from clew.runtime.standing import Ground


async def state(
    ground: Ground,
    who: Principal,
    thread_id: str,
    checkpoint_id: str,
    *,
    lineage_id: int | None = None,
    allowed: Filter | None = None,
) -> Json:
    """The state as the protocol shows it, plain JSON. Raises `UnknownCheckpoint`."""
    async with ground.db.transaction(who) as conn:
        session = await standing.look(conn, thread_id, allowed)
        return await _state(conn, ground, session, checkpoint_id, lineage_id)


async def began(
    ground: Ground,
    who: Principal,
    thread_id: str,
    holds: Predicate,
    *,
    tip: str | None = None,
    since: str | None = None,
    allowed: Filter | None = None,
) -> Found:
    """The first checkpoint whose state `holds`, on the path to the head or to `tip`."""
    async with ground.db.transaction(who) as conn:
        session = await standing.look(conn, thread_id, allowed)
        try:
            lines = await view.lines_of(conn, thread_id, every=True)
        except UnknownThread:
            return Found(None, None, None, 0, 0)
        line = await _line(conn, lines, tip) if tip is not None else None
        if since is not None:
            await view.find(conn, lines, since)

        async def load(checkpoint_id: str) -> Json:
            return await _state(conn, ground, session, checkpoint_id, line)

        return await bisect.find(conn, thread_id, holds, tip=tip, since=since, load=load)


async def compare(ground: Ground, who: Principal, a: Ref, b: Ref) -> Json:
    """How to get from one checkpoint to another, of one session or of two."""
    async with ground.db.transaction(who) as conn:
        try:
            unseal = None
            if ground.vault is not None:
                unseal = await ground.vault.unsealer(conn, who, a.thread_id, b.thread_id)
            return await diff.compare(conn, a, b, unseal=unseal)
        except UnknownThread as error:
            raise UnknownCheckpoint("a session has no checkpoint yet") from error


async def _state(
    conn: Connection,
    ground: Ground,
    session: Session,
    checkpoint_id: str,
    lineage_id: int | None,
) -> Json:
    async with _scratch(conn, session, checkpoint_id, lineage_id) as scratch:
        if scratch.graph_id is None or scratch.graph_id not in ground.graphs.ids():
            found = await _stored(conn, ground, scratch)
        else:
            at = states.config(scratch.thread_id)
            async with ground.graphs.open(
                scratch.graph_id,
                config=at,
                checkpointer=standing.reading(conn, ground, scratch),
                store=ground.store,
                access_context="threads.read",
            ) as graph:
                found = states.shown(await graph.aget_state(at, subgraphs=True))
        # The fork's id is nowhere else: it was made for this.
        written = wire.encode(found).replace(scratch.thread_id.encode(), session.thread_id.encode())
        return from_json(written)


async def _stored(conn: Connection, ground: Ground, session: Session) -> Json:
    """Of a graph that is not registered here, as far as the stored channels tell."""
    reader = await standing.reader(conn, ground, session)
    spot = await reader.spot()
    assert spot is not None
    values = await reader.values(spot)
    shown = {
        channel: value
        for channel, value in values.items()
        if not channel.startswith(("__", "branch:", "join:"))
    }
    place: dict[str, Any] = {
        "thread_id": session.thread_id,
        "checkpoint_ns": "",
        "checkpoint_id": spot.checkpoint_id,
    }
    parent = None if spot.parent_id is None else {**place, "checkpoint_id": spot.parent_id}
    return {
        **states.EMPTY,
        "values": shown,
        "next": await diff.next_of(reader, spot),
        "metadata": spot.metadata,
        "created_at": spot.created_at,
        "checkpoint": place,
        "parent_checkpoint": parent,
        "interrupts": list(await reader.interrupts(spot)),
        "checkpoint_id": spot.checkpoint_id,
        "parent_checkpoint_id": spot.parent_id,
    }


@asynccontextmanager
async def _scratch(
    conn: Connection, session: Session, checkpoint_id: str, lineage_id: int | None
) -> AsyncGenerator[Session]:
    scratch_id = ids.mint()
    async with conn.transaction(force_rollback=True):

        async def move(line: int | None) -> Head:
            return await lineage.fork(
                conn,
                session.thread_id,
                scratch_id,
                checkpoint_id=checkpoint_id,
                lineage_id=line,
            )

        try:
            await standing.located(conn, session.thread_id, checkpoint_id, lineage_id, move)
        except UnknownThread as error:
            raise UnknownCheckpoint(
                f"session {session.thread_id} has no checkpoint {checkpoint_id}"
            ) from error
        yield replace(session, thread_id=scratch_id)


async def _line(conn: Connection, lines: list[view.Line], tip: str) -> int | None:
    """The session's own line that a checkpoint is on; None where it is an ancestor's."""
    where = await view.find(conn, lines, tip)
    own = {line.lineage_id for line in lines if line.own}
    return where["lineage_id"] if where["lineage_id"] in own else None
