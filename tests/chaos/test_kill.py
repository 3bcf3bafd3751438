"""kill -9 in the middle of a run, by durability: what each promises, and that going on is exact."""

import asyncio
import operator
import os
import signal
import sys
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import START, StateGraph

from clew.checkpointing.postgres import Database, Principal
from clew.checkpointing.saver import Saver

NODES = 8
DIES_IN = 6


class Log(TypedDict):
    log: Annotated[list[str], operator.add]


def chain(saver: Saver, *, deadly: bool) -> Any:
    builder: Any = StateGraph(Log)

    def node(n: int) -> Any:
        def run(_: Log) -> Any:
            if deadly and n == DIES_IN:
                os.kill(os.getpid(), signal.SIGKILL)
            return {"log": [str(n)]}

        return run

    for n in range(1, NODES + 1):
        builder.add_node(f"n{n}", node(n))
        builder.add_edge(START if n == 1 else f"n{n - 1}", f"n{n}")
    return builder.compile(checkpointer=saver)


def config() -> Any:
    return {"configurable": {"thread_id": "t"}, "metadata": {"run_id": "the run"}}


async def run(dsn: str, durability: Any, *, deadly: bool) -> Any:
    async with Database.open(dsn) as db:
        saver = Saver(db, principal=Principal.owner(await db.owner("test", "one")))
        graph = chain(saver, deadly=deadly)
        # The same input and the same run id: what a worker that takes over calls.
        return await graph.ainvoke({"log": ["input"]}, config(), durability=durability)


async def stored(dsn: str) -> list[str]:
    async with Database.open(dsn) as db:
        saver = Saver(db, principal=Principal.owner(await db.owner("test", "one")))
        found = await saver.aget_tuple(config())
        return found.checkpoint["channel_values"].get("log", []) if found else []


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_killed_run_goes_on_where_its_durability_says(
    dsn: str, durability: str, long: bool
) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", __name__, dsn, durability)
    assert await process.wait() == -signal.SIGKILL
    done = [str(n) for n in range(1, DIES_IN)]
    found = await stored(dsn)
    if durability == "sync":
        assert found == ["input", *done]
    elif durability == "exit":
        assert found == []
    else:
        assert found == ["input", *done][: len(found)]
    for _ in range(3 if long else 1):
        result = await run(dsn, durability, deadly=False)
        assert result["log"] == ["input", *(str(n) for n in range(1, NODES + 1))]


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], sys.argv[2], deadly=True))
