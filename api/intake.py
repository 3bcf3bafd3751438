"""The one way in for runs, whichever face asked: the assistant, the session, the request."""

from datetime import timedelta

from fastapi import Request

from clew.api import custom
from clew.api.auth import Caller
from clew.api.deps import Parts
from clew.api.schema import Json, RunCreate
from clew.runtime import errors, expiry, limits, sessions, targets, turns
from clew.runtime.assistants import Assistant
from clew.runtime.limits import Limit
from clew.runtime.requests import Protocol
from clew.runtime.runs import Run
from clew.runtime.sessions import Filter, Session
from clew.runtime.telemetry import carrier

# Fields of the body that say what to do about the run, not what it does.
_ABOUT = {
    "assistant_id",
    "command",
    "if_not_exists",
    "stream_mode",
    "checkpoint_during",
    "after_seconds",
    "feedback_keys",
    "langsmith_tracer",
}

# It is in an index, which holds no more than a third of a page.
LONGEST_KEY = 255


async def start(
    clew: Parts,
    who: Caller,
    thread_id: str | None,
    body: RunCreate,
    request: Request | None,
    *,
    protocol: Protocol = "legacy",
) -> Run:
    """Make the run, and the session where there is none yet and the body asks for one."""
    command = body.command.model_dump(exclude_none=True) if body.command else None
    key = request.headers.get("idempotency-key") if request else None
    if key is not None and len(key) > LONGEST_KEY:
        raise errors.Invalid(f"Idempotency-Key: at most {LONGEST_KEY} characters")
    if thread_id is None and command and "resume" in command:
        raise errors.BadRequest("You must provide a thread_id when resuming.")
    if body.webhook is not None:
        await targets.of(clew.config).check(body.webhook)
    chosen = await turns.assistant(clew.db, who.principal, clew.graphs, body.assistant_id)
    kwargs: Json = body.model_dump(exclude=_ABOUT | set(body.ignored()), exclude_unset=True)
    value = {
        "thread_id": thread_id,
        "assistant_id": chosen.assistant_id,
        "kwargs": kwargs,
        "metadata": dict(body.metadata or {}),
        "if_not_exists": body.if_not_exists,
    }
    allowed = await who.authorize("threads", "create_run", value)
    kwargs["metadata"] = value["metadata"]
    session = await _session(clew, who, thread_id, body, chosen, allowed)
    durability = body.durability
    if durability is None and body.checkpoint_during is not None:
        durability = "async" if body.checkpoint_during else "exit"
    if durability is not None:
        kwargs["durability"] = durability
    http = clew.config.http
    if request is not None and http is not None and http.configurable_headers is not None:
        handed = custom.headers(http.configurable_headers, request.headers)
        config = dict(kwargs.get("config") or {})
        config["configurable"] = {**handed, **(config.get("configurable") or {})}
        kwargs["config"] = config
    if body.checkpoint_id is not None:
        kwargs["checkpoint_id"] = str(body.checkpoint_id)
    asked = turns.compose(
        chosen,
        session,
        kwargs,
        command=command,
        protocol=protocol,
        stream_mode=body.stream_mode,
        after=timedelta(seconds=body.after_seconds),
        temporary=session.temporary,
        user=who.shown(),
        idempotency_key=key,
        trace=carrier(),
    )
    return await clew.worker.submit(who.principal, session.owner_id, session.thread_id, asked)


async def _session(
    clew: Parts,
    who: Caller,
    thread_id: str | None,
    body: RunCreate,
    chosen: Assistant,
    allowed: Filter | None,
) -> Session:
    if thread_id is not None and body.if_not_exists == "reject":
        try:
            return await sessions.get(clew.db, who.principal, thread_id, allowed=allowed)
        except errors.NotFound:
            raise errors.NotFound("Thread or assistant not found.") from None
    temporary = thread_id is None and body.on_completion == "delete"
    made = await limits.create(
        clew.db,
        who.principal,
        who.owner_id,
        Limit() if temporary else Limit.of(clew.settings),
        thread_id=thread_id,
        if_exists="do_nothing",
        graph_id=chosen.graph_id,
        metadata=dict(body.metadata or {}),
        temporary=temporary,
        ttl=expiry.policy(clew.settings, clew.config, chosen),
        idle_after=clew.settings.idle_after,
        allowed=allowed,
    )
    return made.session
