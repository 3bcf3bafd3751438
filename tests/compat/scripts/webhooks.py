"""Webhooks: what is told when a run is over, and which addresses are taken."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from typing import Any

from tests.compat.side import PATIENCE, Reply, Side

IN = {"x": ["in"]}
SLOW = {"assistant_id": "slow", "input": {"wait": 30}}


@contextlib.asynccontextmanager
async def _receiver() -> AsyncGenerator[tuple[str, asyncio.Queue[Any]]]:
    """A URL, and what is posted to it."""
    told: asyncio.Queue[Any] = asyncio.Queue()

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length:")[2].partition("\r\n")[0])
        told.put_nowait(json.loads(await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(hear, "127.0.0.1")
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook", told


async def _told(s: Side, label: str, told: asyncio.Queue[Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        s.replies.append(Reply(label, 200, {}, await told.get()))


async def ends(s: Side) -> None:
    async with _receiver() as (url, told):
        for graph in ("steps", "ask", "fails"):
            thread = await s.thread(graph)
            body = {"assistant_id": graph, "input": IN, "webhook": url, "metadata": {"m": 1}}
            run = await s.send(f"run {graph}", "POST", f"/threads/{thread}/runs", body)
            s.name(run["run_id"], f"run {graph}")
            await _told(s, f"told {graph}", told)
            await s.idle(thread)
        thread = await s.thread("cancelled")
        run = await s.ask("POST", f"/threads/{thread}/runs", {**SLOW, "webhook": url})
        s.name(run["run_id"], "run cancelled")
        await s.running(thread, run["run_id"])
        await s.ask("POST", f"/threads/{thread}/runs/{run['run_id']}/cancel?wait=1")
        await _told(s, "told cancelled", told)
        run = await s.ask("POST", "/runs", {"assistant_id": "steps", "input": IN, "webhook": url})
        s.name(run["run_id"], "stateless")
        s.name(run["thread_id"], "temporary")
        await _told(s, "told stateless", told)


async def bad(s: Side) -> None:
    thread = await s.thread()
    for label, url in (
        ("relative", "/hook"),
        ("scheme", "ftp://127.0.0.1/hook"),
        ("no host", "http:///hook"),
        ("long", f"http://127.0.0.1/{'x' * 5000}"),
        ("empty", ""),
        ("name", "http://nowhere.invalid/hook"),
    ):
        body = {"assistant_id": "steps", "input": IN, "webhook": url}
        await s.send(label, "POST", f"/threads/{thread}/runs", body)
        await s.idle(thread)
