"""Questions that runs stopped to ask, as rows: found across sessions, answered once, due some day.

The state of the graph decides what is open; these rows follow it, in the transaction that ends a
run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Self

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb
from pydantic_core import from_json

from clew.checkpointing.postgres import Connection, Database, Principal
from clew.checkpointing.sealed import Sealed
from clew.runtime import errors, wire
from clew.runtime.questions import Question, columns
from clew.runtime.sessions import Filter
from clew.runtime.sql import queries


@dataclass(frozen=True, slots=True)
class Interrupt:
    thread_id: str
    interrupt_id: str
    owner_id: int
    run_id: str | None
    namespace: tuple[str, ...]
    value: Any
    response_schema: Any
    created_at: datetime
    deadline_at: datetime | None
    on_deadline: Any
    answered_at: datetime | None
    answered_by: str | None
    outcome: Literal["answered", "timeout", "dropped"] | None

    @classmethod
    def of(cls, row: DictRow) -> Self:
        return cls(
            thread_id=row["thread_id"],
            interrupt_id=row["interrupt_id"],
            owner_id=row["owner_id"],
            run_id=_text(row["run_id"]),
            namespace=tuple(row["namespace"]),
            value=from_json(row["value"]),
            response_schema=_json(row["response_schema"]),
            created_at=row["created_at"],
            deadline_at=row["deadline_at"],
            on_deadline=_json(row["on_deadline"]),
            answered_at=row["answered_at"],
            answered_by=_text(row["answered_by"]),
            outcome=row["outcome"],
        )


async def inbox(
    db: Database,
    who: Principal,
    *,
    thread_id: str | None = None,
    limit: int = 20,
    offset: int = 0,
    allowed: Filter | None = None,
) -> list[Interrupt]:
    """What waits for an answer in all sessions of `who`, newest first."""
    values = {
        "thread_id": thread_id,
        "limit": limit,
        "offset": offset,
        "allowed": None if allowed is None else Jsonb(allowed),
    }
    return [Interrupt.of(row) for row in await db.fetch(who, queries["inbox"], values)]


async def get(
    db: Database,
    who: Principal,
    thread_id: str,
    interrupt_id: str,
    *,
    allowed: Filter | None = None,
) -> Interrupt:
    values = {
        "thread_id": thread_id,
        "interrupt_id": interrupt_id,
        "allowed": None if allowed is None else Jsonb(allowed),
    }
    row = await db.one(who, queries["get_interrupt"], values)
    if row is None:
        raise errors.NotFound("Interrupt not found")
    return Interrupt.of(row)


async def set_deadline(
    db: Database,
    who: Principal,
    thread_id: str,
    interrupt_id: str,
    deadline_at: datetime | None,
    default: Any = None,
) -> Interrupt:
    """Until when the question waits, and the answer given then; None gives it up."""
    values = {
        "thread_id": thread_id,
        "interrupt_id": interrupt_id,
        "deadline_at": deadline_at,
        "on_deadline": None if default is None else Sealed(wire.encode(default)),
    }
    row = await db.one(who, queries["set_deadline"], values)
    if row is None:
        raise errors.NotFound("Interrupt not found, or answered already")
    return Interrupt.of(row)


async def replace(
    conn: Connection, thread_id: str, owner_id: int, questions: Sequence[Question]
) -> None:
    """Make the rows those of the session's new head, in the caller's transaction: after a fork, a
    restore or an edit of the state."""
    values = {
        "thread_id": thread_id,
        "owner_id": owner_id,
        **columns(questions),
    }
    await conn.execute(queries["replace_interrupts"], values)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _json(body: bytes | None) -> Any:
    return None if body is None else from_json(body)
