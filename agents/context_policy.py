"""What a model is shown of a history that may be longer than it can read.

Both ways, trimming and summarising, choose from the history and leave it as it is.
"""

import re
from collections.abc import Awaitable, Callable, Iterator, Sequence

from langchain_core.messages import (
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    trim_messages,
)
from langchain_core.messages.utils import count_tokens_approximately
from typing_extensions import TypedDict


class Summary(TypedDict):
    text: str
    upto: str  # id of the last message that the text stands for


def tokens(messages: Sequence[BaseMessage]) -> int:
    """langchain's estimate of four characters a token, which needs no download, and what it
    misses of Chinese, Japanese and Korean, where a character is about one token.
    """
    wide = sum(len(re.findall(r"[\u3040-\u9fff\uac00-\ud7af]", m.text)) for m in messages)
    return count_tokens_approximately(messages) + wide * 3 // 4


def newest(messages: Sequence[BaseMessage], limit: int) -> list[BaseMessage]:
    """The newest whole turns within the limit, after the system message if there is one.

    A turn begins with what the human said, so no tool call is parted from its answers.
    """
    return trim_messages(
        messages,
        max_tokens=limit,
        token_counter=tokens,
        strategy="last",
        start_on="human",
        include_system=True,
    )


def clip(text: str, limit: int) -> str:
    """As much of the beginning of the text as the limit allows."""
    while text and (size := tokens([HumanMessage(text)])) > limit:
        text = text[: len(text) * max(limit, 0) // size]
    return text


def view(system: SystemMessage, messages: Sequence[BaseMessage], limit: int) -> list[BaseMessage]:
    """What the model is shown: never more than the limit, never less than the current turn."""
    shown = newest([system, *messages], limit)
    if len(shown) > 1:
        return shown
    # The current turn alone is too long. What tools returned can be cut without changing what
    # was asked; what the human said cannot.
    turn = messages[last_human(messages) :]
    bare = [_with_text(m, "") for m in turn]
    results = sum(isinstance(m, ToolMessage) for m in turn)
    share = (limit - tokens([system, *bare])) // max(results, 1)
    shown = [system, *(_with_text(m, clip(m.text, share)) for m in turn)]
    if (size := tokens(shown)) > limit:
        raise ValueError(f"This message takes about {size} tokens, and the limit is {limit}.")
    return shown


def _with_text(message: BaseMessage, text: str) -> BaseMessage:
    if isinstance(message, ToolMessage):
        return message.model_copy(update={"content": text})
    return message


def last_human(messages: Sequence[BaseMessage]) -> int:
    """Where the current turn begins."""
    return max(i for i, message in enumerate(messages) if isinstance(message, HumanMessage))


def unsummarised(summary: Summary | None, messages: Sequence[BaseMessage]) -> Sequence[BaseMessage]:
    """The messages that the summary does not stand for: all of them, if it is of another past."""
    for i, message in enumerate(messages):
        if summary and message.id == summary["upto"]:
            return messages[i + 1 :]
    return messages


async def fold(
    summary: Summary | None,
    messages: Sequence[BaseMessage],
    limit: int,
    write: Callable[[str], Awaitable[str]],
) -> Summary | None:
    """The summary, extended over the turns that no longer fit; `write` is the model's part."""
    recent = unsummarised(summary, messages)
    if tokens(recent) <= limit:
        return summary
    # Down to half the limit, so that the next turns need no new summary each.
    kept = len(newest(recent, limit // 2))
    older = recent[: min(len(recent) - kept, last_human(recent))]
    if not older:
        return summary
    text = summary["text"] if summary and recent is not messages else ""
    # Piece by piece, for a long history would itself be a request beyond the limit.
    for piece in _pieces(older, limit // 2):
        request = f"Summary so far: {text or '(none)'}\n\nWhat was said next:\n{piece}"
        text = clip(await write(request), limit // 4)
    return {"text": text, "upto": str(older[-1].id)}


def _pieces(messages: Sequence[BaseMessage], limit: int) -> Iterator[str]:
    lines: list[str] = []
    room = limit
    for message in messages:
        line = clip(f"{message.type}: {message.text}", limit)
        size = tokens([HumanMessage(line)])
        if size > room and lines:
            yield "\n".join(lines)
            lines, room = [], limit
        lines.append(line)
        room -= size
    yield "\n".join(lines)
