"""What the tests of the long-term memory have in common."""

import itertools
from typing import LiteralString, cast

from hypothesis import HealthCheck, settings

from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.runtime import sessions

OWNER = 1 << 32 | 1
OTHER = 1 << 32 | 2
owners = itertools.count(2 << 32)

many = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


async def session(db: Database, owner_id: int = OWNER) -> str:
    made = await sessions.create(db, Principal.owner(owner_id), owner_id)
    return made.thread_id


async def age(db: Database, share: float) -> None:
    """Let this share of every item's life have gone by."""
    async with db.transaction(SERVICE) as conn:
        await conn.execute("update clew.store_item set expires_at = now() + ttl * %s", [1 - share])


async def count(db: Database, table: str = "store_item") -> int:
    statement = cast("LiteralString", f"select count(*) as rows from clew.{table}")  # noqa: S608
    [row] = await db.fetch(SERVICE, statement)
    return row["rows"]
