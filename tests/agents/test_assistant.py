"""The chat agent: tools, memory across sessions, and long histories."""

import json
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.messages.utils import convert_to_messages, count_tokens_approximately
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.store.memory import InMemoryStore

from tests.agents.fake_openai import Calls, Endpoint, Text
from tests.agents.graph_loading import TURN, load, open_graph, shared, user

tokens = shared("context_policy").tokens


def history(messages: int) -> list[BaseMessage]:
    """A long session in which every fourth turn used a tool."""
    said: list[BaseMessage] = []
    for n in range(messages):
        said.append(HumanMessage(f"Question {n}: what about item {n} 和茶?", id=f"h{n}"))
        if n % 4 == 0:
            call = {"name": "calculate", "args": {"expression": f"{n}+1"}, "id": f"c{n}"}
            said.append(AIMessage("", tool_calls=[call], id=f"t{n}"))
            said.append(ToolMessage(str(n + 1), tool_call_id=f"c{n}", id=f"r{n}"))
        said.append(AIMessage(f"Item {n} is fine. " * 5, id=f"a{n}"))
        if len(said) >= messages:
            return said[:messages]
    return said


def sent(request: dict[str, Any]) -> int:
    """The tokens of a request, tools included, as the policy counts them."""
    messages = convert_to_messages(request["messages"])
    return tokens(messages) + count_tokens_approximately([], tools=request.get("tools"))


@pytest.mark.parametrize("strategy", ["trim", "summarise"])
async def test_row_17_two_thousand_messages_stay_within_the_limit_and_none_is_lost(
    endpoint: Endpoint, strategy: str
) -> None:
    def answer(request: dict[str, Any]) -> Text:
        return Text("Noted." if request.get("tools") else "A summary of what was said.")

    endpoint.answer = answer
    assistant = open_graph("assistant")
    old = history(2_000)
    await assistant.aupdate_state(TURN, {"messages": old}, as_node="answer")
    context = {"max_tokens": 2_000, "strategy": strategy}
    for n in range(3):
        await assistant.ainvoke(user(f"And now? {n}"), TURN, context=context)
    state = (await assistant.aget_state(TURN)).values
    assert [m.id for m in state["messages"]][:2_000] == [m.id for m in old]
    assert [m.text for m in state["messages"]][:2_000] == [m.text for m in old]
    assert len(state["messages"]) == 2_006
    assert max(sent(request) for request in endpoint.requests) <= 2_000
    last = endpoint.requests[-1]["messages"]
    assert last[-1]["content"] == "And now? 2"
    calls = [call["id"] for m in last for call in m.get("tool_calls", [])]
    assert calls == [m["tool_call_id"] for m in last if m["role"] == "tool"]
    if strategy == "summarise":
        assert "Earlier in this conversation: A summary" in last[0]["content"]
        # Folded once, in pieces; the two turns after it needed no new summary.
        kinds = [bool(request.get("tools")) for request in endpoint.requests]
        assert kinds.count(True) == 3
        assert kinds[-2:] == [True, True]
    else:
        assert len(endpoint.requests) == 3
        assert len(last) > 10


async def test_a_summary_is_not_streamed_to_the_user() -> None:
    assistant = open_graph("assistant")
    await assistant.aupdate_state(TURN, {"messages": history(100)}, as_node="answer")
    context = {"max_tokens": 1_000, "strategy": "summarise"}
    stream = assistant.astream(user("and now?"), TURN, context=context, stream_mode="messages")
    chunks: list[Any] = [chunk async for chunk, _ in stream]
    state = (await assistant.aget_state(TURN)).values
    assert state["summary"]["text"]
    assert "".join(chunk.text for chunk in chunks) == state["messages"][-1].text


async def test_a_message_past_the_limit_is_refused_and_the_session_goes_on() -> None:
    assistant = open_graph("assistant")
    context = {"max_tokens": 1_000}
    with pytest.raises(ValueError, match="the limit is"):
        await assistant.ainvoke(user("word " * 5_000), TURN, context=context)
    state = await assistant.ainvoke(user("hello"), TURN, context=context)
    assert state["messages"][-1].text.startswith("You said: hello")


async def test_what_is_remembered_in_one_session_is_known_in_the_next() -> None:
    store, saver = InMemoryStore(), InMemorySaver()
    assistant = open_graph("assistant", store=store, checkpointer=saver)
    # Twice, as after a crash: still one fact.
    await assistant.ainvoke(user("Remember that I drink 乌龙茶"), TURN)
    state = await assistant.ainvoke(user("Remember that I drink 乌龙茶"), TURN)
    assert state["messages"][-1].text.startswith("Kept: I drink 乌龙茶")
    elsewhere: RunnableConfig = {"configurable": {"thread_id": "another"}}
    state = await assistant.ainvoke(user("What do you know about me?"), elsewhere)
    assert state["messages"][-1].text.startswith("I drink 乌龙茶")
    assert len(store.search(("memories",))) == 1


class Login:
    """What a server puts into `configurable` for a user who is logged in."""

    def __init__(self, identity: str) -> None:
        self.identity = identity


async def test_memories_belong_to_the_user_who_is_logged_in() -> None:
    assistant = open_graph("assistant")

    async def say(text: str, name: str) -> str:
        login = {"thread_id": f"of {name}", "langgraph_auth_user": Login(name)}
        state = await assistant.ainvoke(user(text), {"configurable": login})
        return state["messages"][-1].text

    # A dot in the name is no obstacle.
    await say("remember that I like tea", "ada@example.com")
    assert (await say("what do you know about me?", "ada@example.com")).startswith("I like tea")
    assert (await say("what do you know about me?", "bob@example.com")).startswith("Nothing yet")


async def test_without_a_store_the_assistant_works_and_says_that_nothing_was_kept() -> None:
    assistant = open_graph("assistant", store=None)
    state = await assistant.ainvoke(user("remember that I like tea"), TURN)
    assert "Nothing was kept" in state["messages"][-1].text


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("1/0", "ZeroDivisionError"),
        ("__import__('os').getcwd()", "not arithmetic"),
        ("2**99999999", "not arithmetic"),
        ("1 +", "SyntaxError"),
        ("9" * 300, "at most 200"),
    ],
)
async def test_a_tool_that_fails_is_told_to_the_model_and_the_turn_goes_on(
    endpoint: Endpoint, expression: str, said: str
) -> None:
    arguments = json.dumps({"expression": expression})
    endpoint.replies(Calls([("calculate", arguments)]), Text("That did not work."))
    state = await open_graph("assistant").ainvoke(user("calculate"), TURN)
    failed = state["messages"][2]
    assert failed.status == "error"
    assert said in failed.text
    assert state["messages"][-1].text == "That did not work."


async def test_calculating() -> None:
    calculate = load("assistant").calculate
    for expression, value in {"2+3*4": "14", "-(1.5-3)": "1.5", "7 % 4": "3"}.items():
        assert calculate.invoke({"expression": expression}) == value


async def test_a_turn_that_was_cut_off_before_its_tool_ran_can_be_followed(
    endpoint: Endpoint,
) -> None:
    assistant = open_graph("assistant")
    call = {"name": "now", "args": {}, "id": "open"}
    cut = [HumanMessage("time?"), AIMessage("", tool_calls=[call])]
    await assistant.aupdate_state(TURN, {"messages": cut}, as_node="answer")
    await assistant.ainvoke(user("never mind"), TURN)
    roles = [m["role"] for m in endpoint.requests[0]["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "user"]


async def test_nothing_to_answer_is_a_clear_error_and_the_session_goes_on() -> None:
    assistant = open_graph("assistant")
    with pytest.raises(ValueError, match="last message must be the user's"):
        await assistant.ainvoke({"messages": []}, TURN)
    with pytest.raises(ValueError, match="last message must be the user's"):
        await assistant.ainvoke({"messages": [{"role": "assistant", "content": "hm"}]}, TURN)
    state = await assistant.ainvoke(user("hello"), TURN)
    assert state["messages"][-1].text.startswith("You said: hello")


async def test_the_two_ways_of_a_fork_do_not_see_each_other() -> None:
    assistant = open_graph("assistant")
    await assistant.ainvoke(user("first"), TURN)
    middle = (await assistant.aget_state(TURN)).config
    left = await assistant.ainvoke(user("left"), middle)
    right = await assistant.ainvoke(user("right"), middle)
    assert [m.text for m in left["messages"] if m.type == "human"] == ["first", "left"]
    assert [m.text for m in right["messages"] if m.type == "human"] == ["first", "right"]
