"""Encrypted sessions: nothing readable in the database, and all else as it is in clear."""

import operator
import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, TypedDict
from uuid import UUID

import psycopg
import pytest
import pytest_asyncio
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt
from psycopg import sql

from clew.checkpointing import bundle, diff, encryption, keys, labels, lineage
from clew.checkpointing.encryption import Keyring
from clew.checkpointing.errors import (
    EncryptionError,
    KeyDestroyed,
    NotEncrypted,
    Tampered,
    UnknownKey,
    WrongKey,
)
from clew.checkpointing.keys import Vault
from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.checkpointing.saver import Saver

FIRST = ("first", os.urandom(32))
SECOND = ("second", os.urandom(32))
MARK = "xylophone"  # a word that nothing else says


class State(MessagesState):
    facts: Annotated[list[str], operator.add]
    log: Annotated[
        list[str], DeltaChannel(lambda old, new: old + [line for write in new for line in write])
    ]
    number: int
    remark: str


class Inner(TypedDict):
    remark: str


def graph(saver: Saver) -> Any:
    """Every kind of channel and of write, a subgraph among them; asks where it is told to."""

    def deep(state: Inner) -> Any:
        return {"remark": interrupt(f"{MARK}?") if "ask" in state["remark"] else f"{MARK}!"}

    inner = StateGraph(Inner).add_node(deep).add_edge(START, "deep").compile()

    def reply(state: State) -> Any:
        said = state["messages"][-1].text
        if "fail" in said:
            raise ValueError(f"{MARK} broke")
        return {
            "messages": [AIMessage(f"{MARK} to you")],
            "facts": [f"fact {MARK} {len(state['facts'])}"],
            "log": [f"logged {MARK}"],
            "number": 7,
        }

    builder = StateGraph(State).add_node(reply).add_node("inner", inner)
    return builder.add_edge(START, "reply").add_edge("reply", "inner").compile(checkpointer=saver)


def at(thread_id: str, **more: Any) -> Any:
    return {"configurable": {"thread_id": thread_id, **more}}


async def say(saver: Saver, thread_id: str, remark: str = "", said: str = "hello") -> Any:
    told = {"messages": [HumanMessage(f"{said} {MARK}")], "remark": f"{MARK} {remark}"}
    return await graph(saver).ainvoke(told, at(thread_id))


async def history(saver: Saver, thread_id: str) -> list[Any]:
    return [
        (s.values, s.next, _id(s), s.metadata, [(t.id, t.interrupts, t.error) for t in s.tasks])
        async for s in graph(saver).aget_state_history(at(thread_id))
    ]


def _id(state: Any) -> str:
    return state.config["configurable"]["checkpoint_id"]


@pytest_asyncio.fixture
async def saver(db: Database) -> Saver:
    return await over(db, FIRST)


async def over(db: Database, *key: tuple[str, bytes], owner: str = "ann") -> Saver:
    owner_id = await db.owner("acme", owner)
    vault = Vault(Keyring(key)) if key else None
    return Saver(db, principal=Principal.owner(owner_id), owner_id=owner_id, vault=vault)


async def eventful(saver: Saver, thread_id: str = "t") -> None:
    await say(saver, thread_id)
    await say(saver, thread_id, "ask")
    await graph(saver).ainvoke(Command(resume=f"answer {MARK}"), at(thread_id))
    with pytest.raises(ValueError, match="broke"):
        await say(saver, thread_id, said="fail")
    await say(saver, thread_id, "ask")
    back = [s async for s in graph(saver).aget_state_history(at(thread_id))][2]
    async with saver.db.transaction(saver.principal) as conn:
        await lineage.fork(conn, thread_id, f"{thread_id}-fork")
    await graph(saver).ainvoke(Command(resume=f"answer {MARK}"), at(f"{thread_id}-fork"))
    async with saver.db.transaction(saver.principal) as conn:
        await lineage.restore(conn, thread_id, _id(back))
    await say(saver, thread_id, "ask")


async def places(dsn: str, needle: bytes) -> list[str]:
    """Every column of every table of the database in which these bytes are found."""
    found: list[str] = []
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        columns = await (
            await conn.execute(
                "select c.table_schema, c.table_name, c.column_name, c.data_type"
                " from information_schema.columns c join information_schema.tables t"
                " using (table_schema, table_name) where t.table_type = 'BASE TABLE'"
                " and c.table_schema not in ('pg_catalog', 'information_schema')"
            )
        ).fetchall()
        assert len(columns) > 50
        for schema, table, column, kind in columns:
            # As it is, and in the hexadecimal that a bytea inside something else would show as.
            query = (
                "select count(*) from {t} where position(%(needle)s::bytea in {c}) > 0"
                " or position(%(hex)s::bytea in {c}) > 0"
            )
            name = sql.Identifier(column)
            words = (
                name if kind == "bytea" else sql.SQL("convert_to({}::text, 'UTF8')").format(name)
            )
            told = sql.SQL(query).format(t=sql.Identifier(schema, table), c=words)
            cursor = await conn.execute(told, {"needle": needle, "hex": needle.hex().encode()})
            row = await cursor.fetchone()
            if row and row[0]:
                found.append(f"{schema}.{table}.{column}")
    return found


async def test_no_column_of_any_table_holds_a_readable_word(saver: Saver, dsn: str) -> None:
    await eventful(saver)
    async with saver.db.transaction(saver.principal) as conn:
        head = await lineage.head(conn, "t")
        assert saver.vault is not None
        sealer = await saver.vault.writer_in(conn, saver.principal, head.lineage_id)
        data = {"data": f"saved {MARK}"}
        await labels.save(conn, "t", "kept", data=data, serde=saver.serde, sealer=sealer)
    assert await places(dsn, MARK.encode()) == []
    # And the search would have found it: short values are not compressed out of sight.
    plain = await over(saver.db)
    await say(plain, "plain")
    assert {"clew.item.body", "clew.write.body"} <= set(await places(dsn, MARK.encode()))


async def test_the_keys_themselves_are_nowhere(saver: Saver, dsn: str) -> None:
    await eventful(saver)
    assert await places(dsn, FIRST[1]) == []


async def test_an_encrypted_session_reads_as_a_plain_one(saver: Saver) -> None:
    plain = await over(saver.db)
    for one, thread in ((saver, "sealed"), (plain, "plain")):
        await eventful(one, thread)

    def told(states: list[Any]) -> list[Any]:
        return [
            (
                [m.text for m in values.get("messages", ())],
                {k: v for k, v in values.items() if k != "messages"},
                step,
                [[i.value for i in asked] for _, asked, _ in tasks],
                [error for *_, error in tasks],
            )
            for values, step, _, _, tasks in states
        ]

    for suffix in ("", "-fork"):
        ours = told(await history(saver, f"sealed{suffix}"))
        assert ours == told(await history(plain, f"plain{suffix}"))
    fresh = await over(saver.db, FIRST)  # with nothing in memory
    assert await history(fresh, "sealed-fork") == await history(saver, "sealed-fork")


async def test_a_fork_reads_its_ancestors_after_their_session_is_gone(saver: Saver) -> None:
    await eventful(saver)
    before = await history(saver, "t-fork")
    async with saver.db.transaction(saver.principal) as conn:
        await lineage.purge(conn, "t")
    fresh = await over(saver.db, FIRST)
    assert await history(fresh, "t-fork") == before
    await say(fresh, "t-fork")


async def test_a_hundred_restores_keep_their_pending_question(saver: Saver) -> None:
    await say(saver, "t", "ask")
    asked = (await graph(saver).aget_state(at("t"))).interrupts
    for _ in range(5):
        async with saver.db.transaction(saver.principal) as conn:
            await lineage.restore(conn, "t", _id(await graph(saver).aget_state(at("t"))))
        fresh = await over(saver.db, FIRST)
        assert (await graph(fresh).aget_state(at("t"))).interrupts == asked
    await graph(saver).ainvoke(Command(resume="done"), at("t"))


async def test_purging_a_session_destroys_its_key(saver: Saver) -> None:
    await say(saver, "t")
    async with saver.db.transaction(saver.principal) as conn:
        line = (await lineage.head(conn, "t")).lineage_id
    kept = await saver.db.fetch(SERVICE, "select lineage_id, stream, number, body from clew.item")
    await saver.adelete_thread("t")
    rows = await saver.db.fetch(SERVICE, "select wrapped_key from clew.lineage")
    assert rows == []
    vault = Vault(Keyring([FIRST]))
    with pytest.raises(KeyDestroyed, match=str(line)):
        await vault.open_rows(saver.db, SERVICE, kept)  # what a backup of the items would give


async def test_without_the_right_key_nothing_is_read_and_the_error_says_which(
    saver: Saver,
) -> None:
    await say(saver, "t")
    for keyring, error, why in (
        ((), UnknownKey, "CLEW_ENCRYPTION_KEYS is not set"),
        ((SECOND,), UnknownKey, "'first'"),
        ((("first", os.urandom(32)),), WrongKey, "'first'"),
    ):
        stranger = await over(saver.db, *keyring)
        with pytest.raises(error, match=why) as caught:
            await graph(stranger).aget_state(at("t"))
        assert MARK not in repr(caught.value)
        with pytest.raises(EncryptionError):
            await say(stranger, "t")
    assert len(await history(saver, "t")) == 4


async def test_plaintext_is_refused_where_encryption_is_on_until_it_is_encrypted(
    db: Database, dsn: str
) -> None:
    plain = await over(db)
    await eventful(plain)
    before = {thread: await history(plain, thread) for thread in ("t", "t-fork")}
    saver = await over(db, FIRST)
    with pytest.raises(NotEncrypted, match="clew encryption encrypt"):
        await graph(saver).aget_state(at("t"))
    assert await keys.encrypt(db, Vault(Keyring([FIRST]))) > 0
    assert await places(dsn, MARK.encode()) == []
    assert {thread: await history(saver, thread) for thread in before} == before
    await say(saver, "t-fork")


async def test_a_value_put_in_the_place_of_another_is_refused(saver: Saver) -> None:
    await say(saver, "t")
    await say(saver, "u")
    await saver.db.execute(
        SERVICE,
        "update clew.item i set body = o.body from clew.item o"
        " where i.stream = o.stream and i.number <> o.number and i.lineage_id = o.lineage_id",
    )
    with pytest.raises(Tampered):
        await graph(await over(saver.db, FIRST)).aget_state(at("t"))


async def test_rotation_leaves_everything_readable_without_the_old_key(saver: Saver) -> None:
    await eventful(saver)
    before = await history(saver, "t")
    await Vault(Keyring([SECOND, FIRST])).rewrap(saver.db)
    assert set(await keys.in_use(saver.db)) == {"second"}
    assert await history(await over(saver.db, SECOND), "t") == before


async def test_diff_reads_encrypted_sessions(saver: Saver) -> None:
    await eventful(saver)
    states = [s async for s in graph(saver).aget_state_history(at("t"))]
    assert saver.vault is not None
    async with saver.db.transaction(saver.principal) as conn:
        unseal = await saver.vault.unsealer(conn, saver.principal, "t", "t-fork")
        a, b = diff.Ref("t", _id(states[-1])), diff.Ref("t-fork")
        told = await diff.compare(conn, a, b, unseal=unseal)
    assert MARK in repr(told)


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def test_a_bundle_carries_a_session_from_key_to_key_and_into_the_clear(
    saver: Saver, dsn: str
) -> None:
    await eventful(saver)
    before = await history(saver, "t")
    async with aclosing(bundle.dump(saver.db, saver.principal, "t", vault=saver.vault)) as lines:
        data = b"".join([line async for line in lines])
    with pytest.raises(UnknownKey):
        await anext(_drained(bundle.dump(saver.db, saver.principal, "t")))
    bob = await over(saver.db, SECOND, owner="bob")
    assert bob.owner_id is not None
    async with bob.db.transaction(bob.principal) as conn:
        await bundle.load(conn, chunks(data), "copy", bob.owner_id, vault=bob.vault)
    assert await places(dsn, MARK.encode()) == []
    assert await history(bob, "copy") == before
    again = bundle.dump(bob.db, bob.principal, "copy", vault=bob.vault)
    assert sum([len(line) async for line in again]) > 0
    plain = await over(saver.db, owner="eve")
    assert plain.owner_id is not None
    async with plain.db.transaction(plain.principal) as conn:
        await bundle.load(conn, chunks(data), "clear", plain.owner_id)
    assert await history(plain, "clear") == before


async def _drained(lines: Any) -> AsyncIterator[int]:
    yield len([line async for line in lines])


async def test_two_processes_write_one_session_under_one_key(saver: Saver) -> None:
    other = await over(saver.db, FIRST)
    for turn in range(4):
        await say((saver, other)[turn % 2], "t")
    assert len((await graph(saver).aget_state(at("t"))).values["facts"]) == 4
    assert await keys.in_use(saver.db) == {"first": 1}


def test_a_write_has_one_place_before_and_after_its_tick_is_known() -> None:
    one, two = UUID(int=1), UUID(int=2)
    assert encryption.write(one, two, -3, "", "c") == encryption.write(one, two, -803, "", "c")
    assert encryption.write(one, two, -3, "", "c") != encryption.write(one, two, -804, "", "c")
