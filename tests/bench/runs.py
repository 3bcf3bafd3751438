"""The run engine: how soon runs start and stop, how many there can be, and what one costs beside
the graph itself."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from clew.checkpointing.postgres import SERVICE
from clew.runtime import events, leases, runs
from clew.runtime.events import PostgresLog
from clew.runtime.requests import RunRequest
from tests.bench.report import Section, Table
from tests.turns import GATES, Engine, engine

SAID = {"messages": [{"role": "user", "content": "hello"}]}


async def run(dsn: str, *, long: bool) -> Section:
    count = 300 if long else 20
    section = Section("runs", "The run engine")
    async with engine(dsn, concurrency=64) as here:
        here.db.prepares = True  # as the server does where it found no pooler
        section.add(await latencies(here, count))
        section.add(await rates(here, count))
        section.add(await cost(here, count))
    return section


async def latencies(here: Engine, count: int) -> Table:
    table = Table("Latency, one at a time, ms", ("what", "p50", "p99", "budget"))
    await here.turn("echo", SAID)

    async def inline() -> float:
        thread_id = await here.another()
        began = time.perf_counter()
        run = await here.ask("echo", SAID, thread_id=thread_id)
        took = time.perf_counter() - began
        assert run.status == "running"
        await here.result(run)
        return took

    async def first_event() -> float:
        thread_id = await here.another()
        began = time.perf_counter()
        run = await here.ask("echo", SAID, thread_id=thread_id)
        took = 0.0
        async for event in here.follow(run):
            if event.name == "values" and not took:
                took = time.perf_counter() - began
        return took

    async def queued() -> float:
        thread_id = await here.another()
        request = RunRequest(graph_id="echo", input=SAID)
        run = await runs.create(here.db, here.who, here.owner_id, thread_id, request)
        began = time.perf_counter()
        here.notifier.publish("queue")
        took = 0.0
        async for _ in here.follow(run):
            took = took or time.perf_counter() - began
        return took

    async def cancel() -> float:
        GATES.clear()
        thread_id = await here.another()
        run = await here.ask("waits", {"trail": []}, thread_id=thread_id)
        await GATES[""].entered.wait()
        began = time.perf_counter()
        wait = timedelta(seconds=10)
        await here.worker.cancel(here.who, thread_id, run.run_id, wait=wait)
        return time.perf_counter() - began

    measured: list[tuple[str, Callable[[], Awaitable[float]], str]] = [
        ("inline start", inline, "p50 < 2"),
        ("submit to first values, graph included", first_event, "p50 < 10 over the graph"),
        ("queued start", queued, "p50 < 5"),
        ("cancel, until it has stopped", cancel, "p99 < 50"),
    ]
    for name, once, budget in measured:
        times = sorted([await once() for _ in range(count)])
        table.row(name, ms(statistics.median(times)), ms(times[int(len(times) * 0.99)]), budget)
    return table


async def rates(here: Engine, count: int) -> Table:
    table = Table("Rates of one process", ("what", "per second", "budget"))
    # Claims of runs that nobody executes.
    idle = await leases.enlist(here.db, "bench", timedelta(minutes=5))
    await here.worker.drain(timedelta(seconds=10))
    made = 10 * count
    await here.db.execute(
        SERVICE,
        "with s as (insert into clew.session (thread_id, owner_id) select gen_random_uuid(), %s "
        "from generate_series(1, %s) returning thread_id, owner_id) "
        "insert into clew.run (run_id, thread_id, owner_id, graph_id, status, request) "
        "select gen_random_uuid(), thread_id, owner_id, 'echo', 'pending', '{}' from s",
        [here.owner_id, made],
    )
    async with here.db.connection() as conn:
        await conn.execute("analyze")
    began = time.perf_counter()
    claimed = [run for _ in range(made // 16 + 1) for run in await leases.claim(here.db, idle, 16)]
    table.row("claims, 16 at a time", per_second(len(claimed), began), ">= 3,000")
    log = PostgresLog(here.db)
    batch = 600
    data = b'["token",{"langgraph_node":"model"}]' * 7
    began = time.perf_counter()
    for n in range(max(1, count // 4)):
        entries = [
            events.Entry(i, 0, "messages", (), "model", data, data)
            for i in range(n * batch + 2, (n + 1) * batch + 2)
        ]
        run = claimed[0]
        row = events.row(run.thread_id, run.run_id, run.epoch or 0, entries, v2=False)
        assert await log.append([row])
    table.row(
        "events of 250 bytes, 600 a flush",
        per_second(max(1, count // 4) * batch, began),
        ">= 30,000",
    )
    return table


async def cost(here: Engine, count: int) -> Table:
    """CPU of this process for a run, beside the bare graph with the same saver."""
    columns = (
        "graph",
        "at once",
        "bare, runs/s",
        "engine, runs/s",
        "bare, CPU ms",
        "engine, CPU ms",
        "ratio",
    )
    table = Table("A run beside the bare graph with the same saver", columns)
    async with engine(dsn_of(here), concurrency=64) as fresh:
        fresh.db.prepares = True
        for graph_id in ("echo", "speaks"):
            for width in (1, 8, 32):
                bare = await load(count, width, lambda g=graph_id: plain(fresh, g))
                full = await load(count, width, lambda g=graph_id: whole(fresh, g))
                table.row(
                    graph_id,
                    width,
                    f"{bare[0]:.0f}",
                    f"{full[0]:.0f}",
                    f"{bare[1]:.2f}",
                    f"{full[1]:.2f}",
                    f"{full[1] / bare[1]:.2f}",
                )
    return table


def dsn_of(here: Engine) -> str:
    return str(here.db.pool.conninfo)


async def plain(here: Engine, graph_id: str) -> None:
    thread_id = await here.another()
    saver = here.saver.bind(owner_id=here.owner_id)
    at: Any = {"configurable": {"thread_id": thread_id}}
    async with here.graphs.open(graph_id, checkpointer=saver, store=None) as graph:
        async for _ in graph.astream(SAID, at, stream_mode=["values", "messages"]):
            pass


async def whole(here: Engine, graph_id: str) -> None:
    thread_id = await here.another()
    run = await here.ask(
        graph_id, SAID, thread_id=thread_id, stream_mode=["values", "messages-tuple"]
    )
    async for _ in here.follow(run):
        pass


async def load(count: int, width: int, once: Callable[[], Awaitable[None]]) -> tuple[float, float]:
    """Runs per second, and milliseconds of CPU for each."""
    left = iter(range(count))

    async def lane() -> None:
        for _ in left:
            await once()

    began, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*(lane() for _ in range(width)))
    took, cpu = time.perf_counter() - began, time.process_time() - used
    return count / took, cpu / count * 1000


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f}"


def per_second(count: int, began: float) -> str:
    return f"{count / (time.perf_counter() - began):,.0f}"
