"""What a session's rows hold beside its checkpoints, sealed on its way into the database and opened
on its way out: the connection's own adapters do both, so no query has to know.

What is to be sealed is handed over as `Sealed`, or inside of JSON as `SealedJson`. Where encryption
is off they are what they hold, and nothing of this is ever run.

    magic (8 bytes) | length of the key's name | the name | salt (16) | nonce (12) | AES-GCM

Each process seals under a key of its own, derived from the newest key of the settings and a random
salt; no random nonce of one key is drawn often enough to come twice.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar, cast

import psycopg
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from psycopg import pq
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Dumper, Loader
from psycopg.types.json import Jsonb
from psycopg.types.string import ByteaLoader

from clew.checkpointing.encryption import Keyring
from clew.checkpointing.errors import EncryptionError, Tampered, UnknownKey

# Long enough that no digest and no nonce, which are bytes too, is ever taken for it.
MAGIC = b"\x82clewrow"
MARK = "$sealed"
# What users call by this name is written with one more dollar: else whoever has seen the sealed
# bytes of somebody else's row could put them into a document of his own and have them opened.
_THEIRS = re.compile(rb'"(\$+sealed"\s*:)')
_NAME = len(MAGIC) + 1  # where the key's name begins
_SALT, _NONCE, _TAG = 16, 12, 16
_BYTEA, _JSONB = 17, 3802

T = TypeVar("T")


class Sealed(bytes):
    """Bytes that nobody is to read in the database."""


class SealedJson(Jsonb):
    """JSON of which nobody is to read in the database what these keys hold, at any depth."""

    KEYS = frozenset({"value", "message", "response_schema"})


@dataclass(frozen=True, slots=True)
class Unopened:
    """In the place of a value that could not be opened, and nothing of it; see `apart`."""

    error: EncryptionError


def closed(value: object) -> EncryptionError | None:
    """Why a value that was read `apart` is not in clear; None where it is. To a process without
    keys what is sealed comes as the bytes that it is."""
    if isinstance(value, Unopened):
        return value.error
    if not isinstance(value, bytes) or not value.startswith(MAGIC):
        return None
    if _end(value) is None:
        return Tampered("a sealed row was cut off")
    name = value[_NAME : _NAME + value[_NAME - 1]].decode(errors="replace")
    return UnknownKey(f"data is encrypted under key {name!r}, and CLEW_ENCRYPTION_KEYS is not set")


class _Mark(dict[str, Any]):
    """What looks like something sealed, until it is known where in its document it stands."""


_apart: ContextVar[bool] = ContextVar("apart", default=False)


@contextmanager
def apart() -> Generator[None]:
    """What is read in here and cannot be opened comes as `Unopened`: for many rows at once, where
    one of them must not keep back the others."""
    token = _apart.set(True)
    try:
        yield
    finally:
        _apart.reset(token)


class Seals:
    """Seals under the newest key of a keyring, opens what any of its keys sealed."""

    def __init__(self, keyring: Keyring) -> None:
        salt = os.urandom(_SALT)
        name = keyring.newest.encode()
        self.prefix = MAGIC + bytes([len(name)]) + name
        # What all begins with that this opens.
        self.prefixes = [
            MAGIC + bytes([len(known)]) + known for known in map(str.encode, keyring.names)
        ]
        self._head = self.prefix + salt
        self._cipher = AESGCM(keyring.derive(keyring.newest, salt))
        # Other processes' keys, by the head of what they sealed.
        self._other = lru_cache(maxsize=1024)(self._derived)
        self._keyring = keyring

    def seal(self, body: bytes) -> bytes:
        nonce = os.urandom(_NONCE)
        return self._head + nonce + self._cipher.encrypt(nonce, body, self._head)

    def open(self, body: bytes) -> bytes:
        """What is behind it; what is not sealed at all is there from before encryption was on."""
        if not body.startswith(MAGIC):
            return body
        if (end := _end(body)) is None:
            raise Tampered("a sealed row was cut off")
        head, nonce, sealed = body[:end], body[end : end + _NONCE], body[end + _NONCE :]
        cipher = self._cipher if head == self._head else self._other(head)
        try:
            return cipher.decrypt(nonce, sealed, head)
        except (InvalidTag, ValueError):
            raise Tampered("a sealed row was changed, or another key has this one's name") from None

    def _derived(self, head: bytes) -> AESGCM:
        end = _NAME + head[_NAME - 1]
        return AESGCM(self._keyring.derive(head[_NAME:end].decode(errors="replace"), head[end:]))

    def dumps(self, document: SealedJson) -> bytes:
        written = document.dumps(document.obj) if document.dumps else json.dumps(document.obj)
        return json.dumps(self.close(json.loads(written)), ensure_ascii=False).encode()

    @staticmethod
    def escape(document: Jsonb) -> bytes:
        """A document of which nothing is sealed, with what only looks so marked as a user's."""
        written = document.dumps(document.obj) if document.dumps else json.dumps(document.obj)
        return _THEIRS.sub(rb'"$\1', written if isinstance(written, bytes) else written.encode())

    def loads(self, text: bytes) -> Any:
        """A document, open. Only what stands where `close` puts it was sealed by us: the same
        anywhere else is what somebody wrote before encryption was on."""
        found = json.loads(text, object_hook=self._opened if b'sealed"' in text else None)
        return self._behind_it(found) if isinstance(found, _Mark) else found

    def close(self, value: Any) -> Any:
        """A JSON document with what `SealedJson` says sealed."""
        if isinstance(value, dict):
            given = cast("dict[str, Any]", value)
            return {
                key: self._behind(item) if key in SealedJson.KEYS else self.close(item)
                for key, item in given.items()
            }
        if isinstance(value, list):
            return [self.close(item) for item in cast("list[Any]", value)]
        return value

    def disclose(self, value: Any) -> Any:
        """What `close` made of a document, as it was; what was never sealed is left as it is."""
        return self.loads(json.dumps(value).encode())

    def _behind(self, value: Any) -> Any:
        body = json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")
        return {MARK: base64.b64encode(self.seal(body)).decode()}

    def _opened(self, found: dict[str, Any]) -> dict[str, Any]:
        if len(found) == 1 and isinstance(found.get(MARK), str):
            return _Mark(found)
        return {
            _unescaped(key): self._behind_it(value)
            if key in SealedJson.KEYS and isinstance(value, _Mark)
            else value
            for key, value in found.items()
        }

    def _behind_it(self, mark: _Mark) -> Any:
        try:
            body = base64.b64decode(mark[MARK], validate=True)
        except (binascii.Error, ValueError):
            return mark  # a user's own words, that look like ours
        # All that a user could write since encryption is on is marked as a user's.
        if not body.startswith(MAGIC) or _end(body) is None:
            return mark
        return json.loads(self.open(body))

    def teach(self, conn: psycopg.AsyncConnection[Any]) -> None:
        """Make a connection seal and open."""
        for python, dumper in (*_bytes(self), *_json(self)):
            conn.adapters.register_dumper(python, dumper)
        for name, loader in (*_openers(self), *_readers(self)):
            conn.adapters.register_loader(name, loader)


def _end(body: bytes) -> int | None:
    """Where the head of something sealed ends; None where not all of it can be there."""
    if len(body) < _NAME:
        return None
    end = _NAME + body[_NAME - 1] + _SALT
    return end if len(body) >= end + _NONCE + _TAG else None


def _unescaped(key: str) -> str:
    return key[1:] if key.startswith("$$") and key.lstrip("$") == "sealed" else key


def _bytes(seals: Seals) -> list[tuple[type, type[Dumper]]]:
    class Binary(Dumper):
        oid = _BYTEA
        format = pq.Format.BINARY

        def dump(self, obj: Any) -> Buffer | None:
            return seals.seal(obj)

    class Text(Dumper):
        oid = _BYTEA

        def dump(self, obj: Any) -> Buffer | None:
            return b"\\x" + seals.seal(obj).hex().encode()

    return [(Sealed, Text), (Sealed, Binary)]


def _json(seals: Seals) -> list[tuple[type, type[Dumper]]]:
    class Binary(Dumper):
        oid = _JSONB
        format = pq.Format.BINARY

        def dump(self, obj: Any) -> Buffer | None:
            return b"\x01" + seals.dumps(obj)

    class Text(Dumper):
        oid = _JSONB

        def dump(self, obj: Any) -> Buffer | None:
            return seals.dumps(obj)

    class PlainBinary(Dumper):
        oid = _JSONB
        format = pq.Format.BINARY

        def dump(self, obj: Any) -> Buffer | None:
            return b"\x01" + seals.escape(obj)

    class PlainText(Dumper):
        oid = _JSONB

        def dump(self, obj: Any) -> Buffer | None:
            return seals.escape(obj)

    return [(SealedJson, Binary), (SealedJson, Text), (Jsonb, PlainText), (Jsonb, PlainBinary)]


def _read(opened: Callable[[bytes], T], body: bytes) -> T | Unopened:
    try:
        return opened(body)
    except EncryptionError as error:
        if not _apart.get():
            raise
        return Unopened(error)


def _openers(seals: Seals) -> list[tuple[str, type[Loader]]]:
    class Text(Loader):
        def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
            super().__init__(oid, context)
            self._plain = ByteaLoader(oid, context)

        def load(self, data: Buffer) -> bytes | Unopened:
            return _read(seals.open, self._plain.load(bytes(data)))

    class Binary(Loader):
        format = pq.Format.BINARY

        def load(self, data: Buffer) -> bytes | Unopened:
            return _read(seals.open, bytes(data))

    return [("bytea", Text), ("bytea", Binary)]


def _readers(seals: Seals) -> list[tuple[str, type[Loader]]]:
    """Loaders of our own: psycopg makes those of `set_json_loads` once for each function, and takes
    one method of two objects for one function."""

    class Text(Loader):
        def load(self, data: Buffer) -> Any:
            return _read(seals.loads, bytes(data))

    class Binary(Loader):
        format = pq.Format.BINARY

        def load(self, data: Buffer) -> Any:
            return _read(seals.loads, bytes(data[1:]))  # after the version of the format

    return [("jsonb", Text), ("jsonb", Binary)]
