"""Turns over HTTP beside Aegra, the nearest open server of the same protocol: the same graphs, the
same requests, the same Postgres, one process each, one after the other in one run.

Aegra wants Python 3.12 and other versions of LangGraph, so it gets an environment of its own.
"""

import asyncio
import json
import os
import re
import shutil
import statistics
import sys
import tempfile
import urllib.parse
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from tests.bench import turns
from tests.bench.report import Section, Table
from tests.conftest import create, drop

WANTED = "aegra-api==0.11.0"
ENVIRONMENT = Path(__file__).parents[2] / ".venv-aegra"
PORT = 20261
BUDGET = 8.0


async def run(dsn: str, *, long: bool) -> Section:
    seconds, rounds = (8.0, 3) if long else (1.0, 1)
    section = Section("peer", f"Turns over HTTP, beside Aegra ({WANTED.partition('==')[2]})")
    if not await _installed():
        section.add(f"Not measured: no Python 3.12 or 3.13 that could install {WANTED}.")
        return section
    table = Table(
        "Turns per second, and CPU of the one server process per turn",
        ("graph", "concurrency", "Clew turns/s", "Aegra turns/s", "times", "Clew CPU ms",
         "Aegra CPU ms"),
    )  # fmt: skip
    async with _clew(dsn) as (port, pid), _aegra(dsn) as (their_port, their_pid):
        for graph, mode in (("echo", "values"), ("tokens", "messages-tuple")):
            for concurrency in (1, 8, 32):
                ours: list[tuple[float, float]] = []
                theirs: list[tuple[float, float]] = []
                for _ in range(rounds):
                    asked = (graph, mode, concurrency, seconds)
                    ours.append(await turns.served(port, pid, *asked))
                    theirs.append(await turns.served(their_port, their_pid, *asked))
                rate, spent = (statistics.median(c) for c in zip(*ours, strict=True))
                their_rate, their_cpu = (statistics.median(c) for c in zip(*theirs, strict=True))
                table.row(
                    graph, concurrency, f"{rate:.0f}", f"{their_rate:.0f}",
                    f"{rate / their_rate:.1f}", f"{spent:.1f}", f"{their_cpu:.1f}",
                )  # fmt: skip
    section.add(table)
    section.add(f"Wanted: {BUDGET:.0f} times for the echo at 8 and at 32.")
    return section


async def _installed() -> bool:
    if (ENVIRONMENT / "bin" / "uvicorn").exists():
        return True
    # Whatever is on the path, and where pyenv keeps those that are not.
    found = [shutil.which(name) for name in ("python3.13", "python3.12")]
    found += sorted(map(str, Path.home().glob(".pyenv/versions/3.1[23].*/bin/python")))
    for python in filter(None, found):
        if await _call(python, "-m", "venv", str(ENVIRONMENT)) and await _call(
            str(ENVIRONMENT / "bin" / "pip"), "install", "-q", WANTED
        ):
            return True
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    return False


async def _call(*command: str) -> bool:
    process = await asyncio.create_subprocess_exec(*command, stderr=DEVNULL)
    return await process.wait() == 0


@asynccontextmanager
async def _clew(dsn: str) -> AsyncGenerator[tuple[int, int]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "clew.api.cli", "serve", "--port", "0",
        "--config", str(turns.PROJECT),
        env={**os.environ, "DATABASE_URL": dsn, "CLEW_CONCURRENCY": "64", "LOG_LEVEL": "info"},
        stderr=PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    async with _ended(process):
        port = 0
        while not port:
            line = (await process.stderr.readline()).decode()
            assert line, "the server did not start"
            if match := re.search(r"serving on http://[\d.]+:(\d+)", line):
                port = int(match[1])
        draining = asyncio.create_task(process.stderr.read())
        yield port, process.pid
        process.terminate()
        await draining


@asynccontextmanager
async def _aegra(dsn: str) -> AsyncGenerator[tuple[int, int]]:
    given = conninfo_to_dict(dsn)
    database = f"{given['dbname']}_aegra"
    create(dsn, database)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "aegra.json"
        here = turns.PROJECT.parent / "graphs.py"
        names = ("echo", "tokens")
        config.write_text(json.dumps({"graphs": {name: f"{here}:{name}" for name in names}}))
        environment = {
            **os.environ,
            "DATABASE_URL": _url({**given, "dbname": database}),
            "AEGRA_CONFIG": str(config),
            "LOG_LEVEL": "ERROR",
            "SQLALCHEMY_POOL_SIZE": "32",
            "LANGGRAPH_MAX_POOL_SIZE": "32",
        }
        process = await asyncio.create_subprocess_exec(
            str(ENVIRONMENT / "bin" / "uvicorn"), "aegra_api.main:app", "--port", str(PORT),
            "--log-level", "error", env=environment, stdout=DEVNULL, stderr=DEVNULL,
        )  # fmt: skip
        async with _ended(process):
            await _ready(process)
            yield PORT, process.pid
    drop(dsn, database)


def _url(given: dict[str, object]) -> str:
    """For a driver that knows no other form."""
    more = {key: str(given[key]) for key in ("host", "port", "password") if given.get(key)}
    return f"postgresql://{given['user']}@/{given['dbname']}?{urllib.parse.urlencode(more)}"


async def _ready(process: Process) -> None:
    async with asyncio.timeout(60):
        while process.returncode is None:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", PORT)
                writer.close()
                return
            await asyncio.sleep(0.1)
    raise RuntimeError("Aegra did not start")


@asynccontextmanager
async def _ended(process: Process) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
