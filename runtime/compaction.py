"""What stays of a run's events once it is over: the many small rows become few, one for each kind,
so that each kind can be replayed, and expire, by itself."""

import logging
from collections.abc import Iterable, Iterator
from datetime import timedelta
from itertools import groupby
from typing import Any, LiteralString

import zstandard

from clew.checkpointing.errors import EncryptionError
from clew.checkpointing.postgres import SERVICE, Database
from clew.checkpointing.sealed import Sealed, closed
from clew.runtime.events import BRIEF, BULKY, MIXED, TOKENS, Entry, kind, pack, unpack
from clew.runtime.sql import queries

log = logging.getLogger(__name__)

STRETCH = 256 * 1024
EXPIRED_AT_ONCE = 5000
AT_ONCE = 100_000
NAME = "expiry"


async def expire(db: Database, retention: timedelta, tokens: timedelta) -> None:
    """Make the partitions of the days ahead and drop those that are too old; tokens may go sooner,
    and what runs of some agents streamed, a bounded number at a time. One replica does it."""
    await db.execute(SERVICE, queries["keep_partitions"], {"retention": retention})
    async with db.transaction(SERVICE) as conn:
        # Held by a transaction of its own, for each step is one: it is idle all the while.
        await conn.execute("set local idle_in_transaction_session_timeout = 0")
        cursor = await conn.execute(queries["hold_reader"], {"name": NAME})
        row = await cursor.fetchone()
        if row is None or not row["held"]:
            return
        if tokens < retention:
            await _put_together(db, tokens)
            await _drain(db, queries["expire_tokens"], tokens)
        await _drain(db, queries["expire_events_of_agents"], retention)


async def _drain(db: Database, query: LiteralString, retention: timedelta) -> None:
    values = {"retention": retention, "limit": EXPIRED_AT_ONCE}
    while await db.execute(SERVICE, query, values) == EXPIRED_AT_ONCE:
        pass


async def _put_together(db: Database, tokens: timedelta) -> None:
    """Compact what was not when its run ended: tokens cannot be told from the rest there."""
    values: dict[str, Any] = {"retention": tokens, "limit": AT_ONCE}
    for row in await db.fetch(SERVICE, queries["mixed_runs"], values):
        try:
            await compact(db, row["thread_id"], str(row["run_id"]))
        except EncryptionError as error:
            log.warning("what run %s streamed stays as it is: %s", row["run_id"], error)
        except _UNREADABLE as error:
            why = type(error).__name__
            log.warning("what run %s streamed stays as it is: %s", row["run_id"], why)


async def compact(db: Database, thread_id: str, run_id: str) -> None:
    """Of a run that is over. Ids stay what they are, so a reader in the middle notices nothing."""
    key = {"thread_id": thread_id, "run_id": run_id}
    found = await db.fetch(SERVICE, queries["rows_to_compact"], key)
    if len(found) < 2 and all(row["kind"] != MIXED for row in found):
        return
    for row in found:
        if (error := closed(row["body"])) is not None:
            raise error
    values: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    for epoch, rows in groupby(found, key=lambda row: row["epoch"]):
        entries = [e for row in rows for e in unpack(row["codec"], row["body"])]
        for first_n, last_n, sort, codec, body in apart(entries):
            cells = (epoch, first_n, last_n, sort, codec, Sealed(body))
            for name, cell in zip(_COLUMNS, cells, strict=True):
                values[name].append(cell)
    kept = {name: found[0][name] for name in ("v2", "created_at")}
    # Under the session's lock: a transfer does not see rows that come while it is under way.
    await db.exchange(
        SERVICE,
        (queries["lock_session_of_run"], key),
        (queries["compact_rows"], {**key, **values, **kept}),
    )


# A body that was cut off, or is of no form that this release knows.
_UNREADABLE = (zstandard.ZstdError, RuntimeError, TypeError, ValueError)
_COLUMNS = ("epochs", "firsts", "lasts", "kinds", "codecs", "bodies")


def apart(entries: Iterable[Entry]) -> Iterator[tuple[int, int, int, int, bytes]]:
    """The rows that hold these, one for each kind in a stretch: first and last number, kind, codec
    and body."""
    for piece in stretches(entries):
        for wanted in (BRIEF, TOKENS, BULKY):
            chosen = [entry for entry in piece if kind(entry.name) == wanted]
            if chosen:
                yield piece[0].n, piece[-1].n, wanted, *pack(chosen)


def stretches(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Entries in their order, cut into pieces that a reader can hold."""
    piece: list[Entry] = []
    held = 0
    for entry in sorted(entries, key=lambda entry: entry.n):
        piece.append(entry)
        held += len(entry.stored)
        if held > STRETCH:
            yield piece
            piece, held = [], 0
    if piece:
        yield piece
