"""The state of a thread: read it at any checkpoint, page its history, change it."""

from typing import Annotated, Any, cast
from uuid import UUID

from fastapi import APIRouter, Query
from langgraph.types import StateUpdate as Update

from clew.api.auth import Caller, Who
from clew.api.deps import Clew, Parts, reach
from clew.api.reply import Reply
from clew.api.schema import Checkpoint, HistoryQuery, Json, StateQuery, StateUpdate
from clew.runtime import edits, errors, ids, states

routes = APIRouter(prefix="/threads/{thread_id}", tags=["threads"])


@routes.get("/state")
async def read(
    clew: Clew,
    who: Who,
    thread_id: UUID,
    select: Annotated[list[str] | None, Query()] = None,
    *,
    subgraphs: bool = False,
) -> Reply:
    state = await _state(clew, who, thread_id, None, subgraphs=subgraphs)
    return Reply(pick(state, select))


@routes.get("/state/{checkpoint_id}")
async def read_at(
    clew: Clew,
    who: Who,
    thread_id: UUID,
    checkpoint_id: UUID,
    select: Annotated[list[str] | None, Query()] = None,
    *,
    subgraphs: bool = False,
) -> Reply:
    at = Checkpoint(checkpoint_id=str(checkpoint_id))
    return Reply(pick(await _state(clew, who, thread_id, at, subgraphs=subgraphs), select))


@routes.post("/state/checkpoint")
async def read_checkpoint(clew: Clew, who: Who, thread_id: UUID, body: StateQuery) -> Reply:
    state = await _state(clew, who, thread_id, body.checkpoint, subgraphs=body.subgraphs)
    return Reply(pick(state, body.select), headers=body.notice())


async def _state(
    clew: Parts, who: Caller, thread_id: UUID, at: Checkpoint | None, *, subgraphs: bool
) -> Json:
    session = await reach(clew, who, thread_id)
    where = place(at)
    state = await states.of_session(
        clew.graphs, clew.saver, clew.store, session, checkpoint=where, subgraphs=subgraphs
    )
    if where and where.get("checkpoint_id") and state["checkpoint"] is None:
        # As the official server answers for a checkpoint that is not there.
        return {**state, "checkpoint": {"thread_id": str(thread_id), **where}}
    return state


@routes.post("/state")
async def update(clew: Clew, who: Who, thread_id: UUID, body: StateUpdate) -> Reply:
    session = await reach(clew, who, thread_id, "update")
    at = place(body.checkpoint) or {}
    if body.checkpoint_id:
        at["checkpoint_id"] = ids.check(body.checkpoint_id, "checkpoint")
    made = await edits.update(
        clew.db,
        who.principal,
        clew.graphs,
        clew.saver,
        clew.store,
        session,
        [[Update(body.values, body.as_node)]],
        checkpoint=at or None,
    )
    return Reply(
        {"checkpoint": made, "configurable": made, "checkpoint_id": made["checkpoint_id"]},
        headers=body.notice(),
    )


@routes.post("/history")
async def history(clew: Clew, who: Who, thread_id: UUID, body: HistoryQuery) -> Reply:
    found = await _history(
        clew,
        who,
        thread_id,
        at=place(body.checkpoint),
        limit=body.limit,
        before=before(body.before),
        metadata=body.metadata,
    )
    return Reply([pick(state, body.select) for state in found], headers=body.notice())


@routes.get("/history")
async def read_history(
    clew: Clew,
    who: Who,
    thread_id: UUID,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1,
    before_id: Annotated[str | None, Query(alias="before")] = None,
) -> Reply:
    return Reply(await _history(clew, who, thread_id, limit=limit, before=before(before_id)))


async def _history(
    clew: Parts,
    who: Caller,
    thread_id: UUID,
    *,
    limit: int,
    before: str | None,
    at: Json | None = None,
    metadata: Json | None = None,
) -> list[Json]:
    session = await reach(clew, who, thread_id)
    return await states.history_of(
        clew.graphs,
        clew.saver,
        clew.store,
        session,
        checkpoint=at,
        limit=limit,
        before=before,
        metadata=metadata,
    )


def place(at: Checkpoint | None) -> Json | None:
    if at is None:
        return None
    found = at.model_dump(exclude={"thread_id"}, exclude_none=True)
    if "checkpoint_id" in found:
        found["checkpoint_id"] = ids.check(found["checkpoint_id"], "checkpoint")
    return found or None


def before(given: Any) -> str | None:
    """A checkpoint id from any of the three shapes in which clients send it."""
    if isinstance(given, dict):
        shape = cast("Json", given)
        shape = cast("Json", shape.get("configurable", shape))
        given = shape.get("checkpoint_id")
        if given is None:
            raise errors.Invalid("before: names no checkpoint_id")
    if not given:
        return None
    return ids.check(str(given), "checkpoint")


def pick(state: Json, select: list[str] | None) -> Json:
    """Only these parts; `values.<key>` picks single values."""
    if not select:
        return state
    picked: Json = {}
    for name in select:
        head, _, key = name.partition(".")
        if head not in state:
            raise errors.Invalid(f"select: there is no {head!r} in a state")
        if not key:
            picked[head] = state[head]
        elif isinstance(state[head], dict) and key in state[head]:
            picked.setdefault(head, {})[key] = state[head][key]
    return picked
