"""Strings that Postgres or UTF-8 cannot hold, in a form that they can, and back.

`text` and `jsonb` refuse NUL, and UTF-8 has no lone surrogates, yet models and tools emit both.
Such a character becomes U+10FFFF (which is no character) and four hex digits; U+10FFFF itself is
escaped the same way, so that whatever was written reads back exactly.
"""

import copy
import re
from collections import deque
from collections.abc import Callable
from typing import Any, cast

_MARK = "\U0010ffff"
_UNSTORABLE = re.compile(f"[\x00\ud800-\udfff{_MARK}]")
_ESCAPED = re.compile(_MARK + "([0-9a-f]{4})")
_SURROGATE = re.compile("[\ud800-\udfff]")


def escape(text: str) -> str:
    if text.isascii() and "\x00" not in text:
        return text
    return _UNSTORABLE.sub(lambda m: f"{_MARK}{min(ord(m[0]), 0xFFFF):04x}", text)


def unescape(text: str) -> str:
    if _MARK not in text:
        return text
    return _ESCAPED.sub(lambda m: _MARK if m[1] == "ffff" else chr(int(m[1], 16)), text)


def replace(value: Any, change: Callable[[str], str]) -> Any:
    """A copy of a value, objects included, in which every string went through `change`."""
    kind = type(value)
    if kind is str:
        return change(value)
    if kind in (int, float, bool, bytes, type(None)):
        return value
    if isinstance(value, dict):
        return {
            replace(k, change): replace(v, change) for k, v in cast("dict[Any, Any]", value).items()
        }
    if isinstance(value, tuple) and hasattr(kind, "_make"):
        return cast("Any", kind)._make(replace(v, change) for v in cast("tuple[Any]", value))
    if kind in (list, tuple, set, frozenset, deque):
        return kind(replace(v, change) for v in value)
    return _replace_attributes(value, change)


def _replace_attributes(value: Any, change: Callable[[str], str]) -> Any:
    names = [*getattr(value, "__dict__", ())]
    for base in type(value).__mro__:
        slots = base.__dict__.get("__slots__", ())
        names += [slots] if isinstance(slots, str) else slots
    changed: dict[str, Any] = {}
    for name in names:
        if name.startswith("__") and name != "__pydantic_extra__":
            continue
        old = getattr(value, name, None)
        new = replace(old, change)
        if new is not old and new != old:
            changed[name] = new
    if not changed:
        return value
    clone = copy.copy(value)
    for name, new in changed.items():
        # Frozen objects too: this is a copy that nobody else has seen.
        object.__setattr__(clone, name, new)
    return clone


def has_surrogate(value: Any) -> bool:
    """Whether some string in this value would be damaged by UTF-8."""
    found = False

    def look(text: str) -> str:
        nonlocal found
        found = found or (not text.isascii() and _SURROGATE.search(text) is not None)
        return text

    replace(value, look)
    return found
