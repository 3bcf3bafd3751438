"""Threads as a whole, in the words of the Agent Server protocol: copy, prune, storage."""

from dataclasses import asdict
from uuid import UUID

from fastapi import APIRouter

from clew.api import rows
from clew.api.auth import Who
from clew.api.checkpoints import ground
from clew.api.deps import Clew, reach
from clew.api.reply import Reply
from clew.api.schema import Json, ThreadPrune
from clew.runtime import errors, forks, retention, sessions, storage
from clew.runtime.limits import Limit
from clew.runtime.standing import Why

routes = APIRouter(prefix="/threads", tags=["threads"])


@routes.post("/{thread_id}/copy")
async def copy(clew: Clew, who: Who, thread_id: UUID) -> Reply:
    """A new thread with every branch and the same checkpoint ids, however long the thread is."""
    try:
        await reach(clew, who, thread_id)
        value: Json = {"metadata": {}, "if_exists": "raise"}
        await who.authorize("threads", "create", value)
        moved = await forks.fork(
            ground(clew),
            who.principal,
            str(thread_id),
            Why(who.actor),
            scope="all",
            limit=Limit.of(clew.settings),
            metadata=value["metadata"],
        )
    except errors.NotFound:
        # What the official server says of a thread that is not there.
        raise errors.Conflict("Conflict") from None
    return Reply(rows.thread(moved.session))


@routes.post("/prune")
async def prune(clew: Clew, who: Who, body: ThreadPrune) -> Reply:
    """Delete threads, or all but the latest checkpoint of each; how many it was.

    Those that are not the caller's or not there are passed over, and with `keep_latest` those in
    which a run is in flight.
    """
    pruned = 0
    for thread_id in dict.fromkeys(str(given) for given in body.thread_ids):
        try:
            allowed = await who.authorize("threads", "delete", {"thread_id": thread_id})
            if body.strategy == "delete":
                await sessions.delete(
                    clew.db, who.principal, thread_id, actor=who.actor, allowed=allowed
                )
            else:
                await retention.keep_latest(clew.db, who.principal, thread_id, allowed=allowed)
        except (errors.NotFound, errors.Gone, errors.Conflict):
            continue
        pruned += 1
    return Reply({"pruned_count": pruned}, headers=body.notice())


@routes.get("/{thread_id}/storage")
async def measure(clew: Clew, who: Who, thread_id: UUID) -> Reply:
    """The bytes of a thread's checkpoints, values and pending writes."""
    await reach(clew, who, thread_id)
    found = await storage.measure(clew.db, who.principal, str(thread_id))
    return Reply(
        {
            "thread_id": found.thread_id,
            "total_bytes": found.total_bytes,
            "checkpoints": asdict(found.checkpoints),
            "channel_values": asdict(found.values),
            "pending_writes": asdict(found.writes),
        }
    )
