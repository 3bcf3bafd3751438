"""What is sealed beside checkpoints is counted and moved, column by column; none is forgotten."""

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Mapping
from typing import Any, LiteralString
from uuid import uuid4

import psycopg
import pytest
import pytest_asyncio
from psycopg import sql

from clew.checkpointing.encryption import Keyring
from clew.checkpointing.errors import UnknownKey
from clew.checkpointing.exchange import Statement
from clew.checkpointing.postgres import SERVICE, Database
from clew.checkpointing.sealed import Sealed, SealedJson, Seals
from clew.runtime import rowkeys, runs, sessions, storekeys
from clew.runtime.requests import RunRequest
from clew.runtime.storekeys import Keys
from tests.test_sealed import described

OLD, NEW = ("k1", os.urandom(32)), ("k2", os.urandom(32))
# Under keys of their own, that lie beside them: lineages', the store's; and one that may be lost.
OTHERS = {"item", "write", "label", "lineage", "store_item", "store_key", "node_cache"}
DOCUMENT = {"task": [{"id": "i", "value": "said"}], "message": "said"}


@pytest_asyncio.fixture
async def full(dsn: str) -> AsyncIterator[Database]:
    """A row in each table, under the new key."""
    async with Database.open(dsn, seals=Seals(Keyring([NEW, OLD]))) as db:
        owner_id = await db.owner("acme", "ann")
        thread_id = (await sessions.create(db, SERVICE, owner_id)).thread_id
        asked = RunRequest(graph_id="echo", input="said")
        run = await runs.create(db, SERVICE, owner_id, thread_id, asked)
        values = {
            "owner_id": owner_id,
            "thread_id": thread_id,
            "run_id": run.run_id,
            "cron_id": uuid4(),
            "body": Sealed(b"said"),
            "document": SealedJson(DOCUMENT),
        }
        statements: list[Statement] = [(query, values) for query in ROWS]
        await db.exchange(SERVICE, *statements)
        yield db


ROWS: tuple[LiteralString, ...] = (
    "update clew.session set interrupts = %(document)s, error = %(document)s",
    "update clew.run set error = %(document)s",
    """
    insert into clew.event (
        thread_id, epoch, first_n, last_n, owner_id, run_id, v2, kind, codec, body)
    values (%(thread_id)s, 1, 1, 1, %(owner_id)s, %(run_id)s, false, 0, 0, %(body)s)
    """,
    """
    insert into clew.interrupt (
        thread_id, interrupt_id, owner_id, value, response_schema, on_deadline)
    values (%(thread_id)s, 'i', %(owner_id)s, %(body)s, %(body)s, %(body)s)
    """,
    """
    insert into clew.webhook (run_id, owner_id, thread_id, url, state)
    values (%(run_id)s, %(owner_id)s, %(thread_id)s, 'https://example.com', %(body)s)
    """,
    """
    insert into clew.assistant (assistant_id, owner_id, graph_id, name)
    values (%(cron_id)s, %(owner_id)s, 'echo', 'echo')
    """,
    """
    insert into clew.cron (cron_id, owner_id, assistant_id, thread_id, schedule, request)
    values (%(cron_id)s, %(owner_id)s, %(cron_id)s, %(thread_id)s, '* * * * *', %(body)s)
    """,
)


async def sealed_columns(dsn: str) -> Mapping[tuple[str, str], str]:
    """Every column that the page says is encrypted, with its type."""
    query = (
        "select table_name::text, column_name::text, data_type::text "
        "from information_schema.columns where table_schema = 'clew' "
        "and data_type in ('bytea', 'jsonb')"
    )
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        found = await (await conn.execute(query)).fetchall()
    page = {name: row.split("|")[0] for name, row in described().items()}
    return {
        (table, column): kind
        for table, column, kind in found
        if table not in OTHERS and f"`{column}`" in page.get(table, "")
    }


async def test_every_sealed_column_is_counted_and_moved(full: Database, dsn: str) -> None:
    new = Keyring([NEW, OLD])
    columns = await sealed_columns(dsn)
    assert columns.keys() == rowkeys.COLUMNS
    assert await rowkeys.in_use(full) == {"k2": 7 + 3 * 2}
    async with Database.open(dsn, seals=Seals(Keyring([OLD]))) as old:
        for (table, column), kind in columns.items():
            change = sql.SQL("update clew.{} set {} = %s").format(
                sql.Identifier(table), sql.Identifier(column)
            )
            value: Any = Sealed(b'"old"') if kind == "bytea" else SealedJson({"value": "old"})
            async with old.transaction(SERVICE) as conn:
                await conn.execute(change, [value])
            assert (await rowkeys.in_use(full)).get("k1") == 1, f"{table}.{column} is not counted"
            await rowkeys.reseal(full, new)
            assert "k1" not in await rowkeys.in_use(full), f"{table}.{column} is not moved"
    async with Database.open(dsn, seals=Seals(Keyring([NEW]))) as alone:
        for table, column in columns:
            read = sql.SQL("select {} as found from clew.{}").format(
                sql.Identifier(column), sql.Identifier(table)
            )
            async with alone.transaction(SERVICE) as conn:
                rows = await (await conn.execute(read)).fetchall()
            assert [row["found"] for row in rows] in ([b'"old"'], [{"value": "old"}])


async def test_words_that_only_look_sealed_need_no_key(db: Database) -> None:
    owner_id = await db.owner("acme", "ann")
    for words in ("x", "", "gmNsZXdyb3c", "gmNsZXdyb3c=", 1, None, [{"$sealed": "gmNs"}]):
        thread_id = (await sessions.create(db, SERVICE, owner_id)).thread_id
        change = "update clew.session set error = %s where thread_id = %s"
        await db.execute(SERVICE, change, [SealedJson({"$sealed": words}), thread_id])
    assert await rowkeys.in_use(db) == {}


async def test_keys_of_the_store_are_in_use(db: Database) -> None:
    owner_id = await db.owner("acme", "ann")
    await Keys(Keyring([OLD])).writers(db, owner_id, [None])
    assert await storekeys.in_use(db) == {"k1": 1}


async def test_what_a_busy_server_leaves_behind_is_not_looked_for_again(
    full: Database, dsn: str
) -> None:
    async with Database.open(dsn) as plain:
        await plain.execute(SERVICE, "update clew.event set body = 'plain'")
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        await conn.execute("""
            create function public.busy() returns trigger language plpgsql as $$
            begin
                insert into clew.event select (made).* from (
                    select jsonb_populate_record(new, jsonb_build_object(
                        'first_n', new.first_n - 1, 'body', '\\x706c61696e')) as made) one;
                return null;
            end $$;
            grant usage on schema public to public;
            create trigger busy after update on clew.event for each row
                execute function public.busy();
        """)
    async with asyncio.timeout(60):
        await rowkeys.reseal(full, Keyring([NEW]))
    rows = await full.fetch(SERVICE, "select first_n, body from clew.event")
    assert sorted(row["first_n"] for row in rows) == [0, 1]
    assert {row["body"] for row in rows} == {b"plain"}


async def test_a_row_that_cannot_be_opened_keeps_none_of_the_others_back(
    full: Database, dsn: str
) -> None:
    lost, old = Seals(Keyring([("lost", os.urandom(32))])), Seals(Keyring([OLD]))
    for seals in (lost, old):
        async with Database.open(dsn, seals=seals) as other:
            column = "value" if seals is lost else "on_deadline"
            session = (await sessions.create(other, SERVICE, 1)).thread_id
            ask = (
                "insert into clew.interrupt (thread_id, interrupt_id, owner_id, value) "
                "select %s, 'i', owner_id, %s from clew.session where thread_id = %s"
            )
            await other.execute(SERVICE, ask, [session, Sealed(column.encode()), session])
    for opening in (None, Seals(Keyring([NEW, OLD]))):
        async with Database.open(dsn, seals=opening) as db:
            with pytest.raises(UnknownKey, match="1 rows were left as they were"):
                await rowkeys.reseal(db, Keyring([NEW, OLD]))
            assert (await rowkeys.in_use(db)).keys() == {"k2", "lost"}


@pytest.mark.parametrize("opens", [True, False])
async def test_words_that_look_sealed_are_moved_as_they_are(
    full: Database, dsn: str, *, opens: bool
) -> None:
    """However often, and be they of somebody else: they are opened once, and no word of a user's
    keeps a key from being dropped."""
    new = Keyring([NEW, OLD])
    stolen = base64.b64encode(Seals(new).seal(b'"of somebody else"')).decode()
    for words in (
        {"$sealed": 1},
        {"$$sealed": 1},
        {"$sealed": stolen},
        {"$$sealed": {"$sealed": stolen}},
        {"$sealed": stolen[:-8] + "AAAAAAA="},
    ):
        document = {"t": [{"value": words, "response_schema": words}], "message": words}
        change: LiteralString = "update clew.session set interrupts = %(d)s, error = %(d)s"
        await full.execute(SERVICE, change, {"d": SealedJson(document)})
        await full.execute(SERVICE, "update clew.run set error = %s", [SealedJson(document)])
        async with Database.open(dsn, seals=Seals(new) if opens else None) as db:
            for _ in range(2):
                await rowkeys.reseal(db, new)
        rows = await full.fetch(
            SERVICE,
            "select s.interrupts, s.error, r.error as other from clew.session s, clew.run r",
        )
        assert rows == [{"interrupts": document, "error": document, "other": document}]
