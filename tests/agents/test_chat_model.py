"""One kind of model and one kind of error, whether there is an endpoint or not."""

import logging
import socket
import traceback
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage

from tests.agents.fake_openai import Calls, Cut, Endpoint, Raw, Text
from tests.agents.graph_loading import TURN, load, open_graph, shared, user

chat_model = shared("chat_model")


async def streamed(text: str) -> tuple[list[Any], Any]:
    """The message chunks of a turn with the assistant, and the state after it."""
    assistant = open_graph("assistant")
    stream = assistant.astream(user(text), TURN, stream_mode="messages")
    chunks = [chunk async for chunk, _ in stream]
    return chunks, (await assistant.aget_state(TURN)).values


async def test_the_offline_model_streams_tokens_and_says_that_it_is_offline() -> None:
    chunks, values = await streamed("hello there")
    reply = values["messages"][-1]
    tokens = [chunk.text for chunk in chunks if isinstance(chunk, AIMessageChunk)]
    assert len(tokens) > 5
    assert "".join(tokens) == reply.text == f"You said: hello there\n\n{chat_model.NOTICE}"
    # The tokens carry the id of the message they become, so that a client can put them together.
    assert {chunk.id for chunk in chunks} == {reply.id}


async def test_the_offline_model_streams_chinese_character_by_character() -> None:
    chunks, values = await streamed("你好世界")
    assert {"你", "好", "世", "界"} <= {chunk.text.strip() for chunk in chunks}
    assert "你好世界" in values["messages"][-1].text


async def test_the_offline_model_makes_real_tool_calls() -> None:
    _, values = await streamed("what is 2 + 3 * 4?")
    human, call, result, reply = values["messages"]
    assert call.tool_calls[0]["name"] == "calculate"
    assert (result.tool_call_id, result.text) == (call.tool_calls[0]["id"], "14")
    assert human.type == "human"
    assert reply.text.startswith("14")


async def test_being_offline_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    chat_model._announce.cache_clear()
    with caplog.at_level(logging.WARNING, "chat_model"):
        await streamed("hello")
        await streamed("hello")
    assert [record.message for record in caplog.records].count(
        "OPENAI_API_KEY is not set: agents answer by fixed rules, without a model"
    ) == 1


async def test_an_endpoint_streams_its_tokens_over_http(endpoint: Endpoint) -> None:
    endpoint.replies(Text("Four words from afar"))
    chunks, values = await streamed("hello")
    tokens = [chunk.text for chunk in chunks if chunk.text]
    assert tokens == ["Four ", "words ", "from ", "afar"]
    assert values["messages"][-1].text == "Four words from afar"
    assert endpoint.requests[0]["stream"] is True
    assert {tool["function"]["name"] for tool in endpoint.requests[0]["tools"]} == {
        "now",
        "calculate",
        "remember",
    }


async def test_tool_calls_of_an_endpoint_are_carried_out_and_sent_back(endpoint: Endpoint) -> None:
    call = Calls([("calculate", '{"expression": "6*7"}'), ("now", '{"timezone": "Asia/Shanghai"}')])
    endpoint.replies(call, Text("It is 42."))
    chunks, values = await streamed("six times seven, and the time?")
    assert [m.type for m in values["messages"]] == ["human", "ai", "tool", "tool", "ai"]
    assert values["messages"][2].text == "42"
    assert "+08:00" in values["messages"][3].text
    sent = endpoint.requests[1]["messages"]
    assert [m["role"] for m in sent] == ["system", "user", "assistant", "tool", "tool"]
    assert [m["tool_call_id"] for m in sent[3:]] == [c["id"] for c in sent[2]["tool_calls"]]
    # The call was streamed too: its name at first, its arguments in pieces.
    pieces = [p for c in chunks if isinstance(c, AIMessageChunk) for p in c.tool_call_chunks]
    assert len(pieces) > 2


@pytest.mark.parametrize("graph_id", ["assistant", "approval", "analyst", "librarian"])
async def test_the_model_is_the_one_that_the_context_names(
    endpoint: Endpoint, graph_id: str
) -> None:
    endpoint.replies(Text("select 1"))
    asked: dict[str, Any] = user("When is tea served?")
    if graph_id == "librarian":
        asked["documents"] = [{"name": "a.txt", "text": "Tea is served at five."}]
    await open_graph(graph_id).ainvoke(asked, TURN, context={"model": "qwen-max"})
    assert {request["model"] for request in endpoint.requests} == {"qwen-max"}


RUBBISH = {
    "an error of the server": Raw('{"error": {"message": "out of memory"}}', status=400),
    "a web page": Raw("<html>Bad gateway</html>", content_type="text/html"),
    "JSON of another kind": Raw('{"hello": "world"}'),
    "not even JSON in the stream": Raw("data: {broken\n\n", content_type="text/event-stream"),
    "a stream of nothing": Raw("data: [DONE]\n\n", content_type="text/event-stream"),
    "a list": Raw("[1, 2, 3]"),
    "an empty body": Raw(""),
    "an empty reply": Text("   "),
    "a tool call with broken arguments": Calls([("calculate", '{"expression": ')]),
    "an error in the stream": Raw(
        'data: {"error": {"message": "overloaded"}}\n\n', content_type="text/event-stream"
    ),
    "an end in the middle": Cut("Half an ans"),
    "the key": Raw('{"error": {"message": "no such key: sk-of-the-tests"}}', status=401),
}


@pytest.mark.parametrize("reply", RUBBISH.values(), ids=RUBBISH.keys())
async def test_rubbish_is_one_clear_error_and_the_session_is_usable_afterwards(
    endpoint: Endpoint, reply: Any
) -> None:
    assistant = open_graph("assistant")
    endpoint.replies(reply)
    with pytest.raises(RuntimeError, match="The model endpoint") as caught:
        await assistant.ainvoke(user("hello"), TURN)
    assert type(caught.value).__name__ == "ModelError"
    assert "sk-of-the-tests" not in "".join(traceback.format_exception(caught.value))
    endpoint.replies(Text("Back again."))
    state = await assistant.ainvoke(user("are you there?"), TURN)
    assert state["messages"][-1].text == "Back again."
    assert [m.text for m in state["messages"]] == ["hello", "are you there?", "Back again."]


async def test_an_endpoint_that_is_down_is_one_clear_error(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    assistant = open_graph("assistant")
    with socket.create_server(("127.0.0.1", 0)) as gone:
        nobody = f"http://127.0.0.1:{gone.getsockname()[1]}/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", nobody)
    with pytest.raises(RuntimeError, match="The model endpoint failed"):
        await assistant.ainvoke(user("hello"), TURN)
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
    state = await assistant.ainvoke(user("hello again"), TURN)
    assert state["messages"][-1].text == "Hello from the endpoint."


@pytest.mark.parametrize("end", ["\n", " \r\n"])
async def test_a_key_with_a_line_break_behind_it_is_the_key(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"sk-of-the-tests{end}")
    state = await open_graph("assistant").ainvoke(user("hello"), TURN)
    assert state["messages"][-1].text == "Hello from the endpoint."


async def test_a_key_that_no_header_can_carry_is_not_shown(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of\nthe-tests")
    with pytest.raises(RuntimeError, match="LocalProtocolError") as caught:
        await open_graph("assistant").ainvoke(user("hello"), TURN)
    told = "".join(traceback.format_exception(caught.value))
    assert "sk-of" not in told
    assert "the-tests" not in told
    assert endpoint.requests == []


async def test_a_tool_that_is_not_there_is_told_to_the_model(endpoint: Endpoint) -> None:
    endpoint.replies(Calls([("launch", "{}")]), Text("I cannot."))
    state = await open_graph("assistant").ainvoke(user("launch!"), TURN)
    assert "launch is not a valid tool" in state["messages"][2].text
    assert state["messages"][-1].text == "I cannot."


async def test_a_model_that_never_stops_calling_tools_is_stopped(endpoint: Endpoint) -> None:
    assistant = open_graph("assistant")
    endpoint.replies(Calls([("now", "{}")]))
    with pytest.raises(RuntimeError, match=f"{chat_model.MAX_ROUNDS} times without answering"):
        await assistant.ainvoke(user("time?"), TURN)
    assert len(endpoint.requests) == chat_model.MAX_ROUNDS
    endpoint.replies(Text("Sorry."))
    state = await assistant.ainvoke(user("stop it"), TURN)
    assert state["messages"][-1].text == "Sorry."


def test_a_call_that_was_never_answered_is_answered_in_what_the_model_sees() -> None:
    call = {"name": "now", "args": {}}
    history = [
        HumanMessage("one"),
        AIMessage("", tool_calls=[{**call, "id": "a"}, {**call, "id": "b"}]),
        ToolMessage("noon", tool_call_id="b"),
        HumanMessage("two"),
    ]
    shown = chat_model.answered(history)
    assert [m.type for m in shown] == ["human", "ai", "tool", "tool", "human"]
    assert [m.tool_call_id for m in shown if isinstance(m, ToolMessage)] == ["b", "a"]
    assert len(history) == 4
    # An id that was used before is no answer to a later call.
    again = chat_model.answered([*history, AIMessage("", tool_calls=[{**call, "id": "b"}])])
    assert [m.type for m in again[-2:]] == ["ai", "tool"]


@pytest.mark.parametrize("graph_id", ["assistant", "approval", "analyst", "librarian"])
async def test_a_context_that_does_not_fit_is_refused_by_name(graph_id: str) -> None:
    assert load(graph_id).Context()  # every field has a default
    with pytest.raises(ValueError, match="modle"):
        await open_graph(graph_id).ainvoke(user("hi"), TURN, context={"modle": "x"})
