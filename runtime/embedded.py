"""The Postgres that comes with Clew: one server for a project, started by the first process that
needs it, shared by all, stopped by the last to leave.

Who uses it is a file lock, not a list: every user holds `users` shared, the kernel lets go when
a process dies by any means, and whoever can lock it alone is the last. Starting and stopping
take turns under a second lock. A server whose users were all killed goes on; the next start finds
it, or recovers its data if it died too.
"""

import asyncio
import fcntl
import logging
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from clew.runtime import place as places
from clew.runtime import postmaster
from clew.runtime.place import Place

log = logging.getLogger("clew.embedded")


@dataclass(frozen=True, slots=True)
class Server:
    """`started` when this process started it, rather than found it running."""

    dsn: str
    data: Path
    started: bool
    version: str


@asynccontextmanager
async def serve(
    project: Path,
    *,
    home: Path | None = None,
    settings: Mapping[str, str] | None = None,
) -> AsyncGenerator[Server]:
    """A running server for the project. `home` replaces `<project>/.clew/postgres`; `settings`
    are Postgres settings, which count for whoever starts the server."""
    place = await places.find(project, home)
    async with _turn(place):
        users = _join(place)
        try:
            server = await _up(place, settings or {})
        except BaseException:  # cancelled too: whoever did not get up must not count as a user
            await _leave(place, users)
            raise
    try:
        yield server
    finally:
        try:
            async with _turn(place):
                await _leave(place, users)
        except FileNotFoundError:
            log.warning("%s was removed while in use; its Postgres ends by itself", place.home)
        finally:
            users.close()


async def _up(place: Place, settings: Mapping[str, str]) -> Server:
    await postmaster.create(place, sync=settings.get("fsync") != "off")
    started, up = await postmaster.start(place, settings)
    how = "started" if started else "found running"
    log.info("Postgres %s %s in %s, as %s", up.version, how, place.home, place.account.name)
    return Server(up.dsn, place.data, started, up.version)


@asynccontextmanager
async def _turn(place: Place) -> AsyncGenerator[None]:
    """One process at a time. Polled, because a thread blocked in flock cannot be cancelled."""
    with _open(place, "lock") as file:
        while not _lock(file, fcntl.LOCK_EX):  # noqa: ASYNC110  (held by other processes)
            await asyncio.sleep(postmaster.TICK)
        yield


def _join(place: Place) -> BinaryIO:
    file = _open(place, "users")
    _lock(file, fcntl.LOCK_SH)  # cannot fail: nobody locks it alone but in turn
    return file


async def _leave(place: Place, users: BinaryIO) -> None:
    users.close()
    # Opened anew: if the folder was replaced meanwhile, its new users count, not ours.
    with _open(place, "users") as file:
        if _lock(file, fcntl.LOCK_EX):
            await postmaster.stop(place)


def _open(place: Place, name: str) -> BinaryIO:
    try:
        return place.open(name, os.O_WRONLY)
    except FileNotFoundError:
        raise
    except OSError as fault:
        raise places.unwritable(fault, place.home) from fault


def _lock(file: BinaryIO, how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
