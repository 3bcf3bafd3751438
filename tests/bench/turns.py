"""Turns over HTTP: how many a second, what a turn costs the server, and how soon it answers,
beside the same graph in this process on the same saver, which is the floor."""

import asyncio
import json
import os
import re
import statistics
import sys
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from langchain_core.runnables import RunnableConfig

from clew.checkpointing import lineage
from clew.checkpointing.postgres import SERVICE, Database
from clew.checkpointing.saver import Fence, Saver
from tests.bench.project import graphs
from tests.bench.report import Section, Table

PROJECT = Path(__file__).parent / "project" / "langgraph.json"
TICKS = os.sysconf("SC_CLK_TCK")


class Client:
    """One keep-alive connection, and no more HTTP than the measurement needs: a real client would
    cost more than the server."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)

    def send(self, path: str, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            f"content-length: {len(data)}\r\n\r\n"
        )
        self._writer.write(head.encode() + data)

    async def answer(self) -> bytes:
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        if length:
            return await self._reader.readexactly(int(length[1]))
        return b"".join([chunk async for chunk in self._chunks()])

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            yield (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readexactly(2)

    async def stream(self, path: str, body: dict[str, Any], until: bytes) -> float:
        """Post, read the stream to its end; when the first event of this kind came."""
        self.send(path, body)
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        seen = 0.0
        async for chunk in self._chunks():
            if not seen and until in chunk:
                seen = time.perf_counter()
        return seen

    def close(self) -> None:
        self._writer.close()


async def cpu(pid: int) -> float:
    fields = (await asyncio.to_thread(Path(f"/proc/{pid}/stat").read_text)).rsplit(")", 1)[1]
    user, system = fields.split()[11:13]
    return (int(user) + int(system)) / TICKS


def turn(graph: str, mode: str) -> dict[str, Any]:
    return {
        "assistant_id": graph,
        "input": {"messages": [{"role": "user", "content": "a turn of this thread"}]},
        "stream_mode": mode,
        "if_not_exists": "create",
    }


async def served(
    port: int, pid: int, graph: str, mode: str, concurrency: int, seconds: float
) -> tuple[float, float]:
    """Turns per second in threads of five, and CPU milliseconds of the server for each."""
    done = 0
    stop = time.monotonic() + seconds
    before = await cpu(pid)

    async def one() -> None:
        nonlocal done
        client = Client(port)
        await client.open()
        while time.monotonic() < stop:
            thread_id = uuid.uuid4()
            for _ in range(5):
                await client.stream(f"/threads/{thread_id}/runs/stream", turn(graph, mode), b"x")
                done += 1
        client.close()

    began = time.monotonic()
    await asyncio.gather(*(one() for _ in range(concurrency)))
    took = time.monotonic() - began
    return done / took, (await cpu(pid) - before) * 1000 / done


async def in_process(
    dsn: str, graph: str, mode: str, concurrency: int, seconds: float
) -> tuple[float, float]:
    """The floor: `astream` of the same graph on the same saver, fenced, with nothing around it."""
    done = 0
    streamed = "messages" if mode == "messages-tuple" else mode
    async with Database.open(dsn, max_size=20) as db:
        db.prepares = True
        saver = Saver(db)
        owner_id = await db.owner("bench", "floor")
        stop = time.monotonic() + seconds
        before = time.process_time()

        async def one() -> None:
            nonlocal done
            while time.monotonic() < stop:
                thread_id = str(uuid.uuid4())
                async with db.transaction(SERVICE) as conn:
                    await lineage.create(conn, thread_id, owner_id)
                    head = await lineage.claim(conn, thread_id)
                bound = saver.bind(owner_id=owner_id, fence=Fence(thread_id, head.epoch))
                compiled = getattr(graphs, graph).copy(update={"checkpointer": bound})
                at: RunnableConfig = {"configurable": {"thread_id": thread_id}}
                for _ in range(5):
                    asked = turn(graph, mode)["input"]
                    async for _part in compiled.astream(
                        asked, at, stream_mode=streamed, durability="async"
                    ):
                        pass
                    done += 1

        began = time.monotonic()
        await asyncio.gather(*(one() for _ in range(concurrency)))
        took = time.monotonic() - began
    return done / took, (time.process_time() - before) * 1000 / done


async def latency(port: int, count: int) -> tuple[list[float], list[float]]:
    """From POST to the first event, and to the first token, of turns one after the other."""
    client = Client(port)
    await client.open()
    firsts: list[float] = []
    tokens: list[float] = []
    thread_id = uuid.uuid4()
    for _ in range(count):
        at = f"/threads/{thread_id}/runs/stream"
        began = time.perf_counter()
        firsts.append(await client.stream(at, turn("echo", "values"), b"event: metadata") - began)
        began = time.perf_counter()
        seen = await client.stream(at, turn("tokens", "messages-tuple"), b"event: messages")
        tokens.append(seen - began)
    client.close()
    return firsts, tokens


def ms(values: list[float], quantile: float) -> str:
    ordered = sorted(values)
    return f"{ordered[min(len(ordered) - 1, int(len(ordered) * quantile))] * 1000:.1f}"


async def run(dsn: str, *, long: bool) -> Section:
    seconds, rounds, count = (5.0, 3, 200) if long else (1.0, 1, 20)
    section = Section("turns", "Turns over HTTP")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "clew.api.cli", "serve", "--port", "0", "--config", str(PROJECT),
        env={**os.environ, "DATABASE_URL": dsn, "CLEW_CONCURRENCY": "64", "LOG_LEVEL": "info"},
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        port = 0
        while not port:
            line = (await process.stderr.readline()).decode()
            assert line, "the server did not start"
            if match := re.search(r"serving on http://[\d.]+:(\d+)", line):
                port = int(match[1])
        draining = asyncio.create_task(process.stderr.read())
        table = Table(
            "Turns per second and CPU per turn",
            ("graph", "concurrency", "server turns/s", "server CPU ms", "floor turns/s",
             "floor CPU ms", "CPU ratio"),
        )  # fmt: skip
        for graph, mode in (("echo", "values"), ("tokens", "messages-tuple")):
            for concurrency in (1, 8, 32):
                mine: list[tuple[float, float]] = []
                floor: list[tuple[float, float]] = []
                for _ in range(rounds):
                    mine.append(await served(port, process.pid, graph, mode, concurrency, seconds))
                    floor.append(await in_process(dsn, graph, mode, concurrency, seconds))
                rate, spent = (statistics.median(c) for c in zip(*mine, strict=True))
                top, least = (statistics.median(c) for c in zip(*floor, strict=True))
                table.row(
                    graph, concurrency, f"{rate:.0f}", f"{spent:.1f}", f"{top:.0f}",
                    f"{least:.1f}", f"{spent / least:.2f}",
                )  # fmt: skip
        section.add(table)
        firsts, tokens = await latency(port, count)
        soon = Table("From POST, one client", ("to", "p50 ms", "p99 ms"))
        soon.row("first event (echo)", ms(firsts, 0.5), ms(firsts, 0.99))
        soon.row("first token", ms(tokens, 0.5), ms(tokens, 0.99))
        section.add(soon)
        process.terminate()
        await draining
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
    return section
