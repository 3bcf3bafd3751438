import math
import uuid
from typing import Any

import pytest

from clew.checkpointing import bisect, history, lineage
from clew.checkpointing.errors import UnknownCheckpoint, UnknownThread
from clew.checkpointing.postgres import Database
from tests import talks
from tests.talks import Talks


def said(text: str) -> Any:
    return lambda values: any(m.content == text for m in values.get("messages", []))


async def first_by_looking(t: Talks, graph: Any, thread_id: str, holds: Any) -> str | None:
    """The same answer, found by reading every state of the path."""
    async with t.work() as conn:
        path = await history.path(conn, thread_id)
    found = await talks.states(graph, thread_id)
    return next((i for _, i in path if holds(found[i].values)), None)


async def test_the_first_checkpoint_is_found_in_logarithmically_many_loads(db: Database) -> None:
    t = await Talks.open(db)
    graph = talks.chat(t.saver)
    for i in range(12):
        await t.say(graph, "T", talks.human(f"turn {i}"))
    for text in ("turn 0", "re: turn 0", "turn 7", "re: turn 11"):
        async with t.work() as conn:
            found = await bisect.find(conn, "T", said(text))
        assert found.checkpoint_id == await first_by_looking(t, graph, "T", said(text))
        assert found.length == 36
        assert found.loads <= math.ceil(math.log2(found.length)) + 1
        async with t.work() as conn:
            entry = await history.get(conn, "T", str(found.checkpoint_id))
        assert entry.parent_id == found.before_id


async def test_what_never_holds_and_what_always_does(db: Database) -> None:
    t = await Talks.open(db)
    await t.say(talks.chat(t.saver), "T", talks.human("one"))
    async with t.work() as conn:
        never = await bisect.find(conn, "T", said("nothing of the kind"))
        always = await bisect.find(conn, "T", lambda values: True)
        path = await history.path(conn, "T")
        await lineage.create(conn, "empty", t.owner_id)
        empty = await bisect.find(conn, "empty", lambda values: True)
    assert (never.checkpoint_id, never.loads) == (None, 1)
    assert (always.checkpoint_id, always.before_id) == (path[0][1], None)
    assert (empty.checkpoint_id, empty.length) == (None, 0)


async def test_a_predicate_may_wait(db: Database) -> None:
    t = await Talks.open(db)
    graph = talks.chat(t.saver)
    for text in ("one", "two"):
        await t.say(graph, "T", talks.human(text))

    async def holds(values: dict[str, Any]) -> bool:
        await db.fetch(t.who, "select 1")
        return said("two")(values)

    async with t.work() as conn:
        found = await bisect.find(conn, "T", holds)
    assert found.checkpoint_id == await first_by_looking(t, graph, "T", said("two"))


async def test_a_path_through_a_fork_and_a_restore_is_searched_as_one(db: Database) -> None:
    t = await Talks.open(db)
    graph = talks.chat(t.saver)
    for text in ("one", "two"):
        await t.say(graph, "T", talks.human(text))
    async with t.work() as conn:
        await lineage.fork(conn, "T", "F")
    await t.say(graph, "F", talks.human("left"))
    async with t.work() as conn:
        tip = (await history.list_(conn, "F", limit=4))[3].checkpoint_id
        gone = (await history.list_(conn, "F", limit=1))[0].checkpoint_id
        await lineage.restore(conn, "F", tip)
    await t.say(graph, "F", talks.human("right"))
    for text in ("two", "right"):
        async with t.work() as conn:
            found = await bisect.find(conn, "F", said(text))
        assert found.checkpoint_id == await first_by_looking(t, graph, "F", said(text))
    async with t.work() as conn:
        assert (await bisect.find(conn, "F", said("left"))).checkpoint_id is None
        assert (await bisect.find(conn, "F", said("left"), tip=gone)).checkpoint_id is not None


async def test_a_search_begins_after_a_checkpoint_of_the_path(db: Database) -> None:
    t = await Talks.open(db)
    graph = talks.chat(t.saver)
    for text in ("one", "two"):
        await t.say(graph, "T", talks.human(text))
    async with t.work() as conn:
        path = [i for _, i in await history.path(conn, "T")]
        found = await bisect.find(conn, "T", lambda values: True, since=path[2])
        assert (found.checkpoint_id, found.length) == (path[3], 3)
        with pytest.raises(UnknownCheckpoint):
            await bisect.find(conn, "T", lambda values: True, since=str(uuid.uuid4()))
        with pytest.raises(UnknownThread):
            await bisect.find(conn, "nobody", lambda values: True)


async def test_a_delta_channel_is_searched_raw_and_through_its_graph(db: Database) -> None:
    t = await Talks.open(db)
    graph = talks.delta(t.saver, every=4)
    for i in range(6):
        await t.say(graph, "T", talks.human(f"turn {i}"))

    async def load(checkpoint_id: str) -> dict[str, Any]:
        state = await graph.aget_state(talks.at_thread("T", checkpoint_id=checkpoint_id))
        return state.values

    expected = await first_by_looking(t, graph, "T", said("turn 3"))
    async with t.work() as conn:
        raw = await bisect.find(conn, "T", said("turn 3"))
        through = await bisect.find(conn, "T", said("turn 3"), load=load)
    assert raw.checkpoint_id == through.checkpoint_id == expected
