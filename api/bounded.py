"""A request's body has a largest size, whether it tells its own beforehand or not."""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clew.api import problems
from clew.runtime import errors


class Bounded:
    """Answers 413 before a body is read that says it is too large, and cuts off one that does
    not say so once it is."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        told = dict(scope["headers"]).get(b"content-length", b"")
        if told.isdigit() and int(told) > self._limit:
            await problems.of(errors.TooLarge(self._fault))(scope, receive, send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            if message["type"] == "http.request":
                read += len(message.get("body", b""))
                if read > self._limit:
                    # Not one of ours, see `problems`.
                    raise HTTPException(413, self._fault)
            return message

        await self._app(scope, counted, send)

    @property
    def _fault(self) -> str:
        return f"the body is larger than the {self._limit} bytes that this server takes"
