"""Sessions out of the stock tables: whole histories, with their branches and open questions.

A session is written under a name of its own and gets its name at the end, so that half of it is
never seen. The stock tables do not say when a write was made; it is inferred from the graph's
own marks, so that a fork of an imported checkpoint finds what had happened there by then: an
interrupt or an error is where a run paused, and what its task wrote besides came later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast
from uuid import uuid4

import psycopg
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint
from langgraph.checkpoint.serde.types import TASKS
from psycopg.rows import DictRow

from clew.checkpointing import lineage, passthrough, stock, text
from clew.checkpointing.errors import CheckpointError, StockError, ThreadExists, UnknownThread
from clew.checkpointing.postgres import Connection
from clew.checkpointing.rows import ReadAt
from clew.checkpointing.saver import Saver
from clew.checkpointing.sql import Queries
from clew.checkpointing.stock import Stock

_queries = Queries("clew.checkpointing.queries")
_PREFIX = "\u0001import "  # no session of anyone's is called so
_PAGE = 32
_PAUSES = ("__interrupt__", "__error__")

Key = tuple[str, str]  # a namespace and a checkpoint's id
Also = Callable[[Connection, str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an import or an export of many has come. `error` is why this one was left out."""

    done: int
    total: int
    thread_id: str
    checkpoints: int
    error: Exception | None = None


async def all_threads(
    source: Stock,
    saver: Saver,
    *,
    progress: Callable[[Progress], None] = lambda _: None,
    also: Also | None = None,
    name: Callable[[str], str] = str,
    at_once: int = 4,
) -> int:
    """Import every thread that is not here yet; how many were. `name` gives its id here, which
    is the one it has there if nothing else is said.

    Each is whole or not there, so that an import which was cut off is simply run again. What
    cannot be read does not stop the others; it is told at the end, in one `StockError`.
    """
    threads = await source.threads()
    waiting = iter(threads)
    failed: list[str] = []
    done = taken = 0

    async def work() -> None:
        nonlocal done, taken
        for thread_id in waiting:
            count, error = 0, None
            try:
                count = await thread(source, saver, thread_id, name(thread_id), also=also)
                taken += 1
            except CheckpointError as why:
                error = why
                if not isinstance(why, ThreadExists):
                    failed.append(f"{thread_id}: {why}")
            done += 1
            progress(Progress(done, len(threads), thread_id, count, error))

    await _clear(saver)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(work())
    except ExceptionGroup as several:  # a lost database, told once
        raise several.exceptions[0] from several
    if failed:
        raise StockError(f"{len(failed)} threads were left out; {failed[0]}")
    return taken


async def thread(
    source: Stock,
    saver: Saver,
    thread_id: str,
    target_id: str | None = None,
    *,
    also: Also | None = None,
) -> int:
    """Import one thread for the owner that the saver writes for; how many checkpoints it has.

    `also` is called in the transaction that makes it visible, with its id. Raises `ThreadExists`,
    and `StockError` for what cannot be read.
    """
    target_id = target_id if target_id is not None else thread_id
    if await saver.aget_tuple({"configurable": {"thread_id": target_id}}) is not None:
        raise ThreadExists(f"there is a session {target_id} already")
    own = Saver(
        saver.db,
        principal=saver.principal,
        owner_id=saver.owner_id,
        serde=passthrough.serializer(),
        vault=saver.vault,
    )
    taking = _Taking(source, own, thread_id, _PREFIX + uuid4().hex)
    landed = False
    try:
        async with source.connection() as conn:
            await taking.run(conn)
        async with saver.db.transaction(saver.principal) as conn:
            await _name(conn, taking.name, target_id, thread_id)
            if also is not None:
                await also(conn, target_id)
        landed = True
    except (psycopg.DataError, NotImplementedError, TypeError, KeyError, ValueError) as error:
        raise StockError(
            f"thread {thread_id} is not as the stock saver writes it: {error}"
        ) from error
    finally:
        if not landed:
            await own.adelete_thread(taking.name)
    return taking.count


async def _name(conn: Connection, name: str, target_id: str, thread_id: str) -> None:
    names = {"thread_id": text.escape(name), "target": text.escape(target_id)}
    try:
        await conn.execute(_queries["take_name"], names)
    except psycopg.errors.UniqueViolation:
        raise ThreadExists(f"there is a session {target_id} already") from None
    head = await lineage.head(conn, target_id)
    await conn.execute(
        _queries["bundle_move"],
        {
            "owner_id": head.owner_id,
            "thread_id": text.escape(target_id),
            "to_id": head.lineage_id,
            "actor": None,
            "reason": f"imported from thread {text.escape(thread_id)} of the stock tables",
        },
    )


async def _clear(saver: Saver) -> None:
    """Remove what imports that a crash cut off have left."""
    prefix = {"prefix": text.escape(_PREFIX)}
    for row in await saver.db.fetch(saver.principal, _queries["take_leftovers"], prefix):
        async with saver.db.transaction(saver.principal) as conn:
            await lineage.purge(conn, text.unescape(row["thread_id"]))


class _Taking:
    """One thread on its way, oldest checkpoint first."""

    def __init__(self, source: Stock, saver: Saver, thread_id: str, name: str) -> None:
        self.source, self.saver, self.thread_id, self.name = source, saver, thread_id, name
        self.count = 0
        self._entry = 0  # the clock when the run that is being imported began
        self._later: dict[Key, list[DictRow]] = {}  # what a run that comes after wrote there
        self._paused: set[Key] = set()

    async def run(self, conn: Connection) -> None:
        at = {"thread_id": self.thread_id, "after_id": "", "after_ns": "", "page": _PAGE}
        while page := await stock.rows(conn, "stock_page", at):
            await self._take(conn, page)
            at |= {"after_id": page[-1]["checkpoint_id"], "after_ns": page[-1]["ns"]}
        if self.count == 0:
            raise UnknownThread(f"the stock tables have no thread {self.thread_id}")
        await self._write_later([*self._later])

    async def _take(self, conn: Connection, page: list[DictRow]) -> None:
        of = {"thread_id": self.thread_id}
        above = of | {"checkpoint_ids": [row["parent_id"] for row in page if row["parent_id"]]}
        mine = of | {"checkpoint_ids": [row["checkpoint_id"] for row in page]}
        parents = {_key(row): row for row in await stock.rows(conn, "stock_parents", above)}
        writes = _grouped(await stock.rows(conn, "stock_writes", mine))
        sends: Mapping[Key, list[DictRow]] = {}
        if any(row["checkpoint"]["v"] < 4 for row in page):
            sends = _grouped(await stock.rows(conn, "stock_writes", above))
        changed = {_key(row): _changed(row, parents.get(_above(row))) for row in page}
        blobs = await self._blobs(conn, changed)
        for row in page:
            if _above(row) in self._paused or _begins(row, parents.get(_above(row))):
                self._entry = await self._clock()
                await self._write_later([key for key in self._later if key in self._paused])
            if _above(row) not in self._paused:
                await self._write_later([_above(row)])
            versions = changed[_key(row)]
            await self._put(row, versions, blobs, sends.get(_above(row), []))
            await self._write(_key(row), writes.get(_key(row), []))
            self.count += 1

    async def _blobs(
        self, conn: Connection, changed: Mapping[Key, dict[str, Any]]
    ) -> dict[tuple[str, str, str], tuple[str, bytes]]:
        wanted = {
            (ns, channel, str(version))
            for (ns, _), versions in changed.items()
            for channel, version in versions.items()
        }
        found = await stock.rows(
            conn,
            "stock_blobs",
            {
                "thread_id": self.thread_id,
                "namespaces": [ns for ns, _, _ in wanted],
                "channels": [channel for _, channel, _ in wanted],
                "versions": [version for _, _, version in wanted],
            },
        )
        return {(r["ns"], r["channel"], r["version"]): (r["type"], r["blob"]) for r in found}

    async def _put(
        self,
        row: DictRow,
        changed: dict[str, Any],
        blobs: Mapping[tuple[str, str, str], tuple[str, bytes]],
        sends: list[DictRow],
    ) -> None:
        """What the checkpoint changed is handed on; of the rest the saver knows where it lies."""
        checkpoint: dict[str, Any] = dict(row["checkpoint"])
        values = {k: v for k, v in (checkpoint.get("channel_values") or {}).items() if k in changed}
        for channel, version in changed.items():
            blob = blobs.get((row["ns"], channel, str(version)))
            if blob is not None:  # wins over what is inline: the mark of a snapshot
                values[channel] = self.source.serde.loads_typed(blob)
        if checkpoint["v"] < 4:
            waiting = [w for w in sends if w["channel"] == TASKS]
            if waiting:
                versions = dict(checkpoint["channel_versions"])
                newest = (
                    max(versions.values()) if versions else self.saver.get_next_version(None, None)
                )
                changed = changed | {TASKS: newest}
                values[TASKS] = [self._value(write) for write in waiting]
                checkpoint["channel_versions"] = versions | {TASKS: newest}
        checkpoint["channel_values"] = values
        config = self._config(row["ns"], row["parent_id"])
        await self.saver.aput(config, cast("Checkpoint", checkpoint), row["metadata"], changed)

    async def _write(self, key: Key, writes: list[DictRow]) -> None:
        """What had been written while this was the head; the rest waits for its run."""
        asked = {write["task_id"] for write in writes if write["channel"] in _PAUSES}
        if not asked:
            self._later[key] = writes
            return
        self._paused.add(key)
        now, later = list[DictRow](), list[DictRow]()
        for write in writes:
            first = write["channel"] in _PAUSES or write["task_id"] not in asked
            (now if first and write["channel"] != "__resume__" else later).append(write)
        self._later[key] = later
        await self._store(key, now)

    async def _write_later(self, keys: Iterable[Key]) -> None:
        for key in [*keys]:
            await self._store(key, self._later.pop(key, []))
            # What goes on from here now is the run that answered.
            self._paused.discard(key)

    async def _store(self, key: Key, writes: list[DictRow]) -> None:
        tasks: dict[tuple[str, str], list[tuple[str, Any]]] = {}
        for write in writes:
            task = tasks.setdefault((write["task_id"], write["task_path"]), [])
            task.append((write["channel"], self._value(write)))
        for (task_id, path), task in tasks.items():
            await self.saver.aput_writes(self._config(*key), task, task_id, path)

    def _value(self, write: DictRow) -> Any:
        return self.source.serde.loads_typed((write["type"], write["blob"]))

    def _config(self, ns: str, checkpoint_id: str | None) -> RunnableConfig:
        configurable: dict[str, Any] = {
            "thread_id": ReadAt(self.name, self._entry),
            "checkpoint_ns": ns,
        }
        if checkpoint_id:
            configurable["checkpoint_id"] = checkpoint_id
        return {"configurable": configurable}

    async def _clock(self) -> int:
        row = await self.saver.db.one(self.saver.principal, _queries["moment"])
        assert row is not None
        return row["moment"]


def _key(row: DictRow) -> Key:
    return row["ns"], row["checkpoint_id"]


def _above(row: DictRow) -> Key:
    return row["ns"], row["parent_id"] or ""


def _grouped(writes: Iterable[DictRow]) -> dict[Key, list[DictRow]]:
    found: dict[Key, list[DictRow]] = {}
    for write in writes:
        found.setdefault(_key(write), []).append(write)
    return found


def _changed(row: DictRow, parent: DictRow | None) -> dict[str, Any]:
    """The channels whose versions are not the parent's."""
    before: Mapping[str, Any] = (parent and parent["versions"]) or {}
    versions: Mapping[str, Any] = row["checkpoint"]["channel_versions"]
    return {c: version for c, version in versions.items() if before.get(c) != version}


def _begins(row: DictRow, parent: DictRow | None) -> bool:
    """Whether another run than the parent's put this checkpoint."""
    told: Mapping[str, Any] = row["metadata"]
    if row["ns"] == "" and (parent is None or told.get("source") != "loop"):
        return True
    # A subgraph's first checkpoint is put by the run that its root is in.
    ids = {told.get("run_id"), parent["run_id"] if parent else None}
    return len(ids - {None}) > 1
