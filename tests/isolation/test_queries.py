"""Every named query, run against the database itself as somebody else and given alice's ids: no row
of hers comes back, and none is changed. The same with row security switched off must fail, or the
suite would prove nothing.
"""

import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import psycopg
import pytest
import pytest_asyncio
from psycopg.types.json import Jsonb

from clew.checkpointing.postgres import SERVICE, Connection, Database, Principal
from clew.checkpointing.sql import Queries
from clew.runtime import keys
from tests.isolation import victim
from tests.isolation.victim import SECRET, Life
from tests.serving import serve

PACKAGES = ("clew.checkpointing.queries", "clew.runtime.queries")
QUERIES = {
    name: text
    for package in PACKAGES
    for name, text in Queries(package).items()
    if not name.startswith("stock_")  # tables of another library, with no owner
}

# By the name of a parameter, what alice would give; lists hold just that.
GIVEN = {
    "thread_id": "thread_id", "thread_ids": "thread_id", "locked": "thread_id", "ids": "thread_id",
    "source_id": "thread_id", "escaped": "thread_id", "run_id": "run_id", "run_ids": "run_id",
    "checkpoint_id": "checkpoint_id", "checkpoints": "checkpoint_id",
    "checkpoint_ids": "checkpoint_id", "assistant_id": "assistant_id", "share_id": "share_id",
    "template_id": "template_id", "cron_id": "cron_id", "owner_id": "owner_id",
    "owner_ids": "owner_id", "lineage_id": "lineage_id", "lineages": "lineage_id",
    "lineage_ids": "lineage_id", "key_id": "key_id", "limit": 100, "size": 100,
    "namespace": "notes.", "namespaces": "notes.", "low": "", "high": "\U0010fffe", "key": "k",
    "keys": "k", "name": "mark", "order": 1, "until": 2**62, "untils": 2**62, "epoch": 1,
    "descending": True, "sort": "updated_at", "wanted": {"states": ["active", "idle"]},
    "state": "active", "ns": "", "nss": "", "offset": 0, "allowed": None, "statuses": None,
    "status": None, "metadata": None, "kinds": None, "xid": "0", "outbox_id": 0, "holding": None,
}  # fmt: skip
BLANKS: dict[str, Any] = {
    "bigint": 1, "integer": 1, "smallint": 1, "text": "x", "boolean": True, "jsonb": {},
    "uuid": "00000000-0000-0000-0000-000000000000", "bytea": b"", "interval": "1 hour",
    "timestamp with time zone": "2030-01-01", "real": 1.0, "double precision": 1.0,
    "tsquery": "x", "tsvector": "x", "xid8": "0", "date": "2030-01-01", "name": "x",
}  # fmt: skip


def value(name: str, kind: str, known: dict[str, Any]) -> Any:
    """Alice's value for a parameter of this name, in the shape of its type."""
    plain = kind.removesuffix("[]")
    if name in GIVEN:
        given = GIVEN[name]
        found = known.get(given, given) if isinstance(given, str) else given
    else:
        found = BLANKS.get(plain, "x")
    if plain in ("jsonb", "json"):
        return Jsonb(found) if found is not None else None
    if kind.endswith("[]") and found is not None:
        return [found]
    return found


async def called(conn: Connection, name: str, known: dict[str, Any]) -> list[str]:
    """Run a query as the connection's principal; the rows it brought, as text."""
    names: dict[str, str] = {}
    text = re.sub(
        r"%\((\w+)\)[sb]",
        lambda m: names.setdefault(m[1], f"${len(names) + 1}"),
        QUERIES[name].replace("{order}", "1"),
    ).replace("%%", "%")
    await conn.execute(f"prepare probe as {text}")  # pyright: ignore[reportArgumentType, reportCallIssue]
    cursor = await conn.execute(
        "select parameter_types::text[] as types from pg_prepared_statements where name = 'probe'"
    )
    [row] = await cursor.fetchall()
    await conn.execute("deallocate probe")
    typed = {n: value(n, kind, known) for n, kind in zip(names, row["types"], strict=True)}
    kinds = dict(zip(names, row["types"], strict=True))
    cast = re.sub(
        r"%\((\w+)\)[sb]",
        lambda m: f"%({m[1]})s::{kinds[m[1]]}",
        QUERIES[name].replace("{order}", "1"),
    )
    cursor = await conn.execute(cast, typed)  # pyright: ignore[reportArgumentType, reportCallIssue]
    return [str(row) for row in await cursor.fetchall()] if cursor.description else []


async def leaks(
    db: Database, who: Principal, life: Life, known: dict[str, Any]
) -> tuple[list[str], int]:
    """Queries that showed or changed something of alice's, and how many ran at all."""
    found: list[str] = []
    ran = 0
    async with db.transaction(SERVICE) as conn:
        before = await victim.possessions(conn, life.owner_id)
    for name in QUERIES:
        async with db.connection() as conn, conn.transaction(force_rollback=True):
            await db.become(conn, who)
            try:
                async with conn.transaction():
                    rows = await called(conn, name, known)
                ran += 1
            except psycopg.Error:
                rows = []  # refused, or not to be called like this: nothing came of it
            if any(SECRET in row or f"'owner_id': {life.owner_id}" in row for row in rows):
                found.append(f"{name} shows {rows[0][:120]}")
            await db.become(conn, SERVICE)
            after = await victim.possessions(conn, life.owner_id)
            if tables := victim.changed(before, after):
                found.append(f"{name} changes {', '.join(tables)}")
    return found, ran


@pytest_asyncio.fixture
async def lived(db: Database, dsn: str) -> AsyncIterator[tuple[Life, dict[str, Any]]]:
    _, text = await keys.create(db, "acme", "alice", name="k")
    async with (
        serve(dsn, api_keys=True, titles="off") as url,
        httpx.AsyncClient(base_url=url, headers={"x-api-key": text}) as alice,
    ):
        life = await victim.live(alice, db)
    [head] = await db.fetch(
        SERVICE, "select lineage_id from clew.head where thread_id = %s", [life.ids["thread_id"]]
    )
    [key] = await db.fetch(SERVICE, "select key_id from clew.api_key")
    known = {**life.ids, "owner_id": life.owner_id, "lineage_id": head["lineage_id"], **key}
    yield life, known


@pytest.mark.parametrize("place", [("acme", "bob"), ("umbrella", "eve")])
async def test_row_6_no_query_reaches_what_is_somebody_elses(
    db: Database, lived: tuple[Life, dict[str, Any]], place: tuple[str, str]
) -> None:
    who = Principal.owner(await db.owner(*place))
    found, ran = await leaks(db, who, *lived)
    assert not found, "\n".join(found)
    assert ran > len(QUERIES) * 0.7


async def test_the_negative_control_without_row_security(
    db: Database, lived: tuple[Life, dict[str, Any]]
) -> None:
    async with db.connection() as conn:
        await conn.execute(
            "do $$ declare t regclass; begin for t in select c.oid from pg_class c "
            "join pg_namespace n on n.oid = c.relnamespace and n.nspname = 'clew' "
            "where c.relrowsecurity loop "
            "execute format('alter table %s disable row level security', t); end loop; end $$"
        )
    who = Principal.owner(await db.owner("acme", "bob"))
    found, _ = await leaks(db, who, *lived)
    assert len([line for line in found if " shows " in line]) > 20
    assert len([line for line in found if " changes " in line]) > 20


async def test_row_6_an_empty_principal_reaches_nothing(
    db: Database, lived: tuple[Life, dict[str, Any]]
) -> None:
    assert await victim.snapshot(db, lived[0].owner_id)
    for who in (Principal(1, 0), Principal(0, 0)):
        found, _ = await leaks(db, who, *lived)
        assert not found, "\n".join(found)
