"""Each graph as an app meets it: through the running server, with the official client. Streamed,
stopped for a human, resumed, forked half-way with both branches finished, and put back."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio
from langchain_core.messages import convert_to_openai_messages
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from tests.agents.fake_openai import Calls, Cut, Endpoint, Raw, Text
from tests.agents.test_assistant import history, sent
from tests.agents.test_librarian import DOCUMENTS
from tests.serving import AGENTS, serve

APPROVE = {"decision": "approve"}
REFUND = "refund order 7, 30 EUR"


@dataclass
class App:
    """The official client, and plain HTTP for what it has no word for."""

    client: LangGraphClient
    http: httpx.AsyncClient

    async def thread(self) -> str:
        return (await self.client.threads.create())["thread_id"]

    async def turn(self, thread_id: str, graph: str, text: str, **more: Any) -> dict[str, Any]:
        values: Any = await self.client.runs.wait(thread_id, graph, input=said(text), **more)
        return values

    async def stream(self, thread_id: str, graph: str, text: str, mode: Any) -> list[Any]:
        parts = self.client.runs.stream(thread_id, graph, input=said(text), stream_mode=mode)
        return [part async for part in parts]

    async def post(self, path: str, **body: Any) -> Any:
        answer = await self.http.post(path, json=body)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    async def messages(self, thread_id: str) -> list[str]:
        state = await self.client.threads.get_state(thread_id)
        values: Any = state["values"]
        return [words(message) for message in values["messages"]]


def said(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def words(message: dict[str, Any]) -> str:
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


@pytest_asyncio.fixture
async def app(dsn: str) -> AsyncGenerator[App]:
    async with (
        serve(dsn, config=AGENTS) as url,
        get_client(url=url) as client,
        httpx.AsyncClient(base_url=url, timeout=60) as http,
    ):
        yield App(client, http)


TURNS = {
    "echo": ("say this back", "and 这个 too"),
    "assistant": ("What time is it?", "And what is 6 * 7?"),
    "analyst": ("What is the total revenue?", "Revenue by region"),
    "librarian": ("When do orders leave the warehouse?", "Are grinders covered?"),
}


@pytest.mark.parametrize("graph", TURNS)
async def test_a_graph_streams_is_forked_half_way_and_put_back(app: App, graph: str) -> None:
    first, second = TURNS[graph]
    thread = await app.thread()
    if graph == "librarian":
        documents: dict[str, Any] = {"documents": DOCUMENTS}
        await app.client.runs.wait(thread, graph, input=documents)
    parts = await app.stream(thread, graph, first, ["messages-tuple", "values", "custom"])
    assert [parts[0].event, parts[-1].event] == ["metadata", "end"]
    assert not [part for part in parts if part.event == "error"]
    after_one = await app.messages(thread)
    # A graph without a model has one message to stream, the others the tokens of theirs.
    tokens = [part.data[0] for part in parts if part.event == "messages"]
    assert after_one[-1] in "".join(words(token) for token in tokens)
    assert len(tokens) >= (1 if graph == "echo" else 5)
    half_way = (await app.client.threads.get_state(thread))["checkpoint"]["checkpoint_id"]
    await app.turn(thread, graph, second)
    after_two = await app.messages(thread)
    assert after_two[: len(after_one)] == after_one

    fork = (await app.post(f"/sessions/{thread}/fork", checkpoint_id=half_way))["thread_id"]
    assert await app.messages(fork) == after_one
    await app.turn(fork, graph, first)
    assert (await app.messages(fork))[: len(after_one)] == after_one
    assert len(await app.messages(fork)) > len(after_one)
    assert await app.messages(thread) == after_two  # nothing of the one shows in the other
    await app.turn(thread, graph, first)

    await app.post(f"/sessions/{thread}/restore", checkpoint_id=half_way)
    assert await app.messages(thread) == after_one
    await app.post(f"/sessions/{thread}/undo")
    assert (await app.messages(thread))[: len(after_two)] == after_two
    assert len(await app.messages(thread)) > len(after_two)


HALF_WAY = {"echo": "echo", "assistant": "tools", "analyst": "query", "librarian": "answer"}


@pytest.mark.parametrize("graph", HALF_WAY)
async def test_a_turn_that_is_stopped_half_way_is_finished_on_both_sides_of_a_fork(
    app: App, graph: str
) -> None:
    thread = await app.thread()
    if graph == "librarian":
        documents: dict[str, Any] = {"documents": DOCUMENTS}
        await app.client.runs.wait(thread, graph, input=documents)
    await app.turn(thread, graph, TURNS[graph][0], interrupt_before=[HALF_WAY[graph]])
    here = await app.client.threads.get_state(thread)
    assert here["next"] == [HALF_WAY[graph]]
    checkpoint_id = here["checkpoint"]["checkpoint_id"]
    fork = (await app.post(f"/sessions/{thread}/fork", checkpoint_id=checkpoint_id))["thread_id"]
    asked = await app.messages(thread)
    finished: list[list[str]] = []
    for each in (fork, thread):
        assert await app.messages(each) == asked
        await app.client.runs.wait(each, graph)
        finished.append(await app.messages(each))
        assert (await app.client.threads.get_state(each))["next"] == []
    await app.post(f"/sessions/{thread}/restore", checkpoint_id=checkpoint_id)
    assert (await app.client.threads.get_state(thread))["next"] == [HALF_WAY[graph]]
    await app.client.runs.wait(thread, graph)
    finished.append(await app.messages(thread))
    for messages in finished:
        assert messages[: len(asked)] == asked
        assert len(messages) > len(asked)
        if graph != "assistant":  # whose clock goes on
            assert messages == finished[0]


async def test_an_approval_waits_and_each_side_of_a_fork_answers_for_itself(app: App) -> None:
    thread = await app.thread()
    parts = await app.stream(thread, "approval", REFUND, "updates")
    assert not [part for part in parts if part.event == "error"]
    told: list[Any] = [part.data for part in parts if part.event == "updates"]
    assert [*told[0], *told[-1]] == ["propose", "__interrupt__"]
    (question,) = told[-1]["__interrupt__"]
    assert question["response_schema"]["properties"]["decision"]
    assert (await app.client.threads.get(thread))["status"] == "interrupted"
    state = await app.client.threads.get_state(thread)
    here = state["checkpoint"]["checkpoint_id"]
    fork = (await app.post(f"/sessions/{thread}/fork", checkpoint_id=here))["thread_id"]
    assert (await app.client.threads.get(fork))["status"] == "interrupted"

    done: Any = await app.client.runs.wait(
        thread, "approval", command={"resume": {question["id"]: APPROVE}}
    )
    no = {"decision": "reject", "reason": "not ours"}
    left: Any = await app.client.runs.wait(
        fork, "approval", command={"resume": {question["id"]: no}}
    )
    assert [m["status"] for m in done["messages"] if m["type"] == "tool"] == ["success"]
    assert [m["status"] for m in left["messages"] if m["type"] == "tool"] == ["error"]

    # Put back, the question is open again, and may be answered otherwise.
    await app.post(f"/sessions/{thread}/restore", checkpoint_id=here)
    again = await app.client.threads.get_state(thread)
    assert [item["id"] for item in again["interrupts"]] == [question["id"]]
    changed: Any = await app.client.runs.wait(
        thread, "approval", command={"resume": {question["id"]: no}}
    )
    assert [m["status"] for m in changed["messages"] if m["type"] == "tool"] == ["error"]


async def test_two_approvals_of_one_turn_are_answered_one_by_one(app: App) -> None:
    thread = await app.thread()
    asked = await app.turn(
        thread, "approval", "Refund order 1042, 12.50 EUR, and tell a.b@example.com"
    )
    one, two = asked["__interrupt__"]
    left: Any = await app.client.runs.wait(
        thread, "approval", command={"resume": {one["id"]: APPROVE}}
    )
    assert [item["id"] for item in left["__interrupt__"]] == [two["id"]]
    done: Any = await app.client.runs.wait(
        thread, "approval", command={"resume": {two["id"]: APPROVE}}
    )
    assert len([m for m in done["messages"] if m["type"] == "tool"]) == 2


async def test_an_approval_is_declined_when_its_time_is_over(app: App) -> None:
    thread = await app.thread()
    run = await app.client.runs.create(
        thread, "approval", input=said(REFUND), context={"time_limit": "PT1S"}
    )
    await app.client.runs.join(thread, run["run_id"])
    async with asyncio.timeout(100):  # a hang, on however slow a machine
        # The server answers in the human's place: a run of its own, which the thread then shows.
        while (await app.client.threads.get(thread))["status"] != "idle":
            runs = await app.client.runs.list(thread, limit=1)
            await app.client.runs.join(thread, runs[0]["run_id"])
    state: Any = (await app.client.threads.get_state(thread))["values"]
    assert [m["status"] for m in state["messages"] if m["type"] == "tool"] == ["error"]


async def test_the_analyst_answers_in_parts_and_tells_how_far_it_is(app: App) -> None:
    thread = await app.thread()
    parts = await app.stream(thread, "analyst", "各地区的收入", ["custom", "values"])
    stages = [part.data["stage"] for part in parts if part.event == "custom"]
    assert len(stages) >= 2
    last = [part for part in parts if part.event == "values"][-1].data["messages"][-1]
    assert len(last["content"]) >= 3


async def test_an_identical_question_is_answered_from_the_cache_of_the_server(app: App) -> None:
    stages: list[list[str]] = []
    for question in ("Revenue by region", "Revenue by  region", "Orders by region"):
        parts = await app.stream(await app.thread(), "analyst", question, "custom")
        stages.append([part.data["stage"] for part in parts if part.event == "custom"])
    assert [found == ["telling"] for found in stages] == [False, True, False]


async def test_what_one_session_is_told_the_next_one_knows(app: App) -> None:
    await app.turn(await app.thread(), "assistant", "remember that I drink 乌龙茶")
    state = await app.turn(await app.thread(), "assistant", "What do you know about me?")
    # The fact shares no word with the question.
    assert words(state["messages"][-1]).startswith("I drink 乌龙茶")


async def test_the_librarian_cites_what_lies_in_the_store_of_the_server(app: App) -> None:
    thread = await app.thread()
    texts = {document["name"]: document["text"] for document in DOCUMENTS}
    # It shares "what", "is", "the" and "of" with a question, and nothing that says something.
    texts["chat.txt"] = "The owner of this shop is never sure what is next."
    documents: Any = {"documents": [{"name": n, "text": t} for n, t in texts.items()]}
    await app.client.runs.wait(thread, "librarian", input=documents)
    for question, name in {
        "Are grinders covered?": "terms.md",
        "订单多久发货？": "说明.txt",
    }.items():
        answer = (await app.turn(thread, "librarian", question))["messages"][-1]["content"][0]
        assert answer["annotations"][0]["title"] == name
        for citation in answer["annotations"]:
            extras = citation["extras"]
            cited = texts[extras["document"]][extras["start"] : extras["end"]]
            assert cited == citation["cited_text"]
            claim = answer["text"][citation["start_index"] : citation["end_index"]]
            assert claim.partition("[")[0].strip() in cited
    state = await app.turn(thread, "librarian", "What is the capital of France?")
    assert words(state["messages"][-1]) == "The documents do not answer this."


@pytest.mark.parametrize("strategy", ["trim", "summarise"])
async def test_two_thousand_messages_are_kept_and_the_model_is_shown_what_fits(
    endpoint: Endpoint, app: App, strategy: str
) -> None:
    thread = (await app.client.threads.create(graph_id="assistant"))["thread_id"]
    old = history(2_000)
    values = {"messages": convert_to_openai_messages(old, include_id=True)}
    await app.client.threads.update_state(thread, values, as_node="answer")
    context: Any = {"max_tokens": 2_000, "strategy": strategy}
    for text in ("And now?", "And then?"):
        state = await app.turn(thread, "assistant", text, context=context)
        assert words(state["messages"][-1]) == "Hello from the endpoint."
    assert len(endpoint.requests) == 2 if strategy == "trim" else len(endpoint.requests) > 2
    assert max(sent(request) for request in endpoint.requests) <= 2_000
    kept = await app.messages(thread)
    assert kept[:2_000] == [message.text for message in old]
    assert len(kept) == 2_004


NOTHING: dict[str, Any] = {"messages": []}
NO_TEXT = {"name": "tea.txt", "base64": "//8="}
BAD: dict[str, list[tuple[dict[str, Any], dict[str, Any], str]]] = {
    "echo": [(NOTHING, {}, "at least one message")],
    "assistant": [
        (NOTHING, {}, "the last message must be the user's"),
        (said("word " * 5_000), {"max_tokens": 1_000}, "and the limit is"),
    ],
    "approval": [(NOTHING, {}, "the last message must be the user's")],
    "analyst": [
        (NOTHING, {}, "the last message must be the user's"),
        (said("  "), {}, "The question is empty"),
        (said("Revenue by region"), {"dataset": "nowhere"}, "There is no data set 'nowhere'"),
        (said("What is the meaning of life?"), {}, "only questions about the sales data set"),
    ],
    "librarian": [
        (NOTHING, {}, "Ask a question, or send documents"),
        ({"documents": [{"name": "tea.pdf", "text": "x"}]}, {}, "tea.pdf: cannot read this type"),
        ({"documents": [NO_TEXT]}, {}, "tea.txt: this is not UTF-8 text"),
    ],
}


@pytest.mark.parametrize("graph", BAD)
async def test_bad_input_is_one_clear_error_and_the_session_goes_on(app: App, graph: str) -> None:
    thread = await app.thread()
    for given, context, told in BAD[graph]:
        more: Any = {"context": context} if context else {}
        parts = [p async for p in app.client.runs.stream(thread, graph, input=given, **more)]
        (error,) = [part.data for part in parts if part.event == "error"]
        assert told in error["message"]
        assert (await app.client.threads.get(thread))["status"] == "error"
        good = "Orders in 2024" if graph == "analyst" else "hello"
        state = await app.turn(thread, graph, good)
        assert state["messages"][-1]["type"] == "ai"
        assert (await app.client.threads.get(thread))["status"] == "idle"


async def test_an_answer_that_does_not_fit_is_one_error_and_the_question_stays(app: App) -> None:
    thread = await app.thread()
    (question,) = (await app.turn(thread, "approval", REFUND))["__interrupt__"]
    answer: Any = {"resume": {question["id"]: {"decision": "maybe"}}}
    parts = [p async for p in app.client.runs.stream(thread, "approval", command=answer)]
    (error,) = [part.data for part in parts if part.event == "error"]
    assert "decision" in error["message"]
    state = await app.client.threads.get_state(thread)
    assert [item["id"] for item in state["interrupts"]] == [question["id"]]
    answer = {"resume": {question["id"]: APPROVE}}
    done: Any = await app.client.runs.wait(thread, "approval", command=answer)
    assert [m["status"] for m in done["messages"] if m["type"] == "tool"] == ["success"]


RUBBISH = {
    "a web page": Raw("<html>Bad gateway</html>", content_type="text/html"),
    "an error": Raw('{"error": {"message": "no such model"}}', 404),
    "an end in the middle": Cut("select 1"),
}


@pytest.mark.parametrize("graph", ["assistant", "approval", "analyst", "librarian"])
async def test_a_model_that_answers_rubbish_is_one_error_and_the_session_goes_on(
    endpoint: Endpoint, app: App, graph: str
) -> None:
    thread = await app.thread()
    if graph == "librarian":
        documents: dict[str, Any] = {"documents": DOCUMENTS}
        await app.client.runs.wait(thread, graph, input=documents)
    for rubbish in RUBBISH.values():
        endpoint.replies(rubbish)
        parts = await app.stream(thread, graph, "When do orders leave?", "values")
        (error,) = [part.data for part in parts if part.event == "error"]
        assert error["error"] == "ModelError"
        assert "The model endpoint" in error["message"]
        endpoint.replies(Text("select 1 as n"))
        state = await app.turn(thread, graph, "When do orders leave the warehouse?")
        assert state["messages"][-1]["type"] == "ai"


async def test_what_a_tool_and_a_database_refuse_is_told(endpoint: Endpoint, app: App) -> None:
    thread = await app.thread()
    endpoint.replies(Calls([("calculate", '{"expression": "1/0"}')]), Text("That has no value."))
    state = await app.turn(thread, "assistant", "1/0?")
    assert [m["status"] for m in state["messages"] if m["type"] == "tool"] == ["error"]
    assert words(state["messages"][-1]) == "That has no value."
    thread = await app.thread()
    for statement, told in {"delete from orders": "not authorized", "selec": "syntax"}.items():
        endpoint.replies(Text(statement))
        parts = await app.stream(thread, "analyst", "How many orders?", "custom")
        stages = [part.data["stage"] for part in parts if part.event == "custom"]
        assert stages.count("SQL failed") == 2
        (error,) = [part.data for part in parts if part.event == "error"]
        assert error["message"].startswith("No valid SQL was found")
        assert told in error["message"]


async def test_a_model_that_is_down_is_one_error_and_the_session_goes_on(
    endpoint: Endpoint, app: App
) -> None:
    thread = await app.thread()
    endpoint.replies(Text("Hello from the endpoint"))
    assert words((await app.turn(thread, "assistant", "hi"))["messages"][-1]) == (
        "Hello from the endpoint"
    )
    endpoint.replies(Raw('{"error": {"message": "down"}}', 500))
    parts = await app.stream(thread, "assistant", "are you there?", "values")
    assert [part.event for part in parts if part.event == "error"] == ["error"]
    endpoint.replies(Text("Back again"))
    assert words((await app.turn(thread, "assistant", "and now?"))["messages"][-1]) == "Back again"
