"""Deleting beside forks: whoever comes first, what a living session sees is there."""

import asyncio
import copy
import os
import uuid
from typing import Any

import pytest
import pytest_asyncio
from langgraph.types import Command

from clew.checkpointing import lineage, retention
from clew.checkpointing.encryption import Keyring
from clew.checkpointing.errors import NothingToUndo, UnknownThread
from clew.checkpointing.keys import Vault
from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.checkpointing.saver import Saver
from tests.test_lineage import (
    TABLES,
    another_turn,
    answer,
    answer_right,
    at,
    begin,
    counts,
    delta,
    fork,
    head_of,
    history,
    look,
    moving,
    one_question,
    parallel_questions,
    purge,
    restore,
    saver,
    three_steps,
    undo,
)
from tests.test_retention import blocked

__all__ = ["saver"]

Graph = Any


async def states(graph: Graph, thread_id: str) -> list[Any]:
    """All of the history, in what can be compared between sessions."""
    return [
        (s.config["configurable"]["checkpoint_id"], s.values, s.next, s.metadata)
        async for s in graph.aget_state_history(at(thread_id))
    ]


async def _clear(saver: Saver, thread_id: str) -> None:
    async with moving(saver) as conn:
        await retention.clear(conn, thread_id)


@pytest.mark.parametrize("delete", [purge, _clear])
async def test_a_fork_that_is_under_way_when_its_source_is_deleted_is_whole(
    saver: Saver, db: Database, delete: Any
) -> None:
    graph = three_steps(saver)
    await begin(graph, "source")
    await another_turn(graph, "source")
    then, past = await look(graph, "source"), await states(graph, "source")
    async with asyncio.TaskGroup() as group, moving(saver) as conn:
        await lineage.fork(conn, "source", "forked")
        group.create_task(delete(saver, "source"))
        await blocked(db, 1)
    assert await look(graph, "forked") == then
    assert await states(graph, "forked") == past


@pytest.mark.parametrize("others", [False, True])
async def test_a_fork_that_waited_for_a_purge_finds_no_session(
    saver: Saver, db: Database, others: bool
) -> None:
    graph = three_steps(saver)
    await begin(graph, "source")
    if others:  # what they see of it is still there then
        await fork(saver, "source", "other")
    async with asyncio.TaskGroup() as group:
        async with moving(saver) as conn:
            await lineage.purge(conn, "source")
            waiting = group.create_task(_refused(fork(saver, "source", "forked")))
            await blocked(db, 1)
        await waiting
    assert await saver.aget_tuple(at("forked")) is None


async def _refused(forking: Any) -> None:
    with pytest.raises(UnknownThread):
        await forking


# -- keys


@pytest_asyncio.fixture
async def sealed(db: Database) -> tuple[Saver, Saver]:
    """Two processes of one owner, with the same keys."""
    who, keys = Principal.owner(await db.owner("test", "one")), Keyring([("k", os.urandom(32))])
    first, second = (Saver(db, principal=who, vault=Vault(keys)) for _ in range(2))
    return first, second


async def test_writes_that_a_fork_copied_keep_their_key(sealed: tuple[Saver, Saver]) -> None:
    saver, other = sealed
    graph = parallel_questions(saver)
    await begin(graph, "source")
    past = await states(graph, "source")
    await fork(saver, "source", "forked")
    await answer(graph, "forked", "left", "a")
    then = await look(graph, "forked")
    await fork(saver, "forked", "again")
    await purge(saver, "forked")
    graph = parallel_questions(other)
    assert await look(graph, "again") == then
    assert await states(graph, "again") == past
    assert (await answer_right(graph, "again"))["log"] == [
        "hello", "left got a", "right got b", "join",
    ]  # fmt: skip


async def test_writes_that_a_restore_copied_keep_their_key(sealed: tuple[Saver, Saver]) -> None:
    saver, other = sealed
    graph = parallel_questions(saver)
    await begin(graph, "source")
    asked = await head_of(graph, "source")
    await restore(saver, "source", asked)
    await answer(graph, "source", "left", "a")
    then = await look(graph, "source")
    await restore(saver, "source", asked)
    await saver.aprune(["source"])
    graph = parallel_questions(other)
    left = await look(graph, "source")
    assert (left["tasks"], left["values"]) == (then["tasks"], then["values"])
    assert (await answer_right(graph, "source"))["log"][-2:] == ["right got b", "join"]


async def test_a_copy_that_was_put_again_is_forked_with_its_values(
    sealed: tuple[Saver, Saver],
) -> None:
    saver, other = sealed
    graph = three_steps(saver)
    await begin(graph, "source")
    await fork(saver, "source", "forked")
    found = await saver.aget_tuple(at("forked"))
    assert found
    assert found.parent_config
    put = copy.deepcopy(found.checkpoint)
    put["channel_values"]["log"] = ["put again"]
    put["channel_versions"]["log"] = saver.get_next_version(
        str(put["channel_versions"]["log"]), None
    )
    versions: Any = {"log": put["channel_versions"]["log"]}
    await saver.aput(found.parent_config, put, found.metadata, versions)
    await fork(saver, "forked", "again")
    await purge(saver, "forked")
    state = await three_steps(other).aget_state(at("again"))
    assert state.values == {"log": ["put again"]}


async def test_restores_of_an_untouched_copy_build_no_chain(saver: Saver, db: Database) -> None:
    graph = one_question(saver)
    await begin(graph, "source")
    asked = await head_of(graph, "source")
    for _ in range(4):
        await restore(saver, "source", asked)
        await graph.ainvoke(Command(resume="no"), at("source"))
    rows = await db.fetch(SERVICE, "select parent_id from clew.lineage order by lineage_id")
    assert [row["parent_id"] for row in rows] == [None, 1, 1, 1, 1]


# -- keeping the latest


async def test_the_latest_of_a_fork_keeps_what_its_deltas_are_made_of(saver: Saver) -> None:
    graph = delta(saver)
    for _ in range(3):
        await begin(graph, "source")
        await graph.ainvoke(Command(resume="yes"), at("source"))
    past = await history(graph, "source")
    for i, checkpoint_id in enumerate(past):
        await fork(saver, "source", f"F{i}", checkpoint_id=checkpoint_id)
        then = await look(graph, f"F{i}")
        await saver.aprune([f"F{i}"])
        after = await look(graph, f"F{i}")
        assert (after["values"], after["tasks"]) == (then["values"], then["tasks"])
    await saver.aprune(["source"])
    for i in (0, len(past) - 3):
        before = (await look(graph, f"F{i}"))["values"]["log"]
        result = await graph.ainvoke({"log": ["on"]}, at(f"F{i}"))
        assert result["log"][: len(before) + 1] == [*before, "on"]


async def test_the_latest_of_a_restored_session_keeps_what_its_deltas_are_made_of(
    saver: Saver,
) -> None:
    graph = delta(saver)
    for _ in range(2):
        await begin(graph, "source")
        await graph.ainvoke(Command(resume="yes"), at("source"))
    past = await history(graph, "source")
    for checkpoint_id in past:
        await fork(saver, "source", checkpoint_id)
        await restore(saver, checkpoint_id, checkpoint_id)
        then = await look(graph, checkpoint_id)
        await saver.aprune([checkpoint_id])
        assert (await look(graph, checkpoint_id))["values"] == then["values"]
        with pytest.raises(NothingToUndo):
            await undo(saver, checkpoint_id)
    await restore(saver, "source", past[2])
    then = await look(graph, "source")
    await begin(graph, "source")
    await restore(saver, "source", past[2])
    await saver.aprune(["source"])
    assert (await look(graph, "source"))["values"] == then["values"]


async def test_a_fork_of_a_restored_session_keeps_its_history_when_that_is_thinned(
    saver: Saver,
) -> None:
    graph = three_steps(saver)
    await begin(graph, "source")
    await restore(saver, "source", (await history(graph, "source"))[2])
    await another_turn(graph, "source")
    await fork(saver, "source", "forked")
    past = await states(graph, "forked")
    await saver.aprune(["source"])
    assert await states(graph, "forked") == past
    await purge(saver, "source")
    assert await states(graph, "forked") == past
    await saver.aprune(["forked"])
    assert await states(graph, "forked") == past[:1]


async def test_what_is_forked_while_the_source_is_thinned_keeps_its_history(
    saver: Saver, db: Database
) -> None:
    graph = three_steps(saver)
    await begin(graph, "source")
    await restore(saver, "source", (await history(graph, "source"))[2])
    await another_turn(graph, "source")
    past = await states(graph, "source")
    async with asyncio.TaskGroup() as group, moving(saver) as conn:
        await lineage.fork(conn, "source", "forked")
        group.create_task(saver.aprune(["source"]))
        await blocked(db, 1)
    assert await states(graph, "forked") == past


# -- runs


async def test_deleting_a_run_and_restoring_its_session_wait_for_each_other(
    saver: Saver, db: Database
) -> None:
    """Both take the head before the lineage."""
    graph = three_steps(saver)
    runs = [str(uuid.uuid4()) for _ in range(3)]
    for run_id in runs:
        await graph.ainvoke({"log": [run_id]}, {**at("source"), "metadata": {"run_id": run_id}})
    past = await history(graph, "source")
    async with asyncio.TaskGroup() as group, moving(saver) as conn:
        await lineage.claim(conn, "source")
        group.create_task(saver.adelete_for_runs([runs[0]]))
        await blocked(db, 1)
        # Had it taken the lineage before it waited, this would be a deadlock.
        await lineage.restore(conn, "source", past[2])
    assert [s[0] for s in await states(graph, "source")][:2] == past[2:4]


async def test_runs_of_a_session_that_was_purged_meanwhile_are_passed_over(
    saver: Saver, db: Database
) -> None:
    graph = three_steps(saver)
    run_id = str(uuid.uuid4())
    await graph.ainvoke({"log": ["one"]}, {**at("source"), "metadata": {"run_id": run_id}})
    async with asyncio.TaskGroup() as group, moving(saver) as conn:
        await lineage.purge(conn, "source")
        group.create_task(saver.adelete_for_runs([run_id]))
        await blocked(db, 1)
    assert await counts(db) == dict.fromkeys(TABLES, 0)
