"""Templates over HTTP."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from clew.api import session_schema as show
from clew.api.auth import Who
from clew.api.deps import Clew
from clew.api.reply import Reply
from clew.api.session_schema import TemplateCreate, TemplatePatch
from clew.runtime import templates

routes = APIRouter(prefix="/templates", tags=["templates"])

Version = Annotated[int | None, Query(ge=1, le=2**31 - 1)]


@routes.post("", status_code=201)
async def create(clew: Clew, who: Who, body: TemplateCreate) -> Reply:
    """Make a template: what new sessions start with."""
    await who.authorize("assistants", "create", body.model_dump())
    template = await templates.create(
        clew.db,
        who.principal,
        who.owner_id,
        name=body.name,
        description=body.description,
        shared=body.shared,
        body=body.body,
    )
    return Reply(show.template(template), 201)


@routes.get("")
async def list_(clew: Clew, who: Who, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Reply:
    """One's own templates and those shared in the tenant."""
    await who.authorize("assistants", "search", {})
    found = await templates.search(clew.db, who.principal, limit=limit)
    return Reply({"templates": [show.template(template) for template in found]})


@routes.get("/{template_id}")
async def read(clew: Clew, who: Who, template_id: UUID, version: Version = None) -> Reply:
    """A template, at its latest version or at an earlier one."""
    await who.authorize("assistants", "read", {"template_id": template_id})
    found = await templates.get(clew.db, who.principal, str(template_id), version)
    return Reply(show.template(found))


@routes.patch("/{template_id}")
async def patch(clew: Clew, who: Who, template_id: UUID, body: TemplatePatch) -> Reply:
    """Change a template; a new body is a new version."""
    await who.authorize("assistants", "update", {"template_id": template_id})
    changed = await templates.update(
        clew.db,
        who.principal,
        str(template_id),
        name=body.name,
        description=body.description,
        shared=body.shared,
        body=body.body,
    )
    return Reply(show.template(changed))


@routes.delete("/{template_id}", status_code=204)
async def delete(clew: Clew, who: Who, template_id: UUID) -> None:
    """Delete a template; sessions made from it keep what they got."""
    await who.authorize("assistants", "delete", {"template_id": template_id})
    await templates.delete(clew.db, who.principal, str(template_id))
