"""kill -9 in every superstep, for every kind of run and every durability: nothing is done to the
state twice, and no superstep that was stored is lost."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from clew.checkpointing.postgres import SERVICE
from clew.runtime import interrupts
from tests.turns import NODES, Engine, engine

# Unless in `make chaos`, each kind, durability and place at least once.
SHORT = {
    ("input", "c", "sync"),
    ("input", "a", "async"),
    ("input", "e", "exit"),
    ("resume", "b", "async"),
    ("resume", "a", "sync"),
    ("command", "a", "sync"),
    ("command", "d", "async"),
    ("checkpoint", "a", "async"),
    ("checkpoint", "c", "sync"),
}


LEASE = 60  # a process that hears nothing of the processor for seconds is not what this is about


@contextlib.asynccontextmanager
async def process(
    dsn: str, *options: str, victim: str = ""
) -> AsyncGenerator[asyncio.subprocess.Process]:
    """A worker of its own, ready to claim."""
    worker = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.chaos.process",
        dsn,
        "--victim",
        victim,
        "--lease",
        str(LEASE),
        *options,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert worker.stdout is not None
        line = await worker.stdout.readline()
        assert line.strip().isdigit()
        yield worker
    finally:
        if worker.returncode is None:
            worker.kill()
        await worker.wait()


async def prepare(api: Engine, kind: str) -> dict[str, Any]:
    """Bring the session to where a run of this kind starts; what the run is then asked."""
    if kind == "input":
        return {"given": {"trail": ["input"]}}
    if kind == "resume":
        await api.turn("deadly", {"trail": ["input"], "gate": "ask"})
        (question,) = await interrupts.inbox(api.db, api.who)
        return {"command": {"resume": {question.interrupt_id: "yes"}}}
    await api.turn("five", {"trail": ["before"]})
    if kind == "command":
        return {"command": {"update": {"trail": ["update"]}, "goto": "a"}}
    async with api.graphs.open("five", checkpointer=api.saver, store=None) as graph:
        at: Any = {"configurable": {"thread_id": api.thread_id}}
        states = [state async for state in graph.aget_state_history(at)]
    (point,) = [state for state in states if state.next == ("a",)]
    return {"checkpoint": dict(point.config.get("configurable", {}))}


EXPECTED = {
    "input": ["input", *NODES],
    "resume": ["input", *NODES],
    "command": ["before", *NODES, "update", *NODES],
    "checkpoint": ["before", *NODES],
}


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("victim", NODES)
@pytest.mark.parametrize("kind", list(EXPECTED))
async def test_a_killed_run_goes_on_without_doing_anything_twice(
    dsn: str, kind: str, victim: str, durability: str, *, long: bool
):
    if not long and (kind, victim, durability) not in SHORT:
        pytest.skip("only in `make chaos`")
    async with engine(dsn, lease=LEASE) as first:
        asked = await prepare(first, kind)
        thread_id = first.thread_id
        async with first.db.connection() as conn:
            await conn.execute("create table public.death (once integer primary key)")
    async with (
        engine(dsn, role="api", thread_id=thread_id) as api,
        process(dsn, victim=victim) as doomed,
    ):
        run = await api.ask("deadly", asked.pop("given", None), durability=durability, **asked)
        assert await doomed.wait() == -9
        stored = await steps(api, run.run_id)
        async with engine(dsn, thread_id=thread_id, lease=LEASE):
            ended = await api.result(run)
        assert (ended.status, ended.attempt, ended.crashes) == ("success", 2, 1)
        assert (await api.state("deadly")).values["trail"] == EXPECTED[kind]
        assert stored <= await steps(api, run.run_id)
        if durability == "sync":
            # Everything before the node that died had been stored, and was not done again.
            assert len(stored) >= NODES.index(victim)


async def test_one_that_begins_anew_does_things_twice(dsn: str):
    """The negative control: what keeps them from it is how a run is entered again, and it shows."""
    async with engine(dsn, lease=LEASE) as first:
        asked = await prepare(first, "command")
        thread_id = first.thread_id
        async with first.db.connection() as conn:
            await conn.execute("create table public.death (once integer primary key)")
    async with engine(dsn, role="api", thread_id=thread_id) as api:
        async with process(dsn, victim="c") as doomed:
            run = await api.ask("deadly", asked.pop("given", None), durability="sync", **asked)
            assert await doomed.wait() == -9
        async with process(dsn, "--forgetful"):
            assert (await api.result(run)).status == "success"
        trail = (await api.state("deadly")).values["trail"]
        assert trail.count("b") == EXPECTED["command"].count("b") + 1


async def steps(api: Engine, run_id: str) -> set[str]:
    rows = await api.db.fetch(
        SERVICE, "select checkpoint_id::text from clew.checkpoint where run_id = %s", [run_id]
    )
    return {row["checkpoint_id"] for row in rows}
