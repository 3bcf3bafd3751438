"""Conditions on a state, as JSON: small enough to be safe, enough to say when something began.

    {"path": "values.messages", "op": "count>=", "value": 10}
    {"path": "values.messages[*].content", "op": "contains", "value": "北京"}
    {"all": [...]}   {"any": [...]}   {"not": {...}}

With `[*]` a condition holds if it holds for any of the elements. docs/rewind.md lists the rest.
"""

import operator
from collections.abc import Callable, Sized
from typing import Any, cast

from clew.api import extract
from clew.runtime import errors

Json = dict[str, Any]
Predicate = Callable[[Json], bool]

DEEPEST = 8
MOST = 64

_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_COUNTS: dict[str, Callable[[Any, Any], bool]] = {"==": operator.eq, **_ORDER}
OPS = (
    "exists",
    "missing",
    "==",
    "!=",
    *_ORDER,
    "contains",
    *(f"count{sign}" for sign in _COUNTS),
)


def compile_(given: object) -> Predicate:
    """The condition as a function of a state. Raises `Invalid`, naming what is wrong."""
    left = [MOST]
    return _made(given, "where", DEEPEST, left)


def _made(given: object, where: str, depth: int, left: list[int]) -> Predicate:
    left[0] -= 1
    if depth == 0 or left[0] < 0:
        raise errors.Invalid(f"where: at most {MOST} conditions, {DEEPEST} deep")
    if not isinstance(given, dict):
        raise errors.Invalid(f"{where}: must be an object")
    parts = cast("Json", given)
    match parts:
        case {"all": list(some)} if len(parts) == 1:
            inner = _several(cast("list[object]", some), f"{where}.all", depth, left)
            return lambda state: all(holds(state) for holds in inner)
        case {"any": list(some)} if len(parts) == 1:
            inner = _several(cast("list[object]", some), f"{where}.any", depth, left)
            return lambda state: any(holds(state) for holds in inner)
        case {"not": one} if len(parts) == 1:
            negated = _made(one, f"{where}.not", depth - 1, left)
            return lambda state: not negated(state)
        case {"path": str(path), "op": str(op)}:
            return _condition(path, op, parts, where)
        case _:
            raise errors.Invalid(f"{where}: needs path and op, or one of all, any and not alone")


def _several(some: list[object], where: str, depth: int, left: list[int]) -> list[Predicate]:
    if not some:
        raise errors.Invalid(f"{where}: names no condition")
    return [_made(one, f"{where}[{i}]", depth - 1, left) for i, one in enumerate(some)]


def _condition(path: str, op: str, parts: Json, where: str) -> Predicate:
    for name in parts.keys() - {"path", "op", "value"}:
        raise errors.Invalid(f"{where}.{name}: there is no such field")
    if op not in OPS:
        raise errors.Invalid(f"{where}.op: must be one of {', '.join(OPS)}")
    bare = op in ("exists", "missing")
    if bare == ("value" in parts):
        raise errors.Invalid(f"{where}.value: {'goes with no' if bare else 'is needed with'} {op}")
    value = parts.get("value")
    if op.startswith("count") and not _is_number(value):
        raise errors.Invalid(f"{where}.value: must be a number")
    if op in _ORDER and not (_is_number(value) or isinstance(value, str)):
        raise errors.Invalid(f"{where}.value: must be a number or a text")
    steps = path.split("[*]")
    for step in steps:
        extract.steps(step)
    return lambda state: _holds(_found(state, steps), op, value, many=len(steps) > 1)


def _found(state: Json, steps: list[str]) -> list[Any]:
    """What the path leads to; elements of lists where it says `[*]`."""
    values: list[Any] = [state]
    for i, step in enumerate(steps):
        if i:
            lists = [cast("list[Any]", value) for value in values if isinstance(value, list)]
            values = [element for some in lists for element in some]
        values = [extract.path(value, step) for value in values]
    return [value for value in values if value is not None]


def _holds(values: list[Any], op: str, wanted: Any, *, many: bool) -> bool:
    if op in ("exists", "missing"):
        return bool(values) == (op == "exists")
    if op.startswith("count"):
        compare = _COUNTS[op.removeprefix("count")]
        if many:
            return compare(len(values), wanted)
        return compare(_length(values[0]) if values else 0, wanted)
    if op == "!=":
        return not any(_equal(value, wanted) for value in values)
    if op == "==":
        return any(_equal(value, wanted) for value in values) or (wanted is None and not values)
    if op == "contains":
        return any(_contains(value, wanted) for value in values)
    return any(_alike(value, wanted) and _ORDER[op](value, wanted) for value in values)


def _length(value: object) -> int:
    return len(cast("Sized", value)) if isinstance(value, list | dict | str) else 0


def _contains(value: object, wanted: Any) -> bool:
    if isinstance(value, str):
        return isinstance(wanted, str) and wanted in value
    if isinstance(value, list):
        return any(_equal(element, wanted) for element in cast("list[Any]", value))
    return isinstance(value, dict) and isinstance(wanted, str) and wanted in value


def _equal(a: object, b: object) -> bool:
    """As in JSON: true is not 1."""
    return isinstance(a, bool) == isinstance(b, bool) and a == b


def _alike(a: object, b: object) -> bool:
    return (_is_number(a) and _is_number(b)) or (isinstance(a, str) and isinstance(b, str))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
