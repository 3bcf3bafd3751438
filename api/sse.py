"""Server-sent events: frames as bytes, a heartbeat every five seconds, and an end that clients
can tell from a cut.

`sse-starlette` stays behind this module. Frames arrive here encoded, so a token costs no more
than a copy; the generator only reads, it never drives a graph. When this process is told to stop,
a stream says how soon to come back and is cut there, between two frames: another replica goes on
from the last id.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping
from typing import Any

from fastapi.responses import StreamingResponse
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

# The official clients take a stream for dead after three missed beats (six seconds at least).
HEARTBEAT_SECONDS = 5
# A reader that takes nothing for this long is let go; it resumes by its last event id.
SEND_TIMEOUT_SECONDS = 30
# How soon a reader should be back, and how long it may take to be told so.
COME_BACK = b"retry: 250\r\n\r\n"
FAREWELL_SECONDS = 0.5
# What is sent at once; more waits until the reader has taken that.
PIECE_BYTES = 32 * 1024


def frame(event: str, data: bytes, id: str | None = None) -> bytes:  # noqa: A002 - SSE's word
    """One event as it goes over the wire."""
    head = b"event: " + event.encode() + b"\r\ndata: " + data
    tail = b"\r\nid: " + id.encode() if id is not None else b""
    return head + tail + b"\r\n\r\n"


def together(frames: Iterable[bytes]) -> Iterator[bytes]:
    """Frames that are there at once, in as few pieces as a slow reader may hold."""
    piece: list[bytes] = []
    held = 0
    for each in frames:
        piece.append(each)
        held += len(each)
        if held > PIECE_BYTES:
            yield b"".join(piece)
            piece, held = [], 0
    if piece:
        yield b"".join(piece)


class Stream(EventSourceResponse):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if await _left(scope, super().__call__(scope, receive, send)):
            # Who takes nothing is not told. No last chunk: a cut, and no end.
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(FAREWELL_SECONDS):
                    body = {"type": "http.response.body", "body": COME_BACK, "more_body": True}
                    await send(body)


class Waiting(StreamingResponse):
    """One answer that takes its time; cut when this process stops, to be asked for elsewhere."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _left(scope, super().__call__(scope, receive, send))


def stream(frames: AsyncIterator[bytes], headers: Mapping[str, str] | None = None) -> Response:
    return Stream(
        frames,
        headers=headers,
        ping=HEARTBEAT_SECONDS,
        ping_message_factory=lambda: ServerSentEvent(comment="heartbeat"),
        send_timeout=SEND_TIMEOUT_SECONDS,
    )


async def _left(scope: Scope, answering: Coroutine[Any, Any, None]) -> bool:
    """Answer, and say whether it was broken off because this process stops."""
    leaving: asyncio.Event = scope["app"].state.leaving
    answer = asyncio.create_task(answering)
    told = asyncio.create_task(leaving.wait())
    try:
        await asyncio.wait({answer, told}, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            answer.result()
            return False
        return True
    finally:
        told.cancel()
        answer.cancel()
        await asyncio.wait({answer})
        if not answer.cancelled():
            answer.exception()  # broken off, so what it says last is of no interest
