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
    cut: bool = False  # its first connection did not last to the end of the turn
    told: bool = False  # and that was said before


async def follow(talk: Talk, fleet: list[Replica], body: dict[str, Any]) -> None:
    """One turn to its end, at whichever replica answers."""
    reader = talk.reader
    while not reader.over:
        url = fleet[talk.at].url
        first = reader.place is None
        try:
            if first:
                await reader.begin(url, talk.thread_id, body, None)
            else:
                await reader.resume(url)
        except (httpx.TransportError, httpx.RemoteProtocolError):
            talk.at = (talk.at + 1) % len(fleet)
            # What the server asks for: a quarter of a second.
            await asyncio.sleep(0.25)
        if first:
            talk.cut, talk.told = not reader.over, reader.hints > 0


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
) -> tuple[list[str], list[Talk], list[float]]:
    """What went wrong, the talks, and in how many seconds each replica left."""
    async with (
        # A process that hears nothing of the processor for two seconds is not what this is about.
        replicas(dsn, 2, concurrency=streams, pool_size=20, lease="60s") as fleet,
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
    if left:
        hints = sum(talk.reader.hints for talk in talks)
        print(
            f"{streams} streams, {hints} told to come back; left after {left}, all {rolled:.1f} s"
        )
    return wrong, talks, left


@pytest.mark.timeout(900)
async def test_a_rolling_restart_loses_no_turn_and_every_stream_goes_on(dsn: str, *, long: bool):
    streams, pause = (200, 2.0) if long else (30, 0.5)
    wrong, talks, left = await roll(dsn, streams, pause)
    assert wrong == []
    # The grace is five seconds; what comes on top is the machine's.
    assert max(left) < (10 if long else 60)
    # Those of the first replica; those of the second unless they were done by then.
    assert any(talk.cut for talk in talks)
    assert [talk.thread_id for talk in talks if talk.cut and not talk.told] == []


@pytest.mark.timeout(900)
async def test_one_that_is_killed_tells_nobody(dsn: str):
    """The negative control: the hint comes from an orderly end, and its absence is seen."""
    wrong, talks, _ = await roll(dsn, 6, 0.3, kill=True)
    assert wrong == []
    assert any(talk.cut for talk in talks)
    assert not any(talk.told for talk in talks)
