"""Runs, as those who ask for them see them: make, look up, cancel, delete.

A session runs one turn at a time. A run that was accepted is in the database before its id is
told, so no crash can forget it; what the worker that executes it does is in `leases`.
"""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any, Literal, Self, cast

from psycopg.errors import UniqueViolation
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb
from pydantic_core import from_json

from clew.checkpointing.exchange import Statement
from clew.checkpointing.postgres import Connection, Database, Principal
from clew.checkpointing.sealed import Sealed, closed
from clew.runtime import errors, ids
from clew.runtime.requests import Multitask, Protocol, RunRequest
from clew.runtime.sessions import Filter, missing
from clew.runtime.sql import queries

Status = Literal["pending", "running", "success", "error", "timeout", "interrupted"]
Action = Literal["interrupt", "rollback"]
Json = dict[str, Any]

TERMINAL: frozenset[str] = frozenset({"success", "error", "timeout", "interrupted"})
BUSY = (
    "Thread is already running a task. Wait for it to finish or choose a different multitask "
    "strategy."
)


@dataclass(frozen=True, slots=True)
class Run:
    run_id: str
    thread_id: str
    assistant_id: str | None
    graph_id: str
    owner_id: int
    status: Status
    protocol: Protocol
    metadata: Json
    kwargs: Json  # the request, in the protocol's words; see `shown`
    multitask_strategy: Multitask
    attempt: int
    crashes: int
    epoch: int | None
    worker_id: int | None
    mends: bool  # since the last turn that ended well, something else has happened
    cancel: Action | None
    cancel_reason: str | None
    error: Json | None
    due_at: datetime
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    fault: str | None = None  # why the request cannot be read, of one that was claimed all the same

    @classmethod
    def of(cls, row: DictRow) -> Self:
        values = {name: row[name] for name in _COLUMNS}
        values["run_id"] = str(row["run_id"])
        if row["assistant_id"] is not None:
            values["assistant_id"] = str(row["assistant_id"])
        return cls(kwargs=from_json(row["request"]), **values)

    @classmethod
    def claimed(cls, row: DictRow) -> Self:
        """The same of a row that was read `apart`. A request that cannot be read is the fault of
        this run, which ends by it, and of no other that came along."""
        body = row["request"]
        if (error := closed(body)) is not None:
            why = str(error)
        else:
            why = "it is not in a form that this release knows"
            with suppress(ValueError):
                if body.startswith(b"{") and _formed((run := cls.of(row)).kwargs):
                    return run
        return replace(cls.of({**row, "request": b"{}"}), fault=why)

    @property
    def over(self) -> bool:
        return self.status in TERMINAL

    def request(self) -> RunRequest:
        """What was asked, for the one who carries it out. ValueError, TypeError or OverflowError
        where it cannot be read."""
        if self.fault is not None:
            raise ValueError(self.fault)
        return RunRequest.decode(
            self.kwargs,
            graph_id=self.graph_id,
            assistant_id=self.assistant_id,
            metadata=self.metadata,
            protocol=self.protocol,
            multitask_strategy=self.multitask_strategy,
        )

    def shown(self) -> Json:
        """The request as the protocol shows it: what was not asked for is null."""
        kept = {name: value for name, value in self.kwargs.items() if name not in _HIDDEN}
        during = self.kwargs.get("durability") != "exit"
        return {**dict.fromkeys(_ASKABLE), "checkpoint_during": during, **kept}


def _formed(kwargs: Json) -> bool:
    """Whether that of a request is in its form which is looked into before its run has anywhere to
    fail."""
    modes = kwargs.get("stream_mode", [])
    return (
        isinstance(kwargs.get("trace") or {}, dict)
        and isinstance(kwargs.get("command") or {}, dict)
        and isinstance(modes, list)
        and all(isinstance(mode, str) for mode in cast("list[Any]", modes))
    )


# Of the request: who asked and from where, and what no client reads.
_HIDDEN = frozenset({"user", "trace", "extras"})
_ASKABLE = ("command", "interrupt_before", "interrupt_after", "webhook", "feedback_keys")

_COLUMNS = tuple(f.name for f in fields(Run) if f.name not in ("kwargs", "fault"))


@dataclass(frozen=True, slots=True)
class Limits:
    """How many runs may be in flight (pending or running); None is no limit."""

    per_session: int = 1000
    per_owner: int | None = None


async def create(
    db: Database,
    who: Principal,
    owner_id: int,
    thread_id: str,
    request: RunRequest,
    *,
    worker_id: int | None = None,
    limits: Limits | None = None,
    allowed: Filter | None = None,
) -> Run:
    """Make a run. Where the session is free and a worker stands by, the run is that worker's at
    once and running; otherwise it waits its turn. One round trip either way.

    Raises NotFound, Gone or Conflict for a session that takes no turns, Conflict where it is
    busy and `multitask_strategy` is reject, Limited at a limit. With `idempotency_key`, the run
    that the key already made, or Conflict if that was asked something else.
    """
    limits = limits or Limits()
    values = _values(owner_id, thread_id, request, worker_id, limits, allowed)
    for last in (False, True):
        try:
            *_, made = await db.exchange(who, *_creating(request, values))
        except UniqueViolation:
            # Another session's run took the same idempotency key a moment ago, or another worker
            # started a run that had come due: the second look sees it.
            if last:
                raise
            continue
        return _made(made.rows[0] if made.rows else None, thread_id, limits)
    raise AssertionError


async def add(
    conn: Connection,
    owner_id: int,
    thread_id: str,
    request: RunRequest,
    *,
    limits: Limits | None = None,
) -> Run:
    """A run that waits its turn, in the caller's transaction: for what must happen together with
    it or not at all. Raises as `create` does."""
    limits = limits or Limits()
    values = _values(owner_id, thread_id, request, None, limits, None)
    *before, last = _creating(request, values)
    for query, params in before:
        await conn.execute(query, params)
    cursor = await conn.execute(*last)
    return _made(await cursor.fetchone(), thread_id, limits)


def _creating(request: RunRequest, values: Json) -> list[Statement]:
    names = ["make_temporary_session"] if request.temporary else []
    return [(queries[name], values) for name in (*names, "lock_session_for_run", "create_run")]


def _made(row: DictRow | None, thread_id: str, limits: Limits) -> Run:
    if row is None:
        raise missing(thread_id)
    if row["run_id"] is None or row["outcome"] == "mismatch":
        raise _refusal(row["outcome"], thread_id, limits)
    return Run.of(row)


async def get(
    db: Database,
    who: Principal,
    thread_id: str | None,
    run_id: str,
    *,
    allowed: Filter | None = None,
) -> Run:
    values = {"run_id": run_id, "thread_id": thread_id, "allowed": _filter(allowed)}
    row = await db.one(who, queries["get_run"], values)
    if row is None:
        raise errors.NotFound("Run not found")
    return Run.of(row)


async def list_(
    db: Database,
    who: Principal,
    thread_id: str,
    *,
    status: Status | None = None,
    limit: int = 10,
    offset: int = 0,
    allowed: Filter | None = None,
) -> list[Run]:
    """The runs of a session, newest first."""
    values = {
        "thread_id": thread_id,
        "status": status,
        "limit": limit,
        "offset": offset,
        "allowed": _filter(allowed),
    }
    return [Run.of(row) for row in await db.fetch(who, queries["list_runs"], values)]


async def count(
    db: Database,
    who: Principal,
    thread_id: str,
    *,
    status: Status | None = None,
    allowed: Filter | None = None,
) -> int:
    values = {"thread_id": thread_id, "status": status, "allowed": _filter(allowed)}
    row = await db.one(who, queries["count_runs"], values)
    return row["runs"] if row else 0


async def cancel(
    db: Database,
    who: Principal,
    *,
    thread_id: str | None = None,
    run_ids: Sequence[str] | None = None,
    status: Literal["pending", "running", "all"] | None = None,
    action: Action = "interrupt",
    reason: str | None = None,
    allowed: Filter | None = None,
) -> list[Run]:
    """Cancel runs in flight: one that never started is over at once, the others are asked to stop
    and are over when their worker says so. Returns those that were met in flight; NotFound if none.
    """
    values = {
        "thread_id": thread_id,
        "run_ids": None if run_ids is None else list(run_ids),
        "status": status,
        "action": action,
        "reason": reason,
        "allowed": _filter(allowed),
    }
    async with db.transaction(who) as conn:
        cursor = await conn.execute(queries["lock_sessions_of_runs"], values)
        locked = [row["thread_id"] for row in await cursor.fetchall()]
        cursor = await conn.execute(queries["cancel_runs"], {**values, "locked": locked})
        rows = await cursor.fetchall()
    if not rows:
        raise errors.NotFound(await _nothing_to_cancel(db, who, thread_id, run_ids, allowed))
    return [Run.of(row) for row in rows]


async def _nothing_to_cancel(
    db: Database,
    who: Principal,
    thread_id: str | None,
    run_ids: Sequence[str] | None,
    allowed: Filter | None,
) -> str:
    """Whether there are such runs at all, in the words that clients know."""
    for run_id in run_ids or ():
        try:
            await get(db, who, thread_id, run_id, allowed=allowed)
        except errors.NotFound:
            continue
        return "No matching runs to cancel. Please verify that the runs are pending or running."
    return "No runs found to cancel."


async def delete(
    db: Database,
    who: Principal,
    thread_id: str,
    run_id: str,
    *,
    allowed: Filter | None = None,
) -> None:
    """Remove a run that is over, and what it streamed; `rewind.forget_run` removes its checkpoints
    too. Conflict while it is in flight."""
    values = {"run_id": run_id, "thread_id": thread_id, "allowed": _filter(allowed)}
    row = await db.one(who, queries["delete_run"], values)
    if row is None:
        raise errors.NotFound("Run not found")
    if not row["removed"]:
        raise errors.Conflict(f"a run that is {row['status']} cannot be deleted: cancel it first")


def _values(
    owner_id: int,
    thread_id: str,
    request: RunRequest,
    worker_id: int | None,
    limits: Limits,
    allowed: Filter | None,
) -> Json:
    body = request.encode()
    run_id = ids.mint()
    stamp = {"graph_id": request.graph_id}
    if request.assistant_id is not None:
        stamp["assistant_id"] = request.assistant_id
    key = request.idempotency_key
    return {
        "thread_id": thread_id,
        "run_id": run_id,
        "owner_id": owner_id,
        "assistant_id": request.assistant_id,
        "graph_id": request.graph_id,
        "strategy": request.multitask_strategy,
        "reason": f"superseded by run {run_id} (multitask_strategy={request.multitask_strategy})",
        "protocol": request.protocol,
        "metadata": Jsonb(request.metadata),
        "request": Sealed(body),
        "webhook": request.webhook,
        "stamp": Jsonb(stamp),
        "after": request.after,
        "idempotency_key": key,
        "fingerprint": None if key is None else hashlib.sha256(body).digest(),
        "worker_id": worker_id,
        "per_session": limits.per_session,
        "per_owner": limits.per_owner,
        "allowed": _filter(allowed),
    }


def _refusal(outcome: str, thread_id: str, limits: Limits) -> errors.ClewError:
    match outcome:
        case "deleted":
            return missing(thread_id)
        case "expired":
            return errors.Gone(f"Thread with ID {thread_id} has expired", state="expired")
        case "busy":
            return errors.Conflict(BUSY)
        case "mismatch":
            return errors.Conflict("this Idempotency-Key was used for a different request")
        case "full_session":
            return errors.Limited(
                f"{limits.per_session} runs of this thread are in flight already",
                retry_after=timedelta(seconds=5),
            )
        case "full_owner":
            return errors.Limited(
                f"{limits.per_owner} runs of this owner are in flight already",
                retry_after=timedelta(seconds=5),
            )
        case state:
            return errors.Conflict(f"a session that is {state} takes no runs", state=state)


def _filter(allowed: Filter | None) -> Jsonb | None:
    return None if allowed is None else Jsonb(allowed)
