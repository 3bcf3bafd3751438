"""Figures agree with what there is, and count only what the principal may see."""

from datetime import UTC, datetime, timedelta

from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.runtime import lifecycle, sessions, stats
from clew.runtime.sessions import Ttl


async def test_row_30_figures_by_state_agent_owner_and_day(db: Database) -> None:
    alice, bob = [Principal.owner(await db.owner("acme", n)) for n in ("alice", "bob")]
    for who, graph_id in ((alice, "echo"), (alice, "echo"), (alice, None), (bob, "echo")):
        await sessions.create(db, who, who.owner_from, graph_id=graph_id)
    archived = await sessions.create(db, alice, alice.owner_from, graph_id="other")
    await lifecycle.move(db, alice, archived.thread_id, "archive", actor="a")
    await sessions.create(db, alice, alice.owner_from, ttl=Ttl(timedelta(0)))
    await db.execute(
        SERVICE,
        "update clew.session set message_count = 3, bytes = 100, "
        "created_at = created_at - interval '2 minutes', updated_at = now() "
        "where owner_id = %s and graph_id = 'echo'",
        [alice.owner_from],
    )
    found = await stats.read(db, alice)
    assert found.total.sessions == 5
    assert (found.total.messages, found.total.bytes) == (6, 200)
    assert found.by_state == {"active": 3, "archived": 1, "expired": 1}
    assert {agent: f.sessions for agent, f in found.by_agent.items()} == {
        "echo": 2, "other": 1, "": 2,
    }  # fmt: skip
    duration = found.by_agent["echo"].average_duration
    assert timedelta(minutes=2) <= duration < timedelta(minutes=3)
    assert list(found.by_owner) == ["alice"]
    today = datetime.now(UTC).date()
    assert sum(found.by_day.values()) == 5
    assert max(found.by_day) <= today

    admin = await stats.read(db, Principal.tenant_of(alice.owner_from))
    assert {name: f.sessions for name, f in admin.by_owner.items()} == {"alice": 5, "bob": 1}
    assert (await stats.read(db, alice, graph_id="echo")).total.sessions == 2
    nobody = Principal.owner(await db.owner("umbrella", "x"))
    assert (await stats.read(db, nobody)).total == stats.Figures(0, 0, 0, timedelta())
