"""What authorization handlers demand, as alternatives of conditions."""

from typing import Any

import pytest

from clew.runtime import errors, filters


def eq(key: str, value: Any) -> dict[str, Any]:
    return {"key": key, "operator": "eq", "value": value}


def test_every_way_to_write_a_demand() -> None:
    assert filters.prepare({}) == [[]]
    assert filters.prepare({"a": 1, "b": {"$eq": 2}}) == [[eq("a", 1), eq("b", 2)]]
    assert filters.prepare({"a": {"plain": 1}}) == [[eq("a", {"plain": 1})]]
    one = {"key": "a", "operator": "contains", "value": ["x"]}
    assert filters.prepare({"a": {"$contains": "x"}}) == [[one]]
    assert filters.prepare({"a": {"$contains": ["x"]}}) == [[one]]
    assert filters.prepare({"$or": [{"a": 1}, {"b": 2}], "c": 3}) == [
        [eq("a", 1), eq("c", 3)],
        [eq("b", 2), eq("c", 3)],
    ]
    assert filters.prepare({"$and": [{"a": 1}, {"$or": [{"b": 2}, {"b": 3}]}]}) == [
        [eq("a", 1), eq("b", 2)],
        [eq("a", 1), eq("b", 3)],
    ]


@pytest.mark.parametrize(
    "demand",
    [
        {"$or": [{"a": 1}]},
        {"$nor": [{"a": 1}, {"b": 1}]},
        {"a": {"$ne": 1}},
        {"a": {"$eq": 1, "$contains": 2}},
        {"$or": {"a": 1}},
        {"$or": [1, 2]},
        {"$and": [{"$and": [{"$and": [{"a": 1}, {"b": 2}]}, {"c": 1}]}, {"d": 1}]},
    ],
)
def test_a_demand_that_is_not_understood_is_never_dropped(demand: dict[str, Any]) -> None:
    with pytest.raises(errors.ClewError):
        filters.prepare(demand)
