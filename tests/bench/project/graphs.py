"""What the benches serve: an echo, and a model that streams a hundred tokens at once."""

import random
from collections.abc import AsyncIterator
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.graph import START, MessagesState, StateGraph

TOKENS = [f"word{n} " for n in range(100)]


class Hundred(BaseChatModel):
    """A hundred tokens without a pause."""

    @property
    def _llm_type(self) -> str:
        return "hundred"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage("".join(TOKENS)))])

    async def _astream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for token in TOKENS:
            yield ChatGenerationChunk(message=AIMessageChunk(content=token))


class Answers(Hundred):
    """150 words, other ones each time."""

    async def _astream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        chance = random.Random(messages[-1].text)
        for _ in range(150):
            word = f"{chance.choice(TOKENS)}{chance.randrange(10**4)} "
            yield ChatGenerationChunk(message=AIMessageChunk(content=word))


def _say(state: MessagesState) -> dict[str, Any]:
    return {"messages": [AIMessage(state["messages"][-1].text)]}


async def _stream(state: MessagesState) -> dict[str, Any]:
    return {"messages": [await Hundred().ainvoke(state["messages"][-1:])]}


async def _answer(state: MessagesState) -> dict[str, Any]:
    return {"messages": [await Answers().ainvoke(state["messages"][-1:])]}


echo = StateGraph(MessagesState).add_node("say", _say).add_edge(START, "say").compile()
tokens = StateGraph(MessagesState).add_node("model", _stream).add_edge(START, "model").compile()
answers = StateGraph(MessagesState).add_node("model", _answer).add_edge(START, "model").compile()
