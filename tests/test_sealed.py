"""With encryption on, nothing that users said lies readable in the database, and docs/encryption.md
says of every column what becomes of it."""

import asyncio
import base64
import json
import os
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import pytest_asyncio
from langgraph.types import Interrupt
from psycopg import sql
from psycopg.types.json import Jsonb

from clew.checkpointing import keys
from clew.checkpointing.encryption import Keyring
from clew.checkpointing.errors import Tampered, UnknownKey
from clew.checkpointing.keys import Vault
from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.checkpointing.sealed import Sealed, SealedJson, Seals, Unopened, apart
from clew.runtime import leases, rowkeys, runs, sessions, wire
from clew.runtime.events import BULKY, PAGE_BYTES, PLAIN, Cursor, PostgresLog, Row
from clew.runtime.requests import RunRequest
from clew.runtime.storekeys import Keys
from tests.serving import serve

CANARY = "kanarienvogel-金丝雀"
PAGE = (Path(__file__).parents[1] / "docs" / "encryption.md").read_text()
PROJECT = Path(__file__).parent / "project"
GRAPHS = """
from typing import TypedDict

from langgraph.graph import START, StateGraph
from langgraph.types import interrupt
from pydantic import TypeAdapter


class State(TypedDict, total=False):
    x: str
    answer: str


def _ask(state: State) -> State:
    return {"answer": interrupt({"question": state["x"]})}


def _fail(state: State) -> State:
    raise ValueError(state["x"])


def _check(state: State) -> State:
    TypeAdapter(int).validate_python(state["x"])
    return {}


ask = StateGraph(State).add_node("ask", _ask).add_edge(START, "ask").compile()
fails = StateGraph(State).add_node("fail", _fail).add_edge(START, "fail").compile()
checks = StateGraph(State).add_node("check", _check).add_edge(START, "check").compile()
"""
NAMES = ("k2", os.urandom(32)), ("k1", os.urandom(32))


@pytest_asyncio.fixture
async def sealing(dsn: str) -> AsyncIterator[Database]:
    async with Database.open(dsn, seals=Seals(Keyring(NAMES))) as database:
        yield database


async def test_what_is_sealed_on_its_way_in_is_opened_on_its_way_out(
    sealing: Database, dsn: str
) -> None:
    document = {"t": [{"id": "1", "value": {"deep": [CANARY]}}], "message": CANARY, "n": 1}
    async with sealing.connection() as conn:
        await conn.execute("create table public.x (a bytea, b jsonb, c bytea[])")
        await conn.execute("grant all on public.x to public")
    row = [Sealed(CANARY.encode()), SealedJson(document), [Sealed(b"one"), None]]
    insert = "insert into public.x select %s, %s, %s::bytea[]"
    await sealing.execute(SERVICE, insert, row)  # by the exchange
    async with sealing.transaction(SERVICE) as conn:  # and by cursors
        await conn.execute(insert, row)
    async with sealing.work(SERVICE) as conn:
        cursor = await conn.execute("select a, b, c[1] as c from public.x")
        by_cursor = await cursor.fetchall()
    read = "select a, b, c[1] as c from public.x"
    for found in (
        by_cursor,
        await sealing.fetch(SERVICE, read),
        (await sealing.exchange(SERVICE, (read, None), binary=True))[0].rows,
    ):
        assert [(r["a"], r["b"], r["c"]) for r in found] == [
            (CANARY.encode(), document, b"one")
        ] * 2
    async with Database.open(dsn) as plain:
        rows = await plain.fetch(SERVICE, "select a, b::text, c[1] as c from public.x")
    assert len({row["a"] for row in rows}) == 2
    for row in rows:
        assert CANARY.encode() not in row["a"]
        assert CANARY not in row["b"].encode().decode("unicode_escape")
        assert '"id": "1"' in row["b"]
        assert row["c"] != b"one"


async def test_without_encryption_they_are_what_they_hold(db: Database) -> None:
    document = {"value": CANARY}
    query = "select %s::bytea as a, %s::jsonb as b, %s::bytea[] as c"
    row = await db.one(SERVICE, query, [Sealed(b"x"), SealedJson(document), [Sealed(b"y"), None]])
    assert row == {"a": b"x", "b": document, "c": [b"y", None]}


def test_all_that_a_question_says_is_sealed_in_what_its_session_shows() -> None:
    schema = {"title": CANARY}
    asked = wire.interrupt(Interrupt(CANARY, id="i", response_schema=schema))
    seals = Seals(Keyring(NAMES))
    closed = seals.close({"task": [asked]})
    assert CANARY not in json.dumps(closed, ensure_ascii=False)
    assert seals.disclose(closed)["task"][0]["response_schema"] == schema


def test_keys_rotate_and_nothing_else_opens() -> None:
    old, new = Seals(Keyring(NAMES[1:])), Seals(Keyring(NAMES))
    assert new.open(old.seal(b"before")) == b"before"
    assert Seals(Keyring(NAMES)).open(new.seal(b"another process")) == b"another process"
    assert new.open(b'{"plain": 1}') == b'{"plain": 1}'
    with pytest.raises(UnknownKey):
        old.open(new.seal(b"after"))
    sealed = new.seal(b"x")
    with pytest.raises(Tampered):
        new.open(sealed[:-1] + bytes([sealed[-1] ^ 1]))
    with pytest.raises(Tampered):
        Seals(Keyring([("k2", os.urandom(32))])).open(sealed)


async def test_a_users_own_words_that_look_sealed_are_left_alone(sealing: Database) -> None:
    for words in ("x", "", base64.b64encode(b"\x82clewrow\x02k2" + b"0" * 60).decode(), 1):
        row = await sealing.one(SERVICE, "select %s::jsonb as j", [Jsonb({"$sealed": words})])
        assert row == {"j": {"$sealed": words}}


async def test_what_is_sealed_in_a_document_opens_or_is_refused(
    sealing: Database, dsn: str
) -> None:
    lost = Seals(Keyring([("lost", os.urandom(32))]))
    sealed = base64.b64encode(Seals(Keyring(NAMES)).seal(b'"said"')).decode()
    changed = sealed[:-8] + ("A" if sealed[-8] != "A" else "B") + sealed[-7:]
    query = "select %s::jsonb as j"
    for text, why in ((changed, Tampered), (lost.close({"value": 1})["value"], UnknownKey)):
        document = json.dumps(text if isinstance(text, dict) else {"$sealed": text})
        with pytest.raises(why):
            await sealing.one(SERVICE, query, [document])
        with apart():
            row = await sealing.one(SERVICE, query, [document])
        assert row is not None
        assert isinstance(row["j"], Unopened)
        assert isinstance(row["j"].error, why)


async def test_sealed_bytes_in_a_document_of_somebody_elses_are_not_opened(
    sealing: Database, dsn: str
) -> None:
    seals = Seals(Keyring(NAMES))
    stolen = {"$sealed": base64.b64encode(seals.seal(json.dumps(CANARY).encode())).decode()}
    query = "select %s::jsonb as j"
    for document in (stolen, {"a": [stolen]}, {"$$sealed": stolen}, {"$sealed": 1, "b": 2}):
        row = await sealing.one(SERVICE, query, [Jsonb(document)])  # by the exchange
        assert row == {"j": document}
        async with sealing.transaction(SERVICE) as conn:  # and by a cursor
            row = await (await conn.execute(query, [Jsonb(document)])).fetchone()
        assert row == {"j": document}
        assert CANARY not in json.dumps(row, ensure_ascii=False)


async def test_what_somebody_planted_before_encryption_was_on_is_his_own_words(
    sealing: Database, dsn: str
) -> None:
    """Not an error of the whole page that it is on: only what stands where we seal is ours."""
    seals = Seals(Keyring(NAMES))
    looks = {"$sealed": base64.b64encode(b"\x82clewrow\x02k2" + b"0" * 60).decode()}
    stolen = {"$sealed": base64.b64encode(seals.seal(json.dumps(CANARY).encode())).decode()}
    query = "select %s::jsonb as j"
    for planted in (looks, stolen):
        for document in ({"x": planted}, {"x": [planted]}, {"value": [planted]}):
            row = await sealing.one(SERVICE, query, [json.dumps(document)])
            assert row == {"j": document}
    for document in (looks, {"value": looks}, {"x": [{"message": looks}]}):
        with pytest.raises(Tampered):
            await sealing.one(SERVICE, query, [json.dumps(document)])


async def test_rows_are_brought_under_the_newest_key(dsn: str, tmp_path: Path) -> None:
    """Begun without keys, then encrypted, then rotated; all of it stays readable."""
    first, second = (base64.b64encode(os.urandom(32)).decode() for _ in range(2))
    config = project(tmp_path)
    async with (
        serve(dsn, config=config, titles="off") as url,
        httpx.AsyncClient(base_url=url, timeout=30) as http,
    ):
        await everything_said(http)
    old = Keyring([("k1", base64.b64decode(first))])
    new = Keyring([("k2", base64.b64decode(second)), ("k1", base64.b64decode(first))])
    for ring, opening in ((old, None), (new, Seals(new))):
        async with Database.open(dsn, seals=opening) as plain:
            vault, store = Vault(ring), Keys(ring)
            if ring is old:
                await keys.encrypt(plain, vault)
                await store.encrypt(plain)
            else:
                await vault.rewrap(plain)
                await store.rewrap(plain)
            assert await rowkeys.reseal(plain, ring) > 10
            assert [*await rowkeys.in_use(plain)] == [ring.newest]
    assert canaries(await contents(dsn)) == set()
    both = f"k2:{second}"  # the old one can be dropped
    async with (
        serve(dsn, config=config, titles="off", encryption_keys=both) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as http,
    ):
        crons = (await http.post("/runs/crons/search", json={})).text
        assert CANARY in crons
        found = (await http.get("/sessions", params={"status": "interrupted"})).json()
        assert CANARY in json.dumps(found["sessions"], ensure_ascii=False)
        for session in (await http.get("/sessions")).json()["sessions"]:
            runs = await http.get(f"/threads/{session['thread_id']}/runs")
            assert runs.status_code == 200, runs.text


async def columns(dsn: str) -> list[tuple[str, str]]:
    """Every column of every table of ours that can hold what somebody said."""
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        cursor = await conn.execute(
            "select c.relname::text, a.attname::text from pg_class c "
            "join pg_namespace n on n.oid = c.relnamespace and n.nspname = 'clew' "
            "join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped "
            "where c.relkind in ('r', 'p') and not c.relispartition and a.atttypid::regtype::text "
            "in ('text', 'json', 'jsonb', 'bytea', 'text[]', 'bytea[]', 'tsvector', 'real[]') "
            "order by 1, a.attnum"
        )
        return [(str(table), str(column)) for table, column in await cursor.fetchall()]


def described() -> dict[str, str]:
    """The table of the page: what it says of each table, of what is encrypted first."""
    section = PAGE.split("## What is encrypted")[1].split("\n## ")[0]
    found: dict[str, str] = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and cells[0].startswith("`"):
            for name in re.findall(r"`(\w+)`", cells[0]):
                found[name] = f"{cells[1]} | {cells[2]}"
    return found


async def test_what_changes_while_rows_are_sealed_anew_stays_changed(dsn: str) -> None:
    keyring = Keyring(NAMES)
    async with Database.open(dsn, seals=Seals(keyring)) as db, asyncio.TaskGroup() as group:
        owner_id = await db.owner("acme", "ann")
        who = Principal.owner(owner_id)
        session = await sessions.create(db, who, owner_id)
        change = "update clew.session set error = %s where thread_id = %s"

        def failed(why: str) -> list[Any]:
            return [SealedJson({"error": "E", "message": why}), session.thread_id]

        await db.execute(SERVICE, change, failed("before"))
        async with db.transaction(SERVICE) as conn:
            await conn.execute(change, failed("meanwhile"))
            sealing = group.create_task(rowkeys.reseal(db, keyring))
            waits = "select from pg_locks where not granted"
            async with asyncio.timeout(20):
                while not await db.fetch(SERVICE, waits):
                    pass
        await sealing
        row = await db.one(SERVICE, "select error from clew.session")
    assert row == {"error": {"error": "E", "message": "meanwhile"}}


async def test_row_29_the_page_names_every_column_that_can_hold_what_somebody_said(
    migrated: str,
) -> None:
    page = described()
    missing = [
        f"{table}.{column}"
        for table, column in await columns(migrated)
        if f"`{column}`" not in page.get(table, "")
    ]
    assert not missing, "docs/encryption.md does not say what becomes of " + ", ".join(missing)


async def contents(dsn: str) -> dict[str, bytes]:
    """Everything that the database holds, table by table, as COPY writes it."""
    found: dict[str, bytes] = {}
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        cursor = await conn.execute(
            "select c.relname::text from pg_class c join pg_namespace n "
            "on n.oid = c.relnamespace where n.nspname = 'clew' and c.relkind = 'r'"
        )
        for (table,) in await cursor.fetchall():
            statement = sql.SQL("copy clew.{} to stdout").format(sql.Identifier(table))
            async with conn.cursor().copy(statement) as copy:
                found[table] = b"".join([bytes(chunk) async for chunk in copy])
    return found


def canaries(held: dict[str, bytes]) -> set[str]:
    """The tables in which the canary can be read."""
    needles = [b"kanarienvogel", b"kanarienvogel".hex().encode()]
    return {table for table, rows in held.items() if any(needle in rows for needle in needles)}


def project(where: Path) -> Path:
    (where / "asking.py").write_text(GRAPHS)
    graphs = {"echo": f"{PROJECT}/graphs.py:echo"}
    graphs |= {name: f"./asking.py:{name}" for name in ("ask", "fails", "checks")}
    config = where / "langgraph.json"
    webhooks = {"url": {"disable_loopback": False}}
    config.write_text(json.dumps({"dependencies": ["."], "graphs": graphs, "webhooks": webhooks}))
    return config


async def everything_said(http: httpx.AsyncClient) -> None:
    """The canary in every place that takes what users say."""

    async def post(path: str, body: Any, method: str = "POST") -> Any:
        reply = await http.request(method, path, json=body)
        assert reply.status_code < 300, f"{path}: {reply.text}"
        return reply.json() if reply.content else None

    said = {"messages": [{"role": "user", "content": CANARY}]}
    key = (await post("/sessions", {"assistant_id": "echo"}))["thread_id"]
    run = {"assistant_id": "echo", "input": said, "context": {"name": CANARY}}
    await post(f"/threads/{key}/runs/wait", run)
    await post(f"/sessions/{key}/messages", {"content": CANARY, "stream": False})
    await post(f"/threads/{key}/state", {"values": said})
    await post(f"/sessions/{key}/checkpoints", {"label": "mark", "data": {"note": CANARY}})
    child = await post(f"/sessions/{key}/fork", {})
    await post(f"/threads/{child['thread_id']}/runs/wait", {"assistant_id": "echo", "input": said})
    asking = (await post("/sessions", {"assistant_id": "ask"}))["thread_id"]
    await post(f"/threads/{asking}/runs/wait", {"assistant_id": "ask", "input": {"x": CANARY}})
    shown = (await http.get(f"/sessions/{asking}")).json()
    assert shown["interrupts"], shown
    thread = (await http.get(f"/threads/{asking}")).json()
    assert thread["interrupts"] == shown["interrupts"]
    resumed = {"assistant_id": "ask", "command": {"resume": CANARY}}
    await post(f"/threads/{asking}/runs/wait", resumed)
    again = (await post("/sessions", {"assistant_id": "ask"}))["thread_id"]
    await post(f"/threads/{again}/runs/wait", {"assistant_id": "ask", "input": {"x": CANARY}})
    later = {"assistant_id": "echo", "input": said, "after_seconds": 3600}
    await post(f"/threads/{child['thread_id']}/runs", later)
    # Nobody takes the call, so what it would say is kept; of this run it is nowhere else.
    unheard = {"webhook": "https://127.0.0.1:1/hook"}
    await post("/runs/wait", {"assistant_id": "echo", "input": said, **unheard})
    await post("/runs/crons", {"assistant_id": "echo", "schedule": "0 0 1 1 *", "input": said})
    failing = (await post("/sessions", {"assistant_id": "fails"}))["thread_id"]
    failed = {"assistant_id": "fails", "input": {"x": CANARY}}
    await http.post(f"/threads/{failing}/runs/wait", json=failed)
    # What a class tells of itself begins with its name, but not that of pydantic's.
    checking = (await post("/sessions", {"assistant_id": "checks"}))["thread_id"]
    failed = {"assistant_id": "checks", "input": {"x": CANARY}}
    await http.post(f"/threads/{checking}/runs/wait", json=failed)
    copy = await post(f"/sessions/{checking}/fork", {})
    error = (await http.get(f"/sessions/{copy['thread_id']}")).json()["error"]
    assert error["error"] == "Error"
    assert CANARY in error["message"]
    item = {"namespace": ["notes"], "key": "k", "value": {"s": CANARY}}
    await post("/store/items", item, "PUT")
    # All of it comes back.
    for path in (f"/threads/{key}/state", f"/threads/{key}/runs", f"/sessions/{key}/messages"):
        reply = await http.get(path)
        assert CANARY in reply.text, path
    first = (await http.get(f"/threads/{key}/runs")).json()[-1]
    replayed = await http.get(
        f"/threads/{key}/runs/{first['run_id']}/stream", headers={"last-event-id": "-"}
    )
    assert CANARY in replayed.text
    assert CANARY in (await http.post("/runs/crons/search", json={})).text


@pytest.mark.parametrize("encrypted", [True, False])
async def test_row_29_nothing_that_users_said_lies_readable_in_the_database(
    dsn: str, tmp_path: Path, *, encrypted: bool
) -> None:
    config = project(tmp_path)
    key = f"k1:{base64.b64encode(os.urandom(32)).decode()}"
    given = {"encryption_keys": key} if encrypted else {}
    async with (
        serve(dsn, config=config, titles="off", **given) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as http,
    ):
        await everything_said(http)
    found = canaries(await contents(dsn))
    if encrypted:
        assert found == set()
    else:  # the control: these are where it would be
        held = {"run", "interrupt", "cron", "session", "item", "store_item", "webhook"}
        assert held <= found


@pytest.mark.parametrize("short", [1, 40])
async def test_a_page_of_the_log_that_was_cut_says_so_however_much_its_seals_add(
    sealing: Database, short: int
) -> None:
    owner_id = await sealing.owner("acme", "ann")
    who = Principal.owner(owner_id)
    thread_id = (await sessions.create(sealing, who, owner_id)).thread_id
    worker_id = await leases.enlist(sealing, "test", timedelta(seconds=30))
    asked = RunRequest(graph_id="echo")
    run = await runs.create(sealing, who, owner_id, thread_id, asked, worker_id=worker_id)
    assert run.epoch
    log = PostgresLog(sealing)
    sizes = {2: PAGE_BYTES - short, 3: 10, 4: 10}
    await log.append(
        [
            Row(
                thread_id,
                run.run_id,
                run.epoch,
                n,
                n,
                v2=False,
                kind=BULKY,
                codec=PLAIN,
                body=b"x" * size,
            )
            for n, size in sizes.items()
        ]
    )
    after, more, told = Cursor(run.epoch, 1), True, list[int]()
    while more:
        page = await log.read(who, thread_id, after)
        told += [row.last_n for row in page.rows]
        after, more = Cursor(run.epoch, told[-1]), page.more
    assert told == [2, 3, 4]
