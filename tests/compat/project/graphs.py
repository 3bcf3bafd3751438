"""More small graphs: tools, two questions at once, a subgraph that speaks, run-time context."""

import operator
from typing import Annotated, Any, TypedDict

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.runtime import get_runtime
from langgraph.types import interrupt


class _Model(GenericFakeChatModel):
    """Streams tool calls too, which the stock fake swallows."""

    def _stream(self, messages: Any, stop: Any = None, run_manager: Any = None, **more: Any) -> Any:
        message = next(self.messages)
        assert isinstance(message, AIMessage)
        if not message.tool_calls:
            words = message.text.split(" ")
            for number, word in enumerate(words):
                text = word if number == 0 else f" {word}"
                last = "last" if number == len(words) - 1 else None
                chunk = ChatGenerationChunk(
                    message=AIMessageChunk(content=text, chunk_position=last)
                )
                if run_manager:
                    run_manager.on_llm_new_token(text, chunk=chunk)
                yield chunk
            return
        call = message.tool_calls[0]
        for args in ("", '{"city":', ' "Oslo"}'):
            chunk = ChatGenerationChunk(
                message=AIMessageChunk(
                    content="",
                    tool_call_chunks=[
                        {
                            "name": call["name"] if not args else None,
                            "args": args,
                            "id": call["id"] if not args else None,
                            "index": 0,
                            "type": "tool_call_chunk",
                        }
                    ],
                )
            )
            if run_manager:
                run_manager.on_llm_new_token("", chunk=chunk)
            yield chunk


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


async def _model(state: MessagesState) -> dict[str, Any]:
    said = state["messages"][-1]
    if said.type == "tool":
        answer = AIMessage(f"It is {said.text}")
    else:
        call = {"name": "weather", "args": {"city": "Oslo"}, "id": "call_1", "type": "tool_call"}
        answer = AIMessage("", tool_calls=[call])
    return {"messages": [await _Model(messages=iter([answer])).ainvoke(state["messages"])]}


tools = (
    StateGraph(MessagesState)
    .add_node("model", _model)
    .add_node("tools", ToolNode([weather]))
    .add_edge(START, "model")
    .add_conditional_edges("model", tools_condition)
    .add_edge("tools", "model")
    .compile()
)


class Answers(TypedDict, total=False):
    said: Annotated[list[Any], operator.add]


def _left(state: Answers) -> Answers:
    return {"said": [f"left {interrupt({'ask': 'left'})}"]}


def _right(state: Answers) -> Answers:
    return {"said": [f"right {interrupt({'ask': 'right'})}"]}


def _close(state: Answers) -> Answers:
    return {"said": ["done"]}


twice = (
    StateGraph(Answers)
    .add_node("left", _left)
    .add_node("right", _right)
    .add_node("close", _close)
    .add_edge(START, "left")
    .add_edge(START, "right")
    .add_edge(["left", "right"], "close")
    .add_edge("close", END)
    .compile()
)


class Who(TypedDict, total=False):
    name: str


class Seen(TypedDict, total=False):
    given: dict[str, Any]
    configured: dict[str, Any]


def _look(state: Seen, config: RunnableConfig) -> Seen:
    runtime = get_runtime(Who)
    shown = ("name", "colour", "thread_id", "graph_id", "assistant_id")
    configured = config.get("configurable", {})
    return {
        "given": dict(runtime.context or {}),
        "configured": {key: configured[key] for key in shown if key in configured},
    }


context = (
    StateGraph(Seen, context_schema=Who).add_node("look", _look).add_edge(START, "look").compile()
)
