"""The keys that items of the long-term memory are sealed under: one for each owner, and one for
each session that keeps items in its namespace, which moves and ends with the session.

They lie in their own table, wrapped under the keys of the settings, as those of checkpoints do.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from datetime import timedelta
from typing import Any

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from psycopg.rows import DictRow

from clew.checkpointing import codec, encryption, text
from clew.checkpointing.encryption import Keyring, Sealer
from clew.checkpointing.errors import EncryptionError
from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.runtime import errors
from clew.runtime.sql import queries

_PAGE = 500
_serde = JsonPlusSerializer()

Progress = Callable[[int], None]


def _silent(_: int) -> None: ...


class Keys:
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
        self._kept: OrderedDict[int, tuple[float, int, str | None, Sealer]] = OrderedDict()
        self._writers: dict[tuple[int, str | None], int] = {}

    async def writers(
        self, db: Database, owner_id: int, scopes: Collection[str | None]
    ) -> dict[str | None, Sealer]:
        """What seals new items of the owner (None) and of these sessions."""
        found: dict[str | None, Sealer] = {}
        for scope in scopes:
            number = self._writers.get((owner_id, scope))
            sealer = self._remembered(owner_id, number) if number is not None else None
            found[scope] = sealer or await self._writer(db, owner_id, scope)
        return found

    async def openers(
        self, db: Database, owner_id: int, numbers: Collection[int]
    ) -> dict[int, Sealer]:
        """What opens the items that were sealed under the keys of these numbers."""
        found: dict[int, Sealer] = {}
        for number in numbers:
            if sealer := self._remembered(owner_id, number):
                found[number] = sealer
        missing = [number for number in numbers if number not in found]
        if missing:
            who = Principal.owner(owner_id)
            rows = await db.fetch(who, queries["store_keys"], {"key_nos": missing})
            found |= {row["key_no"]: self._keep(row) for row in rows}
            stale = [row for row in rows if row["key_id"] != self.keyring.newest]
            if stale:  # rotation goes on by the way, with what is read
                await self._rewrap(db, who, stale)
        return found

    def forget(self, owner_id: int) -> None:
        """Drop what is remembered of an owner, since a key of its was destroyed."""
        for number, (_, owner, _, _) in list(self._kept.items()):
            if owner == owner_id:
                self._drop(number)

    async def rewrap(self, db: Database, progress: Progress = _silent) -> int:
        """Wrap every key under the newest of the settings; how many were. Goes through all of them
        before it raises what stood in the way of some."""
        done, after = 0, 0
        failed: list[EncryptionError] = []
        wanted: dict[str, Any] = {"key_id": self.keyring.newest, "page": _PAGE}
        while rows := await db.fetch(
            SERVICE, queries["store_keys_to_rewrap"], {**wanted, "after": after}
        ):
            after = rows[-1]["key_no"]
            for row in rows:
                try:
                    done += await self._rewrap(db, SERVICE, [row])
                except EncryptionError as error:
                    failed.append(error)
            progress(done)
        if failed:
            raise type(failed[0])(f"{failed[0]}; {len(failed)} store keys were left as they were")
        return done

    async def encrypt(self, db: Database, progress: Progress = _silent) -> int:
        """Seal what was stored before encryption was on; how many items were."""
        done = 0
        while rows := await db.fetch(SERVICE, queries["plain_store_items"], {"page": _PAGE}):
            for row in rows:
                scope, value = row["thread_id"], row["value"]
                sealer = (await self.writers(db, row["owner_id"], [scope]))[scope]
                if row["escaped"]:
                    value = text.replace(value, text.unescape)
                sealed = {
                    "body": seal(sealer, row["namespace"], row["key"], value),
                    "key_no": sealer.lineage_id,
                }
                # One that was written meanwhile is left to the next round.
                done += await db.execute(SERVICE, queries["seal_store_item"], {**row, **sealed})
            progress(done)
        return done

    async def _writer(self, db: Database, owner_id: int, scope: str | None) -> Sealer:
        who = Principal.owner(owner_id)
        fresh = {
            "owner_id": owner_id,
            "thread_id": scope,
            "key_id": self.keyring.newest,
            "wrapped_key": self.keyring.wrap(encryption.new_key(), _place(owner_id, scope)),
        }
        async with db.work(who) as conn:
            await conn.execute(queries["give_store_key"], fresh)
            cursor = await conn.execute(queries["store_key_of"], fresh)
            row = await cursor.fetchone()
        if row is None:
            raise errors.NotFound(f"Thread {scope} not found")
        sealer = self._keep(row)
        self._writers[owner_id, scope] = sealer.lineage_id
        return sealer

    def _remembered(self, owner_id: int, number: int) -> Sealer | None:
        until, owner, _, sealer = self._kept.get(number, (0.0, 0, None, None))
        # The database is not asked here, so its rule is kept here.
        return sealer if until > time.monotonic() and owner == owner_id else None

    def _keep(self, row: DictRow) -> Sealer:
        number, owner_id, scope = row["key_no"], row["owner_id"], row["thread_id"]
        data_key = self.keyring.unwrap(row["key_id"], row["wrapped_key"], _place(owner_id, scope))
        # A session may change hands, and its items with it: they are not bound to the owner.
        sealer = Sealer.of(number, owner_id if scope is None else 0, data_key)
        until = time.monotonic() + self._lifetime
        self._kept[number] = (until, owner_id, scope, sealer)
        self._kept.move_to_end(number)
        while len(self._kept) > self._size:
            self._drop(next(iter(self._kept)))
        return sealer

    def _drop(self, number: int) -> None:
        _, owner_id, scope, _ = self._kept.pop(number)
        if self._writers.get((owner_id, scope)) == number:
            del self._writers[owner_id, scope]

    async def _rewrap(self, db: Database, who: Principal, rows: Iterable[DictRow]) -> int:
        done = 0
        for row in rows:
            place = _place(row["owner_id"], row["thread_id"])
            data_key = self.keyring.unwrap(row["key_id"], row["wrapped_key"], place)
            fresh = {
                "key_no": row["key_no"],
                "key_id": self.keyring.newest,
                "old_key": row["wrapped_key"],
                "new_key": self.keyring.wrap(data_key, place),
            }
            done += await db.execute(who, queries["rewrap_store_key"], fresh)
        return done


async def in_use(db: Database) -> dict[str, int]:
    """How many keys of the long-term memory need each key of the settings."""
    rows = await db.fetch(SERVICE, queries["store_keys_in_use"])
    return {row["key_id"]: row["keys"] for row in rows}


def seal(sealer: Sealer, namespace: str, key: str, value: dict[str, Any]) -> bytes:
    return sealer.seal(codec.dump(_serde, value), _item(namespace, key))


def unseal(sealers: dict[int, Sealer], namespace: str, key: str, body: bytes) -> dict[str, Any]:
    return codec.load(_serde, encryption.open_body(sealers, body, _item(namespace, key)))


def _item(namespace: str, key: str) -> bytes:
    return f"store{len(namespace)}:{namespace}{key}".encode()


def _place(owner_id: int, scope: str | None) -> bytes:
    """Where a key belongs: to an owner, or to a session whoever owns it."""
    return b"store" + (owner_id.to_bytes(8, "big") if scope is None else scope.encode())
