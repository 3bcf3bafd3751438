"""Every method of the clients' `threads`, but for the streams of protocol v2."""

import uuid
from contextlib import aclosing
from typing import Any

import httpx
import pytest
from langgraph_sdk.errors import (
    BadRequestError,
    ConflictError,
    NotFoundError,
    UnprocessableEntityError,
)

from tests.sdk.official import Official, shows

Json = dict[str, Any]


def trail(*names: str) -> Json:
    return {"x": list(names)}


async def thread(official: Official, graph: str = "steps", **given: Any) -> str:
    """A thread on which a graph has run once."""
    made = await official.threads.create(**given)
    await official.runs.wait(made["thread_id"], graph, input=trail("in"))
    return made["thread_id"]


@shows("threads.create", "POST /threads")
@shows("threads.get", "GET /threads/{thread_id}")
async def test_a_thread_is_made_and_read(official: Official) -> None:
    asked = str(uuid.uuid4())
    made = await official.threads.create(
        thread_id=asked, metadata={"who": "安"}, graph_id="steps", ttl=30
    )
    assert (made["thread_id"], made["status"]) == (asked, "idle")
    assert made["metadata"] == {"who": "安", "graph_id": "steps"}
    with pytest.raises(ConflictError, match="already exists"):
        await official.threads.create(thread_id=asked)
    again = await official.threads.create(thread_id=asked, if_exists="do_nothing")
    assert again["created_at"] == made["created_at"]
    read = await official.threads.get(asked, include=["ttl"])
    assert (read["ttl"]["strategy"], read["ttl"]["ttl_minutes"]) == ("delete", 30)
    assert "ttl" not in await official.threads.get(asked)
    kept = await official.threads.create(ttl={"ttl": 5, "strategy": "keep_latest"})
    read = await official.threads.get(kept["thread_id"], include=["ttl"])
    assert read["ttl"]["strategy"] == "keep_latest"


@shows("threads.create", "POST /threads")
async def test_a_thread_is_made_with_a_history_of_its_own(official: Official) -> None:
    made = await official.threads.create(
        graph_id="steps",
        supersteps=[
            {"updates": [{"values": trail("given"), "as_node": "__input__"}]},
            {"updates": [{"values": trail("given"), "as_node": "__start__"}]},
            {"updates": [{"values": trail("one"), "as_node": "one"}]},
        ],
    )
    assert made["values"] == trail("given", "one")
    state = await official.threads.get_state(made["thread_id"])
    assert state["next"] == ["two"]
    assert (await official.runs.wait(made["thread_id"], "steps"))["x"] == ["given", "one", "two"]


@shows("threads.update", "PATCH /threads/{thread_id}")
async def test_metadata_is_merged_and_a_life_is_set(official: Official) -> None:
    made = await official.threads.create(metadata={"a": 1})
    at = made["thread_id"]
    changed = await official.threads.update(at, metadata={"b": 2}, ttl=15)
    assert changed["metadata"] == {"a": 1, "b": 2}
    assert (await official.threads.get(at, include=["ttl"]))["ttl"]["ttl_minutes"] == 15
    assert await official.threads.update(at, metadata={"c": 3}, return_minimal=True) is None
    assert (await official.threads.get(at))["metadata"] == {"a": 1, "b": 2, "c": 3}


@shows("threads.delete", "DELETE /threads/{thread_id}")
async def test_a_deleted_thread_is_gone_with_its_runs(official: Official) -> None:
    at = await thread(official)
    await official.threads.delete(at)
    for gone in (official.threads.get, official.threads.get_state, official.threads.delete):
        with pytest.raises(NotFoundError, match="not found"):
            await gone(at)
    with pytest.raises(NotFoundError):
        await official.runs.list(at)


@shows("threads.search", "POST /threads/search")
@shows("threads.count", "POST /threads/count")
async def test_threads_are_found_by_what_they_are_and_hold(official: Official) -> None:
    mark = {"batch": str(uuid.uuid4())}
    done = await thread(official, metadata=mark)
    waits = await thread(official, "ask", metadata=mark)
    empty = (await official.threads.create(metadata=mark))["thread_id"]

    async def found(**given: Any) -> list[str]:
        threads = await official.threads.search(metadata=mark, sort_by="created_at", **given)
        return [item["thread_id"] for item in threads]

    assert await found() == [empty, waits, done]
    assert await found(sort_order="asc", limit=1, offset=1) == [waits]
    assert await found(status="interrupted") == [waits]
    assert await found(ids=[done, waits]) == [waits, done]
    assert await official.threads.count(metadata=mark) == 3
    assert await official.threads.count(metadata=mark, status="idle") == 2
    [picked] = await official.threads.search(
        ids=[done],
        select=["thread_id", "status"],
        extract={"last": "values.x[-1]", "nothing": "values.y[0].z"},
    )
    assert picked == {
        "thread_id": done,
        "status": "idle",
        "extracted": {"last": "two", "nothing": None},
    }
    [whole] = await official.threads.search(ids=[waits])
    assert whole["values"] == trail("in")
    [[question]] = whole["interrupts"].values()
    assert question["value"] == {"question": "approve?"}


@shows("threads.search", "POST /threads/search")
@shows("threads.count", "POST /threads/count")
async def test_threads_are_found_by_their_values(official: Official) -> None:
    mark = {"batch": str(uuid.uuid4())}
    done = [await thread(official, metadata=mark) for _ in range(3)]
    await thread(official, "ask", metadata=mark)
    await official.threads.create(metadata=mark)

    async def found(values: Json, **given: Any) -> list[str]:
        threads = await official.threads.search(
            metadata=mark, values=values, sort_by="created_at", sort_order="asc", **given
        )
        return [item["thread_id"] for item in threads]

    assert await found({"n": 1}) == done
    assert await found({"n": 1, "x": ["two", "in"]}) == done
    assert await found({"n": 1}, limit=1, offset=1) == done[1:2]
    assert await found({"n": True}) == []
    assert await found({"x": ["nowhere"]}) == []
    assert await official.threads.count(metadata=mark, values={"x": ["in"]}) == 4
    assert await official.threads.count(metadata=mark, values={"n": 1}, status="idle") == 3
    async with httpx.AsyncClient(base_url=official.url) as http:
        asked = {"metadata": mark, "values": {"n": 1}, "limit": 2}
        page = await http.post("/threads/search", json=asked)
    assert page.headers["x-pagination-next"] == "2"
    assert len(page.json()) == 2


@shows("threads.copy", "POST /threads/{thread_id}/copy")
async def test_a_copy_has_every_checkpoint_and_goes_its_own_way(official: Official) -> None:
    at = await thread(official, metadata={"a": 1})
    copied = await official.threads.copy(at)
    assert copied["thread_id"] != at
    assert (copied["metadata"]["a"], copied["status"]) == (1, "idle")

    async def checkpoints(thread_id: str) -> list[str]:
        return [state["checkpoint_id"] for state in await official.threads.get_history(thread_id)]

    assert await checkpoints(copied["thread_id"]) == await checkpoints(at)
    await official.runs.wait(copied["thread_id"], "steps", input=trail("again"))
    assert len(await checkpoints(at)) == 4
    assert (await official.threads.get_state(at))["values"]["x"] == ["in", "one", "two"]


@shows("threads.prune", "POST /threads/prune")
async def test_threads_are_pruned_to_their_last_checkpoint_or_deleted(official: Official) -> None:
    at = await thread(official)
    nobody = str(uuid.uuid4())
    pruned = await official.threads.prune([at, nobody], strategy="keep_latest")
    assert pruned == {"pruned_count": 1}
    assert len(await official.threads.get_history(at)) == 1
    assert (await official.threads.get_state(at))["values"]["x"] == ["in", "one", "two"]
    assert await official.threads.prune([at]) == {"pruned_count": 1}
    with pytest.raises(NotFoundError):
        await official.threads.get(at)


@shows(
    "threads.get_state",
    "GET /threads/{thread_id}/state",
    "GET /threads/{thread_id}/state/{checkpoint_id}",
    "POST /threads/{thread_id}/state/checkpoint",
)
async def test_the_state_is_read_now_and_as_it_was(official: Official) -> None:
    at = await thread(official)
    now = await official.threads.get_state(at)
    assert now["values"] == {"x": ["in", "one", "two"], "n": 1}
    assert (now["next"], now["tasks"], now["interrupts"]) == ([], [], [])
    assert now["metadata"]["step"] == 2
    assert now["checkpoint"]["thread_id"] == at
    before = now["parent_checkpoint"]
    by_id = await official.threads.get_state(at, checkpoint_id=before["checkpoint_id"])
    assert by_id["values"] == trail("in", "one")
    assert by_id["next"] == ["two"]
    assert await official.threads.get_state(at, checkpoint=before) == by_id
    assert (await official.threads.get_state(at, checkpoint={"thread_id": at})) == now
    for where in ({}, {"checkpoint_id": now["checkpoint_id"]}, {"checkpoint": now["checkpoint"]}):
        some = await official.threads.get_state(at, **where, select=["values.n", "next"])
        assert some == {"values": {"n": 1}, "next": []}


async def test_a_thread_without_a_run_has_an_empty_state(official: Official) -> None:
    made = await official.threads.create()
    state = await official.threads.get_state(made["thread_id"])
    assert state == {
        "values": {},
        "next": [],
        "tasks": [],
        "metadata": None,
        "created_at": None,
        "checkpoint": None,
        "parent_checkpoint": None,
        "interrupts": [],
        "checkpoint_id": None,
        "parent_checkpoint_id": None,
    }


async def test_the_state_of_a_subgraph_is_read_on_its_own_and_within(official: Official) -> None:
    at = await thread(official, "parent")
    [task] = (await official.threads.get_state(at))["tasks"]
    assert task["checkpoint"]["checkpoint_ns"] == f"child:{task['id']}"
    [within] = (await official.threads.get_state(at, subgraphs=True))["tasks"]
    assert within["state"]["values"]["x"] == ["in", "one"]
    assert within["state"]["next"] == ["question"]
    alone = await official.threads.get_state(at, checkpoint=task["checkpoint"])
    assert alone["values"] == within["state"]["values"]
    history = await official.threads.get_history(at, checkpoint=task["checkpoint"])
    assert [state["next"] for state in history] == [["question"], ["inner"], ["__start__"]]


@shows("threads.update_state", "POST /threads/{thread_id}/state")
async def test_the_state_is_changed_now_and_in_the_past(official: Official) -> None:
    at = await thread(official)
    made = await official.threads.update_state(at, trail("edited"), as_node="two")
    assert set(made) == {"checkpoint", "configurable", "checkpoint_id"}
    now = await official.threads.get_state(at)
    assert now["values"]["x"] == ["in", "one", "two", "edited"]
    assert now["checkpoint_id"] == made["checkpoint_id"]
    assert now["metadata"]["source"] == "update"
    history = await official.threads.get_history(at)
    [first] = [state for state in history if state["next"] == ["two"]]
    forked = await official.threads.update_state(
        at, trail("UPD"), as_node="one", checkpoint=first["checkpoint"]
    )
    branch = await official.threads.get_state(at)
    assert branch["values"]["x"] == ["in", "one", "UPD"]
    assert branch["parent_checkpoint"]["checkpoint_id"] == first["checkpoint_id"]
    assert branch["checkpoint_id"] == forked["checkpoint_id"]
    with pytest.raises(BadRequestError, match="bogus"):
        await official.threads.update_state(at, trail("x"), as_node="bogus")
    fresh = await official.threads.create()
    with pytest.raises(BadRequestError, match="has no assigned graph ID"):
        await official.threads.update_state(fresh["thread_id"], trail("x"))


@shows("threads.get_history", "POST /threads/{thread_id}/history")
async def test_the_history_is_paged_and_filtered(official: Official) -> None:
    at = await thread(official)
    history = await official.threads.get_history(at)
    assert [state["metadata"]["step"] for state in history] == [2, 1, 0, -1]
    older = history[1]
    assert [
        state["metadata"]["step"] for state in await official.threads.get_history(at, limit=2)
    ] == [2, 1]
    for before in (
        older["checkpoint_id"],
        older["checkpoint"],
        {"configurable": {"checkpoint_id": older["checkpoint_id"]}},
    ):
        found = await official.threads.get_history(at, before=before)
        assert [state["metadata"]["step"] for state in found] == [0, -1]
    [one] = await official.threads.get_history(at, metadata={"step": 0}, select=["values", "next"])
    assert one == {"values": trail("in"), "next": ["one"]}


@shows("threads.join_stream", "GET /threads/{thread_id}/stream")
async def test_the_stream_of_a_thread_tells_of_every_run_again(official: Official) -> None:
    at = await thread(official)
    await official.runs.wait(at, "fails", input=trail("in"), raise_error=False)
    told: list[Any] = []
    async with aclosing(official.threads.join_stream(at, last_event_id="-")) as parts:
        async for part in parts:
            told.append(part)
            if [p.data.get("status") for p in told if p.event == "metadata"].count("run_done") == 2:
                break
    assert [part.event for part in told] == [
        *("metadata", "values", "values", "values", "metadata"),
        *("metadata", "values", "values", "error", "metadata"),
    ]
    assert all(part.id for part in told)
    assert told[0].data["run_id"] == told[4].data["run_id"]
    # From an id on, nothing of what came before it.
    resumed = official.threads.join_stream(at, last_event_id=told[4].id)
    async with aclosing(resumed) as parts:
        assert (await anext(parts)).id == told[5].id


@shows("threads.join_stream", "GET /threads/{thread_id}/stream")
async def test_the_stream_of_a_thread_may_tell_only_of_runs_or_of_edits(official: Official) -> None:
    at = await thread(official)
    lifecycle = official.threads.join_stream(at, last_event_id="-", stream_mode="lifecycle")
    async with aclosing(lifecycle) as parts:
        begun, done = await anext(parts), await anext(parts)
    assert (begun.event, begun.data["attempt"]) == ("metadata", 1)
    assert done.data == {"status": "run_done", "run_id": begun.data["run_id"]}
    both = ["state_update", "lifecycle"]
    async with aclosing(
        official.threads.join_stream(at, last_event_id="-", stream_mode=both)
    ) as parts:
        assert (await anext(parts)).event == "metadata"  # it listens from here on
        await official.threads.update_state(at, trail("edited"), as_node="two")
        told = [await anext(parts) for _ in range(2)]
    [edit] = [part for part in told if part.event == "state_update"]
    assert edit.data["thread_id"] == at
    assert edit.data["state"]["values"]["x"][-1] == "edited"
    with pytest.raises(UnprocessableEntityError, match="Invalid stream mode: zz"):
        await anext(official.threads.join_stream(at, stream_mode="zz"))
    with pytest.raises(UnprocessableEntityError, match="Invalid last-event-id"):
        await anext(official.threads.join_stream(at, last_event_id="garbage"))
