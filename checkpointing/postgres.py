"""One pool on one database, and the principal that every statement works for.

The rule in the database reads who is asking from two transaction-local settings. They travel in
the same round trip as the work itself (a psycopg pipeline), so nobody pays for them and nobody
can forget them: there is no way to a connection but through a principal.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import LiteralString
from weakref import WeakKeyDictionary

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from clew.checkpointing.combiner import Combiner
from clew.checkpointing.errors import DatabaseUnreachable
from clew.checkpointing.exchange import (
    Answer,
    Operation,
    Outcome,
    Params,
    Prepared,
    Statement,
    batch,
)
from clew.checkpointing.sealed import Seals

Connection = AsyncConnection[DictRow]
# What a statement raises when something is the matter with the server, for now or for good.
TROUBLE = psycopg.OperationalError
# Of its classes of SQLSTATE those that pass: a lost connection, a rollback that makes way for
# others, too little of memory, disk or connections, and somebody who stops the server. Of the rest,
# such as a row that is too large for its index, the same statement makes the same again.
_PASSING = ("08", "40", "53", "57")

_PRINCIPAL: LiteralString = (
    "select set_config('clew.owner_from', %s, true), set_config('clew.owner_to', %s, true)"
)
_PRINCIPAL_AND_ROLE: LiteralString = _PRINCIPAL + ", set_config('role', 'clew_app', true)"
# For those that others wait behind.
_SOON: LiteralString = ", set_config('lock_timeout', '50ms', true)"
IDLE_SECONDS = 1.0

_PRIVILEGED: LiteralString = (
    "select rolsuper or rolbypassrls as privileged from pg_roles where rolname = current_user"
)


def passes(error: BaseException) -> bool:
    """Whether the server went away, or is not able to just now. Of a connection that is lost there
    is often no SQLSTATE."""
    if not isinstance(error, TROUBLE):
        return False
    return error.sqlstate is None or error.sqlstate.startswith(_PASSING)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a statement works for: a range of owner ids."""

    owner_from: int
    owner_to: int

    @classmethod
    def owner(cls, owner_id: int) -> Principal:
        return cls(owner_id, owner_id)

    @classmethod
    def tenant_of(cls, owner_id: int) -> Principal:
        """The admin of the tenant that this owner belongs to."""
        first = owner_id >> 32 << 32
        return cls(first, first | 0xFFFFFFFF)


SERVICE = Principal(0, (1 << 63) - 1)


class Database:
    """A pool whose connections are only lent out under a principal."""

    def __init__(
        self,
        pool: AsyncConnectionPool[Connection],
        *,
        drop_role: bool,
    ) -> None:
        self.pool = pool
        # Set by whoever knows that no transaction pooler is in between.
        self.prepares = False
        self._prepared: WeakKeyDictionary[Connection, Prepared] = WeakKeyDictionary()
        self._used: WeakKeyDictionary[Connection, float] = WeakKeyDictionary()
        self.drops_role = drop_role
        self.opens: list[bytes] = []  # what sealed values begin with that it opens
        self._principal: LiteralString = _PRINCIPAL_AND_ROLE if drop_role else _PRINCIPAL
        self._owners: dict[tuple[str, str], int] = {}
        self._combiner: Combiner | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        dsn: str,
        *,
        min_size: int = 1,
        max_size: int = 16,
        seals: Seals | None = None,
    ) -> AsyncGenerator[Database]:
        async def teach(conn: Connection) -> None:
            assert seals is not None
            seals.teach(conn)

        pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            dsn,
            configure=teach if seals is not None else None,
            connection_class=AsyncConnection[DictRow],
            kwargs={
                "autocommit": True,
                "prepare_threshold": None,  # a transaction pooler loses them
                "row_factory": dict_row,
                "connect_timeout": 5,
                "keepalives_idle": 5,
                "application_name": "clew",
            },
            min_size=min_size,
            max_size=max_size,
            timeout=10.0,
            reconnect_timeout=4.0,
            open=False,
        )
        # The pool retries in the background and hides the reason; one plain connection tells it.
        try:
            async with await AsyncConnection[DictRow].connect(
                dsn, autocommit=True, row_factory=dict_row, connect_timeout=5
            ) as conn:
                row = await (await conn.execute(_PRIVILEGED)).fetchone()
        except psycopg.OperationalError as error:
            raise DatabaseUnreachable(str(error).strip()) from error
        await pool.open()
        try:
            db = cls(pool, drop_role=bool(row and row["privileged"]))
            db._combiner = Combiner(db._together)
            db.opens = seals.prefixes if seals is not None else []
            yield db
        finally:
            await pool.close()

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        """A bare connection, no principal: it sees no row that has an owner."""
        conn = await self._alive()
        try:
            yield conn
        finally:
            # Not by the pool's `reset`, which would send every return through its workers.
            self._used[conn] = time.monotonic()
            await self.pool.putconn(conn)

    async def _alive(self) -> Connection:
        """A connection that answers. Only one that has been idle is asked, since asking each time
        would double the round trips of a busy server; and not by the pool's `check`, which waits
        longer and longer between one dead connection and the next."""
        while True:
            task = asyncio.current_task()
            cancelled = task.cancelling() if task else 0
            try:
                conn = await self.pool.getconn()
            except PoolTimeout as error:
                raise DatabaseUnreachable("no database connection became free in time") from error
            if task and task.cancelling() > cancelled:
                # Up to Python 3.11 `wait_for`, by which the pool waits, forgets a cancellation that
                # comes in the moment in which the connection does.
                await self.pool.putconn(conn)
                raise asyncio.CancelledError
            if time.monotonic() - self._used.get(conn, 0.0) < IDLE_SECONDS:
                return conn
            try:
                await conn.execute("")
            except psycopg.OperationalError:
                await conn.close()
                await self.pool.putconn(conn)  # replaced by the pool
            except BaseException:  # cancelled, for one: it is lent to nobody
                await self.pool.putconn(conn)
                raise
            else:
                return conn

    async def exchange(
        self, who: Principal, *statements: Statement, binary: bool = False
    ) -> list[Answer]:
        """One implicit transaction, one round trip: what each statement returned."""
        (outcome,) = await self._batch([self._operation(who, statements, binary)])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def combine(
        self, who: Principal, *statements: Statement, binary: bool = False
    ) -> list[Answer]:
        """As `exchange`, in one with whatever else is to go out at this moment."""
        if self._combiner is None:
            return await self.exchange(who, *statements, binary=binary)
        return await self._combiner.run(self._operation(who, statements, binary))

    def _operation(
        self, who: Principal, statements: Sequence[Statement], binary: bool
    ) -> Operation:
        principal = (self._principal, (str(who.owner_from), str(who.owner_to)))
        return Operation(statements, binary, principal)

    async def _together(self, operations: Sequence[Operation]) -> list[Outcome]:
        """Of several none waits for a lock for long, but fails with `LockNotAvailable`."""
        if len(operations) > 1:
            operations = [self._hurried(operation) for operation in operations]
        return await self._batch(operations)

    def _hurried(self, operation: Operation) -> Operation:
        assert operation.setup is not None
        principal, params = operation.setup
        return replace(operation, setup=(principal + _SOON, params))

    async def _batch(self, operations: Sequence[Operation]) -> list[Outcome]:
        async with self.connection() as conn:
            prepared = self._prepared.setdefault(conn, Prepared()) if self.prepares else None
            return await batch(conn, operations, prepared)

    @asynccontextmanager
    async def work(self, who: Principal) -> AsyncGenerator[Connection]:
        """One implicit transaction, one round trip: fetch results last, a fetch ends it."""
        async with self.connection() as conn, conn.pipeline():
            await conn.execute(self._principal, [str(who.owner_from), str(who.owner_to)])
            yield conn

    @asynccontextmanager
    async def transaction(self, who: Principal) -> AsyncGenerator[Connection]:
        """An explicit transaction, for work that reads before it writes."""
        async with self.connection() as conn, conn.transaction():
            await self.become(conn, who)
            yield conn

    async def become(self, conn: Connection, who: Principal) -> None:
        """Set the principal of the transaction that this connection is in."""
        await conn.execute(self._principal, [str(who.owner_from), str(who.owner_to)])

    async def fetch(
        self, who: Principal, query: LiteralString, params: Params = None
    ) -> list[DictRow]:
        (answer,) = await self.exchange(who, (query, params))
        return answer.rows

    async def one(
        self, who: Principal, query: LiteralString, params: Params = None
    ) -> DictRow | None:
        rows = await self.fetch(who, query, params)
        return rows[0] if rows else None

    async def execute(self, who: Principal, query: LiteralString, params: Params = None) -> int:
        """Run a statement and say how many rows it touched."""
        (answer,) = await self.exchange(who, (query, params))
        return answer.count

    async def owner(self, tenant: str, name: str) -> int:
        """The id of an owner, made at first sight. Ids never change, so they are remembered."""
        key = (tenant, name)
        if key not in self._owners:
            row = await self.one(SERVICE, "select clew.owner_id(%s, %s)", key)
            assert row is not None
            self._owners[key] = row["owner_id"]
        return self._owners[key]

    def forget(self, tenant: str, name: str) -> None:
        """This owner is no more; who comes by that name later is someone else."""
        self._owners.pop((tenant, name), None)
