"""Small graphs that show one thing each, for the tests to run through a real server."""

import asyncio
import operator
from typing import Annotated, Any, TypedDict

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import interrupt


class Trail(TypedDict, total=False):
    x: Annotated[list[str], operator.add]
    n: int
    wait: float
    answer: Any


def _say(state: MessagesState) -> dict[str, Any]:
    return {"messages": [AIMessage(state["messages"][-1].text)]}


echo = StateGraph(MessagesState).add_node("say", _say).add_edge(START, "say").compile()


def _one(state: Trail) -> Trail:
    get_stream_writer()({"hello": "from one"})
    return {"x": ["one"]}


def _two(state: Trail) -> Trail:
    return {"x": ["two"], "n": 1}


steps = (
    StateGraph(Trail)
    .add_node("one", _one)
    .add_node("two", _two)
    .add_edge(START, "one")
    .add_edge("one", "two")
    .add_edge("two", END)
    .compile()
)


async def _reply(state: MessagesState) -> dict[str, Any]:
    model = GenericFakeChatModel(messages=iter([AIMessage("It is sunny today in 北京")]))
    return {"messages": [await model.ainvoke(state["messages"])]}


tokens = StateGraph(MessagesState).add_node("model", _reply).add_edge(START, "model").compile()


def _ask(state: Trail) -> Trail:
    return {"answer": interrupt({"question": "approve?"})}


ask = (
    StateGraph(Trail)
    .add_node("ask", _ask)
    .add_node("after", _two)
    .add_edge(START, "ask")
    .add_edge("ask", "after")
    .compile()
)

_child = (
    StateGraph(Trail)
    .add_node("inner", _one)
    .add_node("question", _ask)
    .add_edge(START, "inner")
    .add_edge("inner", "question")
    .compile()
)
parent = (
    StateGraph(Trail)
    .add_node("child", _child)
    .add_node("after", _two)
    .add_edge(START, "child")
    .add_edge("child", "after")
    .compile()
)


def _boom(state: Trail) -> Trail:
    raise ValueError("boom")


fails = (
    StateGraph(Trail)
    .add_node("one", _one)
    .add_node("boom", _boom)
    .add_edge(START, "one")
    .add_edge("one", "boom")
    .compile()
)


async def _wait(state: Trail) -> Trail:
    get_stream_writer()({"waiting": True})
    await asyncio.sleep(state.get("wait", 60.0))
    return {"x": ["waited"]}


slow = (
    StateGraph(Trail)
    .add_node("one", _one)
    .add_node("wait", _wait)
    .add_edge(START, "one")
    .add_edge("one", "wait")
    .compile()
)
