"""Bundles: what goes in comes out, elsewhere and under another name; what was damaged does not."""

import asyncio
import base64
import json
import operator
import random
import tracemalloc
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypedDict
from uuid import UUID

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, interrupt

from clew.checkpointing import bundle, chain, codec, labels, lineage, pins
from clew.checkpointing.errors import (
    BundleEdited,
    BundleError,
    BundleTruncated,
    BundleUnsupported,
    ThreadExists,
    UnknownThread,
)
from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.checkpointing.saver import Saver
from tests.conftest import create, drop

settings.register_profile("bundle", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("bundle")

JSON = (
    st.none() | st.integers(0, 99) | st.text(max_size=8) | st.lists(st.integers(0, 9), max_size=3)
)
RECORDS = st.lists(st.dictionaries(st.sampled_from("abc"), JSON, max_size=3), max_size=6)


async def pieces(data: bytes, size: int = 1 << 16) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def chained(records: list[dict[str, Any]]) -> bytes:
    writer = chain.Writer()
    return b"".join(writer.line(record) for record in records)


def read(data: bytes, size: int = 1 << 16) -> list[dict[str, Any]]:
    async def collect() -> list[dict[str, Any]]:
        return [record async for record in chain.read(pieces(data, size))]

    return asyncio.run(collect())


def bare(data: bytes) -> list[dict[str, Any]]:
    """The records without their links."""
    records = [json.loads(line) for line in data.splitlines()]
    for record in records:
        del record["chain"]
    return records


# --- the chain ---------------------------------------------------------------------------------


@given(records=RECORDS, size=st.integers(1, 64))
def test_records_come_back_however_the_file_is_cut_into_chunks(
    records: list[dict[str, Any]], size: int
) -> None:
    whole = [*records, {"end": {}}]
    told = [
        {k: v for k, v in record.items() if k != "chain"} for record in read(chained(whole), size)
    ]
    assert told == whole


@given(records=RECORDS, data=st.data())
def test_a_file_cut_short_anywhere_is_refused(
    records: list[dict[str, Any]], data: st.DataObject
) -> None:
    file = chained([*records, {"end": {}}])
    with pytest.raises(BundleTruncated):
        read(file[: data.draw(st.integers(0, len(file) - 1))])


@given(records=RECORDS, data=st.data())
def test_a_file_with_any_bit_changed_is_refused(
    records: list[dict[str, Any]], data: st.DataObject
) -> None:
    file = bytearray(chained([*records, {"end": {}}]))
    at = data.draw(st.integers(0, len(file) * 8 - 1))
    file[at // 8] ^= 1 << at % 8
    with pytest.raises(BundleError):
        read(bytes(file))


@given(records=RECORDS.filter(lambda r: len(r) > 1), data=st.data())
def test_lines_left_out_repeated_or_exchanged_are_refused(
    records: list[dict[str, Any]], data: st.DataObject
) -> None:
    lines = chained([{"n": n, **r} for n, r in enumerate(records)] + [{"end": {}}]).splitlines(True)
    at = data.draw(st.integers(0, len(lines) - 2))
    for edited in (
        [*lines[:at], *lines[at + 1 :]],
        [*lines[: at + 1], *lines[at:]],
        [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]],
        [*lines, lines[at]],
        [*lines, b"{}\n"],
    ):
        with pytest.raises((BundleEdited, BundleUnsupported)):
            read(b"".join(edited))


def test_a_file_of_another_kind_is_told_from_a_damaged_one() -> None:
    for file in (b"PK\x03\x04 and so on\n", b'{"hello": "world"}\n', b"\n"):
        with pytest.raises(BundleUnsupported):
            read(file)
    with pytest.raises(BundleTruncated):
        read(b"")


def test_a_line_without_end_is_refused_before_it_fills_the_memory() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 1000

    async def collect() -> None:
        async for _ in chain.read(endless(), longest=10_000):
            pass

    with pytest.raises(BundleUnsupported, match="10000"):
        asyncio.run(collect())


# --- sessions ----------------------------------------------------------------------------------


class Heard(TypedDict):
    heard: str


class Inner(Heard):
    notes: list[str]


class State(MessagesState):
    notes: Annotated[list[str], operator.add]
    heard: str


def graph(saver: Saver) -> CompiledStateGraph[Any, Any, Any, Any]:
    """A turn that may ask, at the top and within a subgraph."""

    def deep(state: Inner) -> dict[str, Any]:
        if state["notes"] and "deep" in state["notes"][-1]:
            return {"heard": f"deep said {interrupt('how deep?')}"}
        return {"heard": "calm"}

    nested = StateGraph(Inner, output_schema=Heard).add_node("deep", deep)
    inner = nested.add_edge(START, "deep").compile()

    def reply(state: State) -> dict[str, Any]:
        last = state["messages"][-1]
        text = interrupt({"ask": last.text}) if "?" in last.text else last.text.upper()
        return {"messages": [AIMessage(str(text), id=f"ai-{len(state['messages'])}")]}

    builder = StateGraph(State)
    builder.add_node("reply", reply)
    builder.add_node("inner", inner)
    builder.add_edge(START, "reply")
    builder.add_edge("reply", "inner")
    builder.add_edge("inner", END)
    return builder.compile(checkpointer=saver)


def at(thread_id: str, **more: Any) -> Any:
    return {"configurable": {"thread_id": thread_id, **more}}


async def say(saver: Saver, thread_id: str, text: str, *notes: str) -> None:
    message = HumanMessage(text, id=f"human-{uuid.uuid4().hex[:6]}")
    await graph(saver).ainvoke({"messages": [message], "notes": list(notes)}, at(thread_id))


async def history(saver: Saver, thread_id: str) -> list[Any]:
    """All that LangGraph tells of a session, without its name."""
    return [
        (
            state.values,
            state.next,
            _id(state),
            state.parent_config and _id(state, "parent_config"),
            state.metadata,
            state.created_at,
            [(t.id, t.name, t.error, t.interrupts, t.result) for t in state.tasks],
        )
        async for state in graph(saver).aget_state_history(at(thread_id))
    ]


@pytest_asyncio.fixture
async def saver(db: Database) -> Saver:
    ann = await db.owner("acme", "ann")
    return Saver(db, principal=Principal.owner(ann), owner_id=ann)


@pytest_asyncio.fixture
async def other(server: str, template: str) -> AsyncIterator[Saver]:
    """Another database."""
    name = f"clew_{uuid.uuid4().hex}"
    async with Database.open(create(server, name, template=template)) as db:
        for n in range(40):  # so that no number happens to be the same
            await db.owner("elsewhere", f"owner-{n}")
            await db.fetch(SERVICE, "select nextval('clew.moment') from generate_series(1, 999)")
        bob = await db.owner("acme", "bob")
        yield Saver(db, principal=Principal.owner(bob), owner_id=bob)
    drop(server, name)


async def exported(saver: Saver, thread_id: str, **options: Any) -> bytes:
    lines = bundle.dump(saver.db, saver.principal, thread_id, **options)
    return b"".join([line async for line in lines])


async def imported(saver: Saver, data: bytes, thread_id: str) -> bundle.Imported:
    assert saver.owner_id is not None
    async with saver.db.transaction(saver.principal) as conn:
        return await bundle.load(conn, pieces(data), thread_id, saver.owner_id)


async def eventful(saver: Saver, thread_id: str = "t") -> str:
    """A session with branches, an abandoned line, marks, an ancestor, and a pending question."""
    origin = f"{thread_id}-origin"
    await say(saver, origin, "first")
    await say(saver, origin, "asked?")
    await graph(saver).ainvoke(Command(resume="an answer"), at(origin))
    await say(saver, origin, "second", "deep one")
    states = [s async for s in graph(saver).aget_state_history(at(origin))]
    async with saver.db.transaction(saver.principal) as conn:
        await lineage.fork(conn, origin, thread_id)
    await say(saver, origin, "the parent goes on alone")
    await graph(saver).ainvoke(Command(resume="very"), at(thread_id))
    await say(saver, thread_id, "third")
    # A branch within the thread, from two turns before.
    await graph(saver).ainvoke(
        {"messages": [HumanMessage("a branch")]}, at(thread_id, checkpoint_id=_id(states[4]))
    )
    await say(saver, thread_id, "abandoned words")
    back = [s async for s in graph(saver).aget_state_history(at(thread_id))][4]
    async with saver.db.transaction(saver.principal) as conn:
        await lineage.restore(conn, thread_id, _id(back), actor="ann")
    await say(saver, thread_id, "after the restore \x00 \ud800", "deep two")
    async with saver.db.transaction(saver.principal) as conn:
        await labels.label(conn, thread_id, _id(back), "before\x00it", actor="ann")
        await pins.pin(conn, thread_id, _id(back), reason="evidence")
    return thread_id


def _id(state: Any, config: str = "config") -> str:
    return getattr(state, config)["configurable"]["checkpoint_id"]


async def test_a_session_reads_the_same_elsewhere_and_goes_on_there(
    saver: Saver, other: Saver
) -> None:
    await eventful(saver)
    before = await history(saver, "t")
    made = await imported(other, await exported(saver, "t", session={"title": "标题"}), "new")
    assert made.session == {"title": "标题"}
    assert made.source_thread_id == "t"
    assert await history(other, "new") == before
    for one, thread in ((saver, "t"), (other, "new")):
        await graph(one).ainvoke(Command(resume="quite"), at(thread))
    ours, theirs = await history(saver, "t"), await history(other, "new")
    assert theirs[0][0] == ours[0][0]
    assert theirs[1:][-len(before) :] == ours[1:][-len(before) :]
    assert theirs[0][0]["heard"] == "deep said quite"


async def test_what_was_abandoned_comes_along_and_undo_finds_it(saver: Saver, other: Saver) -> None:
    await eventful(saver)
    await imported(other, await exported(saver, "t"), "new")
    for one, thread in ((saver, "t"), (other, "new")):
        async with one.db.transaction(one.principal) as conn:
            await lineage.undo(conn, thread)
    assert await history(other, "new") == await history(saver, "t")
    assert "abandoned words" in str(await history(other, "new"))


async def test_the_same_session_gives_the_same_file_wherever_it_is(
    saver: Saver, other: Saver
) -> None:
    await eventful(saver)
    for scope in ("all", "path"):
        first = await exported(saver, "t", scope=scope, session={"a": 1})
        await imported(other, first, "t")
        assert await exported(other, "t", scope=scope, session={"a": 1}) == first
        async with other.db.transaction(other.principal) as conn:
            await lineage.purge(conn, "t")
        await imported(saver, first, f"again {scope}")
        again = bare(await exported(saver, f"again {scope}", scope=scope, session={"a": 1}))
        again[0]["bundle"]["thread_id"] = "t"
        assert again == bare(first)


def words(data: bytes) -> str:
    """All that a bundle holds, in plain sight."""
    found: list[bytes] = []
    for record in bare(data):
        bodies = [
            *record.get("items", [0, 0, 0, []])[3],
            *(w[-1] for w in record.get("writes", ())),
        ]
        found += [codec.unpack(base64.b64decode(body))[1] for body in bodies]
    return b"\n".join(found).decode(errors="replace")


async def test_a_path_leaves_out_every_branch_and_a_fork_what_its_parent_did_later(
    saver: Saver, other: Saver
) -> None:
    await eventful(saver)
    path, everything = await exported(saver, "t", scope="path"), await exported(saver, "t")
    assert "the parent goes on alone" not in words(everything)
    assert "abandoned words" in words(everything)
    assert "abandoned words" not in words(path)
    assert "after the restore" in words(path)
    await imported(other, path, "new")
    theirs = await history(other, "new")
    ours = await history(saver, "t")
    assert theirs == [state for state in ours if state[2] in {other[2] for other in theirs}]
    assert theirs[0] == ours[0]
    by_id = {state[2]: state for state in ours}
    line = [ours[0]]
    while line[-1][3]:
        line.append(by_id[line[-1][3]])
    assert theirs == line


async def test_labels_and_pins_come_along(saver: Saver, other: Saver) -> None:
    await eventful(saver)
    await imported(other, await exported(saver, "t"), "new")
    async with other.db.transaction(other.principal) as conn:
        (label,) = await labels.list_(conn, "new")
        (pin,) = await pins.list_(conn, "new")
    assert (label.name, label.actor) == ("before\x00it", "ann")
    assert pin.checkpoint_id == label.checkpoint_id
    assert pin.reason == "evidence"


async def test_a_delta_channel_comes_along(saver: Saver, other: Saver) -> None:
    class Log(TypedDict):
        lines: Annotated[
            list[str],
            DeltaChannel(lambda old, new: old + [line for write in new for line in write]),
        ]

    def add(state: Log) -> Any:
        return {"lines": [str(len(state["lines"]))]}

    def build(one: Saver) -> Any:
        return StateGraph(Log).add_node(add).add_edge(START, "add").compile(checkpointer=one)

    async def told(one: Saver, thread_id: str) -> list[Any]:
        states = build(one).aget_state_history(at(thread_id))
        return [(s.values, _id(s), s.next) async for s in states]

    for n in range(5):
        await build(saver).ainvoke({"lines": [f"in {n}"]}, at("d"))
    await imported(other, await exported(saver, "d"), "new")
    assert await told(other, "new") == await told(saver, "d")
    await build(other).ainvoke({"lines": ["more"]}, at("new"))
    assert len((await told(other, "new"))[0][0]["lines"]) == 12


async def test_a_session_that_holds_nothing_yet(saver: Saver, other: Saver) -> None:
    assert saver.owner_id is not None
    async with saver.db.transaction(saver.principal) as conn:
        await lineage.create(conn, "empty", saver.owner_id)
    made = await imported(other, await exported(saver, "empty"), "empty")
    assert (made.checkpoints, made.items) == (0, 0)
    await say(other, "empty", "hello")


async def test_an_unknown_session_and_a_foreign_one_are_not_exported(
    saver: Saver, db: Database
) -> None:
    await say(saver, "t", "hello")
    eve = Principal.owner(await db.owner("acme", "eve"))
    for who, thread in ((saver.principal, "nothing"), (eve, "t")):
        with pytest.raises(UnknownThread):
            await anext(bundle.dump(db, who, thread))


async def rows(db: Database) -> dict[str, int]:
    found = await db.one(
        SERVICE,
        "select (select count(*) from clew.head) as head,"
        " (select count(*) from clew.lineage) as lineage,"
        " (select count(*) from clew.checkpoint) as checkpoint,"
        " (select count(*) from clew.item) as item, (select count(*) from clew.write) as write,"
        " (select count(*) from clew.label) as label, (select count(*) from clew.pin) as pin",
    )
    assert found is not None
    return found


async def test_a_taken_id_is_refused_whoever_has_it(saver: Saver, db: Database) -> None:
    await say(saver, "t", "hello")
    data = await exported(saver, "t")
    eve_id = await db.owner("acme", "eve")
    eve = Saver(db, principal=Principal.owner(eve_id), owner_id=eve_id)
    before = await rows(db)
    for one in (saver, eve):
        with pytest.raises(ThreadExists):
            await imported(one, data, "t")
    assert await rows(db) == before


async def test_a_damaged_file_leaves_nothing_behind(saver: Saver, other: Saver) -> None:
    await eventful(saver)
    data = await exported(saver, "t")
    empty = await rows(other.db)
    chance = random.Random(7)
    for _ in range(25):
        cut = chance.randrange(len(data))
        with pytest.raises(BundleTruncated):
            await imported(other, data[:cut], "new")
        flipped = bytearray(data)
        flipped[cut] ^= 1 << chance.randrange(8)
        with pytest.raises(BundleError):
            await imported(other, bytes(flipped), "new")
    assert await rows(other.db) == empty


def leaves(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each place in a record that holds something: its container and its key."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield value, key
        if isinstance(inner, dict | list):
            yield from leaves(inner)


async def test_a_forged_file_is_either_sound_or_refused(saver: Saver, other: Saver) -> None:
    """With its chain computed anew, whatever is changed in it raises one kind of error at most."""
    await eventful(saver)
    data = await exported(saver, "t", scope="path")
    before = await rows(other.db)
    chance = random.Random(11)
    odd: list[Callable[[], Any]] = [
        lambda: None, lambda: -1, lambda: 1 << 80, lambda: "", lambda: "x\x00", list, dict,
        lambda: 1.5, lambda: True, lambda: "AAAA", lambda: chance.randrange(9),
        lambda: str(UUID(int=chance.getrandbits(128))),
    ]  # fmt: skip
    refused = 0
    for n in range(200):
        records = bare(data)
        where, key = chance.choice([*leaves(chance.choice(records))])
        where[key] = chance.choice(odd)()
        try:
            await imported(other, chained(records), f"forged {n}")
        except BundleError:
            refused += 1
        else:
            async with other.db.transaction(other.principal) as conn:
                await lineage.purge(conn, f"forged {n}")
    assert refused > 60
    assert await rows(other.db) == before


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"\x05cos\nsystem", "pickled"),
        (b"\x09?", "header"),
        (b"\x81sealed", "header"),
        (b"", "header"),
    ],
)
async def test_a_value_of_an_unknown_kind_is_refused(
    saver: Saver, other: Saver, body: bytes, why: str
) -> None:
    await say(saver, "t", "hello")
    records = bare(await exported(saver, "t"))
    items = next(record["items"] for record in records if "items" in record)
    items[3][0] = base64.b64encode(body).decode()
    with pytest.raises(BundleUnsupported, match=why):
        await imported(other, chained(records), "new")


async def test_what_a_later_release_might_write_is_refused(saver: Saver, other: Saver) -> None:
    await say(saver, "t", "hello")
    records = bare(await exported(saver, "t"))
    later = [dict(records[0]["bundle"], version=2)]
    for changed, why in (
        ([{"bundle": later[0]}, *records[1:]], "version 2"),
        ([records[0], {"attachment": 1}, *records[1:]], "attachment"),
        (records[1:], "header"),
        ([records[0], *records], "unknown kind: bundle"),
    ):
        with pytest.raises(BundleUnsupported, match=why):
            await imported(other, chained(changed), "new")


async def test_memory_does_not_grow_with_the_values(
    saver: Saver, other: Saver, tmp_path: Path
) -> None:
    def keep(state: State) -> Any:
        return {"heard": state["notes"][-1][:4]}

    builder = StateGraph(State).add_node(keep).add_edge(START, "keep")
    notes: Any = builder.compile(checkpointer=saver)
    chance = random.Random(3)
    for _ in range(24):
        await notes.ainvoke({"notes": [chance.randbytes(600_000).hex()]}, at("t"))
    file = tmp_path / "bundle"
    tracemalloc.start()
    with file.open("wb") as out:
        async for line in bundle.dump(saver.db, saver.principal, "t"):
            out.write(line)
    _, writing = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()

    async def chunks() -> AsyncIterator[bytes]:
        with file.open("rb") as source:
            while chunk := source.read(1 << 16):
                yield chunk

    assert other.owner_id is not None
    async with other.db.transaction(other.principal) as conn:
        await bundle.load(conn, chunks(), "new", other.owner_id)
    _, reading = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert file.stat().st_size > 20_000_000
    assert writing < 16_000_000
    assert reading < 16_000_000
