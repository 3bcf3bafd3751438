"""The graphs that are measured, and the text that goes through them."""

import random
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph

_WORDS: Sequence[str] = """
    system session thread value store write point fork branch state turn answer question model
    order price market customer region report total number chart change month year time before
    after between under over because while although however result reason limit budget simple
    small large early late quick slow open closed known unknown first second last next
""".split()  # noqa: SIM905  (a paragraph reads better than a column)


class Talk:
    """Questions of about 35 words and answers of about 150, the same in every run."""

    def __init__(self, seed: int = 7) -> None:
        self._random = random.Random(seed)

    def text(self, words: int) -> str:
        # Numbers in between, so that compression does not profit from a small vocabulary.
        return " ".join(
            self._random.choice(_WORDS) + (str(self._random.randrange(10**4)) if n % 3 == 0 else "")
            for n in range(words)
        )

    def question(self) -> str:
        return self.text(35)

    def answer(self) -> str:
        return self.text(150)


def echo() -> StateGraph[Any, Any, Any, Any]:
    """The last message's text comes back."""

    def say(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(state["messages"][-1].text)]}

    return StateGraph(MessagesState).add_node("say", say).add_edge(START, "say")


def talking(talk: Talk) -> StateGraph[Any, Any, Any, Any]:
    """A turn of a conversation: a question in, an answer of realistic length out."""

    def say(state: MessagesState) -> dict[str, Any]:
        assert state["messages"]
        return {"messages": [AIMessage(talk.answer())]}

    return StateGraph(MessagesState).add_node("say", say).add_edge(START, "say")


Compiled = CompiledStateGraph[Any, Any, Any, Any]
