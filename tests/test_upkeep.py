"""What time alone brings about in the long-term memory."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from clew.checkpointing.postgres import SERVICE, Database
from clew.runtime import upkeep
from clew.runtime.store import Store
from tests.remembering import OTHER, OWNER, age, count
from tests.test_embedding import indexed

OFTEN = timedelta(milliseconds=5)


async def test_expired_items_go_in_bounded_steps(db: Database) -> None:
    async with Store.open(db) as opened:
        for owner_id in (OWNER, OTHER):
            for number in range(3):
                await opened.bind(owner_id).aput(("a",), str(number), {}, ttl=1)
        await opened.bind(OWNER).aput(("b",), "kept", {})
    await age(db, 1)
    assert [await upkeep.sweep(db, 4) for _ in range(3)] == [4, 2, 0]
    assert await count(db) == 1


async def test_row_39_what_is_due_is_done_while_it_runs(db: Database, tmp_path: Path) -> None:
    async with Store.open(db) as bare:
        await bare.bind(OWNER).aput(("m",), "old", {"text": "cold coffee"})
        await bare.bind(OWNER).aput(("m",), "over", {"text": "cold coffee"}, ttl=1)
    await age(db, 1)
    async with indexed(db, tmp_path) as opened:
        mine = opened.bind(OWNER)
        assert await mine.asearch(("m",), query="coffee") == []
        async with asyncio.timeout(20), upkeep.running(opened, interval=OFTEN):
            while not await mine.asearch(("m",), query="coffee") or await count(db) > 1:
                pass
    assert await count(db) == 1


async def test_one_process_at_a_time_asks_the_model(db: Database, tmp_path: Path) -> None:
    async with indexed(db, tmp_path) as opened:
        assert opened.embedding is not None
        async with db.transaction(SERVICE) as conn:
            await conn.execute("select pg_advisory_xact_lock(hashtext('clew.store_item'), 0)")
            assert await upkeep.reindex(db, opened.embedding) is None
        assert await upkeep.reindex(db, opened.embedding) == 0


async def test_it_outlives_a_model_that_fails(
    db: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Store.open(db) as bare:
        await bare.bind(OWNER).aput(("m",), "old", {"text": "cold coffee"})
    async with (
        indexed(db, tmp_path, "failing") as opened,
        asyncio.timeout(20),
        upkeep.running(opened, interval=OFTEN),
    ):
        while "the next round tries again" not in caplog.text:
            assert await count(db) == 1
        await opened.bind(OWNER).aput(("m",), "over", {}, index=False, ttl=1)
        await age(db, 1)
        while await count(db) > 1:
            pass
    assert "RuntimeError" in caplog.text
    assert "sk-secret" not in caplog.text
