"""One process that serves: a socket that is ours before anything starts, and an orderly end."""

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from clew.runtime.errors import StartError

BACKLOG = 2048


def bind(host: str, port: int) -> socket.socket:
    """Take the port first: a start that cannot serve should not start anything else."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_STREAM)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # For all that are accepted from it. Else what follows a stream's head waits for the reader's
    # delayed acknowledgement of it, 40 ms; asyncio sees to it only on sockets that it made itself.
    taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        taken.bind((host, port))
        # Who connects before the server is ready, or while it reloads, waits instead of failing.
        taken.listen(BACKLOG)
    except OSError as error:
        taken.close()
        raise StartError(
            f"cannot listen on {host}:{port}: {error.strerror}. "
            "Stop what listens there, or choose another port with --port (PORT=... make dev)."
        ) from error
    taken.set_inheritable(True)
    return taken


class Server(uvicorn.Server):
    """uvicorn's server, which tells the application that it is about to stop."""

    def __init__(self, config: uvicorn.Config, leaving: asyncio.Event) -> None:
        super().__init__(config)
        self._leaving = leaving

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        logger = logging.getLogger("uvicorn.error")
        logger.addFilter(self._expected)
        try:
            await super().serve(sockets)
        finally:
            logger.removeFilter(self._expected)

    def _expected(self, record: logging.LogRecord) -> bool:
        """Streams that are cut because this process leaves are no error."""
        return not (self._leaving.is_set() and "without completing" in str(record.msg))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._leaving.set()
        super().handle_exit(sig, frame)

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """As uvicorn does it, but a signal that was obeyed is not raised once more at the end: a
        process that stopped in order has exit code 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def stop(self) -> None:
        """The same without a signal."""
        self._leaving.set()
        self.should_exit = True


def make(app: ASGIApp, leaving: asyncio.Event, *, grace_seconds: int) -> Server:
    """A server for the application; `await it.serve(sockets=[...])`. Streams that are open when it
    is told to stop end with a hint to come back, the rest has the grace to finish."""
    config = uvicorn.Config(
        app,
        lifespan="off",  # app.py has built everything already, with better errors
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=grace_seconds,
        server_header=False,
        ws="websockets-sansio",
        ws_max_size=16 * 1024 * 1024,
    )
    return Server(config, leaving)
