"""Shares over HTTP: give, list, revoke, and what others share with the caller."""

from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from clew.api import access
from clew.api import session_schema as show
from clew.api.auth import Who
from clew.api.deps import Clew
from clew.api.reply import Reply
from clew.api.session_schema import ShareCreate
from clew.runtime import sessions, shares

# Before the routes of single sessions, whose ids `shared` is not.
given = APIRouter(prefix="/sessions", tags=["shares"])
routes = APIRouter(prefix="/sessions/{thread_id}/shares", tags=["shares"])


@given.get("/shared")
async def shared_with_me(
    clew: Clew, who: Who, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> Reply:
    """What others share with the caller now."""
    await who.authorize("threads", "search", {"metadata": {}})
    found = await shares.given(clew.db, who.owner_id, limit=limit)
    return Reply({"shares": [show.share(share) for share in found]})


@routes.post("", status_code=201)
async def create(clew: Clew, who: Who, thread_id: UUID, body: ShareCreate) -> Reply:
    """Share a session with one owner of the tenant, or with all of them."""
    allowed = await access.demand(who, "update", thread_id)
    share = await shares.create(
        clew.db,
        who.principal,
        str(thread_id),
        tenant=who.tenant,
        grantee=body.owner,
        role=body.role,
        checkpoint_id=str(body.checkpoint_id) if body.checkpoint_id else None,
        lifetime=None if body.expires_in is None else timedelta(minutes=body.expires_in),
        actor=who.actor,
        allowed=allowed,
    )
    return Reply(show.share(share), 201)


@routes.get("")
async def list_(clew: Clew, who: Who, thread_id: UUID) -> Reply:
    """Every share of one's own session, revoked ones included."""
    allowed = await access.demand(who, "read", thread_id)
    await sessions.get(clew.db, who.principal, str(thread_id), allowed=allowed)
    found = await shares.of_session(clew.db, who.principal, str(thread_id))
    return Reply({"shares": [show.share(share) for share in found]})


@routes.delete("/{share_id}")
async def revoke(clew: Clew, who: Who, thread_id: UUID, share_id: UUID) -> Reply:
    """End a share, from this moment on."""
    allowed = await access.demand(who, "update", thread_id)
    await sessions.get(clew.db, who.principal, str(thread_id), allowed=allowed)
    share = await shares.revoke(clew.db, who.principal, str(thread_id), str(share_id))
    return Reply(show.share(share))
