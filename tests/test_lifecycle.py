"""The table of transitions, each move against each state, and what the audit log says of it."""

from datetime import timedelta

import pytest

from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.runtime import errors, lifecycle, sessions
from clew.runtime.lifecycle import MOVES, Move
from clew.runtime.sessions import State, Ttl

WEEK = timedelta(days=7)


async def one_that_is(db: Database, who: Principal, state: str) -> sessions.Session:
    """A session in this state, brought there the way it happens."""
    ttl = Ttl(timedelta(0)) if state == "expired" else None
    made = await sessions.create(db, who, who.owner_from, ttl=ttl)
    if state == "idle":
        quiet = "update clew.session set last_active_at = now() - idle_after where thread_id = %s"
        await db.execute(who, quiet, [made.thread_id])
    if state == "archived":
        await lifecycle.move(db, who, made.thread_id, "archive", actor="alice")
    if state == "deleted":
        await lifecycle.move(db, who, made.thread_id, "delete", actor="alice")
    if state == "busy":
        await db.execute(
            who, "update clew.session set status = 'busy' where thread_id = %s", [made.thread_id]
        )
    found = await sessions.find(db, who, made.thread_id)
    assert found.state == (state if state != "busy" else "active")
    return found


@pytest.mark.parametrize("state", ["active", "idle", "archived", "expired", "deleted", "busy"])
@pytest.mark.parametrize("move", list(MOVES))
async def test_row_5_every_move_from_every_state(db: Database, move: Move, state: str) -> None:
    who = Principal.owner(await db.owner("default", "alice"))
    before = await one_that_is(db, who, state)
    rule = MOVES[move]
    legal = (rule.busy and "active" in rule.sources) if state == "busy" else state in rule.sources
    if legal:
        after = await lifecycle.move(db, who, before.thread_id, move, actor="user:alice")
        assert after.state == rule.target
        return
    refusal = {"expired": errors.Gone, "deleted": errors.NotFound}.get(state, errors.Conflict)
    with pytest.raises(refusal) as refused:
        await lifecycle.move(db, who, before.thread_id, move, actor="user:alice")
    if refusal is errors.Conflict:  # names both states
        assert refused.value.facts["to"] == rule.target
        assert refused.value.facts["state"] == before.state
    assert await sessions.find(db, who, before.thread_id) == before
    entries = await lifecycle.log(db, who, thread_id=before.thread_id)
    assert not [entry for entry in entries if entry.actor == "user:alice"]


async def test_row_5_each_move_is_recorded_with_who_and_when(db: Database) -> None:
    who = Principal.owner(await db.owner("default", "alice"))
    made = await sessions.create(db, who, who.owner_from)
    for move in ("archive", "unarchive", "delete", "undelete", "archive"):
        await lifecycle.move(db, who, made.thread_id, move, actor=f"user:{move}")
    entries = await lifecycle.log(db, who, thread_id=made.thread_id)
    assert [(e.move, e.from_state, e.to_state, e.actor) for e in reversed(entries)] == [
        ("archive", "active", "archived", "user:archive"),
        ("unarchive", "archived", "active", "user:unarchive"),
        ("delete", "active", "deleted", "user:delete"),
        ("undelete", "deleted", "active", "user:undelete"),
        ("archive", "active", "archived", "user:archive"),
    ]
    assert entries == sorted(entries, key=lambda entry: entry.made_at, reverse=True)
    older = await lifecycle.log(db, who, thread_id=made.thread_id, before=entries[1], limit=2)
    assert older == entries[2:4]
    bob = Principal.owner(await db.owner("default", "bob"))
    assert await lifecycle.log(db, bob) == []


async def test_row_5_what_a_touch_changes_and_what_a_deletion_ends_is_recorded_too(
    db: Database,
) -> None:
    who = Principal.owner(await db.owner("default", "alice"))
    made = await sessions.create(db, who, who.owner_from)
    await lifecycle.move(db, who, made.thread_id, "touch", actor="user:a")  # changes no fact
    await lifecycle.move(db, who, made.thread_id, "touch", actor="user:b", ttl=WEEK)
    await lifecycle.move(db, who, made.thread_id, "archive", actor="user:c")
    await sessions.delete(db, who, made.thread_id, actor="user:d")
    entries = await lifecycle.log(db, who, thread_id=made.thread_id)
    assert [(e.move, e.from_state, e.to_state, e.actor) for e in reversed(entries)] == [
        ("touch", "active", "active", "user:b"),
        ("archive", "active", "archived", "user:c"),
        ("purge", "archived", None, "user:d"),
    ]


async def test_an_archived_session_that_is_deleted_and_brought_back_is_archived(
    db: Database,
) -> None:
    who = Principal.owner(await db.owner("default", "alice"))
    made = await one_that_is(db, who, "archived")
    await lifecycle.move(db, who, made.thread_id, "delete", actor="a")
    back = await lifecycle.move(db, who, made.thread_id, "undelete", actor="a", undo_window=WEEK)
    assert back.state == "archived"


async def test_a_deletion_cannot_be_undone_when_its_window_is_over(db: Database) -> None:
    who = Principal.owner(await db.owner("default", "alice"))
    made = await one_that_is(db, who, "deleted")
    with pytest.raises(errors.Gone):
        await lifecycle.move(
            db, who, made.thread_id, "undelete", actor="a", undo_window=timedelta(0)
        )
    back = await lifecycle.move(db, who, made.thread_id, "undelete", actor="a", undo_window=WEEK)
    assert back.state == "active"


async def test_a_foreign_session_cannot_be_moved(db: Database) -> None:
    alice, bob = [Principal.owner(await db.owner("default", n)) for n in ("alice", "bob")]
    made = await sessions.create(db, alice, alice.owner_from)
    for move in MOVES:
        with pytest.raises(errors.NotFound):
            await lifecycle.move(db, bob, made.thread_id, move, actor="bob")
    assert await sessions.find(db, alice, made.thread_id) == made
    assert await lifecycle.log(db, SERVICE, thread_id=made.thread_id) == []


async def test_row_10_a_sliding_expiry_moves_with_activity_and_a_fixed_one_with_touch_alone(
    db: Database,
) -> None:
    who = Principal.owner(await db.owner("default", "alice"))
    active = "update clew.session set status = %s, last_active_at = now() where thread_id = %s"
    hour, day = timedelta(hours=1), timedelta(days=1)

    sliding = await sessions.create(db, who, who.owner_from, ttl=Ttl(hour))
    assert sliding.expires_at == sliding.created_at + hour
    await db.execute(who, active, ["busy", sliding.thread_id])
    found = await sessions.find(db, who, sliding.thread_id)
    assert found.expires_at == found.last_active_at + hour
    assert found.last_active_at > sliding.last_active_at

    fixed = await sessions.create(db, who, who.owner_from, ttl=Ttl(hour, sliding=False))
    await db.execute(who, active, ["busy", fixed.thread_id])
    assert (await sessions.find(db, who, fixed.thread_id)).expires_at == fixed.expires_at
    await db.execute(who, active, ["idle", fixed.thread_id])
    touched = await lifecycle.move(db, who, fixed.thread_id, "touch", actor="a")
    assert touched.expires_at == touched.last_active_at + hour
    extended = await lifecycle.move(db, who, fixed.thread_id, "touch", actor="a", ttl=day)
    assert extended.expires_at == extended.last_active_at + day
    assert extended.version == fixed.version

    never = await sessions.create(db, who, who.owner_from)
    touched = await lifecycle.move(db, who, never.thread_id, "touch", actor="a")
    assert touched.expires_at is None


async def test_a_session_that_waits_for_a_human_follows_its_own_expiry(db: Database) -> None:
    who = Principal.owner(await db.owner("default", "alice"))
    ttl = Ttl(timedelta(0), waiting=timedelta(days=3))
    made = await sessions.create(db, who, who.owner_from, ttl=ttl)
    turn = "update clew.session set status = %s, last_active_at = now() where thread_id = %s"
    states: list[State] = []
    for status in ("busy", "interrupted", "idle"):
        await db.execute(who, turn, [status, made.thread_id])
        states.append((await sessions.find(db, who, made.thread_id)).state)
    assert states == ["active", "active", "expired"]
