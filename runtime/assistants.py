"""Assistants: a registered graph with its settings, under versions that can be switched back.

Every graph has one that the service made (`register`), the same for everyone: all may read and run
it, none but the service may change it.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal, Self

from psycopg import sql
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.runtime import documents, errors, ids, pages, purge
from clew.runtime.pages import Page
from clew.runtime.sessions import Filter, Json
from clew.runtime.sql import queries

SORTS = ("assistant_id", "graph_id", "name", "created_at", "updated_at")

# The namespace that the official server derives its ids from; clients write these ids down.
_NAMESPACE = uuid.UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")


@dataclass(frozen=True, slots=True)
class Assistant:
    assistant_id: str
    owner_id: int
    graph_id: str
    name: str
    description: str | None
    config: Json
    context: Json
    metadata: Json
    version: int
    created_at: datetime
    updated_at: datetime

    @property
    def system(self) -> bool:
        return self.owner_id == 0

    @classmethod
    def of(cls, row: DictRow) -> Self:
        values = {name: row[name] for name in _FIELDS}
        values["assistant_id"] = str(values["assistant_id"])
        return cls(**values)


_FIELDS = tuple(field.name for field in fields(Assistant))


def id_of(graph_id: str) -> str:
    """The id of the assistant that stands for a graph."""
    return str(uuid.uuid5(_NAMESPACE, graph_id))


async def register(db: Database, graphs: Mapping[str, str | None]) -> None:
    """At start: see that every graph has its assistant. Takes descriptions by graph id."""
    for graph_id, description in graphs.items():
        values = {
            "assistant_id": id_of(graph_id),
            "graph_id": graph_id,
            "description": description,
        }
        await db.execute(SERVICE, queries["register_assistant"], values)


async def create(
    db: Database,
    who: Principal,
    owner_id: int,
    *,
    graph_id: str,
    assistant_id: str | None = None,
    if_exists: Literal["raise", "do_nothing"] = "raise",
    name: str = "Untitled",
    description: str | None = None,
    config: Json | None = None,
    context: Json | None = None,
    metadata: Json | None = None,
) -> Assistant:
    assistant_id = (
        str(uuid.uuid4()) if assistant_id is None else ids.check(assistant_id, "assistant")
    )
    config, context = mirror(config or {}, context or {})
    values = {
        "assistant_id": assistant_id,
        "owner_id": owner_id,
        "graph_id": graph_id,
        "name": documents.text("name", name, documents.NAME),
        "description": documents.text("description", description, documents.DESCRIPTION),
        "config": documents.document("config", config),
        "context": documents.document("context", context),
        "metadata": documents.document("metadata", metadata or {}),
    }
    async with db.work(who) as conn:
        made = await conn.execute(queries["create_assistant"], values)
        cursor = await conn.execute(queries["get_assistant"], _key(assistant_id, None))
        row = await cursor.fetchone()
    if row is None or (made.rowcount != 1 and if_exists == "raise"):
        raise errors.Conflict(f"Assistant {assistant_id} already exists")
    return Assistant.of(row)


async def get(
    db: Database, who: Principal, assistant_id: str, *, allowed: Filter | None = None
) -> Assistant:
    row = await db.one(who, queries["get_assistant"], _key(assistant_id, allowed))
    if row is None:
        raise missing(assistant_id)
    return Assistant.of(row)


async def update(
    db: Database,
    who: Principal,
    assistant_id: str,
    *,
    graph_id: str | None = None,
    name: str | None = None,
    description: str | None = None,
    config: Json | None = None,
    context: Json | None = None,
    metadata: Json | None = None,
    allowed: Filter | None = None,
) -> Assistant:
    """A new version: metadata is merged, the rest replaced where it is given."""
    if context is not None or (config or {}).get("configurable"):
        config, context = mirror(config or {}, context or {})
    values = {
        **_key(assistant_id, allowed),
        "graph_id": graph_id,
        "name": documents.text("name", name, documents.NAME),
        "description": documents.text("description", description, documents.DESCRIPTION),
        "config": None if config is None else documents.document("config", config),
        "context": None if context is None else documents.document("context", context),
        "metadata": documents.document("metadata", metadata or {}),
    }
    row = await db.one(who, queries["update_assistant"], values)
    if row is None:
        raise await _refusal(db, who, assistant_id, allowed)
    return Assistant.of(row)


async def delete(
    db: Database,
    who: Principal,
    assistant_id: str,
    *,
    delete_threads: bool = False,
    actor: str,
    allowed: Filter | None = None,
) -> None:
    """Delete with all versions and, if asked, the caller's sessions with it."""
    async with db.transaction(who) as conn:
        cursor = await conn.execute(queries["delete_assistant"], _key(assistant_id, allowed))
        gone = cursor.rowcount == 1
        if gone and delete_threads:
            key = {"assistant_id": assistant_id}
            cursor = await conn.execute(queries["sessions_of_assistant"], key)
            thread_ids = [row["thread_id"] for row in await cursor.fetchall()]
            await purge.sessions(conn, thread_ids, actor=actor)
    if not gone:
        raise await _refusal(db, who, assistant_id, allowed)


async def search(
    db: Database,
    who: Principal,
    *,
    metadata: Json | None = None,
    graph_id: str | None = None,
    name: str | None = None,
    sort_by: str = "created_at",
    sort_order: Literal["asc", "desc"] = "desc",
    limit: int = 10,
    offset: int = 0,
    allowed: Filter | None = None,
) -> Page[Assistant]:
    if sort_by not in SORTS:
        raise errors.Invalid(f"sort_by: must be one of {', '.join(SORTS)}")
    column = sql.Identifier(sort_by)
    return await pages.find(
        db,
        who,
        queries["search_assistants"],
        _terms(metadata, graph_id, name, allowed),
        Assistant.of,
        by=sql.SQL("lower({})").format(column) if sort_by == "name" else column,
        then="assistant_id",
        direction=sort_order,
        limit=limit,
        offset=offset,
    )


async def count(
    db: Database,
    who: Principal,
    *,
    metadata: Json | None = None,
    graph_id: str | None = None,
    name: str | None = None,
    allowed: Filter | None = None,
) -> int:
    values = _terms(metadata, graph_id, name, allowed)
    [row] = await db.fetch(who, queries["count_assistants"], values)
    return row["assistants"]


async def versions(
    db: Database,
    who: Principal,
    assistant_id: str,
    *,
    metadata: Json | None = None,
    limit: int = 10,
    offset: int = 0,
    allowed: Filter | None = None,
) -> list[Assistant]:
    """The versions, newest first."""
    values = {
        **_key(assistant_id, allowed),
        "metadata": _sought(metadata),
        "limit": limit,
        "offset": offset,
    }
    rows = await db.fetch(who, queries["versions_of_assistant"], values)
    if not rows and not metadata and not offset:
        raise missing(assistant_id)
    return [Assistant.of(row) for row in rows]


async def set_latest(
    db: Database,
    who: Principal,
    assistant_id: str,
    version: int,
    *,
    allowed: Filter | None = None,
) -> Assistant:
    """Put an earlier version back in force; the numbers go on counting from the newest."""
    values = {**_key(assistant_id, allowed), "version": version}
    row = await db.one(who, queries["set_latest_assistant"], values)
    if row is None:
        refusal = await _refusal(db, who, assistant_id, allowed)
        if isinstance(refusal, errors.NotFound):
            raise errors.NotFound(f"Version {version} not found for assistant {assistant_id}")
        raise refusal
    return Assistant.of(row)


def mirror(config: Json, context: Json) -> tuple[Json, Json]:
    """`context` and `config.configurable` are two names of one thing: either fills the other."""
    configurable = config.get("configurable")
    if configurable and context:
        raise errors.BadRequest(
            "Cannot specify both configurable and context. Prefer setting context alone."
        )
    if configurable:
        return config, dict(configurable)
    if context:
        return {**config, "configurable": dict(context)}, context
    return config, context


def missing(assistant_id: str) -> errors.NotFound:
    return errors.NotFound(f"Assistant with ID {assistant_id} not found")


async def _refusal(
    db: Database, who: Principal, assistant_id: str, allowed: Filter | None
) -> errors.ClewError:
    row = await db.one(who, queries["get_assistant"], _key(assistant_id, allowed))
    if row is not None and row["owner_id"] == 0:
        return errors.Forbidden(
            "this assistant stands for its graph and cannot be changed; create one of your own"
        )
    return missing(assistant_id)


def _terms(
    metadata: Json | None, graph_id: str | None, name: str | None, allowed: Filter | None
) -> dict[str, Any]:
    return {
        "metadata": _sought(metadata),
        "graph_id": documents.text("graph_id", graph_id, documents.NAME),
        "name": documents.text("name", name or None, documents.NAME),
        "allowed": None if allowed is None else Jsonb(allowed),
    }


def _sought(metadata: Json | None) -> Jsonb | None:
    return documents.document("metadata", metadata, scrubbed=False) if metadata else None


def _key(assistant_id: str, allowed: Filter | None) -> dict[str, Any]:
    return {
        "assistant_id": ids.check(assistant_id, "assistant"),
        "allowed": None if allowed is None else Jsonb(allowed),
    }
