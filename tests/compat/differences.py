"""Where two answers to one request differ: a path, and what each server has there."""

import difflib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from tests.compat.normalise import Plain
from tests.compat.side import Reply, Side

ABSENT = "(absent)"


@dataclass(frozen=True, slots=True)
class Difference:
    step: str
    path: str
    official: Any
    clew: Any

    def __str__(self) -> str:
        sides = f"      official {_short(self.official)}\n      clew     {_short(self.clew)}"
        return f"{self.step}\n    {self.path}\n{sides}"


def shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _short(value: Any) -> str:
    text = ABSENT if value is ABSENT else shown(value)
    return text if len(text) <= 600 else f"{text[:600]}…"


def between(official: Side, clew: Side) -> Iterator[Difference]:
    """Everything that differs in one scenario, in the order of its requests."""
    first, second = Plain(official), Plain(clew)
    for one, other in zip(official.replies, clew.replies, strict=False):
        step = f"{official.scenario}/{one.label}"
        if one.label != other.label:
            yield Difference(step, "script", one.label, other.label)
            return
        if one.status != other.status:
            # One difference: what else the two answers say follows from it.
            yield Difference(step, "status", _told(one), _told(other))
            continue
        yield from _values(step, "header", first.value(one.headers), second.value(other.headers))
        yield from _values(step, "body", first.value(one.body), second.value(other.body))
        yield from _values(step, "ids", bool(one.ids), bool(other.ids))
        if one.events is not None and other.events is not None:
            yield from _streams(step, first.value(one.events), second.value(other.events))
        elif one.events is not other.events:
            yield Difference(step, "stream", one.events is not None, other.events is not None)
    if official.gave_up or clew.gave_up:
        yield Difference(official.scenario, "script", official.gave_up, clew.gave_up)
    if len(official.replies) != len(clew.replies):
        yield Difference(official.scenario, "replies", len(official.replies), len(clew.replies))


def _told(reply: Reply) -> str:
    detail = reply["detail"]
    return f"{reply.status} {detail}" if detail else str(reply.status)


def _streams(step: str, official: list[Any], clew: list[Any]) -> Iterator[Difference]:
    """Streams line up by their events' names; an event of one side only is one difference."""
    names = [_name(event) for event in official], [_name(event) for event in clew]
    matched = difflib.SequenceMatcher(None, *names, autojunk=False)
    for kind, a, b, c, d in matched.get_opcodes():
        if kind == "equal":
            for (name, one), (_, other) in zip(official[a:b], clew[c:d], strict=True):
                yield from _values(step, f"event.{name}", one, other)
            continue
        for name, data in official[a:b]:
            yield Difference(step, f"event.{name}", data, ABSENT)
        for name, data in clew[c:d]:
            yield Difference(step, f"event.{name}", ABSENT, data)


def _name(event: list[Any]) -> str:
    """What lines an event up: its name, and for protocol events what kind of it this is."""
    name, data = event
    if isinstance(data, dict):
        inner = cast("Any", data).get("params", data)
        kind = inner.get("data", inner) if isinstance(inner, dict) else {}
        if isinstance(kind, dict):
            return f"{name}:{cast('Any', kind).get('event', cast('Any', kind).get('type', ''))}"
    return name


def _values(step: str, path: str, official: Any, clew: Any) -> Iterator[Difference]:
    if official == clew and type(official) is type(clew):
        return
    if isinstance(official, dict) and isinstance(clew, dict):
        one, other = cast("dict[str, Any]", official), cast("dict[str, Any]", clew)
        for key in {**one, **other}:
            shown = re.sub(r"<[^<>]*>", "<>", key)
            yield from _values(
                step, f"{path}.{shown}", one.get(key, ABSENT), other.get(key, ABSENT)
            )
    elif isinstance(official, list) and isinstance(clew, list):
        these, those = cast("list[Any]", official), cast("list[Any]", clew)
        if len(these) != len(those):
            yield Difference(step, f"{path}.length", len(these), len(those))
        for one, other in zip(these, those, strict=False):
            yield from _values(step, f"{path}[]", one, other)
    else:
        yield Difference(step, path, official, clew)
