"""The embedded Postgres, with real servers, real kills and, where the machine allows, as root and
as an ordinary user. Crashes are SIGKILL; other users of a server are other processes."""

# ruff: noqa: ASYNC110, ASYNC221, ASYNC222, ASYNC240  (waits on other processes, blocks on purpose)

import asyncio
import ctypes
import json
import logging
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from clew.runtime import embedded, errors, place, postmaster
from clew.runtime.place import Account, Place

ROOT = os.geteuid() == 0
REPO = Path(__file__).parents[1]
FAST = {"fsync": "off"}
as_root = pytest.mark.skipif(not ROOT, reason="needs root")
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

# Enters the server, says so in one line of JSON, and leaves when its input ends or on Ctrl-C.
USER = """
import asyncio, dataclasses, json, logging, sys
from pathlib import Path
from clew.runtime import embedded, errors

async def main():
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, ended.set)
    try:
        async with embedded.serve(Path(sys.argv[1]), settings=json.loads(sys.argv[2])) as server:
            print(json.dumps(dataclasses.asdict(server), default=str), flush=True)
            await ended.wait()
    except errors.EmbeddedError as fault:
        print(json.dumps({"error": str(fault)}), flush=True)

try:
    asyncio.run(main())
except KeyboardInterrupt:
    pass
"""


@pytest.fixture
def empty() -> Iterator[Path]:
    """A folder with a short path that every user may enter; pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="embedded-", dir="/tmp")).resolve()
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        left = [pid for path in folder.rglob("postmaster.pid") if (pid := running(path))]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
        assert not left, "a server outlived its users"


@pytest.fixture
def strict() -> Iterator[None]:
    """A umask that closes new folders, as hardened machines give to root."""
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="embedded-", dir="/tmp"))
    folder.chmod(0o755)

    async def start() -> None:
        async with embedded.serve(folder, settings=FAST):
            pass

    asyncio.run(start())
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def project(empty: Path, seed: Path) -> Path:
    """A project whose server has run before and was stopped."""
    subprocess.run(["cp", "-a", seed / ".clew", empty], check=True)
    return empty


def running(pid_file: Path) -> int | None:
    if not pid_file.exists():
        return None
    pid = int(pid_file.read_text().split()[0])
    return pid if postmaster.alive(pid, pid_file.parent) else None


def pid_of(server: embedded.Server) -> int:
    return int((server.data / "postmaster.pid").read_text().split()[0])


async def gone(pid: int) -> None:
    while postmaster.alive(pid):
        await asyncio.sleep(0)


async def ask(server: embedded.Server, query: str) -> Any:
    async with await psycopg.AsyncConnection.connect(server.dsn, autocommit=True) as conn:
        cursor = await conn.execute(query.encode())
        return (await cursor.fetchone() or [None])[0] if cursor.description else None


@dataclass
class User:
    """Another process that uses the server."""

    process: asyncio.subprocess.Process

    async def up(self) -> embedded.Server:
        assert self.process.stdout
        said = json.loads(await self.process.stdout.readline())
        if "error" in said:
            raise errors.EmbeddedError(said["error"])
        return embedded.Server(said["dsn"], Path(said["data"]), said["started"], said["version"])

    async def leave(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        assert await self.process.wait() == 0

    async def die(self) -> None:
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def user(
    project: Path, *, python: str = sys.executable, account: str | None = None, **settings: str
) -> AsyncGenerator[User]:
    became: dict[str, Any] = {}
    if account:
        entry = pwd.getpwnam(account)
        became = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    process = await asyncio.create_subprocess_exec(
        *(python, "-c", USER, str(project), json.dumps(settings or FAST)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd="/",
        env={"PATH": os.defpath, "PYTHONPATH": python_path(), "PYTHONDONTWRITEBYTECODE": "1"},
        start_new_session=True,
        **became,
    )
    try:
        yield User(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def python_path() -> str:
    return os.pathsep.join([str(REPO / ".types"), str(Path(psycopg.__file__).parents[1])])


@pytest.fixture(scope="module")
def ordinary() -> str:
    """A Python that `nobody` may run; the one under test is often out of its reach."""
    if not ROOT:
        return sys.executable
    entry = pwd.getpwnam("nobody")
    minor = f"python3.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/{minor}", f"/usr/local/bin/{minor}"):
        try:
            tried = subprocess.run(
                [python, "-c", "import clew.runtime.embedded"],
                user=entry.pw_uid,
                group=entry.pw_gid,
                extra_groups=[],
                env={"PYTHONPATH": python_path(), "PYTHONDONTWRITEBYTECODE": "1"},
                cwd="/",
                check=False,
                capture_output=True,
            )
        except OSError:
            continue
        if tried.returncode == 0:
            return python
    pytest.skip(f"needs a {minor} and packages that the user nobody can read")


async def test_a_first_start_makes_a_database_and_a_second_finds_it(empty: Path) -> None:
    async with embedded.serve(empty) as server:
        assert server.started
        assert server.version.startswith("18.")
        assert server.data == empty / ".clew/postgres/data"
        assert (empty / ".clew/.gitignore").read_text() == "*\n"
        assert await ask(server, "select lower('ÉЖ') || '会话'") == "éж会话"
        assert await ask(server, "show fsync") == "on"
        assert await ask(server, "show server_encoding") == "UTF8"
        assert await ask(server, "show max_connections") == "100"
        await ask(server, "create table kept as select 7 as n")
        pid = pid_of(server)
    assert not postmaster.alive(pid)
    began = time.monotonic()
    async with embedded.serve(empty) as server:
        assert server.started
        assert await ask(server, "select n from kept") == 7
    assert time.monotonic() - began < 5
    assert not (server.data / "postmaster.pid").exists()
    assert "automatic recovery" not in (empty / ".clew/postgres/log").read_text()


async def test_the_loop_runs_on_while_a_server_starts(empty: Path) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    ticking = asyncio.create_task(tick())
    async with embedded.serve(empty, settings=FAST):
        ticking.cancel()
    assert ticks > 15


async def test_processes_that_start_at_once_share_one_server(empty: Path) -> None:
    async with user(empty) as one, user(empty) as two, user(empty) as three, user(empty) as four:
        users = (one, two, three, four)
        servers = await asyncio.gather(*(each.up() for each in users))
        assert len({pid_of(server) for server in servers}) == 1
        assert sorted(server.started for server in servers) == [False, False, False, True]
        pid = pid_of(servers[0])
        for each in users[:-1]:
            await each.leave()
        assert await ask(servers[-1], "select 1") == 1
        await four.leave()
        assert not postmaster.alive(pid)


async def test_one_process_may_enter_twice(project: Path) -> None:
    async with embedded.serve(project, settings=FAST) as outer:
        async with embedded.serve(project) as inner:
            assert (outer.started, inner.started) == (True, False)
            assert inner.dsn == outer.dsn
        assert await ask(outer, "select 1") == 1


async def test_a_server_outlives_its_killed_owner_and_is_found_again(project: Path) -> None:
    async with user(project) as owner:
        pid = pid_of(await owner.up())
        await owner.die()
    async with embedded.serve(project) as server:
        assert not server.started
        assert pid_of(server) == pid
        assert await ask(server, "select 1") == 1
    assert not postmaster.alive(pid)


async def test_a_killed_user_does_not_count_when_the_last_one_leaves(project: Path) -> None:
    async with user(project) as killed, user(project) as last:
        pid = pid_of(await killed.up())
        await last.up()
        await killed.die()
        await last.leave()
        assert not postmaster.alive(pid)


async def test_a_killed_server_recovers_what_was_committed(project: Path) -> None:
    async with user(project, fsync="on") as owner:
        server = await owner.up()
        await ask(server, "create table kept as select 7 as n")
        pid = pid_of(server)
        await owner.die()
        os.kill(pid, signal.SIGKILL)
        await gone(pid)
    async with embedded.serve(project) as server:
        assert server.started
        assert await ask(server, "select n from kept") == 7
        assert "not properly shut down" in (project / ".clew/postgres/log").read_text()


async def test_a_server_killed_under_its_users_is_started_by_the_next(project: Path) -> None:
    async with embedded.serve(project, settings=FAST) as before:
        async with await psycopg.AsyncConnection.connect(before.dsn) as conn:
            await conn.execute("select 1")
            os.kill(pid_of(before), signal.SIGKILL)  # its backend outlives it for a moment
            async with embedded.serve(project, settings=FAST) as after:
                assert after.started
                assert await ask(before, "select 1") == 1
            with pytest.raises(psycopg.OperationalError):
                await conn.execute("select 1")
        assert await ask(before, "select 2") == 2


@linux
async def test_a_zombie_server_is_dead(project: Path) -> None:
    subreaper = 36  # PR_SET_CHILD_SUBREAPER: orphans become ours, and we do not reap
    prctl = ctypes.CDLL(None).prctl
    assert prctl(subreaper, 1, 0, 0, 0) == 0
    try:
        async with embedded.serve(project, settings=FAST) as server:
            pid = pid_of(server)
            os.kill(pid, signal.SIGKILL)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            os.kill(pid, 0)  # still there, for all who only look at the pid
            async with embedded.serve(project, settings=FAST) as again:
                assert again.started
                assert await ask(again, "select 1") == 1
                second = pid_of(again)
            os.waitpid(pid, 0)
        os.waitpid(second, 0)
    finally:
        prctl(subreaper, 0, 0, 0, 0)


async def test_a_stale_pid_file_is_no_server(project: Path) -> None:
    stale = project / ".clew/postgres/data/postmaster.pid"
    others = f"{os.getpid()}\n/x\n1\n5432\n/x\n\n\nready\n"  # its pid is someone else's by now
    for lines in (others, "", "999999999\n"):
        stale.write_text(lines)
        if ROOT:
            shutil.chown(stale, "nobody")
        async with embedded.serve(project, settings=FAST) as server:
            assert server.started
            assert await ask(server, "select 1") == 1


async def test_ctrl_c_reaches_the_server_only_through_its_last_user(project: Path) -> None:
    async with user(project) as one:
        server = await one.up()
        pid = pid_of(server)
        async with embedded.serve(project) as mine:
            os.killpg(one.process.pid, signal.SIGINT)
            await one.process.wait()
            assert await ask(mine, "select 1") == 1
            assert "shutdown request" not in (project / ".clew/postgres/log").read_text()
    assert not postmaster.alive(pid)
    async with user(project) as last:
        await last.up()
        os.killpg(last.process.pid, signal.SIGINT)
        await last.process.wait()
    log = (project / ".clew/postgres/log").read_text()
    assert log.count("shutdown request") == 1
    assert log.rstrip().endswith("database system is shut down")


async def test_a_start_that_is_cancelled_leaves_nothing(empty: Path) -> None:
    async def enter() -> None:
        async with embedded.serve(empty, settings=FAST):
            pytest.fail("was cancelled before")

    home = empty / ".clew/postgres"
    for sign in ("data.*/PG_VERSION", "data/postmaster.pid"):
        entering = asyncio.create_task(enter())
        while not list(home.glob(sign)):
            await asyncio.sleep(0)
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering
        assert not running(home / "data/postmaster.pid")
    async with embedded.serve(empty, settings=FAST) as server:
        assert await ask(server, "select 1") == 1


async def test_a_half_made_database_is_made_anew(empty: Path) -> None:
    async with user(empty) as killed:
        while not list(empty.glob(".clew/postgres/data.*/PG_VERSION")):
            await asyncio.sleep(0)
        await killed.die()  # its initdb runs on
    async with embedded.serve(empty, settings=FAST) as server:
        assert await ask(server, "select 1") == 1
    async with embedded.serve(empty, settings=FAST) as server:
        assert not list(server.data.parent.glob("data.*"))


async def test_a_setting_that_postgres_refuses_is_named(project: Path) -> None:
    with pytest.raises(errors.EmbeddedError, match="no_such_setting"):
        async with embedded.serve(project, settings={"no_such_setting": "1", **FAST}):
            pass
    async with embedded.serve(project, settings=FAST) as server:
        assert await ask(server, "show fsync") == "off"


async def test_data_of_another_major_version_is_refused_with_a_way_out(project: Path) -> None:
    data = project / ".clew/postgres/data"
    (data / "PG_VERSION").write_text("16\n")
    with pytest.raises(errors.EmbeddedError) as refused:
        async with embedded.serve(project, settings=FAST):
            pass
    for words in (str(data), "Postgres 16", "Postgres 18", "pg_dumpall", "DATABASE_URL"):
        assert words in str(refused.value)
    assert (data / "PG_VERSION").read_text() == "16\n"


async def test_a_folder_that_is_no_database_is_refused_and_kept(project: Path) -> None:
    data = project / ".clew/postgres/data"
    (data / "PG_VERSION").unlink()
    with pytest.raises(errors.EmbeddedError, match="Move it away"):
        async with embedded.serve(project, settings=FAST):
            pass
    assert (data / "base").is_dir()


async def test_a_project_that_is_not_there_is_refused(empty: Path) -> None:
    with pytest.raises(errors.EmbeddedError, match="no project folder"):
        async with embedded.serve(empty / "absent"):
            pass
    assert not (empty / "absent").exists()


async def test_a_missing_extra_says_what_to_install(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(errors.EmbeddedError, match=r"pip install 'clew\[embedded\]'"):
        async with embedded.serve(empty):
            pass
    assert not (empty / ".clew").exists()


@pytest.mark.parametrize(
    "name", ["deep/" + "long" * 20, "a b 会话", "a,b", 'it\'s "$(touch x)" `x` \\ ;', "-k"]
)
async def test_any_path_will_do(project: Path, name: str) -> None:
    odd = project / name
    odd.mkdir(parents=True)
    (project / ".clew").rename(odd / ".clew")
    async with embedded.serve(odd, settings=FAST) as server:
        socket = Path(str(conninfo_to_dict(server.dsn)["host"]))
        assert server.data.is_relative_to(odd)
        assert await ask(server, "select 1") == 1
        async with user(odd) as other:
            assert (await other.up()).dsn == server.dsn
            await other.leave()
        assert socket.stat().st_mode & 0o777 == 0o700
    assert socket == server.data.parent or not socket.exists()


async def test_a_short_socket_folder_lasts_as_long_as_it_is_needed(project: Path) -> None:
    odd = project / ("long" * 25)
    odd.mkdir()
    (project / ".clew").rename(odd / ".clew")
    async with embedded.serve(odd, settings=FAST) as server:
        socket = Path(str(conninfo_to_dict(server.dsn)["host"]))
        os.kill(pid_of(server), signal.SIGKILL)
        async with embedded.serve(odd, settings=FAST) as again:
            assert again.started
            assert await ask(server, "select 1") == 1  # where it was
    assert not socket.exists()


async def test_a_home_removed_while_in_use_is_let_go(project: Path) -> None:
    async with embedded.serve(project, settings=FAST) as server:
        pid = pid_of(server)
        shutil.rmtree(project / ".clew")
        async with embedded.serve(project, settings=FAST) as fresh:
            assert pid_of(fresh) != pid
            os.kill(pid, signal.SIGINT)  # it would notice by itself, within a minute
            await gone(pid)
            assert await ask(fresh, "select 1") == 1


async def psql(account: Account, server: embedded.Server) -> tuple[int, str]:
    binaries = place.installed() / f"pginstall{place.MAJOR}" / "bin"
    return await account.run(binaries / "psql", server.dsn, "-Atc", "select current_user")


def other(name: str) -> Account:
    entry = pwd.getpwnam(name)
    return Account(entry.pw_uid, entry.pw_gid, entry.pw_name, switched=True)


@as_root
async def test_no_other_user_of_the_machine_may_connect(project: Path) -> None:
    async with embedded.serve(project, settings=FAST) as server:
        assert await psql(Account(0, 0, "root", switched=False), server) == (0, "postgres\n")
        code, said = await psql(other("daemon"), server)
        assert code
        assert "Permission denied" in said
        code, said = await psql(other("nobody"), server)  # runs the server, and yet
        assert code
        assert "Peer authentication failed" in said
        assert await ask(server, "show listen_addresses") == ""
        assert (project / ".clew/postgres").stat().st_mode & 0o777 == 0o700


@as_root
@pytest.mark.usefixtures("strict")
async def test_root_hands_postgres_to_nobody_and_adds_no_user(empty: Path) -> None:
    users = Path("/etc/passwd").read_bytes()
    async with embedded.serve(empty, settings=FAST) as server:
        assert server.data == empty / ".clew/postgres/data"
        nobody = pwd.getpwnam("nobody").pw_uid
        assert Path(f"/proc/{pid_of(server)}").stat().st_uid == nobody
        assert b"PYTEST" not in Path(f"/proc/{pid_of(server)}/environ").read_bytes()
    assert Path("/etc/passwd").read_bytes() == users


@as_root
async def test_root_runs_existing_data_as_its_owner(project: Path) -> None:
    async with embedded.serve(project, settings=FAST) as server:
        await ask(server, "create table kept as select 7 as n")
    subprocess.run(["chown", "-R", "daemon", server.data.parent], check=True)
    async with embedded.serve(project, settings=FAST) as server:
        assert Path(f"/proc/{pid_of(server)}").stat().st_uid == pwd.getpwnam("daemon").pw_uid
        assert await ask(server, "select n from kept") == 7
        assert (await psql(other("daemon"), server))[0] == 0
    subprocess.run(["chown", "-R", "root", server.data.parent], check=True)
    with pytest.raises(errors.EmbeddedError, match="sudo chown -R nobody"):
        async with embedded.serve(project, settings=FAST):
            pass


@as_root
@pytest.mark.usefixtures("strict")
async def test_root_keeps_data_elsewhere_where_nobody_cannot_reach_the_project(
    empty: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(place, "AWAY", empty / "away")
    closed = empty / "closed"
    inner = closed / "project"
    inner.mkdir(parents=True)
    closed.chmod(0o700)
    async with embedded.serve(inner, settings=FAST) as server:
        assert server.data.is_relative_to(empty / "away")
        said = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
        where = f"the database is in {server.data.parent}"
        assert said == [f"{inner} is out of reach for the user nobody: {where}"]
        await ask(server, "create table kept as select 7 as n")
    assert closed.stat().st_mode & 0o777 == 0o700
    closed.chmod(0o755)  # the data stays where it is, whatever becomes reachable later
    async with embedded.serve(inner, settings=FAST) as server:
        assert await ask(server, "select n from kept") == 7


@as_root
async def test_root_says_so_when_nobody_can_no_longer_reach_the_data(empty: Path) -> None:
    inner = empty / "closed/project"
    inner.mkdir(parents=True)
    async with embedded.serve(inner, settings=FAST):
        pass
    inner.parent.chmod(0o700)
    with pytest.raises(errors.EmbeddedError, match="out of reach for the user nobody"):
        async with embedded.serve(inner, settings=FAST):
            pass
    with pytest.raises(errors.EmbeddedError, match="out of reach for the user nobody"):
        async with embedded.serve(empty, home=inner / "chosen", settings=FAST):
            pass
    assert inner.parent.stat().st_mode & 0o777 == 0o700


@as_root
@pytest.mark.usefixtures("strict")
async def test_root_copies_binaries_that_nobody_cannot_read(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "CACHE", project / "cache")
    closed = project / "closed"
    closed.mkdir(mode=0o700)
    for part in (place.PACKAGE, f"{place.PACKAGE}.libs"):
        (closed / part).symlink_to(place.installed().with_name(part))
    monkeypatch.syspath_prepend(closed)
    async with embedded.serve(project, settings=FAST) as server:
        assert await ask(server, "select 1") == 1
        program = Path(f"/proc/{pid_of(server)}/exe").readlink()
        assert program.is_relative_to(project / "cache")
        await ask(server, "create extension vector")
    assert closed.stat().st_mode & 0o777 == 0o700
    copied = program.stat().st_mtime_ns
    async with embedded.serve(project, settings=FAST):
        assert program.stat().st_mtime_ns == copied


@as_root
async def test_an_ordinary_user_has_the_whole_of_it(empty: Path, ordinary: str) -> None:
    shutil.chown(empty, "nobody")
    async with user(empty, python=ordinary, account="nobody") as one:
        server = await one.up()
        assert server.data == empty / ".clew/postgres/data"
        assert (await psql(other("nobody"), server))[0] == 0
        assert (await psql(other("daemon"), server))[0] != 0
        await one.die()
    async with user(empty, python=ordinary, account="nobody") as two:
        assert not (await two.up()).started
        await two.leave()
    async with user(empty, python=ordinary, account="nobody") as three:
        assert (await three.up()).started
        await three.leave()
    assert not (server.data / "postmaster.pid").exists()


@as_root
async def test_data_of_another_user_is_refused(empty: Path, ordinary: str) -> None:
    home = empty / ".clew/postgres"
    home.mkdir(parents=True)
    (empty / ".clew/.gitignore").touch()
    shutil.chown(home, "daemon")
    async with user(empty, python=ordinary, account="nobody") as one:
        with pytest.raises(errors.EmbeddedError, match="belongs to daemon"):
            await one.up()


async def test_a_folder_one_may_not_write_to_is_named(empty: Path, ordinary: str) -> None:
    empty.chmod(0o555)
    async with user(empty, python=ordinary, account="nobody" if ROOT else None) as one:
        with pytest.raises(errors.EmbeddedError) as refused:
            await one.up()
    assert f"cannot write to {empty}/.clew: Permission denied" in str(refused.value)
    assert "DATABASE_URL" in str(refused.value)


@pytest.fixture
def small(empty: Path) -> Iterator[Path]:
    """A disk of 90 MB."""
    disk = empty / "disk"
    disk.mkdir()
    mounted = (
        ROOT
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=90m,mode=755", "tmpfs", disk], check=False
        ).returncode
    )
    if not mounted:
        pytest.skip("needs root and the right to mount a tmpfs")
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


def fill(disk: Path) -> None:
    with (disk / "ballast").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    assert shutil.disk_usage(disk).free == 0


async def test_a_disk_too_small_for_a_database_is_said_and_left_empty(small: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=20m", small], check=True)
    with pytest.raises(errors.EmbeddedError, match=r"is full.* cannot create its data"):
        async with embedded.serve(small, settings=FAST):
            pass
    assert [path.name for path in (small / ".clew/postgres").glob("data*")] == []


async def test_a_full_disk_is_said_and_the_data_survive(small: Path) -> None:
    async with embedded.serve(small, settings=FAST) as server:
        await ask(server, "create table kept as select 7 as n")
    fill(small)
    with pytest.raises(errors.EmbeddedError, match=r"is full|No space left"):
        async with embedded.serve(small, settings=FAST):
            pass
    (small / "ballast").unlink()
    async with embedded.serve(small, settings=FAST) as server:
        assert await ask(server, "select n from kept") == 7


async def test_a_read_only_disk_is_said(small: Path) -> None:
    async with embedded.serve(small, settings=FAST):
        pass
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    with pytest.raises(errors.EmbeddedError, match="Read-only file system"):
        async with embedded.serve(small, settings=FAST):
            pass


def test_a_process_is_alive_only_where_it_works(tmp_path: Path) -> None:
    assert postmaster.alive(os.getpid())
    assert not postmaster.alive(os.getpid(), tmp_path)
    assert postmaster.read(Place(tmp_path, tmp_path, place.own_account())) is None
