"""A real server that takes webhooks, and tells what it got."""

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Got:
    """A request as a receiver saw it."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def said(self) -> Any:
        return json.loads(self.body)


@dataclass
class Receiver:
    """A real server; `answers` are the statuses it gives in turn, then 200 for ever."""

    url: str
    answers: list[int] = field(default_factory=list[int])
    got: asyncio.Queue[Got] = field(default_factory=asyncio.Queue[Got])

    async def next(self) -> Got:
        async with asyncio.timeout(30):
            return await self.got.get()


@asynccontextmanager
async def receiving(*answers: int, tls: ssl.SSLContext | None = None) -> AsyncGenerator[Receiver]:
    receiver = Receiver("", list(answers))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            line, *lines = head.strip().split("\r\n")
            headers = dict(each.split(": ", 1) for each in lines)
            headers = {name.lower(): value for name, value in headers.items()}
            body = await reader.readexactly(int(headers["content-length"]))
            status = receiver.answers.pop(0) if receiver.answers else 200
            more = "Location: http://169.254.169.254/\r\n" if status == 302 else ""
            writer.write(f"HTTP/1.1 {status} X\r\n{more}Content-Length: 0\r\n\r\n".encode())
            await writer.drain()
            receiver.got.put_nowait(Got(line, headers, body))
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook?a=1"
        yield receiver
