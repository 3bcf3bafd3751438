"""One Postgres server process: create its data, launch it, tell whether it lives, stop it.

A pid file proves nothing: its process may be gone, a zombie, or somebody else's by now. So a
server counts as up when it answers a real connection, and as dead when its process is gone.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from clew.runtime import errors
from clew.runtime.place import MAJOR, STAND_IN, Place, unwritable

SOCKET_BYTES = 103  # what macOS takes; Linux takes four more
PATIENCE = 60.0  # seconds without any sign of life; a server that says it recovers gets longer
TICK = 0.02
DEFAULTS: Mapping[str, str] = {
    "listen_addresses": "",
    "shared_buffers": "128MB",
    "max_connections": "100",
    "fsync": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "unix_socket_permissions": "0700",
}


@dataclass(frozen=True, slots=True)
class Up:
    """A server that has just answered."""

    dsn: str
    version: str


@dataclass(frozen=True, slots=True)
class Found:
    """What the pid file of a data directory says; the socket comes a moment after the pid."""

    pid: int
    port: int
    socket: Path | None


def read(place: Place) -> Found | None:
    try:
        lines = (place.data / "postmaster.pid").read_text().splitlines()
        socket = Path(lines[4]) if len(lines) > 4 and lines[4] else None
        return Found(int(lines[0]), int(lines[3]), socket)
    except (FileNotFoundError, IndexError, ValueError):
        return None


def alive(pid: int, data: Path | None = None) -> bool:
    """Whether the process runs, and works in `data` if given (its pid may have been reused)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    if not Path("/proc/self/stat").exists():
        return _alive_by_ps(pid, "postgres" if data else "")
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        if state in "ZX":  # nobody has reaped it, as in a container without an init
            return False
        return data is None or Path(f"/proc/{pid}/cwd").samefile(data)
    except OSError:
        return False


def dsn(place: Place, socket: Path, port: int) -> str:
    return make_conninfo(
        host=str(socket),
        port=port,
        user="postgres",
        dbname="postgres",
        requirepeer=place.account.name,
    )


async def answer(place: Place, launched: int | None = None) -> Up | None:
    """Waits for the server of the pid file, or for the process just launched, to answer; None if
    there is none, or it dies before that."""
    seen = time.monotonic()
    while True:
        found, reason = read(place), "it has no socket yet"
        if found and found.socket and launched in (None, found.pid):
            try:
                return await _connect(dsn(place, found.socket, found.port))
            except psycopg.OperationalError as fault:
                reason = str(fault).strip()
        pid = launched or (found and found.pid)
        if not pid or not alive(pid, None if launched else place.data):
            return None
        now = time.monotonic()
        if any(word in reason for word in ("starting up", "shutting down", "recovery")):
            seen = now
        if now - seen > PATIENCE or "authentication" in reason or "pg_hba" in reason:
            raise errors.EmbeddedError(
                f"Postgres runs as process {pid} but does not let us in: {reason}. End it with "
                f"`kill {pid}` and start again. Its log is {place.log}."
            )
        await asyncio.sleep(TICK)


async def create(place: Place, *, sync: bool) -> None:
    """Makes the data directory if there is none, whole or not at all."""
    _check_version(place)
    for left in place.home.glob("data.*"):
        await asyncio.to_thread(shutil.rmtree, left, ignore_errors=True)
    if place.data.exists():
        return
    fresh = _fresh(place)  # a new name each time: an initdb whose starter was killed runs on
    try:
        code, output = await place.account.run(
            place.binaries / "initdb",
            *("--pgdata", fresh, "--username=postgres", "--auth=peer", "--encoding=UTF8"),
            # Compares by code point like "C", yet knows the letters of every script.
            *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            *(() if sync else ("--no-sync",)),
        )
        if code:
            raise refused(place, "create its data", output)
        fresh.rename(place.data)
    except BaseException:
        await asyncio.to_thread(shutil.rmtree, fresh, ignore_errors=True)
        raise


async def start(place: Place, settings: Mapping[str, str]) -> tuple[bool, Up]:
    """A server that answers, and whether it had to be launched."""
    deadline = time.monotonic() + PATIENCE
    while True:
        if up := await answer(place):
            return False, up
        _admit(place)
        port = _port(place)
        socket = _clear(place, port) or _socket_folder(place, port)
        options = {**DEFAULTS, **settings, "port": str(port)}
        pid = await _launch(place, socket, options)
        try:
            up = await answer(place, pid)
        except BaseException:
            await _end(pid, signal.SIGTERM)  # its pid file may not be written yet
            raise
        if up:
            return True, up
        _remove(place, socket)
        output = place.log.read_text(errors="replace")
        # After a kill -9 the old server's children take a moment to notice; and a starter that
        # was killed may have left a server that has just come up.
        passing = "shared memory block" in output or 'postmaster.pid" already exists' in output
        if not passing or time.monotonic() > deadline:
            raise refused(place, "start", output)
        await asyncio.sleep(TICK)


async def stop(place: Place) -> None:
    """Ends the server as `pg_ctl stop -m fast` would; harder only if it does not react."""
    found = read(place)
    if found and alive(found.pid, place.data):
        if not await _end(found.pid, signal.SIGINT):
            raise errors.EmbeddedError(
                f"Postgres (process {found.pid}) does not stop; its log is {place.log}."
            )
        _remove(place, found.socket)


async def _end(pid: int, blow: signal.Signals) -> bool:
    for signum, patience in ((blow, PATIENCE), (signal.SIGQUIT, 10.0)):
        deadline = time.monotonic() + patience
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)
        while time.monotonic() < deadline:
            if not alive(pid):
                return True
            await asyncio.sleep(TICK)
    return False


def refused(place: Place, what: str, output: str) -> errors.EmbeddedError:
    """What Postgres printed, as a sentence that says what to do."""
    full = any(words in output for words in ("No space left", "quota exceeded", "free disk space"))
    if full or _is_full(place.home):
        return errors.EmbeddedError(
            f"The disk of {place.home} is full, so the embedded Postgres cannot {what}. Free some "
            "space (a new database takes about 60 MB), or set DATABASE_URL to a Postgres elsewhere."
        )
    if "Read-only file system" in output or "Permission denied" in output:
        return errors.EmbeddedError(
            f"{place.home} is not writable for {place.account.name}, so the embedded Postgres "
            f"cannot {what}: {_reason(output)} Make it writable, or set DATABASE_URL."
        )
    return errors.EmbeddedError(
        f"The embedded Postgres did not {what}: {_reason(output)} The whole log is {place.log}."
    )


async def _connect(conninfo: str) -> Up:
    async with await psycopg.AsyncConnection.connect(
        conninfo, autocommit=True, connect_timeout=10
    ) as conn:
        row = await (await conn.execute("select current_setting('server_version')")).fetchone()
        return Up(conninfo, str(row[0]) if row else "")


async def _launch(place: Place, socket: Path, settings: Mapping[str, str]) -> int:
    """The shell leaves at once, so Postgres is nobody's child: it outlives us if we are killed,
    and its end is not ours to reap."""
    options = [f"--{name}={value}" for name, value in settings.items()]
    with contextlib.suppress(FileNotFoundError):
        place.log.replace(place.log.with_name("log.old"))
    try:
        with place.open("log", os.O_WRONLY | os.O_APPEND) as file:
            _, output = await place.account.run(
                *("/bin/sh", "-c", 'exec "$@" </dev/null >&2 & echo $!', "sh"),
                *(place.binaries / "postgres", "-D", place.data, *options),
                *("-k", socket),
                errors_to=file,
            )
    except OSError as fault:
        raise unwritable(fault, place.home) from fault
    return int(output)


def _fresh(place: Place) -> Path:
    try:
        folder = Path(tempfile.mkdtemp(prefix="data.", dir=place.home))
        place.account.adopt(folder)
    except OSError as fault:
        raise unwritable(fault, place.home) from fault
    return folder


def _check_version(place: Place) -> None:
    try:
        made_by = (place.data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        if place.data.exists():
            raise errors.EmbeddedError(
                f"{place.data} is not a Postgres data directory (it has no PG_VERSION). Move it "
                "away to start with an empty database."
            ) from None
        return
    if made_by != str(MAJOR):
        raise errors.EmbeddedError(
            f"{place.data} was made by Postgres {made_by}, and this Clew brings Postgres {MAJOR}. "
            f"To keep the data, dump it with pg_dumpall of a Postgres {made_by}, move the folder "
            f"away, start, and load the dump; or run a Postgres {made_by} on it and set "
            "DATABASE_URL. To start empty, just move the folder away."
        )


def _clear(place: Place, port: int) -> Path | None:
    """Removes what a dead server left where Postgres would not: it takes any living process, a
    zombie too, for the old server. (Orphaned backends it knows by their shared memory.) Returns
    the old socket folder if it still serves, so that those who know the address find the new
    server."""
    found = read(place)
    (place.data / "postmaster.pid").unlink(missing_ok=True)
    if not found or not found.socket or not found.socket.is_dir():
        return None
    mode = found.socket.stat()
    if mode.st_uid != place.account.uid or mode.st_mode & 0o077:
        return None
    for name in (_socket(port), f"{_socket(port)}.lock"):
        (found.socket / name).unlink(missing_ok=True)
    return found.socket


def _admit(place: Place) -> None:
    """Only this user and root may connect: the socket is in a closed folder, and Postgres asks
    the kernel who is at the other end. `nobody` runs the server for root but may not log in."""
    names = {0: "root", place.account.uid: place.account.name}
    if place.account.switched and place.account.name == STAND_IN:
        del names[place.account.uid]
    rows = "".join(f'clew "{name}" all\n' for name in names.values())
    for file, text in (("pg_hba.conf", "local all all peer map=clew\n"), ("pg_ident.conf", rows)):
        try:
            with place.open(f"data/{file}", os.O_WRONLY | os.O_TRUNC) as target:
                target.write(text.encode())
        except OSError as fault:
            raise unwritable(fault, place.data) from fault


def _port(place: Place) -> int:
    """Without TCP the port is only a part of the socket's name. It comes from the identity of the
    database, so it lasts as long; and a server whose data were removed under it, which takes its
    socket away when it notices, does not take that of the next database in the same place."""
    with (place.data / "global/pg_control").open("rb") as file:
        return 10_000 + int.from_bytes(file.read(8), sys.byteorder) % 50_000


def _socket(port: int) -> str:
    return f".s.PGSQL.{port}"


def _socket_folder(place: Place, port: int) -> Path:
    """The home folder, or a new closed one with a short name where a socket's path would be too
    long, or holds what libpq or Postgres read as a list."""
    text = str(place.home / _socket(port))
    if len(os.fsencode(text)) <= SOCKET_BYTES and not set(text) & set(",\"'\\\n"):
        return place.home
    own = "" if place.account.switched else os.environ.get("XDG_RUNTIME_DIR", "")
    for base in (own, "/tmp"):  # noqa: S108  (mkdtemp makes a new folder with mode 0700)
        if base and os.access(base, os.W_OK) and len(os.fsencode(base)) < SOCKET_BYTES // 2:
            folder = Path(tempfile.mkdtemp(prefix="clew-", dir=base))
            place.account.adopt(folder)
            return folder
    raise errors.EmbeddedError(
        f"{place.home} is too long a path for a unix socket, and /tmp is not writable. Move the "
        "project to a shorter path, or set DATABASE_URL."
    )


def _remove(place: Place, socket: Path | None) -> None:
    """Takes away a socket folder of ours, never the home."""
    if socket and socket != place.home and socket.name.startswith("clew-"):
        shutil.rmtree(socket, ignore_errors=True)


def _is_full(home: Path) -> bool:
    return shutil.disk_usage(home).free < 1024 * 1024


def _reason(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    faults = [line for line in lines if "FATAL:" in line or "PANIC:" in line or "error:" in line]
    line = faults[0] if faults else (lines or ["it said nothing"])[-1]
    return line.rpartition("FATAL:  ")[2].rstrip(".") + "."


def _alive_by_ps(pid: int, name: str) -> bool:
    shown = subprocess.run(
        ["ps", "-o", "stat=,comm=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.split(maxsplit=1)
    return len(shown) == 2 and not shown[0].startswith("Z") and name in shown[1]
