"""Every named query is one that the migrated schema understands."""

import re

import pytest
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg import AsyncConnection

from clew.checkpointing.sql import Queries

PACKAGES = ("clew.checkpointing.queries", "clew.runtime.queries")
QUERIES = [(package, name) for package in PACKAGES for name in Queries(package)]


@pytest.mark.parametrize(("package", "name"), QUERIES)
async def test_the_database_can_prepare(package: str, name: str, migrated: str) -> None:
    numbers: dict[str, str] = {}

    def number(match: re.Match[str]) -> str:
        return numbers.setdefault(match[1], f"${len(numbers) + 1}")

    text = re.sub(r"%\((\w+)\)[sb]", number, Queries(package)[name]).replace("%%", "%")
    # Where a query leaves its order to the caller, any column will do.
    text = text.replace("{order}", "1")
    if name.startswith("stock_"):  # these speak to the tables of langgraph-checkpoint-postgres
        async with AsyncPostgresSaver.from_conn_string(migrated) as stock:
            await stock.setup()
    async with await AsyncConnection.connect(migrated, autocommit=True) as conn:
        await conn.execute(f"prepare statement as {text}")  # pyright: ignore[reportArgumentType, reportCallIssue]


def test_a_query_has_one_name_and_says_why() -> None:
    assert len(QUERIES) > 10
