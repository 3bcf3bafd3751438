"""LangGraph's checkpoint saver on our tables: linear storage, one round trip per operation.

async with Saver.open(dsn) as saver:
    graph = builder.compile(checkpointer=saver)
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import psycopg
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from clew.checkpointing import (
    address,
    codec,
    delta,
    items,
    listing,
    manifest,
    metadata,
    migrate,
    path,
    rows,
    seals,
    survey,
    text,
)
from clew.checkpointing.encryption import Keyring
from clew.checkpointing.errors import (
    CyclicLineage,
    FenceLost,
    InvalidId,
    UnknownBody,
    UnknownThread,
)
from clew.checkpointing.extended import Extended
from clew.checkpointing.fences import Fence
from clew.checkpointing.items import New
from clew.checkpointing.keys import Vault
from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.checkpointing.sql import Queries
from clew.checkpointing.tracks import Track, relative

T = TypeVar("T")

_SQL = Queries("clew.checkpointing.queries")
_ATTEMPTS = 6
# What a read of several statements may meet if something is pruned in between.
_PRUNED = (UnknownBody, CyclicLineage)


class Saver(Extended):
    """One object per process; `bind` makes a cheap copy for a run or a request.

    Copies share the pool and what is remembered of each session; LangGraph makes some of its own
    with `copy.copy`.
    """

    def __init__(
        self,
        db: Database,
        *,
        principal: Principal = SERVICE,
        owner_id: int | None = None,
        fence: Fence | None = None,
        on_lost: Callable[[FenceLost], None] | None = None,
        metadata_keys: Collection[str] = (),
        serde: SerializerProtocol | None = None,
        vault: Vault | None = None,
    ) -> None:
        super().__init__(
            db,
            principal=principal,
            owner_id=owner_id,
            fence=fence,
            on_lost=on_lost,
            serde=serde,
            vault=vault,
        )
        self._declared = tuple(metadata_keys)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        dsn: str,
        *,
        owner: str = "local",
        serde: SerializerProtocol | None = None,
        keyring: Keyring | None = None,
    ) -> AsyncGenerator[Saver]:
        """Migrate, open a pool of its own, and write as one owner; encrypted, with a keyring."""
        await migrate.apply(dsn, "clew.checkpointing.migrations")
        async with Database.open(dsn) as db:
            owner_id = await db.owner("local", owner)
            yield cls(
                db,
                principal=Principal.owner(owner_id),
                owner_id=owner_id,
                serde=serde,
                vault=None if keyring is None else Vault(keyring),
            )

    def get_next_version(self, current: str | None, channel: None) -> str:
        # The random part tells branches apart that count alike. Small, for it is stored.
        number = 0 if current is None else int(str(current).split(".")[0])
        return f"{number + 1:032}.{random.getrandbits(32):016}"

    # -- reading

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        thread_id, ns, checkpoint_id = address.of(config)
        if checkpoint_id is None:
            query = _SQL["read_newest"]
        elif address.is_uuid(checkpoint_id):
            query = _SQL["read_exact"]
        else:
            return None
        found = await self.fetch(
            query,
            {
                "thread_id": text.escape(thread_id),
                "ns": text.escape(ns),
                "checkpoint_id": checkpoint_id,
            },
        )
        if not found:
            self._memory.track(self.principal, thread_id, 0, 0, 0)
            return None
        row = found[0]
        track = self._memory.track(
            self.principal, thread_id, row["line"], row["sweep"], row["clock"]
        )
        mark = rows.ReadAt(thread_id, row["clock"])
        if row["seq"] is None:
            if row["parent_line"] is None:
                return None
            try:
                return await self._inherited(track, mark, ns, checkpoint_id)
            except _PRUNED:
                if not await self._moved(thread_id, row["line"], row["sweep"]):
                    raise
                return await self.aget_tuple(config)
        layout = rows.layout_of(row)
        values = rows.values_of(self.serde, layout, row["bodies"])
        items.learn(self.serde, track, ns, layout, values, row["bodies"] or ())
        writes = rows.writes_of(self.serde, rows.unzip(row))
        return rows.make(mark, row, layout, values, writes)

    async def _inherited(
        self, track: Track, thread_id: rows.ReadAt, ns: str, checkpoint_id: str | None
    ) -> CheckpointTuple | None:
        lines = await path.chain(self.fetch, track.lineage_id)
        if checkpoint_id is None:
            seen = await path.newest(self.fetch, lines, text.escape(ns))
        else:
            seen = await path.find(self.fetch, lines, text.escape(ns), checkpoint_id)
        if seen is None:
            return None
        (loaded,) = await listing.load(self.fetch, self.serde, thread_id, [seen])
        layout = rows.layout_of(seen.row)
        for channel, place in layout.places.items():
            track.remember(ns, channel, layout.versions[channel], relative(place, track))
        return loaded

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncGenerator[CheckpointTuple]:
        if config is None:
            threads = [
                text.unescape(row["thread_id"]) for row in await self.fetch(_SQL["threads"], {})
            ]
        else:
            threads = [str(address.configurable(config)["thread_id"])]
        for thread_id in threads:
            one: RunnableConfig = {
                "configurable": {**address.configurable(config or {}), "thread_id": thread_id}
            }
            async for found in self._list(one, filter or {}, before, limit):
                yield found
                limit = None if limit is None else limit - 1
            if limit is not None and limit <= 0:
                return

    async def _list(
        self,
        config: RunnableConfig,
        only: Mapping[str, Any],
        before: RunnableConfig | None,
        limit: int | None,
    ) -> AsyncGenerator[CheckpointTuple]:
        thread_id = str(address.configurable(config)["thread_id"])
        configurable = address.configurable(config)
        ns = configurable.get("checkpoint_ns")
        wanted = listing.Wanted(
            ns=None if ns is None else text.escape(ns),
            checkpoint_id=address.plain_id(configurable.get("checkpoint_id")),
            metadata=dict(only),
            before_id=address.plain_id(address.configurable(before or {}).get("checkpoint_id")),
            limit=limit,
        )
        for left in reversed(range(_ATTEMPTS)):
            past = await path.past(self.fetch, thread_id)
            if past is None:
                return
            mark = rows.ReadAt(thread_id, past.clock)
            try:
                async for page in listing.pages(self.fetch, past.lines, wanted):
                    for one in await listing.load(self.fetch, self.serde, mark, page):
                        wanted = wanted.after(one.checkpoint["id"])
                        yield one
            except _PRUNED:
                if not left or not await self._moved(thread_id, past.line, past.sweep):
                    raise
            else:
                return

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        if not channels:
            return {}
        thread_id, ns, checkpoint_id = address.of(config)
        for left in reversed(range(_ATTEMPTS)):
            past = await path.past(self.fetch, thread_id)
            if past is None:
                break
            was = past.line, past.sweep
            try:
                found = await delta.history(
                    self.fetch, self.serde, past.lines, text.escape(ns), checkpoint_id, channels
                )
            except _PRUNED:
                if not left or not await self._moved(thread_id, *was):
                    raise
                continue
            # Writes that went in between would not be missed: the value would be another.
            if not await self._moved(thread_id, *was):
                return found
        return {channel: {"writes": []} for channel in channels}

    # -- writing

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        thread_id, ns, parent_id = address.of(config)
        self._own(thread_id)
        put = self._put(config, thread_id, ns, parent_id, checkpoint, metadata, new_versions)
        await self._counted(thread_id, put)
        return rows.config_of(address.configurable(config)["thread_id"], ns, checkpoint["id"])

    async def _put(
        self,
        config: RunnableConfig,
        thread_id: str,
        ns: str,
        parent_id: str | None,
        checkpoint: Checkpoint,
        given: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> None:
        known = metadata.gather(config, cast("dict[str, Any]", given), self._declared)
        columns = metadata.split(ns, known)
        created_at, ts = rows.time_of(checkpoint["ts"])
        for _ in range(_ATTEMPTS):
            track = await survey.track(
                self.fetch, self._memory, self.principal, thread_id, ns, checkpoint, new_versions
            )
            if self.vault is not None and track.lineage_id == 0:
                await self._begin(thread_id, track)
                continue
            new = New()
            places = items.place_all(self.serde, track, new, ns, checkpoint, new_versions)
            state, ranges = manifest.encode(rows.layout_from(checkpoint, places, ts))
            try:
                landed = await self._write(
                    _SQL["put"],
                    {
                        "thread_id": text.escape(thread_id),
                        "epoch": self.fence.epoch if self.fence else None,
                        "lineage_id": track.lineage_id or None,
                        "sweep": track.sweep if track.lineage_id else None,
                        "streams": new.streams,
                        "numbers": new.numbers,
                        "bodies": await self._sealed_items(track, new),
                        "entry": getattr(address.configurable(config)["thread_id"], "clock", 0),
                        "created_at": created_at,
                        "checkpoint_id": address.uuid(checkpoint["id"]),
                        "parent_id": address.uuid(parent_id) if parent_id else None,
                        "root_id": columns.root_id,
                        "run_id": columns.run_id,
                        "step": columns.step,
                        "source": columns.source,
                        "ns": text.escape(ns),
                        "ranges": ranges,
                        "seeds": delta.seeds(known, checkpoint["channel_values"], places),
                        "state": state,
                        "metadata": columns.rest,
                    },
                    begin=track.lineage_id == 0,
                )
            except psycopg.errors.UniqueViolation:
                # Another process took these numbers: a run that nobody fenced off, or a branch.
                track.renew(await self._clock(thread_id))
                continue
            if landed is not None:
                track.lineage_id = track.lineage_id or landed
                items.landed(track, ns, checkpoint, places, new)
                return
            await self._refused(thread_id, track)
        raise UnknownThread(f"session {thread_id} changes hands faster than it can be written")

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        thread_id, ns, checkpoint_id = address.of(config)
        self._own(thread_id)
        if not writes:
            return
        if checkpoint_id is None:
            raise InvalidId("writes belong to a checkpoint, and none was named")
        params = {
            "thread_id": text.escape(thread_id),
            "epoch": self.fence.epoch if self.fence else None,
            "slots": rows.slots(writes),
            "channels": [text.escape(channel) for channel, _ in writes],
            "bodies": [codec.dump(self.serde, value) for _, value in writes],
            "checkpoint_id": address.uuid(checkpoint_id),
            "task_id": address.uuid(task_id),
            "ns": text.escape(ns),
            "path": text.escape(task_path),
        }
        await self._counted(thread_id, self._put_writes(thread_id, params))

    async def _put_writes(self, thread_id: str, params: Mapping[str, Any]) -> None:
        for _ in range(_ATTEMPTS):
            track = self._memory.get(self.principal, thread_id)
            begin = track is not None and track.lineage_id == 0
            sealed: dict[str, Any] = {**params, "lineage_id": None}
            if self.vault is not None:
                if track is None or begin:
                    await self._begin(thread_id, track)
                    continue
                sealer = await self.vault.writer(self.db, self.principal, track.lineage_id)
                sealed["lineage_id"] = track.lineage_id
                sealed["bodies"] = seals.seal_writes(sealer, params)
            if await self._write(_SQL["put_writes"], sealed, begin=begin) is not None:
                return
            await self._refused(thread_id, track)
        raise UnknownThread(f"session {thread_id} changes hands faster than it can be written")
