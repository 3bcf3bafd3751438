"""Who is to be called when something happens to sessions. A subscription hears of what its maker
could see when it was made: his own sessions, or an admin those of his tenant.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Self

from psycopg.rows import DictRow

from clew.checkpointing.postgres import Database, Principal
from clew.runtime import errors, ids
from clew.runtime.sql import queries

MOST = 100  # of one owner: each of them is told of everything
KIND = re.compile(r"[a-z]+\.[a-z_]+")


@dataclass(frozen=True, slots=True)
class Subscription:
    subscription_id: str
    url: str
    kinds: list[str] | None  # None: all
    attempts: int  # since its receiver last took something
    fault: str | None  # why it did not, the last time
    created_at: datetime

    @classmethod
    def of(cls, row: DictRow) -> Self:
        values = {field.name: row[field.name] for field in fields(cls)}
        values["subscription_id"] = str(row["subscription_id"])
        return cls(**values)


async def create(
    db: Database,
    who: Principal,
    owner_id: int,
    url: str,
    *,
    kinds: Sequence[str] | None = None,
) -> Subscription:
    """The URL is one that `targets` has checked."""
    for kind in kinds or ():
        if not KIND.fullmatch(kind) or len(kind) > 64:
            raise errors.Invalid("kinds: must be names of events such as session.created")
    values = {
        "subscription_id": ids.mint(),
        "owner_id": owner_id,
        "reach_from": who.owner_from,
        "reach_to": who.owner_to,
        "url": url,
        "kinds": None if kinds is None else list(kinds),
        "most": MOST,
    }
    row = await db.one(who, queries["create_subscription"], values)
    if row is None:
        raise errors.Limited(f"there are {MOST} webhooks of this owner already")
    return Subscription.of(row)


async def list_(db: Database, who: Principal, *, limit: int = 1000) -> list[Subscription]:
    rows = await db.fetch(who, queries["list_subscriptions"], {"limit": limit})
    return [Subscription.of(row) for row in rows]


async def delete(db: Database, who: Principal, subscription_id: str) -> None:
    values = {"subscription_id": subscription_id}
    if not await db.execute(who, queries["delete_subscription"], values):
        raise errors.NotFound("Not Found")
