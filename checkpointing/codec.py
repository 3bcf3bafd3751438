"""Values to bytes and back: LangGraph's serializer, zstd, and one header byte.

The header says how to read the rest: bits 0-3 the serializer's type, bits 4-5 the compression
(0 none, 1 zstd, 2 zstd with the first dictionary), bit 6 that strings are escaped, bit 7 is kept
for encryption. A header that this release does not know is refused, never guessed.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import zstandard
from langgraph.checkpoint.serde.base import SerializerProtocol

from clew.checkpointing import dictionary, text
from clew.checkpointing.errors import UnknownBody, UnknownKey, Unserializable

_TYPES = ("null", "bytes", "bytearray", "msgpack", "json", "pickle")
_CODES = {name: code for code, name in enumerate(_TYPES)}
_NAMED = 15  # any other type: its name follows, after a byte for the name's length
_PLAIN, _ZSTD, _ZSTD_FIRST = 0x00, 0x10, 0x20
_ESCAPED = 0x40
_SEALED = 0x80

_WORTH = 48  # shorter than this, a zstd frame costs more than it saves
_FIRST = zstandard.ZstdCompressionDict(dictionary.FIRST, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
_FIRST.precompute_compress(level=1)

NULL = bytes([_CODES["null"]])


class _Zstd(threading.local):
    """A compressor is not safe to share between threads, and costly to make."""

    def __init__(self) -> None:
        self.small = zstandard.ZstdCompressor(
            level=1, dict_data=_FIRST, write_dict_id=False, write_content_size=True
        )
        self.large = zstandard.ZstdCompressor(level=1, write_content_size=True)
        self.read_first = zstandard.ZstdDecompressor(dict_data=_FIRST)
        self.read = zstandard.ZstdDecompressor()


_zstd = _Zstd()


class Raw(NamedTuple):
    """A value serialized, and not compressed yet."""

    header: int
    name: bytes
    data: bytes


def dump(serde: SerializerProtocol, value: Any) -> bytes:
    """The body of a value. Raises `Unserializable`."""
    return pack(serialize(serde, value))


def serialize(serde: SerializerProtocol, value: Any) -> Raw:
    """The first half of `dump`. Raises `Unserializable`."""
    try:
        header, kind, data = _serialize(serde, value)
    except (TypeError, ValueError, RecursionError) as error:
        raise Unserializable(f"cannot store a {type(value).__name__}: {error}") from error
    code = _CODES.get(kind)
    if code is not None:
        return Raw(header | code, b"", data)
    name = kind.encode()
    return Raw(header | _NAMED, bytes([len(name)]) + name, data)


def pack(raw: Raw) -> bytes:
    """The other half."""
    compression, data = _compress(raw.data)
    return bytes([raw.header | compression]) + raw.name + data


def _serialize(serde: SerializerProtocol, value: Any) -> tuple[int, str, bytes]:
    try:
        kind, data = serde.dumps_typed(value)
        # The serializer puts "?" where UTF-8 has no answer; most question marks are innocent.
        if kind != "msgpack" or b"?" not in data or not text.has_surrogate(value):
            return 0, kind, data
    except (TypeError, ValueError):
        # A key with a surrogate cannot even be replaced.
        if not text.has_surrogate(value):
            raise
    return _ESCAPED, *serde.dumps_typed(text.replace(value, text.escape))


def load(serde: SerializerProtocol, body: bytes) -> Any:
    """The value of a body. Raises `UnknownBody`."""
    kind, data = unpack(body)
    try:
        value = serde.loads_typed((kind, data))
    except (NotImplementedError, ValueError) as error:
        raise UnknownBody(f"a stored value of type {kind} cannot be read: {error}") from error
    return text.replace(value, text.unescape) if body[0] & _ESCAPED else value


def unpack(body: bytes) -> tuple[str, bytes]:
    """The serializer's type and bytes of a body. Raises `UnknownBody`, `UnknownKey` if sealed."""
    if not body:
        raise UnknownBody("a stored value has no header")
    if body[0] & _SEALED:
        raise UnknownKey("a stored value is encrypted, and CLEW_ENCRYPTION_KEYS is not set")
    code, data = body[0] & 0x0F, body[1:]
    if code < len(_TYPES):
        kind = _TYPES[code]
    elif code == _NAMED and data:
        kind = data[1 : 1 + data[0]].decode(errors="replace")
        data = data[1 + data[0] :]
    else:
        raise UnknownBody(f"a stored value is of the unknown type {code}")
    try:
        return kind, _decompress(body[0] & 0x30, data)
    except zstandard.ZstdError as error:
        raise UnknownBody(f"a stored value of type {kind} cannot be read: {error}") from error


def is_escaped(body: bytes) -> bool:
    """Whether a plain body holds strings that UTF-8 has no form for."""
    return bool(body[0] & _ESCAPED)


def check(body: bytes) -> None:
    """Refuse a body from elsewhere that `load` could not read, or that might run code if it did."""
    code = body[0] & 0x0F if body else _NAMED
    if not body or body[0] & _SEALED or code >= len(_TYPES) or body[0] & 0x30 == 0x30:
        raise UnknownBody("a value has no header that this release can read")
    if _TYPES[code] == "pickle":
        raise UnknownBody("a pickled value is not taken from elsewhere")


def _compress(data: bytes) -> tuple[int, bytes]:
    if len(data) < _WORTH:
        return _PLAIN, data
    # The dictionary helps with what is small; past that it only slows the start.
    kind, packer = (_ZSTD_FIRST, _zstd.small) if len(data) < 65536 else (_ZSTD, _zstd.large)
    packed = packer.compress(data)
    return (kind, packed) if len(packed) < len(data) - 8 else (_PLAIN, data)


def _decompress(kind: int, data: bytes) -> bytes:
    if kind == _PLAIN:
        return data
    if kind == _ZSTD_FIRST:
        return _zstd.read_first.decompress(data)
    if kind == _ZSTD:
        return _zstd.read.decompress(data)
    raise UnknownBody("a stored value is compressed in an unknown way")
