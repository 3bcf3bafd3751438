"""What differs from one run of a server to the next, made alike: ids, times, tokens."""

import re
from collections.abc import Iterable
from typing import Any, cast

from tests.compat.side import Side

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_STREAM_ID = re.compile(r"^\d+-\d+(\.\d+)?$")
_ALIKE = (
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)?"), "<time>"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "<hash>"),
    (re.compile(r"0x[0-9a-f]{6,}"), "<address>"),
    (re.compile(r"(127\.0\.0\.1|localhost):\d+"), "<host>"),
)


class Plain:
    """The ids of one side of one scenario, by the names that both sides share."""

    def __init__(self, side: Side) -> None:
        self.names = dict(side.names)
        found: set[str] = set()
        for reply in side.replies:
            _checkpoints(reply.body, found)
            _checkpoints(reply.events, found)
        # Their order is that of time, so that the n-th on one side is the n-th on the other.
        for number, text in enumerate(sorted(found), 1):
            self.names.setdefault(text, f"<checkpoint {number}>")

    def value(self, given: Any) -> Any:
        if isinstance(given, dict):
            items = cast("dict[str, Any]", given).items()
            return _named(
                (self.text(name), "<seq>" if name == "seq" else self.value(item))
                for name, item in items
            )
        if isinstance(given, list | tuple):
            return [self.value(item) for item in cast("list[Any]", given)]
        if isinstance(given, str):
            return self.text(given)
        if isinstance(given, int) and not isinstance(given, bool) and given > 10**12:
            return "<ms>"
        return given

    def text(self, given: str) -> str:
        if _STREAM_ID.match(given):
            return "<event id>"
        given = _UUID.sub(lambda found: self.names.get(found[0], "<uuid>"), given)
        for pattern, name in _ALIKE:
            given = pattern.sub(name, given)
        return given


def _named(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Keys that read the same once they are plain, such as the ids of tasks, are numbered in the
    order of what they hold."""
    found: dict[str, list[Any]] = {}
    for name, item in items:
        found.setdefault(name, []).append(item)
    named: dict[str, Any] = {}
    for name, alike in found.items():
        named[name], *more = sorted(alike, key=repr) if len(alike) > 1 else alike
        named |= {f"{name} {number}": item for number, item in enumerate(more, 2)}
    return named


def _checkpoints(given: Any, found: set[str], key: str = "") -> None:
    if isinstance(given, dict):
        for name, item in cast("dict[str, Any]", given).items():
            _checkpoints(item, found, "checkpoint_id" if key == "checkpoint_map" else name)
    elif isinstance(given, list | tuple):
        for item in cast("list[Any]", given):
            _checkpoints(item, found, key)
    elif isinstance(given, str) and key in KEYS and _UUID.fullmatch(given) and given[14] == "6":
        found.add(given)


KEYS = ("checkpoint_id", "parent_checkpoint_id")
