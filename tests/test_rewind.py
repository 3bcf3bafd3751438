"""A session's row, its questions and its head move together, or not at all."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from langchain_core.messages import HumanMessage
from langgraph.types import Command

from clew.checkpointing import history, labels, lineage, pins
from clew.checkpointing.encryption import Keyring
from clew.checkpointing.errors import (
    BundleEdited,
    CheckpointInUse,
    NothingToUndo,
    UnknownCheckpoint,
)
from clew.checkpointing.keys import Vault
from clew.checkpointing.policy import Policy
from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.checkpointing.saver import Saver
from clew.runtime import (
    bundles,
    config,
    errors,
    forks,
    graphs,
    interrupts,
    lifecycle,
    moments,
    outbox,
    retention,
    rewind,
    search,
    sessions,
    standing,
    storage,
)
from clew.runtime.limits import Limit
from clew.runtime.outbox import Happening, Place
from clew.runtime.sessions import Session
from clew.runtime.standing import Ground, Why

PROJECT = Path(__file__).parent / "project" / "langgraph.json"
WHY = Why("owner:default/alice", "because")
TABLES = ("head", "lineage", "checkpoint", "item", "write", "move", "session", "outbox")


@pytest_asyncio.fixture
async def who(db: Database) -> Principal:
    return Principal.owner(await db.owner("default", "alice"))


@pytest_asyncio.fixture(params=["plain", "sealed"])
async def ground(db: Database, request: pytest.FixtureRequest) -> AsyncIterator[Ground]:
    vault = Vault(Keyring([("k1", os.urandom(32))])) if request.param == "sealed" else None
    yield Ground(db, await graphs.load(config.load(PROJECT)), Saver(db, vault=vault))


async def begin(ground: Ground, who: Principal, graph_id: str, **given: Any) -> Session:
    return await sessions.create(ground.db, who, who.owner_from, graph_id=graph_id, **given)


async def turn(ground: Ground, session: Session, given: Any) -> str:
    """Run the session's graph to its end or its next question; the id of the head then."""
    assert session.graph_id
    at: Any = {"configurable": {"thread_id": session.thread_id}}
    owner = Principal.owner(session.owner_id)
    saver = ground.saver.bind(principal=owner, owner_id=session.owner_id)
    async with ground.graphs.open(
        session.graph_id, config=at, checkpointer=saver, store=None
    ) as graph:
        await graph.ainvoke(given, at)
        now = (await graph.aget_state(at)).config.get("configurable", {})
        return now["checkpoint_id"]


def said(text: str) -> dict[str, Any]:
    return {"messages": [HumanMessage(text)]}


async def ids(ground: Ground, session: Session, **kwargs: Any) -> list[str]:
    async with ground.db.transaction(Principal.owner(session.owner_id)) as conn:
        found = await history.list_(conn, session.thread_id, limit=1000, **kwargs)
        return [entry.checkpoint_id for entry in found]


async def texts(ground: Ground, who: Principal, session: Session) -> list[str]:
    """What was said, as it stands at the head."""
    [newest, *_] = await ids(ground, session)
    state = await moments.state(ground, who, session.thread_id, newest)
    return [message["content"] for message in state["values"]["messages"]]


async def counts(db: Database) -> dict[str, int]:
    found: dict[str, int] = {}
    for table in TABLES:
        row = await db.one(SERVICE, f"select count(*) as n from clew.{table}")  # noqa: S608
        assert row
        found[table] = row["n"]
    return found


async def told(
    ground: Ground,
    who: Principal,
    after: Place,
    session: Session,
    number: int,
    *,
    kind: str | None = None,
) -> list[Happening]:
    """What listeners hear of the session, as soon as they hear it; of one kind or of all."""
    heard: list[Happening] = []
    following = outbox.follow(
        ground.db, who, after, thread_id=session.thread_id, poll=timedelta(milliseconds=20)
    )
    async with aclosing(following) as happenings:
        async for happening in happenings:
            if kind in (None, happening.kind):
                heard.append(happening)
            if len(heard) == number:
                break
    return heard


# -- restore and undo


async def test_row_20_a_restored_session_is_what_it_was_and_undo_brings_back_what_it_left(
    ground: Ground, who: Principal
) -> None:
    session = await begin(ground, who, "echo")
    first = await turn(ground, session, said("one"))
    second = await turn(ground, session, said("二"))
    start, _ = await outbox.end(ground.db)
    moved = await rewind.restore(ground, who, session.thread_id, first, WHY)
    assert moved.standing.checkpoint_id == first
    assert moved.session.message_count == 2
    assert moved.session.version == session.version + 1
    assert await texts(ground, who, session) == ["one", "one"]
    assert second not in await ids(ground, session)
    assert second in await ids(ground, session, scope="all")
    third = await turn(ground, session, said("three"))
    assert await texts(ground, who, session) == ["one", "one", "three", "three"]
    # The turn after it goes too when the restore is undone, and neither is lost.
    moved = await rewind.undo(ground, who, session.thread_id, WHY)
    assert moved.standing.checkpoint_id == second
    assert await texts(ground, who, session) == ["one", "one", "二", "二"]
    assert third in await ids(ground, session, scope="all")
    with pytest.raises(NothingToUndo):
        await rewind.undo(ground, who, session.thread_id, WHY)
    entries = await lifecycle.log(ground.db, who, thread_id=session.thread_id)
    assert [(entry.move, entry.actor, entry.detail["reason"]) for entry in entries] == [
        ("undo", WHY.actor, "because"),
        ("restore", WHY.actor, "because"),
    ]
    heard = await told(ground, who, start, session, 2, kind="session.restored")
    assert [item.data["undo"] for item in heard] == [False, True]


async def test_an_abandoned_line_can_be_returned_to(ground: Ground, who: Principal) -> None:
    session = await begin(ground, who, "echo")
    first = await turn(ground, session, said("one"))
    second = await turn(ground, session, said("two"))
    async with ground.db.transaction(who) as conn:
        left = (await lineage.head(conn, session.thread_id)).lineage_id
    await rewind.restore(ground, who, session.thread_id, first, WHY)
    await turn(ground, session, said("three"))
    state = await moments.state(ground, who, session.thread_id, second)
    assert [m["content"] for m in state["values"]["messages"]] == ["one", "one", "two", "two"]
    made = (await forks.fork(ground, who, session.thread_id, WHY, checkpoint_id=second)).session
    for line in (left, None):
        await rewind.restore(ground, who, session.thread_id, second, WHY, lineage_id=line)
        assert await texts(ground, who, session) == ["one", "one", "two", "two"]
        await rewind.restore(ground, who, session.thread_id, first, WHY)
    with pytest.raises(UnknownCheckpoint):
        await rewind.restore(ground, who, session.thread_id, second, WHY, lineage_id=left + 999)
    assert await texts(ground, who, made) == ["one", "one", "two", "two"]


async def test_a_restored_question_is_open_again_and_can_be_answered_otherwise(
    ground: Ground, who: Principal
) -> None:
    session = await begin(ground, who, "ask")
    asked = await turn(ground, session, {"x": ["in"]})
    await turn(ground, session, Command(resume="yes"))
    moved = await rewind.restore(ground, who, session.thread_id, asked, WHY)
    assert moved.standing.next == ["ask"]
    assert moved.session.status == "interrupted"
    [[shown]] = moved.session.interrupts.values()
    assert shown["value"] == {"question": "approve?"}
    [waiting] = await interrupts.inbox(ground.db, who)
    assert (waiting.interrupt_id, waiting.value) == (shown["id"], shown["value"])
    await turn(ground, session, Command(resume="no"))
    [newest, *_] = await ids(ground, session)
    state = await moments.state(ground, who, session.thread_id, newest)
    assert state["values"] == {"x": ["in", "two"], "n": 1, "answer": "no"}


async def test_restoring_to_before_a_question_withdraws_it(ground: Ground, who: Principal) -> None:
    session = await begin(ground, who, "ask")
    asked = await turn(ground, session, {"x": ["in"]})
    await rewind.restore(ground, who, session.thread_id, asked, WHY)
    assert len(await interrupts.inbox(ground.db, who)) == 1
    begun = (await ids(ground, session))[-1]
    moved = await rewind.restore(ground, who, session.thread_id, begun, WHY)
    assert moved.standing.next == ["__start__"]
    assert moved.session.interrupts == {}
    assert await interrupts.inbox(ground.db, who) == []


async def test_a_question_inside_a_subgraph_keeps_its_place(ground: Ground, who: Principal) -> None:
    session = await begin(ground, who, "parent")
    asked = await turn(ground, session, {"x": ["in"]})
    await turn(ground, session, Command(resume="yes"))
    moved = await rewind.restore(ground, who, session.thread_id, asked, WHY)
    assert moved.standing.next == ["child"]
    [question] = await interrupts.inbox(ground.db, who)
    [place] = question.namespace
    assert place.startswith("child:")
    await turn(ground, session, Command(resume="no"))
    [newest, *_] = await ids(ground, session)
    values = (await moments.state(ground, who, session.thread_id, newest))["values"]
    assert values["answer"] == "no"


async def test_a_session_restored_to_its_failure_has_failed(ground: Ground, who: Principal) -> None:
    session = await begin(ground, who, "fails")
    with pytest.raises(ValueError, match="boom"):
        await turn(ground, session, {"x": ["in"]})
    [failed, *_] = await ids(ground, session)
    moved = await rewind.restore(ground, who, session.thread_id, failed, WHY)
    assert moved.standing.next == ["boom"]
    assert moved.session.status == "error"
    assert moved.session.error == {"error": "ValueError", "message": "ValueError('boom')"}


async def test_while_a_run_is_in_flight_nothing_moves(
    ground: Ground, who: Principal, dsn: str
) -> None:
    """The run is committed while the restore already waits for the session's row."""
    session = await begin(ground, who, "echo")
    first = await turn(ground, session, said("one"))
    await turn(ground, session, said("two"))
    async with Database.open(dsn) as other:
        async with other.transaction(who) as conn:
            key = {"thread_id": session.thread_id, "owner_id": session.owner_id}
            await conn.execute(
                "select from clew.session where thread_id = %(thread_id)s for no key update", key
            )
            await conn.execute(
                "insert into clew.run (run_id, thread_id, owner_id, graph_id, status, request) "
                "values (gen_random_uuid(), %(thread_id)s, %(owner_id)s, 'echo', 'pending', '')",
                key,
            )
            waiting = asyncio.create_task(
                rewind.restore(ground, who, session.thread_id, first, WHY)
            )
            blocked = (
                "select from pg_locks join pg_stat_activity using (pid) "
                "where not granted and datname = current_database()"
            )
            while not waiting.done() and not await other.fetch(SERVICE, blocked):
                pass  # only Postgres knows who waits
        with pytest.raises(errors.Conflict, match="already running a task"):
            await waiting
    before = await counts(ground.db)
    for attempt in (
        rewind.undo(ground, who, session.thread_id, WHY),
        rewind.save(ground, who, session.thread_id, "x", None, WHY),
        rewind.delete(ground, who, session.thread_id, [first], WHY),
        rewind.clear(ground, who, session.thread_id, WHY),
        retention.prune(ground.db, who, session.thread_id, WHY),
        retention.keep_latest(ground.db, who, session.thread_id),
    ):
        with pytest.raises(errors.Conflict):
            await attempt
    assert await counts(ground.db) == before
    # A fork takes nothing away from the run.
    await forks.fork(ground, who, session.thread_id, WHY, checkpoint_id=first)


async def test_where_the_graph_cannot_be_asked_the_head_stays(
    db: Database, who: Principal, tmp_path: Path
) -> None:
    (tmp_path / "flaky.py").write_text(
        "from pathlib import Path\n"
        "from tests.project.graphs import ask\n"
        "def make():\n"
        "    if Path(__file__).with_name('broken').exists():\n"
        "        raise RuntimeError('no graph today')\n"
        "    return ask\n"
    )
    (tmp_path / "langgraph.json").write_text(
        json.dumps({"dependencies": ["."], "graphs": {"flaky": "./flaky.py:make"}})
    )
    loaded = await graphs.load(config.load(tmp_path / "langgraph.json"))
    ground = Ground(db, loaded, Saver(db))
    session = await begin(ground, who, "flaky")
    asked = await turn(ground, session, {"x": ["in"]})
    await turn(ground, session, Command(resume="yes"))
    before = await counts(db)
    (tmp_path / "broken").touch()
    with pytest.raises(RuntimeError, match="no graph today"):
        await rewind.restore(ground, who, session.thread_id, asked, WHY)
    assert await counts(db) == before
    assert (await sessions.get(db, who, session.thread_id)).version == session.version
    (tmp_path / "broken").unlink()
    moved = await rewind.restore(ground, who, session.thread_id, asked, WHY)
    assert moved.session.status == "interrupted"


async def test_a_session_whose_graph_is_gone_can_still_be_restored(
    ground: Ground, who: Principal
) -> None:
    session = await begin(ground, who, "ask")
    asked = await turn(ground, session, {"x": ["in"]})
    await turn(ground, session, Command(resume="yes"))
    await sessions.patch(ground.db, who, session.thread_id, {"graph_id": "retired"})
    moved = await rewind.restore(ground, who, session.thread_id, asked, WHY)
    assert (moved.session.status, moved.standing.next) == ("interrupted", ["ask"])
    [waiting] = await interrupts.inbox(ground.db, who)
    assert waiting.value == {"question": "approve?"}
    state = await moments.state(ground, who, session.thread_id, asked)
    assert state["values"] == {"x": ["in"]}


async def test_foreign_and_unknown_sessions_are_one(ground: Ground, who: Principal) -> None:
    session = await begin(ground, who, "echo")
    first = await turn(ground, session, said("one"))
    bob = Principal.owner(await ground.db.owner("default", "bob"))
    before = await counts(ground.db)
    for id_ in (session.thread_id, "00000000-0000-4000-8000-000000000000"):
        for attempt in (
            rewind.restore(ground, bob, id_, first, WHY),
            rewind.undo(ground, bob, id_, WHY),
            rewind.clear(ground, bob, id_, WHY),
            forks.fork(ground, bob, id_, WHY),
            forks.copy_to(ground, bob, id_, bob.owner_from, WHY),
            moments.state(ground, bob, id_, first),
            retention.get(ground.db, bob, id_),
            retention.prune(ground.db, bob, id_, WHY),
        ):
            with pytest.raises(errors.NotFound, match=f"Thread with ID {id_} not found"):
                await attempt
    assert await counts(ground.db) == before


# -- forks and copies


async def test_a_fork_has_its_beginnings_and_copies_no_value(
    ground: Ground, who: Principal
) -> None:
    session = await begin(
        ground, who, "echo", title="北京之旅", tags=["a"], metadata={"k": 1, "other": 2}
    )
    await search.index(ground.db, who, session.thread_id, ["forbidden city"])
    first = await turn(ground, session, said("one"))
    await turn(ground, session, said("two"))
    before = await counts(ground.db)
    moved = await forks.fork(
        ground, who, session.thread_id, WHY, checkpoint_id=first, metadata={"k": 3}
    )
    after = await counts(ground.db)
    assert after["item"] == before["item"]
    assert after["checkpoint"] == before["checkpoint"] + 1
    made = moved.session
    assert made.parent_thread_id == session.thread_id
    assert (made.title, made.tags, made.graph_id) == ("北京之旅", ["a"], "echo")
    assert made.metadata == {"k": 3, "other": 2}
    assert (made.status, made.message_count, made.version) == ("idle", 2, 1)
    found = await search.page(ground.db, who, search.Wanted(text="forbidden"))
    assert {item.thread_id for item in found.items} == {session.thread_id, made.thread_id}
    await turn(ground, made, said("three"))
    assert await texts(ground, who, made) == ["one", "one", "three", "three"]
    assert await texts(ground, who, session) == ["one", "one", "two", "two"]
    [event] = await told(ground, who, outbox.START, made, 1)
    assert event.kind == "session.forked"


async def test_an_interrupted_session_is_forked_and_answered_on_both_sides(
    ground: Ground, who: Principal
) -> None:
    session = await begin(ground, who, "parent")
    await turn(ground, session, {"x": ["in"]})
    made = (await forks.fork(ground, who, session.thread_id, WHY)).session
    assert made.status == "interrupted"
    assert {item.thread_id for item in await interrupts.inbox(ground.db, who)} == {made.thread_id}
    await turn(ground, made, Command(resume="no"))
    await turn(ground, session, Command(resume="yes"))
    for one, answer in ((made, "no"), (session, "yes")):
        [newest, *_] = await ids(ground, one)
        state = await moments.state(ground, who, one.thread_id, newest)
        assert state["values"]["answer"] == answer
        assert state["next"] == []


async def test_a_session_in_which_nothing_ran_can_be_forked_and_copied(
    ground: Ground, who: Principal
) -> None:
    session = await begin(ground, who, "echo", title="empty")
    bob = await ground.db.owner("default", "bob")
    for moved in (
        await forks.fork(ground, who, session.thread_id, WHY),
        await forks.fork(ground, who, session.thread_id, WHY, scope="all"),
        await forks.copy_to(ground, who, session.thread_id, bob, WHY),
    ):
        assert moved.session.title == "empty"
        assert moved.head is None
    with pytest.raises(UnknownCheckpoint):
        await forks.fork(
            ground,
            who,
            session.thread_id,
            WHY,
            checkpoint_id="1f0c5b1e-0000-6000-8000-000000000000",
        )


async def test_a_fork_is_within_its_owners_limit_or_not_at_all(
    ground: Ground, who: Principal
) -> None:
    session = await begin(ground, who, "echo")
    await turn(ground, session, said("one"))
    before = await counts(ground.db)
    with pytest.raises(errors.Limited):
        await forks.fork(ground, who, session.thread_id, WHY, limit=Limit(1))
    with pytest.raises(errors.Conflict, match="already exists"):
        await forks.fork(ground, who, session.thread_id, WHY, target_id=session.thread_id)
    assert await counts(ground.db) == before


async def test_a_copy_for_another_owner_shares_nothing_and_tells_only_its_path(
    ground: Ground, who: Principal
) -> None:
    session = await begin(ground, who, "echo", title="mine")
    first = await turn(ground, session, said("one"))
    await turn(ground, session, said("secret"))
    await rewind.save(ground, who, session.thread_id, "named", {"note": "private"}, WHY)
    bob = Principal.owner(await ground.db.owner("default", "bob"))
    copied: list[int] = []
    moved = await forks.copy_to(
        ground,
        who,
        session.thread_id,
        bob.owner_from,
        WHY,
        checkpoint_id=first,
        progress=copied.append,
    )
    made = moved.session
    assert sum(copied) > 1000
    assert (made.owner_id, made.title, made.message_count) == (bob.owner_from, "mine", 2)
    found = await search.page(ground.db, bob, search.Wanted(text="one"))
    indexed = [] if ground.vault else [made.thread_id]
    assert [item.thread_id for item in found.items] == indexed
    async with ground.db.transaction(bob) as conn:
        assert await labels.list_(conn, made.thread_id) == []
        entries = await history.list_(conn, made.thread_id, scope="all", limit=100)
    assert entries[0].checkpoint_id == first
    assert await sessions.count(ground.db, who) == 1
    rows = await ground.db.fetch(SERVICE, "select from clew.session where temporary")
    assert rows == []
    # It lives on without what it was made from.
    await sessions.delete(ground.db, who, session.thread_id, actor="a")
    await turn(ground, made, said("two"))
    assert await texts(ground, bob, made) == ["one", "one", "two", "two"]
    row = await ground.db.one(
        SERVICE, "select count(*) as n from clew.lineage where owner_id = %s", [who.owner_from]
    )
    assert row == {"n": 0}


# -- saving and removing


async def test_row_19_save_with_data_get_delete_one_and_clear(
    ground: Ground, who: Principal
) -> None:
    session = await begin(ground, who, "echo")
    first = await turn(ground, session, said("one"))
    saved = await rewind.save(
        ground, who, session.thread_id, "里程碑", {"note": "第一", "n": [1, 2]}, WHY
    )
    assert saved.has_data
    second = await turn(ground, session, said("two"))
    before = await sessions.get(ground.db, who, session.thread_id)
    _, data = await rewind.saved(ground, who, session.thread_id, "里程碑")
    assert data == {"note": "第一", "n": [1, 2]}
    async with ground.db.transaction(who) as conn:
        latest = await history.latest(conn, session.thread_id)
    assert latest is not None
    assert latest.checkpoint_id == second
    with pytest.raises(CheckpointInUse):
        await rewind.delete(ground, who, session.thread_id, [saved.checkpoint_id], WHY)
    gone = await rewind.delete(ground, who, session.thread_id, [first], WHY)
    assert gone.checkpoint_ids == (first,)
    assert first not in await ids(ground, session, scope="all")
    assert await texts(ground, who, session) == ["one", "one", "two", "two"]
    await rewind.restore(ground, who, session.thread_id, saved.checkpoint_id, WHY)
    assert await texts(ground, who, session) == ["one", "one"]
    cleared = await rewind.clear(ground, who, session.thread_id, WHY)
    assert (cleared.status, cleared.message_count, cleared.bytes) == ("idle", 0, 0)
    assert cleared.version > before.version
    assert await ids(ground, session, scope="all") == []
    await turn(ground, session, said("anew"))
    assert await texts(ground, who, session) == ["anew", "anew"]


async def test_pruning_does_what_its_dry_run_said_and_leaves_what_is_pinned(
    ground: Ground, who: Principal
) -> None:
    session = await begin(ground, who, "echo")
    heads = [await turn(ground, session, said(f"turn {n}")) for n in range(6)]
    async with ground.db.transaction(who) as conn:
        await pins.pin(conn, session.thread_id, heads[1])
    await retention.choose(ground.db, who, session.thread_id, Policy("keep_last", count=2), WHY)
    assert await retention.get(ground.db, who, session.thread_id) == Policy("keep_last", count=2)
    before = await storage.measure(ground.db, who, session.thread_id)
    would = await retention.prune(ground.db, who, session.thread_id, WHY, dry_run=True)
    assert await storage.measure(ground.db, who, session.thread_id) == before
    did = await retention.prune(ground.db, who, session.thread_id, WHY)
    assert did == would
    assert did.checkpoints > 5
    after = await storage.measure(ground.db, who, session.thread_id)
    assert after.checkpoints.count == before.checkpoints.count - did.checkpoints
    left = await ids(ground, session)
    assert heads[1] in left
    assert heads[-1] in left
    state = await moments.state(ground, who, session.thread_id, heads[1])
    assert len(state["values"]["messages"]) == 4
    await retention.keep_latest(ground.db, who, session.thread_id)
    assert heads[1] in await ids(ground, session)


async def test_the_sweep_keeps_to_each_sessions_own_policy_and_passes_by_what_is_busy(
    ground: Ground, who: Principal
) -> None:
    made: list[Session] = []
    for _ in range(3):
        made.append(await begin(ground, who, "echo"))
        for n in range(3):
            await turn(ground, made[-1], said(f"turn {n}"))
    kept, thinned, busy = made
    await retention.choose(ground.db, who, kept.thread_id, Policy("keep_all"), WHY)
    await ground.db.execute(
        who,
        "insert into clew.run (run_id, thread_id, owner_id, graph_id, status, request) "
        "values (gen_random_uuid(), %s, %s, 'echo', 'pending', '')",
        [busy.thread_id, busy.owner_id],
    )
    swept = await retention.sweep(ground.db, Policy("keep_last", count=1))
    assert [gone.thread_id for gone in swept.pruned] == [thinned.thread_id]
    assert swept.skipped == 1
    assert len(await ids(ground, kept)) == len(await ids(ground, busy)) == 9


async def test_a_server_prunes_by_itself_and_thins_what_is_at_rest(
    ground: Ground, who: Principal
) -> None:
    session = await begin(ground, who, "echo")
    heads = [await turn(ground, session, said(f"turn {n}")) for n in range(3)]
    default = Policy("keep_last", count=2)
    async with retention.running(ground.db, interval=timedelta(hours=1), default=default):
        while len(await ids(ground, session)) == 9:
            pass  # until the first pass has been
    assert heads[-1] in await ids(ground, session)
    await retention.thin(ground.db, session.thread_id)
    assert await ids(ground, session) == heads[-1:]
    # One that is busy, and one that is gone, are no reason for the sweeper to stop.
    head = await turn(ground, session, said("more"))
    left = await ids(ground, session)
    await ground.db.execute(
        who,
        "insert into clew.run (run_id, thread_id, owner_id, graph_id, status, request) "
        "values (gen_random_uuid(), %s, %s, 'echo', 'pending', '')",
        [session.thread_id, session.owner_id],
    )
    await retention.thin(ground.db, session.thread_id)
    await retention.thin(ground.db, "00000000-0000-4000-8000-000000000000")
    assert await ids(ground, session) == left
    assert left[0] == head


async def test_storage_adds_up_to_what_the_tables_hold(ground: Ground, who: Principal) -> None:
    session = await begin(ground, who, "parent")
    await turn(ground, session, {"x": ["in" * 500]})
    found = await storage.measure(ground.db, who, session.thread_id)
    after = await counts(ground.db)
    assert found.checkpoints.count == after["checkpoint"]
    assert found.values.count == after["item"]
    assert found.writes.count == after["write"]
    parts = (found.checkpoints, found.values, found.writes)
    assert found.total_bytes == sum(part.bytes for part in parts)
    assert sum(channel.bytes for channel in found.channels) == found.values.bytes
    named = {(channel.namespace, channel.channel) for channel in found.channels}
    assert {("", "x"), ("child", "x")} <= named
    assert (None, None) not in named
    made = (await forks.fork(ground, who, session.thread_id, WHY)).session
    assert (await storage.measure(ground.db, who, made.thread_id)).values.count == 0


# -- moments


async def test_a_state_is_shown_as_it_was_then_and_looking_leaves_no_trace(
    ground: Ground, who: Principal
) -> None:
    session = await begin(ground, who, "parent")
    asked = await turn(ground, session, {"x": ["in"]})
    await turn(ground, session, Command(resume="yes"))
    before = await counts(ground.db)
    state = await moments.state(ground, who, session.thread_id, asked)
    assert state["next"] == ["child"]
    assert [item["value"] for item in state["interrupts"]] == [{"question": "approve?"}]
    assert state["checkpoint"]["thread_id"] == session.thread_id
    assert state["checkpoint"]["checkpoint_id"] == asked
    assert state["tasks"][0]["state"]["checkpoint"]["thread_id"] == session.thread_id
    assert await counts(ground.db) == before
    with pytest.raises(UnknownCheckpoint):
        await moments.state(ground, who, session.thread_id, session.thread_id)


async def test_what_began_when_is_found_in_a_few_loads(ground: Ground, who: Principal) -> None:
    session = await begin(ground, who, "echo")
    heads = [await turn(ground, session, said(f"turn {n}")) for n in range(12)]

    def holds(state: dict[str, Any]) -> bool:
        return any(m["content"] == "turn 7" for m in state["values"].get("messages", []))

    found = await moments.began(ground, who, session.thread_id, holds)
    path = await ids(ground, session, scope="path")
    assert found.length == len(path) == 36
    assert found.loads <= 8
    assert found.checkpoint_id in path
    assert path.index(heads[7]) < path.index(found.checkpoint_id) < path.index(heads[6])
    nowhere = await moments.began(ground, who, session.thread_id, lambda _: False)
    assert nowhere.checkpoint_id is None
    early = await moments.began(ground, who, session.thread_id, holds, tip=heads[3])
    assert early.checkpoint_id is None


# -- bundles


async def exported(ground: Ground, who: Principal, session: Session) -> bytes:
    return b"".join([line async for line in bundles.dump(ground, who, session)])


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 1000):
        yield data[at : at + 1000]


async def test_row_24_a_session_goes_out_as_a_file_and_comes_in_under_a_new_id(
    ground: Ground, who: Principal
) -> None:
    session = await begin(ground, who, "ask", title="出口", tags=["a"], metadata={"k": 1})
    begun = await turn(ground, session, {"x": ["in"]})
    await turn(ground, session, Command(resume="yes"))
    await rewind.restore(ground, who, session.thread_id, begun, WHY)
    file = await exported(ground, who, session)
    bob = Principal.owner(await ground.db.owner("default", "bob"))
    loaded = await bundles.load(
        ground, bob, bob.owner_from, pieces(file), WHY, stamp={"stamped": True}
    )
    made = loaded.moved.session
    assert made.thread_id != session.thread_id
    assert loaded.counts.source_thread_id == session.thread_id
    assert (made.title, made.tags, made.graph_id) == ("出口", ["a"], "ask")
    assert made.metadata == {"k": 1, "stamped": True}
    assert made.status == "interrupted"
    assert made.bytes > 0
    assert len(await interrupts.inbox(ground.db, bob)) == 1
    for scope in ("line", "all"):
        assert await ids(ground, made, scope=scope) == await ids(ground, session, scope=scope)
    await turn(ground, made, Command(resume="no"))
    [newest, *_] = await ids(ground, made)
    state = await moments.state(ground, bob, made.thread_id, newest)
    assert state["values"]["answer"] == "no"


async def test_a_bundle_that_lies_about_its_session_leaves_nothing(
    ground: Ground, who: Principal
) -> None:
    session = await begin(ground, who, "echo")
    await turn(ground, session, said("one"))
    lines = [
        line
        async for line in bundles.bundle.dump(
            ground.db,
            who,
            session.thread_id,
            session={"tags": "no list", "title": 7},
            vault=ground.vault,
        )
    ]
    before = await counts(ground.db)
    with pytest.raises(BundleEdited):
        await bundles.load(ground, who, who.owner_from, pieces(b"".join(lines)), WHY)
    assert await counts(ground.db) == before


async def test_an_archived_session_is_not_moved_but_can_be_pruned(
    ground: Ground, who: Principal
) -> None:
    session = await begin(ground, who, "echo")
    first = await turn(ground, session, said("one"))
    await turn(ground, session, said("two"))
    await lifecycle.move(ground.db, who, session.thread_id, "archive", actor="a")
    with pytest.raises(errors.Conflict) as refused:
        await rewind.restore(ground, who, session.thread_id, first, WHY)
    assert refused.value.facts == {"state": "archived", "to": "active"}
    gone = await retention.prune(
        ground.db, who, session.thread_id, WHY, chosen=Policy("keep_last", count=1)
    )
    assert gone.checkpoints > 0
    async with ground.db.transaction(who) as conn:
        assert (await standing.look(conn, session.thread_id)).state == "archived"
