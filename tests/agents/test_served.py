"""Each graph as an app meets it: through the running server, with the official client. Streamed,
stopped for a human, resumed, forked half-way with both branches finished, and put back."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from tests.agents.fake_openai import Endpoint, Raw, Text
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


async def test_an_approval_waits_and_each_side_of_a_fork_answers_for_itself(app: App) -> None:
    thread = await app.thread()
    asked = await app.turn(thread, "approval", REFUND)
    (question,) = asked["__interrupt__"]
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
    async with asyncio.timeout(30):
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
