"""Bodies: what goes in comes out, small, and what is not ours is refused."""

import zlib
from collections import deque
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Interrupt, Send

from clew.checkpointing import codec, dictionary, text
from clew.checkpointing.errors import UnknownBody, Unserializable

SERDE = JsonPlusSerializer()
LENGTH, CHECKSUM = 1595, 1565842942
STORED = (
    "2328b52ffd20cf9501004402c7ccbe546865206c61627972696e746820686173206f6e"
    "6520776179206f75742ea261310310072145c78c9e2e5a8405"
)

# Surrogates and NUL included, which most strategies leave out.
ANY_TEXT = st.text(st.characters(codec=None), max_size=30)
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.binary(), ANY_TEXT,
        st.floats(allow_nan=False),
    ),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(ANY_TEXT, inner)),
    max_leaves=12,
)  # fmt: skip


@given(VALUES)
def test_every_value_comes_back(value: Any) -> None:
    assert codec.load(SERDE, codec.dump(SERDE, value)) == value


@given(ANY_TEXT)
def test_every_text_can_be_stored_and_comes_back(value: str) -> None:
    stored = text.escape(value)
    assert "\x00" not in stored
    stored.encode()
    assert text.unescape(stored) == value


@pytest.mark.parametrize(
    "value",
    [
        HumanMessage("x\ud800", additional_kwargs={"\udfff": ["\ud83d"]}),
        AIMessage([{"type": "text", "text": "half a smile \ud83d"}], id="?"),
        ToolMessage("\udc00", tool_call_id="c", artifact={"raw": ("\ud800",)}),
        Interrupt(value={"ask": "\ud800?"}, id="i"),
        Send("node", {"arg": "\ud800"}),
        {"a": {"\ud800", "b"}, "c": deque(["\ud800"])},
    ],
    ids=lambda value: type(value).__name__,
)
def test_half_a_character_survives_inside_any_object(value: Any) -> None:
    back = codec.load(SERDE, codec.dump(SERDE, value))
    if isinstance(value, ToolMessage):
        back.artifact["raw"] = tuple(back.artifact["raw"])  # msgpack has no tuples
    assert back == value


def test_objects_come_back_as_themselves() -> None:
    value = {"when": Decimal("1.5"), "who": HumanMessage("hi?"), "raw": bytearray(b"x")}
    back = codec.load(SERDE, codec.dump(SERDE, value))
    assert back["when"] == Decimal("1.5")
    assert back["who"] == HumanMessage("hi?")


def test_a_short_message_is_short() -> None:
    message = HumanMessage("hello there, how are you?", id="1f1e551d-68d1-6c25-8000-510f2705c3a6")
    assert len(SERDE.dumps_typed(message)[1]) > 190
    assert len(codec.dump(SERDE, message)) < 100


def test_the_dictionary_is_what_every_stored_body_was_written_with() -> None:
    # A change here makes all that was ever stored unreadable.
    assert (len(dictionary.FIRST), zlib.crc32(dictionary.FIRST)) == (LENGTH, CHECKSUM)
    stored = bytes.fromhex(STORED)
    assert codec.load(SERDE, stored) == AIMessage("The labyrinth has one way out.", id="a1")


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\x06", b"\x0e123", b"\x0f", b"\x0f\x03odd", b"\x30abc", b"\x13abc",
        b"\x23abc", b"\x03\xc1", b"\x05(S'x'\n.",
    ],
)  # fmt: skip
def test_what_is_not_ours_is_refused(body: bytes) -> None:
    with pytest.raises(UnknownBody):
        codec.load(SERDE, body)


def test_what_cannot_be_stored_is_refused() -> None:
    for value in (object(), [lambda: 0], 2**70):
        with pytest.raises(Unserializable):
            codec.dump(SERDE, value)
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(Unserializable):
        codec.dump(SERDE, loop)
