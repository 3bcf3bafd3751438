"""Whatever statement is given, the connection lets it read and nothing else."""

import sqlite3
import uuid
from collections.abc import Generator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import conninfo, sql

from tests.agents.graph_loading import shared

readonly_sql = shared("readonly_sql")
SECONDS = timedelta(seconds=10)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a file.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(
            """create table t (n integer primary key, name text);
            insert into t values (1, 'one'), (2, 'zwei'), (3, '三');
            create view v as select name from t;
            create index t_name on t (name);"""
        )
    return path


def contents(path: Path) -> tuple[bytes, set[str]]:
    return path.read_bytes(), {found.name for found in path.parent.iterdir()}


SQLITE_WRITES = [
    "insert into t values (4, 'four')",
    "insert into t select 9, 'nine' returning n",
    "replace into t values (1, 'uno')",
    "insert into t values (1, 'x') on conflict do update set name = 'x'",
    "update t set name = 'x'",
    "update t set name = 'x' returning n",
    "delete from t",
    "with gone as (select 1) delete from t",
    "create table u (n)",
    "create table u as select * from t",
    "create temp table u (n)",
    "create view w as select 1",
    "create index i on t (n)",
    "create trigger r after insert on t begin select 1; end",
    "create virtual table f using fts5(x)",
    "alter table t rename to u",
    "alter table t add column x",
    "alter table t drop column name",
    "drop table t",
    "drop view v",
    "drop index t_name",
    "reindex",
    "analyze",
    "vacuum",
    "vacuum into '{folder}/copy.db'",
    "attach '{folder}/other.db' as other",
    "attach 'file:{folder}/a file.db?mode=rwc' as other",
    "detach main",
    "pragma query_only = off",
    "pragma user_version = 7",
    "pragma journal_mode = wal",
    "pragma writable_schema = on",
    "begin immediate",
    "commit",
    "rollback",
    "savepoint s",
    "release s",
    "select 1; delete from t",
    "pragma query_only = off; delete from t",
    "select load_extension('x')",
    "explain delete from t",
    "delete /* a comment */ from t",
    "DeLeTe FROM t",
    "-- read only, really\ndelete from t",
    "",
    "no SQL at all",
]


@pytest.mark.parametrize("statement", SQLITE_WRITES)
async def test_sqlite_refuses_every_statement_that_is_not_a_query(
    file: Path, statement: str
) -> None:
    before = contents(file)
    with pytest.raises(readonly_sql.SqlError):
        await readonly_sql.run(
            f"sqlite:///{file}", statement.format(folder=file.parent), 10, SECONDS
        )
    assert contents(file) == before


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("select * from t order by n", [[1, "one"], [2, "zwei"], [3, "三"]]),
        ("with x as (select max(n) m from t) select m from x", [[3]]),
        ("values (1, null), (2.5, 'a')", [[1, None], [2.5, "a"]]),
        ("select name from v where name like '%e%' order by 1", [["one"], ["zwei"]]),
        ("select 'insert; drop table t'", [["insert; drop table t"]]),
        ("select count(*) over () from t limit 1;", [[3]]),
        ("select value from json_each('[7]')", [[7]]),
        ("select x'00ff', 9e999", [["(2 bytes)", None]]),
    ],
)
async def test_sqlite_answers_queries_of_every_kind(
    file: Path, query: str, rows: list[list[object]]
) -> None:
    table = await readonly_sql.run(f"sqlite:///{file}", query, 10, SECONDS)
    assert table.rows == rows
    assert table.truncated is False


ENDLESS = "with recursive r(n) as (select 1 union all select n + 1 from r) select {} from r"


async def test_sqlite_stops_at_the_row_limit_and_at_the_time_limit(file: Path) -> None:
    dsn = f"sqlite:///{file}"
    table = await readonly_sql.run(dsn, ENDLESS.format("n"), 3, SECONDS)
    assert table.rows == [[1], [2], [3]]
    assert table.truncated is True
    with pytest.raises(readonly_sql.SqlError, match=r"stopped after 0\.2 s"):
        await readonly_sql.run(dsn, ENDLESS.format("count(*)"), 3, timedelta(seconds=0.2))


async def test_sqlite_does_not_build_values_of_a_gigabyte(file: Path) -> None:
    with pytest.raises(readonly_sql.SqlError, match="too big"):
        await readonly_sql.run(f"sqlite:///{file}", "select zeroblob(1000000000)", 1, SECONDS)


async def test_the_tables_are_described(file: Path) -> None:
    described = await readonly_sql.tables(f"sqlite:///{file}")
    assert "create table t (n integer primary key, name text)" in described.lower()


# Postgres


@pytest.fixture
def warehouse(server: str, dsn: str) -> Generator[str]:
    """The DSN of a login that owns a table and may write: what is refused is not for lack of
    rights.
    """
    role = f"analyst_{uuid.uuid4().hex}"
    with psycopg.connect(dsn, autocommit=True) as conn:
        name = sql.Identifier(role)
        conn.execute(sql.SQL("create role {} login password 'pw'").format(name))
        conn.execute("create schema shop")
        conn.execute("create table shop.t (n int primary key, name text, price numeric)")
        conn.execute("insert into shop.t values (1, 'one', 1.5), (2, '二', 2.5)")
        conn.execute("create sequence shop.s")
        conn.execute(
            "create function shop.sneak() returns int language sql as"
            " 'insert into shop.t values (9) returning n'"
        )
        conn.execute(sql.SQL("grant all on schema shop to {}").format(name))
        for thing in (
            sql.SQL("table shop.t"),
            sql.SQL("sequence shop.s"),
            sql.SQL("function shop.sneak()"),
        ):
            conn.execute(sql.SQL("alter {} owner to {}").format(thing, name))
    yield _url(dsn, role)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(sql.SQL("drop owned by {} cascade").format(sql.Identifier(role)))
        conn.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))


def _url(dsn: str, role: str) -> str:
    parts = conninfo.conninfo_to_dict(dsn)
    host, port = parts.get("host", "localhost"), parts.get("port", 5432)
    return f"postgresql://{role}:pw@/{parts['dbname']}?host={host}&port={port}"


def rows_of(dsn: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn) as conn:
        return conn.execute("select n, name from shop.t order by n").fetchall()


POSTGRES_WRITES = [
    "insert into shop.t values (4, 'four', 1)",
    "insert into shop.t values (4) returning n",
    "update shop.t set name = 'x'",
    "delete from shop.t returning n",
    "truncate shop.t",
    "merge into shop.t using shop.t u on false when not matched then insert values (7)",
    "with x as (insert into shop.t values (4) returning n) select n from x",
    "with x as (delete from shop.t returning n) select n from x",
    "select * into shop.u from shop.t",
    "create table shop.u (n int)",
    "create table shop.u as select * from shop.t",
    "create temp table u (n int)",
    "create view shop.w as select 1",
    "create index on shop.t (name)",
    "create role sneaky",
    "create function shop.f() returns int language sql as 'select 1'",
    "alter table shop.t add column x int",
    "drop table shop.t",
    "comment on table shop.t is 'x'",
    "grant select on shop.t to public",
    "copy shop.t from program 'echo 5'",
    "copy (select 1) to program 'cat > /tmp/analyst-was-here'",
    "copy (select 1) to '/tmp/analyst-was-here'",
    "copy shop.t to stdout",
    "do $$ begin insert into shop.t values (4); end $$",
    "call shop.p()",
    "select shop.sneak()",
    "select nextval('shop.s')",
    "select setval('shop.s', 99)",
    "select * from shop.t for update",
    "lock table shop.t",
    "vacuum shop.t",
    "analyze shop.t",
    "reindex table shop.t",
    "refresh materialized view shop.m",
    "set transaction read write",
    "set default_transaction_read_only = off",
    "set session characteristics as transaction read write",
    "set role postgres",
    "reset all",
    "begin",
    "commit",
    "rollback",
    "savepoint s",
    "prepare p as select 1",
    "listen x",
    "notify x",
    "explain analyze delete from shop.t",
    "select 1; delete from shop.t",
    "select 1; commit; delete from shop.t",
    "commit; set transaction read write; delete from shop.t",
    "select set_config('transaction_read_only', 'off', true)",
    "select set_config('transaction_read_only', 'off', false), shop.sneak()",
    "select 1 /* ; */; -- \n delete from shop.t",
    "",
    "no SQL at all",
]


@pytest.mark.parametrize("statement", POSTGRES_WRITES)
async def test_postgres_refuses_every_statement_that_is_not_a_query(
    warehouse: str, dsn: str, statement: str
) -> None:
    with pytest.raises(readonly_sql.SqlError):
        await readonly_sql.run(warehouse, statement, 10, SECONDS)
    assert rows_of(dsn) == [(1, "one"), (2, "二")]
    with psycopg.connect(dsn) as conn:
        made = conn.execute(
            "select relname from pg_class c join pg_namespace n on n.oid = relnamespace"
            " where nspname = 'shop' and relkind in ('r', 'v', 'm') order by 1"
        ).fetchall()
        used = conn.execute("select is_called from shop.s").fetchone()
    assert made == [("t",)]
    assert used == (False,)


async def test_postgres_answers_queries(warehouse: str) -> None:
    query = "select name, price, date '2024-05-01' as day, 'a%b' as x from shop.t order by n;"
    table = await readonly_sql.run(warehouse, query.rstrip(";"), 1, SECONDS)
    assert table.columns == ["name", "price", "day", "x"]
    assert table.rows == [["one", 1.5, "2024-05-01", "a%b"]]
    assert table.truncated is True
    assert "shop.t (n integer, name text, price numeric)" in await readonly_sql.tables(warehouse)


async def test_postgres_stops_at_the_time_limit(warehouse: str) -> None:
    with pytest.raises(readonly_sql.SqlError, match="statement timeout"):
        await readonly_sql.run(warehouse, "select pg_sleep(60)", 1, timedelta(seconds=0.2))
    # Not even a statement that lifts the limit lifts its own.
    lifting = "select set_config('statement_timeout', '0', true), pg_sleep(60)"
    with pytest.raises(readonly_sql.SqlError, match="statement timeout"):
        await readonly_sql.run(warehouse, lifting, 1, timedelta(seconds=0.2))


async def test_postgres_is_not_read_as_a_superuser(warehouse: str, dsn: str) -> None:
    role = conninfo.conninfo_to_dict(warehouse)["user"]
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(sql.SQL("alter role {} superuser").format(sql.Identifier(str(role))))
    with pytest.raises(readonly_sql.DatasetError, match="superuser"):
        await readonly_sql.run(warehouse, "select 1", 1, SECONDS)
