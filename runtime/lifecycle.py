"""A session's life: the moves between states, who made them, and what is told of it.

docs/design/sessions.md has the table of transitions; `MOVES` is that table. `idle` and `expired`
are no moves: a session becomes that by the clock alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Literal, Self

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from clew.checkpointing.postgres import Database, Principal
from clew.runtime import errors, sessions
from clew.runtime.sessions import Filter, Json, Session, State
from clew.runtime.sql import queries

Move = Literal["archive", "unarchive", "delete", "undelete", "touch"]


@dataclass(frozen=True, slots=True)
class Rule:
    sources: tuple[State, ...]
    target: State
    busy: bool = True  # whether a run may be in progress meanwhile


MOVES: Mapping[Move, Rule] = {
    "archive": Rule(("active", "idle"), "archived", busy=False),
    "unarchive": Rule(("archived",), "active"),
    "delete": Rule(("active", "idle", "archived"), "deleted", busy=False),
    "undelete": Rule(("deleted",), "active"),
    "touch": Rule(("active", "idle"), "active"),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the audit log."""

    audit_id: int
    owner_id: int
    thread_id: str | None
    actor: str
    move: str
    from_state: str | None
    to_state: str | None
    detail: Json
    made_at: datetime

    @classmethod
    def of(cls, row: DictRow) -> Self:
        return cls(**{field.name: row[field.name] for field in fields(cls)})


async def move(
    db: Database,
    who: Principal,
    thread_id: str,
    move: Move,
    *,
    actor: str,
    ttl: timedelta | None = None,
    undo_window: timedelta | None = None,
    detail: Json | None = None,
    allowed: Filter | None = None,
) -> Session:
    """Make one move, or say from which state it is not possible. `undo_window` limits `undelete`;
    `ttl` is for `touch`, which also makes an expiry that is not sliding start anew."""
    rule = MOVES[move]
    values = {
        "thread_id": thread_id,
        "move": move,
        "sources": list(rule.sources),
        "target": rule.target,
        "busy": rule.busy,
        "ttl": ttl,
        "undo_window": undo_window if move == "undelete" else None,
        "actor": actor,
        "detail": Jsonb(detail or {}),
        "allowed": sessions.demand(allowed),
    }
    row = await db.one(who, queries["move_session"], values)
    if row is None:
        raise sessions.missing(thread_id)
    if not row["moved"]:
        raise _refusal(thread_id, move, row["state"], row["status"])
    return await sessions.find(db, who, thread_id)


def _refusal(thread_id: str, move: Move, state: State, status: str) -> errors.ClewError:
    rule = MOVES[move]
    if state == "expired":
        return errors.Gone(f"Thread with ID {thread_id} has expired", state="expired")
    if state in rule.sources and status == "busy" and not rule.busy:
        return errors.Conflict(
            f"a session with a run in progress cannot become {rule.target}; cancel the run first",
            state=state,
            status=status,
            to=rule.target,
        )
    if move == "undelete" and state == "deleted":
        return errors.Gone(f"the time to undo the deletion of {thread_id} is over", state=state)
    if state == "deleted":
        return sessions.missing(thread_id)
    return errors.Conflict(
        f"a session that is {state} cannot become {rule.target}", state=state, to=rule.target
    )


async def log(
    db: Database,
    who: Principal,
    *,
    thread_id: str | None = None,
    before: Entry | None = None,
    limit: int = 100,
) -> list[Entry]:
    """The audit log, newest first; of one session, or of all that the principal may see."""
    values: dict[str, Any] = {
        "thread_id": thread_id,
        "before": before and before.made_at,
        "before_id": before and before.audit_id,
        "limit": limit,
    }
    return [Entry.of(row) for row in await db.fetch(who, queries["audit_log"], values)]
