"""What playing the same script against the official server found, kept found without it."""

import uuid
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.compat import page
from tests.compat.side import PROJECT, uuid_of
from tests.conftest import create, drop
from tests.serving import serve

pytestmark = pytest.mark.asyncio(loop_scope="module")

IN = {"x": ["in"]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(server: str, template: str) -> AsyncGenerator[httpx.AsyncClient]:
    name = f"clew_{uuid.uuid4().hex}"
    try:
        async with (
            serve(create(server, name, template=template), config=PROJECT) as url,
            httpx.AsyncClient(base_url=url, timeout=30) as client,
        ):
            yield client
    finally:
        drop(server, name)


async def thread(http: httpx.AsyncClient) -> str:
    return (await http.post("/threads", json={})).json()["thread_id"]


async def wait(http: httpx.AsyncClient, **body: Any) -> Any:
    return (await http.post(f"/threads/{await thread(http)}/runs/wait", json=body)).json()


async def events(http: httpx.AsyncClient, **body: Any) -> list[tuple[str, str]]:
    reply = await http.post(f"/threads/{await thread(http)}/runs/stream", json=body)
    frames = [frame.split("\r\n") for frame in reply.text.split("\r\n\r\n") if "data: " in frame]
    return [(lines[0].removeprefix("event: "), lines[1]) for lines in frames]


async def test_context_is_configurable_too_and_the_requests_wins(http: httpx.AsyncClient) -> None:
    seen = await wait(http, assistant_id="context", input={}, context={"name": "x"})
    assert (seen["given"]["name"], seen["configured"]["name"]) == ("x", "x")
    body = {"graph_id": "context", "context": {"name": "a"}}
    made = (await http.post("/assistants", json=body)).json()["assistant_id"]
    seen = await wait(http, assistant_id=made, input={}, context={"name": "r"})
    assert (seen["given"]["name"], seen["configured"]["name"]) == ("r", "r")


async def test_a_typed_dict_takes_context_that_it_does_not_declare(
    http: httpx.AsyncClient,
) -> None:
    seen = await wait(http, assistant_id="context", input={}, context={"colour": "red"})
    assert seen["given"] == {"colour": "red"}


async def test_a_thread_that_a_run_makes_has_the_runs_metadata(http: httpx.AsyncClient) -> None:
    at = f"/threads/{uuid.uuid4()}"
    body = {"assistant_id": "steps", "input": IN, "if_not_exists": "create", "metadata": {"m": 1}}
    await http.post(f"{at}/runs/wait", json=body)
    assert (await http.get(at)).json()["metadata"]["m"] == 1
    await http.post(f"{at}/runs/wait", json={**body, "metadata": {"m": 2}})
    assert (await http.get(at)).json()["metadata"]["m"] == 1


async def test_a_change_of_config_leaves_the_context(http: httpx.AsyncClient) -> None:
    body = {"graph_id": "steps", "config": {"configurable": {"a": 1}}}
    made = (await http.post("/assistants", json=body)).json()
    at = f"/assistants/{made['assistant_id']}"
    changed = (await http.patch(at, json={"config": {"tags": ["t"]}})).json()
    assert (changed["config"], changed["context"]) == ({"tags": ["t"]}, {"a": 1})
    both = {"context": {"a": 1}, "config": {"configurable": {"b": 1}}}
    assert (await http.patch(at, json=both)).status_code == 400


async def test_names_are_sorted_whatever_their_case(http: httpx.AsyncClient) -> None:
    for name in ("Zeta", "alpha", "Beta"):
        await http.post(
            "/assistants", json={"graph_id": "steps", "name": name, "metadata": {"sorts": 1}}
        )
    asked = {"metadata": {"sorts": 1}, "sort_by": "name", "sort_order": "asc", "select": ["name"]}
    found = (await http.post("/assistants/search", json=asked)).json()
    assert [item["name"] for item in found] == ["alpha", "Beta", "Zeta"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/assistants/search", {"select": ["nope"]}),
        ("/runs/crons/search", {"select": ["nope"]}),
        ("/threads/search", {"extract": {"a": "nope.x"}}),
        ("/runs/wait", {"assistant_id": "steps", "config": {"configurable": []}}),
        ("/runs/wait", {"assistant_id": "steps", "config": {"recursion_limit": "x"}}),
        ("/runs/wait", {"assistant_id": "steps", "config": {"tags": "x"}}),
        ("/runs/wait", {"assistant_id": "steps", "config": {"metadata": []}}),
        ("/runs/wait", {"assistant_id": "steps", "command": {"goto": 7}}),
    ],
)
async def test_what_cannot_be_meant_is_refused(
    http: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    assert (await http.post(path, json=body)).status_code == 422


async def test_ids_in_bodies_are_refused_in_the_words_for_paths(http: httpx.AsyncClient) -> None:
    refused = (await http.post("/threads", json={"thread_id": "x"})).json()
    assert refused["detail"] == "Invalid thread ID: must be a UUID"
    refused = (await http.post("/threads/prune", json={"thread_ids": ["x"]})).json()
    assert refused["detail"] == "Invalid thread ID: must be a UUID"


async def test_a_run_shows_what_was_asked_for_and_nulls_for_the_rest(
    http: httpx.AsyncClient,
) -> None:
    at = f"/threads/{await thread(http)}/runs"
    shown = (await http.post(at, json={"assistant_id": "steps", "input": IN})).json()["kwargs"]
    for name in ("command", "interrupt_before", "interrupt_after", "webhook", "feedback_keys"):
        assert shown[name] is None
    assert shown["checkpoint_during"] is True
    assert not {"user", "trace", "extras"} & shown.keys()


async def test_an_error_of_a_task_is_its_class_and_message(http: httpx.AsyncClient) -> None:
    for mode in ("tasks", "debug"):
        told = await events(http, assistant_id="fails", input=IN, stream_mode=mode)
        assert any('{"error":"ValueError","message":"boom"}' in data for _, data in told[:-2])


async def test_events_of_a_node_name_its_namespace(http: httpx.AsyncClient) -> None:
    told = await events(http, assistant_id="tools", input={"messages": "x"}, stream_mode="events")
    inside = [data for _, data in told if '"on_chat_model_stream"' in data]
    assert inside
    assert all('"checkpoint_ns":"model:' in data for data in inside)
    assert not any('"checkpoint_ns":""' in data for _, data in told)


async def test_debug_says_where_the_state_of_a_subgraph_is(http: httpx.AsyncClient) -> None:
    told = await events(http, assistant_id="parent", input=IN, stream_mode="debug")
    shown = [data for _, data in told if '"type":"checkpoint"' in data and '"child:' in data]
    assert shown
    assert all('"checkpoint":{"thread_id"' in data and '"state":{' not in data for data in shown)


async def test_who_waits_for_a_cancellation_is_told_where_to_ask_again(
    http: httpx.AsyncClient,
) -> None:
    at = f"/threads/{await thread(http)}/runs"
    run = (await http.post(at, json={"assistant_id": "slow", "input": {"wait": 30}})).json()
    stopped = await http.post(f"{at}/{run['run_id']}/cancel", params={"wait": 1})
    assert stopped.headers["location"] == f"{at}/{run['run_id']}/join"


async def test_a_command_that_is_wrong_is_refused_in_one_line(http: httpx.AsyncClient) -> None:
    params = {"assistant_id": uuid_of("steps"), "multitaskStrategy": "nope"}
    body = {"id": 1, "method": "run.start", "params": params}
    told = (await http.post(f"/threads/{await thread(http)}/commands", json=body)).json()
    assert told["error"] == "invalid_argument"
    assert told["message"].startswith("multitask_strategy: Input should be")


async def test_the_page_tells_every_difference_that_is_meant() -> None:
    assert page.page() == page.FILE.read_text(), "run python -m tests.compat.page"
