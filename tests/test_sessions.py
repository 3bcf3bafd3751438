"""The registry: who may see what, what a state allows, and what is left when a session goes."""

import asyncio
import uuid
from collections.abc import Awaitable
from datetime import timedelta

import pytest

from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.runtime import errors, ids, sessions
from clew.runtime.sessions import Ttl


async def owners(db: Database, *names: str) -> list[int]:
    return [await db.owner("default", name) for name in names]


async def test_row_1_a_session_has_an_owner_an_agent_a_name_metadata_and_an_id_nobody_guesses(
    db: Database,
) -> None:
    [alice] = await owners(db, "alice")
    who = Principal.owner(alice)
    made = await sessions.create(
        db, who, alice, graph_id="echo", title="第一次会话", metadata={"项目": "迷宫"}
    )
    assert uuid.UUID(made.thread_id).version == 7
    assert (made.owner_id, made.graph_id, made.title) == (alice, "echo", "第一次会话")
    assert made.metadata == {"项目": "迷宫"}
    assert (made.state, made.status, made.version) == ("active", "idle", 1)
    assert await sessions.get(db, who, made.thread_id) == made
    chosen = str(uuid.uuid4())
    assert (await sessions.create(db, who, alice, thread_id=chosen)).thread_id == chosen


def test_ids_sort_in_the_order_in_which_they_were_made() -> None:
    made = [ids.mint() for _ in range(1000)]
    assert made == sorted(made)
    assert len(set(made)) == 1000


async def test_an_id_that_is_taken_is_a_conflict_or_the_session_that_has_it(db: Database) -> None:
    [alice] = await owners(db, "alice")
    who = Principal.owner(alice)
    made = await sessions.create(db, who, alice, metadata={"n": 1})
    with pytest.raises(errors.Conflict):
        await sessions.create(db, who, alice, thread_id=made.thread_id)
    same = await sessions.create(
        db, who, alice, thread_id=made.thread_id, if_exists="do_nothing", metadata={"n": 2}
    )
    assert same == made


async def test_row_6_a_foreign_session_does_not_exist(db: Database) -> None:
    alice, bob = await owners(db, "alice", "bob")
    made = await sessions.create(db, Principal.owner(alice), alice)
    who = Principal.owner(bob)
    with pytest.raises(errors.NotFound) as foreign:
        await sessions.get(db, who, made.thread_id)
    unknown_id = ids.mint()
    with pytest.raises(errors.NotFound) as unknown:
        await sessions.get(db, who, unknown_id)
    assert str(foreign.value).replace(made.thread_id, "") == str(unknown.value).replace(
        unknown_id, ""
    )
    with pytest.raises(errors.NotFound):
        await sessions.patch(db, who, made.thread_id, {"title": "mine"})
    with pytest.raises(errors.NotFound):
        await sessions.delete(db, who, made.thread_id, actor="a")
    for if_exists in ("raise", "do_nothing"):
        with pytest.raises(errors.Conflict):
            await sessions.create(db, who, bob, thread_id=made.thread_id, if_exists=if_exists)
    assert (await sessions.search(db, who)).items == []
    assert await sessions.count(db, who) == 0
    assert await sessions.get(db, Principal.owner(alice), made.thread_id) == made


async def test_row_7_an_admin_sees_the_tenant_and_not_the_next_one(db: Database) -> None:
    ours = await db.owner("acme", "alice")
    admin = Principal.tenant_of(await db.owner("acme", "root"))
    theirs = await db.owner("umbrella", "alice")
    mine = await sessions.create(db, Principal.owner(ours), ours)
    await sessions.create(db, Principal.owner(theirs), theirs)
    assert [s.thread_id for s in (await sessions.search(db, admin)).items] == [mine.thread_id]
    assert await sessions.count(db, SERVICE) == 2


async def test_a_patch_merges_metadata_and_changes_only_what_it_names(db: Database) -> None:
    [alice] = await owners(db, "alice")
    who = Principal.owner(alice)
    made = await sessions.create(
        db, who, alice, title="before", tags=["a"], metadata={"a": 1, "b": {"x": 1}}
    )
    changed = await sessions.patch(
        db, who, made.thread_id, {"title": None, "metadata": {"b": {"y": 2}}}
    )
    assert changed.title is None
    assert changed.tags == ["a"]
    assert changed.metadata == {"a": 1, "b": {"y": 2}}
    assert changed.version == 2
    assert changed.updated_at > made.updated_at
    changed = await sessions.patch(db, who, made.thread_id, {"tags": ["b", "丙"]})
    assert changed.tags == ["b", "丙"]


async def test_row_41_of_two_writers_that_read_the_same_version_one_is_refused(
    db: Database,
) -> None:
    [alice] = await owners(db, "alice")
    who = Principal.owner(alice)
    made = await sessions.create(db, who, alice)

    async def write(title: str) -> str:
        try:
            await sessions.patch(db, who, made.thread_id, {"title": title}, version=1)
        except errors.Stale:
            return "stale"
        return title

    outcomes = await asyncio.gather(*(write(f"writer {n}") for n in range(8)))
    [winner] = [outcome for outcome in outcomes if outcome != "stale"]
    assert (await sessions.get(db, who, made.thread_id)).title == winner


async def test_row_5_a_patch_that_waited_for_a_move_finds_the_state_after_it(db: Database) -> None:
    [alice] = await owners(db, "alice")
    who = Principal.owner(alice)
    made = await sessions.create(db, who, alice, title="before")
    waiting = (
        "select from pg_stat_activity "
        "where datname = current_database() and wait_event_type = 'Lock'"
    )
    async with asyncio.TaskGroup() as group, db.transaction(who) as conn:
        key = [made.thread_id]
        await conn.execute("update clew.session set archived_at = now() where thread_id = %s", key)
        change = sessions.patch(db, who, made.thread_id, {"title": "after"})
        patching = group.create_task(outcome(change))
        async with asyncio.timeout(60), db.connection() as watching:
            while await (await watching.execute(waiting)).fetchone() is None:
                await watching.execute("select pg_sleep(0.02)")
    assert isinstance(patching.result(), errors.Conflict)
    assert (await sessions.get(db, who, made.thread_id)).title == "before"


async def outcome(work: Awaitable[object]) -> object:
    try:
        return await work
    except errors.ClewError as error:
        return error


async def test_row_10_an_expired_session_is_gone_before_anything_swept_it(db: Database) -> None:
    [alice] = await owners(db, "alice")
    who = Principal.owner(alice)
    made = await sessions.create(db, who, alice, ttl=Ttl(timedelta(0)))
    with pytest.raises(errors.Gone):
        await sessions.get(db, who, made.thread_id)
    with pytest.raises(errors.Gone):
        await sessions.patch(db, who, made.thread_id, {"title": "too late"})
    assert (await sessions.find(db, who, made.thread_id)).state == "expired"
    assert (await sessions.search(db, who)).items == []


async def test_a_deleted_id_can_be_used_again(db: Database) -> None:
    [alice] = await owners(db, "alice")
    who = Principal.owner(alice)
    made = await sessions.create(db, who, alice)
    await sessions.delete(db, who, made.thread_id, actor="a")
    with pytest.raises(errors.NotFound):
        await sessions.get(db, who, made.thread_id)
    with pytest.raises(errors.NotFound):
        await sessions.delete(db, who, made.thread_id, actor="a")
    again = await sessions.create(db, who, alice, thread_id=made.thread_id)
    assert again.created_at > made.created_at


async def test_row_3_a_search_filters_sorts_and_says_whether_there_is_more(db: Database) -> None:
    [alice] = await owners(db, "alice")
    who = Principal.owner(alice)
    made = [
        await sessions.create(db, who, alice, metadata={"n": n, "even": n % 2 == 0})
        for n in range(5)
    ]
    page = await sessions.search(db, who, limit=2)
    assert [s.metadata["n"] for s in page.items] == [4, 3]
    assert page.more
    page = await sessions.search(db, who, limit=2, offset=3)
    assert [s.metadata["n"] for s in page.items] == [1, 0]
    assert not page.more
    page = await sessions.search(
        db, who, metadata={"even": True}, sort_by="thread_id", sort_order="asc"
    )
    assert [s.metadata["n"] for s in page.items] == [0, 2, 4]
    page = await sessions.search(db, who, ids=[made[1].thread_id, ids.mint()])
    assert [s.metadata["n"] for s in page.items] == [1]
    assert await sessions.count(db, who, metadata={"even": False}) == 2
    assert (await sessions.search(db, who, status="busy")).items == []
    with pytest.raises(errors.Invalid):
        await sessions.search(db, who, sort_by="thread_id; drop table clew.session")


async def test_a_demand_on_metadata_hides_what_does_not_meet_it(db: Database) -> None:
    [alice] = await owners(db, "alice")
    who = Principal.owner(alice)
    mine = await sessions.create(db, who, alice, metadata={"owner": "a", "team": ["x", "y"]})
    other = await sessions.create(db, who, alice, metadata={"owner": {"name": "a"}})
    eq = [[{"key": "owner", "operator": "eq", "value": "a"}]]
    contains = [[{"key": "team", "operator": "contains", "value": ["x", "y"]}]]
    either = [*eq, [{"key": "owner", "operator": "eq", "value": {"name": "a"}}]]
    nobody = [[*eq[0], {"key": "team", "operator": "contains", "value": ["z"]}]]
    assert await sessions.get(db, who, mine.thread_id, allowed=eq) == mine
    with pytest.raises(errors.NotFound):
        await sessions.get(db, who, other.thread_id, allowed=eq)
    with pytest.raises(errors.NotFound):
        await sessions.patch(db, who, other.thread_id, {"title": "x"}, allowed=eq)
    with pytest.raises(errors.NotFound):
        await sessions.delete(db, who, other.thread_id, allowed=eq, actor="a")
    assert await sessions.count(db, who, allowed=contains) == 1
    assert await sessions.count(db, who, allowed=either) == 2
    assert await sessions.count(db, who, allowed=nobody) == 0
