"""Long-term memory: LangGraph's store on our pool, where every item has an owner.

A `Store` does nothing until it is bound to one (`store.bind(owner_id)`, a cheap copy): what runs
for an owner cannot name another's items, and the database would not show them. A batch is one
round trip, two where it both reads and writes; reads see what was there before its writes.
"""

import asyncio
import copy
import logging
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from langgraph.store.base import (
    BaseStore,
    GetOp,
    Item,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
    validate_op_namespace,
)
from psycopg import errors as postgres
from psycopg.rows import DictRow

from clew.checkpointing import text
from clew.checkpointing.encryption import Keyring, Sealer
from clew.checkpointing.errors import NotEncrypted, UnknownKey
from clew.checkpointing.postgres import Database, Principal
from clew.runtime import conditions, config, embedding, errors, memories, namespaces, storekeys
from clew.runtime.embedding import Embedding
from clew.runtime.memories import Memory
from clew.runtime.sql import queries
from clew.runtime.storekeys import Keys

log = logging.getLogger(__name__)

_ALL = 1 << 62  # more than any table has, and as far as Postgres counts


class Store(BaseStore):
    """Made by `open`, one for a process."""

    supports_ttl = True

    def __init__(
        self,
        db: Database,
        *,
        ttl: config.ItemTTL | None = None,
        model: Embedding | None = None,
        keys: Keys | None = None,
    ) -> None:
        self.db = db
        self.embedding = model
        self.keys = keys
        life = ttl.default_ttl if ttl else None
        self.ttl_config = TTLConfig(
            default_ttl=life.total_seconds() / 60 if life else None,
            refresh_on_read=ttl.refresh_on_read if ttl else True,
            omit_expired=True,
        )
        self._loop = asyncio.get_running_loop()
        self._owner_id: int | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        db: Database,
        chosen: config.Store | None = None,
        folders: Sequence[Path] = (),
        keyring: Keyring | None = None,
    ) -> AsyncGenerator[Self]:
        """`chosen` is `store` of langgraph.json, `folders` are where its code is imported from."""
        chosen = chosen or config.Store()
        model = None
        if chosen.index is not None:
            if keyring is not None:
                raise errors.ConfigError(
                    "store.index cannot be used together with CLEW_ENCRYPTION_KEYS: "
                    "vectors tell in clear what the items say"
                )
            model = await Embedding.load(chosen.index, folders)
            await _accelerate(db)
        keys = Keys(keyring) if keyring is not None else None
        yield cls(db, ttl=chosen.ttl, model=model, keys=keys)

    def bind(self, owner_id: int) -> Self:
        """The same store, for one owner."""
        bound = copy.copy(self)
        bound._owner_id = owner_id  # noqa: SLF001  (of this very class)
        return bound

    @property
    def owner_id(self) -> int:
        if self._owner_id is None:
            raise errors.ClewError("this store is bound to no owner: store.bind(owner_id)")
        return self._owner_id

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """For synchronous nodes, which run in threads; the loop's own thread would wait forever."""
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is self._loop:
            raise asyncio.InvalidStateError(
                "the store was called synchronously on the event loop: "
                "use its async methods there, such as `await store.aget(...)`"
            )
        return asyncio.run_coroutine_threadsafe(self.abatch(ops), self._loop).result()

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        reads: dict[int, GetOp | SearchOp | ListNamespacesOp] = {}
        writes: dict[tuple[tuple[str, ...], str], PutOp] = {}
        number = 0
        for place, op in enumerate(ops):
            validate_op_namespace(op)
            if isinstance(op, PutOp):
                writes[tuple(op.namespace), op.key] = op  # the last one counts
            else:
                reads[place] = op
            number = place + 1
        results: list[Result] = [None] * number
        if reads:
            await self._read(reads, results)
        if writes:
            await self._write([memories.of(op) for op in writes.values()])
        return results

    async def _read(
        self,
        ops: Mapping[int, GetOp | SearchOp | ListNamespacesOp],
        results: list[Result],
    ) -> None:
        gets = {place: op for place, op in ops.items() if isinstance(op, GetOp)}
        searches = {place: op for place, op in ops.items() if isinstance(op, SearchOp)}
        asked = {place: self._search(op) for place, op in searches.items()}
        if self.embedding is not None:
            probes = await self.embedding.probes([op.query for op in searches.values() if op.query])
            for place, op in searches.items():
                if op.query:
                    asked[place][1]["probe"] = probes[op.query]
        listings = {
            place: self._listing(op)
            for place, op in ops.items()
            if isinstance(op, ListNamespacesOp)
        }
        async with self.db.work(Principal.owner(self.owner_id)) as conn:
            # All are sent before any is fetched, since a fetch ends the transaction.
            got = await conn.execute(queries["get_store_items"], self._gets(gets)) if gets else None
            found = {p: await conn.execute(queries[n], v) for p, (n, v) in asked.items()}
            listed = {
                place: await conn.execute(queries["list_store_namespaces"], values)
                for place, values in listings.items()
            }
            items = await got.fetchall() if got is not None else []
            pages = {place: await cursor.fetchall() for place, cursor in found.items()}
            for place, cursor in listed.items():
                rows = await cursor.fetchall()
                results[place] = [namespaces.decode(row["namespace"]) for row in rows]
        sealers = await self._sealers([*items, *(row for page in pages.values() for row in page)])
        places = list(gets)
        for row in items:
            results[places[row["place"]]] = Item(**self._item(row, sealers))
        for place, page in pages.items():
            results[place] = [
                SearchItem(**self._item(row, sealers), score=row["score"]) for row in page
            ]

    def _gets(self, ops: Mapping[int, GetOp]) -> dict[str, Any]:
        return {
            "owner_id": self.owner_id,
            "namespaces": [namespaces.encode(op.namespace) for op in ops.values()],
            "keys": [namespaces.key(op.key) for op in ops.values()],
            "refreshes": [op.refresh_ttl for op in ops.values()],
        }

    def _search(self, op: SearchOp) -> tuple[str, dict[str, Any]]:
        """The name of the statement, and its values but for the probe."""
        if self.keys is not None and (op.filter or op.query):
            option = "filter" if op.filter else "query"
            raise errors.Unsupported(
                f"{option}: encrypted items can only be searched by namespace", option=option
            )
        exact, left = conditions.prepare(text.replace(op.filter or {}, text.escape))
        low, high = namespaces.bounds(op.namespace_prefix)
        values: dict[str, Any] = {
            "owner_id": self.owner_id,
            "low": low,
            "high": high,
            "exact": memories.dumps(exact, "filter") if exact else None,
            "conditions": memories.dumps(left, "filter") if left else None,
            "refresh": op.refresh_ttl,
            **_window(op.limit, op.offset),
        }
        if not op.query:
            return "search_store", values
        if self.embedding is not None:
            return "search_store_vectors", {**values, "model": self.embedding.model}
        terms = memories.terms(op.query)
        return "search_store_words", {**values, "terms": terms, "any_term": " | ".join(terms)}

    def _listing(self, op: ListNamespacesOp) -> dict[str, Any]:
        matches = op.match_conditions or ()
        low, high = namespaces.bounds(namespaces.common(matches))
        if op.max_depth is not None and op.max_depth < 1:
            raise errors.Invalid("max_depth: must be at least 1")
        return {
            "owner_id": self.owner_id,
            "low": low,
            "high": high,
            "patterns": [namespaces.pattern(match) for match in matches if match.path],
            "max_depth": op.max_depth,
            **_window(op.limit, op.offset),
        }

    async def _sealers(self, rows: Iterable[DictRow]) -> dict[int, Sealer]:
        rows = list(rows)
        numbers = {row["key_no"] for row in rows if row["key_no"] is not None}
        if self.keys is None:
            if numbers:
                raise UnknownKey("the store has encrypted items, and CLEW_ENCRYPTION_KEYS is unset")
            return {}
        if any(row["key_no"] is None for row in rows):
            raise NotEncrypted(
                "the store has items that are not encrypted although encryption is on; "
                "`clew encryption encrypt` encrypts what was stored before"
            )
        return await self.keys.openers(self.db, self.owner_id, numbers)

    def _item(self, row: DictRow, sealers: dict[int, Sealer]) -> dict[str, Any]:
        value: Any = row["value"]
        if row["body"] is not None:
            value = storekeys.unseal(sealers, row["namespace"], row["key"], row["body"])
        elif row["escaped"]:
            value = text.replace(value, text.unescape)
        return {
            "namespace": namespaces.decode(row["namespace"]),
            "key": text.unescape(row["key"]),
            "value": value,
            "created_at": row["created_at"],
            "updated_at": row["updated_at"],
        }

    async def _write(self, written: list[Memory]) -> None:
        # In one order, so that no two batches wait for each other.
        written.sort(key=lambda memory: (memory.namespace, memory.key))
        vectors = await self._vectors(written)
        try:
            await self._put(written, vectors)
        except postgres.ForeignKeyViolation as error:
            if error.diag.constraint_name != "store_item_key_no_fkey" or self.keys is None:
                raise _no_session(written) from None
            # A session of this id is gone, its key with it, and there is another one now.
            self.keys.forget(self.owner_id)
            try:
                await self._put(written, vectors)
            except postgres.ForeignKeyViolation:
                raise _no_session(written) from None

    async def _vectors(self, written: Sequence[Memory]) -> list[list[list[float]]]:
        """The vectors of each of them, from one call to the model."""
        if self.embedding is None:
            return [[] for _ in written]
        texts = [
            self.embedding.texts(memory.value, memory.fields) if memory.value is not None else []
            for memory in written
        ]
        made = await self.embedding.vectors([line for lines in texts for line in lines])
        return [[made[line] for line in lines] for lines in texts]

    async def _put(self, written: Sequence[Memory], vectors: list[list[list[float]]]) -> None:
        sealers: dict[str | None, Sealer] = {}
        if self.keys is not None:
            scopes = {memory.thread_id for memory in written if memory.value is not None}
            sealers = await self.keys.writers(self.db, self.owner_id, scopes)
        rows = [self._row(memory, sealers) for memory in written]
        sessions = sorted({memory.thread_id for memory in written if memory.thread_id})
        async with self.db.work(Principal.owner(self.owner_id)) as conn:
            if sessions and len(written) > 1:
                held = {"owner_id": self.owner_id, "thread_ids": sessions}
                await conn.execute(queries["hold_sessions_of_items"], held)
            for memory, row, parts in zip(written, rows, vectors, strict=True):
                name = "delete_store_item" if memory.value is None else "put_store_item"
                await conn.execute(queries[name], row)
                await embedding.keep(conn, row, parts)

    def _row(self, memory: Memory, sealers: Mapping[str | None, Sealer]) -> dict[str, Any]:
        row: dict[str, Any] = {
            "owner_id": self.owner_id,
            "namespace": memory.namespace,
            "key": memory.key,
        }
        if memory.value is None:
            return row
        row |= {
            "fields": memories.dumps(memory.fields, "index"),
            "ttl": memory.ttl,
            "thread_id": memory.thread_id,
        }
        if self.keys is None:
            return row | memories.columns(memory.value, memory.fields, self.embedding)
        sealer = sealers[memory.thread_id]
        return row | {
            "value": None,
            "body": storekeys.seal(sealer, memory.namespace, memory.key, memory.value),
            "key_no": sealer.lineage_id,
            "escaped": False,
            "words": None,
            "model": None,
        }


async def _accelerate(db: Database) -> None:
    # As the login itself, which may make an extension where the role that it drops to may not.
    async with db.connection() as conn:
        cursor = await conn.execute(queries["accelerate_store"])
        row = await cursor.fetchone()
    if row is None or not row["fast"]:
        log.warning(
            "pgvector is not in use: comparing vectors of the store takes ten times as long. "
            "Install it on the server; then: create extension vector"
        )


def _window(limit: int, offset: int) -> dict[str, int]:
    if limit < 0 or offset < 0:
        raise errors.Invalid("limit and offset: must not be negative")
    return {"limit": min(limit, _ALL), "offset": min(offset, _ALL)}


def _no_session(written: Sequence[Memory]) -> errors.NotFound:
    named = ", ".join(sorted({memory.thread_id for memory in written if memory.thread_id}))
    return errors.NotFound(f"Thread {named} not found")
