"""What a start depends on, looked at piece by piece, and what to do about each fault."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import psycopg

from clew.checkpointing import isolation, keys, migrate
from clew.checkpointing.errors import CheckpointError, IsolationError
from clew.checkpointing.postgres import Database
from clew.runtime import config as configuration
from clew.runtime import database, errors, graphs, place, rowkeys, settings, storekeys
from clew.runtime.notifier import Notifier

OLDEST_POSTGRES = 15


@dataclass(frozen=True, slots=True)
class Finding:
    what: str
    good: bool
    told: str
    advice: str = ""


async def examine(path: Path | None, migrations: tuple[str, ...]) -> AsyncIterator[Finding]:
    yield Finding(
        "python",
        sys.version_info >= (3, 11),
        sys.version.split()[0],
        "Clew needs Python 3.11 or newer.",
    )
    config = None
    try:
        config = configuration.load(path or Path(os.environ.get("CLEW_CONFIG") or "langgraph.json"))
        yield Finding("langgraph.json", True, f"{', '.join(config.graphs)} in {config.path}")
    except errors.ConfigError as error:
        yield Finding("langgraph.json", False, str(error), "Mend the file, or name it by --config.")
    try:
        chosen = settings.load()
        yield Finding("settings", True, "all valid")
    except errors.ConfigError as error:
        yield Finding("settings", False, str(error))
        return
    if config is not None:
        try:
            loaded = await graphs.load(config)
            yield Finding("graphs", True, ", ".join(loaded.ids()))
        except errors.GraphError as error:
            yield Finding("graphs", False, str(error), "Mend the file named above.")
    if chosen.redis_url is not None:
        yield await examine_redis(chosen.redis_url.get_secret_value())
    if chosen.database_url is None and (config is None or not place.holds(config.root)):
        none = "none yet: `clew dev` makes an embedded one here, DATABASE_URL names another"
        yield Finding("database", True, none)
        return
    async with AsyncExitStack() as stack:
        try:
            found = await stack.enter_async_context(database.attach(path))
        except errors.EmbeddedError as error:
            yield Finding("database", False, str(error))
            return
        direct = chosen.direct_url.get_secret_value() if chosen.direct_url else found.dsn
        good = True
        async for finding in examine_database(found.dsn, direct, migrations):
            good = good and finding.good
            yield finding
        if good:
            yield await examine_keys(found.dsn, {key.id for key in chosen.encryption_keys})


async def examine_redis(url: str) -> Finding:
    """Whether it does what events and wake-ups ask of it: one that only reads is of no use."""
    shown = settings.redact(url)
    try:
        from clew.runtime import line  # noqa: PLC0415 - its package is an extra
    except ModuleNotFoundError:
        return Finding("redis", False, "no Redis client", "Run: pip install 'clew[redis]'")
    advice = "Start Redis there, or correct CLEW_REDIS_URL. Until then Postgres carries everything."
    try:
        # Whether it is there at all, not whether it is quick.
        async with line.Line(url, patience=5.0) as found:
            await found.client.set("clew:doctor", b"1", ex=1)
    except errors.ConfigError as error:
        return Finding("redis", False, f"{shown}: {error}", "Correct CLEW_REDIS_URL.")
    except line.FAULTS as error:
        return Finding("redis", False, f"{shown}: {error}", advice)
    return Finding("redis", True, f"takes what is written, at {shown}")


async def examine_keys(dsn: str, known: set[str]) -> Finding:
    """Whether all that is stored can be read with the keys of the settings, and is sealed with one
    where there are any."""
    async with Database.open(dsn) as db:
        lineages = await keys.in_use(db)
        needed = {*lineages, *await rowkeys.in_use(db), *await storekeys.in_use(db)} - {None}
    lacking = ", ".join(sorted(str(key) for key in needed - known))
    if lacking:
        advice = "Let CLEW_ENCRYPTION_KEYS name it, too, behind the newest."
        return Finding(
            "encryption", False, f"stored under a key that is not set: {lacking}", advice
        )
    if not known:
        return Finding("encryption", True, "off, and nothing is stored encrypted")
    if plain := lineages.get(None):
        told = f"on, and {plain} lineages of sessions are stored plain"
        return Finding(
            "encryption", False, told, "Stop the servers, run `clew encryption encrypt`."
        )
    return Finding("encryption", True, f"under {', '.join(sorted(known))}")


async def examine_database(
    dsn: str, direct: str, migrations: tuple[str, ...]
) -> AsyncIterator[Finding]:
    shown = settings.redact(dsn)
    try:
        async with await psycopg.AsyncConnection.connect(dsn, connect_timeout=5) as conn:
            number = conn.info.server_version // 10000
    except psycopg.OperationalError as error:
        yield Finding(
            "database",
            False,
            f"{shown}: {str(error).strip()}",
            "Start Postgres there, or correct DATABASE_URL.",
        )
        return
    yield Finding(
        "database",
        number >= OLDEST_POSTGRES,
        f"Postgres {number} at {shown}",
        f"The oldest supported Postgres is {OLDEST_POSTGRES}.",
    )
    try:
        pending = await migrate.pending(dsn, *migrations)
    except CheckpointError as error:
        yield Finding("schema", False, str(error))
        return
    yield Finding(
        "schema",
        not pending,
        f"{len(pending)} migrations pending" if pending else "up to date",
        "Run `clew migrate`.",
    )
    if pending:
        return
    try:
        async with Database.open(dsn) as db:
            await isolation.prove(db)
            how = "drops to clew_app in each transaction" if db.drops_role else "is bound as it is"
            yield Finding("isolation", True, f"a foreign row is invisible; this login {how}")
    except IsolationError as error:
        yield Finding("isolation", False, str(error), "Do not serve with this login.")
    except (CheckpointError, psycopg.Error) as error:
        yield Finding("isolation", False, str(error), "Grant this login the schema `clew`.")
    async with Database.open(dsn) as db, Notifier(db, direct) as line:
        heard = line.direct
    yield Finding(
        "listen",
        heard,
        "notifications arrive" if heard else "no notification came back",
        "A transaction pooler swallows LISTEN: set CLEW_DIRECT_URL past it. "
        "Without it, waiting falls back to polling once a second.",
    )
