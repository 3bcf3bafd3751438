"""Cursors: a place in one listing. A cursor belongs to the question it came from; in another one it
means nothing and is refused.
"""

import base64
import hashlib
import json
from typing import Any, cast

from clew.runtime import errors


def make(question: object, *place: object) -> str:
    """`place` is the sort key of the last row shown, as JSON values."""
    text = json.dumps([_mark(question), *place], separators=(",", ":"), default=str)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read(question: object, cursor: str, length: int) -> list[Any]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        found = json.loads(text)
    except ValueError as error:
        raise errors.Invalid("cursor: this is not a cursor") from error
    parts = cast("list[Any]", found) if isinstance(found, list) else []
    if len(parts) != length + 1 or not all(isinstance(part, str) for part in parts):
        raise errors.Invalid("cursor: this is not a cursor")
    if parts[0] != _mark(question):
        raise errors.Invalid("cursor: it belongs to another query")
    return parts[1:]


def _mark(question: object) -> str:
    text = json.dumps(question, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
