"""A PgBouncer in transaction mode in between, under load: no error, no turn lost."""

import asyncio
import logging

import psycopg
import pytest

from tests.chaos.test_postgres import over
from tests.chaos.test_workers import damage
from tests.test_notifier import pooled
from tests.turns import engine

assert pooled  # a fixture


@pytest.mark.timeout(300)
async def test_a_pooler_under_load_sees_no_error(
    pooled: str, caplog: pytest.LogCaptureFixture, *, long: bool
):
    width, turns = (40, 20) if long else (8, 3)
    async with engine(pooled, concurrency=20, lease=10) as here:
        assert not here.notifier.direct
        threads = [await here.another() for _ in range(width)]
        caplog.clear()

        async def talk(thread_id: str) -> list[str]:
            asked: list[str] = []
            for n in range(turns):
                run = await here.ask("paced", {"trail": [f"turn{n}"]}, thread_id=thread_id)
                asked.append(run.run_id)
                assert (await here.result(run)).status == "success"
            return asked

        accepted = await asyncio.gather(*map(talk, threads))
        await over(here)
        assert await damage(here, dict(zip(threads, accepted, strict=True))) == []
    errors = [line for line in caplog.records if line.levelno >= logging.WARNING]
    assert errors == []
    print(f"{width * turns} turns through a pooler, {width} at a time: no error")


async def test_prepared_statements_fail_there(pooled: str):
    """The negative control: the pooler does hand connections on between transactions."""
    failed = 0

    async def ask() -> None:
        nonlocal failed
        try:
            async with await psycopg.AsyncConnection.connect(
                pooled, autocommit=True, prepare_threshold=0
            ) as conn:
                for n in range(20):
                    await conn.execute("select %s::int, pg_sleep(0.001)", [n])
        except psycopg.Error:
            failed += 1

    await asyncio.gather(*(ask() for _ in range(30)))
    assert failed
