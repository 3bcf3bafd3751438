"""How every graph here comes to a chat model: an OpenAI-compatible endpoint when `OPENAI_API_KEY`
is set, a deterministic script when it is not. Callers see one kind of model and one kind of error.
"""

import asyncio
import functools
import logging
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import httpx
import openai
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

Script = Callable[[Sequence[BaseMessage]], AIMessage]
"""What an offline model says, as a plain function of what it is shown."""

NOTICE = "(Offline model: OPENAI_API_KEY is not set, so this reply follows fixed rules.)"
MAX_ROUNDS = 12

log = logging.getLogger(__name__)


class ModelError(RuntimeError):
    """The model could not be reached, or what it answered is of no use."""


class OfflineModel(BaseChatModel):
    """A real chat model in all but the thinking: it streams tokens and makes tool calls."""

    script: Script

    @property
    def _llm_type(self) -> str:
        return "offline"

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: str | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        # A script is written for its graph's tools, so there is nothing to tell it.
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self.script(messages))])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        # langchain's own would put this into a thread, which costs more than the script.
        return self._generate(messages)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in _chunks(self.script(messages)):
            if run_manager:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in _chunks(self.script(messages)):
            if run_manager:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk
            # A network would let other work run between two tokens; so does this.
            await asyncio.sleep(0)


def _chunks(reply: AIMessage) -> Iterator[ChatGenerationChunk]:
    for token in re.findall(r"\s*(?:[\u3040-\u9fff]|[^\s\u3040-\u9fff]+)|\s+", reply.text):
        yield ChatGenerationChunk(message=AIMessageChunk(content=token))
    for index, call in enumerate(reply.tool_calls):
        part = AIMessageChunk(content="", tool_calls=[call])
        for piece in part.tool_call_chunks:
            piece["index"] = index
        yield ChatGenerationChunk(message=part)
    yield ChatGenerationChunk(message=AIMessageChunk(content="", chunk_position="last"))


def choose(name: str, script: Script) -> BaseChatModel:
    """The model called `name` at the configured endpoint, or the script where there is no key.

    Read at each call, not at import, so that a key set later is used without a restart. The
    endpoint is the operator's choice (`OPENAI_BASE_URL`) and never comes from `context`, which
    a client may fill: it would make the server call any address.
    """
    if key := _key():
        return ChatOpenAI(model=name, api_key=SecretStr(key), timeout=60, max_retries=2)
    _announce()
    return OfflineModel(script=script)


def _key() -> str:
    # Read from a file, it often ends with a line break, which no header may have.
    return os.environ.get("OPENAI_API_KEY", "").strip()


@functools.cache
def _announce() -> None:
    log.warning("OPENAI_API_KEY is not set: agents answer by fixed rules, without a model")


async def ask(
    model: Runnable[LanguageModelInput, AIMessage], messages: Sequence[BaseMessage]
) -> AIMessage:
    """The model's answer, or `ModelError`: an endpoint that is down and one that talks nonsense
    look alike to the caller, who can do the same about both.
    """
    try:
        reply = await model.ainvoke(answered(messages))
    # What an endpoint sends is parsed by two libraries, and each trips over nonsense in its way.
    except (
        openai.OpenAIError,
        httpx.HTTPError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
    ) as fault:
        said, first = str(fault), fault
        while first.__cause__:
            first = first.__cause__
        # Some endpoints quote the key that they refuse, and neither clients nor logs may see it.
        if key := _key():
            said = said.replace(key, "***")
        # Of what led to this only the kind: a library quotes the header that it could not send.
        kind = type(first).__name__
        raise ModelError(f"The model endpoint failed ({kind}): {said[:300]}") from None
    if not reply.text.strip() and not reply.tool_calls:
        raise ModelError("The model endpoint answered with neither text nor a valid tool call.")
    return reply


def answered(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The messages with every tool call answered, as endpoints insist.

    A turn that was cancelled or failed between a call and its answer leaves the call open in the
    history. Saying so in what the model is shown keeps the session usable and the history as it
    was.
    """
    whole: list[BaseMessage] = []
    waiting: dict[str | None, ToolMessage] = {}
    for message in messages:
        if isinstance(message, ToolMessage):
            waiting.pop(message.tool_call_id, None)
        else:
            whole += waiting.values()
            calls = message.tool_calls if isinstance(message, AIMessage) else []
            waiting = {call["id"]: ToolMessage(NOT_RUN, tool_call_id=call["id"]) for call in calls}
        whole.append(message)
    return [*whole, *waiting.values()]


NOT_RUN = "Not run: the turn ended before."


def keep_going(messages: Sequence[BaseMessage]) -> None:
    """Raise once the model has called tools `MAX_ROUNDS` times without coming to an answer."""
    rounds = 0
    for message in reversed(messages):
        if isinstance(message, HumanMessage):
            return
        rounds += isinstance(message, AIMessage)
        if rounds >= MAX_ROUNDS:
            raise ModelError(f"The model called tools {MAX_ROUNDS} times without answering.")


def question(messages: Sequence[BaseMessage]) -> str:
    """The text of what the user asked in this turn, or `ValueError` if the user asked nothing."""
    asked = next((m for m in reversed(messages) if isinstance(m, HumanMessage)), None)
    if asked is None or (isinstance(messages[-1], AIMessage) and not messages[-1].tool_calls):
        raise ValueError("There is nothing to answer: the last message must be the user's.")
    return asked.text
