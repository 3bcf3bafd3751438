"""The graph that needs nothing."""

import pytest

from tests.agents.graph_loading import TURN, open_graph, user


async def test_echo_answers_with_the_text_of_the_last_message() -> None:
    echo = open_graph("echo")
    for text in ("hello", "你好"):
        state = await echo.ainvoke(user(text), TURN)
        assert state["messages"][-1].type == "ai"
        assert state["messages"][-1].content == text
    assert len(state["messages"]) == 4


async def test_echo_takes_the_text_of_a_message_with_parts() -> None:
    parts = [{"type": "text", "text": "look: "}, {"type": "image", "url": "https://example.com/x"}]
    state = await open_graph("echo").ainvoke(user(parts), TURN)
    assert state["messages"][-1].content == "look: "


async def test_nothing_to_echo_is_a_clear_error_and_the_session_goes_on() -> None:
    echo = open_graph("echo")
    with pytest.raises(ValueError, match="at least one message"):
        await echo.ainvoke({"messages": []}, TURN)
    state = await echo.ainvoke(user("hi"), TURN)
    assert state["messages"][-1].content == "hi"
