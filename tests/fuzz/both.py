"""Our saver and `InMemorySaver` as one: both are given every write and asked every question."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver

from clew.checkpointing.saver import Saver

T = TypeVar("T")


class Both(BaseCheckpointSaver[str]):
    """Writes to ours and to the reference; a read that differs is a failure."""

    def __init__(self, ours: Saver) -> None:
        super().__init__()
        self.ours = ours
        self.reference = InMemorySaver()
        # By session: what it has of another, as a fork or by a restore; and what it does not see.
        self.inherited: dict[str, set[tuple[str, str]]] = {}
        self.hidden: dict[str, set[tuple[str, str]]] = {}

    def clear(self) -> None:
        """Forget what the reference holds; in place, for a graph works with a copy of this."""
        reference = self.reference
        for held in (reference.storage, reference.writes, reference.blobs):
            held.clear()
        self.inherited.clear()
        self.hidden.clear()

    def in_sight(self, name: str, ns: str) -> set[tuple[str, str]]:
        """What a session sees of a stateful subgraph's one history: its own calls, and of those
        that it has of another what lies on the way back from them. The reference also holds the
        calls of branches beside that way."""
        found = list(
            self.reference.list({"configurable": {"thread_id": name, "checkpoint_ns": ns}})
        )
        parents = {_key(one): _key(one, parent=True) for one in found}
        past = self.inherited.get(name, set())
        own = [
            key for key in parents if key not in past and key not in self.hidden.get(name, set())
        ]
        at = parents[own[-1]] if own else next(iter(parents), None)
        seen = set(own)
        while at in past:
            seen.add(at)
            at = parents.get(at)
        return seen

    def _expected(
        self, config: RunnableConfig | None, limit: int | None = None, **rest: Any
    ) -> Any:
        asked = (config or {}).get("configurable", {})
        name, ns = asked.get("thread_id", ""), asked.get("checkpoint_ns", "")
        if not ns or not (name in self.inherited or name in self.hidden):
            return list(self.reference.list(config, limit=limit, **rest))
        seen = self.in_sight(name, ns)
        return [one for one in self.reference.list(config, **rest) if _key(one) in seen][:limit]

    def get_next_version(self, current: str | None, channel: None) -> str:
        return self.ours.get_next_version(current, channel)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        found = await self.ours.aget_tuple(config)
        same(found, self.reference.get_tuple(config))
        return found

    async def alist(self, config: RunnableConfig | None, **kwargs: Any) -> AsyncIterator[Any]:
        found = [one async for one in self.ours.alist(config, **kwargs)]
        expected = self._expected(config, **kwargs)
        assert len(found) == len(expected)
        if config and "checkpoint_ns" not in config.get("configurable", {}):
            # The reference lists one namespace after the other, ours as it happened.
            found.sort(key=_ns)
            expected.sort(key=_ns)
        for one, other in zip(found, expected, strict=True):
            same(one, other)
            yield one

    async def aput(
        self, config: RunnableConfig, checkpoint: Any, metadata: Any, new_versions: Any
    ) -> RunnableConfig:
        self.reference.put(config, checkpoint, metadata, new_versions)
        return await _whole(self.ours.aput(config, checkpoint, metadata, new_versions))

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[Any], task_id: str, task_path: str = ""
    ) -> None:
        self.reference.put_writes(config, writes, task_id, task_path)
        await _whole(self.ours.aput_writes(config, writes, task_id, task_path))

    async def aget_delta_channel_history(self, *, config: Any, channels: Any) -> Any:
        found = await self.ours.aget_delta_channel_history(config=config, channels=channels)
        expected = self.reference.get_delta_channel_history(config=config, channels=channels)
        assert found == expected
        return found


async def _whole(work: Coroutine[Any, Any, T]) -> T:
    """Both sides or neither: a task that is cancelled in the middle of a write ends it first."""
    writing = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(writing)
    except asyncio.CancelledError:
        await writing
        raise


def same(found: CheckpointTuple | None, expected: CheckpointTuple | None) -> None:
    assert (found is None) == (expected is None)
    if found is None or expected is None:
        return
    ids = ("thread_id", "checkpoint_ns", "checkpoint_id")
    for config, other in (
        (found.config, expected.config),
        (found.parent_config, expected.parent_config),
    ):
        assert (config is None) == (other is None)
        if config and other:
            a, b = config.get("configurable", {}), other.get("configurable", {})
            assert [a[i] for i in ids] == [
                b[i] if i != "checkpoint_ns" else b.get(i, "") for i in ids
            ]
    assert found.metadata == expected.metadata
    # LangGraph reads a missing `updated_channels` as none.
    assert found.checkpoint == {"updated_channels": None, **expected.checkpoint}
    assert list(found.checkpoint["channel_values"]) == list(expected.checkpoint["channel_values"])
    assert _comparable(found.pending_writes) == _comparable(expected.pending_writes)


def _key(one: CheckpointTuple, *, parent: bool = False) -> tuple[str, str]:
    config = one.parent_config if parent else one.config
    held = (config or {}).get("configurable", {})
    return held.get("checkpoint_ns", ""), held.get("checkpoint_id", "")


def _ns(one: CheckpointTuple) -> str:
    return one.config.get("configurable", {})["checkpoint_ns"]


def _comparable(writes: Any) -> Any:
    return [(task_id, channel, value) for task_id, channel, value in writes or ()]
