"""Namespaces of the long-term memory as text: every label followed by a dot, which no label has, so
that what lies below a namespace is one range in the order of the texts.
"""

import re
from collections.abc import Sequence
from uuid import UUID

from langgraph.store.base import MatchCondition

from clew.checkpointing import text
from clew.runtime import errors

LONGEST = 1024  # bytes of a namespace, or of a key: an index entry has to hold both

# Above every label: an escaped one has a hex digit after the first of these.
_TOP = "\U0010ffff\U0010ffff"
_SESSIONS = "sessions"


def encode(namespace: Sequence[str]) -> str:
    written = text.escape("".join(label + "." for label in namespace))
    if len(written.encode()) > LONGEST:
        raise errors.TooLarge(f"a namespace is longer than {LONGEST} bytes")
    return written


def decode(written: str) -> tuple[str, ...]:
    return tuple(text.unescape(written).split(".")[:-1])


def key(name: str) -> str:
    written = text.escape(name)
    if len(written.encode()) > LONGEST:
        raise errors.TooLarge(f"a key is longer than {LONGEST} bytes")
    return written


def bounds(prefix: Sequence[str]) -> tuple[str, str]:
    """The range, its end excluded, of what is at or below `prefix`."""
    low = encode(prefix)
    return low, low[:-1] + "/" if low else _TOP  # the slash comes right after the dot


def pattern(condition: MatchCondition) -> str:
    """A regular expression for whole labels; `*` stands for any one."""
    labels = ("[^.]+" if label == "*" else _literal(label) for label in condition.path)
    body = "".join(label + r"\." for label in labels)
    if condition.match_type == "prefix":
        return "^" + body
    if condition.match_type == "suffix":
        return rf"(^|\.){body}$"
    raise errors.Invalid(f"match_type: {condition.match_type!r} is neither prefix nor suffix")


def common(conditions: Sequence[MatchCondition]) -> tuple[str, ...]:
    """Labels that all matches begin with."""
    found: tuple[str, ...] = ()
    for condition in conditions:
        labels = list(condition.path)
        if condition.match_type == "prefix" and "*" in labels:
            labels = labels[: labels.index("*")]
        if condition.match_type == "prefix" and len(labels) > len(found):
            found = tuple(labels)
    return found


def session(namespace: Sequence[str]) -> str | None:
    """The session that this is the namespace of, or is below it: `("sessions", its id, ...)`."""
    if len(namespace) < 2 or namespace[0] != _SESSIONS:
        return None
    try:
        return str(UUID(namespace[1]))
    except ValueError:
        return None


def _literal(label: str) -> str:
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text.escape(label))
