"""One conversation that grows: what it takes to keep, and how long its operations take, beside the
stock saver. Byte counts are exact; times are of the machine."""

import statistics
import time
import uuid
from typing import Any

from tests.bench.graphs import Compiled, Talk, talking
from tests.bench.report import Section, Table
from tests.bench.saver import Make, config, ours, size, stock

# Beyond this the stock saver, which grows with the square, takes minutes.
STOCK_TURNS = 300


async def growth(dsn: str, up_to: int) -> Table:
    """One long conversation in each saver; sizes and latencies at milestones."""
    table = Table(
        "One conversation (35-word questions, 150-word answers), every checkpoint kept",
        ("turn", "raw KB", "stock KB", "Clew KB", "x raw", "stock turn ms", "Clew turn ms",
         "stock put ms", "Clew put ms", "stock history(20) ms", "Clew history(20) ms"),
    )  # fmt: skip
    marks = [mark for mark in (10, 50, 100, 300, 1000) if mark <= up_to]
    async with stock(dsn) as theirs, ours(dsn) as mine:
        runs = {"stock": Conversation(theirs), "Clew": Conversation(mine)}
        for run in runs.values():
            await run.begin()
        for mark in marks:
            figures: dict[str, dict[str, float]] = {}
            for kind, run in runs.items():
                if kind == "stock" and mark > 300:
                    continue
                figures[kind] = await run.up_to(mark)
                figures[kind]["bytes"] = await size(dsn, kind)
            raw = runs["Clew"].raw
            shown = {k: figures.get("stock", {}).get(k) for k in ("bytes", "turn", "put", "hist")}
            clew = figures["Clew"]
            table.row(
                mark, f"{raw / 1024:.0f}", kb(shown["bytes"]), kb(clew["bytes"]),
                f"{clew['bytes'] / raw:.1f}", ms(shown["turn"]), ms(clew["turn"]),
                ms(shown["put"]), ms(clew["put"]), ms(shown["hist"]), ms(clew["hist"]),
            )  # fmt: skip
    return table


def kb(value: float | None) -> str:
    return "–" if value is None else f"{value / 1024:.0f}"


def ms(value: float | None) -> str:
    return "–" if value is None else f"{value * 1000:.1f}"


class Conversation:
    """A thread that grows, and how long its operations take."""

    def __init__(self, make: Make) -> None:
        self._make, self._talk, self._turns = make, Talk(), 0
        self._thread_id = str(uuid.uuid4())
        self.raw = 0

    async def begin(self) -> None:
        saver = await self._make(self._thread_id)
        self._puts: list[float] = []
        put = saver.aput

        async def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return await put(*args, **kwargs)
            finally:
                self._puts.append(time.perf_counter() - started)

        saver.aput = timed
        self._graph: Compiled = talking(self._talk).compile(checkpointer=saver)

    async def up_to(self, turns: int) -> dict[str, float]:
        took: list[float] = []
        self._puts.clear()
        while self._turns < turns:
            question = self._talk.question()
            started = time.perf_counter()
            state = await self._graph.ainvoke(
                {"messages": [("user", question)]}, config(self._thread_id), durability="async"
            )
            took.append(time.perf_counter() - started)
            self.raw += len(question) + len(state["messages"][-1].text)
            self._turns += 1
        hist: list[float] = []
        for _ in range(3):
            started = time.perf_counter()
            pages = self._graph.aget_state_history(config(self._thread_id), limit=20)
            assert len([snapshot async for snapshot in pages]) == min(20, turns * 3)
            hist.append(time.perf_counter() - started)
        recent = took[-min(len(took), 20) :]
        return {
            "turn": statistics.median(recent),
            "put": statistics.median(self._puts[-60:]),
            "hist": statistics.median(hist),
        }


async def run(dsn: str, *, long: bool) -> Section:
    section = Section("growth", "A conversation that grows, against AsyncPostgresSaver")
    section.add(await growth(dsn, 1000 if long else 50))
    return section
