"""One thin slice through everything, with the official client."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import NotFoundError

from tests.serving import serve


@pytest_asyncio.fixture
async def url(dsn: str) -> AsyncIterator[str]:
    async with serve(dsn) as base:
        yield base


@pytest_asyncio.fixture
async def client(url: str) -> AsyncIterator[LangGraphClient]:
    async with get_client(url=url) as official:
        yield official


def hello(text: str = "Hello, Clew") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


async def test_a_turn_streams_values_and_the_session_remembers_it(client: LangGraphClient) -> None:
    thread = await client.threads.create()
    parts = [
        part
        async for part in client.runs.stream(
            thread["thread_id"], "echo", input=hello(), stream_mode="values"
        )
    ]
    assert [part.event for part in parts] == ["metadata", "values", "values", "end"]
    assert parts[-2].data["messages"][-1]["content"] == "Hello, Clew"
    values: Any = (await client.threads.get_state(thread["thread_id"]))["values"]
    assert [m["content"] for m in values["messages"]] == ["Hello, Clew"] * 2
    history = await client.threads.get_history(thread["thread_id"])
    assert [(item["metadata"] or {})["step"] for item in history] == [1, 0, -1]


async def test_a_second_turn_goes_on_where_the_first_ended(client: LangGraphClient) -> None:
    thread = await client.threads.create()
    for text in ("one", "二"):
        await client.runs.wait(thread["thread_id"], "echo", input=hello(text))
    values: Any = (await client.threads.get_state(thread["thread_id"]))["values"]
    assert [m["content"] for m in values["messages"]] == ["one", "one", "二", "二"]


async def test_tokens_stream_one_by_one_and_share_the_message_id(client: LangGraphClient) -> None:
    thread = await client.threads.create()
    stream = client.runs.stream(
        thread["thread_id"], "tokens", input=hello(), stream_mode=["messages-tuple", "values"]
    )
    chunks = [part.data[0] async for part in stream if part.event == "messages"]
    assert "".join(chunk["content"] for chunk in chunks) == "It is sunny today in 北京"
    assert len(chunks) > 5
    assert len({chunk["id"] for chunk in chunks}) == 1


async def test_a_run_without_a_thread_leaves_nothing_behind(
    client: LangGraphClient, url: str
) -> None:
    parts = [part async for part in client.runs.stream(None, "echo", input=hello("x"))]
    assert parts[-2].data["messages"][-1]["content"] == "x"
    assert await client.threads.search() == []


async def test_a_graph_that_does_not_exist_is_named_with_those_that_do(
    client: LangGraphClient, url: str
) -> None:
    thread = await client.threads.create()
    async with httpx.AsyncClient(base_url=url) as http:
        answer = await http.post(
            f"/threads/{thread['thread_id']}/runs/stream", json={"assistant_id": "nope"}
        )
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert "Invalid assistant: 'nope'" in answer.json()["detail"]
    assert "echo" in answer.json()["detail"]


async def test_an_unknown_thread_is_a_problem_with_a_detail(client: LangGraphClient) -> None:
    with pytest.raises(NotFoundError, match="not found"):
        await client.threads.get("00000000-0000-4000-8000-000000000000")


async def test_ok_and_info_answer_without_asking_who_calls(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as http:
        assert (await http.get("/ok?check_db=1")).json()["ok"] is True
        assert (await http.get("/info")).json()["langgraph_py_version"].startswith("1.2")
