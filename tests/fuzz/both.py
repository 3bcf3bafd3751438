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

    def clear(self) -> None:
        """Forget what the reference holds; in place, for a graph works with a copy of this."""
        for held in (self.reference.storage, self.reference.writes, self.reference.blobs):
            held.clear()

    def get_next_version(self, current: str | None, channel: None) -> str:
        return self.ours.get_next_version(current, channel)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        found = await self.ours.aget_tuple(config)
        same(found, self.reference.get_tuple(config))
        return found

    async def alist(self, config: RunnableConfig | None, **kwargs: Any) -> AsyncIterator[Any]:
        found = [one async for one in self.ours.alist(config, **kwargs)]
        expected = list(self.reference.list(config, **kwargs))
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


def _ns(one: CheckpointTuple) -> str:
    return one.config.get("configurable", {})["checkpoint_ns"]


def _comparable(writes: Any) -> Any:
    return [(task_id, channel, value) for task_id, channel, value in writes or ()]
