"""Random programs against `InMemorySaver`: every read that LangGraph makes must be the same.

Both savers are given every write and asked every question, in one run of the graph, so that ids
and times agree and nothing has to be overlooked. Forks and restores, which `InMemorySaver` does
not have, are made there by hand: the rows that were there at the moment in question, copied.

A short version is part of the suite. `CLEW_LONG` makes it long, `CLEW_FUZZ_EXAMPLES` says how many
programs, `CLEW_FUZZ_SEED` which ones.
"""

import asyncio
import copy
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, given, settings
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.errors import EmptyInputError
from langgraph.types import Command

from clew.checkpointing import lineage
from clew.checkpointing.errors import CheckpointError
from clew.checkpointing.postgres import Database, Principal
from clew.checkpointing.saver import Saver
from clew.checkpointing.tracks import Memory
from tests.fuzz import programs
from tests.fuzz.both import Both

LONG = "CLEW_LONG" in os.environ
ASKED = os.environ.get("CLEW_FUZZ_EXAMPLES")
EXAMPLES = int(ASKED or (5000 if LONG else 400))
# As part of the suite a slow machine plays fewer programs, but at least so many.
FEWEST, SECONDS = (EXAMPLES, 0) if LONG or ASKED else (50, 90)
SEED = int(os.environ.get("CLEW_FUZZ_SEED", "0"))

SIMPLEST: list[programs.Act] = [("turn", [("say", "hi"), ("say", "hi")], "sync")] * 3

Rows = dict[str, Any]


class Play:
    """One program's sessions, on both sides."""

    def __init__(self, saver: Both, graph: Any, name: str) -> None:
        saver.clear()
        self.both = saver
        self.graph = graph
        self.names = [name]
        self.now = name
        # Sessions of which the reference knows every row in every namespace: one of those that it
        # was made to copy by hand has calls there that are not on its path.
        self.known = {name}
        self.count = 0
        # What the reference held for a session when a checkpoint was its head.
        self.moments: dict[tuple[str, str], Rows] = {}
        # What a restore left, for an undo: rows, moments, and what was inherited and not in sight.
        self.left: dict[str, list[tuple[Rows, dict[tuple[str, str], Rows], tuple[Any, Any]]]] = {}

    async def run(self, program: Sequence[programs.Act]) -> None:
        for number, step in enumerate(program):
            await self.step(step)
            # A read also teaches the saver, so not every step is followed by the same ones.
            await self.graph.aget_state(self.at(), subgraphs=True)
            if number % 2:
                await self.listed(self.now)
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
            await self.graph.aupdate_state(self.at(), values, as_node="work" if at_work else "plan")
            await self.note()

    async def listed(self, name: str) -> list[CheckpointTuple]:
        """A session's checkpoints, of every namespace where that can be compared."""
        at = self.at(name) if name in self.known else root(self.at(name))
        return [one async for one in self.both.alist(at)]

    async def nth(self, n: int) -> RunnableConfig | None:
        """One of the session's own checkpoints, counted from the newest."""
        past = list(self.both.reference.list(root(self.at())))
        if not past:
            return None
        found = await self.both.aget_tuple(past[n % len(past)].config)
        return found.config if found else None

    async def note(self) -> None:
        """Remember what the head looks like now, for a fork that begins here later."""
        found = self.both.reference.get_tuple(self.at())
        if found is not None:
            self.moments[self.now, found.checkpoint["id"]] = self.rows(self.now)

    async def check(self, name: str) -> None:
        """Each of a session's checkpoints by its id, and what LangGraph makes of some of them."""
        for n, one in enumerate(await self.listed(name)):
            if n % 3 == 0 and not one.config.get("configurable", {})["checkpoint_ns"]:
                await self.graph.aget_state(one.config, subgraphs=True)
            else:
                await self.both.aget_tuple(one.config)

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
        self.both.inherited[name] = self.keys(name)
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
        sight = (self.both.inherited.get(self.now), self.both.hidden.pop(self.now, None))
        self.left.setdefault(self.now, []).append((self.rows(self.now), dict(self.moments), sight))
        self.install(self.now, then)
        self.both.inherited[self.now] = self.keys(self.now)
        self.known.discard(self.now)
        await self.note()

    async def undo(self) -> None:
        before = self.left.get(self.now)
        async with self.both.ours.db.transaction(self.both.ours.principal) as conn:
            if not before:
                with pytest.raises(CheckpointError):
                    await lineage.undo(conn, self.now)
                return
            await lineage.undo(conn, self.now)
        rows, self.moments, (inherited, hidden) = before.pop()
        self.install(self.now, rows)
        self.both.inherited[self.now] = inherited or set()
        self.both.hidden[self.now] = hidden or set()

    async def copy(self) -> None:
        if await self.nth(0) is None:
            return
        self.count += 1
        name = f"{self.names[0]}-{self.count}"
        await self.both.ours.acopy_thread(self.now, name)
        self.install(name, self.rows(self.now))
        keys = self.keys(name)
        seen = {key for ns in {ns for ns, _ in keys} for key in self.both.in_sight(self.now, ns)}
        self.both.hidden[name] = {(ns, one) for ns, one in keys - seen if ns}
        self.inherit(self.now, name)
        self.names.append(name)
        if self.now in self.known:
            self.known.add(name)
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

    def keys(self, name: str) -> set[tuple[str, str]]:
        storage = self.both.reference.storage.get(name, {})
        return {(ns, one) for ns, found in storage.items() for one in found}

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


def root(config: RunnableConfig) -> RunnableConfig:
    return {"configurable": {**config.get("configurable", {}), "checkpoint_ns": ""}}


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as running:
        yield running


@pytest.mark.timeout(4 * 3600 if LONG or ASKED else 600)
def test_every_read_is_that_of_the_reference(dsn: str, runner: asyncio.Runner) -> None:
    opened = Database.open(dsn)
    db = runner.run(opened.__aenter__())
    db.prepares = True  # as a server does where no pooler is in between
    owner_id = runner.run(db.owner("fuzz", "one"))

    async def begin() -> Both:
        return Both(Saver(db, principal=Principal.owner(owner_id)))

    both = runner.run(begin())
    failed: set[int] = set()
    graph = programs.graph(both, failed)
    played = 0

    # Hypothesis begins to vary what it has after ten examples, and most of what it plays from then
    # on is nearly what it played before. So it begins anew after ten.
    @settings(
        max_examples=10,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(program=programs.PROGRAMS)
    def fuzz(program: list[programs.Act]) -> None:
        nonlocal played
        if program == SIMPLEST and played:
            return  # the first one of each ten
        failed.clear()
        played += 1
        runner.run(Play(both, graph, f"p{played}").run(program))

    # Another Postgres, other programs.
    first = SEED or runner.run(server_version(db))
    began = time.monotonic()
    try:
        for seed in itertools.count(first << 32):
            hypothesis.seed(seed)(fuzz)()
            late = time.monotonic() - began > SECONDS
            if played >= (FEWEST if late else EXAMPLES):
                break
    finally:
        runner.run(opened.__aexit__(None, None, None))
    print(f"{played} programs from seed {first} in {time.monotonic() - began:.0f} s")


async def server_version(db: Database) -> int:
    async with db.connection() as conn:
        return conn.info.server_version // 10000
