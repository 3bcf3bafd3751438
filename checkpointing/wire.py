"""The saver's way to the database: one round trip each, and again if the connection had died.

A statement whose answer was lost may be run twice, so each of them stands being run twice: rows
that are there stay, and what is stored once more (the items of a put whose first try did land, a
question asked again) changes no value and is swept later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg.rows import DictRow

from clew.checkpointing.combiner import CutOff
from clew.checkpointing.exchange import Statement
from clew.checkpointing.postgres import Database, Principal
from clew.checkpointing.sql import Queries

T = TypeVar("T")

_SQL = Queries("clew.checkpointing.queries")
_RETRIES = 2
_PAUSE_SECONDS = 0.05
# The server is told to stop, has crashed, or is not ready yet.
_GOING_DOWN = ("57P01", "57P02", "57P03")


async def fetch(
    db: Database, who: Principal, query: LiteralString, params: Mapping[str, Any]
) -> list[DictRow]:
    async def work() -> list[DictRow]:
        (answer,) = await db.exchange(who, (query, params), binary=True)
        return answer.rows

    return await _insist(db, work)


async def write(
    db: Database,
    who: Principal,
    query: LiteralString,
    params: Mapping[str, Any],
    *,
    new_owner: int | None,
) -> int | None:
    """The lineage that was written to; None if the head is not what `params` say.

    With `new_owner`, a session that does not exist is begun for them in the same round trip.
    """

    async def work() -> int | None:
        statements: list[Statement] = [(query, params)]
        if new_owner is not None:
            start = {"thread_id": params["thread_id"], "owner_id": new_owner}
            statements.insert(0, (_SQL["begin"], start))
        rows = (await db.combine(who, *statements))[-1].rows
        return rows[0]["lineage_id"] if rows else None

    return await _insist(db, work)


async def _insist(db: Database, work: Callable[[], Awaitable[T]]) -> T:
    left = _RETRIES
    while True:
        try:
            return await work()
        except CutOff:
            continue  # by a neighbour; the connections of the pool are well
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            if left == 0 or not _died(error):
                raise
            left -= 1
            await asyncio.sleep(_PAUSE_SECONDS)
            # The others of the pool may have died with it.
            await db.pool.check()


def _died(error: psycopg.Error) -> bool:
    """Whether the connection or its server went away, as opposed to a statement that was refused:
    that one would only be refused again."""
    state = error.sqlstate
    return state is None or state.startswith("08") or state in _GOING_DOWN
