"""Ids that cannot be guessed and that sort by the time they were made (UUIDv7)."""

import secrets
import time
import uuid

from clew.runtime import errors

_last: int = 0


def mint() -> str:
    """A new id; two made by one process in the same millisecond still sort in order."""
    global _last
    # 48 bits of milliseconds and 12 of the fraction below them, never twice the same.
    moment = max(time.time_ns() * 4096 // 1_000_000, _last + 1)
    _last = moment
    value = moment >> 12 << 80 | 7 << 76 | (moment & 0xFFF) << 64
    value |= 2 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=value))


def check(value: str, what: str = "thread") -> str:
    """The canonical form of an id that somebody else chose."""
    try:
        return str(uuid.UUID(value))
    except ValueError as error:
        raise errors.Invalid(f"Invalid {what} ID: must be a UUID") from error
