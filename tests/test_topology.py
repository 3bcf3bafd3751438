"""What graphs tell of themselves, in the shapes that clients of the official server read."""

import json
import typing
from dataclasses import dataclass
from typing import Annotated, Any

from langchain_core.tools import tool
from langgraph.func import entrypoint
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import CachePolicy
from pydantic import BaseModel

from clew.runtime import topology


class State(typing.TypedDict):
    """Of `typing`, as users write it: pydantic takes no such type before Python 3.12."""

    word: str
    often: typing.NotRequired[int]


class Opaque: ...


class Full(MessagesState):
    count: int
    thing: Opaque


@dataclass
class Context:
    tone: str = "kind"


@tool
def get_weather(city: str) -> str:
    """Tell the weather."""
    return city


def say(state: State) -> dict[str, str]:
    return {"word": state["word"]}


def family() -> topology.AnyGraph:
    """A graph with tools, a context, and a graph in a graph in it."""
    inner = StateGraph(State)
    inner.add_node("say", say)
    inner.add_edge(START, "say")
    middle = StateGraph(State)
    middle.add_node("inner", inner.compile())
    middle.add_edge(START, "inner")
    outer = StateGraph(Full, context_schema=Context, input_schema=State)
    outer.add_node("child", middle.compile())
    outer.add_node("tools", ToolNode([get_weather]))
    outer.add_edge(START, "child")
    outer.add_conditional_edges("child", lambda _: "tools", ["tools"])
    return outer.compile()


def test_schemas_of_a_graph() -> None:
    found = topology.schemas(family())
    json.dumps(found)
    kinds = ("input", "output", "state", "config", "context")
    assert list(found) == [f"{kind}_schema" for kind in kinds]
    given, state, context = (found[f"{kind}_schema"] for kind in ("input", "state", "context"))
    assert given is not None
    assert set(given["properties"]) == {"word", "often"}
    assert given["required"] == ["word"]
    assert state is not None
    assert set(state["properties"]) == {"messages", "count", "thing", "word", "often"}
    assert state["properties"]["count"]["type"] == "integer"
    assert "type" not in state["properties"]["thing"]
    assert "AIMessage" in state["$defs"]
    assert context is not None
    assert context["properties"]["tone"]["default"] == "kind"
    assert found["config_schema"] == context


def test_a_graph_without_context_has_no_schema_of_it() -> None:
    graph = StateGraph(MessagesState)
    graph.add_node("say", lambda state: {})
    graph.add_edge(START, "say")
    found = topology.schemas(graph.compile())
    assert (found["config_schema"], found["context_schema"]) == ({}, None)


def test_an_entrypoint_tells_its_types() -> None:
    @entrypoint()
    async def work(given: int) -> str:
        return str(given)

    found = topology.schemas(work)
    assert found["input_schema"] == {"title": "LangGraphInput", "type": "integer"}
    assert found["output_schema"] == {"title": "LangGraphOutput", "type": "string"}


async def test_a_drawing_of_a_graph() -> None:
    plain = await topology.draw(family())
    nodes = {node["id"]: node for node in plain["nodes"]}
    start = {"id": "__start__", "type": "runnable", "data": {"name": "__start__"}}
    assert nodes["__start__"] == start
    assert nodes["__end__"] == {"id": "__end__"}
    assert nodes["tools"]["metadata"] == {"__tools": ["get_weather"]}
    assert {"source": "child", "target": "tools", "conditional": True} in plain["edges"]


async def test_a_drawing_looks_as_deep_as_it_is_asked_to() -> None:
    async def names(xray: bool | int) -> set[str]:
        return {node["id"] for node in (await topology.draw(family(), xray))["nodes"]}

    assert "child" in await names(xray=False)
    assert "child:inner" in await names(1)
    assert "child:inner:say" in await names(xray=True)


async def test_drawing_asks_no_cache_key_of_an_empty_state() -> None:
    def key(state: Any) -> str:
        return state["word"]

    inner = StateGraph(State)
    inner.add_node("say", say, cache_policy=CachePolicy(key_func=key))
    inner.add_edge(START, "say")
    outer = StateGraph(State)
    outer.add_node("child", inner.compile())
    outer.add_edge(START, "child")
    graph = outer.compile()
    assert len((await topology.draw(graph, xray=True))["nodes"]) == 3
    policy = dict(graph.get_subgraphs())["child"].nodes["say"].cache_policy  # pyright: ignore[reportAttributeAccessIssue]
    assert policy.key_func is key


async def test_a_state_of_pydantic_is_drawn_and_told() -> None:
    class Strict(BaseModel):
        word: Annotated[str, "needed"]

    builder = StateGraph(Strict)
    builder.add_node("say", lambda state: {})
    builder.add_edge(START, "say")
    graph = builder.compile()
    assert len((await topology.draw(graph))["nodes"]) == 3
    found = topology.schemas(graph)["input_schema"]
    assert found is not None
    assert found["required"] == ["word"]


def test_subgraphs_by_namespace() -> None:
    graph = family()
    assert list(topology.subgraphs(graph)) == ["child"]
    assert list(topology.subgraphs(graph, recurse=True)) == ["child", "child|inner"]
    found = topology.subgraphs(graph, "child|inner", recurse=True)
    assert list(found) == ["child|inner"]
    given = found["child|inner"]["input_schema"]
    assert given is not None
    assert set(given["properties"]) == {"word", "often"}
    assert topology.subgraphs(graph, "nobody") == {}
