"""Which database a command works on: the one that the settings name, or the project's own.

A project's own one is the embedded Postgres that `clew dev` made in its folder. It is joined for as
long as the command takes: a server that runs goes on afterwards, one that had to be started for it
is stopped again. Nothing is ever made where there was no database before.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from clew.runtime import config as configuration
from clew.runtime import embedded, errors, place, settings
from clew.runtime.settings import Settings

NONE = (
    "There is no database to work on. Set DATABASE_URL, or run this in the folder of a project "
    "(or with CLEW_CONFIG naming its langgraph.json) where `clew dev` or `make dev` has made one."
)


@dataclass(frozen=True, slots=True)
class Found:
    dsn: str
    settings: Settings


@asynccontextmanager
async def attach(config: Path | None = None) -> AsyncGenerator[Found]:
    """`config` is the langgraph.json of the project, if another than the settings name."""
    chosen, root = settings.load(), None
    path = config or chosen.config
    if chosen.database_url is None and path.exists():
        # Its `env` may name the database and the keys that the server has them from.
        root = configuration.load(path).root
        chosen = settings.load()
    if chosen.database_url is not None:
        yield Found(chosen.database_url.get_secret_value(), chosen)
    elif root is not None and place.holds(root):
        async with embedded.serve(root) as server:
            yield Found(server.dsn, chosen)
    else:
        raise errors.ConfigError(NONE)
