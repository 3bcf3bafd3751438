"""`/metrics`, and the middleware that counts requests for it."""

import time
from contextlib import ExitStack
from typing import Any, Literal

from fastapi import APIRouter, Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clew.api.deps import Clew
from clew.api.reply import Reply
from clew.runtime.telemetry import Queue, Telemetry, asked

routes = APIRouter(tags=["system"])

TEXT = "text/plain; version=0.0.4; charset=utf-8"


@routes.get("/metrics")
async def metrics(
    clew: Clew,
    format: Literal["prometheus", "json"] = "prometheus",  # noqa: A002 - the stock name
) -> Response:
    """Never authenticated, as the stock server has it; it names no session and no caller."""
    queue = await clew.telemetry.look(clew.db)
    if format == "json":
        return Reply(shown(clew.telemetry, queue))
    return Response(clew.telemetry.text(), media_type=TEXT)


def shown(telemetry: Telemetry, queue: Queue) -> dict[str, Any]:
    waited = queue.oldest_pending_seconds if queue.pending else None
    return {
        "queue": {
            "n_pending": queue.pending,
            "n_running": queue.running,
            "pending_runs_wait_time_max_secs": waited,
        },
        "api": {"n_requests": telemetry.requests, "n_errors": telemetry.request_errors},
        "workers": {
            "max": telemetry.capacity,
            "active": telemetry.running,
            "available": max(0, telemetry.capacity - telemetry.running),
        },
    }


class Counted:
    """ASGI middleware: each request by the pattern of its route, never by its path. And whatever
    way runs are asked for within it, they belong to its caller's trace."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with asked(Headers(scope=scope) if "headers" in scope else {}):
            await self._counted(scope, receive, send)

    async def _counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        told = False
        stack = ExitStack()

        def count(status: int) -> None:
            nonlocal told
            told = True
            route = getattr(scope.get("route"), "path", None)
            self._telemetry.answered(scope["method"], route, status, time.monotonic() - began)

        async def watch(message: Message) -> None:
            if message["type"] == "http.response.start" and not told:
                count(message["status"])
                if _streams(message):
                    stack.enter_context(self._telemetry.streaming())
            await send(message)

        with stack:
            try:
                await self._app(scope, receive, watch)
            except Exception:  # counted and passed on: nothing is caught here
                if not told:
                    count(500)
                raise


def _streams(start: Message) -> bool:
    return any(
        name == b"content-type" and value.startswith(b"text/event-stream")
        for name, value in start.get("headers", ())
    )
