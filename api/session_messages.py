"""Messages of a session: read them in pages from either end; send one and stream the reply."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from clew.api import access, intake, runs
from clew.api.access import Access
from clew.api.auth import Who
from clew.api.deps import Clew, Parts
from clew.api.reply import Reply
from clew.api.schema import RunCreate
from clew.api.session_schema import MessageSend
from clew.runtime import errors, messages

routes = APIRouter(prefix="/sessions/{thread_id}/messages", tags=["sessions"])


@routes.get("")
async def list_(
    clew: Clew,
    who: Who,
    thread_id: UUID,
    scope: Literal["head", "all"] = "head",
    order: Literal["asc", "desc"] = "asc",
    checkpoint_id: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor: str | None = None,
) -> Reply:
    """The messages at the head, or as they were at a checkpoint; with scope `all` everything ever
    said, with what was removed since marked."""
    found = await access.open_(clew, who, thread_id)
    at = str(checkpoint_id) if checkpoint_id else None
    if found.checkpoint_id is not None:
        # A pinned share shows what there was at its checkpoint, and nothing else.
        if scope != "head" or at not in (None, found.checkpoint_id):
            raise errors.Forbidden("this share shows the session as it was at one checkpoint")
        at = found.checkpoint_id
    page = await messages.page(
        clew.db,
        found.principal,
        str(thread_id),
        scope=scope,
        checkpoint_id=at,
        newest_first=order == "desc",
        limit=limit,
        cursor=cursor,
        vault=clew.saver.vault,
    )
    shown = [
        {"index": item.index, "removed": item.removed, "message": item.message}
        for item in page.items
    ]
    return Reply({"messages": shown, "cursor": page.cursor, "total": page.total})


@routes.post("")
async def send(
    clew: Clew, who: Who, thread_id: UUID, body: MessageSend, request: Request
) -> Response:
    """Send a message and stream the reply, or with `stream: false` wait for it."""
    found = await access.open_(clew, who, thread_id, "create_run", role="writer")
    given: dict[str, Any] = {
        "assistant_id": _agent(clew, found, body),
        "input": {"messages": body.said()},
        "stream_mode": body.stream_mode,
        "multitask_strategy": body.multitask_strategy,
        "on_disconnect": body.on_disconnect,
    }
    for name in ("context", "config"):
        if (value := getattr(body, name)) is not None:
            given[name] = value
    asked = RunCreate.model_validate(given)
    run = await intake.start(clew, found.who, str(thread_id), asked, request)
    if body.stream:
        return runs.streaming(clew, found.who, run, asked, face="sessions")
    cancel = body.on_disconnect == "cancel"
    return runs.waiting(clew, found.who, run, cancel=cancel, notice={})


def _agent(clew: Parts, found: Access, body: MessageSend) -> str:
    """Who answers: as asked, as the session says, or the only one there is."""
    name = body.assistant_id or found.session.assistant_id or found.session.graph_id
    if name is not None:
        return name
    graphs = list(clew.graphs.ids())
    if len(graphs) == 1:
        return graphs[0]
    raise errors.Invalid("assistant_id: this session has no agent yet; name one")
