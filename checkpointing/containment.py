"""Whether one JSON value contains another, as `jsonb @>` says it of what is in the database."""

from __future__ import annotations

from typing import Any, cast


def contains(value: Any, wanted: Any) -> bool:
    """Whether all of `wanted` is in `value`: of objects key by key, of arrays in any order."""
    if isinstance(wanted, dict):
        return isinstance(value, dict) and all(
            key in value and contains(value[key], one)
            for key, one in cast("dict[Any, Any]", wanted).items()
        )
    if isinstance(wanted, list | tuple):
        return isinstance(value, list | tuple) and all(
            any(contains(one, each) for one in cast("list[Any]", value))
            for each in cast("list[Any]", wanted)
        )
    if isinstance(wanted, bool) or isinstance(value, bool):
        return value is wanted  # JSON's true is not its 1
    return type(value) not in (dict, list, tuple) and value == wanted
