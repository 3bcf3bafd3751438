"""Workers whose clocks are hours off: nothing rests on them but what is shown to people."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import pytest

from clew.checkpointing.postgres import SERVICE
from tests.chaos.test_workers import Fleet, damage, load, settled
from tests.turns import Engine, engine

HOURS = 3600


@contextlib.asynccontextmanager
async def clocks(dsn: str, *options: str) -> AsyncGenerator[tuple[Engine, Fleet]]:
    """One worker six hours behind, one six hours ahead."""
    workers = Fleet(dsn)
    async with engine(dsn, role="api") as api:
        try:
            for hours in (-6, 6):
                workers.options = [f"--skew={hours * HOURS}", *options]
                await workers.start()
            yield api, workers
        finally:
            await workers.stop()


async def crashes(api: Engine) -> int:
    (row,) = await api.db.fetch(SERVICE, "select sum(crashes)::int as n from clew.run")
    return row["n"]


@pytest.mark.timeout(300)
async def test_clocks_that_are_hours_off_matter_to_nothing(dsn: str, *, long: bool):
    sessions, turns = (40, 10) if long else (6, 2)
    async with clocks(dsn) as (api, workers):
        accepted = await load(api, sessions, turns)
        await settled(api)
        # Nobody was taken for dead who was not, and who is dead is found so.
        assert await crashes(api) == 0
        asked = await load(api, sessions, turns)
        await workers.kill()
        await settled(api)
        assert await damage(api, accepted | asked) == []


async def test_states_are_read_whole_whatever_the_readers_clock_says(
    dsn: str, monkeypatch: pytest.MonkeyPatch
):
    async with clocks(dsn) as (api, _):
        now = asyncio.get_running_loop().time()
        monkeypatch.setattr("time.time", lambda: 12 * HOURS + now)
        request = {"trail": ["turn0"]}
        run = await api.ask("paced", request, stream_mode=["values"])
        states = [event for event in await api.events(run) if event.name == "values"]
        assert len(states) == 6


@pytest.mark.timeout(120)
async def test_leases_by_the_workers_own_clock_would_do_damage(dsn: str):
    """The negative control: what the one that is ahead had when it died is its own for hours, and
    the one that is behind never has a lease."""
    async with clocks(dsn, "--own-clock") as (api, workers):
        await load(api, 4, 2)
        ahead = workers.workers.pop()
        ahead.kill()
        await ahead.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await settled(api)
        assert await api.db.fetch(SERVICE, "select from clew.run where status <> 'success'")
