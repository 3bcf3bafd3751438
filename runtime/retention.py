"""Each session's retention policy, and pruning by it.

docs/rewind.md tells what the policies keep.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from clew.checkpointing import garbage, labels, pins, policy
from clew.checkpointing import retention as below
from clew.checkpointing.errors import UnknownThread
from clew.checkpointing.keys import Vault
from clew.checkpointing.policy import DEFAULT, Policy
from clew.checkpointing.postgres import SERVICE, Connection, Database, Principal
from clew.checkpointing.retention import Pruned, Swept
from clew.runtime import errors, rewind, sessions, standing
from clew.runtime.sessions import Filter
from clew.runtime.sql import queries
from clew.runtime.standing import Why

log = logging.getLogger(__name__)

_LATEST = Policy("keep_last", count=1)


def parse(text: str) -> Policy:
    try:
        return policy.parse(text)
    except ValueError as error:
        raise errors.Invalid(f"policy: {error}") from None


async def get(db: Database, who: Principal, thread_id: str) -> Policy | None:
    """The session's own policy; None where it follows the server's."""
    row = await db.one(who, queries["get_retention"], {"thread_id": thread_id})
    if row is None:
        raise sessions.missing(thread_id)
    return None if row["retention"] is None else parse(row["retention"])


async def choose(
    db: Database,
    who: Principal,
    thread_id: str,
    chosen: Policy | None,
    why: Why,
    *,
    allowed: Filter | None = None,
) -> None:
    """Give the session a policy of its own, or with None the server's again."""
    async with db.transaction(who) as conn:
        session = await standing.look(conn, thread_id, allowed)
        written = None if chosen is None else str(chosen)
        values = {"thread_id": thread_id, "retention": written}
        await conn.execute(queries["set_retention"], values)
        await rewind.note(conn, session, "retention", why, {"policy": written})


async def prune(
    db: Database,
    who: Principal,
    thread_id: str,
    why: Why,
    *,
    chosen: Policy | None = None,
    default: Policy = DEFAULT,
    dry_run: bool = False,
    vault: Vault | None = None,
    allowed: Filter | None = None,
) -> Pruned:
    """Remove what the given policy, or else the session's own, does not keep. With `dry_run`, only
    say what that would be."""
    async with db.transaction(who) as conn:
        session = await standing.hold(conn, thread_id, allowed, archived=True)
        rule = chosen or await _own(conn, thread_id) or default
        try:
            unseal = None if vault is None else await vault.unsealer(conn, who, thread_id)
            gone = await below.prune(conn, thread_id, rule, dry_run=dry_run, unseal=unseal)
        except UnknownThread:
            return Pruned(thread_id)  # nothing ever ran
        if not dry_run and gone.bytes:
            await rewind.shrink(conn, session, gone.bytes)
            told = {"policy": str(rule), "checkpoints": gone.checkpoints, "bytes": gone.bytes}
            await rewind.note(conn, session, "prune", why, told)
        return gone


async def keep_latest(
    db: Database, who: Principal, thread_id: str, *, allowed: Filter | None = None
) -> None:
    """Leave a session nothing but its latest checkpoint, and what people marked."""
    async with db.transaction(who) as conn:
        session = await standing.hold(conn, thread_id, allowed, archived=True)
        try:
            if await pins.list_(conn, thread_id) or await labels.list_(conn, thread_id):
                gone = await below.prune(conn, thread_id, _LATEST)
                await rewind.shrink(conn, session, gone.bytes)
            else:
                await garbage.keep_latest(conn, thread_id)
        except UnknownThread:
            return


async def sweep(
    db: Database,
    default: Policy = DEFAULT,
    *,
    limit: int = 1000,
    budget: timedelta = timedelta(seconds=10),
    dry_run: bool = False,
) -> Swept:
    """Prune the sessions that are due, each by its own policy or else the default, and none that
    has a run in flight. Any number of replicas may sweep."""

    async def chosen(conn: Connection, thread_id: str) -> Policy:
        return await _own(conn, thread_id) or default

    swept = await below.sweep(
        db, SERVICE, chosen, idle=_quiet, limit=limit, budget=budget, dry_run=dry_run
    )
    for gone in () if dry_run else swept.pruned:
        values = {"thread_id": gone.thread_id, "bytes": gone.bytes, "empty": False}
        await db.execute(SERVICE, queries["shrink_session"], values)
    return swept


async def thin(db: Database, thread_id: str) -> None:
    """For the sweeper, of a session whose term is over and which keeps its latest checkpoint. One
    in which a run has begun since is in use, and its next term will end too."""
    with suppress(errors.NotFound, errors.Gone, errors.Conflict):
        await keep_latest(db, SERVICE, thread_id)


@asynccontextmanager
async def running(
    db: Database, *, interval: timedelta, default: Policy = DEFAULT
) -> AsyncGenerator[None]:
    """Sweep at every interval for as long as the context lasts."""
    stop = asyncio.Event()

    async def loop() -> None:
        while not stop.is_set():
            done = True
            try:
                done = (await sweep(db, default)).done
            except Exception:
                # The loop outlives a database that is away, and any fault; what is due stays due.
                log.exception("pruning failed; the next pass tries again")
            try:
                async with asyncio.timeout(interval.total_seconds() if done else 0):
                    await stop.wait()
            except TimeoutError:
                continue

    async with asyncio.TaskGroup() as group:
        group.create_task(loop())
        try:
            yield
        finally:
            stop.set()


async def _quiet(conn: Connection, thread_id: str) -> bool:
    cursor = await conn.execute(queries["is_session_quiet"], {"thread_id": thread_id})
    row = await cursor.fetchone()
    return row is not None and row["quiet"]


async def _own(conn: Connection, thread_id: str) -> Policy | None:
    row = await (await conn.execute(queries["get_retention"], {"thread_id": thread_id})).fetchone()
    return parse(row["retention"]) if row and row["retention"] else None
