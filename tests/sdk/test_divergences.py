"""Where Clew is knowingly unlike the official server; docs/compatibility.md names each test."""

import json
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import httpx
import pytest
import pytest_asyncio
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

Json = dict[str, Any]
NOBODY = "00000000-0000-4000-8000-000000000000"
IN: Json = {"x": ["in"]}
DONE: Json = {"x": ["in", "one", "two"], "n": 1}


@pytest_asyncio.fixture
async def http(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        yield client


@pytest_asyncio.fixture
async def client(url: str) -> AsyncIterator[LangGraphClient]:
    async with get_client(url=url) as official:
        yield official


@pytest_asyncio.fixture
async def at(http: httpx.AsyncClient) -> str:
    return (await http.post("/threads", json={})).json()["thread_id"]


def events(text: str) -> list[tuple[str, Any, str | None]]:
    """The frames of a stream: event, data, id."""
    found: list[tuple[str, Any, str | None]] = []
    for block in text.split("\r\n\r\n"):
        fields = dict(
            line.split(": ", 1) for line in block.split("\r\n") if not line.startswith(":") and line
        )
        if "event" in fields:
            found.append((fields["event"], json.loads(fields["data"]), fields.get("id")))
    return found


async def test_the_stream_of_a_thread_or_run_that_is_not_ones_own_is_a_404(
    http: httpx.AsyncClient, at: str
) -> None:
    channels = {"channels": ["values"]}
    for method, path in (
        ("GET", f"/threads/{NOBODY}/stream"),
        ("GET", f"/threads/{NOBODY}/runs/{NOBODY}/stream"),
        ("GET", f"/threads/{at}/runs/{NOBODY}/stream"),
        ("GET", f"/threads/{at}/runs/{NOBODY}/join"),
        ("GET", f"/runs/{NOBODY}/stream"),
        ("POST", f"/threads/{NOBODY}/stream/events"),
    ):
        answer = await http.request(method, path, json=channels if method == "POST" else None)
        assert answer.status_code == 404, path


async def test_every_stream_of_a_run_ends_with_an_end(http: httpx.AsyncClient, at: str) -> None:
    for graph, status in (("steps", "success"), ("ask", "success"), ("fails", "error")):
        body = {"assistant_id": graph, "input": IN, "multitask_strategy": "enqueue"}
        answer = await http.post(f"/threads/{at}/runs/stream", json=body)
        name, data, _ = events(answer.text)[-1]
        assert (name, data["status"]) == ("end", status)


async def test_every_event_of_a_run_has_an_id_to_resume_by(
    http: httpx.AsyncClient, at: str
) -> None:
    body = {"assistant_id": "steps", "input": IN, "stream_resumable": False}
    answer = await http.post(f"/threads/{at}/runs/stream", json=body)
    told = events(answer.text)
    assert all(id_ for _, _, id_ in told)
    location = answer.headers["location"]
    rest = await http.get(location, headers={"Last-Event-ID": told[1][2] or ""})
    assert events(rest.text) == told[2:]


async def test_a_location_keeps_its_query(http: httpx.AsyncClient, at: str) -> None:
    run = (
        await http.post(f"/threads/{at}/runs", json={"assistant_id": "steps", "input": IN})
    ).json()
    path = f"/threads/{at}/runs/{run['run_id']}/stream"
    answer = await http.get(f"{path}?stream_mode=values", headers={"Last-Event-ID": "-"})
    assert answer.headers["location"] == f"{path}?stream_mode=values"
    assert answer.headers["content-location"] == f"/threads/{at}/runs/{run['run_id']}"


async def test_repeated_stream_modes_all_count(http: httpx.AsyncClient, at: str) -> None:
    body = {"assistant_id": "steps", "input": IN, "stream_mode": ["values", "updates", "custom"]}
    run = (await http.post(f"/threads/{at}/runs", json=body)).json()["run_id"]
    path = f"/threads/{at}/runs/{run}/stream"
    for query in ("stream_mode=custom&stream_mode=updates", 'stream_mode=["custom","updates"]'):
        answer = await http.get(f"{path}?{query}", headers={"Last-Event-ID": "-"})
        assert {name for name, _, _ in events(answer.text)} == {"custom", "updates", "end"}


async def test_a_run_without_a_thread_can_be_read_and_joined(http: httpx.AsyncClient) -> None:
    body = {"assistant_id": "steps", "input": IN, "on_completion": "keep"}
    run = (await http.post("/runs", json=body)).json()["run_id"]
    path = f"/runs/{run}/stream"
    answer = await http.get(path, headers={"Last-Event-ID": "-"})
    some = await http.get(f"{path}?stream_mode=custom", headers={"Last-Event-ID": "-"})
    assert {name for name, _, _ in events(some.text)} == {"end"}
    assert [data for name, data, _ in events(answer.text) if name == "values"][-1] == DONE
    assert (await http.get(f"/runs/{run}")).json()["status"] == "success"


async def test_a_question_has_both_payload_and_value(client: LangGraphClient) -> None:
    async with client.threads.stream(assistant_id="ask") as stream:
        await stream.run.start(input=IN)
        async for event in stream.subscribe(["input"]):
            data: Any = event["params"]["data"]
            assert data["payload"] == data["value"] == {"question": "approve?"}
            break


async def test_commands_say_how_far_the_thread_has_come(http: httpx.AsyncClient) -> None:
    start = {"id": 1, "method": "run.start", "params": {"assistant_id": "steps", "input": IN}}
    at = str(uuid.uuid4())
    told = [(await http.post(f"/threads/{at}/commands", json=start)).json() for _ in range(2)]
    first, second = (answer["meta"]["applied_through_seq"] for answer in told)
    assert 0 < first < second


async def test_a_thread_stream_tells_the_truth_of_a_cancelled_run(client: LangGraphClient) -> None:
    async with client.threads.stream(assistant_id="slow") as stream:
        started = await stream.run.start(input=IN)
        async for event in stream.subscribe(["custom", "lifecycle"]):
            data: Any = event["params"]["data"]
            if data == {"payload": {"waiting": True}}:
                await client.runs.cancel(stream.thread_id, started["run_id"])
            elif event["method"] == "lifecycle" and data["event"] != "running":
                assert data["event"] == "interrupted"
                break


async def test_totals_are_true(http: httpx.AsyncClient, client: LangGraphClient) -> None:
    mark = {"batch": str(uuid.uuid4())}
    for _ in range(5):
        await client.threads.create(metadata=mark)
        await client.assistants.create("steps", metadata=mark)
        await client.crons.create("steps", schedule="0 0 29 2 *", metadata=mark)
    for path in ("/threads/search", "/assistants/search", "/runs/crons/search"):
        for limit, offset, following in ((2, 0, "2"), (2, 4, None), (2, 10, None), (9, 0, None)):
            body = {"metadata": mark, "limit": limit, "offset": offset}
            answer = await http.post(path, json=body)
            assert answer.headers["x-pagination-total"] == "5", (path, limit, offset)
            assert answer.headers.get("x-pagination-next") == following


async def test_unknown_keys_are_ignored_and_named(http: httpx.AsyncClient) -> None:
    answer = await http.post("/threads", json={"metadata": {}, "moon": 1, "sun": 2})
    assert answer.status_code == 200
    assert answer.headers["x-clew-ignored"] == "moon, sun"


@pytest.mark.parametrize(
    ("field", "value"),
    [("feedback_keys", ["a"]), ("langsmith_tracer", {"project_name": "p"})],
)
async def test_what_needs_langsmith_is_refused_by_name(
    http: httpx.AsyncClient, field: str, value: Any
) -> None:
    answer = await http.post("/runs", json={"assistant_id": "steps", field: value})
    assert answer.status_code == 422
    assert answer.json()["option"] == field
    assert field in answer.json()["detail"]


async def test_after_a_restore_the_history_is_the_restored_path(
    http: httpx.AsyncClient, client: LangGraphClient, at: str
) -> None:
    for name in ("first", "second"):
        await client.runs.wait(at, "steps", input={"x": [name]})
    whole: Any = await client.threads.get_history(at)
    chosen = whole[4]
    restored = await http.post(
        f"/sessions/{at}/restore", json={"checkpoint_id": chosen["checkpoint_id"]}
    )
    assert restored.status_code == 200, restored.text
    history: Any = await client.threads.get_history(at)
    assert [s["checkpoint_id"] for s in history] == [s["checkpoint_id"] for s in whole[4:]]
    assert (await client.threads.get_state(at))["values"] == chosen["values"]


async def test_a_failure_is_a_problem_with_a_code(http: httpx.AsyncClient) -> None:
    answer = await http.get(f"/threads/{NOBODY}")
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert (told["status"], told["code"]) == (404, "not_found")
    assert told["detail"] == f"Thread with ID {NOBODY} not found"


async def test_a_state_is_no_place_for_what_only_the_server_knows(
    client: LangGraphClient, at: str
) -> None:
    config: Any = {"configurable": {"openai_api_key": "sk-of-mine"}}
    stream = client.runs.stream(
        at, "steps", input=IN, config=config, stream_mode=["checkpoints", "debug"]
    )
    told = json.dumps([part.data async for part in stream])
    assert '"checkpoint_id"' in told
    for secret in ("langgraph_auth", "__pregel", "sk-of-mine"):
        assert secret not in told


async def test_tools_may_be_asked_for_in_the_older_streams_too(
    client: LangGraphClient, at: str
) -> None:
    given: Any = {"messages": [{"role": "user", "content": "weather?"}]}
    mode: Any = ["tools", "values"]
    stream = client.runs.stream(at, "tools", input=given, stream_mode=mode)
    told = [part.data for part in [part async for part in stream] if part.event == "tools"]
    assert [data["event"] for data in told] == ["on_tool_start", "on_tool_end"]
    assert {data["toolCallId"] for data in told} == {"call_1"}


async def test_a_rolled_back_run_that_never_began_leaves_the_thread_idle(
    client: LangGraphClient, at: str
) -> None:
    run = await client.runs.create(at, "steps", input=IN, after_seconds=3600)
    await client.runs.cancel(at, run["run_id"], action="rollback")
    assert (await client.threads.get(at))["status"] == "idle"
    assert await client.runs.list(at) == []


async def test_threads_that_never_ran_are_no_matter_for_a_search_by_values(
    http: httpx.AsyncClient, at: str
) -> None:
    answer = await http.post("/threads/search", json={"ids": [at], "values": {"x": []}})
    assert (answer.status_code, answer.json()) == (200, [])


async def test_an_edit_is_told_to_who_is_there_and_has_no_id(
    client: LangGraphClient, at: str
) -> None:
    await client.runs.wait(at, "steps", input=IN)
    modes: Any = ["state_update", "lifecycle"]
    stream: Any = await client.threads.join_stream(at, last_event_id="-", stream_mode=modes)
    async with aclosing(stream):
        last = [await anext(stream) for _ in range(2)][1]
        await client.threads.update_state(at, {"x": ["edited"]}, as_node="two")
        told = await anext(stream)
    # A client that comes back goes on from the last event that had an id.
    assert (told.event, told.id) == ("state_update", last.id)


async def test_the_mode_events_leaves_out_what_only_carries_other_modes(
    client: LangGraphClient, at: str
) -> None:
    given: Any = {"messages": [{"role": "user", "content": "hi"}]}
    stream = client.runs.stream(at, "tokens", input=given, stream_mode="events")
    parts = [part async for part in stream]
    run_id = parts[0].data["run_id"]
    told = [part.data for part in parts if part.event == "events"]
    assert (told[0]["event"], told[0]["run_id"]) == ("on_chain_start", run_id)
    assert [(item["event"]) for item in told if item["run_id"] == run_id] == [
        "on_chain_start",
        "on_chain_end",
    ]
    tokens = [item["data"]["chunk"] for item in told if item["event"] == "on_chat_model_stream"]
    assert "".join(chunk["content"] for chunk in tokens) == "It is sunny today in 北京"


async def test_browsers_may_read_where_to_come_back_to(http: httpx.AsyncClient) -> None:
    answer = await http.get("/ok", headers={"origin": "https://smith.example"})
    exposed = answer.headers["access-control-expose-headers"].lower()
    for name in ("location", "content-location", "x-pagination-next", "x-pagination-total"):
        assert name in exposed


async def test_studio_may_call_from_the_public_network(http: httpx.AsyncClient) -> None:
    asked = {
        "origin": "https://smith.langchain.com",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,x-auth-scheme,x-api-key",
        "access-control-request-private-network": "true",
    }
    answer = await http.options("/threads/search", headers=asked)
    assert answer.status_code == 200
    allowed = answer.headers
    assert allowed["access-control-allow-private-network"] == "true"
    assert allowed["access-control-allow-origin"] in ("*", "https://smith.langchain.com")
    assert "POST" in allowed["access-control-allow-methods"]
    assert "x-auth-scheme" in allowed["access-control-allow-headers"]
    # Its own header of who calls is no obstacle.
    read = await http.get("/info", headers={"x-auth-scheme": "langsmith"})
    assert read.status_code == 200


async def test_the_modes_of_a_thread_s_stream_go_by_either_name(
    http: httpx.AsyncClient, at: str
) -> None:
    await http.post(f"/threads/{at}/runs/wait", json={"assistant_id": "steps", "input": IN})
    for query in ("stream_mode=lifecycle", "stream_modes=lifecycle,state_update"):
        told: list[str] = []
        path = f"/threads/{at}/stream?{query}"
        async with http.stream("GET", path, headers={"Last-Event-ID": "-"}) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("event: "):
                    told.append(line.removeprefix("event: "))
                if "run_done" in line:
                    break
        assert told == ["metadata", "metadata"]


async def test_a_search_of_the_store_needs_no_namespace(http: httpx.AsyncClient) -> None:
    root = uuid.uuid4().hex
    item = {"namespace": [root, "a"], "key": "k", "value": {"root": root}}
    await http.put("/store/items", json=item)
    for body in ({"namespace_prefix": [root]}, {"filter": {"root": root}}):
        answer = await http.post("/store/items/search", json=body)
        assert [found["namespace"] for found in answer.json()["items"]] == [[root, "a"]]
    assert (await http.post("/store/namespaces", json={})).status_code == 200
