"""The clients' `threads.stream`: protocol v2 with all that it projects, in both clients."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from tests.sdk.official import Official, public, shows

Json = dict[str, Any]
T = TypeVar("T")

HI: Json = {"messages": [{"role": "user", "content": "hi"}]}
COMMANDS = "POST /threads/{thread_id}/commands"
EVENTS = "POST /threads/{thread_id}/stream/events"

# What a thread's stream has for its users, and the test that shows it.
PROJECTIONS = {
    "agent": "test_the_graph_of_a_stream_is_drawn",
    "assistant_id": "test_the_graph_of_a_stream_is_drawn",
    "close": "test_a_stream_that_was_closed_is_over",
    "events": "test_every_event_is_there_to_read",
    "extensions": "test_custom_events_are_read_by_their_name",
    "interleave_projections": "test_projections_are_read_together",
    "interrupted": "test_a_question_is_heard_and_answered",
    "interrupts": "test_a_question_is_heard_and_answered",
    "messages": "test_a_message_arrives_token_by_token",
    "observe_applied_through_seq": "test_a_stream_goes_on_after_what_a_command_was_told",
    "output": "test_a_run_is_started_and_its_output_awaited",
    "run": "test_a_run_is_started_and_its_output_awaited",
    "subagents": "test_a_subgraph_has_a_stream_of_its_own",
    "subgraphs": "test_a_subgraph_has_a_stream_of_its_own",
    "subscribe": "test_a_subscription_is_to_channels",
    "thread_id": "test_a_run_is_started_and_its_output_awaited",
    "tool_calls": "test_tool_calls_have_names_inputs_and_outputs",
    "values": "test_values_are_iterated",
}


def test_everything_that_a_stream_projects_is_shown(official: Official) -> None:
    stream = official.client.threads.stream(assistant_id="steps")
    names = public(stream)
    assert names - PROJECTIONS.keys() == set()
    # One helper is the async client's alone.
    assert PROJECTIONS.keys() - names <= {"observe_applied_through_seq"}
    assert set(PROJECTIONS.values()) <= globals().keys()


async def both(
    official: Official,
    graph: str,
    of_async: Callable[[Any], Any],
    of_sync: Callable[[Any], Any],
    **given: Any,
) -> Any:
    """The same script in the words of either client, on a new stream."""
    client: Any = official.client
    if official.kind == "async":
        async with client.threads.stream(assistant_id=graph, **given) as stream:
            return await of_async(stream)

    def run() -> Any:
        with client.threads.stream(assistant_id=graph, **given) as stream:
            return of_sync(stream)

    return await asyncio.to_thread(run)


@shows("threads.stream", COMMANDS, EVENTS)
async def test_a_run_is_started_and_its_output_awaited(official: Official) -> None:
    async def a(stream: Any) -> Any:
        started = await stream.run.start(input={"x": ["in"]}, metadata={"m": 1})
        return stream.thread_id, started, await stream.output

    def s(stream: Any) -> Any:
        started = stream.run.start(input={"x": ["in"]}, metadata={"m": 1})
        return stream.thread_id, started, stream.output

    thread_id, started, output = await both(official, "steps", a, s)
    assert output == {"x": ["in", "one", "two"], "n": 1}
    run = await official.runs.get(thread_id, started["run_id"])
    assert (run["status"], run["metadata"]["m"]) == ("success", 1)


async def test_a_message_arrives_token_by_token(official: Official) -> None:
    async def a(stream: Any) -> Any:
        await stream.run.start(input=HI)
        # The client's own reader stands still while a message is awaited within its loop.
        [message] = [message async for message in stream.messages]
        return [token async for token in message.text], await message.text

    def s(stream: Any) -> Any:
        stream.run.start(input=HI)
        [message] = list(stream.messages)
        return list(message.text), str(message.text)

    tokens, text = await both(official, "tokens", a, s)
    assert "".join(tokens) == text == "It is sunny today in 北京"
    assert len(tokens) > 5


async def test_tool_calls_have_names_inputs_and_outputs(official: Official) -> None:
    async def a(stream: Any) -> Any:
        await stream.run.start(input=HI)
        [call] = [call async for call in stream.tool_calls]
        return call.tool_call_id, call.name, call.input, await call.output

    def s(stream: Any) -> Any:
        stream.run.start(input=HI)
        [call] = list(stream.tool_calls)
        return call.tool_call_id, call.name, call.input, call.output

    at, name, given, output = await both(official, "tools", a, s)
    assert (at, name, given) == ("call_1", "weather", {"city": "北京"})
    assert output["content"] == "sunny in 北京"


async def test_a_subgraph_has_a_stream_of_its_own(official: Official) -> None:
    async def a(stream: Any) -> Any:
        await stream.run.start(input={"x": ["in"]})
        [child] = [child async for child in stream.subgraphs]
        return child.path, child.graph_name, child.status, stream.subagents is stream.subgraphs

    def s(stream: Any) -> Any:
        stream.run.start(input={"x": ["in"]})
        [child] = list(stream.subgraphs)
        return child.path, child.graph_name, child.status, stream.subagents is stream.subgraphs

    path, name, status, same = await both(official, "nested", a, s)
    assert path[0].startswith("child:")
    assert (name, status, same) == ("child", "completed", True)


async def test_custom_events_are_read_by_their_name(official: Official) -> None:
    async def a(stream: Any) -> Any:
        await stream.run.start(input={"x": ["in"]})
        return [event async for event in stream.extensions["progress"]]

    def s(stream: Any) -> Any:
        stream.run.start(input={"x": ["in"]})
        return list(stream.extensions["progress"])

    told = await both(official, "nested", a, s)
    assert told == [{"name": "progress", "payload": {"name": "progress", "done": 1}}]


async def test_projections_are_read_together(official: Official) -> None:
    channels = ["values", "updates", "checkpoints", "tasks"]

    async def a(stream: Any) -> Any:
        await stream.run.start(input={"x": ["in"]})
        return [item async for item in stream.interleave_projections(channels)]

    def s(stream: Any) -> Any:
        stream.run.start(input={"x": ["in"]})
        return list(stream.interleave_projections(channels))

    told = await both(official, "steps", a, s)
    assert [item for name, item in told if name == "updates"] == [
        {"node": "one", "values": {"x": ["one"]}},
        {"node": "two", "values": {"x": ["two"], "n": 1}},
    ]
    assert [item["x"] for name, item in told if name == "values"][-1] == ["in", "one", "two"]
    checkpoints = [item for name, item in told if name == "checkpoints"]
    assert [item["source"] for item in checkpoints] == ["input", "loop", "loop", "loop"]
    assert [item["parent_id"] for item in checkpoints[1:]] == [
        item["id"] for item in checkpoints[:-1]
    ]
    tasks = [item for name, item in told if name == "tasks"]
    assert [("result" in item, item["name"]) for item in tasks] == [
        *((False, "one"), (True, "one"), (False, "two"), (True, "two"))
    ]


async def test_values_are_iterated(official: Official) -> None:
    async def a(stream: Any) -> Any:
        await stream.run.start(input={"x": ["in"]})
        return [values async for values in stream.values], await stream.values

    def s(stream: Any) -> Any:
        stream.run.start(input={"x": ["in"]})
        return list(stream.values), stream.values.get()

    seen, last = await both(official, "steps", a, s)
    assert seen[-1] == last == {"x": ["in", "one", "two"], "n": 1}


async def test_a_question_is_heard_and_answered(official: Official) -> None:
    async def a(stream: Any) -> Any:
        await stream.run.start(input={"x": ["in"]})
        async for _ in stream.values:
            pass
        heard = stream.interrupted, list(stream.interrupts)
        await stream.run.respond("yes")
        return *heard, await stream.output

    def s(stream: Any) -> Any:
        stream.run.start(input={"x": ["in"]})
        for _ in stream.values:
            pass
        heard = stream.interrupted, list(stream.interrupts)
        stream.run.respond("yes")
        return *heard, stream.output

    interrupted, [question], output = await both(official, "ask", a, s)
    assert interrupted is True
    assert question["value"] == {"question": "approve?"}
    assert output == {"x": ["in", "two"], "n": 1, "answer": "yes"}


@pytest.mark.parametrize("transport", ["sse", "websocket"])
async def test_a_subscription_is_to_channels(official: Official, transport: str) -> None:
    async def a(stream: Any) -> Any:
        await stream.run.start(input={"x": ["in"]})
        return [
            event
            async for event in stream.subscribe(["custom", "lifecycle"], namespaces=[[]], depth=0)
        ]

    def s(stream: Any) -> Any:
        stream.run.start(input={"x": ["in"]})
        return list(stream.subscribe(["custom", "lifecycle"], namespaces=[[]], depth=0))

    told = await both(official, "steps", a, s, transport=transport)
    assert ("custom", {"payload": {"hello": "from one"}}) in [
        (event["method"], event["params"]["data"]) for event in told
    ]
    assert {event["method"] for event in told} <= {"custom", "lifecycle"}
    numbers = [event["seq"] for event in told]
    assert numbers == sorted(set(numbers))


async def test_every_event_is_there_to_read(official: Official) -> None:
    def last(event: Json) -> bool:
        return event["method"] == "lifecycle" and event["params"]["data"]["event"] == "completed"

    async def a(stream: Any) -> Any:
        await stream.run.start(input={"x": ["in"]})
        told: list[Json] = []
        async for event in stream.events:
            told.append(event)
            if last(event):
                break
        return told

    def s(stream: Any) -> Any:
        stream.run.start(input={"x": ["in"]})
        told: list[Json] = []
        for event in stream.events:
            told.append(event)
            if last(event):
                break
        return told

    told = await both(official, "steps", a, s)
    assert {event["method"] for event in told} == {
        *("lifecycle", "values", "updates", "checkpoints", "tasks", "custom")
    }
    assert len({event["event_id"] for event in told}) == len(told)
    assert told[0]["event_id"].startswith("synth:")


async def test_the_graph_of_a_stream_is_drawn(official: Official) -> None:
    async def a(stream: Any) -> Any:
        return stream.assistant_id, await stream.agent.get_tree(xray=True)

    def s(stream: Any) -> Any:
        return stream.assistant_id, stream.agent.get_tree(xray=True)

    name, drawn = await both(official, "parent", a, s)
    assert name == "parent"
    assert "child:inner" in [node["id"] for node in drawn["nodes"]]


async def test_a_stream_that_was_closed_is_over(official: Official) -> None:
    async def a(stream: Any) -> Any:
        await stream.run.start(input={"x": ["in"]})
        await stream.close()
        with pytest.raises(RuntimeError, match="closed"):
            await stream.agent.get_tree()

    def s(stream: Any) -> Any:
        stream.run.start(input={"x": ["in"]})
        stream.close()
        with pytest.raises(RuntimeError, match="closed"):
            stream.agent.get_tree()

    await both(official, "steps", a, s)


async def test_a_stream_goes_on_after_what_a_command_was_told(url: str) -> None:
    official = Official("async", url)
    at = (await official.threads.create())["thread_id"]
    await official.runs.wait(at, "steps", input={"x": ["first"]})
    async with official.client.threads.stream(at, assistant_id="steps") as stream:
        observed: list[int] = []
        plain = stream.observe_applied_through_seq
        stream.observe_applied_through_seq = lambda seq: (observed.append(seq), plain(seq))
        await stream.run.start(input={"x": ["second"]})
        told = [event async for event in stream.subscribe(["values"])]
    await official.aclose()
    # The command is told a real place in the thread, and what was before it is not told again.
    assert observed[0] > 0
    assert all(event["seq"] > observed[0] for event in told)
    assert told[-1]["params"]["data"]["x"][-1] == "two"
