"""The database goes away in the middle of everything and comes back: nothing accepted is lost."""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio

from clew.checkpointing import migrate
from clew.checkpointing.errors import CheckpointError
from clew.checkpointing.postgres import SERVICE
from clew.runtime import embedded
from tests.chaos.test_workers import damage
from tests.conftest import MIGRATIONS, create
from tests.turns import Engine, engine


class Server:
    """A Postgres of its own, to be killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stack = contextlib.AsyncExitStack()

    async def start(self, **more: str) -> str:
        settings = {"max_connections": "100", **more}
        serving = embedded.serve(self.folder, settings=settings)
        return (await self.stack.enter_async_context(serving)).dsn

    async def crash(self, away: float, **more: str) -> None:
        """kill -9, away for a while, and back with what it has on disk."""
        (file,) = self.folder.rglob("postmaster.pid")
        os.kill(int(file.read_text().splitlines()[0]), signal.SIGKILL)
        await asyncio.sleep(away)
        await self.start(**more)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not under pytest's own, which the user that Postgres runs as may not enter."""
    found = Path(tempfile.mkdtemp(prefix="clew-chaos-"))
    found.chmod(0o755)
    yield found
    shutil.rmtree(found, ignore_errors=True)


@pytest_asyncio.fixture
async def server(folder: Path) -> AsyncIterator[Server]:
    found = Server(folder)
    try:
        yield found
    finally:
        await found.stack.aclose()


async def ask(here: Engine, thread_id: str, n: int) -> str:
    """A turn, as a client would ask for it that tries again with the same key."""
    while True:
        try:
            run = await here.ask(
                "paced",
                {"trail": [f"turn{n}"]},
                thread_id=thread_id,
                idempotency_key=f"{thread_id}-{n}",
            )
        except (psycopg.Error, CheckpointError):
            await asyncio.sleep(0.25)
        else:
            return run.run_id


async def over(here: Engine) -> None:
    unfinished = "select from clew.run where status in ('pending', 'running') limit 1"
    with here.notifier.listen("queue") as bell:
        while True:
            with contextlib.suppress(psycopg.Error, CheckpointError):
                if not await here.db.fetch(SERVICE, unfinished):
                    return
            await bell.wait(0.2)


@pytest.mark.timeout(900)
async def test_a_database_that_crashes_again_and_again_loses_no_turn(server: Server, *, long: bool):
    width, turns = (20, 50) if long else (4, 3)
    crashes = 0
    dsn = create(await server.start(), f"chaos_{uuid.uuid4().hex}")
    await migrate.apply(dsn, *MIGRATIONS)
    async with engine(dsn, concurrency=40, lease=60) as here:
        threads = [await here.another() for _ in range(width)]

        async def talk(thread_id: str) -> list[str]:
            asked: list[str] = []
            for n in range(turns):
                asked.append(await ask(here, thread_id, n))
                await asyncio.sleep(random.uniform(0, 10) if long else 0)  # who reads, and types
            return asked

        talking = asyncio.gather(*(talk(thread_id) for thread_id in threads))
        while crashes < 2 or (long and not talking.done()):
            await asyncio.wait({talking}, timeout=random.uniform(5, 40) if long else 0.3)
            await server.crash(away=random.uniform(0, 2) if long else 0.2 * crashes)
            crashes += 1
        accepted = dict(zip(threads, await talking, strict=True))
        await over(here)
        assert await damage(here, accepted) == []
    print(f"{width * turns} turns, the database killed {crashes} times: none lost")


LAZY = {"synchronous_commit": "off", "wal_writer_delay": "10s", "wal_writer_flush_after": "1GB"}


@pytest.mark.timeout(300)
async def test_a_database_that_says_done_before_it_is_loses_turns(server: Server):
    """The negative control: it forgets what it took a moment ago, and that is seen."""
    dsn = create(await server.start(**LAZY), f"chaos_{uuid.uuid4().hex}")
    await migrate.apply(dsn, *MIGRATIONS)
    async with engine(dsn, concurrency=40, lease=60) as here:
        # Now and then it writes what it has just then.
        for _ in range(5):
            thread_id = await here.another()
            async with here.db.connection() as conn:
                await conn.execute("checkpoint")
            run_id = await ask(here, thread_id, 0)
            await server.crash(away=0, **LAZY)
            await over(here)
            if await damage(here, {thread_id: [run_id]}):
                return
    pytest.fail("nothing was lost")
