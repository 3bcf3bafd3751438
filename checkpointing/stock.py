"""From and to the tables of `AsyncPostgresSaver`: nobody is locked in, and nobody locked out.

    async with Stock.open(dsn) as stock:
        await stock_import.all_threads(stock, saver)
        await stock_export.thread(saver, stock, "a-session")

The tables may lie in any schema of any database. Values pass through as they are (`opaque`), so
no class of the user's graph is needed, nor lost.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, LiteralString

import psycopg
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.base import CipherProtocol
from psycopg import AsyncConnection, conninfo, sql
from psycopg.rows import DictRow, dict_row

from clew.checkpointing import passthrough
from clew.checkpointing.errors import DatabaseUnreachable, StockError
from clew.checkpointing.postgres import Connection
from clew.checkpointing.sql import Queries

_queries = Queries("clew.checkpointing.queries")


class Stock:
    """A database with the stock tables; each use has a connection of its own."""

    def __init__(self, dsn: str, schema: str | None, cipher: CipherProtocol | None) -> None:
        self._dsn = dsn
        self._schema = schema
        self._cipher = cipher
        self.serde = passthrough.serializer(cipher)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        dsn: str,
        *,
        schema: str | None = None,
        cipher: CipherProtocol | None = None,
        setup: bool = False,
    ) -> AsyncGenerator[Stock]:
        """`cipher` reads what LangGraph's own `EncryptedSerializer` wrote; `setup` makes the
        tables if they are missing. Raises `StockError` where they are not there."""
        stock = cls(dsn, schema, cipher)
        async with stock.connection() as conn:
            if setup:
                if schema is not None:
                    name = sql.Identifier(schema)
                    await conn.execute(sql.SQL("create schema if not exists {}").format(name))
                await AsyncPostgresSaver(conn).setup()
            found = await rows(conn, "stock_tables", {})
            if not found[0]["there"]:
                where = f"schema {schema}" if schema else "the schemas on the search path"
                raise StockError(f"{where} has no tables of langgraph-checkpoint-postgres")
        yield stock

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        dsn = self._dsn
        if self._schema is not None:
            options = str(conninfo.conninfo_to_dict(dsn).get("options") or "")
            path = '"' + self._schema.replace('"', '""') + '"'
            path = path.replace("\\", "\\\\").replace(" ", "\\ ")
            dsn = conninfo.make_conninfo(dsn, options=f"{options} -csearch_path={path}".strip())
        try:
            conn = await AsyncConnection[DictRow].connect(
                dsn, autocommit=True, prepare_threshold=None, row_factory=dict_row
            )
        except psycopg.OperationalError as error:
            raise DatabaseUnreachable(str(error).strip()) from error
        async with conn:
            yield conn

    def encrypt(self, kind: str, data: bytes) -> tuple[str, bytes]:
        """What a serialized value is stored as: itself, or as LangGraph's cipher has it."""
        if self._cipher is None:
            return kind, data
        name, sealed = self._cipher.encrypt(data)
        return f"{kind}+{name}", sealed

    async def threads(self) -> list[str]:
        async with self.connection() as conn:
            return [row["thread_id"] for row in await rows(conn, "stock_threads", {})]

    async def has(self, thread_id: str) -> bool:
        async with self.connection() as conn:
            return bool(await rows(conn, "stock_has_thread", {"thread_id": thread_id}))


async def rows(conn: Connection, name: str, params: Mapping[str, Any]) -> list[DictRow]:
    """Of a query by its name, as bytes and numbers rather than their texts."""
    query: LiteralString = _queries[name]
    cursor = await conn.execute(query, params, binary=True)
    return await cursor.fetchall()
