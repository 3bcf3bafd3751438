"""What happens to one's sessions and runs, as a stream of server-sent events."""

from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Response

from clew.api import access, sse
from clew.api.auth import Who
from clew.api.deps import Clew, Parts
from clew.checkpointing.postgres import Principal
from clew.runtime import errors, outbox, wire
from clew.runtime.outbox import Place

# Before the routes of single sessions, whose ids `events` is not.
routes = APIRouter(prefix="/sessions", tags=["sessions"])


@routes.get("/events")
async def follow(
    clew: Clew,
    who: Who,
    thread_id: UUID | None = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """`session.*` and `run.*` as they happen, from now on or from `Last-Event-ID` on."""
    if thread_id is not None:
        await access.open_(clew, who, thread_id)
    if await who.authorize("threads", "search", {"metadata": {}}) is not None:
        raise errors.Forbidden("this feed is about all of one's sessions, not some of them")
    if last_event_id:
        after, since = Place.parse(last_event_id), None
    else:
        after, since = await outbox.end(clew.db)
    key = str(thread_id) if thread_id else None
    return sse.stream(_frames(clew, who.principal, after, since, key))


async def _frames(
    clew: Parts, who: Principal, after: Place, since: str | None, thread_id: str | None
) -> AsyncIterator[bytes]:
    happenings = outbox.follow(clew.db, who, after, since=since, thread_id=thread_id)
    async for happening in happenings:
        told = {
            "thread_id": happening.thread_id,
            "run_id": happening.run_id,
            "created_at": happening.created_at,
            "data": happening.data,
        }
        yield sse.frame(happening.kind, wire.encode(told), str(happening.place))
