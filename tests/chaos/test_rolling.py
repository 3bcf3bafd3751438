"""Replicas are replaced one after the other while streams are open: each says when to come back
before it leaves, no turn is lost, and every reader hears its turn to the end."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.chaos.project.graphs import STEPS
from tests.chaos.replicas import Reader, Replica, replicas, session


@dataclass
class Talk:
    reader: Reader
    thread_id: str
    at: int


async def follow(talk: Talk, fleet: list[Replica], body: dict[str, Any]) -> None:
    """One turn to its end, at whichever replica answers."""
    reader = talk.reader
    while not reader.over:
        url = fleet[talk.at].url
        try:
            if reader.place is None:
                await reader.begin(url, talk.thread_id, body, None)
            else:
                await reader.resume(url)
        except (httpx.TransportError, httpx.RemoteProtocolError):
            talk.at = (talk.at + 1) % len(fleet)
            # What the server asks for: a quarter of a second.
            await asyncio.sleep(0.25)


def faults(reader: Reader) -> list[str]:
    """As `Reader.faults`, but a step that was broken off is told again, after a mark."""
    ids = [tuple(map(int, frame.id.split("-"))) for frame in reader.frames]
    found = [] if ids == sorted(set(ids)) else [f"ids are doubled or out of order: {ids}"]
    told: list[int] = []
    marked = False
    for frame in reader.frames:
        if frame.event == "custom":
            n = frame.data["n"]
            if told and n != told[-1] + 1 and not marked:
                found.append(f"{n} came after {told[-1]}")
            told.append(n)
            marked = False
        elif frame.event == "metadata":
            marked = True
    if sorted(set(told)) != list(range(STEPS)):
        found.append(f"steps are missing: {told}")
    return found


async def roll(
    dsn: str, streams: int, pause: float, *, kill: bool = False
) -> tuple[list[str], int, list[float]]:
    """What went wrong, how many were told to come back, and in how many seconds each left."""
    async with (
        replicas(dsn, 2, concurrency=streams, pool_size=20) as fleet,
        httpx.AsyncClient(
            timeout=60, limits=httpx.Limits(max_connections=None, max_keepalive_connections=0)
        ) as client,
    ):
        body: dict[str, Any] = {
            "assistant_id": "steps",
            "input": {"pause": pause},
            "stream_mode": ["custom"],
            "stream_resumable": True,
        }
        threads = [await session(client, fleet[n % 2].url) for n in range(streams)]
        talks = [Talk(Reader(client), thread_id, n % 2) for n, thread_id in enumerate(threads)]
        following = [asyncio.create_task(follow(talk, fleet, body)) for talk in talks]
        await asyncio.gather(*(talk.reader.heard.wait() for talk in talks))
        left: list[float] = []
        began = time.monotonic()
        for replica in fleet[:1] if kill else fleet:
            if kill:
                await replica.kill()
            else:
                left.append(await replica.stop())
            await replica.start()
        rolled = time.monotonic() - began
        await asyncio.gather(*following)
        wrong = [fault for talk in talks for fault in faults(talk.reader)]
        for talk in talks:
            state = (await client.get(f"{fleet[0].url}/threads/{talk.thread_id}/state")).json()
            if state["values"]["trail"] != list(range(STEPS)):
                wrong.append(f"{talk.thread_id}: {state['values']}")
    hints = sum(talk.reader.hints for talk in talks)
    if left:
        print(
            f"{streams} streams, {hints} told to come back; left after {left}, all {rolled:.1f} s"
        )
    return wrong, hints, left


@pytest.mark.timeout(600)
async def test_a_rolling_restart_loses_no_turn_and_every_stream_goes_on(dsn: str, *, long: bool):
    streams, pause = (200, 2.0) if long else (30, 0.5)
    wrong, hints, left = await roll(dsn, streams, pause)
    assert wrong == []
    assert max(left) < 10
    # Those of the first replica at least; those of the second unless they were done by then.
    assert hints >= streams // 2


async def test_one_that_is_killed_tells_nobody(dsn: str):
    """The negative control: the hint comes from an orderly end, and its absence is seen."""
    wrong, hints, _ = await roll(dsn, 6, 0.3, kill=True)
    assert wrong == []
    assert hints == 0
