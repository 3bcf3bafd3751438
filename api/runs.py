"""Runs of the Agent Server protocol: start a turn, stream it, wait for it, join it, stop it."""

from typing import Annotated
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel

from clew.api import admission, disconnect, intake, outcome, rows, sse, streams
from clew.api.auth import Caller, Who
from clew.api.checkpoints import ground
from clew.api.deps import Clew, Parts, reach
from clew.api.reply import Reply
from clew.api.schema import CancelMany, Offset, RunCreate
from clew.runtime import errors, rewind, runs
from clew.runtime.runs import Action, Run, Status
from clew.runtime.standing import Why

routes = APIRouter(tags=["runs"])

Namespaces = Annotated[list[str] | None, Query()]


class Joining(BaseModel):
    """How a run's stream is joined. Of `namespace`, "" is the graph itself; `checkpoint_id` is of
    the state that the reader shows already."""

    stream_mode: list[str] | None = None
    namespace: list[str] | None = None
    checkpoint_id: UUID | None = None
    cancel_on_disconnect: bool = False


def places(run: Run, to: str, *, query: str = "", face: str = "threads") -> dict[str, str]:
    """Where the run is, and where its stream or result can be had again."""
    at = f"{run.thread_id}/runs/{run.run_id}"
    location = f"/{face}/{at}/{to}"
    return {
        "Content-Location": f"/threads/{at}",
        "Location": f"{location}?{query}" if query else location,
    }


@routes.post("/threads/{thread_id}/runs")
async def create(clew: Clew, who: Who, thread_id: UUID, body: RunCreate, request: Request) -> Reply:
    run = await intake.start(clew, who, str(thread_id), body, request)
    return Reply(rows.run(run), headers={**body.notice(), **places(run, "join")})


@routes.post("/threads/{thread_id}/runs/stream")
async def stream(
    clew: Clew,
    who: Who,
    thread_id: UUID,
    body: RunCreate,
    request: Request,
    namespace: Namespaces = None,
) -> Response:
    run = await intake.start(clew, who, str(thread_id), body, request)
    return streaming(clew, who, run, body, namespaces=namespace)


@routes.post("/runs/stream")
async def stream_stateless(
    clew: Clew, who: Who, body: RunCreate, request: Request, namespace: Namespaces = None
) -> Response:
    run = await intake.start(clew, who, None, body, request)
    return streaming(clew, who, run, body, namespaces=namespace)


def streaming(
    clew: Parts,
    who: Caller,
    run: Run,
    body: RunCreate,
    *,
    namespaces: list[str] | None = None,
    face: str = "threads",
) -> Response:
    frames = streams.of_run(clew, who, run, namespaces=namespaces)
    if body.on_disconnect == "cancel":
        frames = disconnect.cancels(clew, who, run, frames)
    query = urlencode([("namespace", name) for name in namespaces or ()])
    return sse.stream(frames, {**body.notice(), **places(run, "stream", query=query, face=face)})


@routes.post("/threads/{thread_id}/runs/wait")
async def wait(
    clew: Clew, who: Who, thread_id: UUID, body: RunCreate, request: Request
) -> Response:
    run = await intake.start(clew, who, str(thread_id), body, request)
    return waiting(clew, who, run, cancel=body.on_disconnect == "cancel", notice=body.notice())


@routes.post("/runs/wait")
async def wait_stateless(clew: Clew, who: Who, body: RunCreate, request: Request) -> Response:
    run = await intake.start(clew, who, None, body, request)
    return waiting(clew, who, run, cancel=body.on_disconnect == "cancel", notice=body.notice())


def waiting(
    clew: Parts, who: Caller, run: Run, *, cancel: bool, notice: dict[str, str]
) -> Response:
    body = outcome.body(clew, who, run)
    if cancel:
        body = disconnect.cancels(clew, who, run, body)
    headers = {**notice, **places(run, "join")}
    return sse.Waiting(body, headers=headers, media_type="application/json")


@routes.post("/runs")
async def create_stateless(clew: Clew, who: Who, body: RunCreate, request: Request) -> Reply:
    run = await intake.start(clew, who, None, body, request)
    return Reply(rows.run(run), headers={**body.notice(), **places(run, "join")})


@routes.post("/runs/batch")
async def create_batch(clew: Clew, who: Who, bodies: list[RunCreate]) -> Reply:
    if not bodies:
        raise errors.Invalid("a batch needs at least one run")
    return Reply([rows.run(await intake.start(clew, who, None, body, None)) for body in bodies])


@routes.get("/threads/{thread_id}/runs")
async def list_(
    clew: Clew,
    who: Who,
    thread_id: UUID,
    limit: Annotated[int, Query(ge=1, le=1000)] = 10,
    offset: Offset = 0,
    status: Status | None = None,
    select: Annotated[list[str] | None, Query()] = None,
) -> Reply:
    await reach(clew, who, thread_id)
    found = await runs.list_(
        clew.db, who.principal, str(thread_id), status=status, limit=limit, offset=offset
    )
    return Reply([rows.pick(rows.run(run), select) for run in found])


@routes.get("/threads/{thread_id}/runs/{run_id}")
async def read(clew: Clew, who: Who, thread_id: UUID, run_id: UUID) -> Reply:
    return Reply(rows.run(await _find(clew, who, thread_id, run_id)))


@routes.delete("/threads/{thread_id}/runs/{run_id}", status_code=204)
async def delete(clew: Clew, who: Who, thread_id: UUID, run_id: UUID) -> None:
    """The run, what it streamed, and the checkpoints that it wrote."""
    await reach(clew, who, thread_id, "delete")
    place = str(thread_id)
    await rewind.forget_run(ground(clew), who.principal, place, str(run_id), Why(who.actor))


@routes.get("/threads/{thread_id}/runs/{run_id}/join")
async def join(
    clew: Clew, who: Who, thread_id: UUID, run_id: UUID, *, cancel_on_disconnect: bool = False
) -> Response:
    run = await _find(clew, who, thread_id, run_id)
    return waiting(clew, who, run, cancel=cancel_on_disconnect, notice={})


@routes.get("/threads/{thread_id}/runs/{run_id}/stream")
async def join_stream(
    clew: Clew,
    who: Who,
    thread_id: UUID,
    run_id: UUID,
    request: Request,
    how: Annotated[Joining, Query()],
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    run = await _find(clew, who, thread_id, run_id)
    return await _joined(clew, who, run, how, last_event_id, request)


@routes.get("/runs/{run_id}")
async def read_stateless(clew: Clew, who: Who, run_id: UUID) -> Reply:
    return Reply(rows.run(await _find(clew, who, None, run_id)))


@routes.get("/runs/{run_id}/stream")
async def join_stream_stateless(
    clew: Clew,
    who: Who,
    run_id: UUID,
    request: Request,
    how: Annotated[Joining, Query()],
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    run = await _find(clew, who, None, run_id)
    return await _joined(clew, who, run, how, last_event_id, request)


async def _joined(
    clew: Parts, who: Caller, run: Run, how: Joining, last_event_id: str | None, request: Request
) -> Response:
    shown = None if how.checkpoint_id is None else str(how.checkpoint_id)
    after = await streams.cursor(clew, who, run, last_event_id, shown)
    modes = streams.modes(how.stream_mode)
    frames = streams.of_run(clew, who, run, after=after, modes=modes, namespaces=how.namespace)
    if how.cancel_on_disconnect:
        frames = disconnect.cancels(clew, who, run, frames)
    return sse.stream(frames, places(run, "stream", query=request.url.query))


@routes.post("/threads/{thread_id}/runs/{run_id}/cancel")
async def cancel(
    clew: Clew,
    who: Who,
    thread_id: UUID,
    run_id: UUID,
    *,
    wait: bool = False,
    action: Action = "interrupt",
    reason: str | None = None,
) -> Response:
    await reach(clew, who, thread_id, "update")
    if wait:
        admission.leave()
    stopped = await clew.worker.cancel(
        who.principal,
        str(thread_id),
        str(run_id),
        action=action,
        reason=reason,
        wait=outcome.PATIENCE if wait else None,
    )
    if not wait:
        return Response(status_code=202)
    result = await outcome.of(clew, who, stopped) if stopped else b"{}"
    at = places(stopped, "join") if stopped else None
    return Response(result, headers=at, media_type="application/json")


@routes.post("/runs/cancel", status_code=204)
async def cancel_many(clew: Clew, who: Who, body: CancelMany, action: Action = "interrupt") -> None:
    by_id, by_status = body.thread_id and body.run_ids, body.status
    if bool(by_id) == bool(by_status):
        raise errors.Invalid("Give either thread_id and run_ids, or status.")
    allowed = await who.authorize("threads", "update", {"thread_id": body.thread_id})
    await clew.worker.cancel_many(
        who.principal,
        thread_id=str(body.thread_id) if body.thread_id else None,
        run_ids=[str(run_id) for run_id in body.run_ids] if body.run_ids else None,
        status=body.status,
        action=action,
        allowed=allowed,
    )


async def _find(clew: Parts, who: Caller, thread_id: UUID | None, run_id: UUID) -> Run:
    if thread_id is not None:
        await reach(clew, who, thread_id)
        return await runs.get(clew.db, who.principal, str(thread_id), str(run_id))
    allowed = await who.authorize("threads", "read", {})
    return await runs.get(clew.db, who.principal, None, str(run_id), allowed=allowed)
