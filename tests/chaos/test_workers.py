"""Workers killed and frozen at random under load. Every accepted turn ends, once; nothing of a
worker that lost its lease lands. With the fence taken away the same test has to find damage."""

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from clew.checkpointing.postgres import SERVICE
from tests.turns import NODES, Engine, engine

LEASE = 2.0


@dataclass
class Fleet:
    """Worker processes that are killed and replaced."""

    dsn: str
    options: list[str] = field(default_factory=list[str])
    workers: list[asyncio.subprocess.Process] = field(
        default_factory=list[asyncio.subprocess.Process]
    )
    names: dict[int, int] = field(default_factory=dict[int, int])  # worker ids by process
    killed: int = 0
    frozen: int = 0

    async def start(self) -> None:
        worker = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.chaos.process",
            self.dsn,
            "--heartbeat",
            "0.3",
            "--lease",
            str(LEASE),
            *self.options,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert worker.stdout is not None
        self.names[worker.pid] = int(await worker.stdout.readline())
        self.workers.append(worker)

    async def kill(self) -> None:
        victim = self.workers.pop(random.randrange(len(self.workers)))
        victim.kill()
        await victim.wait()
        self.killed += 1
        await self.start()

    async def freeze(self) -> None:
        """Past its lease, and then it wakes up and goes on as if nothing had been."""
        victim = random.choice(self.workers)
        os.kill(victim.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(LEASE * 1.6)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim.pid, signal.SIGCONT)
        self.frozen += 1

    async def stop(self) -> None:
        for worker in self.workers:
            if worker.returncode is None:
                worker.kill()
            await worker.wait()


@contextlib.asynccontextmanager
async def fleet(dsn: str, size: int, *options: str) -> AsyncGenerator[Fleet]:
    workers = Fleet(dsn, list(options))
    try:
        for _ in range(size):
            await workers.start()
        yield workers
    finally:
        await workers.stop()


async def load(api: Engine, sessions: int, turns: int) -> dict[str, list[str]]:
    """Turns on sessions; the runs of each, in the order in which they were accepted."""
    accepted: dict[str, list[str]] = {}
    for _ in range(sessions):
        thread_id = await api.another()
        accepted[thread_id] = [
            (await api.ask("paced", {"trail": [f"turn{n}"]}, thread_id=thread_id)).run_id
            for n in range(turns)
        ]
    return accepted


# Every row that a worker stores, with the epoch that its session is in while it is written, and the
# process that writes it. Its statement holds the head, so the epoch is that of the commit.
WITNESS = """
drop function if exists public.witness() cascade;
drop table if exists public.witness;
create table public.witness (thread_id text, epoch bigint, process text, place text);
create function public.witness() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp as $$
begin
    insert into public.witness
    select h.thread_id, h.epoch, current_setting('chaos.process', true), tg_table_name
    from clew.head h where h.lineage_id = new.lineage_id;
    return null;
end
$$;
create trigger witness after insert on clew.checkpoint
    for each row execute function public.witness();
create trigger witness after insert on clew.item for each row execute function public.witness();
create trigger witness after insert on clew.write for each row execute function public.witness();
"""
# An epoch has one holder: two processes that wrote in one were not both it.
TWO_HANDS = """
select thread_id, epoch, array_agg(distinct process || ' ' || place) as wrote
from public.witness group by thread_id, epoch having count(distinct process) > 1
"""
NO_HANDS = "select from public.witness where process is null or process = ''"


async def witnessed(api: Engine) -> None:
    async with api.db.connection() as conn:
        await conn.execute(WITNESS)


async def settled(api: Engine) -> None:
    with api.notifier.listen("queue") as bell:
        while await api.db.fetch(
            SERVICE, "select from clew.run where status in ('pending', 'running') limit 1"
        ):
            await bell.wait(0.2)


async def damage(api: Engine, accepted: dict[str, list[str]]) -> list[str]:
    """What is wrong, in words; nothing is the only right answer."""
    faults: list[str] = []
    for thread_id, run_ids in accepted.items():
        expected: list[str] = []
        for n in range(len(run_ids)):
            expected += [f"turn{n}", *NODES]
        trail = (await api.state("paced", thread_id)).values.get("trail")
        if trail != expected:
            faults.append(f"{thread_id}: {trail}")
    rows = await api.db.fetch(
        SERVICE, "select run_id::text, status from clew.run where status <> 'success'"
    )
    faults += [f"run {row['run_id']} is {row['status']}" for row in rows]
    twice = await api.db.fetch(
        SERVICE,
        "select run_id, step from clew.checkpoint where ns = '' group by lineage_id, run_id, step "
        "having count(*) > 1",
    )
    faults += [f"step {row['step']} of {row['run_id']} is there twice" for row in twice]
    overlapping = await api.db.fetch(
        SERVICE,
        "select from clew.event a join clew.event b using (thread_id, epoch) "
        "where a.first_n < b.first_n and a.last_n >= b.first_n and a.last_n <> b.last_n",
    )
    faults += ["events of one epoch were written by two"] * len(overlapping)
    return faults


async def strangers(api: Engine) -> list[str]:
    """Rows of checkpoints that were written in an epoch of somebody else's."""
    async with api.db.connection() as conn:
        rows = await (await conn.execute(TWO_HANDS)).fetchall()
        assert not await (await conn.execute(NO_HANDS)).fetchall()
        assert await (await conn.execute("select from public.witness limit 1")).fetchall()
    return [f"{row['thread_id']}, epoch {row['epoch']}: {row['wrote']}" for row in rows]


async def storm(
    workers: Fleet, done: asyncio.Event, acts: list[Callable[[], Awaitable[Any]]]
) -> None:
    while not done.is_set():
        await random.choice(acts)()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(random.uniform(0.3, 1.5)):
                await done.wait()


async def weather(
    dsn: str, *, sessions: int, turns: int, strikes: int, unfenced: bool = False
) -> tuple[list[str], Fleet]:
    """Load under a storm, until everything that was accepted is over and enough was struck."""
    options = ["--unfenced"] if unfenced else []
    async with engine(dsn, role="api") as api, fleet(dsn, 3, *options) as workers:
        await witnessed(api)
        done = asyncio.Event()
        acts: list[Callable[[], Awaitable[Any]]] = [workers.freeze]
        if not unfenced:
            acts += [workers.kill, workers.kill]
        raging = asyncio.create_task(storm(workers, done, acts))
        accepted: dict[str, list[str]] = {}
        while workers.killed + workers.frozen < strikes:
            accepted |= await load(api, sessions, turns)
            await settled(api)
        done.set()
        await raging
        await settled(api)
        # A frozen worker that woke up last has had time to do its worst.
        await asyncio.sleep(1.0)
        return await damage(api, accepted) + await strangers(api), workers


@pytest.mark.timeout(900)
async def test_killed_and_frozen_workers_lose_nothing(dsn: str, *, long: bool):
    sessions, turns, strikes = (60, 5, 40) if long else (4, 2, 2)
    faults, workers = await weather(dsn, sessions=sessions, turns=turns, strikes=strikes)
    assert faults == []
    assert workers.killed + workers.frozen >= strikes
    print(f"{workers.killed} killed, {workers.frozen} frozen and thawed: no fault found")


@pytest.mark.timeout(900)
async def test_without_the_fence_the_same_storm_does_damage(dsn: str, *, long: bool):
    """The negative control: if this passes, the test above proves nothing."""
    for _ in range(12 if long else 6):
        faults, _ = await weather(dsn, sessions=6, turns=3, strikes=2, unfenced=True)
        if faults:
            return
    pytest.fail("no damage was done without the fence")
