"""Results of nodes: found again by their owner alone, while they last, or else computed."""

import asyncio
import base64
import operator
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Annotated, Any, TypedDict

import pytest
import pytest_asyncio
from langgraph.cache.base import FullKey
from langgraph.graph import END, START, StateGraph
from langgraph.types import CachePolicy
from pydantic import BaseModel

from clew.checkpointing.encryption import Keyring
from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.checkpointing.saver import Saver
from clew.runtime import cache, runs, sessions
from clew.runtime.cache import Cache
from clew.runtime.feed import Follower
from clew.runtime.graphs import Graphs, Registered, mended
from clew.runtime.notifier import Notifier
from clew.runtime.requests import RunRequest
from clew.runtime.runs import Run
from clew.runtime.settings import Settings
from clew.runtime.telemetry import Telemetry
from clew.runtime.worker import Worker

KEY: FullKey = (("writes", "a node", "名"), "digest")
VALUE = [["x", ["说\u0000", 1, b"\xff"]], ["n", None]]


@pytest_asyncio.fixture
async def telemetry() -> Telemetry:
    return Telemetry()


@pytest_asyncio.fixture
async def kept(db: Database, telemetry: Telemetry) -> Cache:
    return Cache(db, telemetry).bind(await db.owner("acme", "ann"))


async def test_what_was_kept_is_found_and_looked_up_once(kept: Cache, telemetry: Telemetry) -> None:
    other: FullKey = (KEY[0], "another")
    assert await kept.aget([KEY]) == {}
    await kept.aset({KEY: (VALUE, None)})
    assert await kept.aget([KEY, other]) == {KEY: VALUE}
    await kept.aset({KEY: ([["x", 2]], None)})
    assert await kept.aget([KEY]) == {KEY: [["x", 2]]}
    assert b'clew_cache_lookups_total{outcome="hit"} 2.0' in telemetry.text()
    assert b'clew_cache_lookups_total{outcome="miss"} 2.0' in telemetry.text()


async def test_another_owner_finds_nothing_of_it(
    db: Database, kept: Cache, telemetry: Telemetry
) -> None:
    await kept.aset({KEY: (VALUE, None)})
    bob = Cache(db, telemetry).bind(await db.owner("acme", "bob"))
    assert await bob.aget([KEY]) == {}
    await bob.aclear()
    await bob.aset({KEY: ([["x", "bob's"]], None)})
    assert await kept.aget([KEY]) == {KEY: VALUE}
    who = Principal.owner(await db.owner("acme", "bob"))
    rows = await db.fetch(who, "select count(*) as found from clew.node_cache")
    assert rows[0]["found"] == 1


async def test_without_an_owner_nothing_is_kept_or_found(db: Database, kept: Cache) -> None:
    nobody = Cache(db, Telemetry())
    await nobody.aset({KEY: (VALUE, None)})
    assert await nobody.aget([KEY]) == {}
    assert await kept.aget([KEY]) == {}


async def test_a_result_ends_by_its_policy_or_after_a_day(db: Database, kept: Cache) -> None:
    await kept.aset({KEY: (VALUE, None), (KEY[0], "short"): (VALUE, 60), (KEY[0], "over"): (1, 0)})
    rows = await db.fetch(
        SERVICE,
        "select key, round(extract(epoch from expires_at - now()) / 60)::integer as minutes "
        "from clew.node_cache order by key",
    )
    assert [(row["key"], row["minutes"]) for row in rows] == [
        ("digest", 24 * 60),
        ("over", 0),
        ("short", 1),
    ]
    assert set(await kept.aget([KEY, (KEY[0], "over")])) == {KEY}


async def test_namespaces_are_cleared_one_by_one_or_all_together(kept: Cache) -> None:
    other: FullKey = (("writes", "b"), "digest")
    await kept.aset({KEY: (1, None), other: (2, None)})
    await kept.aclear([KEY[0]])
    assert await kept.aget([KEY, other]) == {other: 2}
    await kept.aclear()
    assert await kept.aget([other]) == {}


class Unknown(BaseModel):
    x: int


async def test_what_would_come_back_as_something_else_is_not_kept(kept: Cache) -> None:
    await kept.aset({KEY: ([["x", Unknown(x=1)]], None)})
    assert await kept.aget([KEY]) == {}
    knowing = kept.with_allowlist({(Unknown.__module__, "Unknown")})
    await knowing.aset({KEY: ([["x", Unknown(x=1)]], None)})
    assert await knowing.aget([KEY]) == {KEY: [["x", Unknown(x=1)]]}


async def test_what_cannot_be_stored_or_is_too_large_is_not_kept(kept: Cache) -> None:
    import os

    await kept.aset({KEY: (lambda: None, None)})
    await kept.aset({(KEY[0], "large"): (os.urandom(cache.LARGEST + 1), None)})
    assert await kept.aget([KEY, (KEY[0], "large")]) == {}


async def test_a_row_that_cannot_be_read_is_a_miss(
    db: Database, kept: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    await kept.aset({KEY: (VALUE, None)})
    await db.execute(SERVICE, "update clew.node_cache set body = '\\x0f'")
    assert await kept.aget([KEY]) == {}
    assert "could not be read" in caplog.text


async def test_a_database_that_is_away_costs_time_and_no_run(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Database.open(dsn) as db:
        kept = Cache(db, Telemetry()).bind(await db.owner("acme", "ann"))
        await db.pool.close()
        assert await kept.aget([KEY]) == {}
        await kept.aset({KEY: (VALUE, None)})
    assert "could not be kept" in caplog.text


async def test_with_encryption_on_nothing_lies_in_clear_and_no_row_can_be_moved(
    db: Database,
) -> None:
    owner_id = await db.owner("acme", "ann")

    def with_keys(*names: str) -> Cache:
        keys = [(name, base64.b64encode(name.encode() * 24)[:32]) for name in names]
        return Cache(db, Telemetry(), keyring=Keyring(keys) if keys else None).bind(owner_id)

    sealed, other = with_keys("k1"), (KEY[0], "other")
    secret = [["x", "the secret of the house " * 3]]
    await sealed.aset({KEY: (secret, None), other: ([["x", 1]], None)})
    rows = await db.fetch(SERVICE, "select * from clew.node_cache")
    assert {row["key_id"] for row in rows} == {"k1"}
    assert not [row for row in rows if b"secret" in bytes(row["body"])]
    assert await with_keys("k2", "k1").aget([KEY]) == {KEY: secret}
    assert await with_keys("k2").aget([KEY]) == {}
    assert await with_keys().aget([KEY]) == {}
    await db.execute(
        SERVICE,
        "update clew.node_cache c set body = o.body from clew.node_cache o "
        "where c.key = 'digest' and o.key = 'other'",
    )
    assert await sealed.aget([KEY, other]) == {other: [["x", 1]]}


async def test_the_sweep_takes_what_is_over_and_what_is_beyond_an_owner_s_share(
    db: Database, kept: Cache
) -> None:
    for number in range(6):
        await kept.aset({(KEY[0], str(number)): (number, 100 + number)})
    await kept.aset({KEY: (0, 0)})
    assert await cache.sweep(db, share=10) == 1
    assert await cache.sweep(db, share=4, limit=1) == 1
    assert await cache.sweep(db, share=4) == 1
    assert await cache.sweep(db, share=4) == 0
    left = await kept.aget([(KEY[0], str(number)) for number in range(6)])
    assert sorted(left.values()) == [2, 3, 4, 5]


async def test_threads_wait_for_it_and_the_loop_itself_does_not(kept: Cache) -> None:
    await asyncio.to_thread(kept.set, {KEY: (VALUE, None)})
    assert await asyncio.to_thread(kept.get, [KEY]) == {KEY: VALUE}
    assert kept.get([KEY]) == {}
    await asyncio.to_thread(kept.clear)
    assert await kept.aget([KEY]) == {}


# In a run.


class State(TypedDict):
    q: str
    answer: Annotated[list[Any], operator.add]


class Answer(BaseModel):
    text: str


class Typed(TypedDict):
    q: str
    answer: Annotated[list[Answer], operator.add]


@pytest_asyncio.fixture
async def calls() -> list[str]:
    return []


@pytest_asyncio.fixture
async def worker(db: Database, dsn: str, calls: list[str]) -> AsyncIterator[Worker]:
    def plain(state: State) -> Any:
        calls.append("plain")
        return {"answer": [f"to {state['q']}"]}

    def typed(state: Typed) -> Any:
        calls.append("typed")
        return {"answer": [Answer(text=state["q"])]}

    def build(schema: Any, node: Any, policy: CachePolicy[Any]) -> Any:
        graph = StateGraph(schema).add_node("node", node, cache_policy=policy)
        return graph.add_edge(START, "node").add_edge("node", END).compile()

    inner = build(State, plain, CachePolicy())
    outer = StateGraph(State).add_node("inner", inner)
    built = {
        "nested": outer.add_edge(START, "inner").add_edge("inner", END).compile(),
        "plain": build(State, plain, CachePolicy()),
        "typed": build(Typed, typed, CachePolicy(ttl=60)),
    }
    module = ModuleType("made_here")
    loaded = Graphs(
        {name: Registered("", None, mended(graph), module) for name, graph in built.items()}
    )
    saver = Saver(db)
    settings = Settings.model_validate({"database_url": "postgresql://unused"})
    telemetry = Telemetry(loaded.ids())
    async with (
        Notifier(db, dsn) as wakeups,
        Follower(db, wakeups, saver) as feed,
        Worker(db, loaded, saver, wakeups, feed, settings, cache=Cache(db, telemetry)) as working,
    ):
        yield working


async def ask(db: Database, worker: Worker, graph_id: str, q: str, owner: str = "ann") -> Any:
    owner_id = await db.owner("acme", owner)
    who = Principal.owner(owner_id)
    session = await sessions.create(db, who, owner_id)
    request = RunRequest(graph_id=graph_id, input={"q": q}, durability="sync")
    run = await worker.submit(who, owner_id, session.thread_id, request)
    return await over(db, who, run)


async def over(db: Database, who: Principal, run: Run) -> str:
    async with asyncio.timeout(30):
        while not (found := await runs.get(db, who, None, run.run_id)).over:
            pass
    return found.status


async def test_a_node_of_a_subgraph_is_found_by_its_owner_too(
    db: Database, worker: Worker, calls: list[str]
) -> None:
    for owner in ("ann", "ann", "bob"):
        assert await ask(db, worker, "nested", "why", owner) == "success"
    assert calls == ["plain", "plain"]


@pytest.mark.parametrize("graph_id", ["plain", "typed"])
async def test_a_node_runs_once_for_one_owner_and_again_for_another(
    db: Database, worker: Worker, calls: list[str], graph_id: str
) -> None:
    for _ in range(2):
        assert await ask(db, worker, graph_id, "你好") == "success"
    assert len(calls) == 1
    await ask(db, worker, graph_id, "something else")
    assert len(calls) == 2
    await ask(db, worker, graph_id, "你好", owner="bob")
    assert len(calls) == 3
