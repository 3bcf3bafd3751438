"""The log's upkeep: days come and go as partitions, tokens may go sooner, nothing else does."""

import asyncio
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from clew.checkpointing.encryption import Keyring
from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.checkpointing.sealed import Seals
from clew.runtime import assistants, compaction, leases, runs, sessions, transfer
from clew.runtime.events import BRIEF, BULKY, MIXED, TOKENS, Entry, PostgresLog, Row, pack, unpack
from clew.runtime.requests import RunRequest
from clew.runtime.runs import Run
from clew.runtime.sql import queries
from tests.test_combiner import waiting

DAY = timedelta(days=1)


async def run_of(db: Database) -> Run:
    owner_id = await db.owner("acme", "ann")
    who = Principal.owner(owner_id)
    session = await sessions.create(db, who, owner_id)
    worker_id = await leases.enlist(db, "test", timedelta(seconds=30))
    return await runs.create(
        db, who, owner_id, session.thread_id, RunRequest(graph_id="e"), worker_id=worker_id
    )


async def partitions(db: Database) -> dict[str, int]:
    """Rows by partition, where there are any."""
    rows = await db.fetch(
        SERVICE,
        "select tableoid::regclass::text as name, count(*) as rows from clew.event group by 1",
    )
    return {row["name"]: row["rows"] for row in rows}


async def age(db: Database, days: int) -> None:
    await db.execute(
        SERVICE, "update clew.event set created_at = created_at - %s * interval '1 day'", [days]
    )


async def test_days_ahead_are_made_and_what_had_no_day_moves_in(db: Database):
    await run_of(db)
    await age(db, 400)
    assert list(await partitions(db)) == ["clew.event_default"]
    # The upkeep of that day comes late.
    await db.execute(
        SERVICE,
        "select clew.keep_event_partitions(2, interval '9 years', now() - interval '400 days')",
    )
    (name,) = await partitions(db)
    assert name.startswith("clew.event_2")
    unprotected = await db.fetch(
        SERVICE,
        "select from pg_class where relname ~ '^event_[0-9]+$' and relkind = 'r' "
        "and not (relrowsecurity and relforcerowsecurity)",
    )
    assert unprotected == []


async def test_row_11_days_past_the_retention_are_dropped_and_others_stay(db: Database):
    await run_of(db)
    await compaction.expire(db, 3 * DAY, 3 * DAY)
    before = await partitions(db)
    assert sum(before.values()) == 1
    dropped = await db.fetch(
        SERVICE,
        "select clew.keep_event_partitions(2, interval '3 days', now() + interval '9 days')",
    )
    assert dropped
    assert await partitions(db) == {}


@pytest.mark.parametrize(("kind", "left"), [(TOKENS, 1), (BULKY, 2)])
async def test_tokens_may_go_before_the_rest(db: Database, kind: int, left: int):
    run = await run_of(db)
    await db.execute(
        SERVICE,
        "insert into clew.event select thread_id, epoch, 2, 9, owner_id, run_id, v2, %s, codec, "
        "body, created_at - interval '2 days' from clew.event",
        [kind],
    )
    await compaction.expire(db, 30 * DAY, DAY)
    assert sum((await partitions(db)).values()) == left
    assert run.epoch == 1


@pytest.mark.parametrize(
    ("minutes", "left"), [(60, 0), (3 * 24 * 60, 1), ("60", 1), (1e300, 1), (-1, 0), (None, 1)]
)
async def test_row_11_an_agent_may_keep_what_its_runs_stream_for_less(
    db: Database, minutes: object, left: int
) -> None:
    run = await run_of(db)
    assistant_id = assistants.id_of("e")
    await assistants.register(db, {"e": "one"})
    said = Jsonb({} if minutes is None else {"event_retention": minutes})
    await db.execute(
        SERVICE,
        "update clew.assistant set metadata = %s where assistant_id = %s",
        [said, assistant_id],
    )
    await db.execute(
        SERVICE,
        "update clew.run set assistant_id = %s, ended_at = now(), status = 'success', "
        "worker_id = null where run_id = %s",
        [assistant_id, run.run_id],
    )
    await age(db, 2)
    await db.execute(
        SERVICE,
        "update clew.run set created_at = created_at - interval '2 days', "
        "ended_at = ended_at - interval '2 days'",
    )
    async with db.transaction(SERVICE) as conn:  # another replica is at it
        await conn.execute(queries["hold_reader"], {"name": compaction.NAME})
        await compaction.expire(db, 30 * DAY, 30 * DAY)
        assert sum((await partitions(db)).values()) == 1
    await compaction.expire(db, 30 * DAY, 30 * DAY)
    assert sum((await partitions(db)).values()) == left


async def test_of_the_runs_of_an_agent_only_those_are_read_whose_days_are_there(
    db: Database,
) -> None:
    owner_id = (await run_of(db)).owner_id  # with an event, for which a plan looks
    thread_id = (await sessions.create(db, SERVICE, owner_id)).thread_id
    values = {"assistant_id": assistants.id_of("e"), "owner_id": owner_id, "thread_id": thread_id}
    await assistants.register(db, {"e": "one"})
    await db.execute(SERVICE, "update clew.assistant set metadata = '{\"event_retention\": 5}'")
    await db.execute(
        SERVICE,
        "insert into clew.run (run_id, thread_id, owner_id, assistant_id, graph_id, status, "
        "request, created_at, ended_at) select gen_random_uuid(), %(thread_id)s, %(owner_id)s, "
        "%(assistant_id)s, 'e', 'success', '{}', day, day from generate_series("
        "now() - interval '2000 days', now(), interval '1 day') day",
        values,
    )
    async with db.transaction(SERVICE) as conn:
        await conn.execute("set local role none; analyze clew.run, clew.event, clew.assistant")
        await db.become(conn, SERVICE)
        query = "explain (analyze, format json) " + queries["expire_events_of_agents"]
        cursor = await conn.execute(query, {"retention": 30 * DAY, "limit": 5000})
        row = await cursor.fetchone()
    assert row is not None
    nodes = list(within(row["QUERY PLAN"][0]["Plan"]))
    (reading,) = [node for node in nodes if node.get("Relation Name") == "run"]
    assert reading["Index Name"] == "run_of_agent"
    assert 29 <= reading["Actual Rows"] <= 31


def within(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for inner in node.get("Plans", ()):
        yield from within(inner)


@pytest.mark.parametrize("over", [True, False])
async def test_tokens_of_a_run_that_was_not_compacted_may_go_before_the_rest_too(
    db: Database, *, over: bool
) -> None:
    run = await run_of(db)
    said = [
        Entry(2 + n, 1, name, (), None, b"{}", b"{}")
        for n, name in enumerate(("messages", "updates"))
    ]
    codec, body = pack(said)
    mixed = Row(run.thread_id, run.run_id, 1, 2, 3, v2=False, kind=MIXED, codec=codec, body=body)
    await PostgresLog(db).append([mixed])
    if over:
        assert await leases.finish(db, run, leases.Ending(status="success", rest="idle"), [])
    await age(db, 2)
    await compaction.expire(db, 30 * DAY, DAY)
    rows = await db.fetch(SERVICE, "select codec, body from clew.event")
    names = {entry.name for row in rows for entry in unpack(row["codec"], row["body"])}
    assert names == {"metadata", "updates", *([] if over else ["messages"])}


@pytest.mark.parametrize("keyring", [None, Keyring([("other", os.urandom(32))])])
async def test_what_cannot_be_read_stays_as_it_is_and_keeps_back_nothing(
    db: Database, dsn: str, keyring: Keyring | None
) -> None:
    sealed = Seals(Keyring([("k1", os.urandom(32))])).seal(b"said")
    said = pack([Entry(2, 1, name, (), None, b"{}", b"{}") for name in ("messages", "updates")])
    for codec, body in ((1, sealed), (0, sealed), (1, b"x"), (0, b"x"), (0, b"[1]"), said):
        run = await run_of(db)
        row = Row(run.thread_id, run.run_id, 1, 2, 3, v2=False, kind=MIXED, codec=codec, body=body)
        await PostgresLog(db).append([row])
        assert await leases.finish(db, run, leases.Ending(status="success", rest="idle"), [])
    await age(db, 2)
    async with Database.open(dsn, seals=Seals(keyring) if keyring else None) as lacking:
        await compaction.expire(lacking, 30 * DAY, DAY)
    left = await db.fetch(SERVICE, "select run_id from clew.event where kind = 2")
    assert len(left) == 5
    assert run.run_id not in {str(row["run_id"]) for row in left}


async def test_upkeep_holds_its_place_however_short_a_server_lets_transactions_idle(
    db: Database, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        named = sql.Identifier(conn.info.dbname)
        limit = "alter database {} set idle_in_transaction_session_timeout = '2s'"
        await conn.execute(sql.SQL(limit).format(named))

    async def slow(*_: object) -> None:
        await db.fetch(SERVICE, "select pg_sleep(2.5)")

    monkeypatch.setattr(compaction, "_drain", slow)
    async with Database.open(dsn) as strict:
        await compaction.expire(strict, 30 * DAY, 30 * DAY)


async def test_what_is_compacted_while_the_session_is_handed_over_goes_with_it(db: Database):
    run = await run_of(db)
    ends = pack([Entry(2, 1, "end", (), None, b"{}", b"{}")])
    last = Row(
        run.thread_id, run.run_id, 1, 2, 2, v2=False, kind=BRIEF, codec=ends[0], body=ends[1]
    )
    ending = leases.Ending(status="success", rest="idle")
    assert await leases.finish(db, run, ending, [last])
    admin = Principal.tenant_of(run.owner_id)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group, db.transaction(SERVICE) as conn:
        # It has read the rows, removed one and waits for the other; only then the transfer comes.
        await conn.execute("select from clew.event where last_n = 2 for update")
        group.create_task(compaction.compact(db, run.thread_id, run.run_id))
        await waiting(db, 1)
        group.create_task(transfer.to(db, admin, run.thread_id, "bob", actor="root"))
        await waiting(db, 2)
    rows = await db.fetch(SERVICE, "select owner_id, kind from clew.event")
    assert [row["owner_id"] for row in rows] == [await db.owner("acme", "bob")]


async def test_what_was_handed_over_since_it_was_read_is_compacted_for_its_new_owner(db: Database):
    run = await run_of(db)
    ends = pack([Entry(2, 1, "end", (), None, b"{}", b"{}")])
    last = Row(
        run.thread_id, run.run_id, 1, 2, 2, v2=False, kind=BRIEF, codec=ends[0], body=ends[1]
    )
    assert await leases.finish(db, run, leases.Ending(status="success", rest="idle"), [last])
    bob = await db.owner("acme", "bob")
    async with asyncio.timeout(30), asyncio.TaskGroup() as group, db.transaction(SERVICE) as conn:
        await conn.execute("select from clew.session for update")
        await conn.execute("update clew.event set owner_id = %s", [bob])
        group.create_task(compaction.compact(db, run.thread_id, run.run_id))
        await waiting(db, 1)
    rows = await db.fetch(SERVICE, "select owner_id from clew.event")
    assert [row["owner_id"] for row in rows] == [bob]


def test_a_body_holds_any_text_and_any_number_of_events():
    texts = ["", "a\\nb", "你好 \u2028", '"quoted"', "x" * 5000]
    entries = [
        Entry(n, 1700000000000 + n, "custom", ("a:1", "b|2"), "node", text.encode(), text.encode())
        for n, text in enumerate(texts, start=1)
    ]
    assert list(unpack(*pack(entries))) == entries
