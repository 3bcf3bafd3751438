"""Crons: what is to be asked of an assistant again and again, and when.

The times are `schedules`' business, and that each of them starts one run is `firing`'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal, Self

from psycopg import sql
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb
from pydantic_core import from_json

from clew.checkpointing.postgres import Database, Principal
from clew.checkpointing.sealed import Sealed
from clew.runtime import errors, ids, pages, schedules, wire
from clew.runtime.pages import Page
from clew.runtime.sessions import Filter, Json, demand, missing
from clew.runtime.sql import queries

SORTS: Mapping[str, str] = {
    "cron_id": "cron_id",
    "assistant_id": "assistant_id",
    "thread_id": "thread_id",
    "next_run_date": "next_at",
    "end_time": "end_at",
    "created_at": "created_at",
    "updated_at": "updated_at",
}


@dataclass(frozen=True, slots=True)
class Cron:
    cron_id: str
    owner_id: int
    assistant_id: str
    thread_id: str | None  # None: each run has a thread of its own
    schedule: str
    timezone: str | None
    end_at: datetime | None
    enabled: bool
    on_run_completed: Literal["delete", "keep"] | None
    request: Json  # fields of the protocol that each run is asked for
    metadata: Json
    caller: Json | None
    next_at: datetime | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, row: DictRow) -> Self:
        values = {name: row[name] for name in _FIELDS}
        values["cron_id"] = str(row["cron_id"])
        values["assistant_id"] = str(row["assistant_id"])
        values["request"] = from_json(row["request"])
        return cls(**values)

    def upcoming(self, moment: datetime) -> datetime | None:
        """The fire time after a moment, as far as there is one."""
        return upcoming(self.schedule, self.timezone, self.end_at, moment, enabled=self.enabled)


_FIELDS = tuple(field.name for field in fields(Cron))


def upcoming(
    schedule: str,
    timezone: str | None,
    end_at: datetime | None,
    moment: datetime,
    *,
    enabled: bool,
) -> datetime | None:
    found = schedules.after(schedule, timezone, moment)
    ended = found is None or (end_at is not None and found > end_at)
    return found if enabled and not ended else None


async def create(
    db: Database,
    who: Principal,
    owner_id: int,
    *,
    assistant_id: str,
    schedule: str,
    timezone: str | None = None,
    end_at: datetime | None = None,
    enabled: bool = True,
    thread_id: str | None = None,
    on_run_completed: Literal["delete", "keep"] = "delete",
    request: Json | None = None,
    metadata: Json | None = None,
    caller: Json | None = None,
) -> Cron:
    """The assistant is one that the principal may see. NotFound for a thread that it may not."""
    schedules.check(schedule, timezone)
    async with db.transaction(who) as conn:
        now = await (await conn.execute(queries["moment"])).fetchone()
        assert now is not None
        values = {
            "cron_id": ids.mint(),
            "owner_id": owner_id,
            "assistant_id": assistant_id,
            "thread_id": thread_id,
            "schedule": schedule,
            "timezone": timezone,
            "end_at": end_at,
            "enabled": enabled,
            "on_run_completed": None if thread_id else on_run_completed,
            "request": Sealed(wire.encode(request or {})),
            "metadata": Jsonb(metadata or {}),
            "caller": None if caller is None else Jsonb(caller),
            "next_at": upcoming(schedule, timezone, end_at, now["moment"], enabled=enabled),
        }
        row = await (await conn.execute(queries["create_cron"], values)).fetchone()
    if row is None:
        raise missing(str(thread_id))
    return Cron.of(row)


async def get(db: Database, who: Principal, cron_id: str, *, allowed: Filter | None = None) -> Cron:
    row = await db.one(who, queries["get_cron"], _key(cron_id, allowed))
    if row is None:
        raise errors.NotFound("Not Found")
    return Cron.of(row)


async def update(
    db: Database,
    who: Principal,
    cron_id: str,
    changes: Mapping[str, Any],
    *,
    request: Json | None = None,
    metadata: Json | None = None,
    allowed: Filter | None = None,
) -> Cron:
    """Change what `changes` names: schedule, timezone, end_at, enabled, on_run_completed.
    `request` replaces the fields that it has, `metadata` is merged one level deep. The next fire
    time is counted anew."""
    async with db.transaction(who) as conn:
        row = await (await conn.execute(queries["lock_cron"], _key(cron_id, allowed))).fetchone()
        if row is None:
            raise errors.NotFound("Not Found")
        cron = Cron.of(row)
        values: Json = {
            "cron_id": cron_id,
            "schedule": cron.schedule,
            "timezone": cron.timezone,
            "end_at": cron.end_at,
            "enabled": cron.enabled,
            "on_run_completed": cron.on_run_completed,
            **changes,
            "request": Sealed(wire.encode({**cron.request, **(request or {})})),
            "metadata": Jsonb({**cron.metadata, **(metadata or {})}),
        }
        if (values["on_run_completed"] is None) != (cron.on_run_completed is None):
            raise errors.Invalid("on_run_completed: only for crons without a thread")
        values["next_at"] = upcoming(
            values["schedule"],
            values["timezone"],
            values["end_at"],
            row["moment"],
            enabled=values["enabled"],
        )
        row = await (await conn.execute(queries["update_cron"], values)).fetchone()
    assert row is not None
    return Cron.of(row)


async def delete(
    db: Database, who: Principal, cron_id: str, *, allowed: Filter | None = None
) -> None:
    """Its runs that wait already are left alone."""
    if not await db.execute(who, queries["delete_cron"], _key(cron_id, allowed)):
        raise errors.NotFound("Not Found")


async def search(
    db: Database,
    who: Principal,
    *,
    assistant_id: str | None = None,
    thread_id: str | None = None,
    enabled: bool | None = None,
    metadata: Json | None = None,
    sort_by: str = "created_at",
    sort_order: Literal["asc", "desc"] = "desc",
    limit: int = 10,
    offset: int = 0,
    allowed: Filter | None = None,
) -> Page[Cron]:
    if sort_by not in SORTS:
        raise errors.Invalid(f"sort_by: must be one of {', '.join(SORTS)}")
    return await pages.find(
        db,
        who,
        queries["search_crons"],
        {**_wanted(assistant_id, thread_id, metadata, allowed), "enabled": enabled},
        Cron.of,
        by=sql.Identifier(SORTS[sort_by]),
        then="cron_id",
        direction=sort_order,
        limit=limit,
        offset=offset,
    )


async def count(
    db: Database,
    who: Principal,
    *,
    assistant_id: str | None = None,
    thread_id: str | None = None,
    enabled: bool | None = None,
    metadata: Json | None = None,
    allowed: Filter | None = None,
) -> int:
    values = {**_wanted(assistant_id, thread_id, metadata, allowed), "enabled": enabled}
    [row] = await db.fetch(who, queries["count_crons"], values)
    return row["crons"]


def _key(cron_id: str, allowed: Filter | None) -> Json:
    return {"cron_id": cron_id, "allowed": demand(allowed)}


def _wanted(
    assistant_id: str | None, thread_id: str | None, metadata: Json | None, allowed: Filter | None
) -> Json:
    return {
        "assistant_id": assistant_id,
        "thread_id": thread_id,
        "metadata": Jsonb(metadata) if metadata else None,
        "allowed": demand(allowed),
    }
