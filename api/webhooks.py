"""Webhooks about sessions: who is to be called when one is created, archived, restored, gone."""

from dataclasses import asdict
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from clew.api.auth import Who
from clew.api.deps import Clew
from clew.api.reply import Reply
from clew.runtime import errors, subscriptions, targets

routes = APIRouter(prefix="/webhooks", tags=["webhooks"])


class Create(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    kinds: list[str] | None = Field(None, min_length=1, max_length=64)


@routes.post("", status_code=201)
async def create(clew: Clew, who: Who, body: Create) -> Reply:
    await who.authorize("webhooks", "create", {"url": body.url, "kinds": body.kinds})
    if clew.config.http and clew.config.http.disable_webhooks:
        raise errors.Unsupported("webhooks are switched off on this server", option="url")
    await targets.of(clew.config).check(body.url)
    made = await subscriptions.create(
        clew.db, who.principal, who.owner_id, body.url, kinds=body.kinds
    )
    return Reply(asdict(made), 201)


@routes.get("")
async def list_(clew: Clew, who: Who) -> Reply:
    await who.authorize("webhooks", "search", {})
    found = await subscriptions.list_(clew.db, who.principal)
    return Reply([asdict(item) for item in found])


@routes.delete("/{webhook_id}", status_code=204)
async def delete(clew: Clew, who: Who, webhook_id: UUID) -> None:
    await who.authorize("webhooks", "delete", {"webhook_id": webhook_id})
    await subscriptions.delete(clew.db, who.principal, str(webhook_id))
