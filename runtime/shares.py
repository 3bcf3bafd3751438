"""Sharing a session: with one owner of the tenant or with all of them, to read or to write, as it
goes on or as it was at one checkpoint, until it is revoked.

A share's row is the proof: a grantee finds it under its own principal, and only then is the session
looked at under its owner's, for this one session and no more than the share says.
"""

import uuid
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Literal, Self

from psycopg.rows import DictRow

from clew.checkpointing.postgres import Database, Principal
from clew.runtime import errors, ids, sessions
from clew.runtime.sessions import Filter
from clew.runtime.sql import queries

Role = Literal["reader", "writer"]


@dataclass(frozen=True, slots=True)
class Share:
    share_id: str
    thread_id: str
    owner_id: int
    grantee: str | None  # None: everyone of the tenant
    role: Role
    checkpoint_id: str | None  # None: live
    actor: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    @classmethod
    def of(cls, row: DictRow) -> Self:
        values = {field.name: row[field.name] for field in fields(cls)}
        values["share_id"] = str(row["share_id"])
        if row["checkpoint_id"] is not None:
            values["checkpoint_id"] = str(row["checkpoint_id"])
        return cls(**values)

    @property
    def principal(self) -> Principal:
        """Under whom the shared session is looked at."""
        return Principal.owner(self.owner_id)


async def create(
    db: Database,
    who: Principal,
    thread_id: str,
    *,
    tenant: str,
    grantee: str | None,
    role: Role = "reader",
    checkpoint_id: str | None = None,
    lifetime: timedelta | None = None,
    actor: str,
    allowed: Filter | None = None,
) -> Share:
    """`grantee` is an owner's name in this tenant; None shares with all of it."""
    if role == "writer" and checkpoint_id is not None:
        raise errors.Invalid("checkpoint_id: a share that is pinned is for readers")
    if grantee is None:
        session = await sessions.get(db, who, thread_id, allowed=allowed)
        whole = Principal.tenant_of(session.owner_id)
    else:
        whole = Principal.owner(await db.owner(tenant, grantee))
    values = {
        "share_id": ids.mint(),
        "thread_id": thread_id,
        "grantee_from": whole.owner_from,
        "grantee_to": whole.owner_to,
        "grantee": grantee,
        "role": role,
        "checkpoint_id": checkpoint_id and ids.check(checkpoint_id, "checkpoint"),
        "actor": actor,
        "lifetime": lifetime,
        "allowed": sessions.demand(allowed),
    }
    row = await db.one(who, queries["create_share"], values)
    if row is None:
        raise sessions.missing(thread_id)
    return Share.of(row)


async def of_session(db: Database, who: Principal, thread_id: str) -> list[Share]:
    """Every share of one's own session, revoked ones included."""
    rows = await db.fetch(who, queries["shares_of_session"], {"thread_id": thread_id})
    return [Share.of(row) for row in rows]


async def given(db: Database, owner_id: int, *, limit: int = 100) -> list[Share]:
    """What others share with this owner now."""
    values = {"owner_id": owner_id, "limit": limit}
    rows = await db.fetch(Principal.owner(owner_id), queries["shares_given"], values)
    return [Share.of(row) for row in rows]


async def access(db: Database, owner_id: int, thread_id: str) -> Share | None:
    """The strongest share that this owner holds of a session, if any."""
    values = {"owner_id": owner_id, "thread_id": thread_id}
    row = await db.one(Principal.owner(owner_id), queries["share_for"], values)
    return None if row is None else Share.of(row)


async def revoke(db: Database, who: Principal, thread_id: str, share_id: str) -> Share:
    try:
        key = uuid.UUID(share_id)
    except ValueError:
        raise errors.NotFound(f"Share {share_id} not found") from None
    values = {"share_id": key, "thread_id": thread_id}
    row = await db.one(who, queries["revoke_share"], values)
    if row is None:
        raise errors.NotFound(f"Share {share_id} not found")
    return Share.of(row)
