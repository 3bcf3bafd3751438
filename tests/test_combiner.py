"""What goes out together does not fail together, nor wait for one another's locks."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, LiteralString, cast

import psycopg
import pytest
from langgraph.checkpoint.base import Checkpoint, empty_checkpoint
from langgraph.checkpoint.base.id import uuid6

from clew.checkpointing import lineage, wire
from clew.checkpointing.combiner import CutOff
from clew.checkpointing.errors import FenceLost
from clew.checkpointing.fences import Fence
from clew.checkpointing.postgres import SERVICE, Database
from clew.checkpointing.saver import Saver

_VALUE: LiteralString = "select %s::integer as value"


async def session(db: Database, thread_id: str) -> Saver:
    owner_id = await db.owner("acme", "alice")
    async with db.transaction(SERVICE) as conn:
        await lineage.create(conn, thread_id, owner_id)
        head = await lineage.claim(conn, thread_id)
    return Saver(db, owner_id=owner_id).bind(owner_id=owner_id, fence=Fence(thread_id, head.epoch))


def at(thread_id: str) -> Any:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}


def checkpoint(value: Any) -> Checkpoint:
    made = {
        **empty_checkpoint(),
        "id": str(uuid6()),
        "channel_values": {"c": value},
        "channel_versions": {"c": "1"},
    }
    return cast("Checkpoint", made)


async def put(saver: Saver, thread_id: str, value: Any = "value") -> None:
    told: Any = {"source": "loop", "step": 1}
    await saver.aput(at(thread_id), checkpoint(value), told, {"c": "1"})


@asynccontextmanager
async def held(db: Database, *threads: str) -> AsyncGenerator[None]:
    """Nobody can write these sessions meanwhile."""
    async with db.transaction(SERVICE) as conn:
        await conn.execute(
            "select from clew.head where thread_id = any(%s) for update", [list(threads)]
        )
        yield


async def waiting(db: Database, count: int) -> None:
    """Return once so many wait for a lock in this database."""
    look = (
        "select count(*) as waiting from pg_stat_activity"
        " where datname = current_database() and wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(20), db.connection() as conn:
        while True:
            row = await (await conn.execute(look)).fetchone()
            if row is not None and row["waiting"] >= count:
                return


async def together(db: Database, *work: Awaitable[Any]) -> list[Any]:
    """All of this in as few exchanges as there are lanes: the first ones wait for a lock, and the
    others for them."""
    return await asyncio.gather(*work, return_exceptions=True)


async def test_one_that_fails_fails_alone(db: Database) -> None:
    divide: LiteralString = "select 1 / %s::integer as value"
    found = await together(
        db,
        *(db.combine(SERVICE, (_VALUE, [n])) for n in range(20)),
        db.combine(SERVICE, (divide, [0])),
        db.combine(SERVICE, (_VALUE, ["no number"])),
        db.combine(SERVICE, (_VALUE, ["\0"])),
        *(db.combine(SERVICE, (_VALUE, [n])) for n in range(20, 40)),
    )
    assert [answer[0].rows[0]["value"] for answer in (*found[:20], *found[23:])] == [*range(40)]
    assert isinstance(found[20], psycopg.errors.DivisionByZero)
    assert isinstance(found[21], psycopg.errors.InvalidTextRepresentation)
    assert isinstance(found[22], psycopg.DataError)


async def test_a_stale_session_lands_nothing_and_its_neighbours_everything(db: Database) -> None:
    savers = {f"t{n}": await session(db, f"t{n}") for n in range(12)}
    async with db.transaction(SERVICE) as conn:
        await lineage.claim(conn, "t5")
    found = await together(db, *(put(saver, thread) for thread, saver in savers.items()))
    assert [n for n, result in enumerate(found) if result is not None] == [5]
    assert isinstance(found[5], FenceLost)
    stored = [(await saver.aget_tuple(at(thread))) for thread, saver in savers.items()]
    assert [n for n, one in enumerate(stored) if one is None] == [5]


async def test_who_waits_for_a_lock_keeps_nobody_waiting(db: Database) -> None:
    savers = {name: await session(db, name) for name in "abcde"}
    async with asyncio.TaskGroup() as group, held(db, "a", "b", "c"):
        for name in "abc":
            group.create_task(put(savers[name], name))
            await waiting(db, "abc".index(name) + 1)
        async with asyncio.timeout(20):
            await asyncio.gather(put(savers["d"], "d"), put(savers["e"], "e"))
    assert all([await savers[name].aget_tuple(at(name)) for name in savers])


async def test_who_waits_for_a_lock_keeps_nobody_waiting_who_went_out_with_it(
    db: Database,
) -> None:
    for name in "xya":
        await session(db, name)
    lock: LiteralString = "select 1 as value from clew.head where thread_id = %s for share"
    async with asyncio.TaskGroup() as group, held(db, "x", "y", "a"):
        # The first two take the lanes, so the others go out in one exchange.
        tasks = [group.create_task(db.combine(SERVICE, (lock, [name]))) for name in "xya"]
        behind = [group.create_task(db.combine(SERVICE, (_VALUE, [n]))) for n in range(20)]
        async with asyncio.timeout(20):
            found = await asyncio.gather(*behind)
        assert not any(task.done() for task in tasks)
    assert [answer[0].rows[0]["value"] for answer in found] == [*range(20)]
    assert [task.result()[0].rows[0]["value"] for task in tasks] == [1, 1, 1]


async def test_who_is_cut_off_by_a_neighbour_is_told_so_and_tries_as_often_as_it_takes(
    db: Database,
) -> None:
    sleep: LiteralString = "select pg_sleep(60)"
    asleep: LiteralString = (
        "select count(*) as n from pg_stat_activity"
        " where datname = current_database() and wait_event = 'PgSleep'"
    )
    # One lane, so that the second has to take along who comes after it.
    combiner = db._combiner  # pyright: ignore[reportPrivateUsage]
    assert combiner is not None
    combiner._free = 1  # pyright: ignore[reportPrivateUsage]
    tasks = [asyncio.create_task(db.combine(SERVICE, (sleep, None))) for _ in range(2)]
    behind = asyncio.create_task(db.combine(SERVICE, (_VALUE, [1])))
    async with asyncio.timeout(20), db.connection() as conn:
        while (await (await conn.execute(asleep)).fetchall())[0]["n"] < 2:
            pass
    tasks[1].cancel()
    with pytest.raises(CutOff):
        await behind
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    cuts = 0

    async def work() -> int:
        nonlocal cuts
        cuts += 1
        if cuts < 10:
            raise CutOff
        return (await db.combine(SERVICE, (_VALUE, [cuts])))[0].rows[0]["value"]

    assert await wire._insist(db, work) == 10  # pyright: ignore[reportPrivateUsage]


async def test_a_connection_that_dies_takes_nothing_with_it(db: Database) -> None:
    savers = {name: await session(db, name) for name in "abcdefgh"}
    kill: LiteralString = (
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and wait_event_type = 'Lock'"
    )
    async with asyncio.TaskGroup() as group, held(db, *savers):
        for name, saver in savers.items():
            group.create_task(put(saver, name, f"of {name}"))
        await waiting(db, 3)
        async with db.connection() as conn:
            await conn.execute(kill)
    for name, saver in savers.items():
        found = await saver.aget_tuple(at(name))
        assert found is not None
        assert found.checkpoint["channel_values"]["c"] == f"of {name}"


@pytest.mark.parametrize("victim", [0, 1, 5])
async def test_a_cancelled_one_does_not_take_its_neighbours_along(
    db: Database, victim: int
) -> None:
    savers = {f"t{n}": await session(db, f"t{n}") for n in range(8)}
    async with held(db, *savers):
        tasks = [asyncio.create_task(put(saver, thread)) for thread, saver in savers.items()]
        await waiting(db, 2)
        tasks[victim].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[victim]
    await asyncio.gather(*(task for n, task in enumerate(tasks) if n != victim))
    for n, (thread, saver) in enumerate(savers.items()):
        if n != victim:
            assert await saver.aget_tuple(at(thread)) is not None


async def test_many_more_than_fit_one_exchange_all_get_their_own_answer(db: Database) -> None:
    found = await together(db, *(db.combine(SERVICE, (_VALUE, [n])) for n in range(500)))
    assert [answer[0].rows[0]["value"] for answer in found] == [*range(500)]
