"""Sessions into the stock tables, for `AsyncPostgresSaver` to go on with.

What a session sees goes: its line and the path to it. Lines that a restore abandoned have no
place there, and neither have labels and pins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, LiteralString, cast

import psycopg
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg.rows import DictRow

from clew.checkpointing import codec, listing, passthrough, path, seals, stock, text
from clew.checkpointing.errors import CheckpointError, StockError, ThreadExists, UnknownThread
from clew.checkpointing.path import Fetch, Seen
from clew.checkpointing.postgres import Connection
from clew.checkpointing.rows import Row
from clew.checkpointing.saver import Saver
from clew.checkpointing.sql import Queries
from clew.checkpointing.stock import Stock
from clew.checkpointing.stock_import import Progress

_queries = Queries("clew.checkpointing.queries")


async def all_threads(
    saver: Saver, target: Stock, *, progress: Callable[[Progress], None] = lambda _: None
) -> int:
    """Export every session of the saver's principal that is not there yet; how many were.

    What cannot be written does not stop the others; it is told at the end, in one `StockError`.
    """
    found = await saver.fetch(_queries["threads"], {})
    failed: list[str] = []
    given = 0
    for done, row in enumerate(found, start=1):
        thread_id, count, error = text.unescape(row["thread_id"]), 0, None
        try:
            count = await thread(saver, target, thread_id)
            given += 1
        except CheckpointError as why:
            error = why
            if not isinstance(why, ThreadExists):
                failed.append(f"{thread_id}: {why}")
        progress(Progress(done, len(found), thread_id, count, error))
    if failed:
        raise StockError(f"{len(failed)} sessions were left out; {failed[0]}")
    return given


async def thread(saver: Saver, target: Stock, thread_id: str, target_id: str | None = None) -> int:
    """Export one session, in one transaction; how many checkpoints it has.

    Raises `UnknownThread`, `ThreadExists`, and `StockError` for what the stock tables cannot
    hold: a NUL in a string that they keep as JSON, or a lone surrogate.
    """
    target_id = target_id if target_id is not None else thread_id
    fetch = _checked(saver)
    standing = await fetch(_queries["standing"], {"thread_id": text.escape(thread_id)})
    if not standing:
        raise UnknownThread(f"there is no session {thread_id}")
    lines = await path.chain(fetch, standing[0]["lineage_id"])
    serde = passthrough.serializer()
    count = 0
    try:
        async with target.connection() as conn, conn.transaction():
            if await stock.rows(conn, "stock_has_thread", {"thread_id": target_id}):
                raise ThreadExists(f"the stock tables have a thread {target_id} already")
            putting = _Putting(AsyncPostgresSaver(conn, serde=target.serde), target_id)
            async for page in listing.pages(fetch, lines, listing.Wanted()):
                for one in await listing.load(fetch, serde, target_id, page):
                    await putting.checkpoint(one)
                    count += 1
                await _writes(conn, target, target_id, await _rows(fetch, page))
    except (psycopg.DataError, UnicodeError) as error:
        raise StockError(f"the stock tables cannot hold session {thread_id}: {error}") from error
    return count


def _checked(saver: Saver) -> Fetch:
    """The saver's rows, unless something in them would not come out of the stock tables again."""

    async def fetch(query: LiteralString, params: Mapping[str, Any]) -> list[DictRow]:
        found = await saver.fetch(query, params)
        if any(codec.is_escaped(body) for body in seals.bodies_of(found)):
            raise StockError("the stock tables cannot hold a lone surrogate in a string")
        return found

    return fetch


class _Putting:
    """The stock saver, and which values it has already been given."""

    def __init__(self, saver: AsyncPostgresSaver, thread_id: str) -> None:
        self._saver, self._thread_id = saver, thread_id
        self._known: set[tuple[str, str, Any]] = set()

    async def checkpoint(self, one: CheckpointTuple) -> None:
        ns: str = _configurable(one.config)["checkpoint_ns"]
        new = {
            channel: version
            for channel, version in one.checkpoint["channel_versions"].items()
            if (ns, channel, version) not in self._known
        }
        self._known |= {(ns, channel, version) for channel, version in new.items()}
        above: dict[str, Any] = {"thread_id": self._thread_id, "checkpoint_ns": ns}
        if one.parent_config is not None:
            above["checkpoint_id"] = _configurable(one.parent_config)["checkpoint_id"]
        await self._saver.aput({"configurable": above}, one.checkpoint, one.metadata, new)


async def _rows(fetch: Fetch, page: Sequence[Seen]) -> list[DictRow]:
    return await fetch(_queries["load_writes"], path.rows_until(page))


async def _writes(
    conn: Connection, target: Stock, thread_id: str, found: Iterable[DictRow]
) -> None:
    latest: dict[tuple[Any, ...], tuple[int, Row]] = {}
    for row in found:
        slot: int = row["slot"]
        seq, code = divmod(-slot, 8) if slot < 0 else (0, -slot)
        key = (row["ns"], row["checkpoint_id"], row["task_id"], -code)
        if seq >= latest.get(key, (0, row))[0]:
            latest[key] = (seq, row)
    params = [_param(target, thread_id, key[-1], row) for key, (_, row) in latest.items()]
    if params:
        await conn.cursor().executemany(_queries["stock_add_write"], params)


def _param(target: Stock, thread_id: str, idx: int, row: Row) -> dict[str, Any]:
    kind, blob = target.encrypt(*codec.unpack(row["body"]))
    return {
        "thread_id": thread_id,
        "ns": text.unescape(row["ns"]),
        "checkpoint_id": row["checkpoint_id"],
        "task_id": row["task_id"],
        "task_path": text.unescape(row["path"]),
        "idx": idx,
        "channel": text.unescape(row["channel"]),
        "type": kind,
        "blob": blob,
    }


def _configurable(config: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", config["configurable"])
