"""`RemoteGraph`: a graph that runs on Clew, used like one that runs here."""

import operator
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any, TypedDict

import pytest
import pytest_asyncio
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.pregel.remote import RemoteException, RemoteGraph
from langgraph.types import Command
from langgraph_sdk import get_client, get_sync_client

from tests.sdk.graphs import nested
from tests.sdk.official import public

Json = dict[str, Any]
IN: Json = {"x": ["in"]}
DONE: Json = {"x": ["in", "one", "two"], "n": 1}

# What a remote graph can do, and the test that shows it.
METHODS = {
    "invoke": "test_a_remote_graph_is_invoked",
    "ainvoke": "test_a_remote_graph_is_invoked",
    "stream": "test_a_remote_graph_streams_in_every_mode",
    "astream": "test_a_remote_graph_streams_in_every_mode",
    "get_graph": "test_the_remote_graph_is_drawn",
    "aget_graph": "test_the_remote_graph_is_drawn",
    "get_state": "test_state_and_history_are_read_and_the_state_is_changed",
    "aget_state": "test_state_and_history_are_read_and_the_state_is_changed",
    "get_state_history": "test_state_and_history_are_read_and_the_state_is_changed",
    "aget_state_history": "test_state_and_history_are_read_and_the_state_is_changed",
    "update_state": "test_state_and_history_are_read_and_the_state_is_changed",
    "aupdate_state": "test_state_and_history_are_read_and_the_state_is_changed",
    "with_config": "test_a_config_that_was_bound_counts",
    "copy": "test_a_config_that_was_bound_counts",
    "stream_events": "test_a_remote_graph_streams_in_the_newer_protocol",
    "astream_events": "test_a_remote_graph_streams_in_the_newer_protocol",
}
# Not made to be called: the class refuses them whatever the server says.
REFUSED = {"bulk_update_state", "abulk_update_state"}


def test_every_method_of_a_remote_graph_is_shown() -> None:
    own = {name for name in public(RemoteGraph) if callable(RemoteGraph.__dict__.get(name))}
    assert own - METHODS.keys() - REFUSED == set()
    assert set(METHODS.values()) <= globals().keys()


class Remote:
    """Remote graphs on the server, each with clients of its own that are closed at the end."""

    def __init__(self, url: str) -> None:
        self._async, self._sync = get_client(url=url), get_sync_client(url=url)

    def graph(self, name: str) -> Any:
        return RemoteGraph(name, client=self._async, sync_client=self._sync)

    async def aclose(self) -> None:
        await self._async.aclose()
        self._sync.close()


@pytest_asyncio.fixture
async def remote(url: str) -> AsyncIterator[Remote]:
    found = Remote(url)
    yield found
    await found.aclose()


def thread() -> RunnableConfig:
    return {"configurable": {"thread_id": str(uuid.uuid4())}}


async def test_a_remote_graph_is_invoked(remote: Remote) -> None:
    graph = remote.graph("steps")
    assert graph.invoke(IN) == await graph.ainvoke(IN) == DONE
    at = thread()
    assert graph.invoke(IN, at) == DONE
    assert (await graph.ainvoke({"x": ["more"]}, at))["x"] == [
        "in",
        "one",
        "two",
        "more",
        "one",
        "two",
    ]
    stopped = await graph.ainvoke(IN, thread(), interrupt_before=["two"])
    assert stopped["x"] == ["in", "one"]
    assert (await remote.graph("context").ainvoke(IN, context={"tone": "warm"}))["x"] == [
        "in",
        "warm",
    ]


@pytest.mark.parametrize(
    "mode",
    [
        "values",
        "updates",
        "messages",
        "custom",
        "tasks",
        "checkpoints",
        "debug",
        ["values", "custom"],
    ],
)
async def test_a_remote_graph_streams_in_every_mode(remote: Remote, mode: Any) -> None:
    name = "tokens" if mode == "messages" else "steps"
    given = {"messages": [{"role": "user", "content": "hi"}]} if name == "tokens" else IN
    graph = remote.graph(name)
    parts: list[Any] = list(graph.stream(given, thread(), stream_mode=mode))
    also: list[Any] = [part async for part in graph.astream(given, thread(), stream_mode=mode)]
    assert len(parts) == len(also)
    match mode:
        case "values":
            assert parts == also == [IN, {"x": ["in", "one"]}, DONE]
        case "updates":
            assert parts == also == [{"one": {"x": ["one"]}}, {"two": {"x": ["two"], "n": 1}}]
        case "messages":
            assert "".join(chunk["content"] for chunk, _ in parts) == "It is sunny today in 北京"
            assert {metadata["langgraph_node"] for _, metadata in parts} == {"model"}
        case "custom":
            assert parts == also == [{"hello": "from one"}]
        case "tasks":
            assert [part["name"] for part in parts] == ["one", "one", "two", "two"]
        case "checkpoints":
            assert [part["metadata"]["step"] for part in parts] == [-1, 0, 1, 2]
        case "debug":
            assert {part["type"] for part in parts} == {"checkpoint", "task", "task_result"}
        case _:
            assert [part.event for part in parts] == ["values", "custom", "values", "values"]


async def test_subgraphs_stream_with_their_namespaces(remote: Remote) -> None:
    graph = remote.graph("nested")
    parts = [
        part async for part in graph.astream(IN, thread(), stream_mode="updates", subgraphs=True)
    ]
    assert [(len(ns), update) for ns, update in parts] == [
        (0, {"outer": {"x": ["outer"]}}),
        (1, {"inner": {"x": ["inner"]}}),
        (0, {"child": {"x": ["in", "outer", "inner"]}}),
    ]
    assert parts[1][0][0].startswith("child:")
    both = list(graph.stream(IN, thread(), stream_mode=["updates", "custom"], subgraphs=True))
    told = [payload for _, mode, payload in both if mode == "custom"]
    assert told == [{"name": "progress", "done": 1}]


async def test_a_failure_is_raised_here(remote: Remote) -> None:
    with pytest.raises(RemoteException, match="boom"):
        await remote.graph("fails").ainvoke(IN, thread())
    with pytest.raises(RemoteException, match="boom"):
        remote.graph("fails").invoke(IN)


async def test_a_question_is_seen_and_answered(remote: Remote) -> None:
    graph, at = remote.graph("ask"), thread()
    asked = await graph.ainvoke(IN, at)
    [question] = asked["__interrupt__"]
    assert question["value"] == {"question": "approve?"}
    state = await graph.aget_state(at)
    assert state.next == ("ask",)
    assert state.tasks[0].interrupts[0].value == {"question": "approve?"}
    answered = await graph.ainvoke(Command(resume="yes"), at)
    assert answered == {"x": ["in", "two"], "n": 1, "answer": "yes"}
    moved = graph.invoke(Command(goto="after", update={"answer": "said"}), at)
    assert moved["answer"] == "said"


async def test_state_and_history_are_read_and_the_state_is_changed(remote: Remote) -> None:
    graph, at = remote.graph("steps"), thread()
    graph.invoke(IN, at)
    state = graph.get_state(at)
    assert (state.values, state.next) == (DONE, ())
    assert state == await graph.aget_state(at)
    history = list(graph.get_state_history(at))
    assert [snapshot.metadata["step"] for snapshot in history] == [2, 1, 0, -1]
    older = [snapshot async for snapshot in graph.aget_state_history(at, before=history[1].config)]
    assert older == history[2:]
    [first] = list(graph.get_state_history(at, filter={"step": 0}, limit=1))
    assert first.next == ("one",)
    changed = graph.update_state(at, {"x": ["edited"]}, as_node="two")
    assert graph.get_state(at).values["x"][-1] == "edited"
    assert graph.get_state(changed) == graph.get_state(at)
    forked = await graph.aupdate_state(history[1].config, {"x": ["forked"]}, as_node="one")
    assert graph.get_state(forked).values["x"] == ["in", "one", "forked"]
    # Older checkpoints can be gone back to: with no input from there, with input as a branch.
    place = history[1].config["configurable"]["checkpoint_id"]
    again = await graph.ainvoke(None, at, checkpoint_id=place)
    assert again["x"] == ["in", "one", "two"]
    branch = graph.invoke({"x": ["branch"]}, at, checkpoint_id=place)
    assert branch["x"] == ["in", "one", "branch", "one", "two"]


async def test_the_state_of_a_subgraph_is_read_within(remote: Remote) -> None:
    graph, at = remote.graph("parent"), thread()
    await graph.ainvoke(IN, at)
    state = await graph.aget_state(at, subgraphs=True)
    inner = state.tasks[0].state
    assert inner is not None
    assert inner.next == ("question",)
    assert inner.values["x"] == ["in", "one"]
    answered = await graph.ainvoke(Command(resume="yes"), at)
    assert answered["answer"] == "yes"


async def test_the_remote_graph_is_drawn(remote: Remote) -> None:
    drawn = remote.graph("parent").get_graph()
    assert set(drawn.nodes) == {"__start__", "child", "after", "__end__"}
    inside = await remote.graph("parent").aget_graph(xray=True)
    assert "child:inner" in inside.nodes
    assert "child" in drawn.draw_mermaid()


async def test_a_config_that_was_bound_counts(remote: Remote) -> None:
    at = thread()
    graph = remote.graph("steps").with_config(at)
    await graph.ainvoke(IN)
    assert (await graph.aget_state(at)).values == DONE
    copied = graph.copy({})
    assert copied.invoke(None)["x"] == ["in", "one", "two"]


async def test_a_remote_graph_streams_in_the_newer_protocol(remote: Remote) -> None:
    graph = remote.graph("tokens")
    given = {"messages": [{"role": "user", "content": "hi"}]}
    stream = await graph.astream_events(given, thread(), version="v3")
    async with stream:
        messages = [message async for message in stream.messages]
        assert [await message.text for message in messages] == ["It is sunny today in 北京"]
        output = await stream.output()
    assert output["messages"][-1]["content"] is not None
    with graph.stream_events(given, thread(), version="v3") as sync:
        assert [str(message.text) for message in sync.messages] == ["It is sunny today in 北京"]


class Outer(TypedDict, total=False):
    x: Annotated[list[str], operator.add]
    n: int
    answer: Any


def _here(state: Outer) -> Outer:
    return {"x": ["here"]}


def _outer(inner: Any) -> Any:
    return (
        StateGraph(Outer)
        .add_node("before", _here)
        .add_node("there", inner)
        .add_edge(START, "before")
        .add_edge("before", "there")
        .compile(checkpointer=InMemorySaver())
    )


async def test_a_remote_graph_is_a_node_of_a_graph_here(remote: Remote) -> None:
    at = thread()
    graph, alike = _outer(remote.graph("nested")), _outer(nested)

    async def told(graph: Any) -> list[tuple[tuple[str, ...], Any]]:
        stream = graph.astream({}, at, stream_mode="updates", subgraphs=True)
        return [
            (tuple(part.partition(":")[0] for part in ns), payload) async for ns, payload in stream
        ]

    # Its subgraph too is told as if it ran here.
    assert await told(graph) == await told(alike)
    assert graph.get_state(at).values == alike.get_state(at).values


async def test_a_question_of_a_remote_node_stops_the_graph_here(remote: Remote) -> None:
    graph: Any = (
        StateGraph(Outer)
        .add_node("there", remote.graph("ask"))
        .add_edge(START, "there")
        .compile(checkpointer=InMemorySaver())
    )
    at = thread()
    asked = await graph.ainvoke(IN, at)
    assert asked["__interrupt__"][0].value == {"question": "approve?"}
    assert (await graph.aget_state(at)).next == ("there",)
