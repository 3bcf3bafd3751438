"""Paths into a thread, such as `values.messages[-1].content`, for search results."""

import re
from typing import Any, cast

from clew.runtime import errors

_STEP = re.compile(r"\.?([^.\[\]]+)|\[(-?\d+)\]")
MOST = 10
ROOTS = {"config", "context", "error", "interrupts", "metadata", "status", "values"}


def path(row: object, text: str) -> Any:
    """The value there, or None where the path leads nowhere."""
    value: Any = row
    for name, index in steps(text):
        if isinstance(value, dict) and name:
            value = cast("dict[str, Any]", value).get(name)
        elif isinstance(value, list) and index is not None:
            items = cast("list[Any]", value)
            value = items[index] if -len(items) <= index < len(items) else None
        elif name and hasattr(value, name) and not name.startswith("_"):
            value = getattr(value, name)  # a message
        else:
            return None
    return value


def of_thread(text: str) -> list[tuple[str, int | None]]:
    """The steps of a path that begins at a field of a thread."""
    root = re.split(r"[.\[]", text, maxsplit=1)[0]
    if root not in ROOTS:
        known = ", ".join(sorted(ROOTS))
        raise errors.Invalid(f"Extract path {text!r} must start with one of: {known}")
    return steps(text)


def steps(text: str) -> list[tuple[str, int | None]]:
    found: list[tuple[str, int | None]] = []
    at = 0
    while at < len(text):
        match = _STEP.match(text, at)
        if match is None:
            raise errors.Invalid(f"extract: {text!r} is not a path such as values.messages[-1]")
        name, index = match.groups()
        found.append((name or "", int(index) if index else None))
        at = match.end()
    return found
