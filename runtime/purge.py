"""Removing sessions for good: every row that is theirs, in the transaction of the caller.

What the registry and the runs keep hangs on the session's row by foreign keys or triggers, so a new
table cannot be forgotten; checkpoints are kept as long as a living fork still sees them.
"""

from collections.abc import Sequence

from clew.checkpointing import lineage
from clew.checkpointing.postgres import Connection
from clew.runtime.sql import queries


async def sessions(conn: Connection, thread_ids: Sequence[str]) -> list[str]:
    """Remove these sessions and say which were there."""
    key = {"thread_ids": list(thread_ids)}
    await conn.execute(queries["lock_sessions"], key)
    cursor = await conn.execute(queries["heads_of"], key)
    for row in await cursor.fetchall():
        await lineage.purge(conn, row["thread_id"])
    cursor = await conn.execute(queries["delete_session"], key)
    return [row["thread_id"] for row in await cursor.fetchall()]
