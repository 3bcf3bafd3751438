"""Protocol v2: commands and events of a thread, over HTTP with SSE."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, TypeGuard, cast
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from clew.api import intake, problems, protocol, sse
from clew.api.auth import Caller, Who
from clew.api.deps import Clew, Parts, reach
from clew.api.protocol import Subscription
from clew.api.reply import Reply
from clew.api.schema import Json, RunCreate
from clew.checkpointing.errors import CheckpointError
from clew.runtime import errors, interrupts
from clew.runtime.events import START, Cursor, Event
from clew.runtime.sessions import Session

log = logging.getLogger(__name__)

routes = APIRouter(prefix="/threads/{thread_id}", tags=["protocol v2"])

_SETTLE_SECONDS, _TICK = 5, 0.02
MODES = ["values", "updates", "messages", "tools", "custom", "tasks", "checkpoints"]


class Refused(Exception):
    """A command that was understood and not carried out."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@routes.post("/commands")
async def command(clew: Clew, who: Who, thread_id: UUID, request: Request) -> Response:
    body = await _read(request)
    if not well_formed(body):
        return Reply(MALFORMED, 400)
    return Reply(await answer(clew, who, str(thread_id), body))


async def _read(request: Request) -> Any:
    try:
        return await request.json()
    except ClientDisconnect:
        # Hooks open a stream anew whenever what they want changes, and may not wait for the last.
        raise errors.BadRequest("The client left before it had said all") from None
    except ValueError:
        raise errors.BadRequest("Invalid JSON body") from None


def well_formed(body: Any) -> TypeGuard[Json]:
    return (
        isinstance(body, dict)
        and isinstance(body.get("id"), int)
        and isinstance(body.get("method"), str)
        and isinstance(body.get("params", {}), dict)
    )


MALFORMED: Json = {
    "type": "error",
    "id": None,
    "error": "invalid_argument",
    "message": "Protocol commands must include an integer id and string method.",
}


async def answer(clew: Parts, who: Caller, thread_id: str, body: Json) -> Json:
    """Carry out one command; what goes wrong is part of the answer."""
    try:
        run = COMMANDS.get(body["method"])
        if run is None:
            raise Refused("unknown_command", f"Unknown command: {body['method']}")
        result = await run(clew, who, thread_id, body.get("params") or {})
    except Refused as error:
        return {"type": "error", "id": body["id"], "error": error.code, "message": str(error)}
    except (errors.ClewError, CheckpointError) as error:
        status = problems.status_of(error)
        if status >= 500:
            log.exception("command %s failed", body["method"])
        code = "invalid_argument" if status in (400, 422) else "unknown_error"
        text = str(error) if status < 500 else "Internal Server Error"
        return {"type": "error", "id": body["id"], "error": code, "message": f"{status}: {text}"}
    tip = await clew.feed.tip(who.principal, thread_id)
    return {
        "type": "success",
        "id": body["id"],
        "result": result,
        "meta": {"applied_through_seq": tip.seq},
    }


async def start(clew: Parts, who: Caller, thread_id: str, params: Json) -> Json:
    """`run.start`: input on a thread that waits for a human is the answer to its question."""
    if not params.get("assistant_id"):
        raise Refused("invalid_argument", "run.start requires an assistant_id.")
    config = _object(params, "config")
    configurable = dict(_object(config, "configurable"))
    configurable.pop("thread_id", None)
    body: Json = {
        "assistant_id": params["assistant_id"],
        "input": params.get("input"),
        "metadata": params.get("metadata"),
        "config": {**config, "configurable": configurable},
        "multitask_strategy": params.get("multitask_strategy")
        or params.get("multitaskStrategy")
        or "enqueue",
    }
    if checkpoint_id := configurable.pop("checkpoint_id", None):
        body["checkpoint_id"] = checkpoint_id
    elif body["input"] is not None and await _waits(clew, who, thread_id):
        body["command"] = {"resume": body.pop("input")}
    return {"run_id": await _run(clew, who, thread_id, body)}


def _object(holder: Json, name: str) -> Json:
    value: object = holder.get(name) or {}
    if not isinstance(value, dict):
        raise Refused("invalid_argument", f"{name} must be an object.")
    return cast("Json", value)


async def respond(clew: Parts, who: Caller, thread_id: str, params: Json) -> Json:
    """`input.respond`: one answer, or several at once."""
    given: object = params.get("responses") or [params]
    if not isinstance(given, list):
        raise Refused("invalid_argument", "responses must be a list.")
    answers: Json = {}
    for item in cast("list[object]", given):
        if not isinstance(item, dict) or not isinstance(item.get("interrupt_id"), str):
            raise Refused("invalid_argument", "input.respond requires an interrupt_id.")
        answers[item["interrupt_id"]] = item.get("response")
    session = await _settled(clew, who, thread_id)
    inbox = await interrupts.inbox(clew.db, who.principal, thread_id=thread_id, limit=1000)
    waiting = {item.interrupt_id for item in inbox}
    for interrupt_id in answers:
        if interrupt_id not in waiting:
            raise Refused("no_such_interrupt", f"No interrupt {interrupt_id} is waiting.")
    if session.assistant_id is None:
        raise Refused("no_such_run", "The thread has had no run.")
    await _run(
        clew,
        who,
        thread_id,
        {
            "assistant_id": session.assistant_id,
            "command": {
                "resume": answers,
                **{key: params[key] for key in ("update", "goto") if params.get(key) is not None},
            },
            "config": params.get("config") or {},
            "metadata": params.get("metadata"),
            "strict_resume": bool(params.get("strict_resume")),
        },
    )
    return {}


async def _settled(clew: Parts, who: Caller, thread_id: str) -> Session:
    """A question is told before the run that asks it has ended: give it a moment to do so."""
    session = await reach(clew, who, thread_id, "create_run")
    waited = 0.0
    while session.status == "busy" and waited < _SETTLE_SECONDS:
        await asyncio.sleep(_TICK)
        waited += _TICK
        session = await reach(clew, who, thread_id)
    return session


async def _waits(clew: Parts, who: Caller, thread_id: str) -> bool:
    try:
        session = await reach(clew, who, thread_id)
    except errors.NotFound:
        return False
    return session.status == "interrupted" and bool(session.interrupts)


async def _run(clew: Parts, who: Caller, thread_id: str, body: Json) -> str:
    try:
        asked = RunCreate.model_validate(
            {
                **body,
                "if_not_exists": "create",
                "stream_mode": MODES,
                "stream_subgraphs": True,
                "stream_resumable": True,
                "on_completion": "keep",
            }
        )
    except ValidationError as error:
        raise Refused("invalid_argument", problems.sentences(error)) from error
    run = await intake.start(clew, who, thread_id, asked, None, protocol="v2")
    return run.run_id


COMMANDS = {"run.start": start, "input.respond": respond}


@routes.post("/stream/events")
async def events(clew: Clew, who: Who, thread_id: UUID, request: Request) -> Response:
    params = await _read(request)
    if not isinstance(params, dict):
        raise errors.BadRequest("Invalid JSON body")
    wanted = protocol.subscription(params)
    after = since(params.get("since"))
    await reach(clew, who, thread_id)

    async def frames() -> AsyncIterator[bytes]:
        reader = protocol.Reader(wanted)
        batches = clew.feed.batches(
            who.principal, str(thread_id), after=after, want=wanted.wants, brief=True
        )
        async for batch in batches:
            rendered = ((event, reader.render(event)) for event in batch)
            shown = (sse.frame(*one, str(event.seq)) for event, one in rendered if one is not None)
            for piece in sse.together(shown):
                yield piece

    return sse.stream(frames())


def since(seq: Any) -> Cursor:
    if seq is None:
        return START
    if not isinstance(seq, int) or seq < 0:
        raise errors.BadRequest("since must be a non-negative integer")
    return Cursor(seq >> 32, seq & 0xFFFFFFFF)


def follow(
    clew: Parts, who: Caller, thread_id: str, wanted: Subscription, after: Cursor
) -> AsyncIterator[Event]:
    """What a subscription shows: all that is kept, then what comes. Never ends by itself."""
    return clew.feed.follow(who.principal, thread_id, after=after, want=wanted.wants, brief=True)
