"""A session's checkpoints: list, tree, one of them with the state of its moment; pins, labels,
saving by name; deleting one or all.
"""

from dataclasses import asdict
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import Field
from pydantic_core import from_json

from clew.api import access
from clew.api.access import Access
from clew.api.auth import Who
from clew.api.deps import Clew, Parts, reach
from clew.api.reply import Reply
from clew.api.schema import ZonedMoment
from clew.api.session_schema import Json, Strict
from clew.checkpointing import history, labels, pins
from clew.checkpointing.errors import UnknownCheckpoint, UnknownLabel, UnknownThread
from clew.checkpointing.history import Entry
from clew.checkpointing.postgres import Principal
from clew.runtime import errors, moments, rewind
from clew.runtime.standing import Ground, Why

routes = APIRouter(prefix="/sessions/{thread_id}", tags=["checkpoints"])

Reason = Annotated[str | None, Field(max_length=2000)]
Label = Annotated[str, Field(min_length=1, max_length=200)]


class Page(Strict):
    scope: Literal["path", "line", "all"] = "line"
    ns: str = Field("", max_length=2000)
    tip: UUID | None = None
    before: UUID | None = None
    limit: int = Field(20, ge=1, le=1000)
    run_id: UUID | None = None
    source: Literal["input", "loop", "update", "fork"] | None = None
    step: int | None = Field(None, ge=-1, le=2**31 - 1)
    metadata: str | None = Field(None, max_length=10_000)  # a JSON object


class TreePage(Strict):
    before: UUID | None = None
    limit: int = Field(1000, ge=1, le=10_000)


class At(Strict):
    line: int | None = Field(None, ge=1, lt=2**63)
    state: bool = True


class Save(Strict):
    label: Label
    data: Any = None
    move: bool = False
    reason: Reason = None


class Pinned(Strict):
    reason: Reason = None
    expires_at: ZonedMoment | None = None


class Labelled(Strict):
    checkpoint_id: UUID
    move: bool = False


def ground(clew: Parts) -> Ground:
    return Ground(clew.db, clew.graphs, clew.saver, clew.store)


@routes.get("/checkpoints")
async def list_(clew: Clew, who: Who, thread_id: UUID, page: Annotated[Page, Query()]) -> Reply:
    """The session's checkpoints, newest first; of one that is shared, what the share shows."""
    found = await access.open_(clew, who, thread_id)
    if found.share is not None and page.scope == "all":
        raise errors.Forbidden("this share shows the session's own line")
    if found.checkpoint_id is not None:
        async with clew.db.transaction(found.principal) as conn:
            entry = await history.get(conn, str(thread_id), found.checkpoint_id)
        return Reply({"checkpoints": [asdict(entry)], "before": None})
    where = history.Filter(
        metadata=_object(page.metadata),
        run_id=page.run_id and str(page.run_id),
        source=page.source,
        step=page.step,
    )
    async with clew.db.transaction(found.principal) as conn:
        try:
            entries = await history.list_(
                conn,
                str(thread_id),
                scope=page.scope,
                ns=page.ns,
                tip=page.tip,
                before=page.before,
                limit=page.limit + 1,
                where=where,
            )
        except UnknownThread:
            entries: list[Entry] = []  # nothing ever ran
    shown = entries[: page.limit]
    more = len(entries) > page.limit
    return Reply(
        {
            "checkpoints": [asdict(entry) for entry in shown],
            "before": shown[-1].checkpoint_id if more else None,
        }
    )


@routes.get("/checkpoints/tree")
async def tree(clew: Clew, who: Who, thread_id: UUID, page: Annotated[TreePage, Query()]) -> Reply:
    """All lines of the session, those that restores left included, and what is on them."""
    await reach(clew, who, thread_id)
    async with clew.db.transaction(who.principal) as conn:
        try:
            found = await history.tree(
                conn, str(thread_id), before=page.before, limit=page.limit + 1
            )
        except UnknownThread:
            found = history.Tree([], [])
    shown = found.entries[: page.limit]
    more = len(found.entries) > page.limit
    return Reply(
        {
            "branches": [
                {
                    **asdict(branch.line),
                    "tip": branch.tip,
                    "checkpoints": branch.checkpoints,
                    "actor": branch.actor,
                    "reason": branch.reason,
                }
                for branch in found.branches
            ],
            "checkpoints": [asdict(entry) for entry in shown],
            "before": shown[-1].checkpoint_id if more else None,
        }
    )


@routes.get("/checkpoints/latest")
async def latest(clew: Clew, who: Who, thread_id: UUID, at: Annotated[At, Query()]) -> Reply:
    """The newest checkpoint, with its state; or the one that a share is pinned to."""
    found = await access.open_(clew, who, thread_id)
    _within(found, at)
    async with clew.db.transaction(found.principal) as conn:
        try:
            entry = (
                await history.latest(conn, str(thread_id))
                if found.checkpoint_id is None
                else await history.get(conn, str(thread_id), found.checkpoint_id)
            )
        except UnknownThread:
            entry = None
    if entry is None:
        raise UnknownCheckpoint(f"session {thread_id} has no checkpoint yet")
    return await _shown(clew, found.principal, str(thread_id), entry, at)


@routes.get("/checkpoints/{checkpoint_id}")
async def get(
    clew: Clew, who: Who, thread_id: UUID, checkpoint_id: UUID, at: Annotated[At, Query()]
) -> Reply:
    """One checkpoint, with the state as it was when this was the newest."""
    found = await access.open_(clew, who, thread_id)
    _within(found, at, str(checkpoint_id))
    async with clew.db.transaction(found.principal) as conn:
        try:
            entry = await history.get(conn, str(thread_id), checkpoint_id, lineage_id=at.line)
        except UnknownThread:
            raise UnknownCheckpoint(f"session {thread_id} has no checkpoint yet") from None
    return await _shown(clew, found.principal, str(thread_id), entry, at)


def _within(found: Access, at: At, checkpoint_id: str | None = None) -> None:
    """A share shows the session's own line, and one that is pinned a single checkpoint of it."""
    if found.share is None:
        return
    if at.line is not None:
        raise errors.Forbidden("this share shows the session's own line")
    if found.checkpoint_id is not None and checkpoint_id not in (None, found.checkpoint_id):
        raise errors.Forbidden("this share shows the session as it was at one checkpoint")


async def _shown(clew: Parts, who: Principal, thread_id: str, entry: Entry, at: At) -> Reply:
    shown: Json = asdict(entry)
    if at.state:
        shown["state"] = await moments.state(
            ground(clew), who, thread_id, entry.checkpoint_id, lineage_id=at.line
        )
    return Reply(shown)


@routes.post("/checkpoints", status_code=201)
async def save(clew: Clew, who: Who, thread_id: UUID, body: Save) -> Reply:
    """Save the session as it is now under a name, with data of the caller's own."""
    await reach(clew, who, thread_id, "update")
    saved = await rewind.save(
        ground(clew),
        who.principal,
        str(thread_id),
        body.label,
        body.data,
        Why(who.actor, body.reason),
        move=body.move,
    )
    return Reply(asdict(saved), 201)


@routes.delete("/checkpoints/{checkpoint_id}")
async def delete(clew: Clew, who: Who, thread_id: UUID, checkpoint_id: UUID) -> Reply:
    """Delete one checkpoint; what followed it stays."""
    await reach(clew, who, thread_id, "delete")
    gone = await rewind.delete(
        ground(clew), who.principal, str(thread_id), [str(checkpoint_id)], Why(who.actor)
    )
    return Reply(asdict(gone))


@routes.delete("/checkpoints", status_code=204)
async def clear(clew: Clew, who: Who, thread_id: UUID) -> Response:
    """Delete every checkpoint on every line; the session stays and begins anew."""
    await reach(clew, who, thread_id, "delete")
    await rewind.clear(ground(clew), who.principal, str(thread_id), Why(who.actor))
    return Response(status_code=204)


@routes.get("/pins")
async def list_pins(clew: Clew, who: Who, thread_id: UUID) -> Reply:
    """What is pinned, oldest first."""
    await reach(clew, who, thread_id)
    async with clew.db.transaction(who.principal) as conn:
        return Reply({"pins": [asdict(pin) for pin in await pins.list_(conn, str(thread_id))]})


@routes.put("/checkpoints/{checkpoint_id}/pin")
async def pin(
    clew: Clew, who: Who, thread_id: UUID, checkpoint_id: UUID, body: Pinned | None = None
) -> Reply:
    """Keep a checkpoint whatever retention says."""
    await reach(clew, who, thread_id, "update")
    body = body or Pinned()
    async with clew.db.transaction(who.principal) as conn:
        try:
            made = await pins.pin(
                conn,
                str(thread_id),
                checkpoint_id,
                actor=who.actor,
                reason=body.reason,
                expires_at=body.expires_at,
            )
        except UnknownThread:
            raise UnknownCheckpoint(f"session {thread_id} has no checkpoint yet") from None
    return Reply(asdict(made))


@routes.delete("/checkpoints/{checkpoint_id}/pin", status_code=204)
async def unpin(clew: Clew, who: Who, thread_id: UUID, checkpoint_id: UUID) -> Response:
    """Let retention decide again."""
    await reach(clew, who, thread_id, "update")
    async with clew.db.transaction(who.principal) as conn:
        if not await pins.unpin(conn, str(thread_id), checkpoint_id):
            raise UnknownCheckpoint(f"checkpoint {checkpoint_id} is not pinned")
    return Response(status_code=204)


@routes.get("/labels")
async def list_labels(clew: Clew, who: Who, thread_id: UUID) -> Reply:
    """The session's labels, oldest first."""
    await reach(clew, who, thread_id)
    async with clew.db.transaction(who.principal) as conn:
        found = await labels.list_(conn, str(thread_id))
    return Reply({"labels": [asdict(label) for label in found]})


@routes.get("/labels/{name:path}")
async def get_label(clew: Clew, who: Who, thread_id: UUID, name: str) -> Reply:
    """A label, and what was saved with it."""
    await reach(clew, who, thread_id)
    found, data = await rewind.saved(ground(clew), who.principal, str(thread_id), name)
    return Reply({**asdict(found), "data": data})


@routes.put("/labels/{name:path}")
async def label(clew: Clew, who: Who, thread_id: UUID, name: str, body: Labelled) -> Reply:
    """Name a checkpoint; retention keeps it."""
    await reach(clew, who, thread_id, "update")
    if not 0 < len(name) <= 200:
        raise errors.Invalid("name: must have 1 to 200 characters")
    async with clew.db.transaction(who.principal) as conn:
        try:
            made = await labels.label(
                conn, str(thread_id), body.checkpoint_id, name, move=body.move, actor=who.actor
            )
        except UnknownThread:
            raise UnknownCheckpoint(f"session {thread_id} has no checkpoint yet") from None
    return Reply(asdict(made))


@routes.delete("/labels/{name:path}", status_code=204)
async def unlabel(clew: Clew, who: Who, thread_id: UUID, name: str) -> Response:
    """Take a label away, and what was saved with it; the checkpoint stays."""
    await reach(clew, who, thread_id, "update")
    async with clew.db.transaction(who.principal) as conn:
        if not await labels.unlabel(conn, str(thread_id), name):
            raise UnknownLabel(f"no checkpoint of the session is labelled {name!r}")
    return Response(status_code=204)


def _object(text: str | None) -> Json | None:
    if text is None:
        return None
    try:
        found = from_json(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise errors.Invalid("metadata: must be a JSON object")
    return found
