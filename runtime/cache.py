"""Results of nodes that have a `CachePolicy`, kept in Postgres for their owner alone.

LangGraph asks for a result by the node and a digest of its input; here the owner is part of the
key, and the database's own rule stands behind it. What is kept has an end: the policy's `ttl`, or a
day. Nothing that goes wrong with it is worth a run: then the node runs. Subgraphs have the cache of
the graph they run in, whatever they were compiled with: one of their own knows no owners.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Collection, Coroutine, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import psycopg
from langgraph.cache.base import BaseCache, FullKey, Namespace
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from clew.checkpointing import codec
from clew.checkpointing.encryption import Keyring
from clew.checkpointing.errors import CheckpointError, DatabaseUnreachable
from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.runtime.sql import queries
from clew.runtime.telemetry import Telemetry

log = logging.getLogger(__name__)

LIFE = timedelta(days=1)  # of what says nothing itself
LARGEST = 1024 * 1024  # bytes of one result
SHARE = 10_000  # results of one owner

T = TypeVar("T")


class Cache(BaseCache[Any]):
    """One object per process; `bind` makes a cheap copy for a run. Unbound it finds nothing and
    keeps nothing. With a keyring, what is kept is encrypted."""

    def __init__(
        self,
        db: Database,
        telemetry: Telemetry,
        *,
        keyring: Keyring | None = None,
        serde: SerializerProtocol | None = None,
        owner_id: int | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(serde=serde or JsonPlusSerializer(pickle_fallback=False))
        self._db = db
        self._telemetry = telemetry
        self._keyring = keyring
        self._owner_id = owner_id
        self._loop = loop

    def bind(self, owner_id: int) -> Cache:
        """A copy for one run of this owner."""
        return self._copy(self.serde, owner_id, asyncio.get_running_loop())

    def with_allowlist(self, allowed: Collection[tuple[str, ...]]) -> Cache:
        """A copy that may bring back these classes. A result with any other is not kept: it would
        come back as something else than the node returned."""
        assert isinstance(self.serde, JsonPlusSerializer)
        return self._copy(self.serde.with_msgpack_allowlist(allowed), self._owner_id, self._loop)

    def _copy(
        self,
        serde: SerializerProtocol,
        owner_id: int | None,
        loop: asyncio.AbstractEventLoop | None,
    ) -> Cache:
        return Cache(
            self._db,
            self._telemetry,
            keyring=self._keyring,
            serde=serde,
            owner_id=owner_id,
            loop=loop,
        )

    async def aget(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        if self._owner_id is None or not keys:
            return {}
        names = {(_text(ns), key): (ns, key) for ns, key in keys}
        values = {
            "owner_id": self._owner_id,
            "namespaces": [ns for ns, _ in names],
            "keys": [key for _, key in names],
        }
        found: dict[FullKey, Any] = {}
        rows: list[dict[str, Any]] = []
        try:
            rows = await self._db.fetch(self._who, queries["cached_results"], values)
        except (psycopg.Error, DatabaseUnreachable) as error:
            log.warning("results of nodes could not be looked up, the nodes run: %s", error)
        for row in rows:
            place = row["ns"], row["key"]
            try:
                found[names[place]] = codec.load(self.serde, self._open(row, *place))
            except CheckpointError as error:
                log.warning("the result of a node could not be read, the node runs: %s", error)
        self._telemetry.looked_up(hits=len(found), misses=len(names) - len(found))
        return found

    async def aset(self, pairs: Mapping[FullKey, tuple[Any, int | None]]) -> None:
        if self._owner_id is None or not pairs:
            return
        rows = [row for key, (value, ttl) in pairs.items() for row in self._row(key, value, ttl)]
        if not rows:
            return
        namespaces, keys, bodies, lives = zip(*rows, strict=True)
        values = {
            "owner_id": self._owner_id,
            "key_id": self._keyring.newest if self._keyring else None,
            "namespaces": list(namespaces),
            "keys": list(keys),
            "bodies": list(bodies),
            "lives": list(lives),
        }
        try:
            await self._db.execute(self._who, queries["cache_results"], values)
        except (psycopg.Error, DatabaseUnreachable) as error:
            log.warning("results of nodes could not be kept: %s", error)

    async def aclear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        if self._owner_id is None:
            return
        texts = None if namespaces is None else [_text(ns) for ns in namespaces]
        values = {"owner_id": self._owner_id, "namespaces": texts}
        await self._db.execute(self._who, queries["clear_cached_results"], values)

    # For whoever looks from a thread of its own.

    def get(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        return self._wait(self.aget(keys), {})

    def set(self, pairs: Mapping[FullKey, tuple[Any, int | None]]) -> None:
        self._wait(self.aset(pairs), None)

    def clear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        self._wait(self.aclear(namespaces), None)

    def _wait(self, work: Coroutine[Any, Any, T], without: T) -> T:
        """`without` is the answer where waiting would stop the loop that the work needs."""
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if self._loop is None or self._loop is here:
            work.close()
            return without
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    @property
    def _who(self) -> Principal:
        assert self._owner_id is not None
        return Principal.owner(self._owner_id)

    def _row(
        self, key: FullKey, value: Any, ttl: int | None
    ) -> Iterable[tuple[str, str, bytes, timedelta]]:
        """At most one row: some values cannot be kept, or would come back as something else."""
        ns, name = _text(key[0]), key[1]
        try:
            body = codec.dump(self.serde, value)
            again = codec.dump(self.serde, codec.load(self.serde, body))
            if len(body) > LARGEST or again != body:
                return
        except CheckpointError as error:
            log.debug("the result of a node is not kept: %s", error)
            return
        life = LIFE if ttl is None else timedelta(seconds=ttl)
        yield ns, name, self._seal(body, ns, name), life

    def _seal(self, body: bytes, ns: str, key: str) -> bytes:
        return self._keyring.wrap(body, self._place(ns, key)) if self._keyring else body

    def _open(self, row: Mapping[str, Any], ns: str, key: str) -> bytes:
        """Raises a CheckpointError for what is encrypted under a key that we do not have."""
        if row["key_id"] is None and self._keyring is None:
            return row["body"]
        if row["key_id"] is None or self._keyring is None:
            raise CheckpointError("it was kept before encryption was switched on or off")
        return self._keyring.unwrap(row["key_id"], row["body"], self._place(ns, key))

    def _place(self, ns: str, key: str) -> bytes:
        """An encrypted result is of use in its own row only."""
        return hashlib.sha256(json.dumps([self._owner_id, ns, key]).encode()).digest()


async def sweep(db: Database, *, share: int = SHARE, limit: int = 5000) -> int:
    """Forget what is over, and what owners keep beyond their share; a bounded number at a time."""
    values = {"share": share, "limit": limit}
    expired = await db.execute(SERVICE, queries["sweep_expired_results"], values)
    return expired + await db.execute(SERVICE, queries["sweep_surplus_results"], values)


def _text(ns: Namespace) -> str:
    return json.dumps(ns)
