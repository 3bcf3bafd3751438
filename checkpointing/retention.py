"""Retention: what a policy lets go of goes, and whatever stays is as it was.

One transaction for each session, under the locks of its head and its lineages: no write is under
way meanwhile, and a fork comes before or after. docs/design/retention.md tells the rules.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from langgraph.checkpoint.serde.base import SerializerProtocol
from psycopg.rows import DictRow

from clew.checkpointing import choice, garbage, lineage, manifest, models, text, view
from clew.checkpointing.choice import Plan, Session
from clew.checkpointing.errors import (
    CheckpointInUse,
    FenceLost,
    UnknownThread,
)
from clew.checkpointing.manifest import Range
from clew.checkpointing.policy import DEFAULT, Policy
from clew.checkpointing.postgres import Connection, Database, Principal
from clew.checkpointing.reading import RAW, Unseal
from clew.checkpointing.spans import Spans
from clew.checkpointing.sql import Queries

PolicyOf = Callable[[Connection, str], Awaitable[Policy]]
Idle = Callable[[Connection, str], Awaitable[bool]]

log = logging.getLogger(__name__)

_queries = Queries("clew.checkpointing.queries")
_PAGE = 50
_BUSY = timedelta(minutes=10)
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Pruned:
    """What went, or would go, of one session."""

    thread_id: str
    checkpoint_ids: tuple[str, ...] = ()  # of the root graph
    checkpoints: int = 0  # subgraphs' included
    writes: int = 0
    items: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Swept:
    """What a pass over many sessions did."""

    looked_at: int = 0
    skipped: int = 0  # busy: they come round again
    failed: int = 0  # logged; they come round again too
    pruned: list[Pruned] = field(default_factory=list[Pruned])
    done: bool = False  # no session was left that is due

    @property
    def bytes(self) -> int:
        return sum(one.bytes for one in self.pruned)


async def prune(
    conn: Connection,
    thread_id: str,
    policy: Policy = DEFAULT,
    *,
    dry_run: bool = False,
    epoch: int | None = None,
    serde: SerializerProtocol = RAW,
    unseal: Unseal | None = None,
) -> Pruned:
    """Remove what the policy does not keep; with `dry_run`, say what that would be.

    The caller makes sure that no run of the session is under way. With `epoch`, raises
    `FenceLost` if that is no longer the current one. Raises `UnknownThread`.
    """
    head = await _lock(conn, "hold_head", thread_id)
    if head is None:
        raise UnknownThread(f"there is no session {thread_id!r}")
    if epoch is not None and head["epoch"] != epoch:
        raise FenceLost(f"session {thread_id!r} is no longer at epoch {epoch}")
    session = await _session(conn, head)
    return await _prune(conn, session, policy, dry_run, serde, unseal)


async def delete(
    conn: Connection,
    thread_id: str,
    checkpoint_ids: Collection[str | UUID],
    *,
    epoch: int | None = None,
) -> Pruned:
    """Delete single checkpoints with what ran under them; what followed them stays, linked past.

    Takes the session over as a writer does. Raises `UnknownCheckpoint`, and `CheckpointInUse`
    for the newest of a line (restore an older one instead), for one that something was forked
    from, that another session sees, that is pinned or labelled, or that a DeltaChannel needs.
    """
    await lineage.claim(conn, thread_id, epoch=epoch)
    head = await _lock(conn, "hold_head", thread_id)
    assert head is not None
    session = await _session(conn, head)
    wanted = {view.uuid(checkpoint_id) for checkpoint_id in checkpoint_ids}
    own = {row["checkpoint_id"] for row in session.rows if not row["ns"]}
    for checkpoint_id in wanted - own:
        # Either nobody's, or it lies in the session that this one was forked from.
        lines = await view.lines_of(conn, thread_id, every=True)
        await view.find(conn, lines, checkpoint_id)
        raise CheckpointInUse(f"checkpoint {checkpoint_id} belongs to another session")
    plan, refused = choice.without(session, wanted)
    if refused:
        named = ", ".join(sorted(str(checkpoint_id) for checkpoint_id in refused))
        raise CheckpointInUse(f"still needed, and not deleted: {named}")
    return await _apply(conn, session, plan, dry_run=False)


async def clear(
    conn: Connection,
    thread_id: str,
    *,
    epoch: int | None = None,
    actor: str | None = None,
    reason: str | None = None,
) -> None:
    """Delete every checkpoint of a session, on every line, with all marks; the session stays.

    What living forks see of it stays for them. Takes the session over as a writer does.
    """
    head = await lineage.claim(conn, thread_id, epoch=epoch)
    escaped = {"thread_id": text.escape(thread_id)}
    await conn.execute(_queries["forget_marks"], escaped)
    cursor = await conn.execute(_queries["disown"], escaped)
    old = [row["lineage_id"] for row in await cursor.fetchall()]
    cursor = await conn.execute(_queries["begin_again"], escaped)
    row = await cursor.fetchone()
    assert row is not None
    for lineage_id in old:
        await garbage.trim(conn, lineage_id)
    await conn.execute(
        _queries["add_move"],
        {
            **escaped,
            "owner_id": head.owner_id,
            "kind": "purge",
            "from_id": head.lineage_id,
            "to_id": row["lineage_id"],
            "checkpoint_id": None,
            "actor": actor,
            "reason": reason,
        },
    )


async def sweep(
    db: Database,
    who: Principal,
    policy: Policy | PolicyOf = DEFAULT,
    *,
    idle: Idle | None = None,
    limit: int = 1000,
    budget: timedelta = timedelta(seconds=10),
    dry_run: bool = False,
    unseal: Unseal | None = None,
) -> Swept:
    """Prune the sessions that are due, the longest due first, until `limit` or `budget` is used up.

    `idle` says, under the lock of the session's head, whether no run of it is under way; one that
    is busy or locked is skipped. Each session is a transaction of its own, and one that cannot be
    pruned stops none of the others.
    """
    swept = Swept()
    until = time.monotonic() + budget.total_seconds()
    after: dict[str, Any] = {"after": None, "after_id": None}
    while (left := limit - swept.looked_at - swept.skipped - swept.failed) > 0:
        page = await db.fetch(who, _queries["due_heads"], {"limit": min(_PAGE, left), **after})
        if not page:
            swept.done = True
            return swept
        for due in page:
            if time.monotonic() >= until:
                return swept
            # Onward from here: one that is locked stays due, and is not met twice.
            after = {"after": due["retain_at"], "after_id": due["thread_id"]}
            try:
                pruned = await _visit(db, who, due["thread_id"], policy, idle, dry_run, unseal)
            except Exception:  # whatever is wrong with one session, the others are due as well
                log.exception("session %r was not pruned", text.unescape(due["thread_id"]))
                swept.failed += 1
                await _put_off(db, who, due["thread_id"], dry_run)
                continue
            if pruned is None:
                swept.skipped += 1
            else:
                swept.looked_at += 1
                swept.pruned += [pruned] if pruned.bytes else []
    return swept


async def _put_off(db: Database, who: Principal, escaped: str, dry_run: bool) -> None:
    """Look at a session again in a while, in a transaction that nothing has gone wrong in."""
    async with db.transaction(who) as conn:
        if await _lock(conn, "lock_free_head", text.unescape(escaped)):
            await _look_again(conn, escaped, _BUSY, dry_run)


async def _visit(
    db: Database,
    who: Principal,
    escaped: str,
    policy: Policy | PolicyOf,
    idle: Idle | None,
    dry_run: bool,
    unseal: Unseal | None,
) -> Pruned | None:
    thread_id = text.unescape(escaped)
    async with db.transaction(who) as conn:
        head = await _lock(conn, "lock_free_head", thread_id)
        if head is None:
            return None
        if idle is not None and not await idle(conn, thread_id):
            await _look_again(conn, escaped, _BUSY, dry_run)
            return None
        chosen = policy if isinstance(policy, Policy) else await policy(conn, thread_id)
        if chosen.kind == "keep_all":
            await _look_again(conn, escaped, _DAY, dry_run)
            return Pruned(thread_id)
        session = await _session(conn, head)
        pruned = await _prune(conn, session, chosen, dry_run, RAW, unseal)
        await _look_again(conn, escaped, _pause(session, chosen), dry_run)
        return pruned


async def _look_again(conn: Connection, escaped: str, pause: timedelta, dry_run: bool) -> None:
    if not dry_run:
        await conn.execute(_queries["look_again"], {"thread_id": escaped, "pause": pause})


def _pause(session: Session, policy: Policy) -> timedelta:
    """Until something of the session may have come of age."""
    young = [
        row["created_at"]
        for row in session.rows
        if row["created_at"] > session.now - policy.untouched
    ]
    oldest: datetime = min(young, default=session.now)
    return max(oldest + policy.untouched - session.now, _DAY)


async def _lock(conn: Connection, query: str, thread_id: str) -> DictRow | None:
    cursor = await conn.execute(_queries[query], {"thread_id": text.escape(thread_id)})
    return await cursor.fetchone()


async def _session(conn: Connection, head: DictRow) -> Session:
    """Everything that a decision needs to know. The head is locked; this locks the lineages."""
    thread = {"thread_id": head["thread_id"]}
    cursor = await conn.execute(_queries["lock_lineages"], thread)
    lineages = await cursor.fetchall()
    own = {"lineage_ids": [row["lineage_id"] for row in lineages]}
    cursor = await conn.execute(_queries["family"], own)
    family = await cursor.fetchall()
    cursor = await conn.execute(_queries["retained_rows"], own, binary=True)
    rows = await cursor.fetchall()
    cursor = await conn.execute(_queries["marked_checkpoints"], thread)
    marked = {row["checkpoint_id"] for row in await cursor.fetchall()}
    return Session(
        thread_id=head["thread_id"],
        head_id=head["lineage_id"],
        now=head["now"],
        lineages=lineages,
        rows=rows,
        family=family,
        marked=marked,
    )


async def _prune(
    conn: Connection,
    session: Session,
    policy: Policy,
    dry_run: bool,
    serde: SerializerProtocol,
    unseal: Unseal | None,
) -> Pruned:
    if policy.kind == "keep_runs":
        old = session.now - policy.untouched
        session.before_model = await models.before(
            conn, [row for row in session.rows if row["created_at"] <= old], serde, unseal
        )
    return await _apply(conn, session, choice.decide(session, policy), dry_run=dry_run)


async def _apply(conn: Connection, session: Session, plan: Plan, *, dry_run: bool) -> Pruned:
    thread_id = text.unescape(session.thread_id)
    if not plan:
        return Pruned(thread_id)
    own = [line["lineage_id"] for line in session.lineages]
    if not dry_run:
        await conn.execute(
            _queries["bump_sweep"], {"lineages": own, "threads": [session.thread_id]}
        )
    writes = await _count(conn, "writes", dry_run, _doomed_writes(plan))
    if not dry_run and plan.rows:
        await conn.execute(_queries["drop_checkpoints"], _columns(plan.rows))
    if not dry_run and plan.relink:
        await conn.execute(
            _queries["relink_checkpoints"],
            {
                **_columns([row for row, _, _ in plan.relink]),
                "parents": [above for _, above, _ in plan.relink],
                "entries": [entry for _, _, entry in plan.relink],
            },
        )
    items = {"rows": 0, "bytes": 0}
    if plan.rows:
        live = await _live(conn, session, plan)
        items = await _count(conn, "items", dry_run, {"lineage_ids": own, **_spans(live)})
    if plan.lines and not dry_run:
        await conn.execute(_queries["drop_lines"], {"lineage_ids": plan.lines})
    return Pruned(
        thread_id=thread_id,
        checkpoint_ids=tuple(str(row["checkpoint_id"]) for row in plan.rows if not row["ns"]),
        checkpoints=len(plan.rows),
        writes=writes["rows"],
        items=items["rows"],
        bytes=writes["bytes"] + items["bytes"] + sum(row["bytes"] for row in plan.rows),
    )


async def _count(
    conn: Connection, what: str, dry_run: bool, params: dict[str, Any]
) -> dict[str, int]:
    query = f"{'count' if dry_run else 'drop'}_{what}"
    row = await (await conn.execute(_queries[query], params)).fetchone()
    assert row is not None
    return {"rows": row["rows"], "bytes": row["bytes"]}


def _doomed_writes(plan: Plan) -> dict[str, Any]:
    """All of the rows that go, and what the plan names of the others."""
    chosen = [(row, 0, True) for row in plan.rows if row["writes"]] + plan.writes
    return {
        "lineage_ids": [row["lineage_id"] for row, _, _ in chosen],
        "checkpoint_ids": [row["checkpoint_id"] for row, _, _ in chosen],
        "ns": [row["ns"] for row, _, _ in chosen],
        "after": [after for _, after, _ in chosen],
        "every": [every for _, _, every in chosen],
    }


async def _live(conn: Connection, session: Session, plan: Plan) -> list[Range]:
    """What anything that stays refers to, forks of the session included."""
    gone = {choice.key(row) for row in plan.rows}
    ranges = [
        r
        for row in session.rows
        if choice.key(row) not in gone
        for r in manifest.absolute(row["ranges"], row["lineage_id"])
    ]
    own = {line["lineage_id"] for line in session.lineages}
    others = [line["lineage_id"] for line in session.family if line["lineage_id"] not in own]
    if others:
        cursor = await conn.execute(_queries["stray_ranges"], {"lineage_ids": others}, binary=True)
        for row in await cursor.fetchall():
            ranges += manifest.absolute(row["ranges"], row["lineage_id"])
    return Spans(ranges).ranges()


def _spans(ranges: Sequence[Range]) -> dict[str, list[int]]:
    return {
        "of": [r.lineage_id for r in ranges],
        "streams": [r.stream for r in ranges],
        "firsts": [r.first for r in ranges],
        "sizes": [r.size for r in ranges],
    }


def _columns(rows: Sequence[DictRow]) -> dict[str, Any]:
    return {
        "lineage_ids": [row["lineage_id"] for row in rows],
        "ns": [row["ns"] for row in rows],
        "seqs": [row["seq"] for row in rows],
    }
