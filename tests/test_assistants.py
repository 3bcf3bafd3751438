"""Assistants and their versions; the ones that stand for graphs are everyone's to read."""

import asyncio

import pytest

from clew.checkpointing.postgres import Database, Principal
from clew.runtime import assistants, errors, ids, sessions


def test_assistants_of_graphs_have_the_ids_that_clients_know() -> None:
    assert assistants.id_of("agent") == "fe096781-5601-53d2-b2f6-0d3403f7e9ca"


async def test_every_graph_has_an_assistant_that_all_read_and_nobody_changes(db: Database) -> None:
    await assistants.register(db, {"agent": "does things", "echo": None})
    await assistants.register(db, {"agent": "does other things"})
    assert assistants.id_of("agent") == "fe096781-5601-53d2-b2f6-0d3403f7e9ca"
    for name in ("alice", "bob"):
        who = Principal.owner(await db.owner("default", name))
        found = await assistants.get(db, who, assistants.id_of("agent"))
        assert (found.system, found.name, found.version) == (True, "agent", 1)
        assert found.description == "does other things"
        assert found.metadata == {"created_by": "system"}
        assert await assistants.count(db, who) == 2
        assert len(await assistants.versions(db, who, found.assistant_id)) == 1
        with pytest.raises(errors.Forbidden):
            await assistants.update(db, who, found.assistant_id, name="mine")
        with pytest.raises(errors.Forbidden):
            await assistants.delete(db, who, found.assistant_id, actor="a")
        with pytest.raises(errors.Forbidden):
            await assistants.set_latest(db, who, found.assistant_id, 1)
        with pytest.raises(errors.Conflict):
            await assistants.create(
                db, who, who.owner_from, graph_id="x", assistant_id=found.assistant_id
            )


async def test_an_update_is_a_new_version_and_an_old_one_can_be_put_back(db: Database) -> None:
    owner_id = await db.owner("default", "alice")
    who = Principal.owner(owner_id)
    made = await assistants.create(
        db, who, owner_id, graph_id="echo", name="One", metadata={"a": 1}, context={"model": "m"}
    )
    assert made.config == {"configurable": {"model": "m"}}
    second = await assistants.update(
        db, who, made.assistant_id, name="Two", metadata={"b": 2}, context={}
    )
    assert (second.version, second.name) == (2, "Two")
    assert second.metadata == {"a": 1, "b": 2}
    assert second.context == {}
    back = await assistants.set_latest(db, who, made.assistant_id, 1)
    assert (back.version, back.name, back.context) == (1, "One", {"model": "m"})
    third = await assistants.update(db, who, made.assistant_id, description="third")
    assert (third.version, third.name) == (3, "One")
    versions = await assistants.versions(db, who, made.assistant_id)
    assert [v.version for v in versions] == [3, 2, 1]
    with pytest.raises(errors.NotFound):
        await assistants.set_latest(db, who, made.assistant_id, 99)
    with pytest.raises(errors.Invalid):
        assistants.mirror({"configurable": {"a": 1}}, {"b": 1})


async def test_concurrent_updates_take_different_numbers(db: Database) -> None:
    owner_id = await db.owner("default", "alice")
    who = Principal.owner(owner_id)
    made = await assistants.create(db, who, owner_id, graph_id="echo")
    await asyncio.gather(
        *(assistants.update(db, who, made.assistant_id, name=f"n{n}") for n in range(10))
    )
    versions = await assistants.versions(db, who, made.assistant_id, limit=100)
    assert [v.version for v in versions] == list(range(11, 0, -1))


async def test_a_foreign_assistant_does_not_exist(db: Database) -> None:
    alice = await db.owner("default", "alice")
    bob = Principal.owner(await db.owner("default", "bob"))
    made = await assistants.create(db, Principal.owner(alice), alice, graph_id="echo")
    for attempt in (
        assistants.get(db, bob, made.assistant_id),
        assistants.update(db, bob, made.assistant_id, name="mine"),
        assistants.delete(db, bob, made.assistant_id, actor="a"),
        assistants.versions(db, bob, made.assistant_id),
        assistants.set_latest(db, bob, made.assistant_id, 1),
    ):
        with pytest.raises(errors.NotFound):
            await attempt
    assert await assistants.count(db, bob) == 0


async def test_search_by_graph_name_and_metadata(db: Database) -> None:
    owner_id = await db.owner("default", "alice")
    who = Principal.owner(owner_id)
    for n in range(3):
        await assistants.create(
            db, who, owner_id, graph_id="echo", name=f"Helper {n}", metadata={"n": n}
        )
    await assistants.create(db, who, owner_id, graph_id="other", name="100%")
    page = await assistants.search(db, who, graph_id="echo", limit=2)
    assert [a.name for a in page.items] == ["Helper 2", "Helper 1"]
    assert page.more
    assert await assistants.count(db, who, name="hELPER") == 3
    assert await assistants.count(db, who, name="%") == 1
    assert await assistants.count(db, who, metadata={"n": 1}) == 1


async def test_deleting_an_assistant_takes_its_sessions_when_asked(db: Database) -> None:
    alice, bob = [await db.owner("default", name) for name in ("alice", "bob")]
    who = Principal.owner(alice)
    made = await assistants.create(db, who, alice, graph_id="echo", assistant_id=ids.mint())
    mine = await sessions.create(db, who, alice, assistant_id=made.assistant_id)
    named = await sessions.create(db, who, alice, metadata={"assistant_id": made.assistant_id})
    kept = await sessions.create(db, who, alice)
    theirs = await sessions.create(db, Principal.owner(bob), bob, assistant_id=made.assistant_id)
    await assistants.delete(db, who, made.assistant_id, delete_threads=True, actor="a")
    for session in (mine, named):
        with pytest.raises(errors.NotFound):
            await sessions.find(db, who, session.thread_id)
    assert await sessions.find(db, who, kept.thread_id) == kept
    assert await sessions.find(db, Principal.owner(bob), theirs.thread_id) == theirs
    with pytest.raises(errors.NotFound):
        await assistants.get(db, who, made.assistant_id)
