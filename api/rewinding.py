"""Rewinding a session: restore, undo, fork; and what tells where to: diff and bisect."""

from dataclasses import asdict
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field, model_validator

from clew.api import access, predicates
from clew.api import session_schema as show
from clew.api.auth import Caller, Who, named
from clew.api.checkpoints import Label, Reason, ground
from clew.api.deps import Clew, Parts, reach
from clew.api.reply import Reply
from clew.api.session_schema import Json, Strict
from clew.checkpointing import labels
from clew.checkpointing.diff import Ref
from clew.runtime import errors, forks, moments, rewind
from clew.runtime.limits import Limit
from clew.runtime.rewind import Moved
from clew.runtime.sessions import Fields
from clew.runtime.standing import Why

routes = APIRouter(prefix="/sessions/{thread_id}", tags=["rewind"])

Line = Annotated[int | None, Field(ge=1, lt=2**63)]


class Where(Strict):
    """A checkpoint by its id, or by a label; `line` is for one that is on several lines."""

    checkpoint_id: UUID | None = None
    label: Label | None = None
    line: Line = None
    reason: Reason = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if self.checkpoint_id is not None and self.label is not None:
            raise errors.Invalid("label: names a checkpoint as checkpoint_id does, give one")
        return self


class Restore(Where):
    @model_validator(mode="after")
    def _is_named(self) -> Self:
        if self.checkpoint_id is None and self.label is None:
            raise errors.Invalid("checkpoint_id: it or a label must say where to")
        return self


class Undo(Strict):
    reason: Reason = None


class Fork(Where):
    thread_id: UUID | None = None
    scope: Literal["path", "all"] = "path"
    title: str | None = None
    tags: list[str] | None = None
    metadata: Json | None = None
    owner: str | None = None


class Between(Strict):
    """`a` and `b` are checkpoints, each the newest by default; `with` is the session of `b`."""

    a: UUID | None = None
    b: UUID | None = None
    with_: UUID | None = Field(None, alias="with")
    a_line: Line = None
    b_line: Line = None


class Bisect(Strict):
    where: Any
    tip: UUID | None = None
    since: UUID | None = None


@routes.post("/restore")
async def restore(clew: Clew, who: Who, thread_id: UUID, body: Restore) -> Reply:
    """Put the session back to a checkpoint; nothing is deleted."""
    await reach(clew, who, thread_id, "update")
    checkpoint_id = await _named(clew, who, thread_id, body)
    assert checkpoint_id is not None
    moved = await rewind.restore(
        ground(clew),
        who.principal,
        str(thread_id),
        checkpoint_id,
        Why(who.actor, body.reason),
        lineage_id=body.line,
    )
    return _reply(moved)


@routes.post("/undo")
async def undo(clew: Clew, who: Who, thread_id: UUID, body: Undo | None = None) -> Reply:
    """Go back to the line that the last restore left."""
    await reach(clew, who, thread_id, "update")
    why = Why(who.actor, body.reason if body else None)
    return _reply(await rewind.undo(ground(clew), who.principal, str(thread_id), why))


@routes.post("/fork", status_code=201)
async def fork(clew: Clew, who: Who, thread_id: UUID, body: Fork | None = None) -> Reply:
    """Begin another session at a checkpoint of this one, copying nothing; of a session that
    somebody shares with the caller, or for another owner, a deep copy of what led there.
    """
    body = body or Fork()
    found = await access.open_(clew, who, thread_id)
    owner_id = found.session.owner_id
    if found.share is not None:
        if body.owner is not None or body.label is not None or body.line is not None:
            raise errors.Forbidden("of a shared session only what is shared can be continued")
        if body.checkpoint_id is not None and str(body.checkpoint_id) != found.checkpoint_id:
            raise errors.Forbidden("of a shared session only what is shared can be continued")
        owner_id = who.owner_id
    elif body.owner is not None:
        who.require("admin", "service")
        owner_id = await _owner(clew, who, body.owner)
    value: Json = {
        "thread_id": body.thread_id,
        "metadata": dict(body.metadata or {}),
        "if_exists": "raise",
    }
    await who.authorize("threads", "create", value)
    given: Fields = {"metadata": value["metadata"]}
    if body.title is not None:
        given["title"] = body.title
    if body.tags is not None:
        given["tags"] = body.tags
    checkpoint_id = found.checkpoint_id or await _named(clew, who, thread_id, body)
    target_id = None if body.thread_id is None else str(body.thread_id)
    why, limit = Why(who.actor, body.reason), Limit.of(clew.settings)
    if owner_id != found.session.owner_id:
        moved = await forks.copy_to(
            ground(clew),
            found.principal,
            str(thread_id),
            owner_id,
            why,
            checkpoint_id=checkpoint_id,
            lineage_id=body.line,
            target_id=target_id,
            limit=limit,
            allowed=found.allowed,
            **given,
        )
    else:
        moved = await forks.fork(
            ground(clew),
            found.principal,
            str(thread_id),
            why,
            checkpoint_id=checkpoint_id,
            lineage_id=body.line,
            scope=body.scope,
            target_id=target_id,
            limit=limit,
            allowed=found.allowed,
            **given,
        )
    return _reply(moved, 201)


@routes.get("/diff")
async def diff(
    clew: Clew, who: Who, thread_id: UUID, between: Annotated[Between, Query()]
) -> Reply:
    """How to get from one checkpoint to another, of this session or of two."""
    await reach(clew, who, thread_id)
    other = between.with_ or thread_id
    if other != thread_id:
        await reach(clew, who, other)
    a = Ref(str(thread_id), between.a and str(between.a), between.a_line)
    b = Ref(str(other), between.b and str(between.b), between.b_line)
    return Reply(await moments.compare(ground(clew), who.principal, a, b))


@routes.post("/bisect")
async def bisect(clew: Clew, who: Who, thread_id: UUID, body: Bisect) -> Reply:
    """The first checkpoint at which a condition holds, found in a few loads."""
    await reach(clew, who, thread_id)
    found = await moments.began(
        ground(clew),
        who.principal,
        str(thread_id),
        predicates.compile_(body.where),
        tip=body.tip and str(body.tip),
        since=body.since and str(body.since),
    )
    return Reply(asdict(found))


def shown(moved: Moved) -> Json:
    """A session after its head has moved: where it is, and what it waits for."""
    return {
        **show.session(moved.session),
        "next": moved.standing.next,
        "checkpoint_id": moved.standing.checkpoint_id,
        "line": moved.head and moved.head.lineage_id,
    }


def _reply(moved: Moved, status: int = 200) -> Reply:
    return Reply(shown(moved), status, show.etag(moved.session))


async def _named(clew: Parts, who: Caller, thread_id: UUID, where: Where) -> str | None:
    if where.label is None:
        return where.checkpoint_id and str(where.checkpoint_id)
    async with clew.db.transaction(who.principal) as conn:
        return (await labels.get(conn, str(thread_id), where.label)).checkpoint_id


async def _owner(clew: Parts, who: Caller, wanted: str) -> int:
    """As `x-clew-owner` names one: of the caller's tenant, or for the service of any."""
    tenant, owner = who.tenant, wanted
    if who.role == "service" and "/" in wanted:
        tenant, _, owner = wanted.partition("/")
    return await clew.db.owner(named(tenant), named(owner))
