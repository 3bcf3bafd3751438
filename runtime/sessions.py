"""The session registry. Every function works under the caller's principal: what the principal may
not see does not exist here, so a foreign session and an unknown one are the same `NotFound`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Literal, Self, TypedDict, Unpack

from psycopg import sql
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from clew.checkpointing.postgres import Database, Principal
from clew.runtime import documents, errors, ids, pages, purge
from clew.runtime.pages import Page
from clew.runtime.sql import queries

State = Literal["active", "idle", "archived", "expired", "deleted"]
Status = Literal["idle", "busy", "interrupted", "error"]
Json = dict[str, Any]

# Alternatives of conditions on metadata, as an authorization handler demands them.
Filter = list[list[Json]]

SORTS = ("thread_id", "status", "created_at", "updated_at", "state_updated_at")


@dataclass(frozen=True, slots=True)
class Ttl:
    """When a session expires: `ttl` after its last activity, or after now where not `sliding`.
    `strategy` is what then happens: the session goes, or all but its latest checkpoint."""

    ttl: timedelta | None
    sliding: bool = True
    strategy: Literal["delete", "keep_latest"] = "delete"
    waiting: timedelta | None = None  # instead of `ttl` while it waits for a human


@dataclass(frozen=True, slots=True)
class Session:
    thread_id: str
    owner_id: int
    graph_id: str | None
    assistant_id: str | None
    kind: str | None
    title: str | None
    description: str | None
    tags: list[str]
    metadata: Json
    config: Json
    context: Json
    resources: Json
    template: Json | None
    status: Status
    error: Json | None
    interrupts: Json
    message_count: int
    bytes: int
    version: int
    temporary: bool
    parent_thread_id: str | None
    created_at: datetime
    updated_at: datetime
    state_updated_at: datetime
    last_active_at: datetime
    ttl: timedelta | None
    ttl_sliding: bool
    ttl_waiting: timedelta | None
    ttl_strategy: Literal["delete", "keep_latest"]
    expires_at: datetime | None
    idle_after: timedelta
    archived_at: datetime | None
    deleted_at: datetime | None
    state: State

    @classmethod
    def of(cls, row: DictRow) -> Self:
        values = {name: row[name] for name in _FIELDS}
        if values["assistant_id"] is not None:
            values["assistant_id"] = str(values["assistant_id"])
        return cls(**values)


_TEXTS = {
    "title": documents.TITLE,
    "description": documents.DESCRIPTION,
    "kind": documents.NAME,
    "graph_id": documents.NAME,
}
_FIELDS = tuple(field.name for field in fields(Session))


class Fields(TypedDict, total=False):
    """What a new session may be given."""

    graph_id: str | None
    assistant_id: str | None
    kind: str | None
    title: str | None
    description: str | None
    tags: Sequence[str]
    metadata: Json | None
    config: Json | None
    context: Json | None
    resources: Json | None
    template: Json | None
    temporary: bool
    parent_thread_id: str | None
    ttl: Ttl | None
    idle_after: timedelta | None


async def create(
    db: Database,
    who: Principal,
    owner_id: int,
    *,
    thread_id: str | None = None,
    if_exists: Literal["raise", "do_nothing"] = "raise",
    allowed: Filter | None = None,
    **given: Unpack[Fields],
) -> Session:
    """A new session, or with `do_nothing` the one of that id. An id that someone else has is a
    Conflict: the one thing about foreign sessions that can be found out. `limits.create` does the
    same within an owner's limits."""
    values = row_of(owner_id, thread_id, given)
    key = {"thread_id": values["thread_id"], "allowed": demand(allowed)}
    async with db.work(who) as conn:
        made = await conn.execute(queries["create_session"], values)
        cursor = await conn.execute(queries["get_session_of_id"], key)
        row = await cursor.fetchone()
    return settle(values["thread_id"], row, made=made.rowcount == 1, if_exists=if_exists)


def row_of(owner_id: int, thread_id: str | None, given: Fields) -> dict[str, Any]:
    """The parameters that insert a session."""
    ttl = given.get("ttl") or Ttl(None)
    template = given.get("template")
    return {
        "thread_id": ids.mint() if thread_id is None else ids.check(thread_id),
        "owner_id": owner_id,
        "graph_id": documents.text("graph_id", given.get("graph_id"), documents.NAME),
        "assistant_id": given.get("assistant_id"),
        "kind": documents.text("kind", given.get("kind"), documents.NAME),
        "title": documents.text("title", given.get("title"), documents.TITLE),
        "description": documents.text(
            "description", given.get("description"), documents.DESCRIPTION
        ),
        "tags": documents.tags(given.get("tags") or ()),
        "metadata": documents.document("metadata", given.get("metadata") or {}),
        "config": documents.document("config", given.get("config") or {}),
        "context": documents.document("context", given.get("context") or {}),
        "resources": documents.document("resources", given.get("resources") or {}),
        "template": Jsonb(template) if template else None,
        "temporary": given.get("temporary", False),
        "parent_thread_id": given.get("parent_thread_id"),
        "ttl": ttl.ttl,
        "ttl_sliding": ttl.sliding,
        "ttl_waiting": ttl.waiting,
        "ttl_strategy": ttl.strategy,
        "idle_after": given.get("idle_after"),
    }


def settle(
    thread_id: str, row: DictRow | None, *, made: bool, if_exists: Literal["raise", "do_nothing"]
) -> Session:
    """What a creation came to, from the row that now has its id."""
    if made and row is not None:
        return Session.of(row)
    ended = row is not None and row["state"] in ("expired", "deleted")
    if row is None or if_exists == "raise" or ended or not row["allowed"]:
        raise errors.Conflict(f"Thread with ID {thread_id} already exists")
    return Session.of(row)


async def find(
    db: Database, who: Principal, thread_id: str, *, allowed: Filter | None = None
) -> Session:
    """A session in whatever state it is."""
    row = await db.one(who, queries["get_session"], _key(thread_id, allowed))
    if row is None:
        raise missing(thread_id)
    return Session.of(row)


async def get(
    db: Database, who: Principal, thread_id: str, *, allowed: Filter | None = None
) -> Session:
    """A session that may be read: neither deleted nor expired, whether swept yet or not."""
    session = await find(db, who, thread_id, allowed=allowed)
    if session.state == "deleted":
        raise missing(thread_id)
    if session.state == "expired":
        raise errors.Gone(f"Thread with ID {thread_id} has expired", state="expired")
    return session


async def patch(
    db: Database,
    who: Principal,
    thread_id: str,
    changes: Mapping[str, Any],
    *,
    ttl: Ttl | None = None,
    idle_after: timedelta | None = None,
    version: int | None = None,
    allowed: Filter | None = None,
) -> Session:
    """Change what `changes` names: title, description, kind, tags, graph_id, assistant_id, config,
    context, resources; `metadata` is merged one level deep. With `version`, only if the session
    still has that version."""
    policy = ttl or Ttl(None)
    values = {
        **_key(thread_id, allowed),
        "changes": _checked(changes),
        "set_ttl": ttl is not None,
        "ttl": policy.ttl,
        "ttl_sliding": policy.sliding,
        "ttl_waiting": policy.waiting,
        "ttl_strategy": policy.strategy,
        "idle_after": idle_after,
        "version": version,
    }
    async with db.work(who) as conn:
        changed = await conn.execute(queries["patch_session"], values)
        cursor = await conn.execute(
            queries["get_session"], {"thread_id": thread_id, "allowed": None}
        )
        row = await cursor.fetchone()
    if changed.rowcount == 1 and row is not None:
        return Session.of(row)
    found = await get(db, who, thread_id, allowed=allowed)
    if version is not None and found.version != version:
        raise errors.Stale(
            f"the session is at version {found.version}, not {version}",
            version=found.version,
        )
    raise errors.Conflict(
        f"a session that is {found.state} cannot be changed", state=found.state, to="active"
    )


async def delete(
    db: Database,
    who: Principal,
    thread_id: str,
    *,
    actor: str,
    allowed: Filter | None = None,
) -> None:
    """Delete for good, with everything that belongs to it, in one transaction. The id is free
    again afterwards; that it was deleted stays in the audit log."""
    async with db.transaction(who) as conn:
        cursor = await conn.execute(queries["lock_session"], _key(thread_id, allowed))
        if await cursor.fetchone() is None:
            raise missing(thread_id)
        await purge.sessions(conn, [thread_id], actor=actor)


async def search(
    db: Database,
    who: Principal,
    *,
    ids: Sequence[str] | None = None,
    metadata: Json | None = None,
    status: Status | None = None,
    sort_by: str = "updated_at",
    sort_order: Literal["asc", "desc"] = "desc",
    limit: int = 10,
    offset: int = 0,
    allowed: Filter | None = None,
) -> Page[Session]:
    """The search of the official protocol, by offset."""
    if sort_by not in SORTS:
        raise errors.Invalid(f"sort_by: must be one of {', '.join(SORTS)}")
    values = await _sought(db, who, ids, metadata, status, allowed)
    return await pages.find(
        db,
        who,
        queries["search_sessions"],
        values,
        Session.of,
        by=sql.Identifier(sort_by),
        then="thread_id",
        direction=sort_order,
        limit=limit,
        offset=offset,
    )


async def count(
    db: Database,
    who: Principal,
    *,
    ids: Sequence[str] | None = None,
    metadata: Json | None = None,
    status: Status | None = None,
    allowed: Filter | None = None,
) -> int:
    values = await _sought(db, who, ids, metadata, status, allowed)
    [row] = await db.fetch(who, queries["count_sessions"], values)
    return row["sessions"]


async def _sought(
    db: Database,
    who: Principal,
    ids: Sequence[str] | None,
    metadata: Json | None,
    status: Status | None,
    allowed: Filter | None,
) -> Json:
    values: Json = {
        "owner_id": single(who),
        "ids": None if ids is None else list(ids),
        "metadata": documents.document("metadata", metadata, scrubbed=False) if metadata else None,
        "holding": None,
        "status": status,
        "allowed": demand(allowed),
    }
    if metadata and ids is None and values["owner_id"] is not None:
        [row] = await db.fetch(who, queries["sessions_holding"], values)
        values["holding"] = row["holding"]
    return values


def single(who: Principal) -> int | None:
    """The owner, where the principal is one; None for an admin, who is a range of them."""
    return who.owner_from if who.owner_from == who.owner_to else None


def missing(thread_id: str) -> errors.NotFound:
    return errors.NotFound(f"Thread with ID {thread_id} not found")


def _checked(changes: Mapping[str, Any]) -> Jsonb:
    checked = dict(changes)
    for name, longest in _TEXTS.items():
        documents.text(name, checked.get(name), longest)
    if "tags" in checked:
        checked["tags"] = documents.tags(checked["tags"] or ())
    # Around what is nested there is one level that is ours.
    return documents.document("changes", checked, levels=documents.LEVELS + 1)


def _key(thread_id: str, allowed: Filter | None) -> Json:
    return {"thread_id": thread_id, "allowed": demand(allowed)}


def demand(allowed: Filter | None) -> Jsonb | None:
    """A filter as a parameter."""
    return None if allowed is None else Jsonb(allowed)
