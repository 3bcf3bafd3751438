"""Listing and search, on the real indexes and under the real policies."""

import itertools
from datetime import timedelta
from typing import Any

import pytest
from psycopg import errors as pg
from psycopg import sql

from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.runtime import cursors, errors, lifecycle, search, sessions
from clew.runtime.search import Wanted
from clew.runtime.sessions import Session, State, Ttl


async def three(db: Database, who: Principal) -> list[Session]:
    given: list[sessions.Fields] = [
        {"tags": ["红", "blue"], "metadata": {"a": 1, "b": {"c": [1, 2.5]}}, "graph_id": "echo"},
        {"tags": ["blue"], "metadata": {"a": "1"}, "kind": "chat", "title": "会议纪要"},
        {"tags": [], "metadata": {}, "graph_id": "other", "kind": "chat"},
    ]
    return [await sessions.create(db, who, who.owner_from, **fields) for fields in given]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, [2, 1, 0]),
        ({"tags_all": ["blue"]}, [1, 0]),
        ({"tags_all": ["blue", "红"]}, [0]),
        ({"tags_any": ["红", "none"]}, [0]),
        ({"tags_any": ["none"]}, []),
        ({"metadata": {"a": 1}}, [0]),
        ({"metadata": {"a": 1.0}}, [0]),
        ({"metadata": {"a": "1"}}, [1]),
        ({"metadata": {"b": {"c": [2.50]}}}, [0]),
        ({"metadata": {"b": {"c": []}}}, [0]),
        ({"metadata": {"b": {}}}, [0]),
        ({"metadata": {"a": None}}, []),
        ({"kind": "chat"}, [2, 1]),
        ({"kind": "chat", "graph_id": "other"}, [2]),
        ({"kind": "chat", "tags_any": ["blue"], "metadata": {"a": "1"}}, [1]),
        ({"text": "会议"}, [1]),
        ({"text": "议纪", "tags_all": ["blue"]}, [1]),
        ({"text": "会议", "kind": "x"}, []),
        ({"text": "..."}, []),
        ({"states": ["idle"]}, []),
        ({"statuses": ["idle"]}, [2, 1, 0]),
        ({"statuses": ["busy", "error"]}, []),
    ],
)
async def test_rows_3_and_4_every_filter(
    db: Database, wanted: dict[str, Any], expected: list[int]
) -> None:
    alice, bob = [Principal.owner(await db.owner("default", n)) for n in ("alice", "bob")]
    made = await three(db, alice)
    await three(db, bob)
    for session in made:
        await search.index(db, alice, session.thread_id, [session.title or ""])
    found = await search.page(db, alice, Wanted(**wanted), total=True)
    order = [session.thread_id for session in made]
    assert [order.index(session.thread_id) for session in found.items] == expected
    assert found.total == len(expected)
    # The tenant's admin asks without the index of terms and finds as much, twice.
    if "text" not in wanted:
        admin = Principal.tenant_of(alice.owner_from)
        found = await search.page(db, admin, Wanted(**wanted), total=True)
        assert found.total == 2 * len(expected)


async def test_row_3_pages_hold_every_session_once_in_either_order(db: Database) -> None:
    who = Principal.owner(await db.owner("default", "alice"))
    for n in range(23):
        await sessions.create(db, who, who.owner_from, tags=["t"], metadata={"n": n})
    # Many at one moment: the id decides.
    await db.execute(who, "update clew.session set created_at = date_trunc('hour', now())")
    for wanted, sort, descending in itertools.product(
        (Wanted(), Wanted(tags_all=["t"])), ("updated_at", "created_at"), (True, False)
    ):
        seen: list[Session] = []
        cursor = None
        while True:
            found = await search.page(
                db, who, wanted, sort=sort, descending=descending, limit=5, cursor=cursor
            )
            seen += found.items
            cursor = found.cursor
            if cursor is None:
                break
        keys = [(getattr(session, sort), session.thread_id) for session in seen]
        assert len(keys) == 23
        assert keys == sorted(set(keys), reverse=descending)


async def test_a_cursor_belongs_to_its_query(db: Database) -> None:
    who = Principal.owner(await db.owner("default", "alice"))
    for _ in range(3):
        await sessions.create(db, who, who.owner_from, kind="chat")
    cursor = (await search.page(db, who, Wanted(), limit=1)).cursor
    assert cursor is not None
    bob = Principal.owner(await db.owner("default", "bob"))
    for asking in (
        search.page(db, who, Wanted(kind="chat"), cursor=cursor),
        search.page(db, who, Wanted(), sort="created_at", cursor=cursor),
        search.page(db, who, Wanted(), descending=False, cursor=cursor),
        search.page(db, bob, Wanted(), cursor=cursor),
    ):
        with pytest.raises(errors.Invalid, match="another query"):
            await asking
    question = [who.owner_from, Wanted().conditions(None), None, "updated_at", True]
    for broken in ("", "x", "é", cursors.make(question, "x"), cursors.make(question, "x", "y")):
        with pytest.raises(errors.Invalid, match="not a cursor"):
            await search.page(db, who, Wanted(), cursor=broken)


async def test_states_are_asked_for_by_name(db: Database) -> None:
    who = Principal.owner(await db.owner("default", "alice"))
    ids: dict[str, str] = {}
    for state in ("active", "archived", "deleted", "expired"):
        ttl = Ttl(timedelta(0)) if state == "expired" else None
        made = await sessions.create(db, who, who.owner_from, ttl=ttl)
        ids[made.thread_id] = state
        if state == "archived":
            await lifecycle.move(db, who, made.thread_id, "archive", actor="a")
        if state == "deleted":
            await lifecycle.move(db, who, made.thread_id, "delete", actor="a")
    asked: list[tuple[State, ...]] = [
        ("active",), ("archived", "deleted"), ("expired",), search.LIVING,
    ]  # fmt: skip
    for states in asked:
        found = await search.page(db, who, Wanted(states=states))
        assert {ids[s.thread_id] for s in found.items} == set(states) & set(ids.values())


async def test_terms_follow_what_changes(db: Database) -> None:
    who = Principal.owner(await db.owner("default", "alice"))
    made = await sessions.create(db, who, who.owner_from, tags=["old"], metadata={"x": 1})
    await sessions.patch(db, who, made.thread_id, {"tags": ["new"], "metadata": {"x": 2}})

    async def hits(**wanted: Any) -> int:
        return len((await search.page(db, who, Wanted(**wanted))).items)

    assert await hits(tags_all=["new"], metadata={"x": 2}) == 1
    assert await hits(tags_all=["old"]) == 0
    assert await hits(metadata={"x": 1}) == 0
    await search.index(db, who, made.thread_id, ["first words"])
    await search.index(db, who, made.thread_id, ["later ones"])
    assert await hits(text="first later") == 1
    await sessions.delete(db, who, made.thread_id, actor="a")
    assert await db.fetch(SERVICE, "select from clew.session_term") == []


async def test_row_6_the_search_function_knows_only_its_caller(db: Database) -> None:
    alice, bob = [Principal.owner(await db.owner("default", n)) for n in ("alice", "bob")]
    await sessions.create(db, alice, alice.owner_from, tags=["t"], metadata={"s": 1}, kind="k")
    call = (
        "select * from clew.session_find("
        "%s::text::tsquery, %s::jsonb, 'updated_at', true, null, null, 9)"
    )
    everything = '{"states": ["active", "idle", "archived", "deleted", "expired"]}'
    assert len(await db.fetch(alice, call, [None, everything])) == 1
    assert await db.fetch(bob, call, [None, everything]) == []
    for who in (SERVICE, Principal.tenant_of(alice.owner_from), Principal(2, 1)):
        with pytest.raises(pg.InsufficientPrivilege):
            await db.fetch(who, call, [None, everything])
    async with db.connection() as conn:
        with pytest.raises(pg.InsufficientPrivilege):
            await conn.execute(call, [None, everything])
    holding, held = "select clew.session_holding(%s::jsonb) as ids", '{"s": 1}'
    [row] = await db.fetch(alice, holding, [held])
    assert len(row["ids"]) == 1
    assert await db.fetch(bob, holding, [held]) == [{"ids": []}]
    for who in (SERVICE, Principal.tenant_of(alice.owner_from), Principal(2, 1)):
        with pytest.raises(pg.InsufficientPrivilege):
            await db.fetch(who, holding, [held])
    # Indexing someone else's session does nothing.
    await search.index(db, bob, (await search.page(db, alice, Wanted())).items[0].thread_id, ["w"])
    assert (await search.page(db, alice, Wanted(text="w"))).items == []


MANY = """
insert into clew.session
    (thread_id, owner_id, tags, metadata, created_at, updated_at, last_active_at)
select 'n' || n, %(owner_id)s, array['each', case when n <= 40 then 'old' else 'new' end],
    jsonb_build_object('seventh', n %% 7 = 0),
    now() - n * interval '1 second', now() - (700 - n) * interval '1 second', now()
from generate_series(1, 700) n
"""


async def test_row_3_what_many_have_and_what_few_have_is_found_alike(db: Database) -> None:
    who = Principal.owner(await db.owner("default", "alice"))
    await db.execute(who, MANY, {"owner_id": who.owner_from})
    for n in (3, 30, 300, 690):
        await search.index(db, who, f"n{n}", ["seldom"])
    wanted: dict[str, tuple[Wanted, list[int]]] = {
        "all": (Wanted(tags_all=["each"]), [*range(1, 701)]),
        "the last of the walk": (Wanted(tags_all=["each", "old"]), [*range(1, 41)]),
        "some": (Wanted(metadata={"seventh": True}), [*range(7, 701, 7)]),
        "words": (Wanted(text="seldom"), [3, 30, 300, 690]),
        "both": (Wanted(text="seldom", tags_all=["new"]), [300, 690]),
    }
    orders: tuple[tuple[search.Sort, bool], ...] = (
        ("updated_at", True), ("created_at", True), ("updated_at", False),
    )  # fmt: skip
    for label, (asked, numbers) in wanted.items():
        for sort, descending in orders:
            seen: list[str] = []
            cursor = None
            while True:
                page = await search.page(
                    db, who, asked, sort=sort, descending=descending, limit=9, cursor=cursor
                )
                seen += [session.thread_id for session in page.items]
                if (cursor := page.cursor) is None:
                    break
            newest_first = (sort == "updated_at") == descending
            expected = [f"n{n}" for n in sorted(numbers, reverse=newest_first)]
            assert seen == expected, f"{label}, {sort}, {descending}"
    for metadata, expected in (({"seventh": True}, 100), ({"seventh": 1}, 0), ({}, 700)):
        assert await sessions.count(db, who, metadata=metadata) == expected
        found = await sessions.search(db, who, metadata=metadata, limit=1000)
        assert len(found.items) == expected


async def test_row_3_no_order_is_made_by_sorting_all_that_an_owner_has(db: Database) -> None:
    who = Principal.owner(await db.owner("default", "alice"))
    await db.execute(who, MANY, {"owner_id": who.owner_from})
    async with db.connection() as conn:
        await conn.execute("analyze clew.session")
    for sort in ("updated_at", "created_at", "last_active_at"):
        for descending in ("desc", "asc"):
            query = sql.SQL(
                "explain select thread_id from clew.session_state where owner_id = %s "
                "order by {0} {1}, thread_id {1} limit 20"
            ).format(sql.Identifier(sort), sql.SQL(descending))
            async with db.transaction(who) as conn:
                await conn.execute("set local enable_seqscan = off")
                cursor = await conn.execute(query, [who.owner_from])
                plan = str(await cursor.fetchall())
            assert "Sort" not in plan, plan


async def test_an_unknown_order_is_refused_by_the_database(db: Database) -> None:
    who = Principal.owner(await db.owner("default", "alice"))
    await sessions.create(db, who, who.owner_from)
    with pytest.raises(pg.InvalidParameterValue):
        await search.page(db, who, Wanted(), sort="title; drop table clew.session")  # pyright: ignore[reportArgumentType]
