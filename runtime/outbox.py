"""What happened to sessions and runs, in order, for those who listen: the feed over SSE, hooks in
this process, webhooks. At least once, never out of order, never what was rolled back.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from psycopg.rows import DictRow

from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.runtime import errors
from clew.runtime.sessions import Json, single
from clew.runtime.sql import queries

Hook = Callable[["Happening"], Awaitable[None]]


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a reader is. As text it is the event's id: `transaction-number`."""

    xid: int
    outbox_id: int

    def __str__(self) -> str:
        return f"{self.xid}-{self.outbox_id}"

    @classmethod
    def parse(cls, text: str) -> Self:
        xid, dash, number = text.partition("-")
        if not (dash and xid.isdecimal() and number.isdecimal() and len(text) < 40):
            raise errors.Invalid("this is not the id of an event")
        return cls(int(xid), int(number))


START = Place(0, 0)


@dataclass(frozen=True, slots=True)
class Happening:
    place: Place
    owner_id: int
    kind: str
    thread_id: str | None
    run_id: str | None
    data: Json
    created_at: datetime

    @classmethod
    def of(cls, row: DictRow) -> Self:
        return cls(
            Place(int(row["xid"]), row["outbox_id"]),
            row["owner_id"],
            row["kind"],
            row["thread_id"],
            str(row["run_id"]) if row["run_id"] else None,
            row["data"],
            row["created_at"],
        )


async def read(
    db: Database,
    who: Principal,
    after: Place,
    *,
    since: str | None = None,
    thread_id: str | None = None,
    limit: int = 500,
) -> list[Happening]:
    """What comes after a place, as far as it is certain that nothing can still come before it,
    and without what the snapshot `since` had seen."""
    values = {
        "xid": str(after.xid),
        "outbox_id": after.outbox_id,
        "since": since,
        "owner_id": single(who),
        "thread_id": thread_id,
        "limit": limit,
    }
    return [Happening.of(row) for row in await db.fetch(who, queries["outbox_after"], values)]


async def end(db: Database) -> tuple[Place, str]:
    """Where to start, and since which snapshot, in order to hear only of what is still to come. The
    place alone would not do: it lies before all that happened while another transaction, anywhere
    on the server, was open."""
    [row] = await db.fetch(SERVICE, queries["outbox_end"])
    return Place(int(row["xid"]), 0), row["since"]


async def follow(
    db: Database,
    who: Principal,
    after: Place,
    *,
    since: str | None = None,
    thread_id: str | None = None,
    poll: timedelta = timedelta(seconds=1),
) -> AsyncGenerator[Happening]:
    """Everything after a place, for as long as it is read."""
    while True:
        happenings = await read(db, who, after, since=since, thread_id=thread_id)
        for happening in happenings:
            yield happening
            after = happening.place
        if not happenings:
            await asyncio.sleep(poll.total_seconds())


async def trim(db: Database, retention: timedelta, *, limit: int = 5000) -> int:
    """Forget what is older than this, a bounded number at a time."""
    return await db.execute(
        SERVICE, queries["trim_outbox"], {"retention": retention, "limit": limit}
    )


@asynccontextmanager
async def hooked(
    db: Database, hook: Hook, *, poll: timedelta = timedelta(seconds=1)
) -> AsyncGenerator[None]:
    """Call `hook` with all that happens from now on, whichever process it happens in. A hook that
    raises ends the context: what it should do about an error is its own to decide."""
    start, since = await end(db)

    async def call() -> None:
        async for happening in follow(db, SERVICE, start, since=since, poll=poll):
            await hook(happening)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(call())
        try:
            yield
        finally:
            task.cancel()
