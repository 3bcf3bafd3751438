"""What a saver stands on: a database, whom it works for there and by what right, and where the
session that it is asked for stands.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, LiteralString, NoReturn, Self, cast

from langgraph.checkpoint.serde.base import SerializerProtocol
from psycopg.rows import DictRow

from clew.checkpointing import fences, seals, text, wire
from clew.checkpointing.blocking import Blocking
from clew.checkpointing.errors import FenceLost, UnknownThread
from clew.checkpointing.fences import Fence
from clew.checkpointing.items import New
from clew.checkpointing.keys import Vault
from clew.checkpointing.postgres import Connection, Database, Principal
from clew.checkpointing.sql import Queries
from clew.checkpointing.tracks import Memory, Track

_SQL = Queries("clew.checkpointing.queries")


class Tally:
    """About how many bytes a bound saver and its copies have stored, rows and all."""

    ROW = 72  # what a row costs besides its body

    def __init__(self) -> None:
        self.bytes = 0

    def add(self, params: Mapping[str, Any]) -> None:
        bodies = cast("Sequence[bytes]", params["bodies"])
        self.bytes += sum(map(len, bodies)) + self.ROW * len(bodies)
        if "state" in params:
            self.bytes += 2 * self.ROW + len(params["state"]) + 8 * len(params["ranges"] or ())


class Footing(Blocking):
    """The part of a saver that its copies for runs and requests differ in."""

    def __init__(
        self,
        db: Database,
        *,
        principal: Principal,
        owner_id: int | None,
        fence: Fence | None,
        on_lost: Callable[[FenceLost], None] | None,
        serde: SerializerProtocol | None,
        vault: Vault | None,
    ) -> None:
        super().__init__(serde=serde)
        self.loop = asyncio.get_running_loop()
        self.db = db
        self.principal = principal
        self.owner_id = owner_id
        self.fence = fence
        self.on_lost = on_lost
        self.vault = vault
        self.tally = Tally()
        self._memory = Memory()
        self._pending: dict[str, set[asyncio.Future[Any]]] = {}

    def bind(
        self,
        *,
        principal: Principal | None = None,
        owner_id: int | None = None,
        fence: Fence | None = None,
        on_lost: Callable[[FenceLost], None] | None = None,
    ) -> Self:
        """A copy for one run: the same pool and memory, another principal and fence.

        `owner_id` is whom new sessions are made for (a principal may span several owners).
        """
        bound = copy.copy(self)
        bound.principal = principal or self.principal
        bound.owner_id = owner_id if owner_id is not None else self.owner_id
        bound.fence = fence
        bound.on_lost = on_lost
        bound.tally = Tally()
        return bound

    async def fetch(self, query: LiteralString, params: Mapping[str, Any]) -> list[DictRow]:
        """Rows, under this saver's principal, in one round trip; their bodies in clear."""
        found = await wire.fetch(self.db, self.principal, query, params)
        if self.vault is not None:
            await self.vault.open_rows(self.db, self.principal, found)
        return found

    @asynccontextmanager
    async def _held(self, thread_id: str | None) -> AsyncGenerator[Connection]:
        """A transaction that changes a session; with a fence, while that holds and no other."""
        if thread_id is not None:
            self._own(thread_id)
        async with self.db.transaction(self.principal) as conn:
            if self.fence is not None and not await fences.hold(conn, self.fence):
                self._lost(f"session {thread_id} is no longer at epoch {self.fence.epoch}")
            yield conn

    async def _write(
        self, query: LiteralString, params: Mapping[str, Any], *, begin: bool
    ) -> int | None:
        owner_id = self._new_owner() if begin and self.fence is None else None
        landed = await wire.write(self.db, self.principal, query, params, new_owner=owner_id)
        if landed is not None:
            self.tally.add(params)
        return landed

    async def _begin(self, thread_id: str, track: Track | None) -> None:
        """Learn the session's lineage, which a value is sealed for, making one if there is none."""
        owner_id = self._new_owner()
        if self.fence is None and owner_id is not None and track is not None:
            start = {"thread_id": text.escape(thread_id), "owner_id": owner_id}
            await wire.fetch(self.db, self.principal, _SQL["begin"], start)
        await self._refused(thread_id, track)

    async def _sealed_items(self, track: Track, new: New) -> list[bytes]:
        if self.vault is None or not new.bodies:
            return new.bodies
        sealer = await self.vault.writer(self.db, self.principal, track.lineage_id)
        return seals.seal_items(sealer, new.streams, new.numbers, new.bodies)

    async def _standing(self, thread_id: str) -> DictRow | None:
        found = await self.fetch(_SQL["standing"], {"thread_id": text.escape(thread_id)})
        return found[0] if found else None

    async def _moved(self, thread_id: str, lineage_id: int, sweep: int) -> bool:
        """Whether something was removed, or the session put elsewhere, since it stood there."""
        head = await self._standing(thread_id)
        return head is None or (head["lineage_id"], head["sweep"]) != (lineage_id, sweep)

    async def _clock(self, thread_id: str) -> int:
        head = await self._standing(thread_id)
        return head["clock"] if head else 0

    async def _refused(self, thread_id: str, track: Track | None) -> None:
        """Nothing landed: raise why, or return if the next attempt can do better."""
        found = await self.fetch(_SQL["standing"], {"thread_id": text.escape(thread_id)})
        if self.fence is not None:
            if not found or found[0]["epoch"] != self.fence.epoch:
                self._lost(f"session {thread_id} is no longer at epoch {self.fence.epoch}")
        elif not found:
            if self._new_owner() is None or (track is not None and track.lineage_id == 0):
                raise UnknownThread(f"session {thread_id} does not exist for this owner")
            self._memory.track(self.principal, thread_id, 0, 0, 0)
            return
        standing = found[0]
        self._memory.track(
            self.principal, thread_id, standing["lineage_id"], standing["sweep"], standing["clock"]
        )

    def _lost(self, why: str) -> NoReturn:
        error = FenceLost(why)
        if self.on_lost is not None:
            self.on_lost(error)
        raise error

    def _own(self, thread_id: str) -> None:
        if self.fence is not None and self.fence.thread_id != thread_id:
            self._lost(f"this saver may only write session {self.fence.thread_id}")

    def _new_owner(self) -> int | None:
        if self.owner_id is not None:
            return self.owner_id
        if self.principal.owner_from == self.principal.owner_to:
            return self.principal.owner_from
        return None

    async def flush(self, thread_id: str) -> None:
        """Return once everything put for this session so far has committed or failed."""
        if pending := self._pending.get(thread_id):
            await asyncio.wait(set(pending))

    async def _counted(self, thread_id: str, work: Awaitable[None]) -> None:
        """Let `flush` wait for this."""
        done: asyncio.Future[None] = self.loop.create_future()
        pending = self._pending.setdefault(thread_id, set())
        pending.add(done)
        try:
            await work
        finally:
            done.set_result(None)
            pending.discard(done)
            if not pending:
                with suppress(KeyError):
                    del self._pending[thread_id]
