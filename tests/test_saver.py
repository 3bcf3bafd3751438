"""The saver as LangGraph and its callers meet it: what is stored, refused, and survives."""

import asyncio
import copy
import operator
import re
import threading
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import psycopg
import pytest
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage
from langchain_core.runnables import RunnableConfig
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt
from psycopg import conninfo, sql

from clew.checkpointing import lineage
from clew.checkpointing.errors import (
    DeltaInUse,
    FenceLost,
    InvalidId,
    UnknownBody,
    UnknownThread,
    Unserializable,
)
from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.checkpointing.saver import Fence, Saver
from clew.checkpointing.sql import Queries
from tests.test_lineage import (
    TABLES,
    at,
    begin,
    counts,
    delta,
    fork,
    head_of,
    history,
    look,
    moving,
    one_question,
    purge,
    restore,
    saver,
    three_steps,
)

__all__ = ["saver"]

Graph = Any


def echo(saver: Any) -> Graph:
    builder: Any = StateGraph(MessagesState)
    builder.add_node("echo", lambda s: {"messages": [AIMessage(f"{s['messages'][-1].content}!")]})
    builder.add_edge(START, "echo")
    return builder.compile(checkpointer=saver)


async def say(graph: Graph, thread_id: str, text: str, **metadata: Any) -> Any:
    config = {**at(thread_id), "metadata": metadata}
    return await graph.ainvoke({"messages": [HumanMessage(text)]}, config)


async def texts(graph: Graph, thread_id: str) -> list[Any]:
    state = await graph.aget_state(at(thread_id))
    return [message.content for message in state.values.get("messages", [])]


async def everything(db: Database) -> str:
    """All that is stored of sessions, as one text."""
    found: list[str] = []
    for table in (*TABLES, "move"):
        rows = await db.fetch(SERVICE, f"select t::text as t from clew.{table} t")  # noqa: S608
        found += [row["t"] for row in rows]
    return "\n".join(found)


def checkpoint(**values: Any) -> Any:
    made = empty_checkpoint()
    versions = dict.fromkeys(values, "1")
    return {**made, "id": str(uuid6()), "channel_values": values, "channel_versions": versions}


async def put(saver: Any, thread_id: str, parent: str | None = None, **values: Any) -> str:
    made = checkpoint(**values)
    config: Any = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
    if parent:
        config["configurable"]["checkpoint_id"] = parent
    await saver.aput(config, made, {"source": "loop", "step": 1, "parents": {}},
                     made["channel_versions"])  # fmt: skip
    return made["id"]


async def values(saver: Any, thread_id: str, checkpoint_id: str | None = None) -> Any:
    found = await saver.aget_tuple(at(thread_id, checkpoint_id))
    assert found
    return found.checkpoint["channel_values"]


# -- as a library


async def test_it_works_alone_on_an_empty_database(empty_dsn: str) -> None:
    async with Saver.open(empty_dsn) as saver:
        await say(echo(saver), "t", "hello")
    async with Saver.open(empty_dsn) as saver:
        assert await texts(echo(saver), "t") == ["hello", "hello!"]
    async with Saver.open(empty_dsn, owner="someone else") as saver:
        assert await texts(echo(saver), "t") == []
        with pytest.raises(UnknownThread):
            await say(echo(saver), "t", "mine?")


async def test_it_works_for_a_login_that_is_nobody_special(server: str) -> None:
    """Neither superuser nor exempt from row security: the owner of a database, no more."""
    name = f"clew_{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as conn:
        role = sql.Identifier(name)
        conn.execute(sql.SQL("create role {} nologin").format(role))
        conn.execute(sql.SQL("create database {0} owner {0}").format(role))
        try:
            dsn = conninfo.make_conninfo(server, dbname=name, options=f"-c role={name}")
            async with Saver.open(dsn) as saver:
                await say(echo(saver), "t", "hello")
                assert await texts(echo(saver), "t") == ["hello", "hello!"]
            async with Saver.open(dsn, owner="someone else") as saver:
                assert await texts(echo(saver), "t") == []
        finally:
            conn.execute(sql.SQL("drop database {} with (force)").format(role))
            conn.execute(sql.SQL("drop role {}").format(role))


async def test_synchronous_calls_come_from_another_thread(saver: Saver) -> None:
    graph = echo(saver)

    def work() -> Any:
        graph.invoke({"messages": [HumanMessage("hi")]}, at("t"))
        past = list(graph.get_state_history(at("t")))
        saver.copy_thread("t", "u")
        saver.delete_for_runs([])
        copied = graph.get_state(at("u")).values["messages"]
        saver.delete_thread("u")
        saver.prune(["t"])
        kept = list(saver.list(at("t")))
        saver.delete_thread("t")
        return len(past), len(kept), len(copied), saver.get_tuple(at("t"))

    assert await asyncio.to_thread(work) == (3, 1, 2, None)
    with pytest.raises(asyncio.InvalidStateError):
        saver.get_tuple(at("t"))


@dataclass
class Thing:
    name: str


async def test_it_survives_a_shallow_copy_with_another_allowlist(saver: Saver) -> None:
    strict = copy.copy(saver)
    strict.serde = JsonPlusSerializer(allowed_msgpack_modules=None)
    knowing = strict.with_allowlist([(Thing.__module__, Thing.__name__)])
    assert knowing is not strict
    await put(saver, "t", thing=Thing("a"))
    assert await values(strict, "t") == {"thing": {"name": "a"}}
    assert await values(knowing, "t") == {"thing": Thing("a")}
    parent = await put(knowing, "t", thing=Thing("b"))
    assert await values(knowing, "t", parent) == {"thing": Thing("b")}


# -- what is stored


async def test_an_api_key_in_the_config_reaches_no_row(saver: Saver, db: Database) -> None:
    graph = one_question(saver)
    config: RunnableConfig = {
        "configurable": {"thread_id": "t", "openai_api_key": "sk-123", "color": "hidden-blue"},
        "metadata": {"team": "red", "auth_token": "sk-456", "run_id": str(uuid.uuid4())},
    }
    await graph.ainvoke({"log": ["x"]}, config)
    stored = await everything(db)
    assert "sk-123" not in stored
    assert "sk-456" not in stored
    assert "hidden-blue" not in stored
    found = await saver.aget_tuple(at("t"))
    assert found
    assert found.metadata.get("team") == "red"
    assert found.metadata.get("run_id") == config["metadata"]["run_id"]
    assert set(found.metadata) == {"source", "step", "parents", "team", "run_id"}


async def test_declared_keys_of_the_config_are_kept(db: Database) -> None:
    owner_id = await db.owner("test", "one")
    saver = Saver(db, principal=Principal.owner(owner_id), metadata_keys=["color"])
    config: Any = {"configurable": {"thread_id": "t", "color": "blue", "size": 3}}
    await echo(saver).ainvoke({"messages": [HumanMessage("x")]}, config)
    assert [t async for t in saver.alist(at("t"), filter={"color": "blue"}, limit=1)]
    assert not [t async for t in saver.alist(at("t"), filter={"size": 3})]


ODD = "a\x00b\ud800c\udfff\U0010ffff?"


async def test_strings_that_utf8_or_postgres_refuse_come_back(saver: Saver) -> None:
    graph = echo(saver)
    held = {"messages": [HumanMessage(ODD, additional_kwargs={"deep": [{"er": ODD}]})]}
    await graph.ainvoke(held, {**at(f"t{ODD}"), "metadata": {"note": ODD}})
    state = await graph.aget_state(at(f"t{ODD}"))
    first = state.values["messages"][0]
    assert (first.content, first.additional_kwargs) == (ODD, {"deep": [{"er": ODD}]})
    assert state.metadata["note"] == ODD
    found = [t async for t in saver.alist(at(f"t{ODD}"), filter={"note": ODD})]
    assert len(found) == 3
    config: Any = {"configurable": {"thread_id": "u", "checkpoint_ns": f"n{ODD}"}}
    made = checkpoint(**{f"c{ODD}": {ODD: (ODD, {ODD})}})
    await saver.aput(config, made, {"source": "loop", "step": 1}, made["channel_versions"])
    config["configurable"]["checkpoint_id"] = made["id"]
    await saver.aput_writes(config, [(f"c{ODD}", ODD)], str(uuid.uuid4()), f"p{ODD}")
    one = await saver.aget_tuple(config)
    assert one
    # msgpack makes a list of a tuple, with and without us.
    assert one.checkpoint["channel_values"] == {f"c{ODD}": {ODD: [ODD, {ODD}]}}
    assert one.config.get("configurable", {})["checkpoint_ns"] == f"n{ODD}"
    assert one.pending_writes
    assert one.pending_writes[0][1:] == (f"c{ODD}", ODD)


async def test_what_cannot_be_stored_is_refused_by_name(saver: Saver) -> None:
    with pytest.raises(Unserializable, match="object"):
        await put(saver, "t", thing=object())
    with pytest.raises(InvalidId):
        await saver.aput_writes(at("t", str(uuid6())), [("a", 1)], "no uuid")
    with pytest.raises(InvalidId):
        await saver.aput_writes(at("t"), [("a", 1)], str(uuid.uuid4()))
    assert await saver.aget_tuple(at("t", "no uuid")) is None


async def test_a_clock_that_steps_back_hides_nothing(
    saver: Saver, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = echo(saver)
    await say(graph, "t", "one")
    early = iter([f"1e000000-0000-6000-8000-{n:012d}" for n in range(100)])
    monkeypatch.setattr("langgraph.pregel._checkpoint.uuid6", lambda **_: next(early))
    await say(graph, "t", "two")
    assert await texts(graph, "t") == ["one", "one!", "two", "two!"]
    await say(graph, "t", "three")
    assert (await texts(graph, "t"))[-1] == "three!"
    ids = await history(graph, "t")
    assert [i.startswith("1e000000") for i in ids] == [True] * 6 + [False] * 3
    assert await history(graph, "t", before=at("t", ids[4]), limit=3) == ids[5:8]


async def test_exit_durability_stores_one_checkpoint_a_turn(saver: Saver, db: Database) -> None:
    graph = echo(saver)
    for text in ("one", "two"):
        await graph.ainvoke({"messages": [HumanMessage(text)]}, at("t"), durability="exit")
    found = await counts(db)
    assert (found["checkpoint"], found["write"]) == (2, 0)
    assert await texts(graph, "t") == ["one", "one!", "two", "two!"]


async def test_a_listing_filters_and_pages(saver: Saver) -> None:
    graph = echo(saver)
    runs = [str(uuid.uuid4()), "run no 2"]
    for run_id in runs:
        await say(graph, "t", "x", run_id=run_id, size=4)
    await say(graph, "u", "y")

    async def ids(config: Any = None, **kwargs: Any) -> list[str]:
        return [t.checkpoint["id"] async for t in saver.alist(config, **kwargs)]

    every = await ids(at("t"))
    assert len(every) == 6
    assert await ids(at("t"), filter={"run_id": runs[1]}) == every[:3]
    assert await ids(at("t"), filter={"run_id": runs[0], "source": "input"}) == every[5:]
    assert await ids(at("t"), filter={"step": 1}) == every[3:4]
    assert await ids(at("t"), filter={"size": 4, "parents": {}}, limit=2) == every[:2]
    assert await ids(at("t"), filter={"size": 5}) == []
    assert await ids(at("t", every[2])) == [every[2]]
    assert await ids(at("t"), before=at("t", every[1]), limit=2) == every[2:4]
    assert await ids(at("t"), limit=0) == []
    assert len(await ids(None)) == 9
    assert len(await ids(None, limit=7)) == 7


async def steps(saver: Saver, thread_id: str, **kwargs: Any) -> list[int]:
    config: Any = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
    return [t.metadata.get("step", 0) async for t in saver.alist(config, **kwargs)]


async def numbered(saver: Saver, thread_id: str, *numbers: int, parent: str | None = None) -> str:
    """Checkpoints in a row, each with its number as its step."""
    for n in numbers:
        made = checkpoint(n=n)
        config: Any = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
        if parent:
            config["configurable"]["checkpoint_id"] = parent
        told: Any = {"source": "loop", "step": n, "parents": {}, "flag": True,
                     "user": {"id": 1, "tags": ["a", {"n": n}]}}  # fmt: skip
        await saver.aput(config, made, told, made["channel_versions"])
        parent = made["id"]
    assert parent
    return parent


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"user": {"id": 1}}, [3, 2, 1]),
        ({"user": {"tags": [{"n": 2}]}}, [2]),
        ({"user": {"id": True}}, []),
        ({"flag": True}, [3, 2, 1]),
        ({"flag": 1}, []),
        ({"step": 2}, [2]),
        ({"step": 2.0}, [2]),
        ({"step": True}, []),
        ({"step": 1 << 40}, []),
        ({"source": "loop", "parents": {}, "step": 1}, [1]),
    ],
)
async def test_a_filter_means_the_same_on_both_sides_of_a_fork(
    saver: Saver, asked: Any, found: list[int]
) -> None:
    await numbered(saver, "t", 1, 2, 3)
    await fork(saver, "t", "fork")
    for thread_id in ("t", "fork"):
        assert await steps(saver, thread_id, filter=asked) == found


async def test_a_listing_goes_on_before_any_checkpoint(saver: Saver) -> None:
    first = await numbered(saver, "t", 1)
    second = await numbered(saver, "t", 2, parent=first)
    third = await numbered(saver, "t", 3, parent=second)
    beside = await numbered(saver, "t", 9)
    for target, kwargs in (("fork", {}), ("copy", {"scope": "all"})):
        await fork(saver, "t", target, checkpoint_id=third, **kwargs)
        await numbered(saver, target, 4, parent=third)
        every = await steps(saver, target)
        assert every == ([4, 3, 2, 1] if target == "fork" else [4, 3, 9, 2, 1])
        for n, before in ((3, third), (2, second), (1, first)):
            found = every[every.index(n) + 1 :]
            assert await steps(saver, target, before=at(target, before)) == found
            everywhere = saver.alist(at(target), before=at(target, before))
            assert [t.metadata.get("step") async for t in everywhere] == found
    await fork(saver, "fork", "again")
    assert await steps(saver, "again", before=at("again", second)) == [1]
    # Not on the way back: a time.
    assert await steps(saver, "fork", before=at("fork", beside)) == [3, 2, 1]
    assert await steps(saver, "fork", before=at("fork", str(uuid6()))) == [4, 3, 2, 1]


async def test_an_id_is_found_however_it_is_spelt(saver: Saver) -> None:
    checkpoint_id = await numbered(saver, "t", 1)
    await fork(saver, "t", "fork")
    for spelt in (checkpoint_id.upper(), f"urn:uuid:{checkpoint_id}", f"{{{checkpoint_id}}}"):
        for thread_id in ("t", "fork"):
            assert await saver.aget_tuple(at(thread_id, spelt))
            assert len([t async for t in saver.alist(at(thread_id, spelt))]) == 1
            assert await steps(saver, thread_id, before=at(thread_id, spelt)) == []
    with pytest.raises(InvalidId):
        await steps(saver, "t", before=at("t", "no id"))
    with pytest.raises(InvalidId):
        assert not [t async for t in saver.alist(at("t", "no id"))]


# -- the fence


@asynccontextmanager
async def claimed(saver: Saver, thread_id: str) -> AsyncGenerator[tuple[Saver, list[FenceLost]]]:
    async with moving(saver) as conn:
        try:
            await lineage.head(conn, thread_id)
        except UnknownThread:
            await lineage.create(conn, thread_id, saver.principal.owner_from)
        head = await lineage.claim(conn, thread_id)
    lost: list[FenceLost] = []
    yield (
        saver.bind(principal=SERVICE, fence=Fence(thread_id, head.epoch), on_lost=lost.append),
        lost,
    )


async def test_a_writer_whose_epoch_was_taken_lands_nothing(saver: Saver, db: Database) -> None:
    async with claimed(saver, "t") as (first, lost):
        await say(echo(first), "t", "one")
        async with claimed(saver, "t") as (second, _):
            before = await counts(db)
            with pytest.raises(FenceLost):
                await put(first, "t", messages=["late"])
            with pytest.raises(FenceLost):
                await first.aput_writes(at("t", str(uuid6())), [("a", 1)], str(uuid.uuid4()))
            assert len(lost) == 2
            assert await counts(db) == before
            await say(echo(second), "t", "two")
    assert await texts(echo(saver), "t") == ["one", "one!", "two", "two!"]


async def test_losing_the_epoch_mid_run_tells_the_owner_of_the_run(saver: Saver) -> None:
    taken = asyncio.Event()
    builder: Any = StateGraph(MessagesState)

    async def slow(_: Any) -> Any:
        await taken.wait()
        return {"messages": [AIMessage("too late")]}

    builder.add_node("slow", slow)
    builder.add_edge(START, "slow")
    async with claimed(saver, "t") as (fenced, _):
        gone = asyncio.Event()
        bound = fenced.bind(fence=fenced.fence, on_lost=lambda _: gone.set())
        run = asyncio.create_task(say(builder.compile(checkpointer=bound), "t", "hello"))
        async with asyncio.timeout(10):
            while len([t async for t in saver.alist(at("t"))]) < 2:
                pass  # the listing itself waits
        async with moving(saver) as conn:
            await lineage.claim(conn, "t")
        taken.set()
        await gone.wait()
        with pytest.raises(FenceLost):
            await run
    assert await texts(echo(saver), "t") == ["hello"]


async def test_a_claim_waits_for_the_write_that_is_under_way(saver: Saver, db: Database) -> None:
    async with claimed(saver, "t") as (fenced, _):
        await say(echo(fenced), "t", "one")
        async with db.transaction(SERVICE) as writing:
            await writing.execute(
                "select from clew.head where thread_id = 't' and epoch = 1 for share"
            )
            async with db.transaction(SERVICE) as claiming:
                await claiming.execute("set local lock_timeout = '50ms'")
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    await lineage.claim(claiming, "t")


async def test_a_fenced_saver_writes_its_own_session_only(saver: Saver) -> None:
    await say(echo(saver), "u", "one")
    async with claimed(saver, "t") as (fenced, _):
        with pytest.raises(FenceLost):
            await put(fenced, "u", a=1)
        assert await values(fenced, "u")
        assert await purge(saver, "t")
        with pytest.raises(FenceLost):
            await put(fenced, "t", a=1)


async def test_a_stale_fence_deletes_prunes_and_copies_nothing(saver: Saver, db: Database) -> None:
    run = str(uuid.uuid4())
    async with claimed(saver, "t") as (stalled, lost), claimed(saver, "t") as (writer, _):
        await say(echo(writer), "t", "one", run_id=run)
        before = await counts(db)
        for work in (
            stalled.adelete_for_runs([run]),
            stalled.adelete_thread("t"),
            stalled.aprune(["t"]),
            stalled.acopy_thread("t", "copy"),
        ):
            with pytest.raises(FenceLost):
                await work
        assert len(lost) == 4
        assert await counts(db) == before
        await writer.adelete_for_runs([run])
    assert await texts(echo(saver), "t") == []


async def test_a_fenced_saver_deletes_in_its_own_session_only(saver: Saver, db: Database) -> None:
    run = str(uuid.uuid4())
    await say(echo(saver), "t", "one", run_id=run)
    await say(echo(saver), "u", "other", run_id=run)
    await fork(saver, "t", "fork")
    await say(echo(saver), "t", "two", run_id=run)
    async with claimed(saver, "t") as (fenced, _):
        for work in (
            fenced.adelete_thread("u"),
            fenced.aprune(["u"]),
            fenced.aprune(["u"], strategy="delete"),
            fenced.acopy_thread("u", "copy"),
        ):
            with pytest.raises(FenceLost):
                await work
        await fenced.adelete_for_runs([run])
        await fenced.acopy_thread("t", "copy")
    for kept in ("t", "fork", "copy"):  # what the fork sees stays
        assert await texts(echo(saver), kept) == ["one", "one!"]
    assert await texts(echo(saver), "u") == ["other", "other!"]


# -- several processes, broken connections


@asynccontextmanager
async def process(dsn: str) -> AsyncGenerator[Saver]:
    """As another process would have it: its own pool, no memory of ours."""
    async with Database.open(dsn, max_size=4) as db:
        yield Saver(db, principal=Principal.owner(await db.owner("test", "one")))


async def test_two_processes_take_turns_on_one_session(dsn: str, db: Database) -> None:
    async with process(dsn) as first, process(dsn) as second:
        for i in range(10):
            await say(echo((first, second)[i % 2]), "t", str(i))
        expected = [text for i in range(10) for text in (str(i), f"{i}!")]
        assert await texts(echo(first), "t") == expected
        assert await texts(echo(second), "t") == expected
        newest = await db.one(
            SERVICE, "select cardinality(ranges) / 3 as n from clew.checkpoint order by seq desc"
        )
        assert newest == {"n": 1}


async def test_two_processes_write_and_fork_one_session_at_once(dsn: str) -> None:
    async with process(dsn) as first, process(dsn) as second:
        await say(echo(first), "t", "start")

        async def talk(saver: Saver, name: str) -> None:
            for i in range(8):
                await say(echo(saver), "t", f"{name} {i}")

        async def forks(saver: Saver, name: str) -> None:
            for i in range(8):
                await fork(saver, "t", f"{name} {i}")
                await say(echo(saver), f"{name} {i}", "onward")

        async with asyncio.TaskGroup() as group:
            for saver, name in ((first, "a"), (second, "b")):
                group.create_task(talk(saver, name))
                group.create_task(forks(saver, f"fork {name}"))
        stored = [t async for t in first.alist(at("t"))]
        assert len(stored) == 3 * 17
        said = {
            m.content for t in stored for m in t.checkpoint["channel_values"].get("messages", [])
        }
        assert {f"{n} {i}!" for n in "ab" for i in range(8)} <= said
        for name in "ab":
            for i in range(8):
                assert (await texts(echo(second), f"fork {name} {i}"))[-1] == "onward!"
                assert len(await history(echo(second), f"fork {name} {i}")) >= 4


async def kill_all(dsn: str, *, but: int = 0) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        await conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and application_name = 'clew' and pid <> %s",
            [but],
        )


async def test_the_connection_may_die_before_every_statement(saver: Saver, dsn: str) -> None:
    turn = asyncio.Lock()  # one at a time, or each would kill the other's second attempt

    class Unlucky(Saver):
        """Each of its operations finds its connection dead."""

        async def aget_tuple(self, config: Any) -> Any:
            async with turn:
                await kill_all(dsn)
                return await super().aget_tuple(config)

        async def aput(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
            async with turn:
                await kill_all(dsn)
                return await super().aput(config, checkpoint, metadata, new_versions)

        async def aput_writes(
            self, config: Any, writes: Any, task_id: str, task_path: str = ""
        ) -> None:
            async with turn:
                await kill_all(dsn)
                await super().aput_writes(config, writes, task_id, task_path)

    async with Database.open(dsn, max_size=1) as db:
        unlucky = Unlucky(db, principal=saver.principal)
        for text in ("one", "two"):
            await say(echo(unlucky), "t", text)
    assert await texts(echo(saver), "t") == ["one", "one!", "two", "two!"]
    assert len(await history(echo(saver), "t")) == 6


@pytest.mark.parametrize("query", ["put", "put_writes"])
async def test_a_connection_that_dies_in_the_middle_of_a_write(
    saver: Saver, db: Database, dsn: str, query: str
) -> None:
    graph = echo(saver)
    await say(graph, "t", "one")
    before = await counts(db)
    head = await history(graph, "t", limit=1)
    async with await psycopg.AsyncConnection.connect(dsn) as blocker:
        await blocker.execute("select from clew.head where thread_id = 't' for update")
        if query == "put":
            work = asyncio.create_task(put(saver, "t", head[0], a="new", b=["x" * 500]))
        else:
            writing = saver.aput_writes(at("t", head[0]), [("a", 1)], str(uuid.uuid4()))
            work = asyncio.create_task(writing)
        async with asyncio.timeout(10):
            while not await _blocked(dsn):
                pass  # asking takes a while
        await kill_all(dsn, but=blocker.info.backend_pid)
        await blocker.rollback()
    await work
    found = await counts(db)
    assert found["checkpoint"] - before["checkpoint"] == (1 if query == "put" else 0)
    assert found["write"] - before["write"] == (0 if query == "put" else 1)


async def _blocked(dsn: str) -> bool:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        cursor = await conn.execute(
            "select from pg_stat_activity where wait_event_type = 'Lock' and datname = %s",
            [conn.info.dbname],
        )
        return await cursor.fetchone() is not None


async def test_flush_waits_for_what_is_under_way(saver: Saver, dsn: str) -> None:
    await say(echo(saver), "t", "one")
    await saver.flush("t")
    async with await psycopg.AsyncConnection.connect(dsn) as blocker:
        await blocker.execute("select from clew.head where thread_id = 't' for update")
        work = asyncio.create_task(put(saver, "t", a="new"))
        async with asyncio.timeout(10):
            while not await _blocked(dsn):
                pass  # asking takes a while
        flushing = asyncio.create_task(saver.bind().flush("t"))
        await saver.flush("u")
        assert not flushing.done()
        await blocker.rollback()
    await flushing
    assert work.done()
    assert await values(saver, "t") == {"a": "new"}


async def test_a_stored_value_that_cannot_be_read_is_an_error_not_a_guess(
    saver: Saver, db: Database
) -> None:
    await put(saver, "t", a="x" * 100)
    await db.execute(SERVICE, "update clew.item set body = '\\x0e00'")
    with pytest.raises(UnknownBody):
        await saver.aget_tuple(at("t"))
    await db.execute(SERVICE, "update clew.item set body = '\\x23' || 'no zstd'::bytea")
    with pytest.raises(UnknownBody):
        await saver.aget_tuple(at("t"))
    await db.execute(SERVICE, "delete from clew.item")
    with pytest.raises(UnknownBody):
        await saver.aget_tuple(at("t"))
    with pytest.raises(UnknownBody):
        assert [t async for t in saver.alist(at("t"))]


# -- deleting


async def test_prune_keeps_the_newest_and_what_a_fork_sees(saver: Saver, db: Database) -> None:
    graph = one_question(saver)
    for _ in range(3):
        await begin(graph, "t")
        await graph.ainvoke(Command(resume="yes"), at("t"))
    path = await history(graph, "t")
    await fork(saver, "t", "forked", checkpoint_id=path[6])
    seen = [s.values async for s in graph.aget_state_history(at("forked"))]
    await begin(graph, "t")
    then = await look(graph, "t")
    await saver.aprune(["t", "nowhere"])
    assert len(await history(graph, "t")) == 1 + len(path[6:])
    found = await look(graph, "t")
    assert {**found, "parent": None} == {**then, "parent": None}
    assert [s.values async for s in graph.aget_state_history(at("forked"))] == seen
    await purge(saver, "forked")
    await saver.aprune(["t"])
    assert len(await history(graph, "t")) == 1
    assert (await graph.ainvoke(Command(resume="on"), at("t")))["log"][-2:] == ["got on", "after"]
    await purge(saver, "t")
    assert await counts(db) == dict.fromkeys(TABLES, 0)


async def test_prune_after_restores_leaves_one_checkpoint_and_no_waste(
    saver: Saver, db: Database
) -> None:
    graph = echo(saver)
    for i in range(4):
        await say(graph, "t", f"{i} " + "x" * 200)
        if i % 2:
            await restore(saver, "t", (await history(graph, "t"))[3])
    kept = await texts(graph, "t")
    await saver.aprune(["t"])
    assert await texts(graph, "t") == kept
    assert await history(graph, "t") == await history(graph, "t", limit=1)
    found = await counts(db)
    assert found["checkpoint"] == 1
    assert found["item"] <= len(kept) + 1
    await say(graph, "t", "again")
    assert await texts(graph, "t") == [*kept, "again", "again!"]


async def test_prune_keeps_what_a_delta_channel_is_made_of(saver: Saver) -> None:
    graph = delta(saver)
    for _ in range(3):
        await begin(graph, "t")
        await graph.ainvoke(Command(resume="yes"), at("t"))
    then = await look(graph, "t")
    before = len(await history(graph, "t"))
    await saver.aprune(["t"])
    assert (await look(graph, "t"))["values"] == then["values"]
    assert len(await history(graph, "t")) < before
    await begin(graph, "t")
    assert len((await look(graph, "t"))["values"]["log"]) == 3 * 4 + 2


async def test_memory_of_what_another_process_pruned_is_void(dsn: str) -> None:
    async with process(dsn) as first, process(dsn) as second:
        graph = echo(first)
        long = "x" * 300
        await graph.ainvoke({"messages": [HumanMessage(long, id="m")]}, at("t"))
        await graph.ainvoke({"messages": [RemoveMessage(id="m")]}, at("t"))
        await second.aprune(["t"])
        await graph.ainvoke({"messages": [HumanMessage(long, id="m")]}, at("t"))
        assert long in await texts(echo(second), "t")


class Between(Saver):
    """Does something once, right before a read comes to a statement."""

    async def fetch(self, query: Any, params: Any) -> Any:
        if query == self.at and (once := self.once):
            self.once = None
            await once()
        return await super().fetch(query, params)

    at: str = ""
    once: Callable[[], Awaitable[None]] | None = None


QUERIES = Queries("clew.checkpointing.queries")


@pytest.mark.parametrize("at_query", ["past", "list_own", "load_items", "load_writes"])
async def test_a_listing_beside_a_prune_is_one_of_what_is_left(saver: Saver, at_query: str) -> None:
    await numbered(saver, "t", 1, 2, 3, 4)
    reader = Between(saver.db, principal=saver.principal)
    reader.at, reader.once = QUERIES[at_query], lambda: saver.aprune(["t"])
    found = await steps(reader, "t", limit=3)
    assert reader.once is None
    # All the values had been read, or none is asked for any more.
    assert found == ([4, 3, 2] if at_query == "load_writes" else [4])
    assert await steps(saver, "t") == [4]


async def test_a_listing_of_what_is_truly_gone_is_refused(saver: Saver, db: Database) -> None:
    await numbered(saver, "t", 1, 2)
    await db.execute(SERVICE, "delete from clew.item")
    with pytest.raises(UnknownBody):
        await steps(saver, "t")


@pytest.mark.parametrize("at_query", ["delta_walk", "delta_writes"])
async def test_a_past_that_is_pruned_while_it_is_read_is_read_again(
    saver: Saver, at_query: str
) -> None:
    graph = delta(saver)
    await graph.ainvoke({"log": ["start"]}, at("t"))
    root = await head_of(graph, "t")
    await graph.ainvoke({"log": ["side"]}, at("t", root))
    side = await head_of(graph, "t")
    await graph.ainvoke({"log": ["main"]}, at("t", root))
    asked: Any = {"config": at("t", side), "channels": ["log"]}
    assert (await saver.aget_delta_channel_history(**asked))["log"]["writes"]
    reader = Between(saver.db, principal=saver.principal)
    reader.at, reader.once = QUERIES[at_query], lambda: saver.aprune(["t"])
    # The side branch is gone, and what it had in common with the main one is not its value.
    assert await reader.aget_delta_channel_history(**asked) == {"log": {"writes": []}}
    assert reader.once is None


async def test_a_stranger_who_asks_costs_the_owner_nothing(saver: Saver, db: Database) -> None:
    other = await db.owner("test", "two")
    stranger = saver.bind(principal=Principal.owner(other), owner_id=other)
    messages = [f"{n} " + "x" * 300 for n in range(100)]
    await put(saver, "t", messages=messages)
    before = await counts(db)
    assert await stranger.aget_tuple(at("t")) is None
    with pytest.raises(UnknownThread):
        await put(stranger, "t", messages=["mine?"])
    made = checkpoint(messages=[*messages, "one more " + "y" * 300])
    made["channel_versions"] = {"messages": "2"}
    await saver.aput(at("t"), made, {"source": "loop", "step": 2, "parents": {}},
                     {"messages": "2"})  # fmt: skip
    assert (await counts(db))["item"] == before["item"] + 1


async def test_deleting_a_run_gives_back_the_question_that_it_answered(saver: Saver) -> None:
    graph = one_question(saver)
    asked, answered = str(uuid.uuid4()), "a run of any name"
    await graph.ainvoke({"log": ["hello"]}, {**at("t"), "metadata": {"run_id": asked}})
    then = await look(graph, "t")
    await graph.ainvoke(Command(resume="no"), {**at("t"), "metadata": {"run_id": answered}})
    await saver.adelete_for_runs([answered])
    assert await look(graph, "t") == then
    assert (await graph.ainvoke(Command(resume="yes"), at("t")))["log"][-2] == "got yes"


async def test_a_run_that_later_values_are_made_of_is_not_deleted(saver: Saver) -> None:
    class Slow(TypedDict):
        log: Annotated[list[str], DeltaChannel(lambda a, b: a + [x for y in b for x in y])]

    builder: Any = StateGraph(Slow)
    builder.add_node("a", lambda _: {"log": ["a"]})
    builder.add_edge(START, "a")
    graph = builder.compile(checkpointer=saver)
    for run_id in ("one", "two"):
        await graph.ainvoke({"log": [run_id]}, {**at("t"), "metadata": {"run_id": run_id}})
    with pytest.raises(DeltaInUse):
        await saver.adelete_for_runs(["one"])
    state = await graph.aget_state(at("t"))
    assert state.values["log"] == ["one", "a", "two", "a"]
    await saver.adelete_for_runs(["two"])
    state = await graph.aget_state(at("t"))
    assert state.values["log"] == ["one", "a"]


async def test_purging_everything_leaves_nothing(saver: Saver, db: Database) -> None:
    graph = three_steps(saver)
    await begin(graph, "s0")
    for i in range(6):
        past = await history(graph, f"s{i}")
        await fork(saver, f"s{i}", f"s{i + 1}", checkpoint_id=past[i % 4])
        await begin(graph, f"s{i + 1}")
        await restore(saver, f"s{i}", past[1])
        await begin(graph, f"s{i}")
    await saver.acopy_thread("s3", "copied")
    for name in ("s3", "s0", "s6", "copied", "s1", "s5", "s2"):
        await purge(saver, name)
        for left in ("s4", "s6", "copied"):
            for state in [s async for s in graph.aget_state_history(at(left))]:
                assert state.values is not None
    await purge(saver, "s4")
    assert await counts(db) == dict.fromkeys(TABLES, 0)


# -- plans


async def test_no_read_of_a_turn_scans_a_table(saver: Saver, db: Database) -> None:
    """Plans at sizes where scanning would hurt, on tables that were never analysed."""
    graph = echo(saver)
    for i in range(20):
        await say(graph, "t", f"{i} " + "x" * 100)
    await db.execute(
        SERVICE,
        "insert into clew.item (lineage_id, owner_id, stream, number, body)"
        " select l, 1, 7, n, '' from generate_series(1000, 1100) l, generate_series(1, 200) n",
    )
    head = (await history(graph, "t", limit=1))[0]
    queries = Queries("clew.checkpointing.queries")
    params = {"thread_id": "t", "ns": "", "checkpoint_id": head}
    params |= {"lineages": [1, 2], "streams": [7, 7], "firsts": [1, 5], "sizes": [2, 2]}
    for name in ("read_newest", "read_exact", "load_items"):
        rows = await db.fetch(SERVICE, "explain (costs off) " + queries[name], params)
        plan = [row["QUERY PLAN"].strip() for row in rows]
        condition = plan[plan.index("->  Index Scan using item_pkey on item") + 1]
        # Row security must have pushed no column out of the index.
        assert re.match(
            r"Index Cond: \(\(lineage_id = .*stream = .*number >= .*number < ", condition
        ), plan


class Sum(TypedDict):
    total: Annotated[int, operator.add]


async def test_a_resumed_run_gets_back_what_its_finished_tasks_wrote(saver: Saver) -> None:
    """The crash that matters: writes are there, the next checkpoint is not."""
    calls: list[str] = []
    builder: Any = StateGraph(Sum)

    def counted(_: Any) -> Any:
        calls.append("counted")
        return {"total": 1}

    builder.add_node("counted", counted)
    builder.add_node("asks", lambda _: {"total": interrupt("how many?")})
    builder.add_edge(START, "counted")
    builder.add_edge(START, "asks")
    graph = builder.compile(checkpointer=saver)
    await graph.ainvoke({"total": 0}, at("t"))
    assert (await graph.ainvoke(Command(resume=5), at("t")))["total"] == 6
    assert calls == ["counted"]


def test_threads_do_not_share_a_compressor() -> None:
    from clew.checkpointing import codec

    serde = JsonPlusSerializer()
    wrong: list[Any] = []

    def work(n: int) -> None:
        for i in range(200):
            value = [f"{n} {i} " + "words " * 50]
            if codec.load(serde, codec.dump(serde, value)) != value:
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
