"""Options of requests that the clients' own tests do not show: what each of them changes."""

import re
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import psycopg
import pytest
import pytest_asyncio

Json = dict[str, Any]
IN: Json = {"x": ["in"]}
ALL = {"Last-Event-ID": "-"}


@pytest_asyncio.fixture
async def http(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        yield client


@pytest_asyncio.fixture
async def at(http: httpx.AsyncClient) -> str:
    return (await http.post("/threads", json={})).json()["thread_id"]


@pytest.mark.parametrize(("during", "kept"), [(True, 4), (False, 1)])
async def test_the_older_word_for_durability_counts(
    http: httpx.AsyncClient, at: str, *, during: bool, kept: int
) -> None:
    body = {"assistant_id": "steps", "input": IN, "checkpoint_during": during}
    await http.post(f"/threads/{at}/runs/wait", json=body)
    history = await http.post(f"/threads/{at}/history", json={"limit": 10})
    assert len(history.json()) == kept


@pytest.mark.parametrize("way", ["stream", "wait", "join", "joined stream", "rejoin"])
async def test_a_reader_that_leaves_takes_its_run_along_where_that_was_asked(
    http: httpx.AsyncClient, at: str, way: str
) -> None:
    body: Json = {"assistant_id": "slow", "input": IN, "stream_mode": ["custom"]}
    if way in ("stream", "wait"):
        sent: Json = {**body, "on_disconnect": "cancel"}
        asked = http.stream("POST", f"/threads/{at}/runs/{way}", json=sent)
    else:
        run = (await http.post(f"/threads/{at}/runs", json=body)).json()["run_id"]
        path = f"/threads/{at}/runs/{run}/{'join' if way == 'join' else 'stream'}"
        if way == "rejoin":
            path = f"/runs/{run}/stream"
        asked = http.stream("GET", path, params={"cancel_on_disconnect": "true"})
    async with asked as answer:
        place = answer.headers["content-location"]
    await http.get(f"{place}/join")
    assert (await http.get(place)).json()["status"] == "interrupted"


async def test_a_stream_tells_only_of_the_namespaces_that_were_asked_for(
    http: httpx.AsyncClient, at: str
) -> None:
    body: Json = {
        "assistant_id": "nested",
        "input": IN,
        "stream_mode": ["updates"],
        "stream_subgraphs": True,
        "on_completion": "keep",
    }

    def names(told: httpx.Response) -> list[str]:
        found = re.findall(r"^event: (.*)$", told.text.replace("\r", ""), re.MULTILINE)
        return [re.sub(":.*", "", name) for name in found]

    every = ["metadata", "updates", "updates|child", "updates", "end"]
    for path in (f"/threads/{at}/runs/stream", "/runs/stream"):
        for query, expected in (
            ("namespace=", ["metadata", "updates", "updates", "end"]),
            ("namespace=child", ["metadata", "updates|child", "end"]),
            ("namespace=&namespace=child", every),
            ("namespace=child%7Cinner", ["metadata", "end"]),
        ):
            told = await http.post(f"{path}?{query}", json=body)
            assert names(told) == expected
            # Who comes back to it is told no more.
            assert names(await http.get(told.headers["location"], headers=ALL)) == expected
        place = told.headers["location"].partition("?")[0]
        assert names(await http.get(place, headers=ALL)) == every
    run = place.split("/")[-2]
    told = await http.get(f"/runs/{run}/stream?namespace=", headers=ALL)
    assert names(told) == ["metadata", "updates", "updates", "end"]
    assert told.headers["location"] == f"{place}?namespace="


async def test_who_shows_a_checkpoint_is_told_what_came_after_it(
    http: httpx.AsyncClient, at: str
) -> None:
    body: Json = {"assistant_id": "steps", "input": IN, "stream_mode": ["values"]}
    run = (await http.post(f"/threads/{at}/runs", json=body)).json()["run_id"]
    await http.get(f"/threads/{at}/runs/{run}/join")
    history = (await http.get(f"/threads/{at}/history?limit=9")).json()
    [half] = [
        state["checkpoint_id"] for state in history if state["values"].get("x") == ["in", "one"]
    ]
    path = f"/threads/{at}/runs/{run}/stream"

    async def told(query: str, headers: Json | None = None) -> list[str]:
        text = (await http.get(path + query, headers=headers)).text.replace("\r", "")
        return re.findall(r"^id: (.*)$", text, re.MULTILINE)

    whole = await told("", ALL)
    rest = await told(f"?checkpoint_id={half}", ALL)
    assert 0 < len(rest) < len(whole)
    assert whole[-len(rest) :] == rest
    assert await told(f"?checkpoint_id={half}") == rest
    assert await told(f"?checkpoint_id={half}", {"Last-Event-ID": whole[-2]}) == whole[-1:]
    assert await told(f"?checkpoint_id={uuid.uuid4()}", ALL) == whole
    for of in (path, f"/runs/{run}/stream"):
        refused = await http.get(f"{of}?checkpoint_id=x", headers=ALL)
        assert (refused.status_code, "checkpoint" in refused.json()["detail"]) == (422, True)
    same = await http.get(f"/runs/{run}/stream?checkpoint_id={half}", headers=ALL)
    assert same.text == (await http.get(f"{path}?checkpoint_id={half}", headers=ALL)).text
    # The state in which a run stops to ask was told before, without the question.
    asks = (await http.post("/threads", json={})).json()["thread_id"]
    body = {"assistant_id": "ask", "input": IN, "stream_mode": ["values"]}
    place = (await http.post(f"/threads/{asks}/runs/stream", json=body)).headers["location"]
    head = (await http.get(f"/threads/{asks}/state")).json()["checkpoint"]["checkpoint_id"]
    question = await http.get(f"{place}?checkpoint_id={head}", headers=ALL)
    assert "approve?" in question.text


async def test_a_reason_for_stopping_is_kept(http: httpx.AsyncClient, at: str) -> None:
    body = {"assistant_id": "steps", "input": IN, "after_seconds": 3600}
    place = (
        f"/threads/{at}/runs/{(await http.post(f'/threads/{at}/runs', json=body)).json()['run_id']}"
    )
    await http.post(f"{place}/cancel", params={"reason": "taken"})
    assert (await http.get(place)).json()["cancel_reason"] == "taken"


async def test_many_are_stopped_by_their_status_and_rolled_back_where_asked(
    http: httpx.AsyncClient, at: str
) -> None:
    body = {"assistant_id": "steps", "input": IN, "after_seconds": 3600}
    run = (await http.post(f"/threads/{at}/runs", json=body)).json()["run_id"]
    chosen = {"thread_id": at, "run_ids": [run]}
    answer = await http.post("/runs/cancel", params={"action": "rollback"}, json=chosen)
    assert answer.status_code == 204
    assert (await http.get(f"/threads/{at}/runs/{run}")).status_code == 404


async def test_a_checkpoint_of_a_subgraph_is_found_by_its_map(
    http: httpx.AsyncClient, at: str
) -> None:
    await http.post(f"/threads/{at}/runs/wait", json={"assistant_id": "parent", "input": IN})
    state = (await http.get(f"/threads/{at}/state", params={"subgraphs": "true"})).json()
    inner = state["tasks"][0]["state"]
    place = inner["checkpoint"]
    assert set(place["checkpoint_map"]) == {"", place["checkpoint_ns"]}
    found = await http.post(f"/threads/{at}/state/checkpoint", json={"checkpoint": place})
    assert found.json()["values"] == inner["values"]
    # Where the map names another checkpoint, that one is meant.
    root = {"checkpoint_ns": "", "checkpoint_id": state["checkpoint_id"]}
    whole = await http.post(f"/threads/{at}/state/checkpoint", json={"checkpoint": root})
    assert whole.json()["next"] == ["child"]


async def test_history_is_also_had_by_a_get(http: httpx.AsyncClient, at: str) -> None:
    await http.post(f"/threads/{at}/runs/wait", json={"assistant_id": "steps", "input": IN})
    [newest] = (await http.get(f"/threads/{at}/history")).json()
    before = {"limit": 10, "before": newest["checkpoint_id"]}
    older = (await http.get(f"/threads/{at}/history", params=before)).json()
    assert [state["metadata"]["step"] for state in older] == [1, 0, -1]


async def test_what_a_cron_is_asked_for_reaches_its_runs(
    http: httpx.AsyncClient, at: str, database: str
) -> None:
    asked: Json = {
        "input": {"x": ["by the clock"]},
        "config": {"tags": ["clock"], "configurable": {"tone": "kind"}},
        "interrupt_before": ["two"],
        "interrupt_after": ["two"],
        "stream_mode": ["updates"],
        "stream_subgraphs": True,
        "durability": "exit",
        "multitask_strategy": "enqueue",
        "metadata": {"m": 1},
    }
    body = {"assistant_id": "steps", "schedule": "0 0 29 2 *", **asked}
    cron = (await http.post(f"/threads/{at}/runs/crons", json=body)).json()["cron_id"]
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
        await conn.execute("update clew.cron set next_at = now() where cron_id = %s", [cron])
    async with http.stream("GET", f"/threads/{at}/stream", headers={"Last-Event-ID": "-"}) as told:
        async for line in told.aiter_lines():
            if "run_done" in line:
                break
    await http.delete(f"/runs/crons/{cron}")
    [run] = (await http.get(f"/threads/{at}/runs")).json()
    kwargs = run["kwargs"]
    assert run["metadata"]["m"] == 1
    assert run["multitask_strategy"] == "enqueue"
    assert kwargs["config"]["tags"] == ["clock"]
    assert kwargs["config"]["configurable"]["tone"] == "kind"
    for name in ("input", "interrupt_before", "interrupt_after", "stream_mode", "durability"):
        assert kwargs[name] == asked[name], name
    assert kwargs["subgraphs"] is True
    state = (await http.get(f"/threads/{at}/state")).json()
    assert (state["values"]["x"], state["next"]) == (["by the clock", "one"], ["two"])


@pytest.mark.parametrize("during", [True, False])
async def test_a_cron_takes_context_and_the_older_word_for_durability(
    http: httpx.AsyncClient, *, during: bool
) -> None:
    body = {
        "assistant_id": "context",
        "schedule": "0 0 29 2 *",
        "context": {"tone": "warm"},
        "checkpoint_during": during,
    }
    cron = (await http.post("/runs/crons", json=body)).json()
    assert cron["payload"]["context"] == {"tone": "warm"}
    assert cron["payload"]["durability"] == ("async" if during else "exit")
    await http.delete(f"/runs/crons/{cron['cron_id']}")


async def test_versions_are_found_by_their_metadata(http: httpx.AsyncClient) -> None:
    made = {"graph_id": "steps", "metadata": {"stage": "first"}, "name": str(uuid.uuid4())}
    at = (await http.post("/assistants", json=made)).json()["assistant_id"]
    await http.patch(f"/assistants/{at}", json={"metadata": {"stage": "second"}})
    found = await http.post(f"/assistants/{at}/versions", json={"metadata": {"stage": "first"}})
    assert [version["version"] for version in found.json()] == [1]


async def test_every_option_of_a_command_is_carried_out(http: httpx.AsyncClient, at: str) -> None:
    async def told(**given: Any) -> Json:
        answer = await http.post(f"/threads/{at}/runs/wait", json={"assistant_id": "ask", **given})
        return answer.json()

    assert "__interrupt__" in await told(input=IN)
    assert (await told(command={"resume": "yes", "goto": []}))["answer"] == "yes"
    moved = await told(command={"update": {"x": ["updated"]}, "goto": "after"})
    assert moved["x"] == ["in", "two", "updated", "two"]
    sent = {"goto": [{"node": "after", "input": {}}], "update": [["answer", "said"]]}
    assert (await told(command=sent))["answer"] == "said"


async def test_an_older_state_too_is_read_with_what_is_within(
    http: httpx.AsyncClient, at: str
) -> None:
    await http.post(f"/threads/{at}/runs/wait", json={"assistant_id": "parent", "input": IN})
    paused = (await http.get(f"/threads/{at}/state")).json()["checkpoint_id"]
    answer = {"assistant_id": "parent", "command": {"resume": "yes"}}
    await http.post(f"/threads/{at}/runs/wait", json=answer)
    path = f"/threads/{at}/state/{paused}"
    plain = (await http.get(path)).json()["tasks"]
    within = (await http.get(path, params={"subgraphs": "true"})).json()["tasks"]
    assert plain[0]["state"] is None
    assert within[0]["state"]["values"]["x"][:2] == ["in", "one"]
