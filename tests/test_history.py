import uuid

import pytest

from clew.checkpointing import history, lineage, sizes, view
from clew.checkpointing.errors import InvalidId, UnknownCheckpoint, UnknownThread
from clew.checkpointing.history import Filter
from clew.checkpointing.postgres import Database
from tests import talks
from tests.talks import Talks


async def saver_ids(t: Talks, thread_id: str) -> list[str]:
    config = talks.at_thread(thread_id, checkpoint_ns="")
    return [found.checkpoint["id"] async for found in t.saver.alist(config)]


async def test_a_list_is_what_langgraph_shows_without_a_value_decoded(db: Database) -> None:
    t = await Talks.open(db)
    graph = talks.chat(t.saver)
    run_id = str(uuid.uuid4())
    await t.say(graph, "T", talks.human("one"))
    await t.say(graph, "T", talks.human("two"), run_id=run_id)
    # Nothing could be decoded any more; the list does not notice.
    await t.rows("update clew.item set body = ''")
    async with t.work() as conn:
        found = await history.list_(conn, "T")
        assert [e.checkpoint_id for e in found] == [
            r["checkpoint_id"]
            for r in await t.rows(
                "select checkpoint_id::text from clew.checkpoint order by seq desc"
            )
        ]
    assert [(e.source, e.step) for e in found] == [
        ("loop", 4), ("loop", 3), ("input", 2), ("loop", 1), ("loop", 0), ("input", -1),
    ]  # fmt: skip
    assert [e.parent_id for e in found] == [*(e.checkpoint_id for e in found[1:]), None]
    assert {e.run_id for e in found[:3]} == {run_id}
    assert all(e.metadata["step"] == e.step and e.bytes > 0 for e in found)


async def test_pages_by_before_make_up_the_whole_in_every_scope(db: Database) -> None:
    t = await Talks.open(db)
    graph = talks.chat(t.saver)
    for i in range(3):
        await t.say(graph, "T", talks.human(f"turn {i}"))
    async with t.work() as conn:
        middle = (await history.list_(conn, "T"))[4]
        await lineage.fork(conn, "T", "F", checkpoint_id=middle.checkpoint_id)
    await t.say(graph, "F", talks.human("other"))
    async with t.work() as conn:
        await lineage.restore(conn, "F", middle.checkpoint_id)
    await t.say(graph, "F", talks.human("again"))
    scopes: list[view.Scope] = ["path", "line", "all"]
    whole: list[history.Entry] = []
    async with t.work() as conn:
        for scope in scopes:
            whole = await history.list_(conn, "F", scope=scope, limit=100)
            paged: list[history.Entry] = []
            while page := await history.list_(
                conn, "F", scope=scope, limit=2, before=paged[-1].checkpoint_id if paged else None
            ):
                paged += page
                assert len(paged) <= len(whole)
            assert [e.checkpoint_id for e in paged] == [e.checkpoint_id for e in whole]
            assert [e.bytes for e in paged] == [e.bytes for e in whole]
    assert [e.checkpoint_id for e in whole] != await saver_ids(t, "F")
    async with t.work() as conn:
        line = await history.list_(conn, "F", limit=100)
    assert [e.checkpoint_id for e in line] == await saver_ids(t, "F")


async def test_filters_hold_in_the_database(db: Database) -> None:
    t = await Talks.open(db)
    graph = talks.agent(t.saver)
    run_id = str(uuid.uuid4())
    await t.say(graph, "T", talks.human("one"))
    await t.say(graph, "T", talks.human("two"), run_id=run_id)
    async with t.work() as conn:
        ofrun = await history.list_(conn, "T", where=Filter(run_id=run_id))
        inputs = await history.list_(conn, "T", where=Filter(source="input"))
        step = await history.list_(conn, "T", where=Filter(metadata={"step": 0}))
        both = await history.list_(conn, "T", where=Filter(metadata={"run_id": run_id, "step": 6}))
        none = await history.list_(conn, "T", where=Filter(metadata={"colour": "green"}))
    assert len(ofrun) == 5
    assert {e.run_id for e in ofrun} == {run_id}
    assert [e.step for e in inputs] == [4, -1]
    assert [e.step for e in step] == [0]
    assert [(e.step, e.run_id) for e in both] == [(6, run_id)]
    assert none == []


async def test_metadata_of_a_run_can_be_filtered_on(db: Database) -> None:
    t = await Talks.open(db)
    graph = talks.chat(t.saver)
    config = talks.at_thread("T")
    await graph.ainvoke(talks.human("一"), {**config, "metadata": {"颜色": "绿\x00"}})
    await graph.ainvoke(talks.human("二"), {**config, "metadata": {"颜色": "红"}})
    async with t.work() as conn:
        green = await history.list_(conn, "T", where=Filter(metadata={"颜色": "绿\x00"}))
    assert len(green) == 3
    assert all(e.metadata["颜色"] == "绿\x00" for e in green)


async def test_a_path_leaves_the_branches_out(db: Database) -> None:
    t = await Talks.open(db)
    graph = talks.chat(t.saver)
    await t.say(graph, "T", talks.human("one"))
    async with t.work() as conn:
        end = (await history.list_(conn, "T", limit=1))[0].checkpoint_id
    await t.say(graph, "T", talks.human("left"))
    async with t.work() as conn:
        left = (await history.list_(conn, "T", limit=1))[0].checkpoint_id
    await t.say(graph, "T", talks.human("right"), checkpoint_id=end)
    async with t.work() as conn:
        path = [e.checkpoint_id for e in await history.list_(conn, "T", scope="path")]
        line = [e.checkpoint_id for e in await history.list_(conn, "T")]
        other = [e.checkpoint_id for e in await history.list_(conn, "T", tip=left)]
        assert await history.path(conn, "T", tip=left) == [
            ((await history.get(conn, "T", i)).lineage_id, i) for i in reversed(other)
        ]
    assert len(line) == 9
    assert len(path) == len(other) == 6
    assert left in line
    assert left not in path
    assert other[0] == left
    assert set(path) & set(other) == {*path[3:]}


async def test_the_tree_has_every_line_once_and_says_which_is_the_head(db: Database) -> None:
    t = await Talks.open(db)
    graph = talks.chat(t.saver)
    await t.say(graph, "T", talks.human("one"))
    first = await saver_ids(t, "T")
    await t.say(graph, "T", talks.human("two"))
    abandoned = (await saver_ids(t, "T"))[0]
    async with t.work() as conn:
        await lineage.restore(conn, "T", first[0], actor="bob", reason="wrong turn")
    await t.say(graph, "T", talks.human("three"))
    async with t.work() as conn:
        tree = await history.tree(conn, "T")
        head = await lineage.head(conn, "T")
        gone = await history.get(conn, "T", abandoned)
    assert len(tree.entries) == 9
    assert len({e.checkpoint_id for e in tree.entries}) == 9
    ids = {e.checkpoint_id: e for e in tree.entries}
    assert all(e.parent_id in ids for e in tree.entries if e.parent_id)
    assert [b.line.kind for b in tree.branches] == ["root", "restore"]
    assert [b.line.is_head for b in tree.branches] == [False, True]
    assert tree.branches[0].tip == abandoned == gone.checkpoint_id
    assert tree.branches[1].line.lineage_id == head.lineage_id
    assert tree.branches[1].line.fork_id == first[0]
    assert (tree.branches[1].actor, tree.branches[1].reason) == ("bob", "wrong turn")
    assert abandoned not in await saver_ids(t, "T")


async def test_a_copied_session_shows_all_branches_like_langgraph(db: Database) -> None:
    t = await Talks.open(db)
    graph = talks.chat(t.saver)
    await t.say(graph, "T", talks.human("one"))
    end = (await saver_ids(t, "T"))[0]
    await t.say(graph, "T", talks.human("left"))
    await t.say(graph, "T", talks.human("right"), checkpoint_id=end)
    await t.saver.acopy_thread("T", "C")
    await t.say(graph, "T", talks.human("later"))
    await t.say(graph, "C", talks.human("own"))
    async with t.work() as conn:
        listed = await history.list_(conn, "C", limit=100)
    assert [e.checkpoint_id for e in listed] == await saver_ids(t, "C")
    assert len(listed) == 12


async def test_subgraphs_have_lists_of_their_own(db: Database) -> None:
    t = await Talks.open(db)
    graph = talks.nested(t.saver)
    await t.say(graph, "T", {"topic": "tea"})
    (ns,) = [
        row["ns"]
        for row in await t.rows("select distinct ns from clew.checkpoint where ns like '%%|%%'")
    ]
    async with t.work() as conn:
        inner = await history.list_(conn, "T", ns=ns)
        root = await history.list_(conn, "T", limit=1)
        await lineage.fork(conn, "T", "F")
        forked = await history.list_(conn, "F", ns=ns)
    assert [e.step for e in inner] == [1, 0, -1]
    assert inner[0].interrupted
    assert root[0].interrupted
    assert not root[0].failed
    assert inner[0].metadata["parents"][""] == root[0].checkpoint_id
    assert forked[0].checkpoint_id == inner[0].checkpoint_id


async def test_a_failure_is_told(db: Database) -> None:
    t = await Talks.open(db)
    graph = talks.brittle(t.saver)
    with pytest.raises(ValueError, match="broken"):
        await t.say(graph, "T", {"topic": "break"})
    await t.saver.flush("T")
    async with t.work() as conn:
        found = await history.list_(conn, "T")
    assert [e.failed for e in found] == [True, False]


async def test_what_is_not_there_is_an_error_of_its_own(db: Database) -> None:
    t = await Talks.open(db)
    graph = talks.chat(t.saver)
    await t.say(graph, "T", talks.human("one"))
    other = await Talks.open(db, "bob")
    async with t.work() as conn:
        with pytest.raises(UnknownThread):
            await history.list_(conn, "nobody")
        with pytest.raises(UnknownCheckpoint):
            await history.get(conn, "T", str(uuid.uuid4()))
        with pytest.raises(InvalidId):
            await history.get(conn, "T", "not an id")
    async with other.work() as conn:
        with pytest.raises(UnknownThread):
            await history.list_(conn, "T")


async def test_a_page_costs_a_page_however_long_the_session_is(db: Database) -> None:
    t = await Talks.open(db)
    graph = talks.chat(t.saver)
    await t.say(graph, "T", talks.human("one"))
    async with t.work() as conn:
        await lineage.fork(conn, "T", "F")
    for thread_id in ("T", "F"):
        await t.rows(
            """
            insert into clew.checkpoint
                (lineage_id, owner_id, created_at, checkpoint_id, parent_id, ns, state)
            select c.lineage_id, c.owner_id, now(), gen_random_uuid(), c.parent_id, '', c.state
            from (
                select c.* from clew.checkpoint c join clew.head h using (lineage_id)
                where h.thread_id = %s and c.ns = '' order by seq desc limit 1
            ) c, generate_series(1, 2000)
            """,
            thread_id,
        )
        async with t.work() as conn:
            await conn.execute("set local enable_seqscan = off")  # nothing was analyzed yet
            found = await history.list_(conn, thread_id, limit=20)
            assert len(found) == 20
            read = await conn.execute(
                "select sum(pg_stat_get_xact_tuples_fetched(c.oid)"
                " + pg_stat_get_xact_tuples_returned(c.oid))::bigint as rows from pg_class c"
                " where c.relname like 'checkpoint%%'"
            )
            row = await read.fetchone()
            assert row is not None
            assert row["rows"] < 400


async def test_sizes_add_up_to_what_the_tables_hold(db: Database) -> None:
    t = await Talks.open(db)
    graph = talks.nested(t.saver)
    await t.say(graph, "T", {"topic": "tea " * 1000, "facts": {"a": 1}})
    await t.say(graph, "T", talks.answer("milk"))
    await t.say(talks.chat(t.saver), "other", talks.human("hello"))
    async with t.work() as conn:
        found = await sizes.of(conn, "T")
        await lineage.fork(conn, "T", "F")
        forked = await sizes.of(conn, "F")
    (held,) = await t.rows(
        "select sum(octet_length(body)) as bytes, count(*) as items from clew.item"
        " join clew.lineage using (lineage_id) where thread_id = 'T'"
    )
    assert found.channel_values.count == held["items"]
    assert found.channel_values.bytes > held["bytes"]
    assert found.total_bytes == (
        found.checkpoints.bytes + found.channel_values.bytes + found.pending_writes.bytes
    )
    assert sum(c.bytes for c in found.channels) == found.channel_values.bytes
    assert {(c.ns, c.channel) for c in found.channels} >= {
        ("", "topic"), ("middle:*", "facts"), ("middle:*|inner:*", "answers"),
    }  # fmt: skip
    # A fork stores a few rows and no value.
    assert forked.channel_values.count == 0
    assert forked.checkpoints.count < found.checkpoints.count
