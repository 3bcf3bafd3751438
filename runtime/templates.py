"""Templates: what new sessions start with (agent, prompt and settings in `context` and `config`,
resources, tags), under versions. A session remembers which version it was made from.
"""

import uuid
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Self, cast

from psycopg.rows import DictRow

from clew.checkpointing.postgres import Database, Principal
from clew.runtime import documents, errors, sessions
from clew.runtime.sessions import Fields, Filter, Json, Session
from clew.runtime.sql import queries

# What a template may say of a session. Its documents are merged with those given at creation.
TEXTS = ("graph_id", "assistant_id", "kind", "title", "description")
DOCUMENTS = ("metadata", "config", "context", "resources")
BODY = frozenset((*TEXTS, *DOCUMENTS, "tags"))


@dataclass(frozen=True, slots=True)
class Template:
    template_id: str
    owner_id: int
    name: str
    description: str | None
    shared: bool
    body: Json
    version: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, row: DictRow) -> Self:
        values: dict[str, Any] = {field.name: row[field.name] for field in fields(cls)}
        values["template_id"] = str(row["template_id"])
        return cls(**values)


async def create(
    db: Database,
    who: Principal,
    owner_id: int,
    *,
    name: str,
    body: Json,
    description: str | None = None,
    shared: bool = False,
) -> Template:
    values = {
        "template_id": uuid.uuid4(),
        "owner_id": owner_id,
        **_described(name, description),
        "shared": shared,
        "body": documents.document("body", _checked(body)),
    }
    [row] = await db.fetch(who, queries["create_template"], values)
    return Template.of(row)


async def get(
    db: Database, who: Principal, template_id: str, version: int | None = None
) -> Template:
    values = {"template_id": _id(template_id), "version": version}
    row = await db.one(who, queries["get_template"], values)
    if row is None:
        raise errors.NotFound(f"Template {template_id} not found")
    return Template.of(row)


async def update(
    db: Database,
    who: Principal,
    template_id: str,
    *,
    name: str | None = None,
    description: str | None = None,
    shared: bool | None = None,
    body: Json | None = None,
) -> Template:
    """A new body makes a new version; sessions made before keep what they got."""
    values = {
        "template_id": _id(template_id),
        **_described(name, description),
        "shared": shared,
        "body": None if body is None else documents.document("body", _checked(body)),
    }
    row = await db.one(who, queries["update_template"], values)
    if row is None:
        raise await _refusal(db, who, template_id)
    return Template.of(row)


async def delete(db: Database, who: Principal, template_id: str) -> None:
    if not await db.execute(who, queries["delete_template"], {"template_id": _id(template_id)}):
        raise await _refusal(db, who, template_id)


async def search(db: Database, who: Principal, *, limit: int = 100) -> list[Template]:
    """One's own and those shared in the tenant, the latest first."""
    return [
        Template.of(row) for row in await db.fetch(who, queries["list_templates"], {"limit": limit})
    ]


def apply(template: Template, given: Fields) -> Fields:
    """The fields of a session made from a template; what is given wins, key by key."""
    made: dict[str, Any] = {**template.body, **{k: v for k, v in given.items() if v is not None}}
    for name in DOCUMENTS:
        made[name] = {**template.body.get(name, {}), **cast("Json", given.get(name) or {})}
    made["tags"] = [*template.body.get("tags", ()), *(given.get("tags") or ())]
    made["template"] = {"template_id": template.template_id, "version": template.version}
    return cast("Fields", made)


def settings_of(template: Template) -> Json:
    """What puts a session back to a template: agent, config, context, resources."""
    kept = ("graph_id", "assistant_id", "config", "context", "resources")
    return {name: template.body[name] for name in kept if name in template.body}


async def restore(
    db: Database, who: Principal, thread_id: str, template: Template, allowed: Filter | None = None
) -> Session:
    """Put a session's settings back to those of a template."""
    return await sessions.patch(db, who, thread_id, settings_of(template), allowed=allowed)


def _described(name: str | None, description: str | None) -> Json:
    if name == "":
        raise errors.Invalid("name: cannot be empty")
    return {
        "name": documents.text("name", name, documents.NAME),
        "description": documents.text("description", description, documents.DESCRIPTION),
    }


def _checked(body: Json) -> Json:
    if unknown := set(body) - BODY:
        raise errors.Invalid(f"body: unknown field {min(unknown)}")
    for name in TEXTS:
        if not isinstance(body.get(name), str | None):
            raise errors.Invalid(f"body.{name}: must be a text")
    for name in DOCUMENTS:
        if not isinstance(body.get(name, {}), dict):
            raise errors.Invalid(f"body.{name}: must be an object")
    tags = body.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(t, str) for t in cast("list[Any]", tags)):
        raise errors.Invalid("body.tags: must be a list of texts")
    return {**body, "tags": documents.tags(cast("list[str]", tags))}


def _id(template_id: str) -> uuid.UUID:
    try:
        return uuid.UUID(template_id)
    except ValueError:
        raise errors.NotFound(f"Template {template_id} not found") from None


async def _refusal(db: Database, who: Principal, template_id: str) -> errors.ClewError:
    """Shared templates are seen by those who may not change them."""
    row = await db.one(
        who, queries["get_template"], {"template_id": _id(template_id), "version": None}
    )
    if row is None:
        return errors.NotFound(f"Template {template_id} not found")
    return errors.Forbidden("this template belongs to someone else; make one of your own from it")
