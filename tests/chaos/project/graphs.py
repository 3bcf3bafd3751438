"""Graphs for replicas that are made to suffer: some are long, some are poison."""

import asyncio
import operator
import time
from typing import Annotated, Any, TypedDict

from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph

STEPS = 10
MEGABYTE = 1024 * 1024


class Trail(TypedDict, total=False):
    trail: Annotated[list[int], operator.add]
    events: int
    pause: float
    size: int
    megabytes: int
    answer: Any


async def _count(state: Trail) -> Trail:
    """So many events, each with its number and some text."""
    say = get_stream_writer()
    for n in range(state.get("events", 30)):
        say({"n": n, "text": "北京 " * state.get("size", 5)})
        await asyncio.sleep(state.get("pause", 0.02))
    return {"trail": [1]}


async def _step(state: Trail) -> Trail:
    done = len(state.get("trail", []))
    get_stream_writer()({"n": done})
    await asyncio.sleep(state.get("pause", 0.2))
    return {"trail": [done]}


def _more(state: Trail) -> str:
    return "step" if len(state.get("trail", [])) < STEPS else END


async def _flood(state: Trail) -> Trail:
    say = get_stream_writer()
    for n in range(state.get("megabytes", 20)):
        for part in range(16):
            say({"n": n * 16 + part, "text": "x" * (MEGABYTE // 16)})
        await asyncio.sleep(0)
    return {"trail": [1]}


async def _hoard(state: Trail) -> Trail:
    """What a leak would look like: touched, so that it is really there."""
    held = b"x" * (state.get("megabytes", 100) * MEGABYTE)
    get_stream_writer()({"n": 0})
    await asyncio.sleep(state.get("pause", 2.0))
    return {"trail": [len(held[:1])]}


def _raises(state: Trail) -> Trail:
    raise ValueError("boom")


async def _hangs(state: Trail) -> Trail:
    await asyncio.Event().wait()
    return {}


BLOCKED: list[bool] = []


async def _blocks(state: Trail) -> Trail:
    """Holds the event loop, as a careless library does; once in each process."""
    if not BLOCKED:
        BLOCKED.append(True)
        time.sleep(state.get("pause", 3.0))  # noqa: ASYNC251 - that is the poison
    return {"trail": [1]}


class Strange:
    """Nothing can store this."""

    def __reduce__(self) -> Any:
        raise TypeError("not to be stored")


def _strange(state: Trail) -> Trail:
    return {"answer": Strange()}


async def _huge(state: Trail) -> Trail:
    get_stream_writer()({"text": "x" * (state.get("megabytes", 100) * MEGABYTE)})
    return {"trail": [1]}


def _one(node: Any) -> Any:
    return StateGraph(Trail).add_node("node", node).add_edge(START, "node").compile()


count = _one(_count)
flood = _one(_flood)
hoard = _one(_hoard)
raises = _one(_raises)
hangs = _one(_hangs)
blocks = _one(_blocks)
strange = _one(_strange)
huge = _one(_huge)
steps = (
    StateGraph(Trail)
    .add_node("step", _step)
    .add_edge(START, "step")
    .add_conditional_edges("step", _more, ["step", END])
    .compile()
)
