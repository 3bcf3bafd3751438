"""No more requests at once than this process can work on; the rest is told when to come back.

Whoever waits for a place waits in front of everything: behind too many requests, the heartbeats of
this process's own runs would come too late. A request has its place while there is work to do for
it: not while its body is on the way, nor while it waits for the end of a run (`leave`), nor once
the head of its answer is sent, so an open stream takes none.
"""

from collections.abc import Callable
from contextvars import ContextVar
from datetime import timedelta

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clew.api import problems
from clew.runtime import errors

RETRY_AFTER = timedelta(seconds=1)
# Who looks after this process has to hear that it is well, or makes it worse by restarting it.
ALWAYS = ("/ok", "/metrics")

_leave: ContextVar[Callable[[], None]] = ContextVar("leave", default=lambda: None)


def leave() -> None:
    """The request at hand only waits from now on."""
    _leave.get()()


class Admission:
    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most
        self._inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _always(scope):
            await self._app(scope, receive, send)
            return
        if self._inside >= self._most:
            refusal = errors.Unavailable(self._fault, retry_after=RETRY_AFTER)
            await problems.of(refusal)(scope, receive, send)
            return
        inside = coming = True
        self._inside += 1

        def free() -> None:
            nonlocal inside
            if inside:
                inside = False
                self._inside -= 1

        async def received() -> Message:
            nonlocal inside, coming
            if not (inside and coming):
                return await receive()
            free()
            message = await receive()
            if self._inside >= self._most:
                raise HTTPException(503, self._fault, {"Retry-After": "1"})
            inside, coming = True, message.get("more_body", False)
            self._inside += 1
            return message

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                free()
            await send(message)

        token = _leave.set(free)
        try:
            await self._app(scope, received, told)
        finally:
            _leave.reset(token)
            free()

    @property
    def _fault(self) -> str:
        return f"this process has {self._most} requests in progress already"


def _always(scope: Scope) -> bool:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")) in ALWAYS
