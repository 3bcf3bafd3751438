"""Sessions as files: download one, upload it elsewhere.

Both ways go by a spool, so that a slow client holds no connection to the database, and so that a
fault found while writing is an error and not half a file.
"""

import asyncio
import tempfile
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict
from typing import IO, Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse

from clew.api.auth import Who
from clew.api.checkpoints import Reason, ground
from clew.api.deps import Clew, reach
from clew.api.reply import Reply
from clew.api.rewinding import shown
from clew.api.session_schema import Json, Strict
from clew.runtime import bundles, errors
from clew.runtime.limits import Limit
from clew.runtime.standing import Why

routes = APIRouter(prefix="/sessions", tags=["bundles"])

MEDIA_TYPE = "application/x-ndjson"

_IN_MEMORY = 4 * 1024**2
_CHUNK = 256 * 1024


class Export(Strict):
    scope: Literal["all", "path"] = "all"


class Import(Strict):
    thread_id: UUID | None = None
    reason: Reason = None


@routes.get("/{thread_id}/export")
async def export(
    clew: Clew, who: Who, thread_id: UUID, asked: Annotated[Export, Query()]
) -> Response:
    """Download the session as one file, lossless."""
    session = await reach(clew, who, thread_id)
    lines = bundles.dump(ground(clew), who.principal, session, scope=asked.scope)
    spool = _spool()
    try:
        async with aclosing(lines):
            size = await _fill(spool, lines, None)
    except BaseException:  # cancelled too: whatever it was, the file is not handed on
        spool.close()
        raise
    headers = {
        "content-disposition": f'attachment; filename="{thread_id}.clew"',
        "content-length": str(size),
    }
    return StreamingResponse(_drain(spool), 200, headers, MEDIA_TYPE)


@routes.post(
    "/import",
    status_code=201,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def import_(
    clew: Clew, who: Who, request: Request, asked: Annotated[Import, Query()]
) -> Reply:
    """Make a session of an uploaded file, under a new id; all of it or nothing."""
    value: Json = {"thread_id": asked.thread_id, "metadata": {}, "if_exists": "raise"}
    await who.authorize("threads", "create", value)
    async with _uploaded(request, clew.settings.max_body) as chunks:
        loaded = await bundles.load(
            ground(clew),
            who.principal,
            who.owner_id,
            chunks,
            Why(who.actor, asked.reason),
            thread_id=None if asked.thread_id is None else str(asked.thread_id),
            stamp=value["metadata"],
            limit=Limit.of(clew.settings),
        )
    counts = asdict(loaded.counts)
    del counts["session"], counts["thread_id"]
    return Reply({**shown(loaded.moved), "imported": counts}, 201)


@asynccontextmanager
async def _uploaded(request: Request, most: int) -> AsyncGenerator[AsyncIterable[bytes]]:
    with _spool() as spool:
        await _fill(spool, request.stream(), most)
        async with aclosing(_drain(spool)) as chunks:
            yield chunks


def _spool() -> IO[bytes]:
    return tempfile.SpooledTemporaryFile(_IN_MEMORY)


async def _fill(spool: IO[bytes], chunks: AsyncIterable[bytes], most: int | None) -> int:
    """Write it all, and be at the beginning again; how many bytes it was."""
    size = 0
    waiting: list[bytes] = []
    held = 0
    async for chunk in chunks:
        size += len(chunk)
        if most is not None and size > most:
            raise errors.TooLarge(f"the file is larger than {most} bytes", limit=most)
        waiting.append(chunk)
        held += len(chunk)
        if held >= _CHUNK:
            await asyncio.to_thread(spool.writelines, waiting)
            waiting, held = [], 0
    await asyncio.to_thread(spool.writelines, waiting)
    spool.seek(0)
    return size


async def _drain(spool: IO[bytes]) -> AsyncGenerator[bytes]:
    with spool:
        while chunk := await asyncio.to_thread(spool.read, _CHUNK):
            yield chunk
