import json
from typing import Any

import pytest

from clew.checkpointing import codec, diff, history, lineage
from clew.checkpointing.diff import Ref, changes
from clew.checkpointing.errors import UnknownCheckpoint, UnknownThread
from clew.checkpointing.postgres import Database
from tests import talks
from tests.talks import Talks


async def compare(t: Talks, a: Ref, b: Ref) -> dict[str, Any]:
    async with t.work() as conn:
        found = await diff.compare(conn, a, b)
    assert json.loads(json.dumps(found)) == found
    return found


async def ids(t: Talks, thread_id: str) -> list[str]:
    """Oldest first."""
    async with t.work() as conn:
        found = await history.list_(conn, thread_id, limit=1000, scope="path")
    return [e.checkpoint_id for e in reversed(found)]


async def test_two_turns_differ_by_their_messages_and_nothing_else_is_decoded(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    t = await Talks.open(db)
    graph = talks.chat(t.saver)
    for i in range(20):
        await t.say(graph, "T", talks.human(f"turn {i}"))
    path = await ids(t, "T")
    decoded = 0
    load = codec.load

    def counted(*args: Any) -> Any:
        nonlocal decoded
        decoded += 1
        return load(*args)

    monkeypatch.setattr(codec, "load", counted)
    found = await compare(t, Ref("T", path[-4]), Ref("T"))
    assert list(found["values"]) == ["messages"]
    messages = found["values"]["messages"]
    assert [(m["index"], m["value"]["content"]) for m in messages["added"]] == [
        (38, "turn 19"), (39, "re: turn 19"),
    ]  # fmt: skip
    assert messages["removed"] == messages["changed"] == []
    assert messages["length"] == [38, 40]
    assert decoded <= 4
    assert found["next"] == {"a": [], "b": []}
    back = await compare(t, Ref("T"), Ref("T", path[-4]))
    assert [m["index"] for m in back["values"]["messages"]["removed"]] == [38, 39]


async def test_a_checkpoint_does_not_differ_from_itself_nor_from_its_copy(db: Database) -> None:
    t = await Talks.open(db)
    graph = talks.approval(t.saver)
    await t.say(graph, "T", {"topic": "tea"})
    async with t.work() as conn:
        await lineage.fork(conn, "T", "F")
    for other in ("T", "F"):
        found = await compare(t, Ref("T"), Ref(other))
        assert found["values"] == {}
        assert found["interrupts"] == {"added": [], "removed": []}
        assert found["metadata"] == []
        assert found["next"] == {"a": ["ask"], "b": ["ask"]}


async def test_an_edited_message_is_matched_by_its_id(db: Database) -> None:
    t = await Talks.open(db)
    graph = talks.chat(t.saver)
    await t.say(graph, "T", talks.human("one", id="m1"))
    await t.say(graph, "T", talks.human("two", id="m2"))
    before = (await ids(t, "T"))[-1]
    await graph.aupdate_state(talks.at_thread("T"), talks.human("eins", id="m1"))
    await t.saver.flush("T")
    found = await compare(t, Ref("T", before), Ref("T"))
    messages = found["values"]["messages"]
    assert messages["added"] == messages["removed"] == []
    assert [(c["id"], c["index"], c["changes"]) for c in messages["changed"]] == [
        ("m1", 0, [{"path": "/content", "op": "changed", "from": "one", "to": "eins"}])
    ]
    assert {c["path"] for c in found["metadata"]} >= {"/source", "/step"}


async def test_forks_and_sessions_are_compared_across_lineages(db: Database) -> None:
    t = await Talks.open(db)
    graph = talks.chat(t.saver)
    await t.say(graph, "T", talks.human("shared"))
    async with t.work() as conn:
        await lineage.fork(conn, "T", "F")
    await t.say(graph, "T", talks.human("left"))
    await t.say(graph, "F", talks.human("right"))
    await t.say(graph, "U", talks.human("stranger"))
    found = (await compare(t, Ref("T"), Ref("F")))["values"]["messages"]
    assert [m["value"]["content"] for m in found["removed"]] == ["left", "re: left"]
    assert [m["value"]["content"] for m in found["added"]] == ["right", "re: right"]
    assert found["length"] == [4, 4]
    other = (await compare(t, Ref("T"), Ref("U")))["values"]["messages"]
    assert len(other["removed"]) == 4
    assert len(other["added"]) == 2


async def test_an_abandoned_line_can_be_compared(db: Database) -> None:
    t = await Talks.open(db)
    graph = talks.chat(t.saver)
    await t.say(graph, "T", talks.human("one"))
    first = (await ids(t, "T"))[-1]
    await t.say(graph, "T", talks.human("two"))
    gone = (await ids(t, "T"))[-1]
    async with t.work() as conn:
        await lineage.restore(conn, "T", first)
    found = await compare(t, Ref("T", gone), Ref("T"))
    assert len(found["values"]["messages"]["removed"]) == 2


async def test_dicts_differ_by_path_and_questions_by_what_is_asked(db: Database) -> None:
    t = await Talks.open(db)
    graph = talks.approval(t.saver)
    await t.say(graph, "T", {"topic": "tea"})
    waiting = (await ids(t, "T"))[-1]
    await t.say(graph, "T", talks.answer("milk"))
    done = (await ids(t, "T"))[-1]
    await t.say(graph, "T", {"topic": "茶\x00"})
    found = await compare(t, Ref("T", waiting), Ref("T", done))
    assert found["values"] == {"answers": {"op": "added", "value": ["milk"]}} or found["values"][
        "answers"
    ]["added"] == [{"index": 0, "value": "milk"}]
    assert found["next"] == {"a": ["ask"], "b": []}
    assert [asked["value"] for asked in found["interrupts"]["removed"]] == [{"about": "tea"}]
    after = await compare(t, Ref("T", done), Ref("T"))
    assert after["values"]["facts"]["changes"] == [
        {"path": "/topic", "op": "changed", "from": "tea", "to": "茶\x00"},
        {"path": "/asked", "op": "changed", "from": 0, "to": 1},
    ]
    assert after["values"]["topic"]["changes"] == [
        {"path": "", "op": "changed", "from": "tea", "to": "茶\x00"}
    ]


async def test_the_next_nodes_are_those_that_langgraph_names(db: Database) -> None:
    t = await Talks.open(db)
    for thread_id, graph in (
        ("chat", talks.chat(t.saver)),
        ("agent", talks.agent(t.saver)),
        ("form", talks.approval(t.saver)),
        ("nested", talks.nested(t.saver)),
        ("wide", talks.brittle(t.saver)),
        ("fan", talks.fan(t.saver)),
    ):
        given = {"topic": "tea"} if thread_id not in ("chat", "agent") else talks.human("one")
        await t.say(graph, thread_id, given)
        for checkpoint_id, state in (await talks.states(graph, thread_id)).items():
            found = await compare(t, Ref(thread_id, checkpoint_id), Ref(thread_id))
            assert sorted(found["next"]["a"]) == sorted(state.next), (thread_id, state.metadata)


async def test_a_delta_channel_is_compared_by_what_its_writes_make(db: Database) -> None:
    t = await Talks.open(db)
    graph = talks.delta(t.saver, every=4)
    for i in range(7):
        await t.say(graph, "T", talks.human(f"turn {i}"))
    path = await ids(t, "T")
    for at in (3, 8, -4):
        state = await graph.aget_state(talks.at_thread("T", checkpoint_id=path[at]))
        now = await graph.aget_state(talks.at_thread("T"))
        found = (await compare(t, Ref("T", path[at]), Ref("T")))["values"]["messages"]
        had = [m.content for m in state.values.get("messages", [])]
        has = [m.content for m in now.values["messages"]]
        assert found["removed"] == []
        assert [m["value"]["content"] for m in found["added"]] == has[len(had) :]
        assert found["length"] == [len(had), len(has)]


async def test_what_is_not_there_or_not_ours_is_refused(db: Database) -> None:
    t = await Talks.open(db)
    bob = await Talks.open(db, "bob")
    await t.say(talks.chat(t.saver), "T", talks.human("one"))
    await bob.say(talks.chat(bob.saver), "B", talks.human("secret"))
    async with bob.work() as conn:
        await lineage.create(conn, "empty", bob.owner_id)
        with pytest.raises(UnknownCheckpoint):
            await diff.compare(conn, Ref("B"), Ref("empty"))
    theirs = (await ids(bob, "B"))[0]
    async with t.work() as conn:
        with pytest.raises(UnknownThread):
            await diff.compare(conn, Ref("T"), Ref("B"))
        with pytest.raises(UnknownCheckpoint):
            await diff.compare(conn, Ref("T", theirs), Ref("T"))


def test_changes_name_each_path_once() -> None:
    a = {"x": {"y/z": 1, "~": [1, 2, 3]}, "gone": None, "same": [{"id": "a", "n": 1}]}
    b = {"x": {"y/z": True, "~": [0, 1, 2, 3]}, "new": [], "same": [{"id": "a", "n": 2}]}
    assert changes(a, b) == [
        {"path": "/x/y~1z", "op": "changed", "from": 1, "to": True},
        {"path": "/x/~0/0", "op": "added", "to": 0},
        {"path": "/gone", "op": "removed", "from": None},
        {"path": "/same/0/n", "op": "changed", "from": 1, "to": 2},
        {"path": "/new", "op": "added", "to": []},
    ]
    assert changes(a, a) == []
