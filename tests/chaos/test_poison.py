"""Graphs that do whatever a graph must not do: each ends as it should, the session is not stuck,
and others' runs in the same process go on."""

import time
from typing import Any

import httpx
import pytest

from clew.checkpointing.postgres import SERVICE, Database
from tests.chaos.project.graphs import STEPS
from tests.chaos.replicas import Replica, replicas, session

MEGABYTE = 1024 * 1024


async def turn(client: httpx.AsyncClient, graph: str, **given: Any) -> tuple[str, dict[str, Any]]:
    """How a run of it ends, and how it leaves its session."""
    thread_id = await session(client, "")
    body = {"assistant_id": graph, "input": given, "stream_mode": ["custom", "values"]}
    run = (await client.post(f"/threads/{thread_id}/runs", json=body)).json()
    await client.get(f"/threads/{thread_id}/runs/{run['run_id']}/join")
    ended = (await client.get(f"/threads/{thread_id}/runs/{run['run_id']}")).json()
    return ended["status"], (await client.get(f"/threads/{thread_id}")).json()


# How a run of each ends, and how it leaves its session. The last two are the control: what is
# sound is told from poison.
ENDS = {
    "raises": ("error", "error"),
    "hangs": ("timeout", "error"),
    "strange": ("error", "error"),
    "count": ("success", "idle"),
    "flood": ("success", "idle"),
}


@pytest.mark.timeout(120)
async def test_poison_ends_and_harms_nobody_else(dsn: str, *, long: bool):
    async with (
        replicas(dsn, 1, run_timeout="3s") as (replica,),
        httpx.AsyncClient(base_url=replica.url, timeout=60) as client,
    ):
        for graph, ends in ENDS.items():
            thread_id = await session(client, "")
            body = {"assistant_id": "steps", "input": {"pause": 0.05}}
            beside = (await client.post(f"/threads/{thread_id}/runs", json=body)).json()
            ended, left = await turn(client, graph, events=3, megabytes=5)
            assert (ended, left["status"]) == ends, graph
            await client.get(f"/threads/{thread_id}/runs/{beside['run_id']}/join")
            found = (await client.get(f"/threads/{thread_id}/runs/{beside['run_id']}")).json()
            assert found["status"] == "success", graph
            # The session of the poison takes another turn.
            again = {"assistant_id": "count", "input": {"events": 1}}
            answer = await client.post(f"/threads/{left['thread_id']}/runs/wait", json=again)
            assert answer.status_code == 200
        await huge(client, replica, 100 if long else 20)


async def huge(client: httpx.AsyncClient, replica: Replica, size: int) -> None:
    """So many megabytes in one event."""
    before, began = replica.memory, time.monotonic()
    status, left = await turn(client, "huge", megabytes=size)
    held = (replica.memory - before) // MEGABYTE
    print(f"{size} MB in one event: {status} in {time.monotonic() - began:.1f} s, {held} MB held")
    assert (status, left["status"]) in (
        ("success", "idle"),
        ("error", "error"),
        ("timeout", "error"),
    )
    assert held < 10 * size
    assert (await turn(client, "count", events=1))[0] == "success"


@pytest.mark.timeout(120)
async def test_a_graph_that_blocks_the_loop_loses_no_turn(dsn: str):
    """Longer than the lease: what runs beside it is taken over, and goes on elsewhere."""
    async with (
        replicas(dsn, 2, run_timeout="30s") as (first, second),
        httpx.AsyncClient(timeout=60) as client,
        Database.open(dsn) as db,
    ):
        thread_id = await session(client, first.url)
        slow = {"assistant_id": "steps", "input": {"pause": 0.3}}
        beside = (await client.post(f"{first.url}/threads/{thread_id}/runs", json=slow)).json()
        poisoned = await session(client, first.url)
        body = {"assistant_id": "blocks", "input": {"pause": 4.0}}
        poison = (await client.post(f"{first.url}/threads/{poisoned}/runs", json=body)).json()
        for found, run in ((thread_id, beside), (poisoned, poison)):
            path = f"/threads/{found}/runs/{run['run_id']}"
            await client.get(f"{second.url}{path}/join")
            ended = (await client.get(f"{second.url}{path}")).json()
            assert ended["status"] == "success"
        state = (await client.get(f"{second.url}/threads/{thread_id}/state")).json()
        assert state["values"]["trail"] == list(range(STEPS))
        doubled = await db.fetch(
            SERVICE,
            "select from clew.checkpoint where ns = '' "
            "group by lineage_id, run_id, step having count(*) > 1",
        )
        assert doubled == []
