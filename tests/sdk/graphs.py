"""Graphs for what the clients can ask and the small ones of `tests/project` do not show."""

import operator
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.config import get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.runtime import Runtime
from langgraph.types import interrupt


class Trail(TypedDict, total=False):
    x: Annotated[list[str], operator.add]


@tool
def weather(city: str) -> str:
    """How the weather is in a city."""
    return f"sunny in {city}"


def _model(state: MessagesState) -> dict[str, Any]:
    if isinstance(state["messages"][-1], ToolMessage):
        return {"messages": [AIMessage("It is sunny.")]}
    calls: Any = [
        {"name": "weather", "args": {"city": "北京"}, "id": "call_1", "type": "tool_call"}
    ]
    return {"messages": [AIMessage("", tool_calls=calls)]}


def _more(state: MessagesState) -> str:
    last = state["messages"][-1]
    return "tools" if isinstance(last, AIMessage) and last.tool_calls else "__end__"


tools = (
    StateGraph(MessagesState)
    .add_node("model", _model)
    .add_node("tools", ToolNode([weather]))
    .add_edge(START, "model")
    .add_conditional_edges("model", _more, ["tools", "__end__"])
    .add_edge("tools", "model")
    .compile()
)


def _inner(state: Trail) -> Trail:
    get_stream_writer()({"name": "progress", "done": 1})
    return {"x": ["inner"]}


def _outer(state: Trail) -> Trail:
    return {"x": ["outer"]}


_child = StateGraph(Trail).add_node("inner", _inner).add_edge(START, "inner").compile()
nested = (
    StateGraph(Trail)
    .add_node("outer", _outer)
    .add_node("child", _child)
    .add_edge(START, "outer")
    .add_edge("outer", "child")
    .compile()
)


def _asks(name: str) -> Any:
    def node(state: Trail) -> Trail:
        return {"x": [f"{name}={interrupt(name)}"]}

    return node


both = (
    StateGraph(Trail)
    .add_node("left", _asks("left"))
    .add_node("right", _asks("right"))
    .add_edge(START, "left")
    .add_edge(START, "right")
    .compile()
)


@dataclass
class Context:
    tone: str = "plain"


def _tone(state: Trail, runtime: Runtime[Context]) -> Trail:
    return {"x": [runtime.context.tone]}


context = (
    StateGraph(Trail, context_schema=Context)
    .add_node("tone", _tone)
    .add_edge(START, "tone")
    .compile()
)
