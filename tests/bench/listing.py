"""Listing and searching one owner's 100,000 sessions among 1,000,000, under row-level security.

Budgets: list 20 p99 < 20 ms at four callers at once; by tag, metadata and text < 50 ms.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from statistics import quantiles

from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.runtime import search, words
from clew.runtime.search import Wanted
from tests.bench.report import Section, Table

CALLERS, CALLS = 4, 400

FILL = """
insert into clew.session (thread_id, owner_id, graph_id, kind, title, tags, metadata,
    created_at, updated_at, last_active_at)
select gen_random_uuid()::text, %(owner_id)s, 'echo',
    case when n %% 2 = 0 then 'chat' else 'task' end, 'session ' || n,
    array['half' || n %% 2, 'rare' || n %% 5000],
    jsonb_build_object('project', n %% 1000, 'common', n %% 2),
    now() - random() * interval '30 days', now() - random() * interval '30 days', now()
from generate_series(1, %(count)s) n
"""

SPEAK = """
update clew.session_term t set words = array_to_tsvector(
    array[%(often)s, %(mark)s || 'number' || s.n] ||
    case when s.n %% 1000 = 0 then array[%(seldom)s] else '{}' end)
from (select thread_id, row_number() over () as n from clew.session where owner_id = %(owner_id)s) s
where t.thread_id = s.thread_id
"""


async def run(dsn: str, *, long: bool) -> Section:
    each = 100_000 if long else 1_000
    section = Section("listing", "Listing and searching among a million sessions")
    async with Database.open(dsn) as db:
        alice = await db.owner("bench", "alice")
        await fill(db, alice, each)
        for n in range(9):
            await fill(db, await db.owner("bench", f"other-{n}"), each)
        async with db.connection() as conn:
            await conn.execute("vacuum analyze")
        section.add(await measure(db, Principal.owner(alice), each))
    section.add("Budgets: p99 of a list under 20 ms, of a search under 50 ms.")
    return section


async def fill(db: Database, owner_id: int, count: int) -> None:
    mark = f"{owner_id:x}w"
    [often], [seldom] = words.index(owner_id, ["often"]), words.index(owner_id, ["会议"])[:1]
    values = {
        "owner_id": owner_id, "count": count, "mark": mark, "often": often, "seldom": seldom
    }  # fmt: skip
    await db.execute(SERVICE, FILL, values)
    await db.execute(SERVICE, SPEAK, values)


async def measure(db: Database, who: Principal, each: int) -> Table:
    table = Table(
        f"20 of one owner's {each:,} sessions among {10 * each:,}, four callers at once",
        ("asked for", "rows", "p50 ms", "p99 ms"),
    )
    deep = None
    for _ in range(20):
        deep = (await search.page(db, who, Wanted(), limit=1000, cursor=deep)).cursor
    cases: dict[str, tuple[Wanted, str | None]] = {
        "first page": (Wanted(), None),
        "page 1000": (Wanted(), deep),
        "rare tag": (Wanted(tags_all=["rare7"]), None),
        "common tag": (Wanted(tags_all=["half1"]), None),
        "rare metadata": (Wanted(metadata={"project": 7}), None),
        "common metadata": (Wanted(metadata={"common": 1}), None),
        "rare word": (Wanted(text="会议"), None),
        "common word": (Wanted(text="often"), None),
        "unique word": (Wanted(text="number4711"), None),
        "no such word": (Wanted(text="nowhere"), None),
        "all together": (Wanted(text="often", tags_all=["half1"], kind="task"), None),
    }
    for label, (wanted, cursor) in cases.items():

        async def call(wanted: Wanted = wanted, cursor: str | None = cursor) -> int:
            return len((await search.page(db, who, wanted, limit=20, cursor=cursor)).items)

        rows = await call()
        took = await timed(call)
        cuts = quantiles(took, n=100)
        table.row(label, rows, f"{cuts[49]:.1f}", f"{cuts[98]:.1f}")
    return table


async def timed(call: Callable[[], Awaitable[object]]) -> list[float]:
    took: list[float] = []

    async def caller() -> None:
        for _ in range(CALLS // CALLERS):
            started = time.perf_counter()
            await call()
            took.append((time.perf_counter() - started) * 1000)

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return took
