"""The saver against the stock one: throughput, growth, history, forks. Interleaved, one machine.

Ratios are what counts: both savers run in turn in the same process on the same server, with row
security and fence on for ours.
"""

import asyncio
import contextlib
import statistics
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from typing import Any

import psycopg
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from clew.checkpointing import lineage
from clew.checkpointing.postgres import SERVICE, Database
from clew.checkpointing.saver import Fence, Saver
from tests.bench import distance
from tests.bench.graphs import Compiled, echo
from tests.bench.report import Section, Table

Make = Callable[[str], Any]  # a saver for a thread


def config(thread_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id}}


@contextlib.asynccontextmanager
async def stock(dsn: str) -> AsyncGenerator[Make]:
    """Stock on a pool of the same size, shared by all turns, as its own documentation has it."""
    kwargs = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    async with AsyncConnectionPool(dsn, min_size=4, max_size=16, kwargs=kwargs, open=False) as pool:
        saver = AsyncPostgresSaver(pool)  # pyright: ignore[reportArgumentType]
        await saver.setup()

        async def make(_thread_id: str) -> BaseCheckpointSaver[Any]:
            return saver

        yield make


@contextlib.asynccontextmanager
async def ours(dsn: str) -> AsyncGenerator[Make]:
    """Ours as the server uses it: one owner's principal, a fence for each thread."""
    async with Database.open(dsn, max_size=16) as db:
        db.prepares = True  # as the server does where it found no pooler
        saver = Saver(db)
        owner_id = await db.owner("bench", "owner")

        async def make(thread_id: str) -> BaseCheckpointSaver[Any]:
            async with db.transaction(SERVICE) as conn:
                head = await lineage.create(conn, thread_id, owner_id)
                head = await lineage.claim(conn, thread_id)
            return saver.bind(owner_id=owner_id, fence=Fence(thread_id, head.epoch))

        yield make


async def turns_per_second(make: Make, concurrency: int, seconds: float) -> tuple[float, float]:
    """Turns per second of threads of five turns each, and CPU milliseconds per turn here."""
    done = 0
    builder = echo()
    stop = time.monotonic() + seconds
    cpu = time.process_time()

    async def one() -> None:
        nonlocal done
        while time.monotonic() < stop:
            thread_id = str(uuid.uuid4())
            graph: Compiled = builder.compile(checkpointer=await make(thread_id))
            for number in range(5):
                turn = {"messages": [("user", f"turn {number} of this thread")]}
                await graph.ainvoke(turn, config(thread_id), durability="async")
                done += 1

    started = time.monotonic()
    await asyncio.gather(*(one() for _ in range(concurrency)))
    took = time.monotonic() - started
    return done / took, (time.process_time() - cpu) * 1000 / done


async def throughput(dsn: str, rounds: int, seconds: float) -> Table:
    table = Table(
        "Turns per second (echo, async durability)",
        ("round trip", "concurrency", "stock", "Clew", "ratio", "stock CPU ms", "Clew CPU ms"),
    )
    for away in (0.0, 0.001):
        async with contextlib.AsyncExitStack() as stack:
            at = await stack.enter_async_context(distance.away(dsn, away)) if away else dsn
            savers = [
                await stack.enter_async_context(stock(at)),
                await stack.enter_async_context(ours(at)),
            ]
            for concurrency in (1, 8, 32):
                rates: list[list[float]] = [[], []]
                spent: list[list[float]] = [[], []]
                for _ in range(rounds):
                    for kind, make in enumerate(savers):
                        rate, cpu = await turns_per_second(make, concurrency, seconds)
                        rates[kind].append(rate)
                        spent[kind].append(cpu)
                theirs, mine = (statistics.median(r) for r in rates)
                table.row(
                    f"+{away * 1000:.0f} ms" if away else "local",
                    concurrency,
                    f"{theirs:.0f}",
                    f"{mine:.0f}",
                    f"{mine / theirs:.1f}x",
                    *(f"{statistics.median(s):.1f}" for s in spent),
                )
    return table


TABLES = {
    "stock": ("public.checkpoints", "public.checkpoint_blobs", "public.checkpoint_writes"),
    "Clew": ("clew.checkpoint", "clew.item", "clew.write", "clew.lineage", "clew.head"),
}


async def size(dsn: str, kind: str) -> int:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        for table in TABLES[kind]:
            await conn.execute(f"vacuum {table}")  # pyright: ignore[reportArgumentType, reportCallIssue]
        row = await (
            await conn.execute(
                "select sum(pg_total_relation_size(t::regclass)) from unnest(%s::text[]) t",
                [list(TABLES[kind])],
            )
        ).fetchone()
    assert row is not None
    return int(row[0])


async def run(dsn: str, *, long: bool) -> Section:
    rounds, seconds = (5, 4.0) if long else (1, 1.0)
    section = Section("saver", "Throughput of the saver, against AsyncPostgresSaver")
    section.add(await throughput(dsn, rounds, seconds))
    return section
