"""Messages in the words of protocol v2: content blocks that start, grow and finish.

Models stream slices of messages; here they are followed block by block. The state of a session is
never changed by which protocol its reader speaks: only what is shown is.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage

Json = dict[str, Any]

_ROLES = {"human": "human", "system": "system", "tool": "tool"}
# What grows, and in which field of its delta.
_GROWING = {
    "text": ("text", "text-delta"),
    "reasoning": ("reasoning", "reasoning-delta"),
    "tool_call_chunk": ("args", "tool-call-delta"),
    "server_tool_call_chunk": ("args", "tool-call-delta"),
}
# Large contents of a block that comes whole: told once, when it finishes.
_HEAVY = ("args", "data", "output", "transcript", "value")


def plain(value: Any) -> Any:
    """A state with its messages as v2 shows them."""
    if isinstance(value, BaseMessage):
        return message(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in cast("Json", value).items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in cast("list[Any]", value)]
    return value


def message(item: BaseMessage) -> Json:
    kind = item.type.removesuffix("MessageChunk").lower()
    shown: Json = {"type": kind, "content": item.content, "id": item.id}
    if item.name is not None:
        shown["name"] = item.name
    if item.response_metadata:
        shown["response_metadata"] = item.response_metadata
    if isinstance(item, ToolMessage):
        shown["tool_call_id"] = item.tool_call_id
        shown["status"] = item.status
        if item.artifact is not None:
            shown["artifact"] = item.artifact
    if isinstance(item, AIMessage):
        if item.tool_calls:
            shown["tool_calls"] = item.tool_calls
        if item.invalid_tool_calls:
            shown["invalid_tool_calls"] = item.invalid_tool_calls
    return shown


class Growing:
    """One message while it comes in."""

    def __init__(self, first: AIMessageChunk) -> None:
        self.id = first.id
        self._blocks: dict[object, tuple[int, Json]] = {}
        self._usage: Json = {}
        self._metadata: Json = {}

    def start(self, first: AIMessageChunk) -> Json:
        return _start(first)

    def add(self, chunk: AIMessageChunk) -> Iterator[Json]:
        self._metadata.update(chunk.response_metadata or {})
        _sum(self._usage, cast("Json", chunk.usage_metadata or {}))
        for position, (name, block) in enumerate(_blocks(chunk)):
            # Without a name of its own, a slice goes on with the block of its kind and place.
            key = (block.get("type"), position) if name is None else name
            if key not in self._blocks:
                self._blocks[key] = (len(self._blocks), dict(block))
                index = self._blocks[key][0]
                yield {"event": "content-block-start", "index": index, "content": _outline(block)}
            else:
                index, whole = self._blocks[key]
                _grow(whole, block)
            if (delta := _delta(block)) is not None:
                yield {"event": "content-block-delta", "index": index, "delta": delta}

    def finish(self) -> Iterator[Json]:
        for index, block in self._blocks.values():
            yield {"event": "content-block-finish", "index": index, "content": _finished(block)}
        yield _finish(self._usage, self._metadata)


def whole(item: BaseMessage) -> Iterator[Json]:
    """A message that came in one piece."""
    yield _start(item)
    for index, (_, block) in enumerate(_blocks(item)):
        yield {"event": "content-block-start", "index": index, "content": _outline(block)}
        if (delta := _delta(block)) is not None:
            yield {"event": "content-block-delta", "index": index, "delta": delta}
        yield {"event": "content-block-finish", "index": index, "content": _finished(block)}
    usage = cast("Json", getattr(item, "usage_metadata", None) or {})
    yield _finish(usage, item.response_metadata)


def _start(item: BaseMessage) -> Json:
    kind = item.type
    start: Json = {"event": "message-start", "role": _ROLES.get(kind, "ai"), "id": item.id or ""}
    given: Json = item.response_metadata or {}
    about = {
        name: given[key]
        for name, key in (("provider", "model_provider"), ("model", "model_name"))
        if key in given
    }
    if about:
        start["metadata"] = about
    if isinstance(item, ToolMessage):
        start["tool_call_id"] = item.tool_call_id
    return start


def _finish(usage: Json, metadata: Mapping[str, Any]) -> Json:
    finish: Json = {"event": "message-finish"}
    if usage:
        finish["usage"] = usage
    if metadata:
        finish["metadata"] = dict(metadata)
    return finish


def _blocks(item: BaseMessage) -> Iterator[tuple[object, Json]]:
    """The blocks of a message or a slice of one, each with the name its provider gives it."""
    more = (getattr(item, name, None) for name in ("tool_call_chunks", "tool_calls"))
    if isinstance(item.content, str) and not any(more) and not item.additional_kwargs:
        # The common case, without a detour of twenty microseconds for every token.
        if item.content:
            yield None, {"type": "text", "text": item.content}
        return
    for block in cast("list[Json]", item.content_blocks):
        yield block.get("index"), dict(block)
    if not isinstance(item, AIMessageChunk):
        for call in cast("list[Json]", getattr(item, "invalid_tool_calls", None) or []):
            yield None, {**call, "type": "invalid_tool_call"}


def _outline(block: Json) -> Json:
    """What is known of a block before its contents come."""
    kind = block.get("type")
    if kind in _GROWING:
        field = _GROWING[kind][0]
        kept = {key: value for key, value in block.items() if key != "annotations"}
        if field != "args":
            kept.pop("index", None)
        return {**kept, field: ""}
    outline = {key: value for key, value in block.items() if key not in _HEAVY}
    if kind in ("tool_call", "server_tool_call"):
        outline["args"] = {}
    elif kind == "non_standard":
        outline["value"] = {}
    return outline


def _delta(block: Json) -> Json | None:
    kind = block.get("type")
    if kind in _GROWING:
        field, name = _GROWING[kind]
        return {"type": name, field: block[field]} if block.get(field) else None
    if kind not in ("tool_call", "server_tool_call") and block.get("data"):
        delta: Json = {"type": "data-delta", "data": block["data"]}
        if block.get("encoding") == "base64":
            delta["encoding"] = "base64"
        return delta
    return None


def _grow(whole: Json, piece: Json) -> None:
    kind = whole.get("type")
    if kind != piece.get("type"):
        whole.clear()
        whole.update(piece)
        return
    field = _GROWING[kind][0] if kind in _GROWING else "data"
    for key, value in piece.items():
        if value is None or key == "type":
            continue
        if key == field:
            whole[key] = (whole.get(key) or "") + value
        elif key == "extras":
            whole[key] = {**(whole.get(key) or {}), **value}
        else:
            whole[key] = value


def _finished(block: Json) -> Json:
    """A block with its arguments read; what cannot be read is told as it came."""
    kind = cast("str", block.get("type", ""))
    if kind not in ("tool_call_chunk", "server_tool_call_chunk"):
        return block
    kept = {key: value for key, value in block.items() if value is not None}
    if kind == "tool_call_chunk":
        kept.pop("index", None)
    text = kept.pop("args", "") or "{}"
    named = {"id": kept.pop("id", None), "name": kept.pop("name", None)}
    kept.pop("type")
    try:
        args = json.loads(text)
    except ValueError:
        why = "Failed to parse tool call arguments as JSON"
        return {"type": "invalid_tool_call", **named, "args": text, "error": why, **kept}
    return {
        "type": kind.removesuffix("_chunk"),
        "id": named["id"] or "",
        "name": named["name"] or "",
        "args": args,
        **kept,
    }


def _sum(total: Json, more: Json) -> None:
    for key, value in more.items():
        if isinstance(value, int):
            total[key] = total.get(key, 0) + value
        elif isinstance(value, dict):
            total[key] = {**total.get(key, {}), **cast("Json", value)}
