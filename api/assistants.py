"""Assistants: a graph with its settings, in versions; and what its graph looks like."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import Field

from clew.api import paging, rows
from clew.api.auth import Caller, Who
from clew.api.deps import Clew, Parts
from clew.api.reply import Reply
from clew.api.schema import Body, Json, Offset
from clew.runtime import assistants, errors, graphs, turns
from clew.runtime.assistants import Assistant

routes = APIRouter(prefix="/assistants", tags=["assistants"])

FIELDS = (
    *("assistant_id", "graph_id", "name", "description", "config", "context", "metadata"),
    *("version", "created_at", "updated_at"),
)
Sort = Literal["assistant_id", "graph_id", "name", "created_at", "updated_at"]


class Create(Body):
    graph_id: str
    assistant_id: UUID | None = None
    config: Json | None = None
    context: Json | None = None
    metadata: Json | None = None
    if_exists: Literal["raise", "do_nothing"] = "raise"
    name: str = "Untitled"
    description: str | None = None


class Patch(Body):
    graph_id: str | None = None
    config: Json | None = None
    context: Json | None = None
    metadata: Json | None = None
    name: str | None = None
    description: str | None = None


class Count(Body):
    metadata: Json | None = None
    graph_id: str | None = None
    name: str | None = None


class Search(Count):
    limit: int = Field(10, ge=1, le=1000)
    offset: Offset = 0
    sort_by: Sort | None = None
    sort_order: Literal["asc", "desc"] | None = None
    # As in api/schema.py: one tuple that pyright wants spelled out.
    select: list[Literal[FIELDS]] | None = None  # pyright: ignore[reportInvalidTypeForm]


class Versions(Body):
    metadata: Json | None = None
    limit: int = Field(10, ge=1, le=1000)
    offset: Offset = 0


class Latest(Body):
    version: int = Field(ge=1, le=2**31 - 1)


def known(clew: Parts, graph_id: str | None) -> None:
    if graph_id is not None and graph_id not in clew.graphs.ids():
        raise errors.NotFound(
            f"Graph '{graph_id}' not found. Expected one of: {sorted(clew.graphs.ids())}"
        )


@routes.post("")
async def create(clew: Clew, who: Who, body: Create) -> Reply:
    known(clew, body.graph_id)
    value: Json = {"graph_id": body.graph_id, "metadata": dict(body.metadata or {})}
    await who.authorize("assistants", "create", value)
    made = await assistants.create(
        clew.db,
        who.principal,
        who.owner_id,
        graph_id=body.graph_id,
        assistant_id=str(body.assistant_id) if body.assistant_id else None,
        if_exists=body.if_exists,
        name=body.name,
        description=body.description,
        config=body.config,
        context=body.context,
        metadata=value["metadata"],
    )
    return Reply(rows.assistant(made), headers=body.notice())


@routes.post("/search")
async def search(clew: Clew, who: Who, body: Search) -> Reply:
    known(clew, body.graph_id)
    value = {"metadata": dict(body.metadata or {})}
    allowed = await who.authorize("assistants", "search", value)
    page = await assistants.search(
        clew.db,
        who.principal,
        metadata=value["metadata"],
        graph_id=body.graph_id,
        name=body.name,
        sort_by=body.sort_by or "created_at",
        sort_order=body.sort_order or "desc",
        limit=body.limit,
        offset=body.offset,
        allowed=allowed,
    )
    total = None
    if paging.uncounted(body.offset, len(page.items), more=page.more):
        total = await assistants.count(
            clew.db,
            who.principal,
            metadata=value["metadata"],
            graph_id=body.graph_id,
            name=body.name,
            allowed=allowed,
        )
    headers = paging.headers(body.offset, len(page.items), more=page.more, total=total)
    found = [rows.pick(rows.assistant(item), body.select) for item in page.items]
    return Reply(found, headers={**headers, **body.notice()})


@routes.post("/count")
async def count(clew: Clew, who: Who, body: Count) -> Reply:
    known(clew, body.graph_id)
    value = {"metadata": dict(body.metadata or {})}
    allowed = await who.authorize("assistants", "search", value)
    number = await assistants.count(
        clew.db,
        who.principal,
        metadata=value["metadata"],
        graph_id=body.graph_id,
        name=body.name,
        allowed=allowed,
    )
    return Reply(number, headers=body.notice())


@routes.get("/{assistant_id}")
async def read(clew: Clew, who: Who, assistant_id: UUID) -> Reply:
    return Reply(rows.assistant(await _find(clew, who, assistant_id)))


@routes.patch("/{assistant_id}")
async def update(clew: Clew, who: Who, assistant_id: UUID, body: Patch) -> Reply:
    known(clew, body.graph_id)
    changes: dict[str, Any] = body.model_dump(exclude_none=True, exclude=set(body.ignored()))
    value = {"assistant_id": assistant_id, "metadata": dict(body.metadata or {})}
    allowed = await who.authorize("assistants", "update", value)
    if body.metadata is not None:
        changes["metadata"] = value["metadata"]
    made = await assistants.update(
        clew.db, who.principal, str(assistant_id), **changes, allowed=allowed
    )
    return Reply(rows.assistant(made), headers=body.notice())


@routes.delete("/{assistant_id}", status_code=204)
async def delete(clew: Clew, who: Who, assistant_id: UUID, *, delete_threads: bool = False) -> None:
    value = {"assistant_id": assistant_id}
    allowed = await who.authorize("assistants", "delete", value)
    await assistants.delete(
        clew.db,
        who.principal,
        str(assistant_id),
        delete_threads=delete_threads,
        actor=who.actor,
        allowed=allowed,
    )


@routes.post("/{assistant_id}/versions")
async def versions(clew: Clew, who: Who, assistant_id: UUID, body: Versions) -> Reply:
    allowed = await who.authorize("assistants", "read", {"assistant_id": assistant_id})
    found = await assistants.versions(
        clew.db,
        who.principal,
        str(assistant_id),
        metadata=body.metadata,
        limit=body.limit,
        offset=body.offset,
        allowed=allowed,
    )
    return Reply([rows.version(item) for item in found], headers=body.notice())


@routes.post("/{assistant_id}/latest")
async def set_latest(clew: Clew, who: Who, assistant_id: UUID, body: Latest) -> Reply:
    value = {"assistant_id": assistant_id, "version": body.version}
    allowed = await who.authorize("assistants", "update", value)
    made = await assistants.set_latest(
        clew.db, who.principal, str(assistant_id), body.version, allowed=allowed
    )
    return Reply(rows.assistant(made), headers=body.notice())


@routes.get("/{name}/graph")
async def graph(
    clew: Clew, who: Who, name: str, xray: Annotated[bool | int, Query()] = False
) -> Response:
    """The one path that also takes a graph's name, because `RemoteGraph` uses it so."""
    chosen = await turns.assistant(clew.db, who.principal, clew.graphs, name)
    async with clew.graphs.open(
        chosen.graph_id,
        config={"configurable": chosen.config.get("configurable", {})},
        checkpointer=None,
        store=clew.store,
        access_context="assistants.read",
    ) as loaded:
        return Reply(await graphs.draw(loaded, xray))


@routes.get("/{assistant_id}/schemas")
async def schemas(clew: Clew, who: Who, assistant_id: UUID) -> Reply:
    chosen = await _find(clew, who, assistant_id)
    async with clew.graphs.open(
        chosen.graph_id,
        config={},
        checkpointer=None,
        store=clew.store,
        access_context="assistants.read",
    ) as loaded:
        return Reply({"graph_id": chosen.graph_id, **graphs.schemas(loaded)})


@routes.get("/{assistant_id}/subgraphs")
@routes.get("/{assistant_id}/subgraphs/{namespace}")
async def subgraphs(
    clew: Clew,
    who: Who,
    assistant_id: UUID,
    namespace: str | None = None,
    *,
    recurse: bool = False,
) -> Reply:
    chosen = await _find(clew, who, assistant_id)
    async with clew.graphs.open(
        chosen.graph_id,
        config={},
        checkpointer=None,
        store=clew.store,
        access_context="assistants.read",
    ) as loaded:
        return Reply(graphs.subgraphs(loaded, namespace, recurse=recurse))


async def _find(clew: Parts, who: Caller, assistant_id: UUID) -> Assistant:
    allowed = await who.authorize("assistants", "read", {"assistant_id": assistant_id})
    return await assistants.get(clew.db, who.principal, str(assistant_id), allowed=allowed)
