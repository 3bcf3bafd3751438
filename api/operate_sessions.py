"""`clew sessions`: the operators' view of sessions, straight from the database.

The command works as the service: it sees every owner's sessions, and `--tenant` and `--owner` say
whose. What it changes is in the audit log under `operator`.
"""

import argparse
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from clew.api import operate, terminal
from clew.api import session_schema as show
from clew.checkpointing.keys import Vault
from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.checkpointing.saver import Saver
from clew.runtime import config as configuration
from clew.runtime import errors, graphs, names, search, sessions
from clew.runtime.graphs import Graphs
from clew.runtime.search import Wanted
from clew.runtime.sessions import Session
from clew.runtime.standing import Ground, Why

ACTOR = "operator"
_PAGE = 500

Command = Callable[[argparse.Namespace], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Site:
    """The database to work on, and the owners that were asked for."""

    ground: Ground
    reach: Principal
    tenant: str
    owner: str | None

    @property
    def db(self) -> Database:
        return self.ground.db

    async def find(self, thread_id: UUID) -> tuple[Session, Principal]:
        """A session in whatever state, and the principal that is its owner."""
        session = await sessions.find(self.db, self.reach, str(thread_id))
        return session, Principal.owner(session.owner_id)

    async def every(
        self, wanted: Wanted, *, most: int | None = None, **order: Any
    ) -> AsyncIterator[Session]:
        """All that are wanted, page after page."""
        cursor: str | None = None
        left = most
        while left is None or left > 0:
            limit = _PAGE if left is None else min(_PAGE, left)
            page = await search.page(
                self.db, self.reach, wanted, limit=limit, cursor=cursor, **order
            )
            for session in page.items:
                yield session
            cursor = page.cursor
            if cursor is None:
                return
            left = None if left is None else left - len(page.items)


@asynccontextmanager
async def site(options: argparse.Namespace) -> AsyncGenerator[Site]:
    loaded = Graphs({})
    if options.config is not None:
        # The graphs tell what comes next after a move; without them what is stored tells.
        loaded = await graphs.load(configuration.load(options.config))
    async with operate.ground(options.config) as found:
        vault = Vault(found.keyring) if found.keyring else None
        ground = Ground(found.db, loaded, Saver(found.db, principal=SERVICE, vault=vault))
        if vault is not None and getattr(options, "text", None) is not None:
            raise errors.Unsupported(
                "--text: what is said is encrypted and cannot be searched", option="text"
            )
        tenant, owner = options.tenant, options.owner
        if owner is not None:
            tenant, owner = await names.split(found.db, tenant, owner)
        reach = SERVICE
        if owner is not None or tenant is not None:
            reach = await names.reach(found.db, tenant, owner)
        yield Site(ground, reach, tenant or "default", owner)


def why(options: argparse.Namespace) -> Why:
    return Why(ACTOR, getattr(options, "reason", None))


def wanted(options: argparse.Namespace) -> Wanted:
    """What the filters of the command line ask for."""
    if options.text is not None and options.owner is None:
        raise errors.ConfigError("--text searches in the sessions of one owner: give --owner.")
    return Wanted(
        states=options.state or search.LIVING,
        statuses=options.status,
        text=options.text,
        tags_all=options.tag,
        kind=options.kind,
        graph_id=options.graph,
        updated_before=options.before,
        updated_after=options.after,
    )


def shown(session: Session, owner: str | None = None) -> dict[str, Any]:
    """As the sessions API shows it, with whose it is."""
    return {"owner": owner, **show.session(session)}


def said(options: argparse.Namespace, value: object, text: str) -> int:
    """The outcome, for programs or for people."""
    if options.json:
        terminal.tell(value)
    else:
        terminal.say(text)
    return 0
