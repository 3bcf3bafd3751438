"""Giving a session to another owner of the same tenant: every row of it changes hands at once.

A line of checkpoints has one owner and one key. So where storage is shared with another session, or
encrypted, it is written anew for the new owner, with every line and mark that the session has; what
living forks still see of the old storage stays the old owner's.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from psycopg import sql

from clew.checkpointing import bundle, lineage
from clew.checkpointing.errors import UnknownThread
from clew.checkpointing.keys import Vault
from clew.checkpointing.postgres import SERVICE, Connection, Database, Principal
from clew.runtime import errors, sessions
from clew.runtime.sessions import Filter, Session
from clew.runtime.sql import queries

# What was told or noted about it stays with whose session it was then.
STAYS = frozenset({"audit", "outbox", "move"})


async def to(
    db: Database,
    who: Principal,
    thread_id: str,
    owner: str,
    *,
    actor: str,
    vault: Vault | None = None,
    allowed: Filter | None = None,
) -> Session:
    """`who` must reach both owners. Takes as long for a long session as for a short one, unless its
    storage has to be copied."""
    session = await sessions.get(db, who, thread_id, allowed=allowed)
    values = {"thread_id": thread_id, "tenant_id": session.owner_id >> 32}
    [tenant] = await db.fetch(SERVICE, queries["name_of_tenant"], values)
    owner_id = await db.owner(tenant["name"], owner)
    if not who.owner_from <= owner_id <= who.owner_to:
        raise errors.Forbidden("a session is handed over within one tenant")
    async with db.transaction(who) as conn:
        cursor = await conn.execute(queries["hold_for_transfer"], values)
        row = await cursor.fetchone()
        if row is None:
            raise sessions.missing(thread_id)
        if row["status"] == "busy":
            raise errors.Conflict("a session with a run in progress cannot be handed over")
        if owner_id != session.owner_id:
            if await _shared(conn, thread_id) or vault is not None:
                await _write_anew(db, conn, who, thread_id, owner_id, vault, actor)
            else:
                await conn.execute(
                    queries["transfer_storage"], {"thread_id": thread_id, "owner_id": owner_id}
                )
            await _move(conn, thread_id, owner_id)
            moved = {"thread_id": thread_id, "owner_id": owner_id, "old_id": session.owner_id}
            await conn.execute(queries["transfer_words"], moved)
        noted = {"thread_id": thread_id, "owner_id": owner_id, "actor": actor, "owner": owner}
        await conn.execute(queries["note_transfer"], noted)
    return await sessions.find(db, who, thread_id)


async def _shared(conn: Connection, thread_id: str) -> bool:
    """Have the storage to oneself; whether other sessions have a part in it."""
    values = {"thread_id": thread_id}
    await conn.execute(queries["hold_head_for_transfer"], values)
    await conn.execute(queries["hold_lineages_for_transfer"], values)
    row = await (await conn.execute(queries["storage_is_shared"], values)).fetchone()
    return row is not None and row["shared"]


async def _write_anew(
    db: Database,
    conn: Connection,
    who: Principal,
    thread_id: str,
    owner_id: int,
    vault: Vault | None,
    actor: str,
) -> None:
    """The storage once more, read as it was before this transaction, written under another key."""
    try:
        # Nobody writes to it from here on; that it is read elsewhere disturbs nobody.
        head = await lineage.claim(conn, thread_id)
    except UnknownThread:
        return  # nothing has run in it
    lines = bundle.dump(db, who, thread_id, scope="all", vault=vault)
    async with aclosing(lines):
        first = await anext(lines)  # its snapshot is taken before anything is removed here
        await lineage.purge(conn, thread_id, actor=actor, reason="handed over")

        async def chunks() -> AsyncGenerator[bytes]:
            yield first
            async for line in lines:
                yield line

        async with aclosing(chunks()) as all_of_it:
            await bundle.load(
                conn,
                all_of_it,
                thread_id,
                owner_id,
                vault=vault,
                actor=actor,
                reason="handed over",
            )
    # Ids of events go on from where they are: they begin with the epoch.
    await conn.execute(queries["go_on_from"], {"thread_id": thread_id, "epoch": head.epoch})


async def _move(conn: Connection, thread_id: str, owner_id: int) -> None:
    """The tables are asked for, so that none can be forgotten."""
    values = {"thread_id": thread_id, "owner_id": owner_id}
    cursor = await conn.execute(queries["tables_of_sessions"])
    for row in await cursor.fetchall():
        if row["name"] not in STAYS:
            statement = sql.SQL(
                "update clew.{} set owner_id = %(owner_id)s where thread_id = %(thread_id)s"
            ).format(sql.Identifier(row["name"]))
            await conn.execute(statement, values)
