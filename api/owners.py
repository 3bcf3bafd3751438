"""All sessions of an owner or an agent at once, and the erasure of an owner."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter

from clew.api.auth import Caller, Who
from clew.api.deps import Clew, Parts
from clew.api.reply import Reply
from clew.runtime import bulk, erasure, errors
from clew.runtime.bulk import Deleted
from clew.runtime.erasure import Receipt

routes = APIRouter(tags=["owners"])


@routes.delete("/owners/{owner}/sessions")
async def delete_of_owner(clew: Clew, who: Who, owner: str, graph_id: str | None = None) -> Reply:
    """Delete all sessions of an owner, one's own or as an admin; they can be brought back for a
    while. Sessions at work are left alone and named."""
    owner_id = await _owner(clew, who, owner)
    allowed = await who.authorize("threads", "delete", {"metadata": {}})
    gone = await bulk.delete(
        clew.db,
        who.principal,
        actor=who.actor,
        owner_id=owner_id,
        graph_id=graph_id,
        allowed=allowed,
    )
    return Reply(_deleted(gone))


@routes.delete("/agents/{graph_id}/sessions")
async def delete_of_agent(clew: Clew, who: Who, graph_id: str) -> Reply:
    """Delete all sessions of an agent, as far as the caller reaches."""
    allowed = await who.authorize("threads", "delete", {"metadata": {}})
    gone = await bulk.delete(
        clew.db, who.principal, actor=who.actor, graph_id=graph_id, allowed=allowed
    )
    return Reply(_deleted(gone))


@routes.post("/owners/{owner}/erase")
async def erase(clew: Clew, who: Who, owner: str) -> Reply:
    """Remove everything of an owner, for good and at once, and say what it was. For admins."""
    who.require("admin", "service")
    await who.authorize("threads", "delete", {"owner": owner})
    done = await erasure.erase(clew.db, who.tenant, owner, actor=who.actor)
    return Reply(_receipt(done))


@routes.get("/erasures/{receipt_id}")
async def read_receipt(clew: Clew, who: Who, receipt_id: UUID) -> Reply:
    """The receipt of an erasure. For admins."""
    who.require("admin", "service")
    return Reply(_receipt(await erasure.receipt(clew.db, who.principal, str(receipt_id))))


async def _owner(clew: Parts, who: Caller, owner: str) -> int:
    """The owner of that name in the caller's tenant; whoever is no admin has one name to give."""
    if owner == who.owner:
        return who.owner_id
    if who.role == "owner":
        raise errors.NotFound("there is no such owner")
    return await erasure.find(clew.db, who.tenant, owner)


def _deleted(gone: Deleted) -> dict[str, Any]:
    return {"deleted": gone.deleted, "busy": gone.busy}


def _receipt(done: Receipt) -> dict[str, Any]:
    return {
        "receipt_id": done.receipt_id,
        "subject": done.subject,
        "removed": done.removed,
        "started_at": done.started_at,
        "ended_at": done.ended_at,
    }
