"""Nothing is left: of a session that is purged, of an owner that is erased. The tables are asked
for, so that a new one cannot be forgotten here either."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from langgraph_sdk import get_client
from psycopg import sql

from clew.checkpointing import lineage
from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.runtime import (
    assistants,
    erasure,
    errors,
    keys,
    lifecycle,
    purge,
    search,
    sessions,
    shares,
    templates,
)
from tests.serving import serve

# What outlives a session on purpose, as tombstones; and what says only who somebody is.
TOMBSTONES = {"audit", "move", "outbox"}
OF_NO_SESSION = {"owner", "api_key", "assistant", "assistant_version", "template"}


@pytest_asyncio.fixture
async def url(dsn: str) -> AsyncIterator[str]:
    async with serve(dsn, api_keys=True) as base:
        yield base


async def rows_left(db: Database, owner_id: int) -> dict[str, int]:
    """Rows of this owner, by table, partitions included."""
    tables = await db.fetch(
        SERVICE,
        "select c.relname::text as name from pg_class c "
        "join pg_namespace n on n.oid = c.relnamespace and n.nspname = 'clew' "
        "join pg_attribute a on a.attrelid = c.oid and a.attname = 'owner_id' "
        "where c.relkind = 'r'",
    )
    assert len(tables) > 15
    left: dict[str, int] = {}
    for table in tables:
        count = sql.SQL("select count(*) as rows from clew.{} where owner_id = %s")
        async with db.work(SERVICE) as conn:
            cursor = await conn.execute(count.format(sql.Identifier(table["name"])), [owner_id])
            row = await cursor.fetchone()
        if row and row["rows"]:
            left[table["name"]] = row["rows"]
    return left


async def a_full_life(db: Database, url: str, who: Principal, name: str) -> str:
    """A session with rows in every table that can have some of it."""
    _, text = await keys.create(db, "acme", name, name="k")
    async with get_client(url=url, api_key=text) as client:
        thread = await client.threads.create()
        key = thread["thread_id"]
        await client.runs.wait(key, "echo", input={"messages": [{"role": "user", "content": "hi"}]})
        asked = await client.threads.create()
        await client.runs.wait(asked["thread_id"], "ask", input={"x": ["in"]})
    await sessions.patch(db, who, key, {"tags": ["t"], "title": "会话"})
    await search.index(db, who, key, ["words"])
    await shares.create(db, who, key, tenant="acme", grantee=None, actor="a")
    await lifecycle.move(db, who, key, "archive", actor="a")
    return key


async def all_sessions(db: Database, who: Principal) -> list[str]:
    return [s.thread_id for s in (await sessions.search(db, who, limit=100)).items]


async def test_row_2_a_deleted_session_leaves_no_row(db: Database, url: str) -> None:
    who = Principal.owner(await db.owner("acme", "alice"))
    await a_full_life(db, url, who, "alice")
    before = await rows_left(db, who.owner_from)
    for table in ("session", "checkpoint", "item", "head", "run", "interrupt", "share"):
        assert before[table] > 0
    for thread_id in await all_sessions(db, who):
        await sessions.delete(db, who, thread_id, actor="a")
    assert set(await rows_left(db, who.owner_from)) <= TOMBSTONES | OF_NO_SESSION


async def test_row_2_a_living_fork_keeps_what_it_reaches_and_no_more(
    db: Database, url: str
) -> None:
    who = Principal.owner(await db.owner("acme", "alice"))
    key = await a_full_life(db, url, who, "alice")
    fork = await sessions.create(db, who, who.owner_from, parent_thread_id=key)
    async with db.transaction(who) as conn:
        await lineage.fork(conn, key, fork.thread_id)
    await sessions.delete(db, who, key, actor="a")
    _, text = await keys.create(db, "acme", "alice", name="k")
    async with get_client(url=url, api_key=text) as client:
        await client.threads.update(fork.thread_id, metadata={"graph_id": "echo"})
        await sessions.patch(db, who, fork.thread_id, {"graph_id": "echo"})
        values = (await client.threads.get_state(fork.thread_id))["values"]
    assert [m["content"] for m in values["messages"]] == ["hi", "hi"]  # pyright: ignore[reportArgumentType, reportCallIssue]
    for thread_id in await all_sessions(db, who):
        await sessions.delete(db, who, thread_id, actor="a")
    assert set(await rows_left(db, who.owner_from)) <= TOMBSTONES | OF_NO_SESSION


async def test_row_2_a_deletion_that_fails_leaves_everything(db: Database, url: str) -> None:
    who = Principal.owner(await db.owner("acme", "alice"))
    key = await a_full_life(db, url, who, "alice")
    before = await rows_left(db, who.owner_from)

    async def fail() -> None:
        async with db.transaction(who) as conn:
            await purge.sessions(conn, [key])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert await rows_left(db, who.owner_from) == before


async def test_an_erased_owner_leaves_nothing_and_a_receipt_says_what_went(
    db: Database, url: str
) -> None:
    alice, bob = [Principal.owner(await db.owner("acme", n)) for n in ("alice", "bob")]
    for who in (alice, bob):
        await a_full_life(db, url, who, "alice" if who is alice else "bob")
        await assistants.create(db, who, who.owner_from, graph_id="g")
        await templates.create(db, who, who.owner_from, name="t", body={})
    bobs = await rows_left(db, bob.owner_from)
    counted: list[int] = []
    receipt = await erasure.erase(
        db, "acme", "alice", actor="admin:acme/root", progress=counted.append
    )
    assert await rows_left(db, alice.owner_from) == {}
    assert await rows_left(db, bob.owner_from) == bobs
    assert counted == [2]
    assert receipt.subject == erasure.subject("acme", "alice")
    assert receipt.removed["session"] == 2
    assert {"assistant", "template", "api_key", "owner", "audit"} <= set(receipt.removed)
    admin = Principal.tenant_of(bob.owner_from)
    assert await erasure.receipt(db, admin, receipt.receipt_id) == receipt
    for who in (bob, Principal.tenant_of(await db.owner("umbrella", "x"))):
        with pytest.raises(errors.NotFound):
            await erasure.receipt(db, who, receipt.receipt_id)
    with pytest.raises(errors.NotFound):
        await erasure.erase(db, "acme", "alice", actor="a")
    # Who comes by that name afterwards is someone else.
    assert await db.owner("acme", "alice") != alice.owner_from
