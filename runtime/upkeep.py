"""What the long-term memory needs done by time alone: expired items are removed, and what was
stored under another `store.index` is indexed anew. Any number of replicas may do it.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from clew.checkpointing import text
from clew.checkpointing.postgres import SERVICE, Database
from clew.runtime import embedding, memories
from clew.runtime.embedding import Embedding
from clew.runtime.sql import queries
from clew.runtime.store import Store

log = logging.getLogger(__name__)

LIMIT = 1000  # items of one statement
PAGE = 100  # items that are indexed with one call to the model


@asynccontextmanager
async def running(store: Store, *, interval: timedelta) -> AsyncGenerator[None]:
    """Look after the store at every interval for as long as the context lasts."""

    async def loop() -> None:
        due = store.embedding
        while True:
            try:
                while await sweep(store.db) == LIMIT:
                    pass
                if due is not None and await reindex(store.db, due) is not None:
                    due = None
            except Exception:
                # It outlives a database or a model that is away, and any fault; what is due stays.
                log.exception("the upkeep of the store failed; the next round tries again")
            await asyncio.sleep(interval.total_seconds())

    async with asyncio.TaskGroup() as group:
        task = group.create_task(loop())
        try:
            yield
        finally:
            task.cancel()


async def sweep(db: Database, limit: int = LIMIT) -> int:
    """Remove expired items, at most `limit` of them; how many were. Reads never see them."""
    return await db.execute(SERVICE, queries["sweep_store"], {"limit": limit})


async def reindex(db: Database, model: Embedding, page: int = PAGE) -> int | None:
    """Index anew what was stored under another configuration, or under none, for all owners; how
    many items were, None where another process is at it. Reads `page` of them at a time."""
    async with db.transaction(SERVICE) as conn:
        # Held by a transaction of its own, for a model is too slow to keep rows locked meanwhile.
        cursor = await conn.execute(queries["lead_reindexing"])
        row = await cursor.fetchone()
        if row is None or not row["leads"]:
            return None
        done = 0
        after: dict[str, Any] = {"owner_id": -1, "namespace": "", "key": ""}
        wanted = {"model": model.model, "limit": page}
        while rows := await db.fetch(
            SERVICE, queries["unindexed_store_items"], {**wanted, **after}
        ):
            after = rows[-1]
            done += await _index(db, model, rows)
        return done


async def _index(db: Database, model: Embedding, rows: list[dict[str, Any]]) -> int:
    for row in rows:
        if row["escaped"]:
            row["value"] = text.replace(row["value"], text.unescape)
    texts = [model.texts(row["value"], row["fields"]) for row in rows]
    made = await model.vectors([line for lines in texts for line in lines])
    done = 0
    for row, lines in zip(rows, texts, strict=True):
        columns = {**row, **memories.columns(row["value"], row["fields"], model)}
        async with db.transaction(SERVICE) as conn:
            cursor = await conn.execute(queries["index_store_item"], columns)
            if cursor.rowcount:
                await conn.execute(queries["clear_store_vectors"], columns)
                await embedding.keep(conn, columns, [made[line] for line in lines])
                done += 1
    return done
