"""What waits for an answer, across all of one's sessions."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from clew.api import access
from clew.api.auth import Who
from clew.api.deps import Clew
from clew.api.reply import Reply
from clew.api.session_schema import Json
from clew.runtime import interrupts
from clew.runtime.interrupts import Interrupt

routes = APIRouter(prefix="/interrupts", tags=["interrupts"])


@routes.get("")
async def list_(
    clew: Clew,
    who: Who,
    thread_id: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> Reply:
    """The open questions of one's living sessions, newest first; answered by resuming the run."""
    if thread_id is not None:
        await access.open_(clew, who, thread_id)
    found = await interrupts.inbox(
        clew.db,
        who.principal,
        thread_id=str(thread_id) if thread_id else None,
        limit=limit + 1,
        offset=offset,
        allowed=await who.authorize("threads", "search", {"metadata": {}}),
    )
    more = len(found) > limit
    return Reply(
        {
            "interrupts": [_shown(asked) for asked in found[:limit]],
            "offset": offset + limit if more else None,
        }
    )


def _shown(asked: Interrupt) -> Json:
    return {
        "thread_id": asked.thread_id,
        "interrupt_id": asked.interrupt_id,
        "run_id": asked.run_id,
        "namespace": asked.namespace,
        "value": asked.value,
        "response_schema": asked.response_schema,
        "created_at": asked.created_at,
        "deadline_at": asked.deadline_at,
        "on_deadline": asked.on_deadline,
    }
