"""Threads of the Agent Server protocol: the registry's sessions under LangGraph's name."""

from contextlib import aclosing
from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response

from clew.api import byvalue, extract, paging, rows, threadstream
from clew.api.auth import Who
from clew.api.deps import Clew, Parts, reach
from clew.api.reply import Reply
from clew.api.schema import (
    THREAD_FIELDS,
    Json,
    ThreadCount,
    ThreadCreate,
    ThreadPatch,
    ThreadSearch,
    Ttl,
)
from clew.runtime import edits, expiry, limits, sessions
from clew.runtime.limits import Limit
from clew.runtime.pages import Page
from clew.runtime.sessions import Session

routes = APIRouter(prefix="/threads", tags=["threads"])


@routes.post("")
async def create(clew: Clew, who: Who, body: ThreadCreate) -> Reply:
    value: Json = {
        "thread_id": body.thread_id,
        "metadata": dict(body.metadata or {}),
        "if_exists": body.if_exists,
    }
    allowed = await who.authorize("threads", "create", value)
    metadata: Json = value["metadata"]
    made = await limits.create(
        clew.db,
        who.principal,
        who.owner_id,
        Limit.of(clew.settings),
        thread_id=str(body.thread_id) if body.thread_id else None,
        if_exists=body.if_exists,
        metadata=metadata,
        graph_id=metadata.get("graph_id"),
        ttl=lifetime(clew, body.ttl),
        idle_after=clew.settings.idle_after,
        allowed=allowed,
    )
    session = made.session
    if body.supersteps:
        steps = [edits.superstep(step) for step in body.supersteps]
        await edits.update(
            clew.db, who.principal, clew.graphs, clew.saver, clew.store, session, steps
        )
        session = await sessions.get(clew.db, who.principal, session.thread_id)
    return Reply(await byvalue.show(clew, session), headers=body.notice())


@routes.get("/{thread_id}")
async def read(
    clew: Clew, who: Who, thread_id: UUID, include: Annotated[list[str] | None, Query()] = None
) -> Reply:
    session = await reach(clew, who, thread_id)
    thread = await byvalue.show(clew, session)
    if include and any("ttl" in part.split(",") for part in include):
        thread["ttl"] = rows.ttl(session)
    return Reply(thread)


@routes.patch("/{thread_id}")
async def patch(
    clew: Clew,
    who: Who,
    thread_id: UUID,
    body: ThreadPatch,
    prefer: Annotated[str | None, Header()] = None,
) -> Response:
    value = {"thread_id": thread_id, "metadata": dict(body.metadata or {})}
    allowed = await who.authorize("threads", "update", value)
    session = await sessions.patch(
        clew.db,
        who.principal,
        str(thread_id),
        {"metadata": value["metadata"]} if body.metadata is not None else {},
        ttl=lifetime(clew, body.ttl) if body.ttl is not None else None,
        allowed=allowed,
    )
    if prefer == "return=minimal":
        return Response(status_code=204)
    return Reply(await byvalue.show(clew, session))


@routes.delete("/{thread_id}", status_code=204)
async def delete(clew: Clew, who: Who, thread_id: UUID) -> None:
    allowed = await who.authorize("threads", "delete", {"thread_id": thread_id})
    await sessions.delete(clew.db, who.principal, str(thread_id), actor=who.actor, allowed=allowed)


@routes.post("/search")
async def search(clew: Clew, who: Who, body: ThreadSearch) -> Reply:
    value = {"metadata": dict(body.metadata or {})}
    allowed = await who.authorize("threads", "search", value)
    if body.values:
        byvalue.allow(clew)
    page = await sessions.search(
        clew.db,
        who.principal,
        ids=[str(id_) for id_ in body.ids] if body.ids else None,
        metadata=value["metadata"],
        status=body.status,
        sort_by=body.sort_by or "updated_at",
        sort_order=body.sort_order or "desc",
        limit=byvalue.MOST if body.values else body.limit,
        offset=0 if body.values else body.offset,
        allowed=allowed,
    )
    select = body.select or list(THREAD_FIELDS)
    for path in (body.extract or {}).values():
        extract.of_thread(path)
    if body.values:
        threads, more = await _of_values(clew, page, body)
    elif "values" in select or body.extract:
        threads, more = await byvalue.shown(clew, page.items), page.more
    else:
        threads, more = [rows.thread(session) for session in page.items], page.more
    found: list[Json] = []
    for row in threads:
        picked = rows.pick(row, select)
        if body.extract:
            picked["extracted"] = {
                alias: extract.path(row, path) for alias, path in body.extract.items()
            }
        found.append(picked)
    total = None
    # Those that were looked for by their values are not counted on top of it.
    if not body.values and paging.uncounted(body.offset, len(found), more=more):
        total = await sessions.count(
            clew.db,
            who.principal,
            ids=[str(id_) for id_ in body.ids] if body.ids else None,
            metadata=value["metadata"],
            status=body.status,
            allowed=allowed,
        )
    page_headers = paging.headers(body.offset, len(found), more=more, total=total)
    return Reply(found, headers={**body.notice(), **page_headers})


async def _of_values(
    clew: Parts, page: Page[Session], body: ThreadSearch
) -> tuple[list[Json], bool]:
    """The asked-for stretch of those that have the values, and whether there are more."""
    found: list[Json] = []
    end = body.offset + body.limit
    async with aclosing(byvalue.matching(clew, page, body.values or {})) as threads:
        async for thread in threads:
            found.append(thread)
            if len(found) > end:
                break
    return found[body.offset : end], len(found) > end


@routes.post("/count")
async def count(clew: Clew, who: Who, body: ThreadCount) -> Reply:
    value = {"metadata": dict(body.metadata or {})}
    allowed = await who.authorize("threads", "search", value)
    if body.values:
        byvalue.allow(clew)
        page = await sessions.search(
            clew.db,
            who.principal,
            metadata=value["metadata"],
            status=body.status,
            limit=byvalue.MOST,
            allowed=allowed,
        )
        number = len([thread async for thread in byvalue.matching(clew, page, body.values)])
        return Reply(number, headers=body.notice())
    number = await sessions.count(
        clew.db, who.principal, metadata=value["metadata"], status=body.status, allowed=allowed
    )
    return Reply(number, headers=body.notice())


def lifetime(clew: Parts, asked: Ttl | float | None) -> sessions.Ttl:
    """What the request says, else what langgraph.json or the settings do."""
    sliding = clew.settings.session_expiry == "sliding"
    if isinstance(asked, int | float):
        return sessions.Ttl(timedelta(minutes=asked), sliding)
    if asked is not None:
        life = None if asked.ttl is None else timedelta(minutes=asked.ttl)
        return sessions.Ttl(life, sliding, asked.strategy)
    return expiry.policy(clew.settings, clew.config, None)


routes.include_router(threadstream.routes)
