"""A node that says nothing for long: no client takes the server for dead, and none is cut off."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import httpx
import pytest
import pytest_asyncio
from langgraph_sdk import get_client

from clew.api import outcome, sse

LONG = "CLEW_LONG" in os.environ
# The official JavaScript client gives up after three missed beats, six seconds at the least.
LONGEST_BEAT = 10


@pytest_asyncio.fixture
async def http(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        yield client


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> float:
    """A beat so short that a test can hear several."""
    for module in (sse, outcome):
        monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.2)
    return 0.2


def body(wait: float) -> dict[str, Any]:
    return {"assistant_id": "slow", "input": {"x": ["in"], "wait": wait}}


def test_the_beat_is_quick_enough_for_every_client() -> None:
    assert sse.HEARTBEAT_SECONDS == outcome.HEARTBEAT_SECONDS <= LONGEST_BEAT


async def beats(
    http: httpx.AsyncClient, method: str, path: str, until: int, **sent: Any
) -> list[float]:
    """When each heartbeat of a stream came."""
    heard: list[float] = []
    async with http.stream(method, path, **sent) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-accel-buffering"] == "no"
        async for line in answer.aiter_lines():
            if line == ": heartbeat":
                heard.append(time.monotonic())
                if len(heard) == until:
                    break
    return heard


async def test_every_stream_beats_while_nothing_happens(
    http: httpx.AsyncClient, quick: float
) -> None:
    at = (await http.post("/threads", json={})).json()["thread_id"]
    run = (await http.post(f"/threads/{at}/runs", json=body(30))).json()["run_id"]
    streams: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", f"/threads/{at}/runs/{run}/stream", {}),
        ("GET", f"/threads/{at}/stream", {}),
        ("POST", f"/threads/{at}/stream/events", {"json": {"channels": ["values"]}}),
    ]
    heard = await asyncio.gather(
        *(beats(http, method, path, 4, **more) for method, path, more in streams)
    )
    await http.post(f"/threads/{at}/runs/{run}/cancel", params={"wait": "1"})
    for times in heard:
        gaps = [b - a for a, b in pairwise(times)]
        # Steady: a client judges by the longest gap that it has seen.
        assert all(quick / 2 < gap < quick * 10 for gap in gaps)


@pytest.mark.parametrize("kind", ["wait", "join"])
async def test_an_answer_that_takes_long_begins_with_newlines(
    http: httpx.AsyncClient, quick: float, kind: str
) -> None:
    at = (await http.post("/threads", json={})).json()["thread_id"]
    if kind == "wait":
        answer = await http.post(f"/threads/{at}/runs/wait", json=body(1))
    else:
        run = (await http.post(f"/threads/{at}/runs", json=body(1))).json()["run_id"]
        answer = await http.get(f"/threads/{at}/runs/{run}/join")
    assert answer.text.startswith("\n\n")
    assert answer.json()["x"] == ["in", "one", "waited"]


@pytest.mark.skipif(not LONG, reason="takes twenty seconds; CLEW_LONG=1 runs it")
async def test_a_node_that_is_silent_for_twenty_seconds_costs_no_client_its_stream(
    url: str,
) -> None:
    # A client that takes eight seconds without a byte for the end.
    async with get_client(url=url, timeout=8) as client:
        given = body(20)["input"]

        async def streamed() -> Any:
            parts = [part async for part in client.runs.stream(None, "slow", input=given)]
            return parts[-2].data["x"]

        async def waited() -> Any:
            values: Any = await client.runs.wait(None, "slow", input=given)
            return values["x"]

        async def newer() -> Any:
            async with client.threads.stream(assistant_id="slow") as stream:
                await stream.run.start(input=given)
                return (await stream.output)["x"]

        found = await asyncio.gather(streamed(), waited(), newer())
    assert found == [["in", "one", "waited"]] * 3
