"""Messages as content blocks: whatever slices a model streams, the blocks add up to its message."""

from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage

from clew.runtime import blocks

Json = dict[str, Any]


def told(*chunks: AIMessageChunk) -> list[Json]:
    growing = blocks.Growing(chunks[0])
    events = [growing.start(chunks[0])]
    for chunk in chunks:
        events += growing.add(chunk)
    return [*events, *growing.finish()]


def piece(content: Any, **more: Any) -> AIMessageChunk:
    return AIMessageChunk(content=content, id="m", **more)


def call(args: str, name: str | None = None, id: str | None = None, index: int = 0) -> Json:  # noqa: A002
    return {"type": "tool_call_chunk", "name": name, "args": args, "id": id, "index": index}


def finished(events: list[Json]) -> list[Json]:
    return [event["content"] for event in events if event["event"] == "content-block-finish"]


def test_text_grows_in_one_block():
    events = told(piece("Hel"), piece("lo 世界"))
    assert [event["event"] for event in events] == [
        "message-start",
        "content-block-start",
        "content-block-delta",
        "content-block-delta",
        "content-block-finish",
        "message-finish",
    ]
    assert events[0] == {"event": "message-start", "role": "ai", "id": "m"}
    assert events[1]["content"] == {"type": "text", "text": ""}
    assert events[2]["delta"] == {"type": "text-delta", "text": "Hel"}
    assert finished(events) == [{"type": "text", "text": "Hello 世界"}]


def test_tool_calls_are_put_together_even_when_they_interleave():
    events = told(
        piece("", tool_call_chunks=[call("", "one", "c1", 0)]),
        piece("", tool_call_chunks=[call("", "two", "c2", 1)]),
        piece("", tool_call_chunks=[call('{"a":', index=0)]),
        piece("", tool_call_chunks=[call('{"b":2}', index=1)]),
        piece("", tool_call_chunks=[call("1}", index=0)]),
    )
    starts = [event["content"] for event in events if event["event"] == "content-block-start"]
    assert [(start["name"], start["id"], start["args"]) for start in starts] == [
        ("one", "c1", ""),
        ("two", "c2", ""),
    ]
    assert finished(events) == [
        {"type": "tool_call", "id": "c1", "name": "one", "args": {"a": 1}},
        {"type": "tool_call", "id": "c2", "name": "two", "args": {"b": 2}},
    ]


def test_arguments_that_cannot_be_read_are_told_as_they_came():
    (block,) = finished(told(piece("", tool_call_chunks=[call('{"a":', "one", "c1")])))
    assert (block["type"], block["args"]) == ("invalid_tool_call", '{"a":')


def test_reasoning_and_text_are_blocks_of_their_own():
    events = told(
        piece([{"type": "reasoning", "reasoning": "hm", "index": 0}]),
        piece([{"type": "text", "text": "yes", "index": 1}]),
    )
    assert [block["type"] for block in finished(events)] == ["reasoning", "text"]
    assert {event["index"] for event in events if "index" in event} == {0, 1}


def test_usage_adds_up_and_metadata_comes_with_the_end():
    usage: Any = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    events = told(
        piece("a", usage_metadata=usage),
        piece("b", usage_metadata=usage, response_metadata={"finish": "stop"}),
    )
    assert events[-1] == {
        "event": "message-finish",
        "usage": {"input_tokens": 2, "output_tokens": 4, "total_tokens": 6},
        "metadata": {"finish": "stop"},
    }


@pytest.mark.parametrize(
    ("item", "role"),
    [(AIMessage("x", id="m"), "ai"), (HumanMessage("x", id="m"), "human")],
)
def test_a_whole_message_reads_like_a_streamed_one(item: AIMessage | HumanMessage, role: str):
    events = list(blocks.whole(item))
    assert events[0]["role"] == role
    assert finished(events) == [{"type": "text", "text": "x"}]


def test_a_state_shows_its_messages_the_v2_way():
    calls: Any = [{"name": "n", "args": {}, "id": "c", "type": "tool_call"}]
    state = {
        "messages": [
            HumanMessage("hi", id="1", additional_kwargs={"secret": 1}),
            AIMessage("", id="2", tool_calls=calls),
            ToolMessage("ok", id="3", tool_call_id="c"),
        ],
        "other": 1,
    }
    assert blocks.plain(state) == {
        "messages": [
            {"type": "human", "content": "hi", "id": "1"},
            {"type": "ai", "content": "", "id": "2", "tool_calls": calls},
            {"type": "tool", "content": "ok", "id": "3", "tool_call_id": "c", "status": "success"},
        ],
        "other": 1,
    }
