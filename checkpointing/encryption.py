"""Sealing bodies: AES-256-GCM under a data key for each lineage, which a named key wraps.

A sealed body opens only in its own place: the owner, the lineage and the row's key are
authenticated with it, so that a value that was moved or exchanged in the database is refused,
just as one that was changed. Nothing here touches the database; `keys` keeps the keys there.

    0x81 | lineage (8 bytes) | nonce (12 bytes) | AES-GCM of the plain body, with its tag

The lineage in front is the one whose key it is: a fork copies pending writes as they are, and
they stay under their ancestor's key.
"""

from __future__ import annotations

import hmac
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from clew.checkpointing.errors import (
    EncryptionError,
    KeyDestroyed,
    NotEncrypted,
    Tampered,
    UnknownKey,
    WrongKey,
)

SEALED = 0x80  # of the header byte, see `codec`
_VERSION = SEALED | 1
_HEAD = struct.Struct(">BQ")
_NONCE = 12
_OVERHEAD = _HEAD.size + _NONCE + 16
_KEY = 32

_ITEM = struct.Struct(">Qiq")
_WRITE = struct.Struct(">16s16sq")
_LINEAGE = struct.Struct(">QQ")


def item(lineage_id: int, stream: int, number: int) -> bytes:
    """The place of a row of `clew.item`."""
    return b"item" + _ITEM.pack(lineage_id, stream, number)


def write(checkpoint_id: UUID, task_id: UUID, slot: int, ns: str, channel: str) -> bytes:
    """The place of a row of `clew.write`; its lineage is the one that sealed it.

    Of a negative slot only the code counts: the rest of it, a tick of the clock, is given by the
    statement that stores it.
    """
    slot = slot if slot >= 0 else -(-slot & 7)
    where = f"{len(ns)}:{ns}{channel}".encode(errors="surrogatepass")
    return b"write" + _WRITE.pack(checkpoint_id.bytes, task_id.bytes, slot) + where


def label(thread_id: str, name: str) -> bytes:
    """The place of what was saved with a label."""
    return f"label{len(thread_id)}:{thread_id}{name}".encode(errors="surrogatepass")


def is_sealed(body: bytes) -> bool:
    return bool(body) and body[0] & SEALED != 0


def lineage_of(body: bytes) -> int:
    """The lineage whose key a sealed body needs."""
    if len(body) < _OVERHEAD or body[0] != _VERSION:
        raise Tampered("an encrypted value is not in a form that this release knows")
    return _HEAD.unpack_from(body)[1]


def lineages(bodies: Iterable[bytes]) -> set[int]:
    """The lineages whose keys these bodies need. Raises `NotEncrypted` on a plain one."""
    found: set[int] = set()
    for body in bodies:
        if not is_sealed(body):
            raise NotEncrypted(_PLAIN)
        found.add(lineage_of(body))
    return found


@dataclass(frozen=True, slots=True, repr=False)
class Sealer:
    """The data key of one lineage."""

    lineage_id: int
    owner_id: int
    cipher: AESGCM

    @classmethod
    def of(cls, lineage_id: int, owner_id: int, data_key: bytes) -> Sealer:
        return cls(lineage_id, owner_id, AESGCM(data_key))

    def seal(self, body: bytes, place: bytes) -> bytes:
        nonce = os.urandom(_NONCE)
        head = _HEAD.pack(_VERSION, self.lineage_id)
        return head + nonce + self.cipher.encrypt(nonce, body, self._bound(head, place))

    def open(self, body: bytes, place: bytes) -> bytes:
        head, nonce, sealed = body[:9], body[9:21], body[21:]
        try:
            return self.cipher.decrypt(nonce, sealed, self._bound(head, place))
        except InvalidTag:
            raise Tampered(
                f"an encrypted value of lineage {self.lineage_id} was changed or moved"
            ) from None

    def _bound(self, head: bytes, place: bytes) -> bytes:
        return b"clew" + head + self.owner_id.to_bytes(8, "big") + place

    def __repr__(self) -> str:
        return f"Sealer(lineage_id={self.lineage_id})"


def open_body(sealers: Mapping[int, Sealer], body: bytes, place: bytes) -> bytes:
    """The plain body behind a sealed one. A plain one is refused, never passed through."""
    if not is_sealed(body):
        raise NotEncrypted(_PLAIN)
    lineage_id = lineage_of(body)
    sealer = sealers.get(lineage_id)
    if sealer is None:
        raise KeyDestroyed(f"the key of lineage {lineage_id} is gone")
    return sealer.open(body, place)


_PLAIN = (
    "a stored value is not encrypted although encryption is on; "
    "`clew encryption encrypt` encrypts what was stored before"
)


class Keyring:
    """The named keys of the settings: the first wraps new data keys, all of them unwrap."""

    def __init__(self, keys: Sequence[tuple[str, bytes]]) -> None:
        if not keys:
            raise EncryptionError("encryption needs at least one key")
        if len({name for name, _ in keys}) != len(keys):
            raise EncryptionError("each encryption key needs a name of its own")
        for name, key in keys:
            if len(key) != _KEY:
                raise EncryptionError(f"encryption key {name} must be {_KEY} bytes long")
        self._ciphers = {name: AESGCM(key) for name, key in keys}
        self._keys = dict(keys)
        self.names = tuple(self._keys)
        self.newest = keys[0][0]

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self._ciphers)})"

    def derive(self, name: str, salt: bytes) -> bytes:
        """A key of its own for what is not a lineage's, from a named one."""
        key = self._keys.get(name)
        if key is None:
            raise UnknownKey(
                f"data is encrypted under key {name!r}, which CLEW_ENCRYPTION_KEYS does not name"
            )
        return hmac.digest(key, b"clew rows" + salt, "sha256")

    def wrap(self, data_key: bytes, place: bytes) -> bytes:
        """A data key under the newest key, to be opened in this place only."""
        nonce = os.urandom(_NONCE)
        return nonce + self._ciphers[self.newest].encrypt(nonce, data_key, b"clew key" + place)

    def unwrap(self, key_id: str, wrapped: bytes, place: bytes) -> bytes:
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise UnknownKey(
                f"data is encrypted under key {key_id!r}, which CLEW_ENCRYPTION_KEYS does not name"
            )
        try:
            return cipher.decrypt(wrapped[:_NONCE], wrapped[_NONCE:], b"clew key" + place)
        except InvalidTag:
            raise WrongKey(
                f"key {key_id!r} is not the one that the data was encrypted under"
            ) from None


def owned(lineage_id: int, owner_id: int) -> bytes:
    """The place of a lineage's data key."""
    return _LINEAGE.pack(lineage_id, owner_id)


def new_key() -> bytes:
    return os.urandom(_KEY)
