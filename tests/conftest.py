"""The tests' ground: a real Postgres, and a database of its own for every test.

`DATABASE_URL` names a server to use; without it one is started from the embedded binaries and
shared by all test processes. Each test gets a clone of a migrated template, a few tens of
milliseconds each.
"""

import asyncio
import fcntl
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio
from psycopg import conninfo, sql

from clew.checkpointing import migrate
from clew.checkpointing.postgres import Database
from clew.runtime import embedded

MIGRATIONS = ("clew.checkpointing.migrations", "clew.runtime.migrations")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The DSN of a Postgres server on which databases may be created."""
    if url := os.environ.get("DATABASE_URL"):
        yield url
        return
    # Under the system's temporary folder, since an unprivileged Postgres may not enter pytest's.
    settings = {"fsync": "off", "max_connections": "400"}
    with asyncio.Runner() as runner:
        serving = embedded.serve(_shared(), settings=settings)
        started = runner.run(serving.__aenter__())
        try:
            yield started.dsn
        finally:
            runner.run(serving.__aexit__(None, None, None))


def pytest_configure() -> None:
    # The controller of a parallel run sets it, its workers inherit it and share one server.
    os.environ.setdefault("CLEW_TEST_RUN", str(os.getpid()))


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shutil.rmtree(_shared(), ignore_errors=True)


@pytest.fixture(scope="session")
def javascript() -> Path:
    """The folder of what is tested in JavaScript, with the packages that its lock file names, from
    the registry that npm is set up with."""
    folder = Path(__file__).parent / "js"
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    lock = folder / "package-lock.json"
    installed = folder / "node_modules" / ".package-lock.json"
    # One test process installs, the others wait for it.
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
            command = ("npm", "ci", "--no-audit", "--no-fund", "--prefer-offline")
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"needs the packages of tests/js: {done.stderr[-2000:]}")
    return folder


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In the gate, a test that skips because the machine lacks something has failed: there the
    machine is made to have it."""
    report = yield
    if report.skipped and "CLEW_TEST_STRICT" in os.environ and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if reason.startswith("needs "):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} skipped: {reason}"
    return report


def _shared() -> Path:
    where = Path(tempfile.gettempdir()) / f"clew-tests-{os.environ['CLEW_TEST_RUN']}"
    where.mkdir(mode=0o755, exist_ok=True)
    return where


def create(server: str, name: str, *, template: str | None = None) -> str:
    """Create a database and return its DSN."""
    statement = sql.SQL("create database {}").format(sql.Identifier(name))
    if template:
        # File copy is the quicker strategy for a template this small.
        statement += sql.SQL(" template {} strategy file_copy").format(sql.Identifier(template))
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(statement)
    return conninfo.make_conninfo(server, dbname=name)


def drop(server: str, name: str) -> None:
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(
            sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name))
        )


@pytest.fixture(scope="session")
def template(server: str) -> Iterator[str]:
    """A migrated database that nobody is connected to."""
    name = f"clew_template_{uuid.uuid4().hex}"
    asyncio.run(migrate.apply(create(server, name), *MIGRATIONS))
    yield name
    drop(server, name)


@pytest.fixture(scope="session")
def migrated(server: str, template: str) -> Iterator[str]:
    """One migrated database for all tests that change nothing in it."""
    name = f"clew_{uuid.uuid4().hex}"
    yield create(server, name, template=template)
    drop(server, name)


@pytest.fixture
def empty_dsn(server: str) -> Iterator[str]:
    """A fresh database without a schema."""
    name = f"clew_{uuid.uuid4().hex}"
    yield create(server, name)
    drop(server, name)


@pytest.fixture
def dsn(server: str, template: str) -> Iterator[str]:
    """A fresh, migrated database."""
    name = f"clew_{uuid.uuid4().hex}"
    yield create(server, name, template=template)
    drop(server, name)


@pytest_asyncio.fixture
async def db(dsn: str) -> AsyncIterator[Database]:
    async with Database.open(dsn) as database:
        yield database
