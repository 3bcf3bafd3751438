"""Sessions change hands whole, whatever shares their storage and whoever's key it is under."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest
import pytest_asyncio

from clew.checkpointing import labels, lineage, pins
from clew.checkpointing.postgres import SERVICE, Principal
from clew.runtime import errors, forks, rewind, sessions, transfer
from clew.runtime.sessions import Session
from clew.runtime.standing import Ground
from tests import test_rewind
from tests.test_combiner import waiting
from tests.test_rewind import WHY, begin, ids, said, texts, turn

ground = test_rewind.ground
who = test_rewind.who


@pytest_asyncio.fixture
async def admin(ground: Ground) -> Principal:
    return Principal.tenant_of(await ground.db.owner("default", "alice"))


@pytest_asyncio.fixture
async def bob(ground: Ground) -> Principal:
    return Principal.owner(await ground.db.owner("default", "bob"))


async def handed(ground: Ground, admin: Principal, session: Session, owner: str) -> Session:
    return await transfer.to(
        ground.db, admin, session.thread_id, owner, actor="root", vault=ground.vault
    )


async def owners(ground: Ground, table: str, thread_id: str) -> list[int]:
    """Whose the rows of the session's own lines are."""
    rows = await ground.db.fetch(
        SERVICE,
        f"select distinct x.owner_id from clew.{table} x join clew.lineage l using (lineage_id) "  # noqa: S608 # pyright: ignore[reportArgumentType]
        "where l.thread_id = %s order by 1",
        [thread_id],
    )
    return [row["owner_id"] for row in rows]


async def test_a_session_with_forks_is_handed_over_and_its_forks_stay(
    ground: Ground, who: Principal, admin: Principal, bob: Principal
) -> None:
    session = await begin(ground, who, "echo")
    first = await turn(ground, session, said("one"))
    await turn(ground, session, said("two"))
    child = (await forks.fork(ground, who, session.thread_id, WHY, checkpoint_id=first)).session
    before = await ids(ground, session)
    given = await handed(ground, admin, session, "bob")
    assert given.owner_id == bob.owner_from
    with pytest.raises(errors.NotFound):
        await sessions.get(ground.db, who, session.thread_id)
    assert await ids(ground, given) == before
    assert await texts(ground, bob, given) == ["one", "one", "two", "two"]
    for table in ("checkpoint", "item"):
        assert await owners(ground, table, session.thread_id) == [bob.owner_from]
    # Alice's fork goes on with what it saw, and neither sees the other's next turn.
    await turn(ground, child, said("fork"))
    await turn(ground, given, said("three"))
    assert await texts(ground, who, child) == ["one", "one", "fork", "fork"]
    assert (await texts(ground, bob, given))[-2:] == ["three", "three"]
    # What is handed back is as it was.
    back = await handed(ground, admin, given, "alice")
    assert (await texts(ground, who, back))[-2:] == ["three", "three"]


async def test_a_fork_is_handed_over_without_what_it_was_forked_from(
    ground: Ground, who: Principal, admin: Principal, bob: Principal
) -> None:
    session = await begin(ground, who, "echo")
    first = await turn(ground, session, said("one"))
    await turn(ground, session, said("secret"))
    child = (await forks.fork(ground, who, session.thread_id, WHY, checkpoint_id=first)).session
    given = await handed(ground, admin, child, "bob")
    assert await texts(ground, bob, given) == ["one", "one"]
    assert await texts(ground, who, session) == ["one", "one", "secret", "secret"]
    await sessions.delete(ground.db, who, session.thread_id, actor="a")
    assert await texts(ground, bob, given) == ["one", "one"]


async def test_abandoned_lines_labels_and_pins_go_along(
    ground: Ground, who: Principal, admin: Principal, bob: Principal
) -> None:
    session = await begin(ground, who, "echo")
    first = await turn(ground, session, said("one"))
    await turn(ground, session, said("two"))
    await rewind.save(ground, who, session.thread_id, "mark", {"note": "n"}, WHY)
    async with ground.db.transaction(who) as conn:
        await pins.pin(conn, session.thread_id, first, actor="alice")
    await rewind.restore(ground, who, session.thread_id, first, WHY)
    await forks.fork(ground, who, session.thread_id, WHY)
    epoch = await _epoch(ground, session)
    given = await handed(ground, admin, session, "bob")
    assert await _epoch(ground, given) > epoch  # ids of events never begin again
    assert await texts(ground, bob, given) == ["one", "one"]
    async with ground.db.transaction(bob) as conn:
        kept = await labels.get(conn, given.thread_id, "mark")
        assert [p.checkpoint_id for p in await pins.list_(conn, given.thread_id)] == [first]
    assert kept.checkpoint_id != first
    await rewind.undo(ground, bob, given.thread_id, WHY)
    assert await texts(ground, bob, given) == ["one", "one", "two", "two"]


async def test_a_fork_that_is_under_way_keeps_its_values(
    ground: Ground, who: Principal, admin: Principal, bob: Principal
) -> None:
    session = await begin(ground, who, "echo")
    await turn(ground, session, said("one"))
    async with asyncio.TaskGroup() as group, ground.db.transaction(who) as conn:
        child = await forks.register(
            conn, who.owner_from, None, forks.NO_LIMIT, {"graph_id": "echo"}
        )
        await lineage.fork(conn, session.thread_id, child.thread_id)
        giving = group.create_task(handed(ground, admin, session, "bob"))
        await waiting(ground.db, 1)
    assert await texts(ground, who, child) == ["one", "one"]
    assert await texts(ground, bob, await giving) == ["one", "one"]
    await turn(ground, child, said("fork"))
    assert (await texts(ground, who, child))[-2:] == ["fork", "fork"]


@pytest.mark.parametrize("asking", ["owner", "admin"])
async def test_nothing_is_forked_from_a_session_that_was_handed_over_meanwhile(
    ground: Ground, who: Principal, admin: Principal, bob: Principal, asking: str
) -> None:
    session = await begin(ground, who, "echo")
    await turn(ground, session, said("one"))
    by = who if asking == "owner" else admin
    async with asyncio.TaskGroup() as group, ground.db.transaction(SERVICE) as conn:
        await conn.execute("lock table clew.audit in exclusive mode")
        giving = group.create_task(handed(ground, admin, session, "bob"))
        await waiting(ground.db, 1)
        forking = forks.fork(ground, by, session.thread_id, WHY)
        forked = group.create_task(_outcome(forking))
        await waiting(ground.db, 2)
    assert isinstance(await forked, errors.NotFound | errors.Conflict)
    assert await texts(ground, bob, await giving) == ["one", "one"]


async def test_a_session_in_which_nothing_ran_is_handed_over(
    ground: Ground, who: Principal, admin: Principal, bob: Principal
) -> None:
    session = await begin(ground, who, "echo", title="empty")
    given = await handed(ground, admin, session, "bob")
    assert (given.owner_id, given.title) == (bob.owner_from, "empty")
    await turn(ground, given, said("first"))
    assert await texts(ground, bob, given) == ["first", "first"]


async def test_nobody_hands_over_across_tenants_or_while_a_run_is_in_progress(
    ground: Ground, who: Principal, admin: Principal
) -> None:
    session = await begin(ground, who, "echo")
    with pytest.raises(errors.Forbidden):
        await handed(ground, who, session, "bob")
    busy: Any = "update clew.session set status = 'busy' where thread_id = %s"
    await ground.db.execute(who, busy, [session.thread_id])
    with pytest.raises(errors.Conflict):
        await handed(ground, admin, session, "bob")


async def _outcome(work: Awaitable[Any]) -> Any:
    [outcome] = await asyncio.gather(work, return_exceptions=True)
    return outcome


async def _epoch(ground: Ground, session: Session) -> int:
    row = await ground.db.one(
        SERVICE, "select epoch from clew.head where thread_id = %s", [session.thread_id]
    )
    assert row is not None
    return row["epoch"]
