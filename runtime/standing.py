"""How a session stands at its head: what comes next, what it waits for, what went wrong there.

The graph decides. Whoever moves a head or edits a state from outside a run settles the session's
row and its questions here, in the transaction that moved it, so that neither is seen without the
other.
"""

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from langchain_core.messages import BaseMessage
from langgraph.graph.state import CompiledStateGraph
from langgraph.pregel import Pregel
from langgraph.store.base import BaseStore
from langgraph.types import StateSnapshot

from clew.checkpointing import diff, jsonable, view
from clew.checkpointing.errors import UnknownCheckpoint, UnknownThread
from clew.checkpointing.keys import Vault
from clew.checkpointing.lineage import Head
from clew.checkpointing.manifest import Kind
from clew.checkpointing.postgres import Connection, Database, Principal
from clew.checkpointing.reading import Reader, Spot
from clew.checkpointing.saver import Saver
from clew.checkpointing.sealed import SealedJson
from clew.runtime import errors, interrupts, sessions, states, wire
from clew.runtime.graphs import Graphs
from clew.runtime.questions import Question
from clew.runtime.sessions import Filter, Session
from clew.runtime.sql import queries

Json = dict[str, Any]

_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")


@dataclass(frozen=True, slots=True)
class Ground:
    """The parts that moving through a session's history needs."""

    db: Database
    graphs: Graphs
    saver: Saver
    store: BaseStore | None = None

    @property
    def vault(self) -> Vault | None:
        return self.saver.vault


@dataclass(frozen=True, slots=True)
class Why:
    """For the audit log."""

    actor: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    status: Literal["idle", "interrupted", "error"] = "idle"
    next: list[str] = field(default_factory=list[str])
    interrupts: Json = field(default_factory=dict[str, Any])  # by task, as a thread shows them
    questions: Sequence[Question] = ()
    error: Json | None = None
    checkpoint_id: str | None = None
    message_count: int | None = None  # None: not known without reading them all
    texts: Sequence[str] = ()  # what was said, where it was read anyway


class Within(Database):
    """A database whose every statement is part of one transaction that is under way, and under
    its principal."""

    def __init__(self, db: Database, conn: Connection) -> None:
        super().__init__(db.pool, drop_role=db.drops_role)
        self._conn = conn

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        yield self._conn

    @asynccontextmanager
    async def work(self, who: Principal) -> AsyncGenerator[Connection]:
        yield self._conn

    @asynccontextmanager
    async def transaction(self, who: Principal) -> AsyncGenerator[Connection]:
        async with self._conn.transaction():
            yield self._conn


async def hold(
    conn: Connection, thread_id: str, allowed: Filter | None = None, *, archived: bool = False
) -> Session:
    """Have the session's row to oneself until the transaction ends: no run is in flight, and none
    begins. Raises `Conflict` where one is, or where the session is archived, unless that is no
    matter."""
    await conn.execute(queries["hold_session"], {"thread_id": thread_id})
    session, in_flight = await _held(conn, thread_id, allowed)
    if session.state == "archived" and not archived:
        raise errors.Conflict(
            f"a session that is {session.state} cannot be changed",
            state=session.state,
            to="active",
        )
    if in_flight:
        raise busy()
    return session


async def look(conn: Connection, thread_id: str, allowed: Filter | None = None) -> Session:
    """The session as it is now, inside a transaction, for reading."""
    session, _ = await _held(conn, thread_id, allowed)
    return session


def busy() -> errors.Conflict:
    return errors.Conflict(
        "Thread is already running a task. Wait for it to finish before changing its state."
    )


async def read(
    conn: Connection, ground: Ground, session: Session, *, full: bool = False
) -> Standing:
    """How the session stands at its head, as this transaction sees it.

    Where nothing comes next no value is loaded, however much the session holds; `full` reads it
    all the same, for its texts.
    """
    known = session.graph_id is not None and session.graph_id in ground.graphs.ids()
    at = states.config(session.thread_id)
    if not known or session.graph_id is None:
        return await _stored(conn, ground, session)
    async with ground.graphs.open(
        session.graph_id,
        config=at,
        checkpointer=reading(conn, ground, session),
        store=ground.store,
        access_context="threads.read",
    ) as graph:
        if not full and isinstance(graph, CompiledStateGraph):
            # A compiled graph's channels tell what comes next; others may name theirs as they like.
            stored = await _stored(conn, ground, session)
            if not stored.next:
                return stored
        return of(await graph.aget_state(at, subgraphs=True))


def reading(conn: Connection, ground: Ground, session: Session) -> Saver:
    """A saver that reads the session as the transaction sees it."""
    bound = ground.saver.bind(
        principal=Principal.owner(session.owner_id), owner_id=session.owner_id
    )
    bound.db = Within(ground.db, conn)
    return bound


async def located(
    conn: Connection,
    thread_id: str,
    checkpoint_id: str | None,
    lineage_id: int | None,
    move: Callable[[int | None], Awaitable[Head]],
) -> Head:
    """Make a move from a checkpoint, on the session's line or else on whichever line that it left
    has it. `lineage_id` names one, and then no other is tried."""
    try:
        return await move(lineage_id)
    except UnknownCheckpoint:
        if checkpoint_id is None or lineage_id is not None:
            raise
    lines = await view.lines_of(conn, thread_id, every=True)
    where = await view.find(conn, lines, checkpoint_id)
    if not any(line.own and line.lineage_id == where["lineage_id"] for line in lines):
        raise UnknownCheckpoint(f"session {thread_id} has no checkpoint {checkpoint_id}")
    return await move(where["lineage_id"])


async def after_edit(
    db: Database, who: Principal, graph: Pregel[Any, Any, Any, Any], session: Session
) -> None:
    """Settle a session whose state was edited through a graph that is open."""
    snapshot = await graph.aget_state(states.config(session.thread_id), subgraphs=True)
    async with db.transaction(who) as conn:
        await conn.execute(queries["hold_session"], {"thread_id": session.thread_id})
        await settle(conn, session, of(snapshot))


async def settle(
    conn: Connection,
    session: Session,
    standing: Standing,
    *,
    counts: bool = True,
    new: bool = False,
) -> None:
    """Make the session's row and its questions those of its head. One that is `new` in this
    transaction has no runs yet, and waits for nothing."""
    key = {"thread_id": session.thread_id}
    in_flight = False
    if not new:
        row = await (await conn.execute(queries["is_session_quiet"], key)).fetchone()
        in_flight = row is not None and not row["quiet"]
    await conn.execute(
        queries["settle_session"],
        {
            **key,
            "status": standing.status,
            "interrupts": _json(standing.interrupts),
            "error": _json(standing.error) if standing.error else None,
            "graph_id": session.graph_id,
            "message_count": standing.message_count,
            "in_flight": in_flight,
            "counts": int(counts),
        },
    )
    if not in_flight and (standing.questions or not new):
        await interrupts.replace(conn, session.thread_id, session.owner_id, standing.questions)


def of(snapshot: StateSnapshot) -> Standing:
    """From the graph's own view of its head."""
    failed = next((task.error for task in snapshot.tasks if task.error), None)
    places = dict(_places(snapshot))
    held = snapshot.values.get("messages") if isinstance(snapshot.values, dict) else None
    messages = cast("list[Any]", held) if isinstance(held, list) else None
    return Standing(
        status="error" if failed else "interrupted" if snapshot.next else "idle",
        next=list(snapshot.next),
        interrupts={
            task.id: [wire.interrupt(item) for item in task.interrupts]
            for task in snapshot.tasks
            if task.interrupts
        },
        questions=[
            Question.of(
                item.id,
                places.get(item.id, ()),
                item.value,
                getattr(item, "response_schema", None),
            )
            for item in snapshot.interrupts
        ],
        error=_problem(failed) if failed else None,
        checkpoint_id=snapshot.config.get("configurable", {}).get("checkpoint_id"),
        message_count=None if messages is None else len(messages),
        texts=[item.text for item in messages or () if isinstance(item, BaseMessage)],
    )


async def _held(conn: Connection, thread_id: str, allowed: Filter | None) -> tuple[Session, bool]:
    values = {"thread_id": thread_id, "allowed": sessions.demand(allowed)}
    row = await (await conn.execute(queries["held_session"], values)).fetchone()
    if row is None or row["state"] == "deleted":
        raise sessions.missing(thread_id)
    if row["state"] == "expired":
        raise errors.Gone(f"Thread with ID {thread_id} has expired", state="expired")
    return Session.of(row), row["in_flight"]


async def reader(conn: Connection, ground: Ground, session: Session) -> Reader:
    """Reads the session without its graph. Raises `UnknownThread` where nothing ever ran."""
    unseal = None
    if ground.vault is not None:
        owner = Principal.owner(session.owner_id)
        unseal = await ground.vault.unsealer(conn, owner, session.thread_id)
    return await Reader.of(conn, session.thread_id, unseal=unseal)


async def _stored(conn: Connection, ground: Ground, session: Session) -> Standing:
    """What the stored channels alone tell: enough for a session at rest, and the best there is for
    one whose graph is not registered here."""
    try:
        stored = await reader(conn, ground, session)
    except UnknownThread:  # nothing has run yet
        return Standing(message_count=0)
    spot = await stored.spot()
    if spot is None:
        return Standing(message_count=0)
    following = await diff.next_of(stored, spot)
    asked = [jsonable.render(item) for item in await stored.interrupts(spot)] if following else []
    return Standing(
        status="interrupted" if following else "idle",
        next=following,
        interrupts={item["id"]: [item] for item in asked},
        questions=[Question.of(item["id"], (), item["value"], None) for item in asked],
        checkpoint_id=spot.checkpoint_id,
        message_count=await _length(stored, spot),
    )


async def _length(stored: Reader, spot: Spot) -> int | None:
    """How many messages there are. Those of a long list are not read for that."""
    place = spot.layout.places.get("messages")
    if place is None or place.kind == Kind.LIST:
        return place and place.size
    held = (await stored.values(spot, ["messages"])).get("messages")
    return len(cast("list[Any]", held)) if isinstance(held, list) else None


def _places(snapshot: StateSnapshot) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Interrupts and the namespace that each was raised in, the innermost last."""
    ns: str = snapshot.config.get("configurable", {}).get("checkpoint_ns") or ""
    for task in snapshot.tasks:
        for item in task.interrupts:
            yield item.id, tuple(ns.split("|")) if ns else ()
        if isinstance(task.state, StateSnapshot):
            yield from _places(task.state)


def _problem(failed: object) -> Json:
    """A task's error is kept as `repr`: its class and what it said, for most of them. What others
    begin with may be what a user said, and only the message is sealed."""
    told = failed if isinstance(failed, str) else repr(failed)
    kind, opened, _ = told.partition("(")
    return {"error": kind if opened and kind.isidentifier() else "Error", "message": told}


def _json(value: Any) -> SealedJson:
    """A parameter that a row can hold, whatever a graph put into it: jsonb has no NUL."""
    written = _NUL.sub(rb"\1\\ufffd", wire.encode(value)).decode()
    return SealedJson(None, dumps=lambda _: written)
