"""What row-level security costs: the same turns with the policies and without, taking turns on one
database. Nothing serves without them; only this measurement does.
"""

import statistics

import psycopg

from tests.bench.report import Section, Table
from tests.bench.saver import ours, turns_per_second

BUDGET = 0.10

SWITCH = """
do $$
declare
    place regclass;
begin
    for place in
        select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = 'clew' and c.relkind in ('r', 'p')
            and exists (select from pg_policy p where p.polrelid = c.oid)
    loop
        execute format('alter table %s {} row level security', place);
    end loop;
end
$$
"""


async def switch(dsn: str, word: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        await conn.execute(SWITCH.replace("{}", word).encode())


async def run(dsn: str, *, long: bool) -> Section:
    rounds, seconds = (21, 1.5) if long else (1, 0.5)
    section = Section("isolation", "Row-level security, with and without")
    table = Table(
        "Turns per second (echo, async durability), median of the rounds",
        ("concurrency", "with policies", "without", "overhead", "CPU ms with", "without"),
    )
    async with ours(dsn) as make:
        await turns_per_second(make, 8, seconds)  # the caches are warm for both
        for concurrency in (1, 8):
            rates: dict[str, list[float]] = {"enable": [], "disable": []}
            spent: dict[str, list[float]] = {"enable": [], "disable": []}
            for number in range(rounds):
                words = ("enable", "disable") if number % 2 else ("disable", "enable")
                for word in words:
                    await switch(dsn, word)
                    rate, cpu = await turns_per_second(make, concurrency, seconds)
                    rates[word].append(rate)
                    spent[word].append(cpu)
            on, off = (statistics.median(rates[word]) for word in ("enable", "disable"))
            cpu_on, cpu_off = (statistics.median(spent[word]) for word in ("enable", "disable"))
            table.row(
                concurrency,
                f"{on:.0f}",
                f"{off:.0f}",
                f"{(off / on - 1) * 100:+.1f} %",
                f"{cpu_on:.2f}",
                f"{cpu_off:.2f}",
            )
        await switch(dsn, "enable")
    section.add(table)
    section.add(f"Budget: {BUDGET:.0%}.")
    return section
