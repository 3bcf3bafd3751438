"""Upstream's own definition of a checkpoint saver, every capability of it."""

from collections.abc import AsyncIterator

import pytest
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.report import ProgressCallbacks

from clew.checkpointing.postgres import Database, Principal
from clew.checkpointing.saver import Saver


@pytest.mark.timeout(300)
async def test_every_capability_of_the_upstream_suite_is_there_and_passes(dsn: str) -> None:
    @checkpointer_test(name="Saver")
    async def savers() -> AsyncIterator[Saver]:
        async with Database.open(dsn) as db:
            owner_id = await db.owner("conformance", "one")
            yield Saver(db, principal=Principal.owner(owner_id))

    report = await validate(savers, progress=ProgressCallbacks.quiet())
    results = report.to_dict()["results"]
    assert all(result["detected"] for result in results.values()), results
    failures = [failure for result in results.values() for failure in result["failures"]]
    assert failures == []
    assert sum(result["tests_passed"] for result in results.values()) == 81
    assert report.passed_all()
