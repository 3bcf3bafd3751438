"""The data keys of lineages: made at the first write, cached for a while, rotated, destroyed.

A lineage's data key lies wrapped in its own row. When that row is removed, what the lineage held
cannot be read any more, not even from a backup of the other tables.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import timedelta
from typing import Any

from psycopg.rows import DictRow

from clew.checkpointing import encryption, seals, text, wire
from clew.checkpointing.encryption import Keyring, Sealer
from clew.checkpointing.errors import EncryptionError, KeyDestroyed
from clew.checkpointing.postgres import SERVICE, Connection, Database, Principal
from clew.checkpointing.sql import Queries

_queries = Queries("clew.checkpointing.queries")
_PAGE = 500

Progress = Callable[[int], None]


def _silent(_: int) -> None: ...


class Vault:
    """Hands out sealers, and remembers them: at most `size`, each for at most `lifetime`."""

    def __init__(
        self,
        keyring: Keyring,
        *,
        size: int = 10_000,
        lifetime: timedelta = timedelta(minutes=10),
    ) -> None:
        self.keyring = keyring
        self._size = size
        self._lifetime = lifetime.total_seconds()
        self._kept: OrderedDict[int, tuple[float, Sealer]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    async def sealers(
        self, db: Database, who: Principal, lineage_ids: Collection[int]
    ) -> dict[int, Sealer]:
        """What opens the bodies of these lineages. One that has no key, or is gone, is left out."""
        found = self._remembered(who, lineage_ids)
        missing = [i for i in lineage_ids if i not in found]
        if missing:
            rows = await wire.fetch(db, who, _queries["lineage_keys"], {"lineage_ids": missing})
            found |= self._unwrap(rows)
            await self._renew(db, who, rows, found)
        return found

    async def sealers_in(
        self, conn: Connection, who: Principal, lineage_ids: Collection[int]
    ) -> dict[int, Sealer]:
        """The same inside the caller's transaction, which may have made them."""
        found = self._remembered(who, lineage_ids)
        missing = [i for i in lineage_ids if i not in found]
        if missing:
            cursor = await conn.execute(_queries["lineage_keys"], {"lineage_ids": missing})
            # Not remembered: the caller may yet roll back.
            found |= self._unwrap(await cursor.fetchall(), remember=False)
        return found

    async def writer(self, db: Database, who: Principal, lineage_id: int) -> Sealer:
        """What seals new bodies of a lineage; its first call gives the lineage a key."""
        found = await self.sealers(db, who, [lineage_id])
        if lineage_id not in found:
            async with db.transaction(who) as conn:
                await self.writer_in(conn, who, lineage_id)
            found = await self.sealers(db, who, [lineage_id])
        return found[lineage_id]

    async def writer_in(self, conn: Connection, who: Principal, lineage_id: int) -> Sealer:
        """The same inside the caller's transaction."""
        if found := self._remembered(who, [lineage_id]):
            return found[lineage_id]
        row = await self._row(conn, lineage_id)
        if row["wrapped_key"] is None:
            place = encryption.owned(lineage_id, row["owner_id"])
            fresh = {
                "lineage_id": lineage_id,
                "key_id": self.keyring.newest,
                "wrapped_key": self.keyring.wrap(encryption.new_key(), place),
            }
            await conn.execute(_queries["give_key"], fresh)
            row = await self._row(conn, lineage_id)
        return self._unwrap([row], remember=False)[lineage_id]

    async def open_rows(self, db: Database, who: Principal, rows: Sequence[DictRow]) -> None:
        """Open all bodies in these rows. A plain one is refused: `NotEncrypted`."""
        needed = encryption.lineages(seals.bodies_of(rows))
        if needed:
            seals.open_rows(await self.sealers(db, who, needed), rows)

    async def unsealer(self, conn: Connection, who: Principal, *thread_ids: str) -> seals.Unsealer:
        """What opens the lines of these sessions and all that they go back to."""
        lines: set[int] = set()
        for thread_id in thread_ids:
            wanted = {"thread_id": text.escape(thread_id), "every": True}
            cursor = await conn.execute(_queries["session_lines"], wanted)
            lines |= {row["lineage_id"] for row in await cursor.fetchall()}
        return seals.Unsealer(await self.sealers_in(conn, who, lines))

    def forget(self, lineage_ids: Iterable[int]) -> None:
        """Drop keys that were destroyed. Other processes forget them within the lifetime."""
        for lineage_id in lineage_ids:
            self._kept.pop(lineage_id, None)

    def _remembered(self, who: Principal, lineage_ids: Collection[int]) -> dict[int, Sealer]:
        now = time.monotonic()
        found: dict[int, Sealer] = {}
        for lineage_id in lineage_ids:
            until, sealer = self._kept.get(lineage_id, (0.0, None))
            # The database is not asked here, so its rule is kept here.
            if sealer and until > now and who.owner_from <= sealer.owner_id <= who.owner_to:
                found[lineage_id] = sealer
        return found

    def _unwrap(self, rows: Iterable[DictRow], *, remember: bool = True) -> dict[int, Sealer]:
        found: dict[int, Sealer] = {}
        until = time.monotonic() + self._lifetime
        for row in rows:
            if row["wrapped_key"] is None:
                continue
            sealer = Sealer.of(row["lineage_id"], row["owner_id"], self._data_key(row))
            found[sealer.lineage_id] = sealer
            if remember:
                self._kept[sealer.lineage_id] = (until, sealer)
                self._kept.move_to_end(sealer.lineage_id)
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)
        return found

    def _data_key(self, row: DictRow) -> bytes:
        place = encryption.owned(row["lineage_id"], row["owner_id"])
        return self.keyring.unwrap(row["key_id"], row["wrapped_key"], place)

    async def _row(self, conn: Connection, lineage_id: int) -> DictRow:
        cursor = await conn.execute(_queries["lineage_keys"], {"lineage_ids": [lineage_id]})
        row = await cursor.fetchone()
        if row is None:
            raise KeyDestroyed(f"lineage {lineage_id} is gone, and its key with it")
        return row

    async def _renew(
        self, db: Database, who: Principal, rows: Iterable[DictRow], known: Collection[int]
    ) -> None:
        """Lazy rotation: what is read is wrapped under the newest key by the way."""
        stale = [r for r in rows if r["lineage_id"] in known and r["key_id"] != self.keyring.newest]
        if stale:
            await db.execute(who, _queries["rewrap_keys"], self._rewrapped(stale))

    def _rewrapped(self, rows: Collection[DictRow]) -> dict[str, Any]:
        return {
            "key_id": self.keyring.newest,
            "lineage_ids": [row["lineage_id"] for row in rows],
            "old_keys": [row["wrapped_key"] for row in rows],
            "new_keys": [
                self.keyring.wrap(
                    self._data_key(row), encryption.owned(row["lineage_id"], row["owner_id"])
                )
                for row in rows
            ],
        }

    async def rewrap(self, db: Database, progress: Progress = _silent) -> int:
        """Wrap every data key under the newest key; how many were. Bodies stay as they are.

        Goes through all of them before it raises what stood in the way of some.
        """
        done, after = 0, 0
        failed: list[EncryptionError] = []
        while True:
            wanted = {"after": after, "key_id": self.keyring.newest, "page": _PAGE}
            rows = await db.fetch(SERVICE, _queries["keys_to_rewrap"], wanted)
            if not rows:
                break
            after = rows[-1]["lineage_id"]
            able: list[DictRow] = []
            for row in rows:
                try:
                    self._data_key(row)
                except EncryptionError as error:
                    failed.append(error)
                else:
                    able.append(row)
            if able:
                done += await db.execute(SERVICE, _queries["rewrap_keys"], self._rewrapped(able))
                progress(done)
        if failed:
            raise type(failed[0])(f"{failed[0]}; {len(failed)} lineages were left as they were")
        return done


async def in_use(db: Database) -> dict[str | None, int]:
    """How many lineages need each key; `None` counts those without one."""
    rows = await db.fetch(SERVICE, _queries["keys_in_use"])
    return {row["key_id"]: row["lineages"] for row in rows}


async def encrypt(db: Database, vault: Vault, progress: Progress = _silent) -> int:
    """Encrypt what was stored before encryption was on; how many lineages were.

    One transaction for each lineage, during which its session can be read but not written.
    """
    rows = await db.fetch(SERVICE, _queries["plain_lineages"])
    for done, row in enumerate(rows, start=1):
        async with db.transaction(SERVICE) as conn:
            await _encrypt(conn, vault, row["lineage_id"])
        progress(done)
    return len(rows)


async def _encrypt(conn: Connection, vault: Vault, lineage_id: int) -> None:
    cursor = await conn.execute(_queries["hold_lineage"], {"lineage_id": lineage_id})
    if await cursor.fetchone() is None:
        return  # purged meanwhile
    sealer = await vault.writer_in(conn, SERVICE, lineage_id)
    page = {"lineage_id": lineage_id, "page": _PAGE}
    while rows := await (await conn.execute(_queries["plain_items"], page)).fetchall():
        for row in rows:
            place = encryption.item(lineage_id, row["stream"], row["number"])
            row["body"] = sealer.seal(row["body"], place)
            row["lineage_id"] = lineage_id
        await conn.cursor().executemany(_queries["replace_item"], rows)
    while rows := await (await conn.execute(_queries["plain_writes"], page)).fetchall():
        for row in rows:
            place = encryption.write(
                row["checkpoint_id"], row["task_id"], row["slot"], row["ns"], row["channel"]
            )
            row["body"] = sealer.seal(row["body"], place)
            row["lineage_id"] = lineage_id
        await conn.cursor().executemany(_queries["replace_write"], rows)
    for row in await (await conn.execute(_queries["plain_labels"], page)).fetchall():
        place = encryption.label(text.unescape(row["thread_id"]), text.unescape(row["name"]))
        row["body"] = sealer.seal(row["body"], place)
        await conn.execute(_queries["replace_label"], row)
