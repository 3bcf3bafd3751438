"""The registry over HTTP: create, find, change, archive, delete and bring back sessions."""

from datetime import timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query

from clew.api import access
from clew.api import session_schema as show
from clew.api.auth import Caller, Who
from clew.api.deps import Clew, Parts
from clew.api.reply import Reply
from clew.api.session_schema import (
    BatchOf,
    Instant,
    SessionCreate,
    SessionPatch,
    Touch,
    Transfer,
    TtlBody,
)
from clew.runtime import (
    bulk,
    errors,
    expiry,
    ids,
    lifecycle,
    limits,
    search,
    sessions,
    stats,
    templates,
    titles,
    transfer,
    turns,
)
from clew.runtime.assistants import Assistant
from clew.runtime.limits import Created, Limit
from clew.runtime.search import Sort, Wanted
from clew.runtime.sessions import Fields, Session, State, Status, Ttl

routes = APIRouter(prefix="/sessions", tags=["sessions"])


@routes.post("", status_code=201, responses={200: {"description": "There already"}})
async def create(clew: Clew, who: Who, body: SessionCreate) -> Reply:
    """Create a session, or with `reuse` take up the latest one: 201 if it is new, else 200."""
    made = await _create(clew, who, body)
    headers = show.etag(made.session)
    return Reply(show.session(made.session), 201 if made.new else 200, headers)


@routes.get("")
async def list_(
    clew: Clew,
    who: Who,
    q: str | None = None,
    state: Annotated[list[State] | None, Query()] = None,
    status: Annotated[list[Status] | None, Query()] = None,
    tag: Annotated[list[str] | None, Query()] = None,
    any_tag: Annotated[list[str] | None, Query()] = None,
    kind: str | None = None,
    graph_id: str | None = None,
    assistant_id: UUID | None = None,
    parent_thread_id: UUID | None = None,
    metadata: str | None = None,
    created_after: Instant | None = None,
    created_before: Instant | None = None,
    updated_after: Instant | None = None,
    updated_before: Instant | None = None,
    sort: Sort = "updated_at",
    order: Literal["asc", "desc"] = "desc",
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
    cursor: str | None = None,
    *,
    total: bool = False,
) -> Reply:
    """List and search sessions. `q` looks through titles and messages, `metadata` is a JSON object
    that they must contain, `tag` must all be there, of `any_tag` one."""
    if q is not None and clew.settings.encryption_keys:
        raise errors.Unsupported("q: what is said is encrypted and cannot be searched", option="q")
    sought = expiry.json_object("metadata", metadata)
    value: dict[str, Any] = {"metadata": dict(sought or {})}
    allowed = await who.authorize("threads", "search", value)
    wanted = Wanted(
        states=state or search.LIVING,
        statuses=status,
        text=q,
        tags_all=tag,
        tags_any=any_tag,
        metadata=value["metadata"],
        kind=kind,
        graph_id=graph_id,
        assistant_id=str(assistant_id) if assistant_id else None,
        parent_thread_id=str(parent_thread_id) if parent_thread_id else None,
        created_after=created_after,
        created_before=created_before,
        updated_after=updated_after,
        updated_before=updated_before,
    )
    page = await search.page(
        clew.db,
        who.principal,
        wanted,
        sort=sort,
        descending=order == "desc",
        limit=limit,
        cursor=cursor,
        total=total,
        allowed=allowed,
    )
    found: dict[str, Any] = {
        "sessions": [show.session(session) for session in page.items],
        "cursor": page.cursor,
    }
    return Reply(found | ({"total": page.total} if total else {}))


@routes.get("/stats")
async def read_stats(
    clew: Clew,
    who: Who,
    graph_id: str | None = None,
    days: Annotated[int, Query(ge=1, le=366)] = 30,
) -> Reply:
    """Figures: by state, agent, owner, and day."""
    if await who.authorize("threads", "search", {"metadata": {}}) is not None:
        raise errors.Forbidden("figures are about all of one's sessions, not some of them")
    return Reply(show.stats(await stats.read(clew.db, who.principal, graph_id=graph_id, days=days)))


@routes.post("/batch")
async def batch(clew: Clew, who: Who, body: BatchOf) -> Reply:
    """Create, get or delete many; each item has its own result or problem, in its place."""

    async def delete_one(thread_id: str) -> dict[str, Any]:
        return await _moved(clew, who, _id(thread_id), "delete")

    async def get_one(thread_id: str) -> dict[str, Any]:
        return show.session((await access.open_(clew, who, _id(thread_id))).session)

    async def create_one(item: SessionCreate) -> dict[str, Any]:
        return show.session((await _create(clew, who, item)).session)

    given = [name for name in ("create", "get", "delete") if getattr(body, name) is not None]
    if len(given) != 1:
        raise errors.Invalid("give one of create, get and delete")
    if body.create is not None:
        outcomes = await bulk.each(body.create, create_one)
    elif body.get is not None:
        outcomes = await bulk.each(body.get, get_one)
    else:
        outcomes = await bulk.each(body.delete or [], delete_one)
    return Reply({"results": [_outcome(outcome) for outcome in outcomes]})


@routes.get("/{thread_id}")
async def read(clew: Clew, who: Who, thread_id: UUID) -> Reply:
    """A session of one's own, or one that is shared."""
    found = await access.open_(clew, who, thread_id)
    row = show.session(found.session)
    if found.share is not None:
        row["share"] = show.share(found.share)
    return Reply(row, headers=show.etag(found.session))


@routes.patch("/{thread_id}")
async def patch(
    clew: Clew,
    who: Who,
    thread_id: UUID,
    body: SessionPatch,
    if_match: Annotated[str | None, Header()] = None,
) -> Reply:
    """Change what is named; metadata is merged. With `If-Match`, only if nobody else changed it."""
    changes = body.model_dump(
        exclude_unset=True,
        exclude={"ttl", "idle_after", "assistant_id", "template_id", "template_version"},
    )
    value = {"thread_id": thread_id, "metadata": dict(body.metadata or {})}
    allowed = await who.authorize("threads", "update", value)
    if body.metadata is not None:
        changes["metadata"] = value["metadata"]
    if body.template_id is not None:
        template = await templates.get(
            clew.db, who.principal, body.template_id, body.template_version
        )
        changes = {**templates.settings_of(template), **changes}
    if body.assistant_id is not None:
        changes |= await _agent(clew, who, body.assistant_id)
    session = await sessions.patch(
        clew.db,
        who.principal,
        str(thread_id),
        {name: value for name, value in changes.items() if value is not None or name in _CLEARED},
        ttl=_ttl(clew, body.ttl) if "ttl" in body.model_fields_set else None,
        idle_after=_minutes(body.idle_after),
        version=show.version_of(if_match),
        allowed=allowed,
    )
    await _index(clew, who, session, body)
    return Reply(show.session(session), headers=show.etag(session))


@routes.delete("/{thread_id}")
async def delete(clew: Clew, who: Who, thread_id: UUID, *, final: bool = False) -> Reply:
    """Delete a session. It can be brought back for a while, unless it is `final`."""
    if not final:
        return Reply(await _moved(clew, who, thread_id, "delete"))
    allowed = await access.demand(who, "delete", thread_id)
    await sessions.find(clew.db, who.principal, str(thread_id), allowed=allowed)
    await clew.worker.abandon(str(thread_id))
    await sessions.delete(clew.db, who.principal, str(thread_id), actor=who.actor, allowed=allowed)
    return Reply({"thread_id": thread_id, "state": "purged"})


@routes.post("/{thread_id}/undelete")
async def undelete(clew: Clew, who: Who, thread_id: UUID) -> Reply:
    """Bring a deleted session back, within the undo window."""
    return Reply(await _moved(clew, who, thread_id, "undelete"))


@routes.post("/{thread_id}/archive")
async def archive(clew: Clew, who: Who, thread_id: UUID) -> Reply:
    """Make a session read-only and take it out of the way."""
    return Reply(await _moved(clew, who, thread_id, "archive"))


@routes.post("/{thread_id}/unarchive")
async def unarchive(clew: Clew, who: Who, thread_id: UUID) -> Reply:
    """Take an archived session up again."""
    return Reply(await _moved(clew, who, thread_id, "unarchive"))


@routes.post("/{thread_id}/touch")
async def touch(clew: Clew, who: Who, thread_id: UUID, body: Touch | None = None) -> Reply:
    """Count as activity now: the expiry starts anew, with a new `ttl` where one is given."""
    ttl = _minutes(body.ttl) if body else None
    return Reply(await _moved(clew, who, thread_id, "touch", ttl=ttl))


@routes.post("/{thread_id}/transfer")
async def hand_over(clew: Clew, who: Who, thread_id: UUID, body: Transfer) -> Reply:
    """Give a session to another owner of the tenant, with all that belongs to it. For admins."""
    who.require("admin", "service")
    allowed = await access.demand(who, "update", thread_id)
    session = await transfer.to(
        clew.db,
        who.principal,
        str(thread_id),
        body.owner,
        actor=who.actor,
        vault=clew.saver.vault,
        allowed=allowed,
    )
    return Reply(show.session(session), headers=show.etag(session))


@routes.post("/{thread_id}/title")
async def title(clew: Clew, who: Who, thread_id: UUID) -> Reply:
    """Title a session by what was said first in it."""
    allowed = await access.demand(who, "update", thread_id)
    write = titles.writer(clew.settings) or titles.first_words
    if clew.settings.encryption_keys:
        raise errors.Unsupported(
            "title: what is said is encrypted, and a title is not", option="title"
        )
    session = await titles.give(clew.db, who.principal, str(thread_id), write, allowed=allowed)
    return Reply(show.session(session), headers=show.etag(session))


@routes.get("/{thread_id}/audit")
async def audit(
    clew: Clew, who: Who, thread_id: UUID, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> Reply:
    """Who did what to a session, newest first. It is told of deleted sessions too."""
    if await access.demand(who, "read", thread_id) is not None:
        await access.open_(clew, who, thread_id)
    entries = await lifecycle.log(clew.db, who.principal, thread_id=str(thread_id), limit=limit)
    if not entries:
        allowed = await access.demand(who, "read", thread_id)
        await sessions.find(clew.db, who.principal, str(thread_id), allowed=allowed)
    return Reply({"entries": [show.entry(entry) for entry in entries]})


# What a null takes away, where of other fields it says nothing.
_CLEARED = frozenset({"title", "description", "kind"})


async def _create(clew: Parts, who: Caller, body: SessionCreate) -> Created:
    value: dict[str, Any] = {
        "thread_id": body.thread_id,
        "metadata": dict(body.metadata or {}),
        "if_exists": body.if_exists,
    }
    allowed = await who.authorize("threads", "create", value)
    fields: Fields = {
        "title": body.title,
        "description": body.description,
        "kind": body.kind,
        "tags": body.tags or [],
        "metadata": value["metadata"],
        "config": body.config,
        "context": body.context,
        "resources": body.resources,
        "idle_after": _minutes(body.idle_after) or clew.settings.idle_after,
    }
    if body.template_id is not None:
        template = await templates.get(
            clew.db, who.principal, body.template_id, body.template_version
        )
        fields = templates.apply(template, fields)
    name = body.assistant_id or fields.get("assistant_id") or fields.get("graph_id")
    chosen: Assistant | None = None
    if name is not None:
        chosen = await turns.assistant(clew.db, who.principal, clew.graphs, name)
        fields["graph_id"], fields["assistant_id"] = chosen.graph_id, chosen.assistant_id
    fields["ttl"] = (
        _ttl(clew, body.ttl)
        if "ttl" in body.model_fields_set
        else expiry.policy(clew.settings, clew.config, chosen)
    )
    made = await limits.create(
        clew.db,
        who.principal,
        who.owner_id,
        Limit.of(clew.settings),
        thread_id=str(body.thread_id) if body.thread_id else None,
        if_exists=body.if_exists,
        reuse=body.reuse,
        allowed=allowed,
        **fields,
    )
    if made.new:
        await _index(clew, who, made.session, body)
    return made


async def _index(
    clew: Parts, who: Caller, session: Session, body: SessionCreate | SessionPatch
) -> None:
    """Let it be found by its title, which is kept in clear whatever else is encrypted."""
    texts = [text for text in (body.title, body.description) if text]
    if texts:
        await search.index(clew.db, who.principal, session.thread_id, texts)


async def _agent(clew: Parts, who: Caller, name: str) -> dict[str, Any]:
    chosen = await turns.assistant(clew.db, who.principal, clew.graphs, name)
    return {"graph_id": chosen.graph_id, "assistant_id": chosen.assistant_id}


async def _moved(
    clew: Parts,
    who: Caller,
    thread_id: object,
    move: lifecycle.Move,
    ttl: timedelta | None = None,
) -> dict[str, Any]:
    action = "delete" if move in ("delete", "undelete") else "update"
    allowed = await access.demand(who, action, thread_id)
    session = await lifecycle.move(
        clew.db,
        who.principal,
        str(thread_id),
        move,
        actor=who.actor,
        ttl=ttl,
        undo_window=clew.settings.undo_window,
        allowed=allowed,
    )
    return show.session(session)


def _ttl(clew: Parts, given: TtlBody | float | None) -> Ttl:
    plain = given.model_dump(exclude_none=True) if isinstance(given, TtlBody) else given
    return expiry.parse(plain, clew.settings)


def _minutes(value: float | None) -> timedelta | None:
    return None if value is None else timedelta(minutes=value)


def _id(given: str) -> str:
    """What cannot be an id is nobody's."""
    try:
        return ids.check(given)
    except errors.Invalid:
        raise sessions.missing(given) from None


def _outcome(outcome: dict[str, Any] | errors.ClewError) -> dict[str, Any]:
    if isinstance(outcome, errors.ClewError):
        return {"problem": {"code": outcome.code, "detail": str(outcome), **outcome.facts}}
    return {"session": outcome}
