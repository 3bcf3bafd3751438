"""New sessions from old ones: forks and copies of the same owner, for which only a few rows are
written, and deep copies for another owner, which share nothing with what they were made from.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Unpack

from clew.checkpointing import bundle, lineage
from clew.checkpointing.errors import ThreadExists, UnknownCheckpoint, UnknownThread
from clew.checkpointing.lineage import Head, Scope
from clew.checkpointing.postgres import Connection, Principal
from clew.runtime import errors, ids, purge, sessions, standing, words
from clew.runtime.limits import Limit
from clew.runtime.rewind import Moved
from clew.runtime.sessions import Fields, Filter, Session, Ttl
from clew.runtime.sql import queries
from clew.runtime.standing import Ground, Standing, Why

Progress = Callable[[int], None]  # told how many bytes were copied since it was last told

NO_LIMIT = Limit()


def _silent(_: int) -> None: ...


async def fork(
    ground: Ground,
    who: Principal,
    thread_id: str,
    why: Why,
    *,
    checkpoint_id: str | None = None,
    lineage_id: int | None = None,
    scope: Scope = "path",
    target_id: str | None = None,
    limit: Limit = NO_LIMIT,
    allowed: Filter | None = None,
    **given: Unpack[Fields],
) -> Moved:
    """A session of the same owner that begins at a checkpoint of this one, at its head by default;
    with scope `all`, with every branch of it. Takes as long for a long session as for a short one.

    `given` replaces what it would have from the other; metadata is merged.
    """
    async with ground.db.transaction(who) as conn:
        source = await standing.look(conn, thread_id, allowed)
        target = await register(conn, source.owner_id, target_id, limit, _alike(source, given))
        head: Head | None = None

        async def move(line: int | None) -> Head:
            return await lineage.fork(
                conn,
                thread_id,
                target.thread_id,
                checkpoint_id=checkpoint_id,
                lineage_id=line,
                scope=scope,
                actor=why.actor,
                reason=why.reason,
            )

        try:
            head = await standing.located(conn, thread_id, checkpoint_id, lineage_id, move)
        except (UnknownThread, UnknownCheckpoint) as error:
            if checkpoint_id is not None:
                raise UnknownCheckpoint(
                    f"session {thread_id} has no checkpoint {checkpoint_id}"
                ) from error
            # Nothing has run in it: neither has anything in its fork.
        except ThreadExists as error:
            raise errors.Conflict(f"Thread with ID {target.thread_id} already exists") from error
        if head is None or head.owner_id != source.owner_id:
            now = await standing.look(conn, thread_id, allowed)
            if now.owner_id != source.owner_id:
                raise errors.Conflict("the session was handed over meanwhile")
        await conn.execute(
            queries["inherit_session"],
            {"thread_id": target.thread_id, "source_id": thread_id},
        )
        return await settled(conn, ground, target, head, new=True)


async def copy_to(
    ground: Ground,
    who: Principal,
    thread_id: str,
    owner_id: int,
    why: Why,
    *,
    checkpoint_id: str | None = None,
    lineage_id: int | None = None,
    target_id: str | None = None,
    limit: Limit = NO_LIMIT,
    progress: Progress = _silent,
    allowed: Filter | None = None,
    **given: Unpack[Fields],
) -> Moved:
    """A deep copy for another owner of what led to a checkpoint, at the head by default: read and
    written again, under the other's key. `who` may read the session; labels, pins and the lines
    that restores left do not go along."""
    theirs = Principal.owner(owner_id)
    async with _staged(ground, who, thread_id, checkpoint_id, lineage_id, why, allowed) as staged:
        source, staged_id = staged
        fields = _alike(source, given)
        async with ground.db.transaction(theirs) as conn:
            target = await register(conn, owner_id, target_id, limit, fields)
            if staged_id is None:
                return await settled(conn, ground, target, None)
            lines = bundle.dump(ground.db, who, staged_id, scope="path", vault=ground.vault)
            async with aclosing(_told(lines, progress)) as chunks:
                await bundle.load(
                    conn,
                    chunks,
                    target.thread_id,
                    owner_id,
                    vault=ground.vault,
                    actor=why.actor,
                    reason=why.reason or f"copied from {thread_id}",
                )
            head = await lineage.head(conn, target.thread_id)
            return await settled(conn, ground, target, head, full=True)


async def register(
    conn: Connection, owner_id: int, thread_id: str | None, limit: Limit, fields: Fields
) -> Session:
    """The row of a new session, within its owner's limit, in the caller's transaction."""
    values = sessions.row_of(owner_id, thread_id, fields)
    new_id: str = values["thread_id"]
    if limit.sessions is None:
        made = (await conn.execute(queries["create_session"], values)).rowcount == 1
    else:
        values |= {
            "reuse": False,
            "sessions": limit.sessions,
            "policy": limit.policy,
            "allowed": None,
        }
        await conn.execute(queries["lock_owner"], {"owner_id": owner_id})
        cursor = await conn.execute(queries["create_session_within_limits"], values)
        outcome = await cursor.fetchone()
        if outcome is None or outcome["full"]:
            raise errors.Limited(
                f"this owner has {outcome and outcome['living']} living sessions, and may have "
                f"{limit.sessions}",
                limit=limit.sessions,
            )
        made = outcome["made"]
    if not made:
        raise errors.Conflict(f"Thread with ID {new_id} already exists")
    return await standing.look(conn, new_id)


async def settled(
    conn: Connection,
    ground: Ground,
    target: Session,
    head: Head | None,
    *,
    full: bool = False,
    new: bool = False,
) -> Moved:
    """A session that was just given its head. `full` reads all of it, so that its words are found;
    `new` is one of this transaction's own."""
    now = Standing(message_count=0)
    if head is not None:
        now = await standing.read(conn, ground, target, full=full)
        # What is encrypted at rest is not to lie in the index of words in clear.
        texts = now.texts if ground.vault is None else ()
        if terms := words.index(target.owner_id, texts):
            added = {"thread_id": target.thread_id, "words": terms}
            await conn.execute(queries["add_words"], added)
    await standing.settle(conn, target, now, counts=False, new=new)
    return Moved(await standing.look(conn, target.thread_id), head, now)


def _alike(source: Session, given: Fields) -> Fields:
    """What a session made from another one has of it."""
    fields: Fields = {
        "graph_id": source.graph_id,
        "assistant_id": source.assistant_id,
        "kind": source.kind,
        "title": source.title,
        "description": source.description,
        "tags": source.tags,
        "config": source.config,
        "context": source.context,
        "resources": source.resources,
        "template": source.template,
        "parent_thread_id": source.thread_id,
        "ttl": Ttl(source.ttl, source.ttl_sliding, source.ttl_strategy, source.ttl_waiting),
        "idle_after": source.idle_after,
    }
    metadata = {**source.metadata, **(given.get("metadata") or {})}
    return {**fields, **given, "metadata": metadata}


@asynccontextmanager
async def _staged(
    ground: Ground,
    who: Principal,
    thread_id: str,
    checkpoint_id: str | None,
    lineage_id: int | None,
    why: Why,
    allowed: Filter | None,
) -> AsyncGenerator[tuple[Session, str | None]]:
    """A fork that stands still while it is read, and has nothing on it but what is to be copied.
    None where nothing has run."""
    staged_id = ids.mint()
    async with ground.db.transaction(who) as conn:
        source = await standing.look(conn, thread_id, allowed)
        row = {"thread_id": staged_id, "owner_id": source.owner_id}
        await conn.execute(queries["stage_session"], row)

        async def move(line: int | None) -> Head:
            return await lineage.fork(
                conn,
                thread_id,
                staged_id,
                checkpoint_id=checkpoint_id,
                lineage_id=line,
                actor=why.actor,
                reason="to be copied",
            )

        try:
            await standing.located(conn, thread_id, checkpoint_id, lineage_id, move)
            found = True
        except (UnknownThread, UnknownCheckpoint) as error:
            if checkpoint_id is not None:
                raise UnknownCheckpoint(
                    f"session {thread_id} has no checkpoint {checkpoint_id}"
                ) from error
            found = False
    try:
        yield source, staged_id if found else None
    finally:
        async with ground.db.transaction(who) as conn:
            await purge.sessions(conn, [staged_id])


async def _told(lines: AsyncGenerator[bytes], progress: Progress) -> AsyncGenerator[bytes]:
    async with aclosing(lines):
        async for line in lines:
            progress(len(line))
            yield line
