"""Long-term memory: the answers of LangGraph's own stores, for each owner alone."""

import asyncio
import math
import random
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, TypedDict, cast

import psycopg
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.graph import StateGraph
from langgraph.runtime import Runtime
from langgraph.store.base import (
    BaseStore,
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    SearchOp,
)
from langgraph.store.memory import InMemoryStore
from langgraph.store.postgres import AsyncPostgresStore

from clew.checkpointing import isolation
from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.runtime import config, errors, upkeep
from clew.runtime.store import Store
from tests.remembering import OTHER, OWNER, age, count, many, owners


@pytest_asyncio.fixture
async def opened(db: Database) -> AsyncIterator[Store]:
    async with Store.open(db) as found:
        yield found


@pytest.fixture
def mine(opened: Store) -> Store:
    return opened.bind(OWNER)


# Parity with LangGraph's own stores


labels = st.sampled_from(["a", "ab", "a-b", "b", "用户", "x_y", "x%", "(", "A", "\x01"])
paths = st.lists(labels, min_size=1, max_size=3).map(tuple)
keys = st.sampled_from(["k", "k1", "K", "键", ""])
texts = st.text(max_size=8) | st.sampled_from(["\x00", "a\ud800b", "\U0010ffff0000"])
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False, min_value=-1e15, max_value=1e15)
    | texts
)
documents = st.dictionaries(
    texts,
    st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    ),
    max_size=4,
)
matches = st.tuples(
    st.sampled_from(["prefix", "suffix"]), st.lists(labels | st.just("*"), max_size=3).map(tuple)
).map(lambda drawn: MatchCondition(*cast("Any", drawn)))


def putting(values: st.SearchStrategy[Any]) -> st.SearchStrategy[PutOp]:
    return st.tuples(paths, keys, values).map(lambda drawn: PutOp(*drawn))


puts = putting(documents | st.none())
reads = (
    st.tuples(paths, keys).map(lambda drawn: GetOp(*drawn))
    | st.lists(labels, max_size=3).map(lambda drawn: SearchOp(tuple(drawn), limit=100))
    | st.tuples(st.lists(matches, max_size=2).map(tuple), st.none() | st.integers(1, 3)).map(
        lambda drawn: ListNamespacesOp(*drawn)
    )
)
batches = st.lists(st.lists(puts | reads, max_size=4), max_size=8)


def shown(result: Any, *, ordered: bool) -> Any:
    """An answer without what no two stores can have in common: the times."""
    if isinstance(result, list):
        rows = [shown(item, ordered=ordered) for item in cast("list[Any]", result)]
        return rows if ordered else sorted(rows, key=repr)
    if hasattr(result, "value"):
        return (result.namespace, result.key, result.value)
    return result


async def expected(stock: InMemoryStore, ops: list[Op]) -> list[Any]:
    """One by one, the reads first, since reading makes it list namespaces that hold nothing."""
    results: list[Any] = [None] * len(ops)
    kept: dict[Any, Any] = cast("Any", stock)._data
    for place, op in sorted(enumerate(ops), key=lambda entry: isinstance(entry[1], PutOp)):
        [results[place]] = await stock.abatch([op])
        for name in [name for name, items in kept.items() if not items]:
            del kept[name]
    return results


@many
@given(batches)
async def test_row_39_the_same_operations_have_the_answers_of_the_store_in_memory(
    opened: Store, work: list[list[Op]]
) -> None:
    ours, stock = opened.bind(next(owners)), InMemoryStore()
    for ops in work:
        wanted, found = await expected(stock, ops), await ours.abatch(ops)
        for op, one, other in zip(ops, found, wanted, strict=True):
            ordered = isinstance(op, ListNamespacesOp)
            assert shown(one, ordered=ordered) == shown(other, ordered=ordered), op


@pytest_asyncio.fixture
async def stock(empty_dsn: str) -> AsyncIterator[AsyncPostgresStore]:
    async with AsyncPostgresStore.from_conn_string(empty_dsn) as found:
        await found.setup()
        yield found


@settings(many, max_examples=25)
@given(
    st.lists(
        st.tuples(
            putting(st.dictionaries(st.sampled_from("ab"), st.integers()) | st.none()) | reads
        ).map(list),
        max_size=12,
    )
)
async def test_the_same_operations_have_the_answers_of_the_stock_store_in_postgres(
    opened: Store, stock: AsyncPostgresStore, work: list[list[Op]]
) -> None:
    ours = opened.bind(next(owners))
    async with stock.conn.cursor() as cursor:  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]
        await cursor.execute("truncate store")
    for ops in work:
        wanted, found = await stock.abatch(ops), await ours.abatch(ops)
        for op, one, other in zip(ops, found, wanted, strict=True):
            # Its order of namespaces is that of the database's collation.
            ordered = isinstance(op, SearchOp)
            assert shown(one, ordered=ordered) == shown(other, ordered=ordered), op


colours = st.sampled_from(["red", "green", "", "红"])
measured = st.fixed_dictionaries(
    {"n": st.integers(-3, 3) | st.floats(-3, 3)},
    optional={
        "colour": colours | st.none(),
        "flag": st.booleans(),
        "inner": st.dictionaries(st.sampled_from("xy"), colours | st.lists(colours, max_size=2)),
        "list": st.lists(colours | st.dictionaries(st.just("x"), colours), max_size=2),
    },
)
orders = st.sampled_from(["$gt", "$gte", "$lt", "$lte"])
anything = colours | st.none() | st.lists(colours, max_size=2)
filters = st.fixed_dictionaries(
    {},
    optional={
        "n": st.integers(-3, 3)
        | st.dictionaries(orders, st.integers(-3, 3) | st.floats(-3, 3), min_size=1, max_size=2)
        | st.dictionaries(st.sampled_from(["$eq", "$ne"]), st.integers(-3, 3), min_size=1),
        "colour": anything | st.dictionaries(st.sampled_from(["$eq", "$ne"]), anything, min_size=1),
        "flag": st.booleans() | st.none(),
        "inner": st.dictionaries(
            st.sampled_from("xy"),
            anything | st.fixed_dictionaries({"$ne": anything}),
        ),
        "list": st.lists(
            colours | st.dictionaries(st.just("x"), colours) | st.just({"$ne": "red"}), max_size=2
        ),
        "none": st.none() | colours,
    },
)


@many
@given(st.lists(measured, max_size=6), st.lists(filters, max_size=4))
async def test_filters_mean_what_they_mean_in_the_store_in_memory(
    opened: Store, values: list[dict[str, Any]], wanted: list[dict[str, Any]]
) -> None:
    ours, stock = opened.bind(next(owners)), InMemoryStore()
    puts = [PutOp(("a",), str(number), value) for number, value in enumerate(values)]
    await ours.abatch(puts)
    await stock.abatch(puts)
    for one in wanted:
        search = [SearchOp(("a",), one, 100)]
        [found], [other] = await ours.abatch(search), await stock.abatch(search)
        assert shown(found, ordered=False) == shown(other, ordered=False), one


async def test_an_order_is_one_of_numbers_or_of_strings_and_nothing_else(mine: Store) -> None:
    for key, value in {"9": 9, "10": 10, "text": "10", "day": "2026-01-02", "none": None}.items():
        await mine.aput(("a",), key, {"v": value})

    async def keys(**wanted: Any) -> set[str]:
        return {item.key for item in await mine.asearch(("a",), filter={"v": wanted})}

    assert await keys(**{"$gt": 9}) == {"10"}
    assert await keys(**{"$gte": 9, "$lt": 10}) == {"9"}
    assert await keys(**{"$gte": "2026-01-01", "$lt": "2026-01-03"}) == {"day"}
    for bad in ({"$gt": None}, {"$lt": [1]}, {"$gt": True}, {"$near": 1}, {"$eq": 1, "x": 2}):
        with pytest.raises(errors.Invalid, match="filter"):
            await keys(**bad)
    with pytest.raises(errors.Invalid, match=r"Did you mean \$ne"):
        await keys(**{"$neq": 1})


async def test_pages_are_parts_of_one_order(mine: Store) -> None:
    for number in range(7):
        await mine.aput(("a", str(number)), "k", {"n": number})
    pages = [await mine.asearch(("a",), limit=3, offset=offset) for offset in (0, 3, 6, 9)]
    assert [item.value["n"] for page in pages for item in page] == [6, 5, 4, 3, 2, 1, 0]
    lists = [await mine.alist_namespaces(limit=3, offset=offset) for offset in (0, 3, 6)]
    assert [name[1] for page in lists for name in page] == list("0123456")
    with pytest.raises(errors.Invalid):
        await mine.asearch(("a",), limit=-1)


async def test_a_put_again_keeps_when_it_was_made(mine: Store) -> None:
    await mine.aput(("a",), "k", {"n": 1})
    first = await mine.aget(("a",), "k")
    await mine.aput(("a",), "k", {"n": 2})
    second = await mine.aget(("a",), "k")
    assert first is not None
    assert second is not None
    assert second.created_at == first.created_at == first.updated_at < second.updated_at
    await mine.adelete(("a",), "k")
    assert await mine.aget(("a",), "k") is None


@pytest.mark.parametrize(
    "op",
    [
        GetOp(("a.b",), "k"),
        PutOp(("",), "k", {}),
        PutOp(("a\x00",), "k", {}),
        SearchOp((cast("str", 1),)),
        ListNamespacesOp((MatchCondition("prefix", ("a.b",)),)),
    ],
)
async def test_labels_that_are_none_are_refused_in_a_batch_too(mine: Store, op: Op) -> None:
    with pytest.raises(InvalidNamespaceError):
        await mine.abatch([op])


async def test_what_cannot_be_kept_is_refused_with_a_reason(mine: Store, db: Database) -> None:
    for value in ({"v": math.nan}, {"v": object()}, {"v": {1, 2}}):
        with pytest.raises(errors.Invalid, match="value"):
            await mine.aput(("a",), "k", value)
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    with pytest.raises(errors.Invalid, match="value"):
        await mine.aput(("a",), "k", loop)
    with pytest.raises(errors.TooLarge):
        await mine.aput(("a",), "k" * 1025, {})
    with pytest.raises(errors.TooLarge):
        await mine.aput(("a" * 1024,), "k", {})
    noise = random.Random(1).randbytes(512).hex()
    await mine.aput((noise[:1023],), noise[-1024:], {"n": 1})  # the longest there may be
    with pytest.raises(InvalidNamespaceError):
        await mine.aput((), "k", {})
    with pytest.raises(errors.Invalid, match="empty"):
        await mine.abatch([PutOp((), "k", {})])
    assert await count(db) == 1


# Owners


async def test_row_39_an_owner_never_sees_what_is_anothers(
    opened: Store, db: Database, dsn: str
) -> None:
    a, b = opened.bind(OWNER), opened.bind(OTHER)
    await a.aput(("notes",), "k", {"text": "of a"})
    assert await b.aget(("notes",), "k") is None
    assert await b.asearch(()) == []
    assert await b.asearch((), query="of a") == []
    assert await b.alist_namespaces() == []
    await b.aput(("notes",), "k", {"text": "of b"})
    await b.adelete(("notes",), "k")
    found = await a.aget(("notes",), "k")
    assert found is not None
    assert found.value == {"text": "of a"}
    # Nor does the database show it, whatever a statement asks for.
    statement = "select owner_id from clew.store_item"
    assert await db.fetch(Principal.owner(OTHER), statement) == []
    assert len(await db.fetch(Principal.owner(OWNER), statement)) == 1
    forged = "update clew.store_item set value = '{}' where owner_id = %s"
    assert await db.execute(Principal.owner(OTHER), forged, [OWNER]) == 0
    # Without the rule it would: what is above is the rule's work.
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        cursor = await conn.execute(statement)
        assert len(await cursor.fetchall()) == 1
    await isolation.prove(db)


async def test_row_39_concurrent_owners_are_never_batched_together(opened: Store) -> None:
    async def use(owner_id: int) -> None:
        bound = opened.bind(owner_id)
        for number in range(5):
            await bound.aput(("n",), "k", {"owner": owner_id, "number": number})
            found = await bound.aget(("n",), "k")
            assert found is not None
            assert found.value == {"owner": owner_id, "number": number}
            assert [item.value["owner"] for item in await bound.asearch(())] == [owner_id]

    await asyncio.gather(*(use(OWNER + number) for number in range(40)))


async def test_a_store_of_nobody_does_nothing(opened: Store) -> None:
    with pytest.raises(errors.ClewError, match="bound to no owner"):
        await opened.aget(("a",), "k")
    with pytest.raises(errors.ClewError, match="bound to no owner"):
        await opened.aput(("a",), "k", {})


# Round trips, threads, concurrency


async def test_a_batch_of_one_kind_is_one_statement_of_work(
    mine: Store, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    trips: list[Principal] = []
    work = Database.work

    def counted(self: Database, who: Principal) -> Any:
        trips.append(who)
        return work(self, who)

    monkeypatch.setattr(Database, "work", counted)
    await mine.abatch([PutOp(("a",), str(n), {"n": n}) for n in range(20)])
    assert trips == [Principal.owner(OWNER)]
    found = await mine.abatch(
        [
            *(GetOp(("a",), str(n)) for n in range(20)),
            SearchOp(("a",)),
            SearchOp(("a",), {"n": {"$gt": 3}}),
            SearchOp(("a",), query="7"),
            ListNamespacesOp(),
        ]
    )
    assert trips == [Principal.owner(OWNER)] * 2
    assert [item.value["n"] for item in cast("list[Any]", found[:20])] == list(range(20))
    assert [len(cast("list[Any]", part)) for part in found[20:]] == [10, 10, 1, 1]


async def test_batches_that_touch_the_same_items_never_deadlock(mine: Store, db: Database) -> None:
    rng = random.Random(7)
    names = [("a", str(n)) for n in range(6)]
    await mine.abatch([PutOp((a,), key, {"n": 0}, ttl=10) for a, key in names])
    await age(db, 0.5)

    async def use(number: int) -> None:
        ops: list[Op] = []
        for a, key in rng.sample(names, 4):
            kind = rng.randrange(4)
            if kind == 0:
                ops.append(GetOp((a,), key))
            elif kind == 1:
                ops.append(PutOp((a,), key, None))
            else:
                ops.append(PutOp((a,), key, {"n": number}, ttl=10))
        ops.append(SearchOp(("a",)))
        await mine.abatch(ops)

    await asyncio.gather(*(use(number) for number in range(150)))
    assert len(await mine.asearch(())) <= 6


async def test_the_last_of_two_puts_of_a_batch_counts(mine: Store) -> None:
    ops = [PutOp(("a",), "k", {"n": 1}), PutOp(("a",), "k", {"n": 2}), GetOp(("a",), "k")]
    assert (await mine.abatch(ops))[2] is None  # what was there before
    found = await mine.aget(("a",), "k")
    assert found is not None
    assert found.value == {"n": 2}


class State(TypedDict):
    n: int


async def test_graphs_reach_it_from_async_and_from_sync_nodes(mine: Store) -> None:
    async def remember(state: State, runtime: Runtime[None]) -> State:
        assert runtime.store is not None
        await runtime.store.aput(("a",), "k", {"n": state["n"]})
        return {"n": state["n"]}

    def recall(state: State, runtime: Runtime[None]) -> State:
        assert runtime.store is not None
        runtime.store.put(("a",), "sync", {"n": 2})
        found = runtime.store.get(("a",), "k")
        assert found is not None
        assert found.value == {"n": state["n"]}
        return {"n": state["n"] + len(runtime.store.search(("a",)))}

    graph = StateGraph(State).add_sequence([remember, recall]).add_edge("__start__", "remember")
    compiled = cast("Any", graph).compile(store=mine)
    assert await compiled.ainvoke({"n": 40}) == {"n": 42}


async def test_a_synchronous_call_on_the_loop_is_refused_not_a_deadlock(mine: Store) -> None:
    with pytest.raises(asyncio.InvalidStateError, match="await"):
        mine.get(("a",), "k")


# Time to live


async def test_expired_items_are_gone_at_once_and_swept_in_bounded_steps(
    mine: Store, db: Database
) -> None:
    for number in range(5):
        await mine.aput(("a",), str(number), {"n": number}, ttl=1)
    await mine.aput(("b",), "kept", {})
    assert len(await mine.asearch(())) == 6
    await age(db, 1)
    assert await mine.aget(("a",), "0") is None
    assert [item.key for item in await mine.asearch(())] == ["kept"]
    assert await mine.alist_namespaces() == [("b",)]
    assert await count(db) == 6
    await mine.aput(("a",), "0", {"n": "new"}, ttl=1)
    again = await mine.aget(("a",), "0")
    assert again is not None
    assert again.created_at == again.updated_at
    assert await upkeep.sweep(db, 3) == 3
    assert await upkeep.sweep(db, 3) == 1
    assert await upkeep.sweep(db, 3) == 0
    assert await count(db) == 2


@pytest.mark.parametrize("way", ["get", "search", "query"])
async def test_reading_refreshes_unless_told_not_to(mine: Store, db: Database, way: str) -> None:
    await mine.aput(("a",), "k", {"text": "hello"}, ttl=10)
    await mine.aput(("a",), "forever", {"text": "other"})

    async def read(*, refresh_ttl: bool | None = None) -> timedelta:
        await age(db, 0.5)
        if way == "get":
            assert await mine.aget(("a",), "k", refresh_ttl=refresh_ttl)
        else:
            query = "hello" if way == "query" else None
            assert await mine.asearch(("a",), query=query, refresh_ttl=refresh_ttl)
        rows = await db.fetch(
            SERVICE, "select expires_at - now() as rest from clew.store_item where key = 'k'"
        )
        return rows[0]["rest"]

    assert await read() > timedelta(minutes=9)
    assert await read(refresh_ttl=False) < timedelta(minutes=6)
    assert await read(refresh_ttl=True) > timedelta(minutes=9)
    [row] = await db.fetch(SERVICE, "select expires_at from clew.store_item where key = 'forever'")
    assert row["expires_at"] is None


async def test_the_configured_life_counts_where_none_is_given(db: Database) -> None:
    chosen = config.Store.model_validate(
        {"ttl": {"default_ttl": timedelta(minutes=10), "refresh_on_read": False}}
    )
    async with Store.open(db, chosen) as found:
        mine = found.bind(OWNER)
        await mine.aput(("a",), "default", {})
        await mine.aput(("a",), "own", {}, ttl=20)
        await mine.aput(("a",), "forever", {}, ttl=None)
        rows = await db.fetch(SERVICE, "select key, ttl from clew.store_item order by key")
        assert [(row["key"], row["ttl"]) for row in rows] == [
            ("default", timedelta(minutes=10)),
            ("forever", None),
            ("own", timedelta(minutes=20)),
        ]
        await age(db, 0.5)
        await mine.aget(("a",), "default")
        [row] = await db.fetch(
            SERVICE, "select expires_at - now() as rest from clew.store_item where key = 'default'"
        )
        assert row["rest"] < timedelta(minutes=6)
        for bad in (0, -1, math.inf, math.nan, 1e15):
            with pytest.raises(errors.Invalid, match="ttl"):
                await mine.aput(("a",), "bad", {}, ttl=bad)


def test_it_is_a_store_of_langgraph() -> None:
    assert issubclass(Store, BaseStore)
    assert Store.supports_ttl
