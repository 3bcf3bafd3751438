"""Servers as they are deployed, each a process of its own behind its own port; and clients that
are cut off and come back by the last event id, as the official ones do."""

import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx

PROJECT = Path(__file__).parent / "project" / "langgraph.json"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Replica:
    def __init__(self, dsn: str, **settings: object) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: asyncio.subprocess.Process | None = None
        chosen = {"drain_grace": "5s", "titles": "off", "heartbeat": "0.3s", "lease": "2s"}
        chosen |= {key: str(value) for key, value in settings.items()}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the replica
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("CLEW_")},
            "DATABASE_URL": dsn,
            **{f"CLEW_{key.upper()}": value for key, value in chosen.items()},
        }

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "clew.api.cli", "serve"),
            *("--config", str(PROJECT), "--port", str(self.port)),
            env=self._environment,
            stderr=self._log,
        )
        # The port is taken before anything else is done, so this waits until it serves.
        async with httpx.AsyncClient(base_url=self.url, timeout=30) as client:
            for left in reversed(range(600)):
                try:
                    assert (await client.get("/ok")).status_code == 200
                except httpx.TransportError:
                    if not left or self.process.returncode is not None:
                        raise
                    await asyncio.sleep(0.05)
                else:
                    return

    async def stop(self) -> float:
        """Tell it to leave; how long it took."""
        assert self.process is not None
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = await self.process.wait()
        assert code == 0, f"it left with {code}"
        self.process = None
        return time.monotonic() - began

    async def kill(self) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
            self.process = None

    def close(self) -> None:
        self._log.close()

    @property
    def said(self) -> str:
        """Its log."""
        self._log.seek(0)
        return self._log.read().decode()

    @property
    def memory(self) -> int:
        """Bytes that it holds."""
        assert self.process is not None
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        (held,) = [line.split()[1] for line in lines if line.startswith("VmRSS")]
        return int(held) * 1024


@asynccontextmanager
async def replicas(dsn: str, count: int, **settings: object) -> AsyncGenerator[list[Replica]]:
    found = [Replica(dsn, **settings) for _ in range(count)]
    try:
        # One after the other at first, so that only one migrates.
        for replica in found:
            await replica.start()
        yield found
    except BaseException:
        for replica in found:
            print(replica.said[-3000:])
        raise
    finally:
        for replica in found:
            await replica.kill()
            replica.close()


@dataclass
class Frame:
    event: str
    data: Any
    id: str


@dataclass
class Reader:
    """One stream, across however many connections."""

    client: httpx.AsyncClient
    frames: list[Frame] = field(default_factory=list[Frame])
    resumes: list[float] = field(default_factory=list[float])
    hints: int = 0
    place: str | None = None
    last_id: str | None = None
    over: bool = False
    heard: asyncio.Event = field(default_factory=asyncio.Event)  # the graph said something

    async def begin(self, url: str, thread_id: str, body: dict[str, Any], cut: int | None) -> None:
        request = self.client.build_request(
            "POST", f"{url}/threads/{thread_id}/runs/stream", json=body
        )
        await self._take(request, cut)

    async def resume(self, url: str, cut: int | None = None) -> None:
        assert self.place is not None
        headers = {"last-event-id": self.last_id or "-"}
        request = self.client.build_request("GET", url + self.place, headers=headers)
        before, began = len(self.frames), time.monotonic()
        async for first in self._taking(request, cut):
            if first and len(self.frames) > before:
                self.resumes.append(time.monotonic() - began)
                before = sys.maxsize

    async def _take(self, request: httpx.Request, cut: int | None) -> None:
        async for _ in self._taking(request, cut):
            pass

    async def _taking(self, request: httpx.Request, cut: int | None) -> AsyncIterator[bool]:
        """Read until so many bytes have come, or it ends, or is cut."""
        response = await self.client.send(request, stream=True)
        try:
            assert response.status_code == 200, await response.aread()
            self.place = response.headers["location"].split("?")[0]
            buffer, taken = b"", 0
            async for chunk in response.aiter_raw():
                part = chunk if cut is None else chunk[: cut - taken]
                taken += len(part)
                buffer += part
                *whole, buffer = buffer.split(b"\r\n\r\n")
                for text in whole:
                    self._hear(text)
                yield bool(whole)
                if self.over or (cut is not None and taken >= cut):
                    return
        finally:
            await response.aclose()

    def _hear(self, text: bytes) -> None:
        cells = dict(line.split(": ", 1) for line in text.decode().split("\r\n") if ": " in line)
        if "retry" in cells:
            self.hints += 1
        if "event" in cells and "id" in cells:
            self.last_id = cells["id"]
            self.frames.append(Frame(cells["event"], json.loads(cells["data"]), cells["id"]))
            self.over = cells["event"] == "end"
            if cells["event"] == "custom":
                self.heard.set()

    def faults(self, count: int) -> list[str]:
        """What is wrong with what was heard: nothing is the only right answer."""
        ids = [tuple(map(int, frame.id.split("-"))) for frame in self.frames]
        told = [frame.data["n"] for frame in self.frames if frame.event == "custom"]
        found: list[str] = []
        if ids != sorted(set(ids)):
            found.append(f"ids are doubled or out of order: {ids}")
        if any(a[0] == b[0] and b[1] != a[1] + 1 for a, b in pairwise(ids)):
            found.append(f"ids have a gap: {ids}")
        if told != list(range(count)):
            found.append(f"events are missing, doubled or out of order: {told}")
        if not self.over:
            found.append("it has no end")
        return found


async def session(client: httpx.AsyncClient, url: str) -> str:
    answer = await client.post(f"{url}/threads", json={})
    assert answer.status_code == 200, answer.text
    return answer.json()["thread_id"]
