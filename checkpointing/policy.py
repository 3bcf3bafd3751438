"""Retention policies: what of a session's history is worth its space."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, cast

Kind = Literal["keep_all", "keep_runs", "keep_last", "ttl"]

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"(\d+)\s*([smhdw])")
_TEXT = re.compile(
    r"(?P<kind>keep_all|keep_runs|keep_last|ttl)"
    r"(?:\s+(?P<count>\d+)(?!\s*[smhdw]))?(?:\s+(?P<age>\d+\s*[smhdw]))?"
    r"(?:\s+after\s+(?P<after>\d+\s*[smhdw]))?"
)


@dataclass(frozen=True, slots=True)
class Policy:
    """What is kept. In every policy: each line's first and newest checkpoint, what is pinned or
    labelled, and what something was forked from or another session sees.

    keep_all   everything
    keep_runs  the last checkpoint of each run, the one before each message of a model, and
               where something was asked or failed
    keep_last  the newest `count` checkpoints
    ttl        what is younger than `age`; abandoned lines that are older go as a whole

    Nothing younger than `after` is touched.
    """

    kind: Kind
    after: timedelta = timedelta(0)
    count: int = 0
    age: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        if self.kind == "keep_last" and self.count < 1:
            raise ValueError("keep_last needs a count of at least 1")
        if self.kind == "ttl" and self.age <= timedelta(0):
            raise ValueError("ttl needs an age")

    @property
    def untouched(self) -> timedelta:
        """The age from which on a checkpoint may go at all."""
        return max(self.after, self.age)

    def __str__(self) -> str:
        parts: list[str] = [self.kind]
        parts += [str(self.count)] if self.kind == "keep_last" else []
        parts += [_text(self.age)] if self.kind == "ttl" else []
        parts += ["after", _text(self.after)] if self.after else []
        return " ".join(parts)


DEFAULT = Policy("keep_runs", after=timedelta(days=30))


def parse(text: str) -> Policy:
    """`keep_all`, `keep_runs after 30d`, `keep_last 20`, `ttl 90d`. Raises `ValueError`."""
    match = _TEXT.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"{text!r} is no retention policy: one of keep_all, keep_runs, keep_last N, ttl AGE, "
            "with `after AGE` if younger checkpoints are to stay; ages like 30d or 12h"
        )
    return Policy(
        cast("Kind", match["kind"]),
        after=_duration(match["after"]),
        count=int(match["count"] or 0),
        age=_duration(match["age"]),
    )


def _duration(text: str | None) -> timedelta:
    match = _DURATION.fullmatch(text) if text else None
    return timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else timedelta(0)


def _text(age: timedelta) -> str:
    seconds = int(age.total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
