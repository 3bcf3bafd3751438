"""Readers that open a stream and never read it: what they cost is bounded, and the run they follow
does not notice them."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Generator
from datetime import datetime

import httpx
import pytest

from tests.chaos.replicas import Replica, replicas, session

MEGABYTE = 1024 * 1024


@contextlib.contextmanager
def idle(replica: Replica, path: str, count: int) -> Generator[list[socket.socket]]:
    """Connections that ask for a stream and take nothing of it."""
    with contextlib.ExitStack() as stack:
        found: list[socket.socket] = []
        for _ in range(count):
            line = stack.enter_context(socket.socket())
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.connect(("127.0.0.1", replica.port))
            line.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nLast-Event-ID: -\r\n\r\n".encode())
            found.append(line)
        yield found


async def turn(client: httpx.AsyncClient, replica: Replica) -> float:
    """Seconds that an ordinary turn takes: 50 events, a hundredth of a second apart."""
    thread_id = await session(client, replica.url)
    body = {"assistant_id": "count", "input": {"events": 50, "pause": 0.01}}
    began = time.monotonic()
    answer = await client.post(f"{replica.url}/threads/{thread_id}/runs/wait", json=body)
    assert answer.json()["trail"] == [1]
    return time.monotonic() - began


async def flood(
    client: httpx.AsyncClient, replica: Replica, readers: int, size: int
) -> tuple[float, float]:
    """How long a run takes that streams so many megabytes, with so many who never read it; and
    how long a turn beside them, when they have taken all they will."""
    thread_id = await session(client, replica.url)
    # It waits behind one that holds the session until all readers are there.
    wait = {"assistant_id": "hoard", "input": {"megabytes": 1, "pause": 1.5}}
    await client.post(f"{replica.url}/threads/{thread_id}/runs", json=wait)
    body = {
        "assistant_id": "flood",
        "input": {"megabytes": size},
        "stream_mode": ["custom"],
        "multitask_strategy": "enqueue",
    }
    run = (await client.post(f"{replica.url}/threads/{thread_id}/runs", json=body)).json()
    path = f"/threads/{thread_id}/runs/{run['run_id']}"
    with idle(replica, path + "/stream", readers):
        await client.get(f"{replica.url}{path}/join")
        ended = (await client.get(replica.url + path)).json()
        assert ended["status"] == "success"
        runs = (await client.get(f"{replica.url}/threads/{thread_id}/runs")).json()
        beside = await turn(client, replica)
    (began,) = (row["updated_at"] for row in runs if row["run_id"] != run["run_id"])
    return _seconds(ended["updated_at"]) - _seconds(began), beside


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


async def peak(replica: Replica, done: asyncio.Event) -> int:
    most = 0
    while not done.is_set():
        most = max(most, replica.memory)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.02):
                await done.wait()
    return most


@pytest.mark.timeout(600)
async def test_readers_that_never_read_cost_little_and_slow_nothing(dsn: str, *, long: bool):
    readers, size = (500, 40) if long else (100, 20)
    async with (
        replicas(dsn, 1) as (replica,),
        httpx.AsyncClient(timeout=120) as client,
    ):
        alone, usual = await flood(client, replica, 1, size)
        before, done = replica.memory, asyncio.Event()
        watching = asyncio.create_task(peak(replica, done))
        watched, beside = await flood(client, replica, readers, size)
        done.set()
        held = await watching - before
    print(
        f"{readers} readers of {size} MB: {held / MEGABYTE:.0f} MB more held, "
        f"{held / readers / 1024:.0f} KB for each; the run {alone:.2f} s with one and "
        f"{watched:.2f} s with all; a turn beside {usual:.2f} s and {beside:.2f} s"
    )
    # Each has at most what a socket and its buffers hold; all that was streamed would be 20 or 40
    # times that.
    assert held < readers * MEGABYTE + 32 * MEGABYTE
    # Nobody waits for them: only the work of filling their buffers once is shared.
    assert beside < usual + 2.0


async def test_memory_that_is_held_is_seen(dsn: str):
    """The negative control: 100 MB that a graph holds show."""
    async with replicas(dsn, 1) as (replica,), httpx.AsyncClient(timeout=60) as client:
        done = asyncio.Event()
        before = replica.memory
        watching = asyncio.create_task(peak(replica, done))
        thread_id = await session(client, replica.url)
        body = {"assistant_id": "hoard", "input": {"megabytes": 100, "pause": 0.3}}
        await client.post(f"{replica.url}/threads/{thread_id}/runs/wait", json=body)
        done.set()
        assert await watching - before > 90 * MEGABYTE
