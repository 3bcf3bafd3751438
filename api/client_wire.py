"""How calls go over the wire: twice the same few lines, once for those who await.

Streams of runs are read by the official client, which follows `Location` with `Last-Event-ID` when
one is cut. A stream without an end is asked for again from the last event that came.
"""

import asyncio
import itertools
import json
import random
import time
from collections.abc import AsyncIterator, Iterator
from datetime import date
from pathlib import Path
from typing import IO, Any, TypeVar

import httpx
from langgraph_sdk.client import HttpClient, SyncHttpClient
from langgraph_sdk.errors import APIStatusError
from langgraph_sdk.schema import StreamPart

from clew.api import client_errors as errors
from clew.api.client_calls import Call

T = TypeVar("T")

_CHUNK = 256 * 1024
_TRIES = 5  # without a single event, or a stream that was accepted, in between


class Awaited:
    """Carries calls out over the official asynchronous client's connections."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    async def one(self, call: Call[T]) -> T:
        client = self._http.client
        if call.file is None:
            return _answer(await client.send(client.build_request(**_parts(call))))
        with await asyncio.to_thread(call.file.open, "rb") as file:
            request = client.build_request(**_parts(call), content=_read(file))
            return _answer(await client.send(request))

    async def events(self, call: Call[Any], *, endless: bool) -> AsyncIterator[StreamPart]:
        resume = _Resume(call)
        while True:
            try:
                async for part in self._http.stream(**resume.asked()):
                    resume.came(part)
                    yield part
                if not endless:
                    return
                wait = resume.again(None)
            except APIStatusError as refused:
                wait = resume.refused(refused, endless=endless)
            except httpx.TransportError as cut:
                if not endless:
                    raise
                wait = resume.again(cut)
            await asyncio.sleep(wait)

    async def save(self, call: Call[Any]) -> Path:
        file, partial = _places(call)
        try:
            async with self._http.client.stream(**_parts(call)) as response:
                if response.is_error:
                    await response.aread()
                    raise errors.read(response)
                with await asyncio.to_thread(partial.open, "wb") as out:
                    async for chunk in response.aiter_bytes(_CHUNK):
                        await asyncio.to_thread(out.write, chunk)
            await asyncio.to_thread(partial.replace, file)
        finally:
            partial.unlink(missing_ok=True)
        return file


class Blocking:
    """The same over the official synchronous client's."""

    def __init__(self, http: SyncHttpClient) -> None:
        self._http = http

    def one(self, call: Call[T]) -> T:
        client = self._http.client
        if call.file is None:
            return _answer(client.send(client.build_request(**_parts(call))))
        with call.file.open("rb") as file:
            return _answer(client.send(client.build_request(**_parts(call), content=file)))

    def events(self, call: Call[Any], *, endless: bool) -> Iterator[StreamPart]:
        resume = _Resume(call)
        while True:
            try:
                for part in self._http.stream(**resume.asked()):
                    resume.came(part)
                    yield part
                if not endless:
                    return
                wait = resume.again(None)
            except APIStatusError as refused:
                wait = resume.refused(refused, endless=endless)
            except httpx.TransportError as cut:
                if not endless:
                    raise
                wait = resume.again(cut)
            time.sleep(wait)  # the caller of a synchronous client waits

    def save(self, call: Call[Any]) -> Path:
        file, partial = _places(call)
        try:
            with self._http.client.stream(**_parts(call)) as response:
                if response.is_error:
                    response.read()
                    raise errors.read(response)
                with partial.open("wb") as out:
                    for chunk in response.iter_bytes(_CHUNK):
                        out.write(chunk)
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
        return file


class _Resume:
    """Where a stream is, and whether and when to ask for it again."""

    def __init__(self, call: Call[Any]) -> None:
        self._call = call
        # A run's stream that is cut before its first event starts over, and loses nothing.
        start = {"Last-Event-ID": "-"} if call.method == "POST" else {}
        self._headers = {**start, **call.headers}
        self._tries = 0

    def asked(self) -> dict[str, Any]:
        call = self._call
        body = json.loads(_encoded(call.body)) if call.body is not None else None
        return {
            "path": call.path,
            "method": call.method,
            "json": body,
            "params": dict(call.query),
            "headers": self._headers,
            "on_response": self._accepted,
        }

    def _accepted(self, response: httpx.Response) -> None:
        """It may be cut before anything happens that it could tell of."""
        kind = response.headers.get("content-type", "")
        if response.is_success and kind.startswith("text/event-stream"):
            self._tries = 0

    def came(self, part: StreamPart) -> None:
        self._tries = 0
        if part.id:
            self._headers = {**self._headers, "Last-Event-ID": part.id}

    def again(self, cause: Exception | None) -> float:
        """How long to wait; after too many tries in vain, an error."""
        self._tries += 1
        if self._tries > _TRIES:
            raise httpx.TransportError("the stream was cut too often") from cause
        return min(5.0, 0.25 * 2.0**self._tries) * random.uniform(1, 1.25)  # noqa: S311 - no secret

    def refused(self, refused: APIStatusError, *, endless: bool) -> float:
        problem = errors.of(refused.status_code, refused.code)(refused.response, refused.body)
        if not endless or not isinstance(problem, errors.ServerFault | errors.Limited):
            raise problem from None
        return self.again(problem)


def _parts(call: Call[Any]) -> dict[str, Any]:
    headers = dict(call.headers)
    parts: dict[str, Any] = {
        "method": call.method,
        "url": call.path,
        "params": dict(call.query),
        "headers": headers,
    }
    if call.body is not None:
        headers["Content-Type"] = "application/json"
        parts["content"] = _encoded(call.body)
    return parts


def _encoded(body: object) -> bytes:
    # Ids and instants are texts over there.
    return json.dumps(body, default=_text).encode()


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, date) else str(value)


def _answer(response: httpx.Response) -> Any:
    if response.is_error:
        raise errors.read(response)
    return response.json() if response.content.strip() else None


def _places(call: Call[Any]) -> tuple[Path, Path]:
    assert call.file is not None
    return call.file, call.file.with_name(f".{call.file.name}.part")


async def _read(file: IO[bytes]) -> AsyncIterator[bytes]:
    for _ in itertools.count():
        chunk = await asyncio.to_thread(file.read, _CHUNK)
        if not chunk:
            return
        yield chunk
