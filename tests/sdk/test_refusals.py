"""Bad requests, with the status and the words that a client of the official server would show."""

import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

Json = dict[str, Any]
NOBODY = "00000000-0000-4000-8000-000000000000"
IN = {"x": ["in"]}


@pytest_asyncio.fixture
async def http(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        yield client


@pytest_asyncio.fixture
async def at(http: httpx.AsyncClient) -> str:
    return (await http.post("/threads", json={})).json()["thread_id"]


BAD = [
    ("GET", "/threads/not-a-uuid", None, 422, "Invalid thread ID: must be a UUID"),
    ("GET", f"/threads/{NOBODY}/runs/x", None, 422, "Invalid run ID: must be a UUID"),
    ("GET", "/assistants/steps", None, 422, "Invalid assistant ID: must be a UUID"),
    ("GET", "/runs/crons/x", None, 422, "Invalid cron ID: must be a UUID"),
    ("GET", f"/threads/{NOBODY}", None, 404, f"Thread with ID {NOBODY} not found"),
    ("GET", f"/threads/{NOBODY}/state", None, 404, "not found"),
    ("GET", f"/threads/{NOBODY}/stream", None, 404, "not found"),
    ("GET", f"/assistants/{NOBODY}", None, 404, f"Assistant with ID {NOBODY} not found"),
    ("GET", f"/runs/crons/{NOBODY}", None, 404, "Not Found"),
    ("GET", "/nowhere", None, 404, "Not Found"),
    ("PUT", "/threads", {}, 405, "Method Not Allowed"),
    ("PATCH", f"/threads/{NOBODY}/state", {}, 405, "Method Not Allowed"),
    ("POST", "/threads", b"", 422, "Invalid JSON in request body"),
    ("POST", "/threads", b"{", 422, "Invalid JSON in request body"),
    ("POST", "/threads", b"[]", 422, "Invalid JSON in request body"),
    ("POST", "/assistants", {}, 422, "graph_id"),
    ("POST", "/assistants", {"graph_id": "nope"}, 404, "Graph 'nope' not found. Expected one of:"),
    (
        "POST",
        "/assistants",
        {"graph_id": "steps", "config": {"configurable": {"a": 1}}, "context": {"b": 1}},
        400,
        "Cannot specify both configurable and context",
    ),
    ("GET", "/assistants/steps/graph?xray=maybe", None, 422, "xray"),
    ("POST", "/threads/search", {"limit": 0}, 422, "limit"),
    ("POST", "/threads/search", {"limit": 1001}, 422, "limit"),
    ("POST", "/threads/search", {"sort_by": "moon"}, 422, "sort_by"),
    ("POST", "/threads/search", {"select": ["moon"]}, 422, "select"),
    ("POST", "/threads/search", {"status": "moon"}, 422, "status"),
    ("POST", "/threads", {"thread_id": "x"}, 422, "Invalid thread ID: must be a UUID"),
    ("POST", f"/threads/{NOBODY}/copy", None, 409, "Conflict"),
    (
        "POST",
        "/runs/wait",
        {"assistant_id": "steps", "command": {"resume": 1}},
        400,
        "thread_id when resuming",
    ),
    ("POST", "/runs", {}, 422, "assistant_id"),
    ("POST", "/runs", {"assistant_id": "nope"}, 422, "Invalid assistant: 'nope'. Must be either"),
    ("POST", "/runs", {"assistant_id": NOBODY}, 404, "Thread or assistant not found."),
    (
        "POST",
        f"/threads/{NOBODY}/runs",
        {"assistant_id": "steps"},
        404,
        "Thread or assistant not found.",
    ),
    ("POST", "/runs", {"assistant_id": "steps", "stream_mode": "moon"}, 422, "stream_mode"),
    (
        "POST",
        "/runs",
        {"assistant_id": "steps", "multitask_strategy": "x"},
        422,
        "multitask_strategy",
    ),
    ("POST", "/runs", {"assistant_id": "steps", "durability": "x"}, 422, "durability"),
    (
        "POST",
        "/runs",
        {"assistant_id": "steps", "checkpoint_id": "x"},
        422,
        "Invalid checkpoint ID: must be a UUID",
    ),
    ("POST", "/runs", {"assistant_id": "steps", "on_completion": "x"}, 422, "on_completion"),
    (
        "POST",
        "/runs",
        {"assistant_id": "steps", "config": {"configurable": {"a": 1}}, "context": {"b": 1}},
        400,
        "Cannot specify both configurable and context",
    ),
    ("POST", "/runs", {"assistant_id": "steps", "webhook": "http://127.0.0.1:9/x"}, 422, "Webhook"),
    ("POST", "/runs", {"assistant_id": "steps", "webhook": "/relative"}, 422, "Webhook"),
    ("POST", "/runs/batch", [], 422, "at least"),
    ("POST", "/runs/cancel", {}, 422, ""),
    ("POST", "/runs/cancel", {"status": "all", "thread_id": NOBODY, "run_ids": [NOBODY]}, 422, ""),
    (
        "POST",
        "/runs/crons",
        {"assistant_id": "steps", "schedule": "bad"},
        422,
        "Invalid cron schedule: 'bad'. Reason:",
    ),
    ("POST", "/runs/crons", {"assistant_id": NOBODY, "schedule": "0 0 1 1 *"}, 404, ""),
    (
        "PUT",
        "/store/items",
        {"namespace": ["a.b"], "key": "k", "value": {}},
        422,
        "Namespace label 'a.b' must be a non-empty string without periods",
    ),
    (
        "PUT",
        "/store/items",
        {"namespace": [], "key": "k", "value": {}},
        400,
        "Namespace cannot be empty",
    ),
    (
        "PUT",
        "/store/items",
        {"namespace": ["langgraph"], "key": "k", "value": {}},
        400,
        "langgraph",
    ),
    ("GET", "/store/items?namespace=a", None, 400, "Key is required"),
    (
        "POST",
        f"/threads/{NOBODY}/stream/events",
        {"channels": []},
        400,
        "channels is required and must be a non-empty array",
    ),
    (
        "POST",
        f"/threads/{NOBODY}/stream/events",
        {"channels": ["bogus"]},
        400,
        "channels contains unsupported entries: bogus. Allowed: ",
    ),
    ("POST", f"/threads/{NOBODY}/stream/events", b"{", 400, "Invalid JSON body"),
    ("POST", f"/threads/{NOBODY}/commands", b"{", 400, "Invalid JSON body"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "detail"), BAD)
async def test_a_bad_request_is_refused_in_the_usual_words(
    http: httpx.AsyncClient, method: str, path: str, body: Any, status: int, detail: str
) -> None:
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    answer = await http.request(
        method, path, content=content, headers={"content-type": "application/json"}
    )
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert isinstance(told["detail"], str)
    assert detail in told["detail"]
    if status == 405:
        assert answer.headers["allow"]


async def test_what_cannot_be_done_on_a_thread_is_refused_in_the_usual_words(
    http: httpx.AsyncClient, at: str
) -> None:
    async def refused(method: str, path: str, body: Json) -> tuple[int, str]:
        answer = await http.request(method, f"/threads{path}", json=body)
        return answer.status_code, answer.json()["detail"]

    taken = await refused("POST", "", {"thread_id": at})
    assert taken == (409, f"Thread with ID {at} already exists")
    status, text = await refused("POST", f"/{at}/state", {"values": IN})
    assert (status, text.startswith(f"Thread '{at}' has no assigned graph ID.")) == (400, True)
    pending = {"assistant_id": "steps", "input": IN, "after_seconds": 3600}
    run = (await http.post(f"/threads/{at}/runs", json=pending)).json()
    status, text = await refused("POST", f"/{at}/state", {"values": IN})
    assert status == 409
    assert run["run_id"] not in text
    status, text = await refused(
        "POST", f"/{at}/runs", {"assistant_id": "steps", "multitask_strategy": "reject"}
    )
    assert status == 409
    assert text == (
        "Thread is already running a task. Wait for it to finish or choose a different multitask "
        "strategy."
    )
    await http.post(f"/threads/{at}/runs/{run['run_id']}/cancel")
    await http.post(f"/threads/{at}/runs/wait", json={"assistant_id": "steps", "input": IN})
    for values in (["a", "list"], 3):
        assert (await refused("POST", f"/{at}/state", {"values": values}))[0] == 400
    status, text = await refused("POST", f"/{at}/state", {"values": IN, "as_node": "bogus"})
    assert (status, text) == (400, "Node bogus does not exist")
    status, text = await refused("POST", f"/{at}/history", {"before": {"moon": 1}})
    assert (status, "checkpoint_id" in text) == (422, True)
    status, text = await refused(
        "POST", f"/{at}/runs", {"assistant_id": "steps", "checkpoint_id": "x"}
    )
    assert status == 422


async def test_an_unknown_checkpoint_is_an_empty_state_and_fails_a_run(
    http: httpx.AsyncClient, at: str
) -> None:
    await http.post(f"/threads/{at}/runs/wait", json={"assistant_id": "steps", "input": IN})
    nowhere = str(uuid.uuid4())
    state = await http.get(f"/threads/{at}/state/{nowhere}")
    assert state.status_code == 200
    assert state.json()["values"] == {}
    assert state.json()["checkpoint"]["checkpoint_id"] == nowhere
    body = {"assistant_id": "steps", "input": None, "checkpoint_id": nowhere}
    failed = await http.post(f"/threads/{at}/runs/wait", json=body)
    assert failed.json()["__error__"]["error"] == "EmptyInputError"


async def test_commands_are_answered_with_codes(http: httpx.AsyncClient, at: str) -> None:
    async def told(body: Any) -> tuple[int, str, str]:
        answer = await http.post(f"/threads/{at}/commands", json=body)
        return answer.status_code, answer.json()["error"], answer.json()["message"]

    assert (await told({"id": "x"}))[:2] == (400, "invalid_argument")
    assert (await told({"id": 1, "method": "moon.rise"}))[:2] == (200, "unknown_command")
    assert await told({"id": 1, "method": "run.start", "params": {}}) == (
        200,
        "invalid_argument",
        "run.start requires an assistant_id.",
    )
    start = {"id": 1, "method": "run.start", "params": {"assistant_id": "nope"}}
    assert "422: Invalid assistant: 'nope'" in (await told(start))[2]
    answer = {"interrupt_id": "0" * 32, "namespace": [], "response": 1}
    respond = {"id": 1, "method": "input.respond", "params": answer}
    assert (await told(respond))[:2] == (200, "no_such_interrupt")
