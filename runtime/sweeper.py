"""What time alone brings about: expired sessions go, deletions become final, what listeners no
longer need is forgotten. Any number of replicas sweep; each takes what no other holds, a bounded
number at a time, one transaction each.

Nothing waits for a sweep: an expired session refuses everybody from the moment that it expires.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from clew.checkpointing.postgres import SERVICE, Database
from clew.runtime import outbox, purge
from clew.runtime.sql import queries

log = logging.getLogger(__name__)

# Leaves a session nothing but its latest checkpoint.
Thin = Callable[[str], Awaitable[object]]


DEFAULT_LIMIT = 500


@dataclass(frozen=True, slots=True)
class Rules:
    undo_window: timedelta = timedelta(days=7)
    outbox_retention: timedelta = timedelta(days=7)
    limit: int = DEFAULT_LIMIT  # sessions of each kind in one pass


@dataclass(frozen=True, slots=True)
class Swept:
    expired: int = 0
    thinned: int = 0
    purged: int = 0  # whose deletion became final
    forgotten: int = 0  # happenings
    more: bool = False  # the pass stopped at its bound


async def sweep(db: Database, rules: Rules, thin: Thin | None = None) -> Swept:
    """One pass. Without `thin`, sessions that keep their latest checkpoint are left as they are."""
    expired = thinned = 0
    taken, failed = 0, list[str]()
    while taken < rules.limit and (row := await _expire_one(db, thin, failed)) is not None:
        taken += 1
        if row["thread_id"] not in failed:
            expired += row["ttl_strategy"] == "delete"
            thinned += row["ttl_strategy"] == "keep_latest"
    ended = 0
    while ended < rules.limit and await _finish_one(db, rules.undo_window, failed):
        ended += 1
    forgotten = await outbox.trim(db, rules.outbox_retention)
    more = rules.limit in (taken, ended)
    return Swept(expired, thinned, ended, forgotten, more)


async def _expire_one(db: Database, thin: Thin | None, failed: list[str]) -> DictRow | None:
    values = {"thin": thin is not None, "skip": failed}
    row: DictRow | None = None
    try:
        async with db.transaction(SERVICE) as conn:
            row = await (await conn.execute(queries["due_expired"], values)).fetchone()
            if row is None:
                return None
            if row["ttl_strategy"] == "delete":
                note = _note(row["owner_id"], row["thread_id"], "expire")
                await conn.execute(queries["announce_expired"], row)
                await conn.execute(queries["note_audit"], note)
                await purge.sessions(conn, [row["thread_id"]])
            else:
                await conn.execute(queries["thinned"], {"thread_id": row["thread_id"]})
        if row["ttl_strategy"] == "keep_latest" and thin is not None:
            # Outside the transaction, since it locks what it works on itself. Dying in between
            # leaves the checkpoints to the session's next term.
            await thin(row["thread_id"])
    except Exception:
        if row is None:
            raise
        # One session that cannot be removed must not keep all others from it.
        log.exception("session %s could not be swept", row["thread_id"])
        failed.append(row["thread_id"])
    return row


async def _finish_one(db: Database, undo_window: timedelta, failed: list[str]) -> bool:
    values = {"undo_window": undo_window, "skip": failed}
    row: DictRow | None = None
    try:
        async with db.transaction(SERVICE) as conn:
            row = await (await conn.execute(queries["due_deleted"], values)).fetchone()
            if row is None:
                return False
            await purge.sessions(conn, [row["thread_id"]], actor="sweeper")
    except Exception:
        if row is None:
            raise
        log.exception("session %s could not be purged", row["thread_id"])
        failed.append(row["thread_id"])
    return True


def _note(owner_id: int, thread_id: str, move: str) -> dict[str, object]:
    return {
        "owner_id": owner_id,
        "thread_id": thread_id,
        "actor": "sweeper",
        "move": move,
        "from_state": "expired",
        "to_state": None,
        "detail": Jsonb({}),
    }


@asynccontextmanager
async def running(
    db: Database, rules: Rules, *, interval: timedelta, thin: Thin | None = None
) -> AsyncGenerator[None]:
    """Sweep at every interval for as long as the context lasts."""
    stop = asyncio.Event()

    async def loop() -> None:
        while not stop.is_set():
            more = False
            try:
                more = (await sweep(db, rules, thin)).more
            except Exception:
                # The loop outlives a database that is away, and any fault; what is due stays due.
                log.exception("a sweep failed; the next one tries again")
            try:
                async with asyncio.timeout(0 if more else interval.total_seconds()):
                    await stop.wait()
            except TimeoutError:
                continue

    async with asyncio.TaskGroup() as group:
        group.create_task(loop())
        try:
            yield
        finally:
            stop.set()
