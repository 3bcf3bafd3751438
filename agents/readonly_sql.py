"""Runs one SQL statement that somebody else wrote, and can only read.

Nothing here looks at the statement. The connection refuses what is not a query: SQLite by the
mode of the file and an authorizer, Postgres by its grammar for cursors inside a read-only
transaction. Rows and time are bounded by the connection too.
"""

import asyncio
import json
import math
import re
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg import AsyncConnection, sql

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
# Who is one of these, or may become one, reaches files, programs and the server itself by mere
# functions, and no transaction guards those. A replication slot outlives the one it was made in.
POSTGRES_MAY_TOO_MUCH = """
select exists (
    select from pg_roles r where pg_has_role(session_user, r.oid, 'member') and (
        r.rolsuper or r.rolreplication or r.rolname in
            ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program')
        or exists (
            select from pg_proc p where has_function_privilege(r.oid, p.oid, 'execute')
            and p.proname in (
                'pg_read_file', 'pg_read_binary_file', 'pg_ls_dir', 'pg_stat_file',
                'pg_file_write', 'pg_file_rename', 'pg_file_unlink', 'pg_file_sync',
                'lo_import', 'lo_export', 'pg_reload_conf', 'pg_rotate_logfile', 'pg_promote',
                'pg_switch_wal', 'pg_create_restore_point', 'pg_backup_start', 'pg_backup_stop'))))
"""
MAX_CHARACTERS = 1_000_000  # of a table: an answer is kept in its session, and sent to apps


class SqlError(ValueError):
    """The database refused the statement, or stopped it. The message is the database's own."""


class DatasetError(ValueError):
    """There is no such data set, or it cannot be opened for reading."""


@dataclass
class Table:
    columns: list[str] = field(default_factory=list[str])
    rows: list[list[Cell]] = field(default_factory=list[list[Cell]])
    truncated: bool = False
    room: int = field(default=MAX_CHARACTERS, repr=False)

    def add(self, row: Sequence[Any], limit: int) -> bool:
        """Take one more row, or say that there is no place for it."""
        cells = [_cell(value) for value in row]
        self.room -= sum(len(str(cell)) for cell in cells)
        self.truncated = len(self.rows) >= limit or self.room < 0
        if not self.truncated:
            self.rows.append(cells)
        return not self.truncated


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
    file, table = f"file:{quote(path)}?mode=ro", Table()
    try:
        conn = sqlite3.connect(file, uri=True, isolation_level=None, timeout=within.total_seconds())
    except sqlite3.OperationalError as fault:
        raise DatasetError("The data set's file cannot be opened.") from fault
    with closing(conn):
        conn.execute("pragma query_only = on")
        # SQLite declares these on first use, which the authorizer would take for a new table.
        with suppress(sqlite3.DatabaseError):
            conn.execute("select 1 from json_each('[]'), json_tree('[]')")
        # The time limit takes effect between two steps of a statement. These keep a step short:
        # searching one text of megabytes for another takes minutes.
        conn.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 100_000)
        conn.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 500)
        # `mode=ro` is about this file. Attaching another, turning a pragma back, or writing a
        # copy elsewhere with `vacuum into` are different actions, and not on the list.
        conn.set_authorizer(
            lambda action, *_: sqlite3.SQLITE_OK if action in SQLITE_MAY else sqlite3.SQLITE_DENY
        )
        conn.set_progress_handler(lambda: time.monotonic() > end, 200)
        try:
            cursor = conn.execute(statement)
            table.columns = [column[0] for column in cursor.description or ()]
            # One by one, for a row that is not kept need not stay in memory.
            all(table.add(row, limit) for row in cursor)
        except (sqlite3.Error, sqlite3.Warning) as fault:
            late = time.monotonic() > end
            reason = f"stopped after {within.total_seconds():g} s" if late else str(fault)
            raise SqlError(reason) from fault
    if cursor.description is None:
        raise SqlError("this is not a query")
    return table


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
    except psycopg.Error:
        # Without the chain, which quotes the DSN where it is malformed, password and all.
        raise DatasetError("The data set's server cannot be reached, or refuses.") from None
    try:
        await conn.set_read_only(True)
        # The first query takes the snapshot; from then on Postgres will not let the transaction
        # be made writable again. The limit holds for this transaction, not for a pooled session.
        await conn.execute(
            "select set_config('statement_timeout', %s, true)",
            [str(max(1, math.ceil(within / timedelta(milliseconds=1))))],  # 0 lifts the limit
        )
        cursor = await conn.execute(POSTGRES_MAY_TOO_MUCH)
        if await cursor.fetchone() != (False,):
            raise DatasetError(
                "The data set's login is, or may become, a superuser or one that replicates,"
                " reaches files or steers the server: give it one that may only read."
            )
        # A named cursor is `declare ... cursor for <statement>`: the grammar takes a query there
        # and nothing else, and the extended protocol takes no second statement.
        async with conn.cursor("answer") as reading:
            await reading.execute(statement.encode())
            table = Table([column.name for column in reading.description or ()])
            # In one statement, for the time limit is each statement's own; and row by row, for
            # one that is not kept need not stay in memory.
            fetch = sql.SQL("fetch {} from answer").format(limit + 1)
            async for row in conn.cursor().stream(fetch):
                table.add(row, limit)
    except psycopg.Error as fault:
        raise SqlError(fault.diag.message_primary or str(fault)) from fault
    finally:
        # Ends the transaction too, and with it whatever a function of the query has begun.
        await conn.close()
    return table


def _cell(value: Any) -> Cell:
    """A value that JSON can carry, of bounded length."""
    match value:
        case None | bool() | int():
            return value
        case float() | Decimal():
            return float(value) if math.isfinite(value) else None
        case bytes():
            return f"({len(value)} bytes)"
        case dict() | list():
            return json.dumps(value, ensure_ascii=False, default=str)[:2_000]
        case _:
            return str(value)[:2_000]
