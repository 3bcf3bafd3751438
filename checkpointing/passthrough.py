"""Values that are carried and not understood: no class of the user's graph is needed or made.

What LangGraph's serializer stores as an object stays the bytes it was, inside the lists and
dictionaries around it, and is written again bit for bit. Only a DeltaChannel's snapshot is
unwrapped, since savers treat it in their own way.
"""

from __future__ import annotations

from typing import Any

import ormsgpack
from langgraph.checkpoint.serde.base import CipherProtocol, SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import EXT_DELTA_SNAPSHOT, JsonPlusSerializer

from clew.checkpointing.snapshot import Snapshot


def serializer(cipher: CipherProtocol | None = None) -> SerializerProtocol:
    """With a cipher, for what LangGraph's own encrypting serializer wrote."""
    plain = JsonPlusSerializer(__unpack_ext_hook__=_carry)
    return plain if cipher is None else EncryptedSerializer(cipher, plain)


def _carry(code: int, data: bytes) -> Any:
    if code == EXT_DELTA_SNAPSHOT:
        inner = ormsgpack.unpackb(data, ext_hook=_carry, option=ormsgpack.OPT_NON_STR_KEYS)
        return Snapshot(inner)
    return ormsgpack.Ext(code, data)
