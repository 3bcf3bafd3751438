"""Forward-only migrations: any number of processes may run them at once, each applies once.

A package's `migrations/` folder holds `NNNN_name.sql`; what has been applied is recorded by
(package, number). Each file is a transaction of its own, all of them under one advisory lock: what
the previous release is doing meanwhile waits for one file at most, and a failure names the file and
leaves those before it applied. A file that does not get its locks soon lets go, and tries again.
"""

import asyncio
import random
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Any, LiteralString, cast

import psycopg
from psycopg import AsyncConnection

from clew.checkpointing.errors import DatabaseUnreachable, MigrationError, UnfitDatabase

_FILE = re.compile(r"^(\d{4})_(\w+)\.sql$")
_LOCK = 0x636C6577  # "clew"
# Whoever comes behind a file that waits for a table waits as long as it.
_PATIENCE = "2s"
_TRIES = 15
_PAUSE_SECONDS = 0.5
# Timed out, or chosen to end a deadlock: as if it had never begun.
_IN_THE_WAY = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)

_GROUND: LiteralString = """
create schema if not exists clew;
create table if not exists clew.migration (
    package text not null, number integer not null, name text not null,
    applied_at timestamptz not null default now(), primary key (package, number)
);
"""

# Whether there is anything yet, and whether this login may look after it.
_STANDING: LiteralString = """
select to_regclass('clew.migration') is not null, coalesce((
    select pg_has_role(current_user, nspowner, 'usage') from pg_namespace where nspname = 'clew'
), true)
"""

# Logins that pass over row security drop to this role for the length of each transaction; the
# others need no such role. Only the former can make one, so this asks before it tries.
_APP_ROLE: LiteralString = """
do $$
begin
    if (select rolsuper or rolbypassrls from pg_roles where rolname = current_user) then
        if not exists (select from pg_roles where rolname = 'clew_app') then
            begin
                create role clew_app nologin noinherit;
            exception when duplicate_object or unique_violation then
                null;  -- another database of this server was migrated at the same moment
            end;
        end if;
        if not pg_has_role(current_user, 'clew_app', 'member') then
            execute format('grant clew_app to %I', current_user);
        end if;
    end if;
    if exists (select from pg_roles where rolname = 'clew_app') then
        grant usage on schema clew to clew_app;
        grant select, insert, update, delete on all tables in schema clew to clew_app;
        revoke insert, update, delete on clew.migration from clew_app;
        grant usage on all sequences in schema clew to clew_app;
        revoke execute on all routines in schema clew from public;
        grant execute on all routines in schema clew to clew_app;
    end if;
end
$$;
"""


@dataclass(frozen=True, slots=True, order=True)
class Migration:
    package: str
    number: int
    name: str
    text: LiteralString


def collect(*packages: str) -> list[Migration]:
    """The migrations of these packages, in the order in which they are applied."""
    found: list[Migration] = []
    for package in packages:
        own: list[Migration] = []
        for file in resources.files(package).iterdir():
            if match := _FILE.match(file.name):
                text = cast("LiteralString", file.read_text(encoding="utf-8"))
                own.append(Migration(package, int(match[1]), match[2], text))
        own.sort()
        if len({m.number for m in own}) != len(own):
            raise MigrationError(f"two migrations of {package} have the same number")
        found += own
    return found


async def apply(dsn: str, *packages: str) -> list[Migration]:
    """Bring the database up to date; returns what was applied. Where nothing is pending, a login
    that may change nothing is welcome."""
    migrations = collect(*packages)
    async with _locked(dsn) as conn:
        row = await (await conn.execute(_STANDING)).fetchone()
        there, owned = row or (False, False)
        pending = await _pending(conn, migrations) if there else migrations
        if not pending and not owned:
            return []
        if not there:
            await conn.execute(_GROUND)
        for migration in pending:
            await _apply(conn, migration)
        if not pending:
            # A database restored from a dump has its migrations but neither role nor grants.
            await conn.execute(_APP_ROLE)
    if pending:
        # Fresh tables without statistics get plans that are a hundred times slower.
        async with await _connect(dsn, autocommit=True) as conn:
            await conn.execute("analyze")
    return pending


@asynccontextmanager
async def _locked(dsn: str) -> AsyncGenerator[AsyncConnection[Any]]:
    """A connection to migrate over, while no other process does. The lock is a connection's of its
    own, in a transaction that lasts as long: a transaction pooler would lose one of a session."""
    async with await _connect(dsn) as lock:
        await lock.execute("set local idle_in_transaction_session_timeout = 0")
        await lock.execute("select pg_advisory_xact_lock(%s)", [_LOCK])
        async with await _connect(dsn, autocommit=True) as conn:
            yield conn


async def _apply(conn: AsyncConnection[Any], migration: Migration) -> None:
    left = _TRIES
    while True:
        left -= 1
        try:
            async with conn.transaction():
                await conn.execute("select set_config('lock_timeout', %s, true)", [_PATIENCE])
                await conn.execute(migration.text)
                await conn.execute(
                    "insert into clew.migration (package, number, name) values (%s, %s, %s)",
                    [migration.package, migration.number, migration.name],
                )
                # What is running already may come upon what the file made.
                await conn.execute(_APP_ROLE)
        except psycopg.Error as error:
            if left == 0 or not isinstance(error, _IN_THE_WAY):
                raise MigrationError(
                    f"{migration.package} {migration.number:04}_{migration.name}: {error}"
                ) from error
        else:
            return
        await asyncio.sleep(_PAUSE_SECONDS * random.uniform(1, 2))  # noqa: S311 - no secret


async def pending(dsn: str, *packages: str) -> list[Migration]:
    """What `apply` would apply, without touching anything."""
    async with await _connect(dsn) as conn:
        cursor = await conn.execute("select to_regclass('clew.migration') is not null")
        row = await cursor.fetchone()
        if row is None or not row[0]:
            return collect(*packages)
        return await _pending(conn, collect(*packages))


async def _connect(dsn: str, *, autocommit: bool = False) -> AsyncConnection[Any]:
    try:
        conn = await AsyncConnection.connect(
            dsn, autocommit=autocommit, prepare_threshold=None, connect_timeout=5
        )
    except psycopg.OperationalError as error:
        raise DatabaseUnreachable(str(error).strip()) from error
    encoding = conn.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        name = conn.info.dbname
        await conn.close()
        raise UnfitDatabase(
            f"the database {name} is encoded as {encoding}, which cannot hold every "
            "text: create it with `encoding 'UTF8' template template0`"
        )
    return conn


async def _pending(conn: AsyncConnection[Any], migrations: list[Migration]) -> list[Migration]:
    cursor = await conn.execute("select package, number from clew.migration")
    applied = {(package, number) for package, number in await cursor.fetchall()}
    ours = {(m.package, m.number) for m in migrations}
    packages = {m.package for m in migrations}
    unknown = sorted(a for a in applied - ours if a[0] in packages)
    if unknown:
        # A newer release migrated it: forward-only means the previous one still runs, so this
        # is no fault unless there is something of ours left to apply in between.
        newest = {p: max(n for q, n in applied if q == p) for p, _ in unknown}
        late = [
            m
            for m in migrations
            if (m.package, m.number) not in applied and m.number < newest.get(m.package, 0)
        ]
        if late:
            raise MigrationError(
                f"the database has {unknown[-1]} of a newer release but lacks {late[0].name}"
            )
    return [m for m in migrations if (m.package, m.number) not in applied]
