"""A server as users have it: the real application behind a real socket, in the test's own loop."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path

from clew.api import app, server
from clew.runtime import config as configuration
from clew.runtime.settings import Settings

PROJECT = Path(__file__).parent / "project" / "langgraph.json"
AGENTS = Path(__file__).parents[1] / "langgraph.json"


@contextlib.asynccontextmanager
async def serve(dsn: str, *, config: Path = PROJECT, **settings: object) -> AsyncGenerator[str]:
    """The base URL of a server on this database."""
    chosen = Settings.model_validate({"database_url": dsn, "drain_grace": "2s", **settings})
    loaded = configuration.load(config)
    with contextlib.closing(server.bind("127.0.0.1", 0)) as listening:
        async with app.running(chosen, loaded) as application:
            running = server.make(application.app, application.leaving, grace_seconds=2)
            serving = asyncio.create_task(running.serve(sockets=[listening]))
            try:
                yield f"http://127.0.0.1:{listening.getsockname()[1]}"
            finally:
                running.stop()
                await serving
