"""What an authorization handler may demand of a row's metadata, made ready for the database."""

from itertools import product
from typing import Any, cast

from clew.runtime import errors
from clew.runtime.sessions import Filter


def prepare(demand: dict[str, Any], depth: int = 0) -> Filter:
    """`{"owner": "a"}`, `$eq`, `$contains`, `$and` and `$or` as alternatives of conditions. What is
    not understood is an error, since a demand that is dropped would show too much."""
    alternatives: Filter = [[]]
    for key, wanted in demand.items():
        if key in ("$and", "$or"):
            branches = cast("list[Any]", wanted) if isinstance(wanted, list) else []
            if depth >= 2 or len(branches) < 2 or not all(isinstance(b, dict) for b in branches):
                raise errors.ClewError(f"a filter's {key} takes two or more filters, two deep")
            parts = [prepare(branch, depth + 1) for branch in branches]
            found = [a for part in parts for a in part] if key == "$or" else _all(parts)
        elif key.startswith("$"):
            raise errors.ClewError(f"a filter has the unknown operator {key}")
        else:
            found = [[condition] for condition in [_condition(key, wanted)]]
        alternatives = _all([alternatives, found])
    return alternatives


def _all(parts: list[Filter]) -> Filter:
    return [[c for conditions in choice for c in conditions] for choice in product(*parts)]


def _condition(key: str, wanted: Any) -> dict[str, Any]:
    if isinstance(wanted, dict):
        operations = cast("dict[str, Any]", wanted)
        if list(operations) == ["$eq"]:
            return {"key": key, "operator": "eq", "value": operations["$eq"]}
        if list(operations) == ["$contains"]:
            value: Any = operations["$contains"]
            values = cast("list[Any]", value) if isinstance(value, list) else [value]
            return {"key": key, "operator": "contains", "value": values}
        if any(name.startswith("$") for name in operations):
            raise errors.ClewError(f"a filter on {key} is not one of $eq and $contains")
    return {"key": key, "operator": "eq", "value": wanted}
