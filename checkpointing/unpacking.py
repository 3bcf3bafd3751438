"""Reading a session's bundle into the database: verified as it comes, and all of it or nothing.

A bundle comes from elsewhere, so nothing in it is believed: what it refers to must be in it, and
a value of a kind that this release does not know is refused before it is stored.
"""

from __future__ import annotations

import struct
from base64 import b64decode
from collections.abc import AsyncIterable, Generator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast
from uuid import UUID

import psycopg

from clew.checkpointing import chain, codec, encryption, manifest, text
from clew.checkpointing.errors import (
    BundleEdited,
    BundleUnsupported,
    ThreadExists,
    UnknownBody,
)
from clew.checkpointing.keys import Vault
from clew.checkpointing.packing import VERSION
from clew.checkpointing.postgres import Connection, Principal
from clew.checkpointing.sql import Queries

_queries = Queries("clew.checkpointing.queries")
_BATCH = 200  # rows that are stored together, or so many bytes
_MUCH = 1_000_000
_NONSENSE = (LookupError, TypeError, ValueError, AttributeError, OverflowError, struct.error)


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import made."""

    thread_id: str
    source_thread_id: str
    session: Mapping[str, Any] | None
    lineages: int
    items: int
    checkpoints: int
    writes: int


async def load(
    conn: Connection,
    chunks: AsyncIterable[bytes],
    thread_id: str,
    owner_id: int,
    *,
    vault: Vault | None = None,
    actor: str | None = None,
    reason: str | None = None,
    longest: int = chain.LONGEST,
) -> Imported:
    """Make a session of a bundle, in the caller's transaction: what it raises must roll that back.

    Raises `ThreadExists`, `BundleTruncated`, `BundleEdited` and `BundleUnsupported`. With a vault
    everything is encrypted on its way in.
    """
    loading = _Loading(conn, thread_id, owner_id, vault)
    async with aclosing(chain.read(chunks, longest=longest)) as records:
        async for record in records:
            with _believing_nothing():
                await loading.take(record)
    return await loading.finish(actor, reason)


@contextmanager
def _believing_nothing() -> Generator[None]:
    """What does not fit, wherever it shows, is the bundle's fault."""
    try:
        yield
    except _NONSENSE as error:
        raise BundleEdited(f"the bundle does not hold together: {error}") from error
    except UnknownBody as error:
        raise BundleUnsupported(
            f"the bundle holds what this release cannot read: {error}"
        ) from error
    except (psycopg.DataError, psycopg.IntegrityError, psycopg.ProgrammingError) as error:
        raise BundleEdited(
            f"the bundle does not hold together: {error.diag.message_primary or error}"
        ) from error


@dataclass(slots=True)
class _Loading:
    """An import in progress: what was read so far, in numbers of the bundle and of here."""

    conn: Connection
    thread_id: str
    owner_id: int
    vault: Vault | None
    header: Mapping[str, Any] | None = None
    tick: int = 0  # added to a tick of the bundle
    lineage_ids: list[int] = field(default_factory=list[int])
    own: set[int] = field(default_factory=set[int])
    sources: dict[int, int] = field(default_factory=dict[int, int])
    sealers: dict[int, encryption.Sealer] = field(default_factory=dict[int, encryption.Sealer])
    streams: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    used: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    checkpoints: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    writes: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    waiting: int = 0
    counts: dict[str, int] = field(
        default_factory=lambda: {"lineages": 0, "items": 0, "checkpoints": 0, "writes": 0}
    )

    async def take(self, record: dict[str, Any]) -> None:
        if self.header is None:
            if [*record] != ["bundle"]:
                raise BundleUnsupported("the bundle does not begin with its header")
            await self._begin(record["bundle"])
            return
        match record:
            case {"lineage": dict(line)}:
                await self._lineage(cast("dict[str, Any]", line))
            case {"items": [int(line), int(stream), int(first), list(bodies)]}:
                await self._items(line, stream, first, cast("list[str]", bodies))
            case {"checkpoint": dict(row), "writes": list(writes)}:
                await self._checkpoint(cast("dict[str, Any]", row), cast("list[Any]", writes))
            case {"marks": {"labels": list(labels), "pins": list(pins)}}:
                await self._marks(cast("list[Any]", labels), cast("list[Any]", pins))
            case {"end": dict(counts)}:
                await self._flush()
                if counts != self.counts:
                    raise BundleEdited("the bundle holds more or less than its end says")
            case _:
                raise BundleUnsupported(
                    f"the bundle has a record of an unknown kind: {', '.join(record)[:80]}"
                )

    async def _begin(self, header: dict[str, Any]) -> None:
        if header["version"] != VERSION:
            raise BundleUnsupported(
                f"the bundle is of format version {header['version']}, this release reads {VERSION}"
            )
        self.header = header
        ids = {"thread_id": text.escape(self.thread_id), "owner_id": self.owner_id}
        cursor = await self.conn.execute(_queries["bundle_add_head"], ids)
        if await cursor.fetchone() is None:
            raise ThreadExists(f"there is a session {self.thread_id} already")
        ticks = {"ticks": max(1, _int(header["clock"]))}
        row = await (await self.conn.execute(_queries["bundle_clock"], ticks)).fetchone()
        self.tick = cast("Mapping[str, int]", row)["first"] - 1

    def _moment(self, tick: Any) -> int:
        assert self.header is not None
        if not 0 <= _int(tick) <= self.header["clock"]:
            raise BundleEdited(f"{tick} is no tick of the bundle's clock")
        return tick and tick + self.tick

    async def _lineage(self, line: Mapping[str, Any]) -> None:
        row = {
            "owner_id": self.owner_id,
            "thread_id": text.escape(self.thread_id) if line["own"] is True else None,
            "kind": line["kind"],
            "scope": line["scope"],
            "parent_id": None if line["parent"] is None else self._lineage_id(line["parent"]),
            "fork_id": _uuid(line["fork_id"]),
            "fork_parent": _uuid(line["fork_parent"]),
            "created_at": _time(line["created_at"]),
        }
        for moment in ("fork_seq", "moment", "cut"):
            row[moment] = None if line[moment] is None else self._moment(line[moment])
        cursor = await self.conn.execute(_queries["bundle_add_lineage"], row)
        made = cast("Mapping[str, int]", await cursor.fetchone())["lineage_id"]
        self.lineage_ids.append(made)
        if row["thread_id"]:
            self.own.add(len(self.lineage_ids))
        self.counts["lineages"] += 1
        if line["source"] is not None:
            self.sources[made] = _int(line["source"])
        if self.vault is not None:
            who = Principal.owner(self.owner_id)
            self.sealers[made] = await self.vault.writer_in(self.conn, who, made)

    def _lineage_id(self, number: int) -> int:
        """Of a lineage that came before: so none is its own ancestor."""
        if _int(number) < 1:
            raise BundleEdited("lineages are counted from one")
        return self.lineage_ids[number - 1]

    async def _items(self, line: int, stream: int, first: int, encoded: list[str]) -> None:
        if first != self.streams.get((line, stream), 0):
            raise BundleEdited("values are missing or out of order")
        self.streams[line, stream] = first + len(encoded)
        self.counts["items"] += len(encoded)
        row = {
            "lineage_id": self._lineage_id(line),
            "owner_id": self.owner_id,
            "stream": stream,
            "first": first,
        }
        bodies = [
            self._seal(one, row["lineage_id"], encryption.item(row["lineage_id"], stream, number))
            for number, one in enumerate(encoded, start=first)
        ]
        await self.conn.execute(_queries["bundle_add_items"], row | {"bodies": bodies})

    def _seal(self, encoded: str, lineage_id: int, place: bytes) -> bytes:
        body = b64decode(encoded, validate=True)
        codec.check(body)
        sealer = self.sealers.get(lineage_id)
        return body if sealer is None else sealer.seal(body, place)

    async def _checkpoint(self, given: Mapping[str, Any], writes: list[list[Any]]) -> None:
        lineage_id = self._lineage_id(given["lineage"])
        row: dict[str, Any] = {
            "lineage_id": lineage_id,
            "owner_id": self.owner_id,
            "seq": self._moment(given["seq"]),
            "entry": self._moment(given["entry"]),
            "created_at": _time(given["created_at"]),
            "checkpoint_id": UUID(given["checkpoint_id"]),
            "ranges": self._ranges(given["lineage"], given["ranges"]),
            "state": b64decode(given["state"], validate=True),
            **{name: _uuid(given[name]) for name in ("parent_id", "root_id", "run_id")},
            **{name: given[name] for name in ("step", "source", "ns", "seeds", "metadata")},
        }
        manifest.decode(row["state"], row["ranges"], lineage_id)
        self.checkpoints.append(row)
        self.counts["checkpoints"] += 1
        self.counts["writes"] += len(writes)
        for write in writes:
            self.writes.append(self._write(row, *write))
        self.waiting += sum(
            len(write["body"]) for write in self.writes[len(self.writes) - len(writes) :]
        )
        if len(self.checkpoints) + len(self.writes) >= _BATCH or self.waiting > _MUCH:
            await self._flush()

    def _ranges(self, line: int, ranges: list[int] | None) -> list[int] | None:
        """The lineages' numbers of here, and nothing that did not come before."""
        if ranges is None:
            return None
        if len(ranges) % 3:
            raise BundleEdited("a checkpoint's ranges come in threes")
        found: list[int] = []
        for number, r in zip(ranges[::3], manifest.absolute(ranges, line), strict=True):
            end = r.first + r.size
            if r.first < 0 or end > self.streams.get((r.lineage_id, r.stream), 0):
                raise BundleEdited("a checkpoint refers to values that are not in the bundle")
            found += (self._lineage_id(number) if number else 0, r.stream << 32 | r.size, r.first)
        return found

    def _write(
        self,
        row: Mapping[str, Any],
        task_id: str,
        slot: int,
        seq: int,
        channel: str,
        path: str,
        body: str,
    ) -> dict[str, Any]:
        task = UUID(task_id)
        if _int(slot) < 0:
            slot = -(8 * self._moment(-slot >> 3) + (-slot & 7))
        place = encryption.write(row["checkpoint_id"], task, slot, row["ns"], channel)
        return {
            "lineage_id": row["lineage_id"],
            "owner_id": self.owner_id,
            "seq": self._moment(seq),
            "slot": slot,
            "checkpoint_id": row["checkpoint_id"],
            "task_id": task,
            "ns": row["ns"],
            "channel": channel,
            "path": path,
            "body": self._seal(body, row["lineage_id"], place),
        }

    async def _marks(self, labels: list[Any], pins: list[Any]) -> None:
        for given in labels:
            place = encryption.label(self.thread_id, text.unescape(given["name"]))
            body = given["body"] and self._seal(given["body"], self._head(), place)
            await self._mark("bundle_add_label", given, body=body, lineage_id=self._head())
        for given in pins:
            await self._mark("bundle_add_pin", given)

    async def _mark(self, query: str, given: Mapping[str, Any], **more: Any) -> None:
        row: dict[str, Any] = {
            **given,
            "thread_id": text.escape(self.thread_id),
            "owner_id": self.owner_id,
            "checkpoint_id": UUID(given["checkpoint_id"]),
            **more,
        }
        await self.conn.execute(_queries[query], row)

    async def _flush(self) -> None:
        cursor = self.conn.cursor()
        if self.checkpoints:
            await cursor.executemany(_queries["bundle_add_checkpoint"], self.checkpoints)
        if self.writes:
            await cursor.executemany(_queries["bundle_add_write"], self.writes)
        self.waiting = 0
        self.checkpoints.clear()
        self.writes.clear()

    def _head(self) -> int:
        """The lineage that the session is on."""
        assert self.header is not None
        if self.header["head"] not in self.own:
            raise BundleEdited("the session is on a line that is not its own")
        return self._lineage_id(self.header["head"])

    async def finish(self, actor: str | None, reason: str | None) -> Imported:
        assert self.header is not None
        with _believing_nothing():
            head = self._head()
            source = str(self.header["thread_id"])
            links = [
                {"lineage_id": child, "source_id": self._lineage_id(number)}
                for child, number in self.sources.items()
            ]
            if links:
                await self.conn.cursor().executemany(_queries["bundle_set_source"], links)
        await self.conn.execute(
            _queries["bundle_set_head"],
            {"thread_id": text.escape(self.thread_id), "lineage_id": head},
        )
        made = {
            "owner_id": self.owner_id,
            "thread_id": text.escape(self.thread_id),
            "to_id": head,
            "actor": actor,
            "reason": reason or f"imported from a bundle of {source}",
        }
        await self.conn.execute(_queries["bundle_move"], made)
        return Imported(self.thread_id, source, self.header["session"], **self.counts)


def _int(value: Any) -> int:
    if type(value) is not int:
        raise BundleEdited(f"{value!r:.40} is no number")
    return value


def _time(value: str) -> datetime:
    return datetime.fromisoformat(value)


def _uuid(value: str | None) -> UUID | None:
    return None if value is None else UUID(value)
