"""Whatever statement is given, the connection lets it read and nothing else."""

import contextlib
import json
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
    "select * from pragma_user_version",
    "select * from pragma_database_list",
    "with recursive r(n) as (select 1) insert into t select n, 'x' from r where true",
    "delete from t where n in (select n from t) returning name",
    "create temp trigger r after insert on t begin select 1; end",
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


@pytest.mark.parametrize(
    "query",
    [
        "select zeroblob(1000000000)",
        # One step of a statement, which nothing stops once it runs: minutes for a few megabytes.
        "select instr(hex(zeroblob(4900000)), hex(zeroblob(2000000)) || '1')",
        "select hex(zeroblob(40000)) like '%' || hex(zeroblob(20000)) || '1'",
        # Bytes, not characters, and those of a row that is sorted as well.
        "select replace(hex(zeroblob(20000)), '0', '三')",
        "select zeroblob(60000) a, zeroblob(60000) b, value from json_each('[1, 2]') order by 3",
    ],
)
async def test_sqlite_does_not_build_values_that_keep_it_busy(file: Path, query: str) -> None:
    with pytest.raises(readonly_sql.SqlError, match=r"too big|too complex"):
        await readonly_sql.run(f"sqlite:///{file}", query, 1, SECONDS)


async def test_a_table_of_long_texts_is_cut_before_it_fills_the_session(file: Path) -> None:
    long = ENDLESS.format("hex(zeroblob(40000))")
    table = await readonly_sql.run(f"sqlite:///{file}", long, 2_000, SECONDS)
    assert table.truncated is True
    assert sum(len(row[0]) for row in table.rows) <= readonly_sql.MAX_CHARACTERS
    assert len(table.rows) == readonly_sql.MAX_CHARACTERS // 2_000


async def test_a_file_that_is_no_database_is_an_error_and_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("not a database " * 100)
    before = contents(tmp_path / "notes.db")
    with pytest.raises(ValueError, match="not a database"):
        await readonly_sql.tables(f"sqlite:///{tmp_path}/notes.db")
    assert contents(tmp_path / "notes.db") == before


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
    "commit; set transaction read write; delete from shop.t",
    "select set_config('transaction_read_only', 'off', true)",
    "select set_config('transaction_read_only', 'off', false), shop.sneak()",
    "select 1 /* ; */; -- \n delete from shop.t",
    "select query_to_xml('delete from shop.t', true, true, '')",
    "with recursive r(n) as (select 1) insert into shop.t select n from r returning n",
    "explain analyze with x as (delete from shop.t returning n) select n from x",
    "execute p",
    "discard all",
    "declare c cursor with hold for select 1",
    "fetch 1 from answer",
    "start transaction read write",
    "create extension dblink",
    "create schema mine",
    "create sequence shop.u",
    "create trigger r before insert on shop.t execute function shop.sneak()",
    "create publication p",
    "security label on table shop.t is 'x'",
    "cluster shop.t",
    "checkpoint",
    "import foreign schema x from server y into shop",
    "reassign owned by current_user to postgres",
    "alter role current_user password 'x'",
    "alter system set work_mem = '1GB'",
    "copy shop.t from stdin",
    "copy (delete from shop.t returning n) to stdout",
    "select pg_read_file('/etc/passwd')",
    "select lo_import('/etc/passwd')",
    "",
    "no SQL at all",
]


POSTGRES_EFFECTS = [
    "select pg_advisory_lock(7)",
    "select pg_notify('x', 'y')",
    "select set_config('work_mem', '1GB', false)",
    "select set_config('role', 'none', false)",
]


async def test_what_a_function_of_a_query_begins_ends_with_its_connection(
    warehouse: str, dsn: str
) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("listen x")
        for statement in POSTGRES_EFFECTS:
            assert len((await readonly_sql.run(warehouse, statement, 10, SECONDS)).rows) == 1
        # Waits for the lock rather than looking: the connection may take a moment to be gone.
        conn.execute("set statement_timeout = '30s'")
        conn.execute("select pg_advisory_lock(7)")
        assert not list(conn.notifies(timeout=0))


async def test_large_objects_are_not_written(warehouse: str, dsn: str) -> None:
    # Postgres 15 lets a read-only transaction make one; it goes with the transaction.
    with contextlib.suppress(readonly_sql.SqlError):
        await readonly_sql.run(warehouse, "select lo_from_bytea(0, 'x')", 10, SECONDS)
    with psycopg.connect(dsn) as conn:
        made = conn.execute("select count(*) from pg_largeobject_metadata").fetchone()
    assert made == (0,)


MADE = """
select array(select relname::text from pg_class where relnamespace = 'shop'::regnamespace
             and relkind in ('r', 'v', 'm') order by 1),
       array(select nspname::text from pg_namespace where nspname in ('mine', 'shop') order by 1),
       (select is_called from shop.s),
       (select count(*) from pg_roles where rolname = 'sneaky'),
       array(select n || name from shop.t order by n)
"""


async def test_postgres_refuses_every_statement_that_is_not_a_query(
    warehouse: str, dsn: str
) -> None:
    # In one test, for a database of its own is what costs.
    with psycopg.connect(dsn, autocommit=True) as conn:
        before = conn.execute(MADE).fetchone()
        assert before == (["t"], ["shop"], False, 0, ["1one", "2二"])
        for statement in POSTGRES_WRITES:
            try:
                table = await readonly_sql.run(warehouse, statement, 10, SECONDS)
            except readonly_sql.SqlError:
                table = None
            assert table is None, f"not refused: {statement}"
            assert conn.execute(MADE).fetchone() == before, statement


async def test_postgres_answers_queries(warehouse: str) -> None:
    query = "select name, price, date '2024-05-01' as day, 'a%b' as x from shop.t order by n;"
    table = await readonly_sql.run(warehouse, query.rstrip(";"), 1, SECONDS)
    assert table.columns == ["name", "price", "day", "x"]
    assert table.rows == [["one", 1.5, "2024-05-01", "a%b"]]
    assert table.truncated is True
    assert "shop.t (n integer, name text, price numeric)" in await readonly_sql.tables(warehouse)


async def test_postgres_stops_at_the_time_limit(warehouse: str) -> None:
    # Not even a statement that lifts the limit lifts its own, and no time is no lack of a limit.
    lifting = "select set_config('statement_timeout', '0', true), pg_sleep(60)"
    for query, limit in (("select pg_sleep(60)", 0.2), (lifting, 0.2), (lifting, 0)):
        with pytest.raises(readonly_sql.SqlError, match="statement timeout"):
            await readonly_sql.run(warehouse, query, 1, timedelta(seconds=limit))


async def test_postgres_values_are_what_json_can_carry(warehouse: str) -> None:
    query = """select 'NaN'::numeric, 'Infinity'::float8, 1.25, '{"a": ["茶"]}'::jsonb,
               array[1, null], '\\x00ff'::bytea, null, true"""
    table = await readonly_sql.run(warehouse, query, 1, SECONDS)
    assert table.rows == [[None, None, 1.25, '{"a": ["茶"]}', "[1, null]", "(2 bytes)", None, True]]
    json.dumps(table.rows, allow_nan=False)


@pytest.mark.parametrize(
    "make",
    [
        sql.SQL("alter role {} superuser"),
        sql.SQL("grant pg_execute_server_program to {}"),
        sql.SQL("grant {1} to {0}"),
        sql.SQL("alter role {} replication"),
        sql.SQL("grant execute on function pg_read_file(text) to {}"),
    ],
    ids=["superuser", "runs programs", "may become a superuser", "makes slots", "has a function"],
)
async def test_postgres_is_not_read_by_who_may_reach_files(
    warehouse: str, dsn: str, make: sql.SQL
) -> None:
    role = str(conninfo.conninfo_to_dict(warehouse)["user"])
    with psycopg.connect(dsn, autocommit=True) as conn:
        me = sql.Identifier(conn.info.user)
        assert (await readonly_sql.run(warehouse, "select 1", 1, SECONDS)).rows == [[1]]
        conn.execute(make.format(sql.Identifier(role), me))
    with pytest.raises(readonly_sql.DatasetError, match="superuser"):
        await readonly_sql.run(warehouse, "select 1", 1, SECONDS)
