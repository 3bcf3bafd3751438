"""Erasing an owner: every row, in every table that has an owner, checkpoints included; and a
receipt that names nobody.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Self
from uuid import UUID, uuid4

from psycopg import sql
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from clew.checkpointing import lineage
from clew.checkpointing.postgres import SERVICE, Connection, Database, Principal
from clew.runtime import errors, purge
from clew.runtime.sql import queries

log = logging.getLogger(__name__)

BATCH = 50  # sessions of one transaction

# What went with the sessions already. These have no index by owner, being large.
GONE_BEFORE = frozenset({"checkpoint", "item", "write", "event"})


@dataclass(frozen=True, slots=True)
class Receipt:
    receipt_id: str
    subject: str  # sha256 of "tenant/owner"
    actor: str
    removed: dict[str, int]
    started_at: datetime
    ended_at: datetime

    @classmethod
    def of(cls, row: DictRow) -> Self:
        values = {field.name: row[field.name] for field in fields(cls)}
        values["receipt_id"] = str(row["receipt_id"])
        return cls(**values)


def subject(tenant: str, owner: str) -> str:
    return hashlib.sha256(f"{tenant}/{owner}".encode()).hexdigest()


async def erase(
    db: Database,
    tenant: str,
    owner: str,
    *,
    actor: str,
    progress: Callable[[int], None] | None = None,
) -> Receipt:
    """Remove everything of this owner. Sessions go first, a batch at a time, so that an interrupted
    erasure is simply started again; what is left goes in one transaction with the receipt."""
    owner_id = await find(db, tenant, owner)
    who = Principal.owner(owner_id)
    started_at = datetime.now(UTC)
    removed: Counter[str] = Counter()
    while True:
        async with db.transaction(who) as conn:
            values = {"owner_id": owner_id, "limit": BATCH}
            cursor = await conn.execute(queries["sessions_of_owner"], values)
            thread_ids = [row["thread_id"] for row in await cursor.fetchall()]
            gone = await purge.sessions(conn, thread_ids) if thread_ids else []
        if not gone:
            break
        removed["session"] += len(gone)
        if progress is not None:
            progress(removed["session"])
    async with db.transaction(SERVICE) as conn:
        removed.update(await _rest(conn, owner_id))
        cursor = await conn.execute(
            queries["create_receipt"],
            {
                "receipt_id": uuid4(),
                "owner_id": owner_id >> 32 << 32,
                "subject": subject(tenant, owner),
                "actor": actor,
                "removed": Jsonb({name: count for name, count in removed.items() if count}),
                "started_at": started_at,
            },
        )
        receipt = Receipt.of((await cursor.fetchall())[0])
    db.forget(tenant, owner)
    return receipt


async def find(db: Database, tenant: str, owner: str) -> int:
    """An owner who is known already, unlike `db.owner`, which makes one."""
    row = await db.one(SERVICE, queries["owner_named"], {"tenant": tenant, "owner": owner})
    if row is None:
        raise errors.NotFound("there is no such owner")
    return row["owner_id"]


async def survey(db: Database, tenant: str, owner: str) -> dict[str, int]:
    """How many rows of this owner there are in each table; what `erase` would remove."""
    who = Principal.owner(await find(db, tenant, owner))
    found: dict[str, int] = {}
    async with db.transaction(who) as conn:
        tables = await (await conn.execute(queries["owned_tables"])).fetchall()
        for row in tables:
            statement = sql.SQL("select count(*) as rows from clew.{} where owner_id = %s")
            counted = await conn.execute(
                statement.format(sql.Identifier(row["name"])), [who.owner_from], prepare=False
            )
            found[row["name"]] = (await counted.fetchall())[0]["rows"]
    return {name: count for name, count in found.items() if count}


async def _rest(conn: Connection, owner_id: int) -> dict[str, int]:
    """What hangs on no session. The tables are asked for, so that none can be forgotten."""
    await lineage.collect(conn, limit=1_000_000)
    removed: dict[str, int] = {}
    cursor = await conn.execute(queries["owned_tables"])
    for row in await cursor.fetchall():
        if row["name"] in GONE_BEFORE:
            continue
        statement = sql.SQL("delete from clew.{} where owner_id = %s")
        deleted = await conn.execute(
            statement.format(sql.Identifier(row["name"])), [owner_id], prepare=False
        )
        removed[row["name"]] = deleted.rowcount
    return removed


async def receipt(db: Database, who: Principal, receipt_id: str) -> Receipt:
    """A tenant's admin can show what was removed."""
    try:
        key = UUID(receipt_id)
    except ValueError:
        raise errors.NotFound(f"Receipt {receipt_id} not found") from None
    row = await db.one(who, queries["get_receipt"], {"receipt_id": key})
    if row is None:
        raise errors.NotFound(f"Receipt {receipt_id} not found")
    return Receipt.of(row)
