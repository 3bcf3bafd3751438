"""What a fork costs on long and on large sessions, and what the first read and turn after it do;
then after a hundred forks of forks and a hundred restores."""

import os
import statistics
import time
import uuid
from typing import Any

from langgraph.graph import START, MessagesState, StateGraph

from clew.checkpointing import lineage
from clew.checkpointing.postgres import SERVICE, Database
from clew.checkpointing.saver import Saver
from tests.bench.graphs import Compiled, Talk, talking
from tests.bench.report import Section, Table
from tests.bench.saver import config, size


class Large(MessagesState, total=False):
    blob: bytes


def _keep(state: Large) -> dict[str, Any]:
    return {"blob": state.get("blob", b"")}


large = StateGraph(Large).add_node("keep", _keep).add_edge(START, "keep")


async def timed(call: Any) -> float:
    began = time.perf_counter()
    await call
    return time.perf_counter() - began


def late(times: list[float]) -> float:
    """The 99th percentile."""
    return sorted(times)[int(len(times) * 0.99)]


class Bench:
    def __init__(self, dsn: str, db: Database, saver: Saver) -> None:
        self.dsn, self.db, self.saver = dsn, db, saver
        self.talk = Talk()
        self.graph: Compiled = talking(self.talk).compile(checkpointer=saver)

    async def fork(self, thread_id: str) -> str:
        target = str(uuid.uuid4())
        async with self.db.transaction(SERVICE) as conn:
            await lineage.fork(conn, thread_id, target)
        return target

    async def nothing(self) -> None:
        """What the machine and the database make of a transaction with nothing in it."""
        async with self.db.transaction(SERVICE) as conn:
            await conn.execute("select")

    async def restore(self, thread_id: str) -> None:
        state = await self.graph.aget_state(config(thread_id))
        at = state.config.get("configurable", {})["checkpoint_id"]
        async with self.db.transaction(SERVICE) as conn:
            await lineage.restore(conn, thread_id, at)

    async def turn(self, thread_id: str) -> float:
        asked = {"messages": [("user", self.talk.question())]}
        return await timed(self.graph.ainvoke(asked, config(thread_id)))

    async def read(self, thread_id: str) -> float:
        return await timed(self.graph.aget_state(config(thread_id)))

    async def row(self, table: Table, what: str, thread_id: str, count: int) -> str:
        """Fork it `count` times; compare the last fork's reads and turns with the parent's."""
        before = await size(self.dsn, "Clew")
        forks: list[float] = []
        idle: list[float] = []
        fork = thread_id
        for _ in range(count):
            idle.append(await timed(self.nothing()))
            began = time.perf_counter()
            fork = await self.fork(thread_id)
            forks.append(time.perf_counter() - began)
        grown = (await size(self.dsn, "Clew") - before) / count
        # In turns, so that what else the machine does falls on both.
        took: list[list[float]] = [[], [], [], []]
        for _ in range(15):
            took[0].append(await self.read(thread_id))
            took[1].append(await self.read(fork))
        for _ in range(9):
            took[2].append(await self.turn(thread_id))
            took[3].append(await self.turn(fork))
        a, b, c, d = (statistics.median(some) for some in took)
        table.row(
            what, f"{statistics.median(forks) * 1000:.1f}", f"{late(forks) * 1000:.1f}",
            f"{late(idle) * 1000:.1f}", f"{grown / 1024:.1f}",
            f"{a * 1000:.1f}", f"{b * 1000:.1f}", f"{b / a:.2f}",
            f"{c * 1000:.1f}", f"{d * 1000:.1f}", f"{d / c:.2f}",
        )  # fmt: skip
        return fork


async def run(dsn: str, *, long: bool) -> Section:
    checkpoints, megabytes, count, nested = (10_000, 1024, 300, 100) if long else (60, 4, 10, 5)
    section = Section("forks", "Forks and restores")
    table = Table(
        "A fork of the head, and the first use of it",
        ("session", "fork p50 ms", "fork p99 ms", "empty transaction p99 ms", "KB each",
         "read ms", "read of fork ms", "ratio", "turn ms", "turn of fork ms", "ratio"),
    )  # fmt: skip
    async with Database.open(dsn, max_size=4) as db:
        db.prepares = True
        saver = Saver(db, owner_id=await db.owner("bench", "owner"))
        bench = Bench(dsn, db, saver)
        deep = str(uuid.uuid4())
        await bench.turn(deep)
        updating = bench.graph
        for _ in range(checkpoints):
            await updating.aupdate_state(config(deep), {"messages": []}, as_node="say")
        fork = await bench.row(table, f"{checkpoints:,} checkpoints", deep, count)
        heavy = str(uuid.uuid4())
        keeping: Compiled = large.compile(checkpointer=saver)
        for _ in range(megabytes // 4):
            state = {"blob": os.urandom(4 << 20), "messages": []}
            await keeping.ainvoke(state, config(heavy), durability="exit")
        await bench.row(table, f"{megabytes:,} MB", heavy, count)
        for _ in range(nested):
            fork = await bench.fork(fork)
            await bench.turn(fork)
        for _ in range(nested):
            await bench.restore(fork)
            await bench.turn(fork)
        await bench.row(table, f"after {nested} nested forks and {nested} restores", fork, count)
    section.add(table)
    return section
