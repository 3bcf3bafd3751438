"""A file of JSON lines in which each line vouches for all before it.

    {"chain":"<sha256 of the previous digest and this line's record>","<kind>":...}

The last record is `end`. A line that was changed, left out, added or moved breaks the chain; a
file that was cut short has no end. It tells damage and carelessness, not forgery: whoever wants
to can compute it anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from typing import Any, cast

from clew.checkpointing.errors import BundleEdited, BundleTruncated, BundleUnsupported

_START = hashlib.sha256(b"clew bundle").digest()
_LEAD = b'{"chain":"'
_BODY = len(_LEAD) + 64 + len(b'",')

# Postgres holds no value of more than 1 GB; base64 makes it a third longer.
LONGEST = 1_500_000_000


class Writer:
    """Links records; `line` is called in the order of the file."""

    def __init__(self) -> None:
        self._last = _START

    def line(self, record: Mapping[str, Any]) -> bytes:
        text = json.dumps(record, separators=(",", ":"), allow_nan=False).encode()
        self._last = hashlib.sha256(self._last + text).digest()
        return b"".join((_LEAD, self._last.hex().encode(), b'",', text[1:], b"\n"))


async def read(
    chunks: AsyncIterable[bytes], *, longest: int = LONGEST
) -> AsyncGenerator[dict[str, Any]]:
    """The records of a file that comes in chunks of any size, up to and with its `end`.

    Nothing is handed out before it was verified. Raises `BundleTruncated`, `BundleEdited` and,
    for a file of another kind, `BundleUnsupported`.
    """
    last, number, ended = _START, 0, False
    async for line in _lines(chunks, longest):
        number += 1
        if ended:
            raise BundleEdited("the bundle goes on after its end")
        if not line.startswith(_LEAD):
            if number == 1:
                raise BundleUnsupported("this is no bundle: it does not begin like one")
            raise BundleEdited(f"line {number} of the bundle was changed")
        text = b"{" + line[_BODY:]
        last = hashlib.sha256(last + text).digest()
        if line[:_BODY] != _LEAD + last.hex().encode() + b'",':
            raise BundleEdited(f"line {number} of the bundle, or one before it, was changed")
        try:
            record = json.loads(text)
        except (ValueError, RecursionError):
            raise BundleEdited(f"line {number} of the bundle is no JSON") from None
        if not isinstance(record, dict):
            raise BundleEdited(f"line {number} of the bundle is no record")
        ended = "end" in record
        yield cast("dict[str, Any]", record)
    if not ended:
        raise BundleTruncated(f"the bundle ends after line {number}, before its end")


async def _lines(chunks: AsyncIterable[bytes], longest: int) -> AsyncGenerator[bytes]:
    parts: list[bytes] = []
    size = 0
    async for chunk in chunks:
        first, *more = chunk.split(b"\n")
        parts.append(first)
        size += len(first)
        for part in more:
            yield b"".join(parts)
            parts, size = [part], len(part)
        if size > longest:
            raise BundleUnsupported(f"the bundle has a line of more than {longest} bytes")
    if size:
        raise BundleTruncated("the bundle ends in the middle of a line")
