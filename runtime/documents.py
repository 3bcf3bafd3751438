"""What callers write, made fit to be stored: of bearable size, of characters that Postgres can
hold, and without secrets.
"""

import json
import re
from collections.abc import Iterable
from typing import Any, cast

from psycopg.types.json import Jsonb

from clew.checkpointing import secrets
from clew.runtime import errors

TITLE = 500
DESCRIPTION = 10_000
TAG = 100
TAGS = 64
NAME = 200
DOCUMENT = 256 * 1024  # bytes of JSON
LEVELS = 64  # Postgres goes through what is nested by calls within calls, on a small stack

_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def text(name: str, value: str | None, longest: int) -> str | None:
    """A text, at most so many characters."""
    if value is None:
        return None
    if len(value) > longest:
        raise errors.TooLarge(f"{name}: at most {longest} characters", limit=longest)
    if "\x00" in value or not _encodable(value):
        raise errors.Invalid(f"{name}: holds a character that is none")
    return value


def tags(values: Iterable[str]) -> list[str]:
    """Tags, each once, in the order given."""
    found = list(dict.fromkeys(values))
    if len(found) > TAGS:
        raise errors.TooLarge(f"tags: at most {TAGS}", limit=TAGS)
    for value in found:
        if not text("tags", value, TAG):
            raise errors.Invalid("tags: a tag cannot be empty")
    return found


def document(name: str, value: Any, *, scrubbed: bool = True, levels: int = LEVELS) -> Jsonb:
    """A JSON document as a parameter; `scrubbed` is for what is kept, not for what is sought."""
    try:
        value = secrets.scrub(value) if scrubbed else value
        written = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        raise errors.Invalid(f"{name}: is not JSON that can be stored") from None
    if not _encodable(written) or _NUL.search(written):
        raise errors.Invalid(f"{name}: holds a character that is none")
    if len(written) > DOCUMENT or len(written.encode()) > DOCUMENT:
        raise errors.TooLarge(f"{name}: at most {DOCUMENT} bytes", limit=DOCUMENT)
    if _deeper(value, levels):
        raise errors.Invalid(f"{name}: is nested in more than {levels} levels")
    return Jsonb(value, dumps=lambda _: written)


def _deeper(value: Any, levels: int) -> bool:
    """Whether what is in it is in more objects and lists than this."""
    layer: list[Any] = [value]
    for _ in range(levels):
        layer = [part for held in layer for part in _parts(held)]
        if not layer:
            return False
    return any(isinstance(part, dict | list | tuple) for part in layer)


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return cast("dict[Any, Any]", value).values()
    return cast("Iterable[Any]", value) if isinstance(value, list | tuple) else ()


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
