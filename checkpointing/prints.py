"""Fingerprints of what a list holds: the same mark for the same content and for nothing else.

A list that grows is looked at again at every step, since any old element may have been edited in
place. So the elements are marked a block at a time, in one pass in C over all that they hold, and
only in a block that is not as it was is each element told from the others.
"""

from __future__ import annotations

import io
import pickle
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import xxhash
from langchain_core import messages
from langgraph.checkpoint.serde.base import SerializerProtocol

from clew.checkpointing import codec
from clew.checkpointing.codec import Raw

BLOCK = 32

# A seed that nobody outside knows: two messages cannot be made to look alike.
_SEED = secrets.randbits(64)
# Before what a message is made of, so that a tuple of the same is no message.
_TAG = secrets.token_bytes(16)
# These are their fields and nothing more. A class of the user's may be more.
_MESSAGES = frozenset(
    kind
    for name in messages.__all__
    if isinstance(kind := getattr(messages, name), type) and issubclass(kind, messages.BaseMessage)
)


@dataclass(slots=True)
class Marked:
    """The marks of a list's elements, of its whole blocks, and of those elements that had to be
    serialized for that, what came out."""

    prints: list[bytes] = field(default_factory=list[bytes])
    blocks: list[bytes | None] = field(default_factory=list["bytes | None"])
    raws: dict[int, Raw] = field(default_factory=dict[int, Raw])


def of(serde: SerializerProtocol, value: Any) -> bytes:
    """The mark of one value."""
    return mark(serde, [value]).prints[0]


def mark(
    serde: SerializerProtocol,
    elements: Sequence[Any],
    *,
    prints: Sequence[bytes] = (),
    blocks: Sequence[bytes | None] = (),
) -> Marked:
    """The marks of a list; `prints` and `blocks` are those that it had before."""
    found = Marked()
    writer = _Writer()
    for start in range(0, len(elements), BLOCK):
        part: list[Any] = [
            (_TAG, kind.__name__, element.__dict__, element.__pydantic_extra__)
            if (kind := type(element)) in _MESSAGES
            else element
            for element in elements[start : start + BLOCK]
        ]
        whole = writer.digest(part) if len(part) == BLOCK else None
        at = start // BLOCK
        found.blocks.append(whole)
        if whole is not None and at < len(blocks) and whole == blocks[at]:
            found.prints += prints[start : start + BLOCK]
            continue
        for i, content in enumerate(part, start):
            digest = writer.digest(content)
            if digest is None:
                raw = found.raws[i] = codec.serialize(serde, elements[i])
                digest = xxhash.xxh3_128_digest(b"%d %s " % (raw.header, raw.name), seed=_SEED ^ 1)
                digest = xxhash.xxh3_128_digest(digest + raw.data, seed=_SEED ^ 1)
            found.prints.append(digest)
    return found


class _Opaque(Exception):
    """Something that only the serializer understands."""


class _Plain(pickle.Pickler):
    """Writes Python's own types, and nothing that could call for code of somebody else."""

    def reducer_override(self, obj: Any) -> NoReturn:
        raise _Opaque


class _Writer:
    def __init__(self) -> None:
        self._into = io.BytesIO()
        self._pickler = _Plain(self._into, 5)
        # Without the memo, what is written tells content only, not which object is which.
        self._pickler.fast = True

    def digest(self, content: Any) -> bytes | None:
        """The mark of a value made of Python's own types, None for any other."""
        self._into.seek(0)
        self._into.truncate()
        try:
            self._pickler.dump(content)
        except (_Opaque, ValueError, RecursionError):  # the others: it holds itself, or is deep
            return None
        with self._into.getbuffer() as written:
            return xxhash.xxh3_128_digest(written, seed=_SEED)
