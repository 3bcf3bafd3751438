"""What a session keeps of its history, what it takes, and pruning it."""

from dataclasses import asdict
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import Field

from clew.api.auth import Who
from clew.api.checkpoints import Reason
from clew.api.deps import Clew, reach
from clew.api.reply import Reply
from clew.api.session_schema import Json, Strict
from clew.checkpointing.policy import Policy
from clew.runtime import retention, storage
from clew.runtime.standing import Why

routes = APIRouter(prefix="/sessions/{thread_id}", tags=["retention"])


class Choose(Strict):
    policy: str = Field(max_length=100)
    reason: Reason = None


class Prune(Strict):
    policy: Annotated[str | None, Field(max_length=100)] = None
    dry_run: bool = False
    reason: Reason = None


@routes.get("/retention")
async def get(clew: Clew, who: Who, thread_id: UUID) -> Reply:
    """The session's retention policy, its own or the server's."""
    await reach(clew, who, thread_id)
    own = await retention.get(clew.db, who.principal, str(thread_id))
    return Reply(_shown(own, clew.settings.retention))


@routes.put("/retention")
async def choose(clew: Clew, who: Who, thread_id: UUID, body: Choose) -> Reply:
    """Give the session a policy of its own."""
    await reach(clew, who, thread_id, "update")
    policy = retention.parse(body.policy)
    why = Why(who.actor, body.reason)
    await retention.choose(clew.db, who.principal, str(thread_id), policy, why)
    return Reply(_shown(policy, clew.settings.retention))


@routes.delete("/retention", status_code=204)
async def follow(clew: Clew, who: Who, thread_id: UUID) -> Response:
    """Let the session follow the server's policy again."""
    await reach(clew, who, thread_id, "update")
    await retention.choose(clew.db, who.principal, str(thread_id), None, Why(who.actor))
    return Response(status_code=204)


@routes.post("/prune")
async def prune(clew: Clew, who: Who, thread_id: UUID, body: Prune | None = None) -> Reply:
    """Remove what the policy does not keep; with `dry_run`, say what that would be."""
    body = body or Prune()
    await reach(clew, who, thread_id, "read" if body.dry_run else "delete")
    gone = await retention.prune(
        clew.db,
        who.principal,
        str(thread_id),
        Why(who.actor, body.reason),
        chosen=None if body.policy is None else retention.parse(body.policy),
        default=clew.settings.retention,
        dry_run=body.dry_run,
        vault=clew.saver.vault,
    )
    return Reply({**asdict(gone), "dry_run": body.dry_run})


@routes.get("/storage")
async def measure(clew: Clew, who: Who, thread_id: UUID) -> Reply:
    """The bytes that the session takes, in all and channel by channel."""
    await reach(clew, who, thread_id)
    return Reply(asdict(await storage.measure(clew.db, who.principal, str(thread_id))))


def _shown(own: Policy | None, default: Policy) -> Json:
    return {"policy": str(own or default), "inherited": own is None}
