import asyncio
from collections.abc import Iterator

import pytest

from clew.checkpointing.postgres import SERVICE, Database
from tests.fuzz.ground import Ground

pytest.register_assert_rewrite("tests.fuzz.moves")

# In its first three seconds a server takes nobody for dead.
AGE = """
select pg_sleep(3.1 - extract(epoch from now() - pg_postmaster_start_time()))
"""


@pytest.fixture
def ground(dsn: str) -> Iterator[Ground]:
    with asyncio.Runner() as runner:
        opening = Database.open(dsn)
        db = runner.run(opening.__aenter__())
        db.prepares = True
        runner.run(db.fetch(SERVICE, AGE))
        try:
            yield Ground(runner, dsn, db, runner.run(db.owner("acme", "ann")))
        finally:
            runner.run(opening.__aexit__(None, None, None))
