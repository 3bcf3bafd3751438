"""A standby is promoted under load, with two real servers and synchronous replication: writes go on
at once, and no turn that was accepted is lost."""

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio

from clew.checkpointing import migrate
from clew.checkpointing.errors import CheckpointError
from tests.chaos.replicas import free_port
from tests.chaos.test_postgres import over
from tests.chaos.test_workers import damage
from tests.conftest import MIGRATIONS, create
from tests.turns import Engine, engine

INITDB = ("-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "-N")


class Pair:
    """A primary and its standby."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._folder = folder
        self._ports = {"primary": free_port(), "standby": free_port()}
        # Postgres refuses to be root.
        self._user = "postgres" if os.getuid() == 0 else None
        self.name = f"chaos_{uuid.uuid4().hex}"

    @property
    def dsn(self) -> str:
        """Whichever takes writes."""
        ports = ",".join(map(str, self._ports.values()))
        return (
            f"host=127.0.0.1,127.0.0.1 port={ports} user=postgres dbname={self.name} "
            "target_session_attrs=read-write connect_timeout=2"
        )

    def at(self, which: str, database: str = "postgres") -> str:
        return f"host=127.0.0.1 port={self._ports[which]} user=postgres dbname={database}"

    async def start(self) -> None:
        await self._run("initdb", "-D", self._data("primary"), *INITDB)
        await self._serve("primary")
        create(self.at("primary"), self.name)
        await migrate.apply(self.at("primary", self.name), *MIGRATIONS)
        await self._run(
            "pg_basebackup", "-R", "-c", "fast", "-D", self._data("standby"),
            "-d", self.at("primary"),
        )  # fmt: skip
        await self._serve("standby")
        await self.until("select from pg_stat_replication where state = 'streaming'")

    async def replicate(self, *, strictly: bool) -> None:
        """From now on nothing is committed that the standby does not have; or it gets nothing."""
        if strictly:
            await self.tell("primary", "alter system set synchronous_standby_names = '*'")
            await self.until("select from pg_stat_replication where sync_state = 'sync'")
        else:
            await self.tell("standby", "alter system set primary_conninfo = ''")
            await self.until("select where not exists (select from pg_stat_replication)")

    async def fail_over(self) -> None:
        """The primary dies without a word, and the standby takes its place."""
        os.kill(self._pid("primary"), signal.SIGKILL)
        await self._run("pg_ctl", "promote", "-w", "-D", self._data("standby"))

    async def stop(self) -> None:
        for which in self._ports:
            with contextlib.suppress(AssertionError):
                await self._run("pg_ctl", "stop", "-m", "immediate", "-D", self._data(which))

    async def tell(self, which: str, statement: str) -> None:
        async with await psycopg.AsyncConnection.connect(self.at(which), autocommit=True) as conn:
            await conn.execute(statement.encode())
            await conn.execute("select pg_reload_conf()")

    async def until(self, statement: str) -> None:
        where = self.at("primary")
        async with await psycopg.AsyncConnection.connect(where, autocommit=True) as conn:
            for _ in range(1000):
                if await (await conn.execute(statement.encode())).fetchone() is not None:
                    return
                await asyncio.sleep(0.02)
        raise AssertionError(f"never: {statement}")

    def _pid(self, which: str) -> int:
        return int(Path(self._data(which), "postmaster.pid").read_text().splitlines()[0])

    def _data(self, which: str) -> str:
        return str(self._folder / which)

    async def _serve(self, which: str) -> None:
        options = f"-p {self._ports[which]} -k {self._folder} -c max_connections=100 -c fsync=off"
        log = str(self._folder / f"{which}.log")
        await self._run("pg_ctl", "start", "-w", "-D", self._data(which), "-l", log, "-o", options)

    async def _run(self, program: str, *arguments: str) -> None:
        process = await asyncio.create_subprocess_exec(
            str(self._programs / program),
            *arguments,
            user=self._user,
            cwd=self._folder,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert await process.wait() == 0, program


@pytest.fixture
def programs() -> Path:
    """Where the programs of a Postgres server are: its distribution keeps them off the path."""
    places = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"))]
    found = shutil.which("initdb", path=":".join([*places, os.environ["PATH"]]))
    if found is None:
        pytest.skip("needs a Postgres server's programs")
    return Path(found).parent


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as found:
        if os.getuid() == 0:
            shutil.chown(found, "postgres")
        yield Path(found)


@pytest_asyncio.fixture
async def pair(programs: Path, folder: Path) -> AsyncIterator[Pair]:
    servers = Pair(programs, folder)
    try:
        await servers.start()
        yield servers
    finally:
        await servers.stop()


@contextlib.asynccontextmanager
async def load(here: Engine, width: int) -> AsyncGenerator[dict[str, list[tuple[float, str]]]]:
    """Turns asked for without pause, by clients that try again with the same key; when each was
    accepted, and as which run."""
    accepted: dict[str, list[tuple[float, str]]] = {}
    enough = asyncio.Event()

    async def talk(thread_id: str) -> None:
        n = 0
        while not enough.is_set():
            given = {"trail": [f"turn{n}"]}
            key = f"{thread_id}-{n}"
            try:
                run = await here.ask("paced", given, thread_id=thread_id, idempotency_key=key)
            except (psycopg.Error, CheckpointError):
                await asyncio.sleep(0.05)
                continue
            accepted[thread_id].append((time.monotonic(), run.run_id))
            n += 1
            await asyncio.sleep(0.25)

    for _ in range(width):
        accepted[await here.another()] = []
    talking = asyncio.gather(*(talk(thread_id) for thread_id in accepted))
    try:
        yield accepted
    finally:
        enough.set()
        await talking


async def accepted_after(
    accepted: dict[str, list[tuple[float, str]]], moment: float, count: int
) -> list[float]:
    """When turns were accepted after a moment, once there are so many."""
    while True:
        found = sorted(at for turns in accepted.values() for at, _ in turns if at > moment)
        if len(found) >= count:
            return found
        await asyncio.sleep(0.01)


@pytest.mark.timeout(300)
async def test_a_promoted_standby_goes_on_and_has_every_accepted_turn(pair: Pair, *, long: bool):
    width = 20 if long else 4
    await pair.replicate(strictly=True)
    async with engine(pair.dsn, concurrency=20, lease=10) as here:
        async with load(here, width) as accepted, asyncio.timeout(60):
            began = time.monotonic()
            await accepted_after(accepted, began, 2 * width)
            died = time.monotonic()
            await pair.fail_over()
            promoted = time.monotonic()
            after = await accepted_after(accepted, promoted, 2 * width)
        await over(here)
        runs = {thread_id: [run for _, run in turns] for thread_id, turns in accepted.items()}
        assert await damage(here, runs) == []
    print(
        f"promoted {promoted - died:.2f} s after the primary died, writes {after[0] - promoted:.2f}"
        f" s after that; {sum(map(len, runs.values()))} turns, none lost"
    )
    assert after[0] - promoted < 2


@pytest.mark.timeout(300)
async def test_without_synchronous_replication_accepted_turns_are_lost(pair: Pair):
    """The negative control: a standby that lags has not what was promised, and that is seen."""
    async with engine(pair.dsn, concurrency=20, lease=10) as here:
        thread_id = await here.another()
        await here.ask("paced", {"trail": ["turn0"]}, thread_id=thread_id)
        await over(here)
        await pair.until("select from pg_stat_replication where replay_lsn >= pg_current_wal_lsn()")
        await pair.replicate(strictly=False)
        lost = await here.ask("paced", {"trail": ["turn0"]}, thread_id=thread_id)
        await pair.fail_over()
        await over(here)
        assert await damage(here, {thread_id: ["turn0", lost.run_id]}) != []
