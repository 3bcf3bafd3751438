"""No more requests at once than this process can work on; the rest is told when to come back.

Whoever waits for a place waits in front of everything: behind too many requests, the heartbeats of
this process's own runs would come too late. A request has its place until the head of its answer
is sent, so an open stream takes none.
"""

from datetime import timedelta

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clew.api import problems
from clew.runtime import errors

RETRY_AFTER = timedelta(seconds=1)
# Who looks after this process has to hear that it is well, or makes it worse by restarting it.
ALWAYS = ("/ok", "/metrics")


class Admission:
    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most
        self._inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].endswith(ALWAYS):
            await self._app(scope, receive, send)
            return
        if self._inside >= self._most:
            refusal = errors.Unavailable(
                f"this process has {self._most} requests in progress already",
                retry_after=RETRY_AFTER,
            )
            await problems.of(refusal)(scope, receive, send)
            return
        inside = True
        self._inside += 1

        def leave() -> None:
            nonlocal inside
            self._inside -= inside
            inside = False

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                leave()
            await send(message)

        try:
            await self._app(scope, receive, told)
        finally:
            leave()
