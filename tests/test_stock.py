"""To and from the tables of `AsyncPostgresSaver`: one history on both sides, through the graph."""

import operator
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import psycopg
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.base import CipherProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, Send, interrupt
from pydantic import BaseModel

from clew.checkpointing import codec, lineage, stock_export, stock_import
from clew.checkpointing.encryption import Keyring
from clew.checkpointing.errors import StockError, ThreadExists, UnknownThread
from clew.checkpointing.keys import Vault
from clew.checkpointing.postgres import SERVICE, Connection, Database, Principal
from clew.checkpointing.saver import Saver
from clew.checkpointing.stock import Stock
from clew.checkpointing.stock_import import Progress


class Place(BaseModel):
    """A class of the user's, which no export or import may need or lose."""

    name: str


@dataclass
class Point:
    x: int


SERDE = JsonPlusSerializer(allowed_msgpack_modules=[Place, Point])


class State(MessagesState):
    facts: Annotated[list[Any], operator.add]
    log: Annotated[
        list[str], DeltaChannel(lambda old, new: old + [line for write in new for line in write])
    ]
    place: Place
    remark: str
    number: int
    blob: bytes


class Inner(TypedDict):
    remark: str


def graph(saver: Any) -> Any:
    """Fans out, asks in two tasks at once and in a subgraph, and keeps objects of all kinds."""

    def deep(state: Inner) -> Any:
        return {"remark": interrupt("how deep?") if "deep" in state["remark"] else "calm"}

    inner = StateGraph(Inner).add_node(deep).add_edge(START, "deep").compile()

    def reply(state: State) -> Any:
        said = state["messages"][-1].text
        if said == "fail":
            raise ValueError("as told")
        if said == "shorten":
            return {"messages": [RemoveMessage(id=str(state["messages"][0].id))]}
        return {
            "messages": [AIMessage(said.upper())],
            "log": [f"heard {said}"],
            "place": Place(name=said),
            "number": len(said),
            "blob": said.encode(),
        }

    def fan(state: State) -> list[Send]:
        return [Send("leaf", {"remark": f"{state['remark']} {n}"}) for n in range(3)]

    def leaf(state: Inner) -> Any:
        asks = "ask" in state["remark"] and not state["remark"].endswith("1")
        fact = interrupt(state["remark"]) if asks else state["remark"]
        return {"facts": [fact, Point(len(fact)), None, b"raw"]}

    builder = StateGraph(State)
    builder.add_node("reply", reply).add_node("leaf", leaf).add_node("inner", inner)
    builder.add_edge(START, "reply")
    builder.add_conditional_edges("reply", fan, ["leaf"])
    builder.add_edge("leaf", "inner")
    return builder.compile(checkpointer=saver)


def at(thread_id: str, **more: Any) -> Any:
    return {"configurable": {"thread_id": thread_id, **more}}


async def say(saver: Any, thread_id: str, said: str, remark: str = "plain", **more: Any) -> None:
    told = {"messages": [HumanMessage(said)], "remark": remark}
    await graph(saver).ainvoke(told, at(thread_id, **more))


async def answer(saver: Any, thread_id: str, *, first: bool = False) -> None:
    state = await graph(saver).aget_state(at(thread_id))
    asked = state.interrupts[:1] if first else state.interrupts
    given = {i.id: f"answer to {i.value}" for i in asked}
    await graph(saver).ainvoke(Command(resume=given), at(thread_id))


async def history(saver: Any, thread_id: str) -> list[Any]:
    """Everything, subgraphs included, but for the thread's name."""

    def told(state: Any) -> Any:
        return (
            state.values,
            state.next,
            _id(state),
            state.parent_config and _id(state, "parent_config"),
            state.metadata,
            state.created_at,
            [(t.id, t.name, t.path, t.error, t.interrupts, t.result) for t in state.tasks],
        )

    compiled = graph(saver)
    found: list[Any] = []
    async for state in compiled.aget_state_history(at(thread_id)):
        full = await compiled.aget_state(at(thread_id, checkpoint_id=_id(state)), subgraphs=True)
        deep = [
            (t.state.values, t.state.next, t.state.interrupts)
            for t in full.tasks
            if t.state is not None and not isinstance(t.state, dict)
        ]
        found.append((*told(state), deep))
    return found


def _id(state: Any, config: str = "config") -> str:
    return getattr(state, config)["configurable"]["checkpoint_id"]


async def eventful(saver: Any, thread_id: str = "t") -> None:
    """Turns, questions answered and open, a failure, a removal, and a branch within the thread."""
    await say(saver, thread_id, "one")
    await say(saver, thread_id, "two", "ask")
    await answer(saver, thread_id, first=True)
    await answer(saver, thread_id)
    await say(saver, thread_id, "three", "deep")
    await answer(saver, thread_id)
    with pytest.raises(ValueError, match="as told"):
        await say(saver, thread_id, "fail")
    await say(saver, thread_id, "shorten")
    states = [s async for s in graph(saver).aget_state_history(at(thread_id))]
    await say(saver, thread_id, "a branch", checkpoint_id=_id(states[len(states) // 2]))
    await say(saver, thread_id, "四", "ask deep")


@pytest_asyncio.fixture
async def saver(db: Database) -> Saver:
    ann = await db.owner("acme", "ann")
    return Saver(db, principal=Principal.owner(ann), owner_id=ann, serde=SERDE)


@pytest_asyncio.fixture
async def stock(empty_dsn: str) -> AsyncIterator[Stock]:
    async with Stock.open(empty_dsn, setup=True) as there:
        yield there


@pytest_asyncio.fixture
async def theirs(stock: Stock) -> AsyncIterator[AsyncPostgresSaver]:
    async with stock.connection() as conn:
        yield AsyncPostgresSaver(conn, serde=SERDE)


async def test_an_imported_session_has_the_history_it_had(
    saver: Saver, stock: Stock, theirs: AsyncPostgresSaver
) -> None:
    await eventful(theirs)
    count = await stock_import.thread(stock, saver, "t", "new")
    before = await history(theirs, "t")
    assert await history(saver, "new") == before
    assert count > len(before)  # subgraphs' own besides
    await answer(theirs, "t")
    await answer(saver, "new")
    for one, thread in ((theirs, "t"), (saver, "new")):
        await say(one, thread, "goes on")
    ours = (await graph(saver).aget_state(at("new"))).values
    them = (await graph(theirs).aget_state(at("t"))).values
    assert [m.text for m in ours["messages"]] == [m.text for m in them["messages"]]
    assert {**ours, "messages": 0} == {**them, "messages": 0}


async def test_an_exported_session_has_the_history_it_had(
    saver: Saver, stock: Stock, theirs: AsyncPostgresSaver
) -> None:
    await eventful(saver)
    await stock_export.thread(saver, stock, "t", "new")
    assert await history(theirs, "new") == await history(saver, "t")
    await answer(theirs, "new")
    await say(theirs, "new", "goes on")


async def test_a_fork_and_a_restored_session_are_exported_as_they_are_seen(
    saver: Saver, stock: Stock, theirs: AsyncPostgresSaver
) -> None:
    await eventful(saver)
    states = [s async for s in graph(saver).aget_state_history(at("t"))]
    async with saver.db.transaction(saver.principal) as conn:
        await lineage.fork(conn, "t", "fork", checkpoint_id=_id(states[6]))
        await lineage.restore(conn, "t", _id(states[9]))
    await say(saver, "t", "after the restore")
    for thread in ("t", "fork"):
        await stock_export.thread(saver, stock, thread)
        assert await history(theirs, thread) == await history(saver, thread)


async def test_out_and_in_again_is_the_same(saver: Saver, stock: Stock) -> None:
    await eventful(saver)
    await stock_export.thread(saver, stock, "t")
    await stock_import.thread(stock, saver, "t", "again")
    assert await history(saver, "again") == await history(saver, "t")


async def test_no_class_of_the_user_is_needed_on_the_way(saver: Saver, stock: Stock) -> None:
    """The saver that imports and exports knows none of them, and nothing becomes a dictionary."""
    await eventful(saver)
    bare = Saver(saver.db, principal=saver.principal, owner_id=saver.owner_id)
    await stock_export.thread(bare, stock, "t")
    await stock_import.thread(stock, bare, "t", "again")
    values = (await graph(saver).aget_state(at("again"))).values
    assert values["place"] == Place(name="四")
    assert Point(len("plain 0")) in values["facts"]


async def test_a_fork_of_an_imported_pause_asks_again_what_was_answered_since(
    saver: Saver, stock: Stock, theirs: AsyncPostgresSaver
) -> None:
    await say(theirs, "t", "hello", "ask")
    paused = await graph(theirs).aget_state(at("t"))
    await answer(theirs, "t")
    await say(theirs, "t", "more", "deep")
    deep = await graph(theirs).aget_state(at("t"))
    await answer(theirs, "t")
    await stock_import.thread(stock, saver, "t")
    for name, was, facts in (("one", paused, 12), ("two", deep, 24)):
        async with saver.db.transaction(saver.principal) as conn:
            await lineage.fork(conn, "t", name, checkpoint_id=_id(was))
        now = await graph(saver).aget_state(at(name), subgraphs=True)
        assert (now.next, now.interrupts, now.values) == (was.next, was.interrupts, was.values)
        await answer(saver, name)
        done = await graph(saver).aget_state(at(name))
        assert done.next == ()
        assert len(done.values["facts"]) == facts


async def test_import_encrypts_and_export_decrypts(
    db: Database, saver: Saver, stock: Stock, theirs: AsyncPostgresSaver
) -> None:
    await eventful(theirs)
    sealed = Saver(
        db,
        principal=saver.principal,
        owner_id=saver.owner_id,
        serde=SERDE,
        vault=Vault(Keyring([("k", os.urandom(32))])),
    )
    await stock_import.thread(stock, sealed, "t")
    assert await history(sealed, "t") == await history(theirs, "t")
    rows = await db.fetch(
        SERVICE, "select body from clew.item union all select body from clew.write"
    )
    assert all(row["body"][0] == 0x81 for row in rows)
    await stock_export.thread(sealed, stock, "t", "back")
    assert await history(theirs, "back") == await history(theirs, "t")


class Cipher(CipherProtocol):
    """What LangGraph's own encrypting serializer is given."""

    def __init__(self) -> None:
        self._key = AESGCM(os.urandom(32))

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        nonce = os.urandom(12)
        return "aes", nonce + self._key.encrypt(nonce, plaintext, None)

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        assert ciphername == "aes"
        return self._key.decrypt(ciphertext[:12], ciphertext[12:], None)


async def test_what_the_stock_serializer_encrypted_comes_and_goes(
    saver: Saver, empty_dsn: str
) -> None:
    cipher = Cipher()
    async with (
        Stock.open(empty_dsn, setup=True, cipher=cipher) as stock,
        stock.connection() as conn,
    ):
        theirs = AsyncPostgresSaver(conn, serde=EncryptedSerializer(cipher, SERDE))
        await eventful(theirs)
        await stock_import.thread(stock, saver, "t")
        assert await history(saver, "t") == await history(theirs, "t")
        await stock_export.thread(saver, stock, "t", "back")
        assert await history(theirs, "back") == await history(saver, "t")
    async with Stock.open(empty_dsn) as blind:
        with pytest.raises(StockError, match="aes"):
            await stock_import.thread(blind, saver, "t", "blind")


async def test_a_whole_database_comes_over_with_progress_and_again_costs_nothing(
    saver: Saver, stock: Stock, theirs: AsyncPostgresSaver
) -> None:
    for n in range(7):
        await say(theirs, f"thread {n}", f"hello {n}")
    async with stock.connection() as conn:
        await conn.execute(
            "update checkpoint_writes set type = 'riddle' where thread_id = 'thread 3'"
        )
    seen: list[Progress] = []
    registered: list[str] = []

    async def register(conn: Connection, thread_id: str) -> None:
        await lineage.head(conn, thread_id)  # it is there, in this transaction
        registered.append(thread_id)

    with pytest.raises(StockError, match=r"1 threads.*thread 3.*riddle"):
        await stock_import.all_threads(stock, saver, progress=seen.append, also=register)
    assert sorted(p.done for p in seen) == [*range(1, 8)]
    assert {p.total for p in seen} == {7}
    assert [p.thread_id for p in seen if p.error] == ["thread 3"]
    assert sorted(registered) == [f"thread {n}" for n in range(7) if n != 3]
    for thread in registered:
        assert await history(saver, thread) == await history(theirs, thread)
    async with stock.connection() as conn:
        await conn.execute("delete from checkpoints where thread_id = 'thread 3'")
    assert await stock_import.all_threads(stock, saver) == 0


async def test_all_sessions_of_an_owner_go_over(
    saver: Saver, stock: Stock, theirs: AsyncPostgresSaver
) -> None:
    for n in range(3):
        await say(saver, f"thread {n}", f"hello {n}")
    eve_id = await saver.db.owner("acme", "eve")
    eve = Saver(saver.db, principal=Principal.owner(eve_id), owner_id=eve_id)
    await say(eve, "not mine", "hello")
    assert await stock_export.all_threads(saver, stock) == 3
    assert await stock_export.all_threads(saver, stock) == 0
    assert await stock.threads() == ["thread 0", "thread 1", "thread 2"]
    assert await history(theirs, "thread 1") == await history(saver, "thread 1")


async def heads(db: Database) -> list[str]:
    rows = await db.fetch(SERVICE, "select thread_id from clew.head order by thread_id")
    return [row["thread_id"] for row in rows]


async def test_half_an_import_is_never_seen(
    saver: Saver, stock: Stock, theirs: AsyncPostgresSaver
) -> None:
    await eventful(theirs)
    async with stock.connection() as conn:
        await conn.execute(
            "update checkpoint_blobs set type = 'riddle' where (channel, version) ="
            " (select channel, max(version) from checkpoint_blobs"
            " where channel = 'messages' group by channel)"
        )
    with pytest.raises(StockError, match="riddle"):
        await stock_import.thread(stock, saver, "t")
    assert await heads(saver.db) == []
    rows = await saver.db.fetch(
        SERVICE, "select 1 from clew.item union all select 1 from clew.write"
    )
    assert rows == []


async def test_names_that_are_taken_or_unknown(
    saver: Saver, stock: Stock, theirs: AsyncPostgresSaver
) -> None:
    await say(theirs, "t", "hello")
    await say(saver, "t", "hello")
    eve_id = await saver.db.owner("acme", "eve")
    eve = Saver(saver.db, principal=Principal.owner(eve_id), owner_id=eve_id)
    for one in (saver, eve):
        with pytest.raises(ThreadExists):
            await stock_import.thread(stock, one, "t")
    with pytest.raises(ThreadExists):
        await stock_export.thread(saver, stock, "t")
    with pytest.raises(UnknownThread):
        await stock_import.thread(stock, saver, "nothing")
    for one, thread in ((saver, "nothing"), (eve, "t")):
        with pytest.raises(UnknownThread):
            await stock_export.thread(one, stock, thread, "new")
    assert await heads(saver.db) == ["t"]


async def test_what_the_stock_tables_cannot_hold_is_refused_whole(
    saver: Saver, stock: Stock
) -> None:
    await say(saver, "nul", "hello", "a \x00 in a string")
    await say(saver, "lone", "hello", "half \ud83d of a smile")
    for thread, why in (("nul", "cannot hold session nul"), ("lone", "lone surrogate")):
        with pytest.raises(StockError, match=why):
            await stock_export.thread(saver, stock, thread)
    assert await stock.threads() == []


async def test_tables_in_another_schema_and_no_tables_at_all(saver: Saver, empty_dsn: str) -> None:
    async with Stock.open(empty_dsn, schema="Their own", setup=True) as stock:
        async with stock.connection() as conn:
            await say(AsyncPostgresSaver(conn, serde=SERDE), "t", "hello")
        await stock_import.thread(stock, saver, "t")
    with pytest.raises(StockError, match="no tables"):
        async with Stock.open(empty_dsn):
            pass
    async with await psycopg.AsyncConnection.connect(empty_dsn) as conn:
        row = await (await conn.execute('select count(*) from "Their own".checkpoints')).fetchone()
    assert row is not None
    assert row[0] > 0


async def test_import_keeps_no_secret_that_the_stock_tables_kept(
    saver: Saver, stock: Stock, theirs: AsyncPostgresSaver
) -> None:
    await say(theirs, "t", "hello", openai_api_key="hunter2-hunter2")
    async with stock.connection() as conn:
        row = await (await conn.execute("select metadata from checkpoints limit 1")).fetchone()
    assert row is not None
    assert row["metadata"]["openai_api_key"] == "hunter2-hunter2"
    await stock_import.thread(stock, saver, "t")
    found = await saver.db.fetch(SERVICE, "select metadata::text as told from clew.checkpoint")
    assert all("hunter2" not in (row["told"] or "") for row in found)


def test_a_body_says_whether_its_strings_are_escaped() -> None:
    assert codec.is_escaped(codec.dump(SERDE, "half \ud83d"))
    assert not codec.is_escaped(codec.dump(SERDE, "whole 😀\x00"))
