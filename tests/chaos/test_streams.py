"""Streams over HTTP that are cut at any byte and taken up again at another replica: every event
once, in order; by Postgres alone, and with Redis."""

import asyncio
import random
from collections.abc import Generator

import httpx
import pytest

from clew.checkpointing.postgres import SERVICE, Database
from tests import redises
from tests.chaos.replicas import Reader, Replica, replicas, session

EVENTS = 30
ODD = """
select run_id, status, attempt, crashes, error from clew.run
where status <> 'success' or attempt > 1
"""


@pytest.fixture(params=["postgres", "redis"])
def carrier(request: pytest.FixtureRequest) -> Generator[dict[str, str]]:
    if request.param == "postgres":
        yield {}
        return
    with redises.serving() as redis:
        yield {"redis_url": redis.url}


async def stream(
    client: httpx.AsyncClient, fleet: list[Replica], chance: random.Random, *, skip: int = 0
) -> Reader:
    """One turn, from its beginning to its end, through many connections."""
    reader = Reader(client)
    here = chance.randrange(len(fleet))
    body = {
        "assistant_id": "count",
        "input": {"events": EVENTS, "pause": 0.03},
        "stream_mode": ["custom", "values"],
        "stream_resumable": True,
    }
    thread_id = await session(client, fleet[here].url)
    await reader.begin(fleet[here].url, thread_id, body, chance.randrange(200, 1500))
    while not reader.over:
        here = (here + chance.randrange(1, len(fleet))) % len(fleet)
        if skip and reader.last_id:
            epoch, n = map(int, reader.last_id.split("-"))
            reader.last_id, skip = f"{epoch}-{n + skip}", 0
        cut = chance.randrange(1, 1500) if len(reader.resumes) < 6 else None
        await reader.resume(fleet[here].url, cut)
    return reader


@pytest.mark.timeout(1800)
async def test_streams_cut_at_any_byte_go_on_at_another_replica(
    dsn: str, carrier: dict[str, str], *, long: bool
):
    total, width = (1000, 100) if long else (40, 20)
    chance = random.Random(5)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=50)
    async with (
        # A process that hears nothing of the processor for two seconds is not what this is about.
        replicas(
            dsn, 2, concurrency=width, pool_size=20, heartbeat="2s", lease="60s", **carrier
        ) as fleet,
        httpx.AsyncClient(timeout=60, limits=limits) as client,
        Database.open(dsn) as db,
    ):
        lanes = asyncio.Semaphore(width)

        async def one() -> Reader:
            async with lanes:
                return await stream(client, fleet, chance)

        readers = await asyncio.gather(*(one() for _ in range(total)))
        # The negative control: one that comes back by a wrong id is found out.
        careless = await stream(client, fleet, chance, skip=1)
        assert any("gap" in fault for fault in careless.faults(EVENTS))
        odd = await db.fetch(SERVICE, ODD)
    resumes = sorted(seconds for reader in readers for seconds in reader.resumes)
    assert len(resumes) > total
    p50, p99 = (resumes[int(len(resumes) * part)] for part in (0.5, 0.99))
    print(
        f"{total} streams, {width} at a time, {len(resumes)} resumes by "
        f"{'redis' if carrier else 'postgres'}: p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms"
    )
    assert odd == []  # else no wonder
    assert [fault for reader in readers for fault in reader.faults(EVENTS)] == []
