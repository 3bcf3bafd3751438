import asyncio
import sys
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection, conninfo, sql

from clew.checkpointing import isolation, migrate
from clew.checkpointing.errors import MigrationError, UnfitDatabase
from clew.checkpointing.postgres import Database
from tests.conftest import MIGRATIONS, create, drop


async def test_eight_processes_at_once_all_succeed_and_each_migration_runs_once(
    empty_dsn: str,
) -> None:
    code = (
        "import asyncio, sys\n"
        "from clew.checkpointing import migrate\n"
        f"asyncio.run(migrate.apply(sys.argv[1], *{MIGRATIONS!r}))\n"
    )
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", code, empty_dsn)
        for _ in range(8)
    ]
    assert [await process.wait() for process in processes] == [0] * 8
    assert await migrate.pending(empty_dsn, *MIGRATIONS) == []
    async with await AsyncConnection.connect(empty_dsn) as conn:
        cursor = await conn.execute("select count(*) from clew.migration")
        assert await cursor.fetchone() == (len(migrate.collect(*MIGRATIONS)),)


async def test_pending_touches_nothing(empty_dsn: str) -> None:
    assert await migrate.pending(empty_dsn, *MIGRATIONS) == migrate.collect(*MIGRATIONS)
    async with await AsyncConnection.connect(empty_dsn) as conn:
        cursor = await conn.execute("select to_regnamespace('clew')")
        assert await cursor.fetchone() == (None,)


Files = Callable[..., str]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    """Makes a package of migrations: its name."""

    def make(**texts: str) -> str:
        name = f"migrations_{uuid.uuid4().hex}"
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
        for at, (file, text) in enumerate(texts.items(), 1):
            (tmp_path / name / f"{at:04}_{file}.sql").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        return name

    return make


async def waiting(conn: AsyncConnection[Any]) -> datetime:
    """Return once somebody waits for a lock in this database: since when its transaction is."""
    look = (
        "select xact_start from pg_stat_activity"
        " where datname = current_database() and wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(20):
        while True:
            row = await (await conn.execute(look)).fetchone()
            if row is not None:
                return row[0]


async def test_a_file_that_fails_is_named_and_those_before_it_stay(
    empty_dsn: str, files: Files
) -> None:
    package = files(
        one="create table clew.one (n int)", two="create table clew.half (); select 1/0"
    )
    with pytest.raises(MigrationError, match=r"0002_two.*division"):
        await migrate.apply(empty_dsn, package)
    assert [left.name for left in await migrate.pending(empty_dsn, package)] == ["two"]
    async with await AsyncConnection.connect(empty_dsn) as conn:
        cursor = await conn.execute("select to_regclass('clew.one'), to_regclass('clew.half')")
        assert await cursor.fetchone() == ("clew.one", None)
        cursor = await conn.execute("select has_table_privilege('clew_app', 'clew.one', 'insert')")
        assert await cursor.fetchone() == (True,)


async def test_a_file_keeps_nobody_waiting_once_it_is_applied(empty_dsn: str, files: Files) -> None:
    package = files(
        session="alter table clew.session add column m int",
        run="alter table clew.run add column m int",
    )
    ground = "create schema clew; create table clew.session (n int); create table clew.run (n int)"
    async with (
        await AsyncConnection.connect(empty_dsn, autocommit=True) as look,
        await AsyncConnection.connect(empty_dsn, autocommit=True) as conn,
    ):
        await conn.execute(ground)
        async with asyncio.TaskGroup() as group, conn.transaction():
            await conn.execute("delete from clew.run")
            task = group.create_task(migrate.apply(empty_dsn, package))
            await waiting(look)
            await conn.execute("delete from clew.session")  # would be a deadlock in one
        assert len(await task) == 2


async def test_a_file_that_gets_no_lock_lets_go_and_tries_again_so_often(
    empty_dsn: str, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "_PATIENCE", "100ms")
    monkeypatch.setattr(migrate, "_PAUSE_SECONDS", 0.01)
    package = files(run="alter table clew.run add column m int")
    async with (
        await AsyncConnection.connect(empty_dsn, autocommit=True) as look,
        await AsyncConnection.connect(empty_dsn, autocommit=True) as conn,
    ):
        await conn.execute("create schema clew; create table clew.run (n int)")
        async with conn.transaction():
            await conn.execute("delete from clew.run")
            monkeypatch.setattr(migrate, "_TRIES", 2)
            with pytest.raises(MigrationError, match=r"0001_run.*lock timeout"):
                await migrate.apply(empty_dsn, package)
            monkeypatch.setattr(migrate, "_TRIES", 1000)
            task = asyncio.create_task(migrate.apply(empty_dsn, package))
            first = await waiting(look)
            while await waiting(look) == first:
                pass
        assert [one.name for one in await task] == ["run"]


@pytest.fixture
def plain_login(server: str) -> Iterator[tuple[str, str]]:
    """A login that owns a database and nothing else, and the DSN that it uses."""
    name = f"clew_plain_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(sql.SQL("create role {} login").format(sql.Identifier(name)))
    dsn = create(server, name)
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(sql.SQL("alter database {0} owner to {0}").format(sql.Identifier(name)))
    yield name, conninfo.make_conninfo(dsn, user=name)
    drop(server, name)
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


async def test_a_login_that_owns_its_database_and_nothing_else_is_enough(
    plain_login: tuple[str, str],
) -> None:
    _, dsn = plain_login
    assert await migrate.apply(dsn, *MIGRATIONS)
    assert await migrate.apply(dsn, *MIGRATIONS) == []
    async with Database.open(dsn) as db:
        assert not db.drops_role
        await isolation.prove(db)


async def test_a_database_that_cannot_hold_every_text_is_refused_with_the_way_out(
    server: str,
) -> None:
    name = f"clew_ascii_{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(
            sql.SQL("create database {} encoding 'SQL_ASCII' locale 'C' template template0").format(
                sql.Identifier(name)
            )
        )
    try:
        with pytest.raises(UnfitDatabase, match="UTF8"):
            await migrate.apply(conninfo.make_conninfo(server, dbname=name), *MIGRATIONS)
    finally:
        drop(server, name)


async def test_the_index_that_misled_the_planner_goes_with_checkpointing_alone(
    empty_dsn: str,
) -> None:
    await migrate.apply(empty_dsn, "clew.checkpointing.migrations")
    async with await AsyncConnection.connect(empty_dsn) as conn:
        cursor = await conn.execute("select indexname from pg_indexes where tablename = 'head'")
        assert ("head_owner",) not in await cursor.fetchall()


async def test_an_index_that_is_right_is_not_built_again(empty_dsn: str) -> None:
    """A table that waits for an index keeps every run waiting."""
    (again,) = [
        each
        for each in migrate.collect(*MIGRATIONS)
        if each.name == "lookups" and (each.number == 52)
    ]
    await migrate.apply(empty_dsn, *MIGRATIONS)
    which = "select 'clew.run_held'::regclass::oid, pg_get_indexdef('clew.run_held'::regclass)"
    async with await AsyncConnection.connect(empty_dsn) as conn:
        made = await (await conn.execute(which)).fetchone()
        await conn.execute(again.text)
        assert await (await conn.execute(which)).fetchone() == made
        # As a database has it that is older.
        await conn.execute("drop index clew.run_held")
        await conn.execute("create index run_held on clew.run (worker_id) where status = 'running'")
        await conn.execute(again.text)
        built = await (await conn.execute(which)).fetchone()
    assert made is not None
    assert built is not None
    assert made[1] == built[1]
