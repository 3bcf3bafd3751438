"""Who runs what, and until when: what a worker tells the database, and what it is told.

A worker's lease covers all its runs; every time here is the database's. A claim moves the session's
epoch on, and from then on nothing of the last holder lands, however late it arrives: that is the
guarantee. Leases, heartbeats and locks only decide how soon somebody else claims.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal

from psycopg.errors import UniqueViolation

from clew.checkpointing.exchange import Statement
from clew.checkpointing.postgres import SERVICE, Database
from clew.checkpointing.sealed import Sealed, SealedJson, apart
from clew.runtime import questions
from clew.runtime.events import Row
from clew.runtime.questions import Question
from clew.runtime.runs import Action, Run, Status
from clew.runtime.sql import queries
from clew.runtime.telemetry import Telemetry

Rest = Literal["idle", "interrupted", "error"]


@dataclass(frozen=True, slots=True)
class Held:
    """A run that a worker has according to the database."""

    run_id: str
    epoch: int
    cancel: Action | None
    cancel_reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """All that the end of a run changes."""

    status: Status
    rest: Rest  # how it leaves the session
    error: dict[str, Any] | None = None  # of the run
    session_error: dict[str, Any] | None = None
    interrupts: dict[str, Any] = field(default_factory=dict[str, Any])  # by task, for the session
    questions: Sequence[Question] = ()
    settles: bool = True  # False: nothing is known about questions, leave them as they are
    resumed: bool = False  # it carried answers
    interrupt_timeout: timedelta | None = None
    interrupt_default: bytes | None = None
    message_count: int | None = None
    bytes_added: int = 0
    retire: bool = False  # the graph did not stop: fence it off
    forget: bool = False  # a temporary session goes with its run
    state: bytes | None = None  # for its webhook, where no checkpoint has it


async def enlist(db: Database, name: str, lease: timedelta, *, lock_key: int | None = None) -> int:
    """Become a worker; the id is never used again. `lock_key` is of the advisory lock that the
    process holds while it lives, where it can hold one."""
    values = {"name": name, "lease": lease, "lock_key": lock_key}
    row = await db.one(SERVICE, queries["enlist_worker"], values)
    if row is None:
        raise AssertionError("an insert returned no row")
    return row["worker_id"]


async def renew(
    db: Database, worker_id: int, lease: timedelta, *, lock_key: int | None = None
) -> list[Held] | None:
    """Renew the lease; what the worker holds, or None if it was declared dead."""
    values = {"worker_id": worker_id, "lease": lease, "lock_key": lock_key}
    renewed, found = await db.exchange(
        SERVICE, (queries["renew_lease"], values), (queries["held_runs"], values)
    )
    return [_held(row) for row in found.rows] if renewed.rows else None


async def held(db: Database, worker_id: int) -> list[Held]:
    rows = await db.fetch(SERVICE, queries["held_runs"], {"worker_id": worker_id})
    return [_held(row) for row in rows]


async def discharge(db: Database, worker_id: int) -> int:
    """Leave; what was still held goes back to the queue. Returns how many runs that were."""
    return await db.execute(SERVICE, queries["discharge_worker"], {"worker_id": worker_id})


async def reap(db: Database, worker_id: int, telemetry: Telemetry | None = None) -> list[str]:
    """Take their runs from workers that died; returns the runs, which wait to be claimed now."""
    rows = await db.fetch(SERVICE, queries["reap_workers"], {"worker_id": worker_id})
    for row in rows:
        if telemetry is not None:
            telemetry.took_over("lease" if row["lapsed"] else "dead")
    return [str(row["run_id"]) for row in rows]


async def claim(db: Database, worker_id: int, limit: int) -> list[Run]:
    """The oldest due runs of free sessions, now this worker's and running; not those under a key
    that this process lacks. They are its own even where their request cannot be read, and have a
    `fault` then."""
    values = {"worker_id": worker_id, "limit": limit, "opens": db.opens}
    try:
        with apart():
            rows = await db.fetch(SERVICE, queries["claim_runs"], values)
    except UniqueViolation:
        # A run started elsewhere in one of these sessions after we looked. Look again later.
        return []
    return [Run.claimed(row) for row in rows]


async def next_due(db: Database) -> timedelta | None:
    """How long until a scheduled run comes due."""
    row = await db.one(SERVICE, queries["next_due"])
    return row["wait"] if row else None


async def release(
    db: Database, run: Run, rows: Sequence[Row] = (), *, crashed: bool = False
) -> bool:
    """Give a run back unfinished, with those of its events that the log lacks; `crashed` counts it
    against the run. False if it was not ours any more: then nothing happened."""
    values = _key(run) | _columns(rows) | {"crashed": int(crashed)}
    return bool(await db.fetch(SERVICE, queries["release_run"], values))


async def give_back(db: Database, worker_id: int, stray: Held) -> bool:
    """Release, as after a crash, what this worker has according to the database only."""
    key = {"run_id": stray.run_id, "epoch": stray.epoch, "worker_id": worker_id}
    values = key | _columns(()) | {"crashed": 1}
    return bool(await db.fetch(SERVICE, queries["release_run"], values))


async def finish(
    db: Database, run: Run, ending: Ending, rows: Sequence[Row], *, replaces: bool = False
) -> tuple[Run, bool] | None:
    """End a run: its row, its last events, its questions and the session in one transaction and one
    round trip. Returns the run, and whether another one waits for its session. None if the run was
    not ours any more: then nothing happened. `replaces`: the rows are all its events, and take the
    place of those that the log has."""
    values = _key(run) | {
        "status": ending.status,
        "rest": ending.rest,
        "error": _json(ending.error),
        "session_error": _json(ending.session_error),
        "interrupts": SealedJson(ending.interrupts),
        **questions.columns(ending.questions),
        "settles": ending.settles,
        "resumed": ending.resumed,
        "interrupt_timeout": ending.interrupt_timeout,
        "interrupt_default": ending.interrupt_default and Sealed(ending.interrupt_default),
        "message_count": ending.message_count,
        "bytes": ending.bytes_added,
        "retire": ending.retire,
        "forget": ending.forget,
        "replaces": replaces,
        **_columns(rows),
    }
    statements: list[Statement] = [
        (queries["lock_session_of_run"], values),
        (queries["finish_run"], values),
    ]
    if ending.state is not None:
        kept = {"run_id": run.run_id, "state": Sealed(ending.state)}
        statements.append((queries["keep_webhook_state"], kept))
    _, ended, *_ = await db.exchange(SERVICE, *statements)
    if not ended.rows:
        return None
    row = ended.rows[0]
    waits = row.pop("waits")
    over = {"status": ending.status, "error": ending.error, "worker_id": None}
    return replace(run, **over, **row), waits


async def roll_back(db: Database, run: Run) -> bool:
    """End a run as if it had never been. Its checkpoints are to be deleted before."""
    values = _key(run)
    _, gone = await db.exchange(
        SERVICE, (queries["lock_session_of_run"], values), (queries["roll_back_run"], values)
    )
    return bool(gone.rows)


def _key(run: Run) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "thread_id": run.thread_id,
        "epoch": run.epoch,
        "worker_id": run.worker_id,
    }


def _columns(rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "firsts": [row.first_n for row in rows],
        "lasts": [row.last_n for row in rows],
        "kinds": [row.kind for row in rows],
        "codecs": [row.codec for row in rows],
        "bodies": [Sealed(row.body) for row in rows],
    }


def _held(row: dict[str, Any]) -> Held:
    return Held(str(row["run_id"]), row["epoch"], row["cancel"], row["cancel_reason"])


def _json(value: dict[str, Any] | None) -> SealedJson | None:
    return None if value is None else SealedJson(value)
