"""Runs one SQL statement that somebody else wrote, and can only read.

Nothing here looks at the statement. The connection refuses what is not a query: SQLite by the
mode of the file and an authorizer, Postgres by its grammar for cursors inside a read-only
transaction. Rows and time are bounded by the connection too.
"""

import asyncio
import math
import re
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg import AsyncConnection

Cell = str | int | float | bool | None

SQLITE_MAY = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
}
SQLITE_TABLES = "select sql from sqlite_master where sql is not null order by name"
POSTGRES_TABLES = """
select format('%s.%s (%s)', table_schema, table_name,
              string_agg(column_name || ' ' || data_type, ', ' order by ordinal_position))
from information_schema.columns
where table_schema not in ('pg_catalog', 'information_schema')
group by table_schema, table_name order by 1
"""


class SqlError(ValueError):
    """The database refused the statement, or stopped it. The message is the database's own."""


class DatasetError(ValueError):
    """There is no such data set, or it cannot be opened for reading."""


@dataclass(frozen=True)
class Table:
    columns: list[str]
    rows: list[list[Cell]]
    truncated: bool


def dialect(dsn: str) -> str:
    return "SQLite" if dsn.startswith("sqlite:///") else "Postgres"


async def tables(dsn: str) -> str:
    """The tables and columns, as a model wants to read them."""
    query = SQLITE_TABLES if dialect(dsn) == "SQLite" else POSTGRES_TABLES
    found = await run(dsn, query, 500, timedelta(seconds=10))
    return "\n".join(str(row[0]) for row in found.rows)


async def run(dsn: str, statement: str, limit: int, within: timedelta) -> Table:
    """The first `limit` rows of a query, or `SqlError`."""
    if path := re.match(r"sqlite:///(.+)", dsn):
        # A thread cannot be cancelled; this one ends by itself, at its time limit.
        return await asyncio.to_thread(_sqlite, path[1], statement, limit, within)
    if re.match(r"postgres(ql)?://", dsn):
        return await _postgres(dsn, statement, limit, within)
    raise DatasetError("A data set is sqlite:///path or postgresql://...")


def _sqlite(path: str, statement: str, limit: int, within: timedelta) -> Table:
    end = time.monotonic() + within.total_seconds()
    try:
        conn = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, isolation_level=None)
    except sqlite3.OperationalError as fault:
        raise DatasetError("The data set's file cannot be opened.") from fault
    with closing(conn):
        conn.execute("pragma query_only = on")
        # SQLite declares these on first use, which the authorizer would take for a new table.
        with suppress(sqlite3.OperationalError):
            conn.execute("select 1 from json_each('[]'), json_tree('[]')")
        # One value of a gigabyte is easily asked for, and no row limit would stop it.
        conn.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10_000_000)
        # `mode=ro` is about this file. Attaching another, turning a pragma back, or writing a
        # copy elsewhere with `vacuum into` are different actions, and not on the list.
        conn.set_authorizer(
            lambda action, *_: sqlite3.SQLITE_OK if action in SQLITE_MAY else sqlite3.SQLITE_DENY
        )
        conn.set_progress_handler(lambda: time.monotonic() > end, 10_000)
        try:
            cursor = conn.execute(statement)
            rows = cursor.fetchmany(limit + 1)
        except (sqlite3.Error, sqlite3.Warning) as fault:
            late = time.monotonic() > end
            reason = f"stopped after {within.total_seconds():g} s" if late else str(fault)
            raise SqlError(reason) from fault
    if cursor.description is None:
        raise SqlError("this is not a query")
    return _table([column[0] for column in cursor.description], rows, limit)


async def _postgres(dsn: str, statement: str, limit: int, within: timedelta) -> Table:
    try:
        # The server stops the statement; this is for a server that no longer answers at all.
        async with asyncio.timeout(within.total_seconds() + 10):
            return await _read(dsn, statement, limit, within)
    except TimeoutError as fault:
        raise SqlError("the data set's server did not answer in time") from fault


async def _read(dsn: str, statement: str, limit: int, within: timedelta) -> Table:
    try:
        conn = await AsyncConnection.connect(dsn, connect_timeout=5)
    except psycopg.Error as fault:
        raise DatasetError("The data set's server cannot be reached, or refuses.") from fault
    try:
        await conn.set_read_only(True)
        # The first query takes the snapshot; from then on Postgres will not let the transaction
        # be made writable again. The limit holds for this transaction, not for a pooled session.
        await conn.execute(
            "select set_config('statement_timeout', %s, true)",
            [str(math.ceil(within / timedelta(milliseconds=1)))],
        )
        cursor = await conn.execute(
            "select rolsuper from pg_roles where rolname in (session_user, current_user)"
        )
        if any(superuser for (superuser,) in await cursor.fetchall()):
            # Functions of a superuser reach files and programs, which no transaction guards.
            raise DatasetError("The data set's login is a superuser: give it one that may read.")
        # A named cursor is `declare ... cursor for <statement>`: the grammar takes a query there
        # and nothing else, and the extended protocol takes no second statement.
        async with conn.cursor("answer") as reading:
            await reading.execute(statement.encode())
            rows = await reading.fetchmany(limit + 1)
            columns = [column.name for column in reading.description or ()]
    except psycopg.Error as fault:
        raise SqlError(fault.diag.message_primary or str(fault)) from fault
    finally:
        await conn.close()
    return _table(columns, rows, limit)


def _table(columns: list[str], rows: Sequence[Sequence[Any]], limit: int) -> Table:
    cells = [[_cell(value) for value in row] for row in rows[:limit]]
    return Table(columns, cells, truncated=len(rows) > limit)


def _cell(value: Any) -> Cell:
    """A value that JSON can carry, of bounded length."""
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else None
        case bytes():
            return f"({len(value)} bytes)"
        case Decimal():
            return float(value)
        case _:
            return str(value)[:2_000]
