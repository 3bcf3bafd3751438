"""`clew dev`: Postgres, migrations, the server, and a fresh server whenever a file is saved.

This process holds the database and the port; the server is a child that is replaced. A child
that fails to start after a save leaves the rest running and waits for the next save; one that was
killed, as where memory ran out, is started again.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from watchfiles import DefaultFilter, awatch

_STOP_SECONDS = 10
_AGAIN_SECONDS = 1.0


class _Sources(DefaultFilter):
    """What a reload is about: code and configuration, not data, caches or dependencies."""

    def __call__(self, change: object, path: str) -> bool:
        if not path.endswith((".py", ".json", ".sql", ".env")) or "/.clew/" in path:
            return False
        return super().__call__(change, path)  # pyright: ignore[reportArgumentType]  (watchfiles' own Change)


async def run(
    arguments: Sequence[str],
    listening: socket.socket,
    watched: Sequence[Path],
    environment: dict[str, str],
) -> int:
    """Keep a server running until interrupted; returns the exit code of a failed first start."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)

    async def start() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "clew.api.cli",
            *arguments,
            env={**os.environ, **environment},
            pass_fds=[listening.fileno()],
            start_new_session=True,  # Ctrl-C reaches it through us, once and in order
        )

    saves = awatch(*watched, watch_filter=_Sources(), stop_event=stop, debounce=200)
    child = await start()
    first = True
    async with contextlib.aclosing(saves):
        saved = asyncio.ensure_future(anext(saves, None))  # None: stopped
        while True:
            ended = asyncio.ensure_future(child.wait())
            await asyncio.wait({saved, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not saved.done() and ended.result() < 0:
                name = signal.Signals(-ended.result()).name
                print(f"The server was ended by {name}; it starts again.", flush=True)
                await asyncio.wait({saved}, timeout=_AGAIN_SECONDS)
                if not saved.done():
                    child = await start()
                    continue
            if not saved.done():
                if first:
                    stop.set()
                    await saved
                    return ended.result()
                print("The server stopped; it starts again when a file is saved.", flush=True)
            files = await saved
            await end(child)
            if files is None:
                return 0
            names = ", ".join(sorted({Path(path).name for _, path in files}))
            print(f"Reloading: {names} changed", flush=True)
            child, first = await start(), False
            saved = asyncio.ensure_future(anext(saves, None))


async def end(child: asyncio.subprocess.Process) -> None:
    """Stop the server in order; one that hangs is killed, the database loses nothing by it."""
    if child.returncode is not None:
        return
    child.terminate()
    try:
        await asyncio.wait_for(child.wait(), _STOP_SECONDS)
    except TimeoutError:
        child.kill()
        await child.wait()
