"""What is put into the long-term memory, in the form that the database keeps: as JSON that it can
hold, and as the words that it is found by.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, cast

from langgraph.store.base import PutOp, get_text_at_path

from clew.checkpointing import text
from clew.runtime import errors, namespaces, words
from clew.runtime.embedding import WHOLE, Embedding

Fields = Literal[False] | list[str] | None

_UNSTORABLE = re.compile(r"\\u0000|[\ud800-\udfff\U0010ffff]")
_LONGEST_LIFE = 5e10  # minutes; Postgres' calendar ends not much later

# What a tsvector and a busy server can take; of a longer item the rest is not searched.
_CHARACTERS = 100_000
_BYTES = 1_000_000
_ANYBODY = 0  # the terms stand beside their owner's id, so they need not name it


@dataclass(frozen=True, slots=True)
class Memory:
    """An item to be written; without a value, to be deleted."""

    namespace: str
    key: str
    value: dict[str, Any] | None
    fields: Fields = None
    ttl: timedelta | None = None
    thread_id: str | None = None


def of(op: PutOp) -> Memory:
    namespace, key = namespaces.encode(op.namespace), namespaces.key(op.key)
    if not namespace:
        raise errors.Invalid("Namespace cannot be empty.")
    if op.value is None:
        return Memory(namespace, key, None)
    return Memory(
        namespace,
        key,
        dict(op.value),
        op.index,
        _life(op.ttl),
        namespaces.session(op.namespace),
    )


def columns(value: Mapping[str, Any], fields: Fields, model: Embedding | None) -> dict[str, Any]:
    """The columns of a value in clear. `fields` are those to index, where None is what the store
    is configured for: all of it, if nothing else."""
    if fields is None and model is not None and model.fields != WHOLE:
        fields = list(model.fields)
    written = dumps(value, "value")
    escaped = _UNSTORABLE.search(written) is not None
    if escaped:
        written = dumps(text.replace(value, text.escape), "value")
    return {
        "value": written,
        "body": None,
        "key_no": None,
        "escaped": escaped,
        "words": None if fields is False else _words(value, fields),
        "model": model.model if model is not None else None,
    }


def dumps(value: object, name: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise errors.Invalid(f"{name}: is not JSON: {error}") from error


def terms(query: str) -> list[str]:
    """Each term of a query as a tsquery of its own: an item that has more of them comes first."""
    # Terms are made of word characters, so this can only be what joins them.
    found = words.query(_ANYBODY, query[:_CHARACTERS])
    return found.split(" & ") if found else []


def _words(value: Mapping[str, Any], fields: list[str] | None) -> list[str]:
    if fields is None:
        texts = _leaves(value)
    else:
        texts = (line for path in fields for line in get_text_at_path(dict(value), path))
    kept: list[str] = []
    left = _CHARACTERS
    for line in texts:
        kept.append(line[:left])
        left -= len(line)
        if left <= 0:
            break
    found: list[str] = []
    size = 0
    for term in words.index(_ANYBODY, kept):
        size += len(term.encode())
        if size > _BYTES:
            break
        found.append(term)
    return found


def _leaves(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in cast("Mapping[Any, object]", value).values():
            yield from _leaves(inner)
    elif isinstance(value, list | tuple):
        for inner in cast("list[object]", value):
            yield from _leaves(inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)


def _life(minutes: float | None) -> timedelta | None:
    if minutes is None:
        return None
    if not math.isfinite(minutes) or not 0 < minutes <= _LONGEST_LIFE:
        raise errors.Invalid("ttl: must be a number of minutes above 0")
    return timedelta(minutes=minutes)
