"""Both servers, started as their users start them, on the same graphs."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import tempfile
import uuid
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx

from clew.checkpointing import migrate
from clew.runtime import embedded
from tests.compat.side import PROJECT
from tests.conftest import MIGRATIONS, create, drop
from tests.serving import serve

OFFICIAL = Path(__file__).parents[2] / ".venv-compat"

# No key, no account, and nothing sent anywhere.
QUIET = {
    "LANGGRAPH_CLI_NO_ANALYTICS": "1",
    "LANGSMITH_TRACING": "false",
    "LANGCHAIN_TRACING_V2": "false",
    "NO_COLOR": "1",
    "BG_JOB_ISOLATED_LOOPS": "false",
}


@contextlib.asynccontextmanager
async def official() -> AsyncGenerator[str]:
    """The base URL of `langgraph dev`, with a state of its own that is thrown away."""
    with tempfile.TemporaryDirectory(prefix="clew-compat-") as folder:
        tests = Path(folder) / "tests"
        for name in ("project", "compat/project"):
            shutil.copytree(PROJECT.parents[2] / name, tests / name)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("LANGSMITH_", "LANGCHAIN_", "LANGGRAPH_", "DATABASE_"))
        }
        log = (Path(tempfile.gettempdir()) / "clew-compat-official.log").open("wb")
        process = await asyncio.create_subprocess_exec(
            OFFICIAL / "bin" / "langgraph",
            *("dev", "--no-browser", "--no-reload", "--n-jobs-per-worker", "10"),
            *("--port", str(port)),
            cwd=tests / "compat" / "project",
            env={**environment, **QUIET},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            await _answers(f"http://127.0.0.1:{port}", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)  # its state is nobody's
            await process.wait()
            log.close()


async def _answers(url: str, process: asyncio.subprocess.Process) -> None:
    async with httpx.AsyncClient(base_url=url) as http:
        for _ in range(600):
            if process.returncode is not None:
                raise RuntimeError(f"langgraph dev ended with {process.returncode}")
            with contextlib.suppress(httpx.TransportError):
                if (await http.get("/ok")).status_code == 200:
                    return
            await asyncio.sleep(0.1)
    raise RuntimeError("langgraph dev did not start")


@contextlib.asynccontextmanager
async def clew() -> AsyncGenerator[str]:
    """The base URL of Clew on an empty database, on `DATABASE_URL` or an embedded Postgres."""
    async with contextlib.AsyncExitStack() as stack:
        server = os.environ.get("DATABASE_URL")
        if server is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="clew-compat-"))
            await asyncio.to_thread(Path(folder).chmod, 0o755)  # Postgres is another user
            server = (await stack.enter_async_context(embedded.serve(Path(folder)))).dsn
        name = f"compat_{uuid.uuid4().hex[:8]}"
        dsn = create(server, name)
        stack.callback(drop, server, name)
        await migrate.apply(dsn, *MIGRATIONS)
        yield await stack.enter_async_context(serve(dsn, config=PROJECT))
