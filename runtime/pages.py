"""The searches of the official protocol: by offset, in one of a few orders. One row more than
is shown is fetched, which tells whether there are any.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, LiteralString, TypeVar

from psycopg import sql
from psycopg.rows import DictRow

from clew.checkpointing.postgres import Database, Principal

T = TypeVar("T")
Direction = Literal["asc", "desc"]


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """`more` says whether the search goes on past these."""

    items: list[T]
    more: bool


async def find(
    db: Database,
    who: Principal,
    query: LiteralString,
    values: Mapping[str, Any],
    make: Callable[[DictRow], T],
    *,
    by: sql.Composable,
    then: str,
    direction: Direction,
    limit: int,
    offset: int,
) -> Page[T]:
    """Fill the query's `{order}` with `by`, and among equals with the column `then`."""
    way = sql.SQL(" asc" if direction == "asc" else " desc")
    order = sql.SQL(", ").join([by + way, sql.Identifier(then) + way])
    statement = sql.SQL(query).format(order=order)
    async with db.work(who) as conn:
        cursor = await conn.execute(statement, {**values, "limit": limit + 1, "offset": offset})
        rows = await cursor.fetchall()
    return Page([make(row) for row in rows[:limit]], len(rows) > limit)
