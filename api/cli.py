"""The `clew` command. A user's mistake is one clear line and an exit code, never a traceback.

Exit codes: 0 done, 1 it could not be done, 2 the command line or the configuration is wrong.
"""

import argparse
import asyncio
import contextlib
import importlib.metadata
import logging
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from clew.api import (
    app,
    dev,
    key_commands,
    logs,
    operate,
    outline,
    scaffold,
    server,
    session_commands,
)
from clew.checkpointing import migrate
from clew.checkpointing.errors import CheckpointError, DatabaseUnreachable
from clew.runtime import checkup, database, embedded, errors, exposure, graphs, settings
from clew.runtime import config as configuration
from clew.runtime.settings import Settings

_LISTENING = "CLEW_INHERITED_SOCKET"


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        try:
            return asyncio.run(options.command(options))
        except BaseExceptionGroup as group:
            raise alone(group) from None
    except errors.ConfigError as error:
        print(f"clew: {error}", file=sys.stderr)
        return 2
    except DatabaseUnreachable as error:
        print(f"clew: {error}\nStart Postgres there, or correct DATABASE_URL.", file=sys.stderr)
        return 1
    except (errors.ClewError, CheckpointError) as error:
        print(f"clew: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever reads has heard enough, as `head` does; what is left has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def alone(error: BaseException) -> BaseException:
    """The one fault that a nest of task groups is wrapped around."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="clew",
        description="An open runtime for LangGraph agents whose sessions you can rewind.",
        epilog="Settings come from the environment: see docs/settings.md.",
    )
    commands = root.add_subparsers(required=True, metavar="command")

    def command(name: str, run: object, about: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=about, description=about)
        sub.set_defaults(command=run)
        return sub

    for name, run, about in (
        ("dev", develop, "Serve this project with its own Postgres; reload when a file is saved."),
        ("serve", serve, "Serve this project: requests and runs."),
        ("worker", work, "Run queued runs only, without an API."),
        ("doctor", diagnose, "Check settings, graphs, database, LISTEN and Redis; say what to do."),
    ):
        sub = command(name, run, about)
        sub.add_argument("--config", type=Path, metavar="FILE", help="langgraph.json to use")
        if name in ("dev", "serve"):
            sub.add_argument("--host", help="address to listen on (127.0.0.1)")
            sub.add_argument("--port", help="port to listen on (2024)")
        if name == "dev":
            sub.add_argument("--no-reload", action="store_true", help="do not watch files")
    sub = command("migrate", upgrade, "Bring the database's schema up to date.")
    sub.add_argument("--sql", action="store_true", help="print what would be run, and run nothing")
    sub = command("new", new, "Make a project with one graph.")
    sub.add_argument("folder", type=Path)
    for name, run, about in (
        (
            "encryption",
            operate.rotate,
            "Encryption keys: which are in use, rotation, a first encryption.",
        ),
        ("import", operate.import_, "Bring the threads of LangGraph's own Postgres tables in."),
        ("export", operate.export, "Put an owner's sessions into LangGraph's own Postgres tables."),
    ):
        operate.add_arguments(command(name, run, about), name)
    key_commands.add_arguments(command("keys", None, "Make, list and revoke API keys."))
    about = "List, show, rewind, prune, export, import and erase sessions."
    session_commands.add_arguments(command("sessions", None, about))
    outline.add_arguments(command("openapi", outline.show, "Print the OpenAPI document."))
    command("version", version, "Print the versions of Clew and what it runs on.")
    return root


def read(options: argparse.Namespace) -> tuple[Settings, configuration.Config]:
    """langgraph.json first: its `env` is part of the environment that settings come from."""
    path = options.config or Path(os.environ.get("CLEW_CONFIG") or "langgraph.json")
    config = configuration.load(path)
    given = {k: getattr(options, k, None) for k in ("config", "host", "port")}
    return settings.load(**given), config


async def serve(options: argparse.Namespace) -> int:
    chosen, config = read(options)
    exposure.check(chosen, custom_auth=config.auth is not None)
    logs.configure(chosen.log_level, chosen.log_format)
    inherited = os.environ.pop(_LISTENING, None)
    listening = (
        socket.socket(fileno=int(inherited)) if inherited else server.bind(chosen.host, chosen.port)
    )
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(listening.close)
        async with app.running(chosen, config) as serving:
            host, port = listening.getsockname()[:2]
            logging.getLogger("clew").info("serving on http://%s:%s", host, port)
            grace = int(chosen.drain_grace.total_seconds())
            process = server.make(serving.app, serving.leaving, grace_seconds=grace)
            await process.serve(sockets=[listening])
    return 0


async def work(options: argparse.Namespace) -> int:
    chosen, config = read(options)
    logs.configure(chosen.log_level, chosen.log_format)
    async with app.working(chosen, config) as finished:
        await finished.wait()
    return 0


async def develop(options: argparse.Namespace) -> int:
    chosen, config = read(options)
    exposure.check(chosen, custom_auth=config.auth is not None)
    async with contextlib.AsyncExitStack() as stack:
        listening = server.bind(chosen.host, chosen.port)
        stack.callback(listening.close)
        if chosen.database_url is None:
            own = await stack.enter_async_context(embedded.serve(config.root))
            dsn = own.dsn
        else:
            dsn = chosen.database_url.get_secret_value()
        await migrate.apply(dsn, *app.MIGRATIONS)
        host, port = listening.getsockname()[:2]
        print(welcome(host, port, config), flush=True)
        environment = {"DATABASE_URL": dsn, _LISTENING: str(listening.fileno())}
        environment["CLEW_DRAIN_GRACE"] = os.environ.get("CLEW_DRAIN_GRACE", "2s")
        arguments = ["serve", "--config", str(config.path)]
        watched = [] if options.no_reload else [*graphs.watched(config), Path(__file__).parents[1]]
        return await dev.run(arguments, listening, watched, environment)


def welcome(host: str, port: int, config: configuration.Config) -> str:
    graph = next(iter(config.graphs))
    body = (
        f'{{"assistant_id": "{graph}", "stream_mode": "messages-tuple", '
        '"input": {"messages": [{"role": "user", "content": "Hello, Clew"}]}}'
    )
    return (
        f"Clew serves {', '.join(config.graphs)} on http://{host}:{port}\n\n"
        "Stream a turn:\n\n"
        f"  curl -N http://{host}:{port}/runs/stream -H 'content-type: application/json' \\\n"
        f"    -d '{body}'\n"
    )


async def upgrade(options: argparse.Namespace) -> int:
    async with database.attach() as found:
        if options.sql:
            for migration in await migrate.pending(found.dsn, *app.MIGRATIONS):
                print(f"-- {migration.package} {migration.number:04}_{migration.name}")
                print(migration.text)
            return 0
        applied = await migrate.apply(found.dsn, *app.MIGRATIONS)
    for migration in applied:
        print(f"applied {migration.number:04}_{migration.name}")
    print("The schema is up to date.")
    return 0


async def diagnose(options: argparse.Namespace) -> int:
    good = True
    async for finding in checkup.examine(options.config, app.MIGRATIONS):
        good &= finding.good
        print(f"{'ok  ' if finding.good else 'FAIL'} {finding.what}: {finding.told}")
        if not finding.good and finding.advice:
            print(f"     -> {finding.advice}")
    return 0 if good else 1


async def new(options: argparse.Namespace) -> int:
    for file in scaffold.create(options.folder):
        print(f"wrote {file}")
    print(f"\nNow: cd {options.folder} && clew dev")
    return 0


async def version(_options: argparse.Namespace) -> int:
    for name in ("clew", "langgraph", "langgraph-checkpoint", "langgraph-sdk", "psycopg"):
        print(f"{name} {importlib.metadata.version(name)}")
    print(f"python {sys.version.split()[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
