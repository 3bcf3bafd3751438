"""How many living sessions one owner may have, and taking up the latest one instead of making one
more. Both are decided under the owner's row lock, so that any number of calls at once come to the
same as one after another.
"""

from dataclasses import dataclass
from typing import Literal, Unpack

from clew.checkpointing.postgres import Database, Principal
from clew.runtime import errors, sessions
from clew.runtime.sessions import Fields, Filter, Session
from clew.runtime.settings import Settings
from clew.runtime.sql import queries

Policy = Literal["reject", "archive_oldest", "delete_oldest"]


@dataclass(frozen=True, slots=True)
class Limit:
    """`sessions` living (active or idle) ones; one with a run in progress is never moved away."""

    sessions: int | None = None
    policy: Policy = "reject"

    @classmethod
    def of(cls, settings: Settings) -> "Limit":
        return cls(settings.max_sessions, settings.max_sessions_policy)


@dataclass(frozen=True, slots=True)
class Created:
    session: Session
    new: bool


async def create(
    db: Database,
    who: Principal,
    owner_id: int,
    limit: Limit,
    *,
    thread_id: str | None = None,
    if_exists: Literal["raise", "do_nothing"] = "raise",
    reuse: Literal["latest"] | None = None,
    allowed: Filter | None = None,
    **given: Unpack[Fields],
) -> Created:
    """As `sessions.create`. With `reuse`, the owner's latest living session of the same agent (and
    kind, where given) is taken up, and only where there is none is one made."""
    values = sessions.row_of(owner_id, thread_id, given)
    new_id: str = values["thread_id"]
    key = {"thread_id": new_id, "allowed": sessions.demand(allowed)}
    if limit.sessions is None and reuse is None:
        made, found = await db.exchange(
            who, (queries["create_session"], values), (queries["get_session_of_id"], key)
        )
        new, row = made.count == 1, found.rows[0] if found.rows else None
        return Created(sessions.settle(new_id, row, made=new, if_exists=if_exists), new)
    values |= key | {
        "reuse": reuse == "latest",
        "sessions": limit.sessions,
        "policy": limit.policy,
    }
    async with db.work(who) as conn:
        await conn.execute(queries["lock_owner"], {"owner_id": owner_id})
        cursor = await conn.execute(queries["create_session_within_limits"], values)
        outcome = await cursor.fetchone()
    if outcome is None or outcome["full"]:
        raise errors.Limited(
            f"this owner has {outcome and outcome['living']} living sessions, and may have "
            f"{limit.sessions}",
            limit=limit.sessions,
        )
    if outcome["latest"] is not None:
        return Created(await sessions.get(db, who, outcome["latest"]), new=False)
    row = await db.one(who, queries["get_session_of_id"], key)
    new = outcome["made"]
    return Created(sessions.settle(new_id, row, made=new, if_exists=if_exists), new)
