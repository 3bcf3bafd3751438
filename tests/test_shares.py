"""Shares: given, found by their grantee alone, and over when revoked or run out."""

from datetime import timedelta

import pytest

from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.runtime import errors, ids, lifecycle, sessions, shares


async def test_row_23_a_share_is_found_by_whom_it_was_given_to_and_nobody_else(
    db: Database,
) -> None:
    alice, bob, carol = [await db.owner("acme", name) for name in ("alice", "bob", "carol")]
    stranger = await db.owner("umbrella", "bob")
    who = Principal.owner(alice)
    made = await sessions.create(db, who, alice)
    share = await shares.create(
        db, who, made.thread_id, tenant="acme", grantee="bob", role="writer", actor="alice"
    )
    assert await shares.access(db, bob, made.thread_id) == share
    assert await shares.given(db, bob) == [share]
    assert share.principal == who
    for other in (alice, carol, stranger):
        assert await shares.given(db, other) == []
    for other in (carol, stranger):
        assert await shares.access(db, other, made.thread_id) is None
    # The grantee cannot list, revoke or pass on.
    grantee = Principal.owner(bob)
    assert await shares.of_session(db, grantee, made.thread_id) == []
    with pytest.raises(errors.NotFound):
        await shares.revoke(db, grantee, made.thread_id, share.share_id)
    with pytest.raises(errors.NotFound):
        await shares.create(
            db, grantee, made.thread_id, tenant="acme", grantee="carol", actor="bob"
        )
    assert await shares.of_session(db, who, made.thread_id) == [share]
    # And the row alone does not open the session.
    with pytest.raises(errors.NotFound):
        await sessions.get(db, grantee, made.thread_id)


async def test_row_23_a_share_ends_when_it_is_revoked_or_its_time_is_up(db: Database) -> None:
    alice, bob = [await db.owner("acme", name) for name in ("alice", "bob")]
    who = Principal.owner(alice)
    made = await sessions.create(db, who, alice)
    key = made.thread_id

    async def give(lifetime: timedelta | None = None) -> shares.Share:
        return await shares.create(
            db, who, key, tenant="acme", grantee="bob", actor="a", lifetime=lifetime
        )

    await give(timedelta(0))
    assert await shares.access(db, bob, key) is None
    share = await give(timedelta(hours=1))
    assert await shares.access(db, bob, key) == share
    revoked = await shares.revoke(db, who, key, share.share_id)
    assert revoked.revoked_at is not None
    assert await shares.access(db, bob, key) is None
    assert (await shares.revoke(db, who, key, share.share_id)) == revoked
    for unknown in (ids.mint(), "x"):
        with pytest.raises(errors.NotFound):
            await shares.revoke(db, who, key, unknown)
    await give()
    await sessions.delete(db, who, key, actor="a")
    assert await shares.access(db, bob, key) is None
    assert await db.fetch(SERVICE, "select from clew.share") == []


async def test_row_23_the_strongest_share_counts_and_a_tenants_is_everyones(db: Database) -> None:
    alice, bob = [await db.owner("acme", name) for name in ("alice", "bob")]
    stranger = await db.owner("umbrella", "x")
    who = Principal.owner(alice)
    made = await sessions.create(db, who, alice)
    checkpoint_id = ids.mint()
    everyone = await shares.create(
        db,
        who,
        made.thread_id,
        tenant="acme",
        grantee=None,
        checkpoint_id=checkpoint_id,
        actor="a",
    )
    assert everyone.checkpoint_id == checkpoint_id
    assert await shares.access(db, bob, made.thread_id) == everyone
    assert await shares.access(db, stranger, made.thread_id) is None
    live = await shares.create(db, who, made.thread_id, tenant="acme", grantee="bob", actor="a")
    assert await shares.access(db, bob, made.thread_id) == live
    writer = await shares.create(
        db, who, made.thread_id, tenant="acme", grantee="bob", role="writer", actor="a"
    )
    assert await shares.access(db, bob, made.thread_id) == writer


async def test_what_cannot_be_shared(db: Database) -> None:
    alice = await db.owner("acme", "alice")
    who = Principal.owner(alice)
    made = await sessions.create(db, who, alice)
    with pytest.raises(errors.Invalid):
        await shares.create(
            db,
            who,
            made.thread_id,
            tenant="acme",
            grantee="bob",
            role="writer",
            checkpoint_id=ids.mint(),
            actor="a",
        )
    await lifecycle.move(db, who, made.thread_id, "delete", actor="a")
    for grantee in ("bob", None):
        with pytest.raises(errors.NotFound):
            await shares.create(db, who, made.thread_id, tenant="acme", grantee=grantee, actor="a")
