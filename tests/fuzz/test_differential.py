"""Random programs against `InMemorySaver`: every read that LangGraph makes must be the same.

Both savers are given every write and asked every question, in one run of the graph, so that ids
and times agree and nothing has to be overlooked. Forks and restores, which `InMemorySaver` does
not have, are made there by hand: the rows that were there at the moment in question, copied.

`CLEW_FUZZ_EXAMPLES` says how many programs, `CLEW_FUZZ_SEED` which ones.
"""

import asyncio
import copy
import os
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import hypothesis
import pytest
from hypothesis import HealthCheck, given, settings
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import EmptyInputError
from langgraph.types import Command

from clew.checkpointing import lineage
from clew.checkpointing.errors import CheckpointError
from clew.checkpointing.postgres import Database, Principal
from clew.checkpointing.saver import Saver
from clew.checkpointing.tracks import Memory
from tests.fuzz import programs

Rows = dict[str, Any]
T = TypeVar("T")


class Both(BaseCheckpointSaver[str]):
    """Writes to ours and to the reference; a read that differs is a failure."""

    def __init__(self, ours: Saver) -> None:
        super().__init__()
        self.ours = ours
        self.reference = InMemorySaver()

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


def _comparable(writes: Any) -> Any:
    return [(task_id, channel, value) for task_id, channel, value in writes or ()]


class Play:
    """One program's sessions, on both sides."""

    def __init__(self, saver: Both, name: str) -> None:
        self.both = saver
        self.graph = programs.graph(saver)
        self.names = [name]
        self.now = name
        self.count = 0
        # What the reference held for a session when a checkpoint was its head.
        self.moments: dict[tuple[str, str], Rows] = {}
        self.left: dict[str, list[tuple[Rows, dict[tuple[str, str], Rows]]]] = {}

    async def run(self, program: Sequence[programs.Act]) -> None:
        for step in program:
            await self.step(step)
            await self.graph.aget_state(self.at(), subgraphs=True)
            await self.history(self.now)
        for name in self.names:
            await self.check(name)

    async def step(self, step: programs.Act) -> None:  # noqa: C901 - one line for each
        match step:
            case ("turn", acts, durability):
                await self.invoke({"todo": acts}, self.at(), durability)
            case ("answer", text, all_of_them, durability):
                await self.answer(text, all_of_them, durability)
            case ("go on", durability):
                await self.invoke(None, self.at(), durability)
            case ("update", text, at_work):
                await self.update(text, at_work)
            case ("replay", n, durability):
                if config := await self.nth(n):
                    await self.invoke(None, config, durability)
            case ("branch", n, acts):
                if config := await self.nth(n):
                    await self.invoke({"todo": acts}, config, "async")
            case ("fork", n):
                await self.fork(n)
            case ("restore", n):
                await self.restore(n)
            case ("undo",):
                await self.undo()
            case ("copy",):
                await self.copy()
            case ("purge", n):
                await self.purge(n)
            case _:
                # Another process takes over: it knows nothing.
                self.both.ours._memory = Memory()  # pyright: ignore[reportPrivateUsage]

    def at(self, name: str | None = None) -> RunnableConfig:
        return {"configurable": {"thread_id": name or self.now}}

    async def invoke(self, given: Any, config: RunnableConfig, durability: str) -> None:
        with suppress(ArithmeticError, EmptyInputError):
            await self.graph.ainvoke(
                given, {**config, "recursion_limit": 60}, durability=durability
            )
        await self.note()

    async def answer(self, text: str, all_of_them: bool, durability: str) -> None:
        state = await self.graph.aget_state(self.at())
        if state.interrupts:
            chosen = state.interrupts if all_of_them else state.interrupts[-1:]
            await self.invoke(Command(resume={i.id: text for i in chosen}), self.at(), durability)

    async def update(self, text: str, at_work: bool) -> None:
        state = await self.graph.aget_state(self.at())
        if state.config["configurable"].get("checkpoint_id"):
            values = {"notes": [text], "log": [text]}
            await self.graph.aupdate_state(self.at(), values, as_node="work" if at_work else "done")
            await self.note()

    async def history(self, name: str) -> list[RunnableConfig]:
        return [one.config async for one in self.graph.aget_state_history(self.at(name))]

    async def nth(self, n: int) -> RunnableConfig | None:
        past = await self.history(self.now)
        return past[n % len(past)] if past else None

    async def note(self) -> None:
        """Remember what the head looks like now, for a fork that begins here later."""
        found = self.both.reference.get_tuple(self.at())
        if found is not None:
            self.moments[self.now, found.checkpoint["id"]] = self.rows(self.now)

    async def check(self, name: str) -> None:
        await self.graph.aget_state(self.at(name), subgraphs=True)
        async for state in self.graph.aget_state_history(self.at(name)):
            await self.graph.aget_state(state.config, subgraphs=True)

    # -- what the reference does not have

    async def fork(self, n: int) -> None:
        config = await self.nth(n)
        if config is None:
            return
        checkpoint_id: str = config.get("configurable", {})["checkpoint_id"]
        self.count += 1
        name = f"{self.names[0]}-{self.count}"
        async with self.both.ours.db.transaction(self.both.ours.principal) as conn:
            await lineage.fork(conn, self.now, name, checkpoint_id=checkpoint_id)
        self.install(name, self.as_of(self.now, checkpoint_id))
        self.inherit(self.now, name)
        self.names.append(name)
        self.now = name
        await self.note()

    async def restore(self, n: int) -> None:
        config = await self.nth(n)
        if config is None:
            return
        checkpoint_id: str = config.get("configurable", {})["checkpoint_id"]
        then = self.as_of(self.now, checkpoint_id)
        async with self.both.ours.db.transaction(self.both.ours.principal) as conn:
            await lineage.restore(conn, self.now, checkpoint_id)
        self.left.setdefault(self.now, []).append((self.rows(self.now), dict(self.moments)))
        self.install(self.now, then)
        await self.note()

    async def undo(self) -> None:
        before = self.left.get(self.now)
        async with self.both.ours.db.transaction(self.both.ours.principal) as conn:
            if not before:
                with pytest.raises(CheckpointError):
                    await lineage.undo(conn, self.now)
                return
            await lineage.undo(conn, self.now)
        rows, self.moments = before.pop()
        self.install(self.now, rows)

    async def copy(self) -> None:
        if not await self.history(self.now):
            return
        self.count += 1
        name = f"{self.names[0]}-{self.count}"
        await self.both.ours.acopy_thread(self.now, name)
        self.install(name, self.rows(self.now))
        self.inherit(self.now, name)
        self.names.append(name)
        self.now = name

    async def purge(self, n: int) -> None:
        if len(self.names) == 1:
            return
        name = self.names[n % len(self.names)]
        if name == self.now:
            return
        self.names.remove(name)
        self.left.pop(name, None)
        await self.both.ours.adelete_thread(name)
        self.both.reference.delete_thread(name)

    def inherit(self, source: str, target: str) -> None:
        self.moments |= {
            (target, checkpoint_id): rows
            for (name, checkpoint_id), rows in self.moments.items()
            if name == source
        }

    def rows(self, name: str) -> Rows:
        reference = self.both.reference
        return {
            "storage": {ns: dict(found) for ns, found in reference.storage.get(name, {}).items()},
            "writes": {k[1:]: dict(v) for k, v in reference.writes.items() if k[0] == name},
            "blobs": {k[1:]: v for k, v in reference.blobs.items() if k[0] == name},
        }

    def install(self, name: str, rows: Rows) -> None:
        reference = self.both.reference
        reference.delete_thread(name)
        rows = copy.deepcopy(rows)
        for ns, found in rows["storage"].items():
            reference.storage[name][ns].update(found)
        reference.writes.update({(name, *k): v for k, v in rows["writes"].items()})
        reference.blobs.update({(name, *k): v for k, v in rows["blobs"].items()})

    def as_of(self, name: str, checkpoint_id: str) -> Rows:
        """The path to a checkpoint, with what was under way when it was last the head."""
        moment = self.moments.get((name, checkpoint_id))
        rows = copy.deepcopy(moment or self.rows(name))
        roots = rows["storage"][""]
        path: list[str] = []
        at: str | None = checkpoint_id
        while at is not None and at in roots:
            path.append(at)
            at = roots[at][2]
        for ns, found in rows["storage"].items():
            for one in list(found):
                root = self.root_of(ns, one, found[one])
                before = root in path[1:] or (root == checkpoint_id and moment is not None)
                if ":" not in ns and ns:
                    # One history for all calls, whichever branch made them.
                    before = one < checkpoint_id or (root == checkpoint_id and before)
                if not (before or (not ns and one in path)):
                    del found[one]
        kept = {(ns, one) for ns, found in rows["storage"].items() for one in found}
        rows["writes"] = {
            k: v
            for k, v in rows["writes"].items()
            if k in kept and (k != ("", checkpoint_id) or moment is not None)
        }
        return rows

    def root_of(self, ns: str, checkpoint_id: str, row: Any) -> str:
        if not ns:
            return checkpoint_id
        return self.both.reference.serde.loads_typed(row[1])["parents"][""]


def examples() -> int:
    return int(os.environ.get("CLEW_FUZZ_EXAMPLES", "40"))


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as running:
        yield running


@pytest.mark.timeout(0)
def test_every_read_is_that_of_the_reference(dsn: str, runner: asyncio.Runner) -> None:
    opened = Database.open(dsn)
    db = runner.run(opened.__aenter__())
    numbers = iter(range(10**9))

    async def play(program: Sequence[programs.Act]) -> None:
        owner_id = await db.owner("fuzz", "one")
        both = Both(Saver(db, principal=Principal.owner(owner_id)))
        await Play(both, f"p{next(numbers)}").run(program)

    seed = os.environ.get("CLEW_FUZZ_SEED")

    @settings(
        max_examples=examples(),
        deadline=None,
        derandomize=seed is None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(program=programs.PROGRAMS)
    def fuzz(program: list[programs.Act]) -> None:
        runner.run(play(program))

    try:
        (hypothesis.seed(int(seed))(fuzz) if seed else fuzz)()
    finally:
        runner.run(opened.__aexit__(None, None, None))
