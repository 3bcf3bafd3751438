"""Removing sessions for good: every row that is theirs, in the transaction of the caller.

What the registry and the runs keep hangs on the session's row by foreign keys or triggers, so a new
table cannot be forgotten; checkpoints are kept as long as a living fork still sees them.
"""

from collections.abc import Sequence

from clew.checkpointing import lineage
from clew.checkpointing.postgres import Connection
from clew.runtime.sql import queries


async def sessions(
    conn: Connection, thread_ids: Sequence[str], *, actor: str | None = None
) -> list[str]:
    """Remove these sessions and say which were there. That `actor` did it stays in the audit log;
    without one nothing does."""
    key: dict[str, object] = {"thread_ids": list(thread_ids), "actor": actor}
    await conn.execute(queries["lock_sessions"], key)
    cursor = await conn.execute(queries["heads_of"], key)
    for row in await cursor.fetchall():
        await lineage.purge(conn, row["thread_id"], actor=actor)
    cursor = await conn.execute(queries["delete_session"], key)
    return [row["thread_id"] for row in await cursor.fetchall()]
