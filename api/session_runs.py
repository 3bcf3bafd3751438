"""A reply in progress, for everybody who may see the session, also those whom its owner shares it
with: followed, taken up again where it was cut, stopped.
"""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Response

from clew.api import access, admission, outcome, runs, sse, streams
from clew.api.auth import Who
from clew.api.deps import Clew
from clew.runtime import errors
from clew.runtime import runs as store

routes = APIRouter(prefix="/sessions/{thread_id}/runs/{run_id}", tags=["sessions"])


@routes.get("/stream")
async def follow(
    clew: Clew,
    who: Who,
    thread_id: UUID,
    run_id: UUID,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """What the run still says; with `Last-Event-ID` all after that event, and with `-` all."""
    found = await access.open_(clew, who, thread_id)
    if found.checkpoint_id is not None:
        raise errors.Forbidden("this share shows the session as it was at one checkpoint")
    run = await store.get(clew.db, found.principal, str(thread_id), str(run_id))
    after = await streams.cursor(clew, found.who, run, last_event_id)
    frames = streams.of_run(clew, found.who, run, after=after)
    return sse.stream(frames, runs.places(run, "stream", face="sessions"))


@routes.post("/cancel", status_code=204)
async def cancel(clew: Clew, who: Who, thread_id: UUID, run_id: UUID) -> None:
    """Answers when the run has stopped; what it had said stays."""
    found = await access.open_(clew, who, thread_id, "update", role="writer")
    admission.leave()
    await clew.worker.cancel(
        found.principal, str(thread_id), str(run_id), action="interrupt", wait=outcome.PATIENCE
    )
