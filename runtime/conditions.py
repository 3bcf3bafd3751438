"""Filters on the values of the long-term memory, made ready for `clew.store_found`.

They mean what LangGraph's own stores mean by them: a plain value is equality, a dict without
operators compares field by field, a list element by element, and what is missing is null. An order
is one of numbers or of strings; a value of another type does not match.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from clew.runtime import errors

Condition = dict[str, Any]

_EQUALITY = {"$eq": "eq", "$ne": "ne"}
_ORDER = {"$gt": "gt", "$gte": "gte", "$lt": "lt", "$lte": "lte"}


def prepare(wanted: Mapping[str, Any]) -> tuple[dict[str, Any], list[Condition]]:
    """What containment can tell, as one document, and the conditions that are left."""
    exact: dict[str, Any] = {}
    left: list[Condition] = []
    for condition in _fields((), wanted):
        path, value = condition["path"], condition["wanted"]
        scalar = isinstance(value, str | int | float)
        if condition["operator"] == "eq" and len(path) == 1 and scalar:
            exact[path[0]] = value
        else:
            left.append(condition)
    return exact, left


def _fields(path: tuple[str, ...], wanted: Mapping[str, Any]) -> Iterator[Condition]:
    for name, value in wanted.items():
        yield from _walk((*path, str(name)), value)


def _walk(path: tuple[str, ...], wanted: Any) -> Iterator[Condition]:
    if isinstance(wanted, Mapping):
        inner = cast("Mapping[str, Any]", wanted)
        if any(str(name).startswith("$") for name in inner):
            for operator, operand in inner.items():
                yield _operation(path, operator, operand)
            return
        yield _condition(path, "object", None)
        yield from _fields(path, inner)
    elif isinstance(wanted, list | tuple):
        elements = cast("Sequence[Any]", wanted)
        yield _condition(path, "array", len(elements))
        for place, element in enumerate(elements):
            yield from _walk((*path, str(place)), element)
    else:
        yield _condition(path, "eq", wanted)


def _operation(path: tuple[str, ...], operator: str, operand: Any) -> Condition:
    if operator in _EQUALITY:
        return _condition(path, _EQUALITY[operator], operand)
    if operator not in _ORDER:
        hint = errors.suggest(str(operator), [*_EQUALITY, *_ORDER])
        raise errors.Invalid(f"filter: Unsupported operator: {operator}.{hint}")
    if isinstance(operand, bool) or not isinstance(operand, str | int | float):
        raise errors.Invalid(f"filter: {operator} takes a number or a string")
    return _condition(path, _ORDER[operator], operand)


def _condition(path: tuple[str, ...], operator: str, wanted: Any) -> Condition:
    return {"path": list(path), "operator": operator, "wanted": wanted}
