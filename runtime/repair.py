"""A turn that was broken off may leave a model's tool calls without answers, and strict model APIs
refuse such a conversation for ever after. So the next turn's input begins with the answers: notes
that the calls were not carried out. They are part of that turn, and a restore to before it takes
them back.
"""

from collections.abc import Sequence
from typing import Any, cast

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langgraph.pregel import Pregel

from clew.checkpointing.saver import Saver
from clew.runtime import entry
from clew.runtime.requests import RunRequest
from clew.runtime.runs import Run

NOTE = "This call was not carried out: the turn was broken off before it could be."


def unanswered(messages: Sequence[BaseMessage]) -> list[ToolMessage]:
    """The answers that the last model message is missing."""
    answered: set[str] = set()
    for item in reversed(messages):
        if isinstance(item, ToolMessage):
            answered.add(item.tool_call_id)
            continue
        if not isinstance(item, AIMessage):
            return []
        return [
            ToolMessage(NOTE, tool_call_id=call["id"], name=call["name"], status="error")
            for call in item.tool_calls
            if call["id"] is not None and call["id"] not in answered
        ]
    return []


async def mended(
    graph: Pregel[Any, Any, Any, Any], saver: Saver, run: Run, request: RunRequest
) -> Any:
    """The input of a new turn, with what the last one left open answered."""
    given = request.input
    if not run.mends or request.checkpoint or not isinstance(given, dict):
        return given
    if "messages" not in graph.channels:
        return given
    head = await saver.aget_tuple(entry.config_of(run.thread_id))
    held = head.checkpoint["channel_values"].get("messages") if head else None
    if not isinstance(held, list):
        return given
    notes = unanswered(cast("list[BaseMessage]", held))
    if not notes:
        return given
    said = cast("dict[str, Any]", given)
    new = said.get("messages") or []
    return {**said, "messages": [*notes, *(new if isinstance(new, list) else [new])]}
