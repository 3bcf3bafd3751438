import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from clew.checkpointing import history, labels, lineage, pins
from clew.checkpointing.encryption import Sealer, new_key
from clew.checkpointing.errors import (
    FenceLost,
    LabelTaken,
    NotEncrypted,
    Tampered,
    UnknownCheckpoint,
    UnknownLabel,
    UnknownThread,
)
from clew.checkpointing.postgres import Database
from tests import talks
from tests.talks import Talks

SERDE = JsonPlusSerializer()


async def ids(t: Talks, thread_id: str) -> list[str]:
    """Newest first."""
    async with t.work() as conn:
        return [e.checkpoint_id for e in await history.list_(conn, thread_id, limit=100)]


async def test_a_pin_says_who_why_and_until_when(db: Database) -> None:
    t = await Talks.open(db)
    await t.say(talks.chat(t.saver), "T", talks.human("one"))
    newest, middle, first = await ids(t, "T")
    until = datetime.now(UTC) + timedelta(days=1)
    async with t.work() as conn:
        await pins.pin(conn, "T", middle, actor="bob", reason="审计\x00", expires_at=until)
        await pins.pin(conn, "T", first)
        found = {pin.checkpoint_id: pin for pin in await pins.list_(conn, "T")}
        shown = {e.checkpoint_id: e.pinned for e in await history.list_(conn, "T")}
    assert (found[middle].actor, found[middle].reason) == ("bob", "审计\x00")
    assert found[middle].expires_at == until
    assert found[first].expires_at is None
    assert shown == {newest: False, middle: True, first: True}
    async with t.work() as conn:
        await pins.pin(conn, "T", middle, expires_at=datetime.now(UTC) - timedelta(seconds=1))
        assert [pin.checkpoint_id for pin in await pins.list_(conn, "T")] == [first]
        assert not (await history.get(conn, "T", middle)).pinned
        assert await pins.unpin(conn, "T", first)
        assert not await pins.unpin(conn, "T", first)
        with pytest.raises(UnknownCheckpoint):
            await pins.pin(conn, "T", str(uuid.uuid4()))
        with pytest.raises(UnknownThread):
            await pins.pin(conn, "nobody", first)


async def test_a_label_is_unique_in_its_session_and_moves_only_when_told(db: Database) -> None:
    t = await Talks.open(db)
    graph = talks.chat(t.saver)
    await t.say(graph, "T", talks.human("one"))
    await t.say(graph, "U", talks.human("one"))
    newest, middle, _ = await ids(t, "T")
    async with t.work() as conn:
        await labels.label(conn, "T", middle, "好")
        await labels.label(conn, "T", middle, "好", actor="bob")  # the same again
        await labels.label(conn, "T", middle, "also")
        await labels.label(conn, "U", (await history.list_(conn, "U"))[0].checkpoint_id, "好")
        assert (await history.get(conn, "T", middle)).labels == ("also", "好")
        with pytest.raises(LabelTaken):
            await labels.label(conn, "T", newest, "好")
        await labels.label(conn, "T", newest, "好", move=True)
        assert (await labels.get(conn, "T", "好")).checkpoint_id == newest
        assert (await history.get(conn, "T", middle)).labels == ("also",)
        assert await labels.unlabel(conn, "T", "好")
        assert not await labels.unlabel(conn, "T", "好")
        with pytest.raises(UnknownLabel):
            await labels.get(conn, "T", "好")


async def test_a_saved_checkpoint_is_one_of_its_own_and_has_the_same_values(db: Database) -> None:
    t = await Talks.open(db)
    graph = talks.chat(t.saver)
    await t.say(graph, "T", talks.human("one"))
    before = await graph.aget_state(talks.at_thread("T"))
    data: dict[str, Any] = {
        "note": "先存\x00",
        "at": datetime(2026, 1, 1, tzinfo=UTC),
        "b": b"\x00",
    }
    async with t.work() as conn:
        saved = await labels.save(conn, "T", "draft", data=data, serde=SERDE, actor="bob")
        assert await labels.data(conn, "T", "draft", serde=SERDE) == data
    state = await graph.aget_state(talks.at_thread("T"))
    assert state.config["configurable"]["checkpoint_id"] == saved.checkpoint_id
    assert state.parent_config["configurable"] == before.config["configurable"]
    assert (state.values, state.next) == (before.values, before.next)
    assert (state.metadata["source"], state.metadata["step"]) == ("update", 2)
    assert state.created_at > before.created_at
    assert saved.has_data
    # A turn goes on from it, and it can be gone back to.
    await t.say(graph, "T", talks.human("two"))
    async with t.work() as conn:
        await lineage.restore(conn, "T", saved.checkpoint_id)
        assert await labels.data(conn, "T", "draft", serde=SERDE) == data
    assert (await graph.aget_state(talks.at_thread("T"))).values == before.values


async def test_saving_while_a_question_is_pending_keeps_the_question(db: Database) -> None:
    t = await Talks.open(db)
    for thread_id, graph in (("form", talks.approval(t.saver)), ("deep", talks.nested(t.saver))):
        await t.say(graph, thread_id, {"topic": "tea"})
        before = await graph.aget_state(talks.at_thread(thread_id), subgraphs=True)
        async with t.work() as conn:
            saved = await labels.save(conn, thread_id, "waiting", data=[1], serde=SERDE)
        after = await graph.aget_state(talks.at_thread(thread_id), subgraphs=True)
        assert saved.checkpoint_id == before.config["configurable"]["checkpoint_id"]
        assert talks.shown(after) == talks.shown(before)
        answered = await t.say(graph, thread_id, talks.answer("milk"))
        assert "milk" in answered["answers"]


async def test_saving_a_delta_channel_keeps_its_value_and_its_turns(db: Database) -> None:
    t = await Talks.open(db)
    graph = talks.delta(t.saver, every=4)
    for i in range(7):
        await t.say(graph, "T", talks.human(f"turn {i}"))
        async with t.work() as conn:
            await labels.save(conn, "T", f"after {i}", serde=SERDE)
        state = await graph.aget_state(talks.at_thread("T"))
        asked = [m.content for m in state.values["messages"][::2]]
        assert asked == [f"turn {j}" for j in range(i + 1)]


async def test_saving_takes_the_session_over_like_any_writer(db: Database) -> None:
    t = await Talks.open(db)
    await t.say(talks.chat(t.saver), "T", talks.human("one"))
    async with t.work() as conn:
        head = await lineage.claim(conn, "T")
    async with t.work() as conn:
        with pytest.raises(FenceLost):
            await labels.save(conn, "T", "late", serde=SERDE, epoch=head.epoch - 1)
    async with t.work() as conn:
        await labels.save(conn, "T", "now", serde=SERDE, epoch=head.epoch)
    async with t.work() as conn:
        await lineage.create(conn, "empty", t.owner_id)
        with pytest.raises(UnknownCheckpoint):
            await labels.save(conn, "empty", "nothing", serde=SERDE)


async def test_a_name_that_is_taken_saves_nothing(db: Database) -> None:
    t = await Talks.open(db)
    await t.say(talks.chat(t.saver), "T", talks.human("one"))
    async with t.work() as conn:
        await labels.save(conn, "T", "name", data=1, serde=SERDE)
    before = await ids(t, "T")
    with pytest.raises(LabelTaken):
        async with t.work() as conn:
            await labels.save(conn, "T", "name", data=2, serde=SERDE)
    assert await ids(t, "T") == before
    async with t.work() as conn:
        assert await labels.data(conn, "T", "name", serde=SERDE) == 1


async def test_saved_data_is_sealed_to_its_label(db: Database) -> None:
    t = await Talks.open(db)
    await t.say(talks.chat(t.saver), "T", talks.human("one"))
    async with t.work() as conn:
        head = await lineage.head(conn, "T")
        sealer = Sealer.of(head.lineage_id, t.owner_id, new_key())
        await labels.save(conn, "T", "a", data="geheim", serde=SERDE, sealer=sealer)
        await labels.save(conn, "T", "plain", data="offen", serde=SERDE)
    keys = {head.lineage_id: sealer}
    stored = await t.rows("select body from clew.label where name = 'a'")
    assert b"geheim" not in bytes(stored[0]["body"])
    async with t.work() as conn:
        assert await labels.data(conn, "T", "a", serde=SERDE, sealers=keys) == "geheim"
        with pytest.raises(NotEncrypted):
            await labels.data(conn, "T", "plain", serde=SERDE, sealers=keys)
    await t.rows("update clew.label set name = 'b' where name = 'a'")
    async with t.work() as conn:
        with pytest.raises(Tampered):
            await labels.data(conn, "T", "b", serde=SERDE, sealers=keys)


async def test_marks_go_with_their_session_and_are_nobody_elses(db: Database) -> None:
    t = await Talks.open(db)
    bob = await Talks.open(db, "bob")
    await t.say(talks.chat(t.saver), "T", talks.human("one"))
    newest = (await ids(t, "T"))[0]
    async with t.work() as conn:
        await pins.pin(conn, "T", newest)
        await labels.save(conn, "T", "mine", data="secret", serde=SERDE)
    async with bob.work() as conn:
        assert await pins.list_(conn, "T") == []
        assert await labels.list_(conn, "T") == []
        assert not await pins.unpin(conn, "T", newest)
        assert not await labels.unlabel(conn, "T", "mine")
        with pytest.raises(UnknownLabel):
            await labels.data(conn, "T", "mine", serde=SERDE)
    async with t.work() as conn:
        await lineage.purge(conn, "T")
    for table in ("pin", "label"):
        (row,) = await db.fetch(t.who, f"select count(*) as rows from clew.{table}")  # type: ignore[arg-type]  # noqa: S608
        assert row["rows"] == 0
