"""Crons: runs by the clock, on a thread or each on its own."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter
from pydantic import AfterValidator, Field

from clew.api import paging, rows
from clew.api.auth import Caller, Who
from clew.api.deps import Clew, Parts, reach
from clew.api.reply import Reply
from clew.api.schema import (
    Body,
    Durability,
    Json,
    Moment,
    Nodes,
    Offset,
    Strategy,
    StreamModes,
    known_modes,
)
from clew.runtime import crons, errors, targets, turns
from clew.runtime.crons import Cron

routes = APIRouter(tags=["crons"])

FIELDS = (
    *("cron_id", "assistant_id", "thread_id", "user_id", "end_time", "schedule", "timezone"),
    *("payload", "next_run_date", "metadata", "on_run_completed", "enabled"),
    *("created_at", "updated_at"),
)
Sort = Literal[
    "cron_id",
    "assistant_id",
    "thread_id",
    "next_run_date",
    "end_time",
    "created_at",
    "updated_at",
]


class Asked(Body):
    """What each run is asked for; all of it may change later."""

    input: Any = None
    config: Json | None = None
    context: Json | None = None
    webhook: str | None = None
    interrupt_before: Nodes | None = None
    interrupt_after: Nodes | None = None
    stream_mode: Annotated[StreamModes, AfterValidator(known_modes)] | None = None
    stream_subgraphs: bool | None = None
    stream_resumable: bool | None = None
    durability: Durability | None = None
    checkpoint_during: bool | None = None
    multitask_strategy: Strategy | None = None
    # What says when, and of whom.
    metadata: Json | None = None
    timezone: str | None = None
    end_time: Moment | None = None
    enabled: bool | None = None

    def request(self) -> Json:
        """What was given of it, as fields of a run."""
        given = {name: getattr(self, name) for name in _RUN if name in self.model_fields_set}
        if given.get("durability") is None and self.checkpoint_during is not None:
            given["durability"] = "async" if self.checkpoint_during else "exit"
        return {k: v for k, v in given.items() if v is not None or k in _CLEARED}


_RUN = (
    *("input", "config", "context", "webhook", "interrupt_before", "interrupt_after"),
    *("stream_mode", "stream_subgraphs", "stream_resumable", "durability", "multitask_strategy"),
)
# Where null is a value: that there is none any more.
_CLEARED = {"input", "context", "webhook", "interrupt_before", "interrupt_after"}


class CreateOnThread(Asked):
    schedule: str
    assistant_id: str


class Create(CreateOnThread):
    on_run_completed: Literal["delete", "keep"] | None = None


class Patch(Asked):
    schedule: str | None = None
    on_run_completed: Literal["delete", "keep"] | None = None


class Count(Body):
    assistant_id: str | None = None
    thread_id: UUID | None = None
    metadata: Json | None = None


class Search(Count):
    enabled: bool | None = None
    limit: int = Field(10, ge=1, le=1000)
    offset: Offset = 0
    sort_by: Sort | None = None
    sort_order: Literal["asc", "desc"] | None = None
    # As in api/schema.py: one tuple that pyright wants spelled out.
    select: list[Literal[FIELDS]] | None = None  # pyright: ignore[reportInvalidTypeForm]


def shown(cron: Cron) -> Json:
    config = turns.merge([cron.request.get("config") or {}, _named(cron)])
    return {
        "cron_id": cron.cron_id,
        "assistant_id": cron.assistant_id,
        "thread_id": cron.thread_id,
        "user_id": (cron.caller or {}).get("identity"),
        "end_time": cron.end_at,
        "schedule": cron.schedule,
        "timezone": cron.timezone,
        "payload": {
            **cron.request,
            "assistant_id": cron.assistant_id,
            "schedule": cron.schedule,
            "metadata": cron.metadata,
            "config": config,
        },
        "next_run_date": cron.next_at,
        "metadata": cron.metadata,
        "on_run_completed": cron.on_run_completed,
        "enabled": cron.enabled,
        "created_at": cron.created_at,
        "updated_at": cron.updated_at,
    }


def _named(cron: Cron) -> Json:
    return {"configurable": {"cron_id": cron.cron_id}}


@routes.post("/runs/crons")
async def create(clew: Clew, who: Who, body: Create) -> Reply:
    return await _create(clew, who, body, None, body.on_run_completed or "delete")


@routes.post("/threads/{thread_id}/runs/crons")
async def create_on_thread(clew: Clew, who: Who, thread_id: UUID, body: CreateOnThread) -> Reply:
    await reach(clew, who, thread_id)
    return await _create(clew, who, body, str(thread_id), "delete")


async def _create(
    clew: Parts,
    who: Caller,
    body: CreateOnThread,
    thread_id: str | None,
    on_run_completed: Literal["delete", "keep"],
) -> Reply:
    request = body.request()
    value: Json = {
        "payload": {"assistant_id": body.assistant_id, **request},
        "schedule": body.schedule,
        "thread_id": thread_id,
        "user_id": who.user.get("identity"),
        "end_time": body.end_time,
        "metadata": dict(body.metadata or {}),
    }
    await who.authorize("crons", "create", value)
    readable = await who.authorize("assistants", "read", {"assistant_id": body.assistant_id})
    chosen = await turns.assistant(
        clew.db, who.principal, clew.graphs, body.assistant_id, allowed=readable
    )
    # Faults of the request are told now, and not when it fires.
    turns.compose(chosen, None, request)
    await _check_webhook(clew, request)
    made = await crons.create(
        clew.db,
        who.principal,
        who.owner_id,
        assistant_id=chosen.assistant_id,
        schedule=body.schedule,
        timezone=body.timezone,
        end_at=body.end_time,
        enabled=body.enabled is not False,
        thread_id=thread_id,
        on_run_completed=on_run_completed,
        request=request,
        metadata=value["metadata"],
        caller=who.shown(),
    )
    return Reply(shown(made), headers=body.notice())


@routes.post("/runs/crons/search")
async def search(clew: Clew, who: Who, body: Search) -> Reply:
    value: Json = {"limit": body.limit, "offset": body.offset}
    wanted = await _wanted(clew, who, body, value)
    page = await crons.search(
        clew.db,
        who.principal,
        **wanted,
        enabled=body.enabled,
        sort_by=body.sort_by or "created_at",
        sort_order=body.sort_order or "desc",
        limit=body.limit,
        offset=body.offset,
    )
    total = None
    if paging.uncounted(body.offset, len(page.items), more=page.more):
        total = await crons.count(clew.db, who.principal, **wanted, enabled=body.enabled)
    headers = paging.headers(body.offset, len(page.items), more=page.more, total=total)
    found = [rows.pick(shown(cron), body.select) for cron in page.items]
    return Reply(found, headers={**headers, **body.notice()})


@routes.post("/runs/crons/count")
async def count(clew: Clew, who: Who, body: Count) -> Reply:
    wanted = await _wanted(clew, who, body, {})
    return Reply(await crons.count(clew.db, who.principal, **wanted), headers=body.notice())


@routes.get("/runs/crons/{cron_id}")
async def read(clew: Clew, who: Who, cron_id: UUID) -> Reply:
    allowed = await who.authorize("crons", "read", {"cron_id": cron_id})
    return Reply(shown(await crons.get(clew.db, who.principal, str(cron_id), allowed=allowed)))


@routes.patch("/runs/crons/{cron_id}")
async def update(clew: Clew, who: Who, cron_id: UUID, body: Patch) -> Reply:
    if not body.model_fields_set - set(body.ignored()):
        raise errors.BadRequest("Request body cannot be empty")
    request = body.request()
    value: Json = {
        "cron_id": cron_id,
        "payload": request,
        "schedule": body.schedule,
        "metadata": dict(body.metadata or {}),
    }
    allowed = await who.authorize("crons", "update", value)
    await _check_webhook(clew, request)
    made = await crons.update(
        clew.db,
        who.principal,
        str(cron_id),
        _changes(body),
        request=request,
        metadata=value["metadata"] if body.metadata is not None else None,
        allowed=allowed,
    )
    return Reply(shown(made), headers=body.notice())


@routes.delete("/runs/crons/{cron_id}", status_code=204)
async def delete(clew: Clew, who: Who, cron_id: UUID) -> None:
    allowed = await who.authorize("crons", "delete", {"cron_id": cron_id})
    await crons.delete(clew.db, who.principal, str(cron_id), allowed=allowed)


def _changes(body: Patch) -> Json:
    found: Json = {
        name: value
        for name in ("schedule", "enabled", "on_run_completed")
        if (value := getattr(body, name)) is not None
    }
    # Here null takes back what was set.
    for name, column in (("timezone", "timezone"), ("end_time", "end_at")):
        if name in body.model_fields_set:
            found[column] = getattr(body, name)
    return found


async def _check_webhook(clew: Parts, request: Mapping[str, Any]) -> None:
    if request.get("webhook") is not None:
        await targets.of(clew.config).check(request["webhook"])


async def _wanted(clew: Parts, who: Caller, body: Count, value: Json) -> Json:
    """What is looked for, as far as the caller may; an assistant may be named by its graph."""
    value |= {
        "assistant_id": body.assistant_id,
        "thread_id": body.thread_id,
        "metadata": dict(body.metadata or {}),
    }
    allowed = await who.authorize("crons", "search", value)
    assistant_id = body.assistant_id
    if assistant_id is not None:
        chosen = await turns.assistant(clew.db, who.principal, clew.graphs, assistant_id)
        assistant_id = chosen.assistant_id
    return {
        "assistant_id": assistant_id,
        "thread_id": str(body.thread_id) if body.thread_id else None,
        "metadata": value["metadata"],
        "allowed": allowed,
    }
