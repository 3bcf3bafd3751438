"""Graphs for the JavaScript clients: a chat whose replies stream token by token, and which asks,
fails, waits or calls a tool when a message says so."""

import asyncio
import itertools
import re
from collections.abc import AsyncIterator
from typing import Any, TypedDict

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.chat_models import agenerate_from_stream
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.tools import tool
from langgraph.config import get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import interrupt

# What a reply waits for in the middle: `release` opens a gate by its name.
GATES: dict[str, asyncio.Event] = {}
NUMBERS = itertools.count(1)


def gate(name: str) -> asyncio.Event:
    return GATES.setdefault(name, asyncio.Event())


class Parrot(BaseChatModel):
    """Says what it was told, with a number that no other reply has."""

    @property
    def _llm_type(self) -> str:
        return "parrot"

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        raise NotImplementedError("it only speaks where it may wait")

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return await agenerate_from_stream(self._astream(messages))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        last = messages[-1]
        if last.type == "tool":
            words = ["the ", "tool ", "said ", last.text]
        elif found := re.fullmatch(r"(weather|book) (.+)", last.text):
            call = {
                "name": found[1],
                "args": f'{{"place": "{found[2]}"}}',
                "id": f"call_{next(NUMBERS)}",
                "index": 0,
                "type": "tool_call_chunk",
            }
            words = [AIMessageChunk("", tool_call_chunks=[call])]
        else:
            words = [f"#{next(NUMBERS)} ", "you ", "said ", last.text]
        for position, word in enumerate(words):
            if position == 2 and (waits := re.fullmatch(r"wait (\S+)", last.text)):
                await gate(waits[1]).wait()
            if position == 2 and last.text == "fail":
                raise ValueError("boom")
            chunk = word if isinstance(word, AIMessageChunk) else AIMessageChunk(word)
            yield ChatGenerationChunk(message=chunk)


async def model(state: MessagesState) -> dict[str, Any]:
    return {"messages": [await Parrot().ainvoke(state["messages"])]}


@tool
def weather(place: str) -> str:
    """What the weather is like."""
    get_stream_writer()({"looking": place})
    return f"sunny in {place}"


@tool
def book(place: str) -> str:
    """Book a trip, if a human agrees."""
    answer = interrupt({"question": f"book {place}?"})
    return f"booked {place}: {answer}"


chat = (
    StateGraph(MessagesState)
    .add_node("model", model)
    .add_node("tools", ToolNode([weather, book]))
    .add_edge(START, "model")
    .add_conditional_edges("model", tools_condition)
    .add_edge("tools", "model")
    .compile()
)

# The same, one level down.
team = StateGraph(MessagesState).add_node("member", chat).add_edge(START, "member").compile()


class Gate(TypedDict):
    gate: str


def _release(state: Gate) -> Gate:
    gate(state["gate"]).set()
    return state


async def _open(state: Gate) -> Gate:
    return _release(state)


release = StateGraph(Gate).add_node("open", _open).add_edge(START, "open").compile()


class Form(TypedDict, total=False):
    name: str
    city: str


def _name(_: Form) -> Form:
    return {"name": interrupt({"field": "name"})}


def _city(_: Form) -> Form:
    return {"city": interrupt({"field": "city"})}


form = (
    StateGraph(Form)
    .add_node("name_", _name)
    .add_node("city_", _city)
    .add_edge(START, "name_")
    .add_edge(START, "city_")
    .compile()
)
