"""Reads what was said after each turn, so that sessions are found by it, and titles those that have
no title. One replica at a time does it; a turn that nobody has read yet is read when the next one
takes over, since the place in the outbox is kept in the database. Not for encrypted sessions, whose
words are not to lie in an index or a title in clear.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta

from psycopg.types.json import Jsonb

from clew.checkpointing.errors import UnknownThread
from clew.checkpointing.manifest import Range
from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.checkpointing.reading import Reader
from clew.checkpointing.rows import Item
from clew.runtime import messages, outbox, titles, words
from clew.runtime.outbox import Place
from clew.runtime.sql import queries
from clew.runtime.titles import Writer

log = logging.getLogger(__name__)

NAME = "scribe"
# Of a channel that cannot be read from where one left off, no more than this many are read.
LATEST = 50
AT_ONCE = 4
MANY = 100  # sessions of one step, after which the next follows at once


async def catch_up(db: Database, write: Writer | None) -> int:
    """Read the sessions in which turns have ended since the last time; how many."""
    async with db.transaction(SERVICE) as conn:
        row = await (await conn.execute(queries["hold_reader"], {"name": NAME})).fetchone()
        if row is None or not row["held"]:
            return 0  # another replica is at it
        found = await db.one(SERVICE, queries["reader_place"], {"name": NAME})
        place = Place(int(found["xid"]), found["outbox_id"]) if found else outbox.START
        happenings = await outbox.read(db, SERVICE, place)
        if not happenings:
            return 0
        moved_on = {
            happening.thread_id: happening.owner_id
            for happening in happenings
            if happening.thread_id and happening.kind.startswith("run.")
            and happening.kind not in ("run.created", "run.started")
        }  # fmt: skip
        gate = asyncio.Semaphore(AT_ONCE)

        async def attend(thread_id: str, owner_id: int) -> None:
            async with gate:
                await _attend(db, Principal.owner(owner_id), thread_id, write)

        async with asyncio.TaskGroup() as group:
            for thread_id, owner_id in moved_on.items():
                group.create_task(attend(thread_id, owner_id))
        last = happenings[-1].place
        values = {"name": NAME, "xid": str(last.xid), "outbox_id": last.outbox_id}
        await db.execute(SERVICE, queries["move_reader"], values)
    return len(moved_on)


async def _attend(db: Database, who: Principal, thread_id: str, write: Writer | None) -> None:
    try:
        await index(db, who, thread_id)
        row = await db.one(who, queries["unread_session"], {"thread_id": thread_id})
        if row is not None and write is not None and not row["title"] and not row["temporary"]:
            await titles.fill(db, who, thread_id, write)
    except Exception:
        # Whatever it is: one session that cannot be read must not keep later ones from being read.
        log.exception("what was said in session %s could not be read", thread_id)


async def index(db: Database, who: Principal, thread_id: str) -> None:
    """Let a session be found by what was said since it was last read."""
    row = await db.one(who, queries["unread_session"], {"thread_id": thread_id})
    if row is None or row["temporary"]:
        return
    async with db.transaction(who) as conn:
        try:
            reader = await Reader.of(conn, thread_id)
        except UnknownThread:
            return
        spot = await reader.spot()
        if spot is None:
            return
        unread, seen = _unread(messages.items_of(spot), row["seen"])
        values = await reader.items([Range(*item, 1) for item in unread])
        said = [messages.text_of(value) for value in values.values()]
        if not messages.by_item(spot):
            whole = (await reader.values(spot, [messages.CHANNEL])).get(messages.CHANNEL)
            said = [messages.text_of(value) for value in (whole or [])[-LATEST:]]
        terms = words.index(row["owner_id"], said)
        if terms:
            added = {"thread_id": thread_id, "words": terms}
            await conn.execute(queries["add_words"], added)
        if seen:
            mark = {"thread_id": thread_id, "seen": Jsonb(seen)}
            await conn.execute(queries["mark_seen"], mark)


def _unread(items: list[Item], seen: dict[str, int]) -> tuple[list[Item], dict[str, int]]:
    """Items past what was read of their streams, and how far that leads."""
    unread: list[Item] = []
    reached: dict[str, int] = {}
    for lineage_id, stream, number in items:
        key = f"{lineage_id}:{stream}"
        if number > seen.get(key, -1):
            unread.append((lineage_id, stream, number))
            reached[key] = max(number, reached.get(key, -1))
    return unread, reached


@asynccontextmanager
async def running(
    db: Database,
    write: Writer | None,
    *,
    interval: timedelta = timedelta(seconds=1),
) -> AsyncGenerator[None]:
    """Read along for as long as the context lasts."""
    stop = asyncio.Event()

    async def loop() -> None:
        while not stop.is_set():
            try:
                read = await catch_up(db, write)
            except Exception:
                # The loop outlives a database that is away, and any fault; its place is kept.
                log.exception("what was said could not be read; the next pass tries again")
                read = 0
            # In steps, even while much is said: several turns of a session are then read at once.
            if read < MANY:
                try:
                    async with asyncio.timeout(interval.total_seconds()):
                        await stop.wait()
                except TimeoutError:
                    continue

    async with asyncio.TaskGroup() as group:
        group.create_task(loop())
        try:
            yield
        finally:
            stop.set()
