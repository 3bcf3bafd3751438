"""What operators do to a database from the command line: rotate encryption keys, bring sessions in
and out."""

import argparse
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import NAMESPACE_OID, UUID, uuid5

from clew.api import adopt, app, terminal
from clew.checkpointing import keys, migrate, stock_export, stock_import
from clew.checkpointing.encryption import Keyring
from clew.checkpointing.errors import ThreadExists, UnknownThread
from clew.checkpointing.keys import Vault
from clew.checkpointing.postgres import Connection, Database, Principal
from clew.checkpointing.saver import Saver
from clew.checkpointing.sealed import Seals
from clew.checkpointing.stock import Stock
from clew.checkpointing.stock_import import Progress
from clew.runtime import database, errors, forks, rowkeys, storekeys
from clew.runtime.sessions import Fields
from clew.runtime.storekeys import Keys


@dataclass(frozen=True, slots=True)
class Ground:
    """The database, and the keys if there are any."""

    db: Database
    keyring: Keyring | None


@asynccontextmanager
async def ground(config: Path | None = None) -> AsyncGenerator[Ground]:
    async with database.attach(config) as found:
        await migrate.apply(found.dsn, *app.MIGRATIONS)
        told = [(key.id, key.key.get_secret_value()) for key in found.settings.encryption_keys]
        keyring = Keyring(told) if told else None
        async with Database.open(found.dsn, seals=Seals(keyring) if keyring else None) as db:
            yield Ground(db, keyring)


def add_arguments(sub: argparse.ArgumentParser, name: str) -> None:
    if name == "encryption":
        sub.add_argument(
            "what",
            choices=("list", "rewrap", "encrypt"),
            help="which keys are in use; put everything under the newest; encrypt what is plain",
        )
        return
    sub.add_argument("dsn", help="the database with the tables of langgraph-checkpoint-postgres")
    sub.add_argument("--schema", help="the schema that they are in")
    sub.add_argument("--tenant", default="default", help="whose sessions (default)")
    sub.add_argument("--owner", required=True, help="whose sessions")
    if name == "import":
        told = "the graph that they are of, where their checkpoints do not name one"
        sub.add_argument("--graph", help=told)


async def rotate(options: argparse.Namespace) -> int:
    async with ground() as on:
        if options.what == "list":
            for key, count in (await keys.in_use(on.db)).items():
                _say(f"{key or '(not encrypted)'}: {count} lineages")
            for key, count in (await rowkeys.in_use(on.db)).items():
                _say(f"{key}: {count} values of runs and sessions")
            for key, count in (await storekeys.in_use(on.db)).items():
                _say(f"{key}: {count} keys of the store")
            return 0
        if on.keyring is None:
            raise errors.ConfigError("Set CLEW_ENCRYPTION_KEYS: there is no key to encrypt with.")
        vault, store = Vault(on.keyring), Keys(on.keyring)
        if options.what == "rewrap":
            count = await vault.rewrap(on.db) + await store.rewrap(on.db)
            _say(f"{count} data keys are now under {on.keyring.newest}.")
            rows = await rowkeys.reseal(on.db, on.keyring)
            _say(f"{rows} rows of runs and sessions are, too.")
            return 0
        count = await keys.encrypt(on.db, vault, lambda done: _say(f"{done} lineages"))
        items = await store.encrypt(on.db)
        rows = await rowkeys.reseal(on.db, on.keyring)
        _say(f"Encrypted {count} lineages and {items} items of long-term memory.")
        _say(f"Encrypted {rows} rows of runs and sessions.")
    return 0


async def import_(options: argparse.Namespace) -> int:
    async with _both(options) as (saver, stock):
        given: dict[str, str] = {}

        def name(thread_id: str) -> str:
            """The protocol's thread ids are UUIDs; any other gets one, always the same."""
            try:
                named = str(UUID(thread_id))
            except ValueError:
                named = str(uuid5(NAMESPACE_OID, thread_id))
            given[named] = thread_id
            return named

        async def register(conn: Connection, thread_id: str) -> None:
            assert saver.owner_id is not None
            try:
                told: Fields = {"metadata": {"imported_thread_id": given[thread_id]}}
                await forks.register(conn, saver.owner_id, thread_id, forks.NO_LIMIT, told)
            except errors.Conflict as taken:
                raise ThreadExists(str(taken)) from taken

        count = await stock_import.all_threads(
            stock, saver, progress=_tell, also=register, name=name
        )
        _say(f"Imported {count} sessions.")
        await _settle(saver, sorted(given), options.graph)
    return 0


async def _settle(saver: Saver, thread_ids: Sequence[str], graph_id: str | None) -> None:
    bare = 0
    for thread_id in thread_ids:
        assert saver.principal is not None
        try:
            named = await adopt.settle(saver.db, saver.vault, saver.principal, thread_id, graph_id)
        except (errors.NotFound, UnknownThread):
            continue  # it was left out, and said so
        bare += named is None
    if bare:
        _say(f"{bare} of them name no graph, and show nothing until they do: use --graph NAME.")


async def export(options: argparse.Namespace) -> int:
    async with _both(options, setup=True) as (saver, stock):
        _say(f"Exported {await stock_export.all_threads(saver, stock, progress=_tell)} sessions.")
    return 0


@asynccontextmanager
async def _both(
    options: argparse.Namespace, *, setup: bool = False
) -> AsyncGenerator[tuple[Saver, Stock]]:
    async with (
        ground() as on,
        Stock.open(options.dsn, schema=options.schema, setup=setup) as stock,
    ):
        owner_id = await on.db.owner(options.tenant, options.owner)
        vault = Vault(on.keyring) if on.keyring else None
        who = Principal.owner(owner_id)
        yield Saver(on.db, principal=who, owner_id=owner_id, vault=vault), stock


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _tell(progress: Progress) -> None:
    what = terminal.many(progress.checkpoints, "checkpoint")
    what = what if progress.error is None else progress.error
    _say(f"{progress.done}/{progress.total} {progress.thread_id}: {what}")
