"""Parameters of a statement as they travel: the few types that nearly all of them have.

psycopg looks for the dumper of each value anew and writes lists element by element in Python; that
was a tenth of the time of a turn. The server infers the types, as each of our statements says
them. Whatever is not among these is left to psycopg.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import pq
from psycopg.adapt import PyFormat
from psycopg.types.json import Jsonb

_TEXT, _BINARY = pq.Format.TEXT, pq.Format.BINARY
_BYTEA = 17
_QUOTED = str.maketrans({'"': r"\"", "\\": r"\\"})

Dumped = tuple[list[bytes | None], list[pq.Format]]


class _Other(Exception):
    """Not one of these."""


def dump(values: Sequence[Any], wanted: Sequence[PyFormat]) -> Dumped | None:
    """The values in their wire form, and the format of each; None where psycopg is to do it."""
    dumped: list[bytes | None] = []
    formats: list[pq.Format] = []
    try:
        for value, form in zip(values, wanted, strict=True):
            kind = type(value)
            if value is None:
                dumped.append(None)
                formats.append(_TEXT)
            elif kind is bytes and form != PyFormat.TEXT:
                dumped.append(value)
                formats.append(_BINARY)
            elif kind is list and form == PyFormat.BINARY:
                dumped.append(_byteas(value))
                formats.append(_BINARY)
            elif form == PyFormat.BINARY:
                return None
            else:
                dumped.append(_TEXTS[kind](value))
                formats.append(_TEXT)
    except (_Other, KeyError):
        return None
    return dumped, formats


def _text(value: str) -> bytes:
    if "\0" in value:
        raise _Other  # psycopg says why that cannot be
    return value.encode()


def _integer(value: int) -> bytes:
    return b"%d" % value


def _boolean(value: bool) -> bytes:
    return b"t" if value else b"f"


def _uuid(value: UUID) -> bytes:
    return b"%032x" % value.int


def _time(value: datetime) -> bytes:
    if value.tzinfo is None:
        raise _Other
    return value.isoformat().encode()


def _json(value: Jsonb) -> bytes:
    written = (value.dumps or json.dumps)(value.obj)
    written = written if isinstance(written, bytes) else written.encode()
    if b'sealed"' in written:
        raise _Other  # the connection knows what to make of it
    return written


def _list(values: list[Any]) -> bytes:
    if not values:
        return b"{}"
    kinds = set(map(type, values))
    if len(kinds) > 1:
        raise _Other
    (kind,) = kinds
    if kind is str:
        return b'{"%s"}' % '","'.join(_quoted(value) for value in values).encode()
    if kind is int or kind is UUID:
        return b"{%s}" % b",".join(map(_TEXTS[kind], values))
    raise _Other


def _quoted(value: str) -> str:
    if "\0" in value:
        raise _Other
    return value.translate(_QUOTED) if '"' in value or "\\" in value else value


def _byteas(values: list[Any]) -> bytes:
    if not values:
        return struct.pack("!iii", 0, 0, _BYTEA)
    parts = [struct.pack("!iiiii", 1, 0, _BYTEA, len(values), 1)]
    for value in values:
        if type(value) is not bytes:
            raise _Other
        parts += (len(value).to_bytes(4), value)
    return b"".join(parts)


_TEXTS: dict[type, Callable[[Any], bytes]] = {
    str: _text, int: _integer, bool: _boolean, UUID: _uuid, datetime: _time, Jsonb: _json,
    list: _list,
}  # fmt: skip
