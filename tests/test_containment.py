"""Containment in Python is the database's own."""

import json
from typing import Any

import psycopg
from hypothesis import given
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from clew.checkpointing.containment import contains

VALUES: list[Any] = [
    None, True, False, 0, 1, 1.0, 1.5, "", "1", [], {}, [1], [1, 2], [2, 1, 1], [True], [[1], 2],
    [[1, 3]], {"a": 1}, {"a": True}, {"a": 1, "b": {"c": [1, 2], "d": None}}, {"b": {"c": [2]}},
    {"b": {}}, {"b": None}, [{"a": 1, "b": 2}], [{"a": 1}], ["1"], {"a": []}, {"a": [1]},
]  # fmt: skip


async def test_it_says_what_the_database_says(dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        for value in VALUES:
            for wanted in VALUES:
                told = await conn.execute(
                    "select %s::jsonb @> %s::jsonb", [Jsonb({"k": value}), Jsonb({"k": wanted})]
                )
                row = await told.fetchone()
                assert row
                assert contains({"k": value}, {"k": wanted}) == row[0], (value, wanted)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_whatever_it_is_it_contains_itself(value: Any) -> None:
    assert contains(json.loads(json.dumps(value)), value)
