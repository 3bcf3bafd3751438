"""A long session: what its events and its row take to keep, and what a new subscriber of protocol
v2 is sent before it hears what happens now. Everything over HTTP, as clients do it."""

import asyncio
import json
import statistics
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import httpx
import psycopg

from tests.bench.report import Section, Table
from tests.bench.turns import PROJECT
from tests.serving import serve

# What the hooks of the official JavaScript client ask for, and everything that can be asked for.
HOOKS = ("values", "lifecycle", "input", "messages", "tools")
ALL = (*HOOKS, "updates", "checkpoints", "tasks", "custom")

KEPT = {
    "checkpoints": ("checkpoint", "item", "write", "lineage", "head"),
    "events": ("event",),
    "registry (session, runs, outbox)": ("session", "run", "outbox"),
}
# Partitions are relations of their own.
SIZE = """
with named as (select ('clew.' || name)::regclass as relation from unnest(%s::text[]) name)
select sum(pg_total_relation_size(relation)) from (
    select relation from named union select relid from named, pg_partition_tree(relation)) found
"""


async def converse(http: httpx.AsyncClient, thread_id: str, turns: int) -> int:
    """So many turns through protocol v2; the bytes of text that were said."""
    said = 0
    for n in range(turns):
        question = f"question {n}: " + "how much is it then " * 7
        await start(http, thread_id, question)
        said, answer = said + len(question), ""
        async with aclosing(events(http, thread_id, ("lifecycle", "values"))) as stream:
            async for _, event in stream:
                if event["method"] == "values":
                    answer = event["params"]["data"]["messages"][-1]["content"]
                if over(event):
                    break
        said += len(answer)
    return said


async def start(http: httpx.AsyncClient, thread_id: str, question: str) -> str:
    message = {"role": "user", "content": question}
    params = {"assistant_id": "answers", "input": {"messages": [message]}}
    body = {"id": 1, "method": "run.start", "params": params}
    answer = (await http.post(f"/threads/{thread_id}/commands", json=body)).json()
    assert answer["type"] == "success", answer
    return answer["result"]["run_id"]


async def events(
    http: httpx.AsyncClient, thread_id: str, channels: Sequence[str]
) -> AsyncGenerator[tuple[int, dict[str, Any]]]:
    """The events of a new subscription, each with the bytes that its frame took."""
    path, body = f"/threads/{thread_id}/stream/events", {"channels": channels}
    async with http.stream("POST", path, json=body) as stream:
        taken = 0
        async for line in stream.aiter_lines():
            taken += len(line.encode()) + 1
            if line.startswith("data: "):
                yield taken, json.loads(line.removeprefix("data: "))
                taken = 0


def over(event: dict[str, Any]) -> bool:
    params = event["params"]
    ends = ("completed", "failed", "interrupted")
    return (
        event["method"] == "lifecycle"
        and not params["namespace"]
        and (params["data"]["event"] in ends)
    )


async def subscribe(
    http: httpx.AsyncClient, thread_id: str, channels: Sequence[str]
) -> tuple[float, Counter[str]]:
    """Seconds until a run that starts together with a new subscription is heard of there, and the
    bytes that came before, by what they are."""
    began = time.perf_counter()
    replayed, heard = Counter[str](), 0.0
    starting = asyncio.create_task(start(http, thread_id, "and now?"))
    async with aclosing(events(http, thread_id, channels)) as stream:
        async for taken, event in stream:
            # What the server says of a run names it.
            now = event["method"] == "lifecycle" and await starting in event["event_id"]
            if now and not heard:
                heard = time.perf_counter() - began
            if not heard:
                replayed[event["method"]] += taken
            if now and over(event):
                break
    return heard, replayed


async def kept(dsn: str) -> dict[str, int]:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        found: dict[str, int] = {}
        await conn.execute("vacuum full")
        for what, tables in KEPT.items():
            row = await (await conn.execute(SIZE, [list(tables)])).fetchone()
            assert row is not None
            found[what] = int(row[0])
    return found


async def run(dsn: str, *, long: bool) -> Section:
    turns, rounds = (300, 20) if long else (20, 3)
    section = Section("subscription", "A long session, its events, and a new subscriber")
    async with (
        serve(dsn, config=PROJECT, titles="off") as url,
        httpx.AsyncClient(base_url=url, timeout=60) as http,
    ):
        thread_id = (await http.post("/threads", json={})).json()["thread_id"]
        empty = await kept(dsn)
        said = await converse(http, thread_id, turns)
        full = await kept(dsn)
        table = Table(f"Bytes after {turns} turns of 150 tokens", ("what", "KB", "x text"))
        table.row("text of questions and answers", said // 1024, 1.0)
        for what, size in full.items():
            grown = size - empty[what]
            table.row(what, grown // 1024, f"{grown / said:.2f}")
        section.add(table)
        columns = (
            *("channels", "first live event, p50 ms", "longest ms"),
            *("replayed, at most KB", "of it whole states, KB"),
        )
        table = Table(f"A new subscription on it, {rounds} times, as a run starts", columns)
        for name, channels in (("of the hooks", HOOKS), ("all", ALL)):
            heard = [await subscribe(http, thread_id, channels) for _ in range(rounds)]
            times = [seconds * 1000 for seconds, _ in heard]
            most = max((replayed for _, replayed in heard), key=Counter.total)
            table.row(
                name,
                f"{statistics.median(times):.0f}",
                f"{max(times):.0f}",
                f"{most.total() / 1024:.0f}",
                f"{most['values'] / 1024:.0f}",
            )
        section.add(table)
    return section
