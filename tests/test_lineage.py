"""Forks and restores: each case of the table in docs/design/lineage.md, on both.

A case drives a session to a moment, notes what it looks like then, drives it on, and then forks
or restores the checkpoint that was the head: that must look exactly as it did, go on from there
as the session could have, and neither may show in the other.
"""

import asyncio
import operator
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, LiteralString, TypedDict
from uuid import UUID

import pytest
import pytest_asyncio
from langchain_core.runnables import RunnableConfig
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt
from psycopg.errors import CheckViolation

from clew.checkpointing import lineage
from clew.checkpointing.errors import (
    CyclicLineage,
    FenceLost,
    NothingToUndo,
    ThreadExists,
    UnknownCheckpoint,
    UnknownThread,
)
from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.checkpointing.saver import Saver

Graph = Any
TABLES = ("head", "lineage", "checkpoint", "item", "write")


class Log(TypedDict):
    log: Annotated[list[str], operator.add]


@pytest_asyncio.fixture
async def saver(db: Database) -> Saver:
    owner_id = await db.owner("test", "one")
    return Saver(db, principal=Principal.owner(owner_id))


def at(thread_id: str, checkpoint_id: str | None = None) -> RunnableConfig:
    configurable = {"thread_id": thread_id}
    if checkpoint_id:
        configurable["checkpoint_id"] = checkpoint_id
    return {"configurable": configurable}


def _plain(state: Any) -> Any:
    """A state snapshot without what names the session."""
    if state is None or isinstance(state, dict):
        return state if state is None else "subgraph"
    return {
        "values": state.values,
        "next": state.next,
        "interrupts": state.interrupts,
        "checkpoint": state.config["configurable"].get("checkpoint_id"),
        "parent": (state.parent_config or {}).get("configurable", {}).get("checkpoint_id"),
        "metadata": state.metadata,
        "created_at": state.created_at,
        "tasks": [
            (t.id, t.name, t.path, str(t.error), t.interrupts, t.result, _plain(t.state))
            for t in state.tasks
        ],
    }


async def look(graph: Graph, thread_id: str) -> Any:
    return _plain(await graph.aget_state(at(thread_id), subgraphs=True))


async def head_of(graph: Graph, thread_id: str) -> str:
    state = await graph.aget_state(at(thread_id))
    return state.config["configurable"]["checkpoint_id"]


async def history(graph: Graph, thread_id: str, **kwargs: Any) -> list[str]:
    return [
        state.config["configurable"]["checkpoint_id"]
        async for state in graph.aget_state_history(at(thread_id), **kwargs)
    ]


@asynccontextmanager
async def moving(saver: Saver) -> AsyncGenerator[Any]:
    async with saver.db.transaction(saver.principal) as conn:
        yield conn


async def fork(saver: Saver, source: str, target: str, **kwargs: Any) -> lineage.Head:
    async with moving(saver) as conn:
        return await lineage.fork(conn, source, target, **kwargs)


async def restore(saver: Saver, thread_id: str, checkpoint_id: str, **kwargs: Any) -> lineage.Head:
    async with moving(saver) as conn:
        return await lineage.restore(conn, thread_id, checkpoint_id, **kwargs)


async def undo(saver: Saver, thread_id: str) -> lineage.Head:
    async with moving(saver) as conn:
        return await lineage.undo(conn, thread_id)


async def purge(saver: Saver, thread_id: str) -> bool:
    async with moving(saver) as conn:
        return await lineage.purge(conn, thread_id)


async def counts(db: Database) -> dict[str, int]:
    found: dict[str, int] = {}
    for table in TABLES:
        row = await db.one(SERVICE, f"select count(*) as n from clew.{table}")  # noqa: S608
        assert row
        found[table] = row["n"]
    return found


# -- the cases


@dataclass(frozen=True)
class Case:
    """How to reach a moment, what to do after it, and how a copy of it goes on."""

    build: Callable[[Saver], Graph]
    reach: Callable[[Graph, str], Awaitable[None]]
    pass_by: Callable[[Graph, str], Awaitable[None]]
    go_on: Callable[[Graph, str], Awaitable[Any]]
    gives: Any


def compiled(builder: Any, saver: Saver) -> Graph:
    return builder.compile(checkpointer=saver)


def one_question(saver: Saver) -> Graph:
    def ask(state: Log) -> Any:
        return {"log": [f"got {interrupt('what?')}"]}

    builder: Any = StateGraph(Log)
    builder.add_node("before", lambda _: {"log": ["before"]})
    builder.add_node("ask", ask)
    builder.add_node("after", lambda _: {"log": ["after"]})
    builder.add_edge(START, "before")
    builder.add_edge("before", "ask")
    builder.add_edge("ask", "after")
    return compiled(builder, saver)


def two_questions(saver: Saver, schema: Any = Log) -> Graph:
    def ask(_: Any) -> Any:
        first = interrupt("first?")
        second = interrupt("second?")
        return {"log": [f"{first} {second}"]}

    builder: Any = StateGraph(schema)
    builder.add_node("ask", ask)
    builder.add_node("after", lambda _: {"log": ["after"]})
    builder.add_edge(START, "ask")
    builder.add_edge("ask", "after")
    return compiled(builder, saver)


def parallel_questions(saver: Saver, schema: Any = Log) -> Graph:
    def asking(name: str) -> Any:
        return lambda _: {"log": [f"{name} got {interrupt(name)}"]}

    builder: Any = StateGraph(schema)
    for name in ("left", "right"):
        builder.add_node(name, asking(name))
        builder.add_edge(START, name)
        builder.add_edge(name, "join")
    builder.add_node("join", lambda _: {"log": ["join"]})
    return compiled(builder, saver)


def three_steps(saver: Saver, schema: Any = Log) -> Graph:
    builder: Any = StateGraph(schema)
    for name, then in (("one", "two"), ("two", "three"), ("three", END)):
        builder.add_node(name, lambda _, name=name: {"log": [name]})
        builder.add_edge(name, then)
    builder.add_edge(START, "one")
    return compiled(builder, saver)


class Switch:
    """Makes a node fail until told otherwise."""

    def __init__(self) -> None:
        self.broken = True
        self.done = asyncio.Event()


def one_fails(saver: Saver, schema: Any = Log) -> Graph:
    switch = Switch()

    async def good(_: Any) -> Any:
        task = asyncio.current_task()
        assert task
        # Called after the runner's own callback, so its result has been taken by then.
        task.add_done_callback(lambda _: switch.done.set())
        return {"log": ["good"]}

    async def bad(_: Any) -> Any:
        await switch.done.wait()
        if switch.broken:
            raise ValueError("broken")
        return {"log": ["bad"]}

    builder: Any = StateGraph(schema)
    builder.add_node("good", good)
    builder.add_node("bad", bad)
    builder.add_node("join", lambda _: {"log": ["join"]})
    for name in ("good", "bad"):
        builder.add_edge(START, name)
        builder.add_edge(name, "join")
    graph = compiled(builder, saver)
    graph.switch = switch
    return graph


def nested(saver: Saver, *, depth: int, keeps: bool = False, schema: Any = Log) -> Graph:
    def ask(_: Any) -> Any:
        return {"log": [f"got {interrupt('inside?')}"]}

    inner: Any = StateGraph(schema)
    inner.add_node("first", lambda _: {"log": ["first"]})
    inner.add_node("ask", ask)
    inner.add_node("last", lambda _: {"log": ["last"]})
    inner.add_edge(START, "first")
    inner.add_edge("first", "ask")
    inner.add_edge("ask", "last")
    graph: Any = inner.compile(checkpointer=True if keeps else None)
    for level in range(depth):
        outer: Any = StateGraph(schema)
        outer.add_node("before", lambda _, level=level: {"log": [f"before {level}"]})
        outer.add_node("inside", graph)
        outer.add_node("after", lambda _, level=level: {"log": [f"after {level}"]})
        outer.add_edge(START, "before")
        outer.add_edge("before", "inside")
        outer.add_edge("inside", "after")
        graph = outer.compile(checkpointer=saver if level == depth - 1 else None)
    return graph


def _append(state: list[Any], writes: Sequence[list[Any]]) -> list[Any]:
    return state + [item for write in writes for item in write]


class DeltaLog(TypedDict):
    log: Annotated[list[str], DeltaChannel(_append, snapshot_frequency=3)]


def delta(saver: Saver) -> Graph:
    def ask(state: DeltaLog) -> Any:
        return {"log": [f"got {interrupt('what?')}"]}

    builder: Any = StateGraph(DeltaLog)
    builder.add_node("before", lambda _: {"log": ["before"]})
    builder.add_node("ask", ask)
    builder.add_node("after", lambda _: {"log": ["after"]})
    builder.add_edge(START, "before")
    builder.add_edge("before", "ask")
    builder.add_edge("ask", "after")
    return compiled(builder, saver)


def fan_out(saver: Saver, schema: Any = Log) -> Graph:
    builder: Any = StateGraph(schema)
    builder.add_node("plan", lambda _: {"log": ["plan"]})
    builder.add_node("work", lambda state: {"log": [f"{state['n']} got {interrupt(state['n'])}"]})
    builder.add_edge(START, "plan")
    builder.add_conditional_edges("plan", lambda _: [Send("work", {"n": n}) for n in (1, 2)])
    return compiled(builder, saver)


async def begin(graph: Graph, thread_id: str) -> None:
    await graph.ainvoke({"log": ["hello"]}, at(thread_id))


async def begin_and_fail(graph: Graph, thread_id: str) -> None:
    with pytest.raises(ValueError, match="broken"):
        await begin(graph, thread_id)


async def answer_first(graph: Graph, thread_id: str) -> None:
    await begin(graph, thread_id)
    await graph.ainvoke(Command(resume="one"), at(thread_id))


async def answer_left(graph: Graph, thread_id: str) -> None:
    await begin(graph, thread_id)
    await answer(graph, thread_id, "left", "a")


async def answer(graph: Graph, thread_id: str, question: Any, value: str) -> Any:
    state = await graph.aget_state(at(thread_id))
    (found,) = [i.id for i in state.interrupts if i.value == question]
    return await graph.ainvoke(Command(resume={found: value}), at(thread_id))


async def stop_after_one(graph: Graph, thread_id: str) -> None:
    await graph.ainvoke({"log": ["hello"]}, at(thread_id), interrupt_after=["one"])


async def two_turns(graph: Graph, thread_id: str) -> None:
    await begin(graph, thread_id)
    await graph.ainvoke(Command(resume="early"), at(thread_id))
    await begin(graph, thread_id)


def resume(value: str) -> Callable[[Graph, str], Awaitable[Any]]:
    async def go(graph: Graph, thread_id: str) -> Any:
        return await graph.ainvoke(Command(resume=value), at(thread_id))

    return go


async def nothing(graph: Graph, thread_id: str) -> None:
    pass


async def go_on(graph: Graph, thread_id: str) -> Any:
    return await graph.ainvoke(None, at(thread_id))


async def mend_and_go_on(graph: Graph, thread_id: str) -> Any:
    graph.switch.broken = False
    return await graph.ainvoke(None, at(thread_id))


async def another_turn(graph: Graph, thread_id: str) -> Any:
    return await graph.ainvoke({"log": ["again"]}, at(thread_id))


async def resume_and_turn(graph: Graph, thread_id: str) -> None:
    await graph.ainvoke(Command(resume="no"), at(thread_id))
    await another_turn(graph, thread_id)


async def edit(graph: Graph, thread_id: str) -> None:
    await graph.aupdate_state(at(thread_id), {"log": ["edited"]}, as_node="ask")


async def answer_right(graph: Graph, thread_id: str) -> Any:
    return await answer(graph, thread_id, "right", "b")


def answers(values: dict[Any, str]) -> Callable[[Graph, str], Awaitable[Any]]:
    """All of them in one run."""

    async def go(graph: Graph, thread_id: str) -> Any:
        state = await graph.aget_state(at(thread_id))
        return await graph.ainvoke(
            Command(resume={i.id: values[i.value] for i in state.interrupts}), at(thread_id)
        )

    return go


INSIDE = ["hello", "before 0", "hello", "before 0", "first", "got yes", "last", "after 0"]
DEEP = [
    "hello", "before 1", "hello", "before 1", "before 0", "hello", "before 1", "before 0",
    "first", "got yes", "last", "after 0", "after 1",
]  # fmt: skip

CASES = {
    "a finished leaf": Case(
        three_steps, begin, nothing, another_turn,
        ["hello", "one", "two", "three", "again", "one", "two", "three"],
    ),
    "a finished turn that others followed": Case(
        three_steps, begin, another_turn, another_turn,
        ["hello", "one", "two", "three", "again", "one", "two", "three"],
    ),
    "an interrupted leaf": Case(
        one_question, begin, nothing, resume("yes"), ["hello", "before", "got yes", "after"]
    ),
    "interrupted and since answered": Case(
        one_question, begin, resume_and_turn, resume("yes"),
        ["hello", "before", "got yes", "after"],
    ),
    "interrupted and since edited": Case(
        one_question, begin, edit, resume("yes"), ["hello", "before", "got yes", "after"]
    ),
    "interrupted in a second turn": Case(
        one_question, two_turns, resume_and_turn, resume("yes"),
        ["hello", "before", "got early", "after", "hello", "before", "got yes", "after"],
    ),
    "a second question of one task": Case(
        two_questions, answer_first, resume("no"), resume("two"), ["hello", "one two", "after"]
    ),
    "two parallel questions": Case(
        parallel_questions, begin, nothing, answers({"left": "x", "right": "y"}),
        ["hello", "left got x", "right got y", "join"],
    ),
    "two parallel questions, one answered": Case(
        parallel_questions, answer_left, nothing, answer_right,
        ["hello", "left got a", "right got b", "join"],
    ),
    "two parallel questions, one answered, then the other": Case(
        parallel_questions, answer_left, answer_right, answer_right,
        ["hello", "left got a", "right got b", "join"],
    ),
    "two parallel sends": Case(
        fan_out, begin, answers({1: "p", 2: "q"}), answers({1: "x", 2: "y"}),
         ["hello", "plan", "1 got x", "2 got y"]
    ),
    "between supersteps": Case(
        three_steps, stop_after_one, go_on, go_on, ["hello", "one", "two", "three"]
    ),
    "a failed task beside a finished one": Case(
        one_fails, begin_and_fail, nothing, mend_and_go_on, ["hello", "bad", "good", "join"]
    ),
    "a failed task beside a finished one, since mended": Case(
        one_fails, begin_and_fail, mend_and_go_on, mend_and_go_on,
        ["hello", "bad", "good", "join"],
    ),
    "inside a subgraph": Case(
        lambda saver: nested(saver, depth=1), begin, resume_and_turn, resume("yes"), INSIDE
    ),
    "inside a subgraph, a leaf": Case(
        lambda saver: nested(saver, depth=1), begin, nothing, resume("yes"), INSIDE
    ),
    "inside a subgraph of a subgraph": Case(
        lambda saver: nested(saver, depth=2), begin, resume_and_turn, resume("yes"), DEEP
    ),
    "inside a stateful subgraph": Case(
        lambda saver: nested(saver, depth=1, keeps=True), begin, resume_and_turn, resume("yes"),
        INSIDE,
    ),
    "a DeltaChannel, interrupted": Case(
        delta, begin, resume_and_turn, resume("yes"), ["hello", "before", "got yes", "after"]
    ),
    "a DeltaChannel, a second turn": Case(
        delta, two_turns, resume_and_turn, resume("yes"),
        ["hello", "before", "got early", "after", "hello", "before", "got yes", "after"],
    ),
    "a DeltaChannel, a second question of one task": Case(
        lambda saver: two_questions(saver, DeltaLog), answer_first, resume("no"), resume("two"),
        ["hello", "one two", "after"],
    ),
    "a DeltaChannel, two parallel questions, one answered": Case(
        lambda saver: parallel_questions(saver, DeltaLog), answer_left, nothing, answer_right,
        ["hello", "left got a", "right got b", "join"],
    ),
    "a DeltaChannel, two parallel questions, one answered, then the other": Case(
        lambda saver: parallel_questions(saver, DeltaLog), answer_left, answer_right, answer_right,
        ["hello", "left got a", "right got b", "join"],
    ),
    "a DeltaChannel, two parallel sends": Case(
        lambda saver: fan_out(saver, DeltaLog), begin, answers({1: "p", 2: "q"}),
        answers({1: "x", 2: "y"}), ["hello", "plan", "1 got x", "2 got y"],
    ),
    "a DeltaChannel, between supersteps": Case(
        lambda saver: three_steps(saver, DeltaLog), stop_after_one, go_on, go_on,
        ["hello", "one", "two", "three"],
    ),
    "a DeltaChannel, a failed task beside a finished one, since mended": Case(
        lambda saver: one_fails(saver, DeltaLog), begin_and_fail, mend_and_go_on, mend_and_go_on,
        ["hello", "bad", "good", "join"],
    ),
    "a DeltaChannel, inside a subgraph": Case(
        lambda saver: nested(saver, depth=1, schema=DeltaLog), begin, resume_and_turn,
        resume("yes"), INSIDE,
    ),
    "a DeltaChannel, inside a subgraph of a subgraph": Case(
        lambda saver: nested(saver, depth=2, schema=DeltaLog), begin, resume_and_turn,
        resume("yes"), DEEP,
    ),
    "a DeltaChannel, inside a stateful subgraph": Case(
        lambda saver: nested(saver, depth=1, keeps=True, schema=DeltaLog), begin, resume_and_turn,
        resume("yes"), INSIDE,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
async def test_a_fork_is_the_session_as_it_was_then(name: str, saver: Saver) -> None:
    case = CASES[name]
    graph = case.build(saver)
    await case.reach(graph, "source")
    then = await look(graph, "source")
    path = await history(graph, "source")
    checkpoint_id = await head_of(graph, "source")
    await case.pass_by(graph, "source")
    later = await look(graph, "source")
    source_path = await history(graph, "source")

    await fork(saver, "source", "forked", checkpoint_id=checkpoint_id)

    assert await look(graph, "forked") == then
    assert await history(graph, "forked") == path
    assert await look(graph, "source") == later
    result = await case.go_on(graph, "forked")
    assert result["log"] == case.gives
    assert await look(graph, "source") == later
    assert await history(graph, "source") == source_path
    assert (await history(graph, "forked"))[-len(path) :] == path


@pytest.mark.parametrize("name", CASES)
async def test_a_restore_is_the_session_as_it_was_then(name: str, saver: Saver) -> None:
    case = CASES[name]
    graph = case.build(saver)
    await case.reach(graph, "source")
    then = await look(graph, "source")
    path = await history(graph, "source")
    checkpoint_id = await head_of(graph, "source")
    await case.pass_by(graph, "source")
    later = await look(graph, "source")
    source_path = await history(graph, "source")

    await restore(saver, "source", checkpoint_id)

    assert await look(graph, "source") == then
    assert await history(graph, "source") == path
    result = await case.go_on(graph, "source")
    assert result["log"] == case.gives
    await undo(saver, "source")
    assert await look(graph, "source") == later
    assert await history(graph, "source") == source_path


@pytest.mark.parametrize("name", CASES)
async def test_a_fork_of_a_fork_of_a_fork_is_no_different(name: str, saver: Saver) -> None:
    case = CASES[name]
    graph = case.build(saver)
    await case.reach(graph, "source")
    then = await look(graph, "source")
    checkpoint_id = await head_of(graph, "source")
    await fork(saver, "source", "first", checkpoint_id=checkpoint_id)
    await case.go_on(graph, "first")
    await case.pass_by(graph, "source")
    await fork(saver, "first", "second", checkpoint_id=checkpoint_id)
    await case.go_on(graph, "second")
    await fork(saver, "second", "third", checkpoint_id=checkpoint_id)
    assert await look(graph, "third") == then
    result = await case.go_on(graph, "third")
    assert result["log"] == case.gives


@pytest.mark.parametrize("name", CASES)
async def test_a_fork_outlives_the_session_it_was_made_from(
    name: str, saver: Saver, db: Database
) -> None:
    case = CASES[name]
    graph = case.build(saver)
    await case.reach(graph, "source")
    then = await look(graph, "source")
    path = await history(graph, "source")
    states = [_plain(s) async for s in graph.aget_state_history(at("source"))]
    checkpoint_id = await head_of(graph, "source")
    await case.pass_by(graph, "source")
    await fork(saver, "source", "forked", checkpoint_id=checkpoint_id)
    assert await purge(saver, "source")
    assert await look(graph, "forked") == then
    assert await history(graph, "forked") == path
    found = [_plain(s) async for s in graph.aget_state_history(at("forked"))]
    assert found[1:] == states[1:]
    result = await case.go_on(graph, "forked")
    assert result["log"] == case.gives
    assert await purge(saver, "forked")
    assert await counts(db) == dict.fromkeys(TABLES, 0)


# -- what a session sees of its past


async def test_a_fork_sees_its_path_and_nothing_beside_it(saver: Saver) -> None:
    graph = three_steps(saver)
    await begin(graph, "source")
    first = await history(graph, "source")
    await another_turn(graph, "source")
    await graph.ainvoke({"log": ["aside"]}, at("source", first[0]))
    beside = await history(graph, "source")
    await another_turn(graph, "source")
    main_line = (await history(graph, "source"))[:5]
    await fork(saver, "source", "forked", checkpoint_id=main_line[0])
    await another_turn(graph, "source")
    seen = await history(graph, "forked")
    aside = beside[:5]
    assert seen == [*main_line, *aside, *first]
    assert [len(await history(graph, "forked", limit=n)) for n in (1, 3, 7)] == [1, 3, 7]
    for i, checkpoint_id in enumerate(seen):
        before = at("forked", checkpoint_id)
        assert await history(graph, "forked", before=before) == seen[i + 1 :]
        state = await graph.aget_state(at("forked", checkpoint_id))
        assert state.config["configurable"]["checkpoint_id"] == checkpoint_id
    hidden = set(await history(graph, "source")) - set(seen)
    assert hidden
    for checkpoint_id in hidden:
        assert await saver.aget_tuple(at("forked", checkpoint_id)) is None
        with pytest.raises(UnknownCheckpoint):
            await fork(saver, "forked", "other", checkpoint_id=checkpoint_id)


async def test_a_copy_sees_every_branch_there_was(saver: Saver) -> None:
    graph = three_steps(saver)
    await begin(graph, "source")
    first = await history(graph, "source")
    await graph.ainvoke({"log": ["aside"]}, at("source", first[2]))
    await another_turn(graph, "source")
    everything = await history(graph, "source")
    await saver.acopy_thread("source", "copy")
    assert await history(graph, "copy") == everything
    await another_turn(graph, "source")
    assert await history(graph, "copy") == everything
    states = [_plain(s) async for s in graph.aget_state_history(at("source"))][-len(everything) :]
    assert [_plain(s) async for s in graph.aget_state_history(at("copy"))] == states
    await purge(saver, "source")
    assert [_plain(s) async for s in graph.aget_state_history(at("copy"))] == states


async def test_a_copy_of_a_fork_has_the_whole_past_of_a_stateful_subgraph(saver: Saver) -> None:
    """The fork has it from its parent, along its own way back."""
    graph = nested(saver, depth=1, keeps=True)

    async def turn(thread_id: str) -> None:
        await another_turn(graph, thread_id)
        await graph.ainvoke(Command(resume="yes"), at(thread_id))

    async def calls(thread_id: str) -> list[str]:
        ns = {"thread_id": thread_id, "checkpoint_ns": "inside"}
        config: RunnableConfig = {"configurable": ns}
        found = [found.checkpoint["id"] async for found in saver.alist(config)]
        assert found
        return found

    await turn("source")
    await fork(saver, "source", "fresh")
    await saver.acopy_thread("fresh", "copy of fresh")
    assert await calls("copy of fresh") == await calls("source")
    await turn("fresh")
    assert (await calls("fresh"))[-len(await calls("source")) :] == await calls("source")
    await saver.acopy_thread("fresh", "copy")
    assert await calls("copy") == await calls("fresh")
    await fork(saver, "copy", "fork of copy")
    assert await calls("fork of copy") == await calls("fresh")


async def test_a_branch_from_an_ancestors_checkpoint_is_forked_with_its_own_past(
    saver: Saver,
) -> None:
    """Its way back leaves the lineage beside the checkpoint that the lineage began at."""
    graph = delta(saver)
    await two_turns(graph, "source")
    await graph.ainvoke(Command(resume="late"), at("source"))
    old = await history(graph, "source")
    for scope, name in (("all", "copy"), ("path", "forked")):
        await fork(saver, "source", name, scope=scope)
        await graph.ainvoke({"log": ["aside"]}, at(name, old[4]))
        then = await look(graph, name)
        await fork(saver, name, f"{name} of {name}")
        await another_turn(graph, name)
        again = f"{name} of {name}"
        assert await look(graph, again) == then
        path = await history(graph, again)
        assert path[-len(old[4:]) :] == old[4:]
        seen = [_plain(s) async for s in graph.aget_state_history(at(again))]
        for checkpoint_id, state in zip(path, seen, strict=True):
            one = await graph.aget_state(at(again, checkpoint_id))
            assert _plain(one) == state
        for checkpoint_id in old[:4]:
            assert await saver.aget_tuple(at(again, checkpoint_id)) is None
        await purge(saver, name)
        assert [_plain(s) async for s in graph.aget_state_history(at(again))] == seen


async def test_a_copy_of_a_restored_session_sees_what_it_saw(saver: Saver) -> None:
    """Its head goes back past the checkpoint that was restored, beside it."""
    graph = three_steps(saver)
    await begin(graph, "source")
    old = await history(graph, "source")
    await another_turn(graph, "source")
    await restore(saver, "source", (await history(graph, "source"))[2])
    await graph.ainvoke({"log": ["aside"]}, at("source", old[3]))
    seen = [_plain(s) async for s in graph.aget_state_history(at("source"))]
    path = await history(graph, "source")
    await saver.acopy_thread("source", "copy")
    assert [_plain(s) async for s in graph.aget_state_history(at("copy"))] == seen
    for checkpoint_id, state in zip(path, seen, strict=True):
        assert _plain(await graph.aget_state(at("copy", checkpoint_id))) == state
    await purge(saver, "source")
    for checkpoint_id, state in zip(path, seen, strict=True):
        assert _plain(await graph.aget_state(at("copy", checkpoint_id))) == state


async def test_a_path_through_many_lineages_is_whole(saver: Saver) -> None:
    graph = three_steps(saver)
    await begin(graph, "s0")
    told = await history(graph, "s0")
    for i in range(20):
        await fork(saver, f"s{i}", f"s{i + 1}")
        await another_turn(graph, f"s{i + 1}")
        now = await history(graph, f"s{i + 1}")
        assert now[-len(told) :] == told
        assert len(now) == len(told) + 5
        told = now
    for i in range(20):
        assert await purge(saver, f"s{i}")
    assert await history(graph, "s20") == told
    state = await graph.aget_state(at("s20", told[-1]))
    assert state.metadata["source"] == "input"


async def test_a_hundred_restores_do_not_build_a_chain(saver: Saver, db: Database) -> None:
    graph = one_question(saver)
    await begin(graph, "source")
    then = await look(graph, "source")
    checkpoint_id = await head_of(graph, "source")
    for _ in range(100):
        await restore(saver, "source", checkpoint_id)
    assert await look(graph, "source") == then
    row = await db.one(
        SERVICE,
        "with recursive up as (select lineage_id, 0 as depth from clew.head union all"
        " select l.parent_id, depth + 1 from up join clew.lineage l using (lineage_id)"
        " where l.parent_id is not null) select max(depth) as depth from up",
    )
    assert row == {"depth": 1}
    for _ in range(100):
        await undo(saver, "source")
    assert await look(graph, "source") == then
    with pytest.raises(NothingToUndo):
        await undo(saver, "source")


async def test_an_abandoned_line_can_be_gone_back_to(saver: Saver) -> None:
    graph = three_steps(saver)
    await begin(graph, "source")
    first = await history(graph, "source")
    await another_turn(graph, "source")
    lost = await look(graph, "source")
    lost_id = await head_of(graph, "source")
    async with moving(saver) as conn:
        before = await lineage.head(conn, "source")
    await restore(saver, "source", first[0])
    await another_turn(graph, "source")
    with pytest.raises(UnknownCheckpoint):
        await restore(saver, "source", lost_id)
    await restore(saver, "source", lost_id, lineage_id=before.lineage_id)
    assert await look(graph, "source") == lost


async def test_a_subgraph_of_a_path_checkpoint_is_still_there(saver: Saver) -> None:
    graph = nested(saver, depth=1)
    await two_turns(graph, "source")
    past = [s async for s in graph.aget_state_history(at("source"))]
    asked = [s.config["configurable"]["checkpoint_id"] for s in past if s.next == ("inside",)]
    then = [_plain(await graph.aget_state(at("source", one), subgraphs=True)) for one in asked[1:]]
    await fork(saver, "source", "forked")
    await purge(saver, "source")
    assert [
        _plain(await graph.aget_state(at("forked", one), subgraphs=True)) for one in asked[1:]
    ] == then


async def test_a_replay_in_a_fork_is_a_branch_of_the_fork(saver: Saver) -> None:
    graph = nested(saver, depth=1, keeps=True)
    await two_turns(graph, "source")
    await graph.ainvoke(Command(resume="late"), at("source"))
    before = await history(graph, "source")
    await fork(saver, "source", "forked")
    asked = [
        s.config
        async for s in graph.aget_state_history(at("forked"))
        if s.next == ("inside",) and s.values["log"].count("hello") == 1
    ]
    result = await graph.ainvoke(None, asked[0])
    assert result["__interrupt__"][0].value == "inside?"
    result = await graph.ainvoke(Command(resume="anew"), at("forked"))
    assert result["log"].count("got anew") == 1
    assert await history(graph, "source") == before


# -- refusals


async def test_a_fork_of_what_is_not_there_is_refused(saver: Saver) -> None:
    graph = three_steps(saver)
    with pytest.raises(UnknownThread):
        await fork(saver, "nowhere", "forked")
    await begin(graph, "source")
    with pytest.raises(UnknownCheckpoint):
        await fork(saver, "source", "forked", checkpoint_id="0" * 8 + "-0000-0000-0000-" + "0" * 12)
    with pytest.raises(UnknownCheckpoint):
        await fork(saver, "source", "forked", lineage_id=999)
    await fork(saver, "source", "forked")
    with pytest.raises(ThreadExists):
        await fork(saver, "source", "forked")
    async with moving(saver) as conn:
        await lineage.create(conn, "empty", saver.principal.owner_from)
    with pytest.raises(UnknownCheckpoint):
        await fork(saver, "empty", "other")


async def test_a_lineage_that_is_missing_is_named_and_not_taken_for_an_empty_one(
    saver: Saver, db: Database
) -> None:
    graph = three_steps(saver)
    await begin(graph, "t")
    past = await history(graph, "t")
    made = await fork(saver, "t", "forked", checkpoint_id=past[0])
    await begin(graph, "forked")

    async def lose(lineage_id: int) -> None:
        lost = "delete from clew.lineage where lineage_id = %s"
        assert await db.execute(SERVICE, lost, [lineage_id]) == 1

    source = await head_lineage(saver, "t")
    await lose(source)
    with pytest.raises(CyclicLineage, match=str(source)):
        await history(graph, "forked")
    with pytest.raises(CyclicLineage, match=str(source)):
        await restore(saver, "forked", past[2])
    with pytest.raises(CyclicLineage, match="missing"):
        await fork(saver, "t", "another")
    await lose(made.lineage_id)
    with pytest.raises(CyclicLineage, match="missing"):
        await restore(saver, "forked", past[0])


async def test_parents_that_form_a_circle_end(saver: Saver, db: Database) -> None:
    graph = three_steps(saver)
    await begin(graph, "t")
    past = await history(graph, "t")
    turn = "update clew.checkpoint set parent_id = %s where checkpoint_id = %s"
    assert await db.execute(SERVICE, turn, [UUID(past[0]), UUID(past[-1])]) == 1
    assert await history(graph, "t") == past
    await fork(saver, "t", "forked", checkpoint_id=past[1])
    assert await history(graph, "forked") == past[1:]
    itself: LiteralString = (
        "update clew.lineage set parent_id = lineage_id where parent_id is not null"
    )
    with pytest.raises(CheckViolation):  # a lineage is always younger than its parent
        await db.execute(SERVICE, itself)


async def head_lineage(saver: Saver, thread_id: str) -> int:
    async with moving(saver) as conn:
        return (await lineage.head(conn, thread_id)).lineage_id


async def test_another_owner_neither_sees_nor_forks_nor_takes_an_id(
    saver: Saver, db: Database
) -> None:
    graph = three_steps(saver)
    await begin(graph, "source")
    checkpoint_id = await head_of(graph, "source")
    stranger = Saver(db, principal=Principal.owner(await db.owner("test", "two")))
    assert await stranger.aget_tuple(at("source")) is None
    assert await stranger.aget_tuple(at("source", checkpoint_id)) is None
    assert [t async for t in stranger.alist(at("source"))] == []
    assert [t async for t in stranger.alist(None)] == []
    with pytest.raises(UnknownThread):
        await fork(stranger, "source", "mine")
    with pytest.raises(UnknownThread):
        await begin(three_steps(stranger), "source")
    async with moving(stranger) as conn:
        with pytest.raises(ThreadExists):
            await lineage.create(conn, "source", stranger.principal.owner_from)
    assert not await purge(stranger, "source")
    assert (await graph.aget_state(at("source"))).values["log"][-1] == "three"


async def test_each_move_of_a_head_bumps_its_epoch(saver: Saver) -> None:
    graph = three_steps(saver)
    await begin(graph, "source")
    first = await history(graph, "source")
    async with moving(saver) as conn:
        claimed = await lineage.claim(conn, "source")
        assert claimed.epoch == 1
        assert (await lineage.claim(conn, "source", epoch=1)).epoch == 2
        with pytest.raises(FenceLost):
            await lineage.claim(conn, "source", epoch=1)
        with pytest.raises(FenceLost):
            await lineage.restore(conn, "source", first[0], epoch=1)
        with pytest.raises(FenceLost):
            await lineage.purge(conn, "source", epoch=1)
        with pytest.raises(UnknownThread):
            await lineage.claim(conn, "nowhere")
        assert (await lineage.restore(conn, "source", first[0], epoch=2)).epoch == 3
        assert (await lineage.undo(conn, "source", epoch=3)).epoch == 4
