"""How the values of settings are written: times, lists, keys. Each parser takes text from the
environment and lets a value that is already of the right type through."""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator, Field, SecretBytes

from clew.checkpointing import policy
from clew.checkpointing.policy import Policy

UNITS: Mapping[str, timedelta] = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")


@dataclass(frozen=True, slots=True)
class EncryptionKey:
    """Wraps data keys. `id` is stored beside what it wrapped, so that keys can rotate."""

    id: str
    key: SecretBytes


def duration(value: object) -> object:
    """`30s`, `5m`, `1h30m`, `7d`; a bare number is seconds, as in the stock names."""
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    try:
        if re.fullmatch(r"\d+(\.\d+)?", text):
            return timedelta(seconds=float(text))
        parts = PART.findall(text)
        if parts and "".join(number + unit for number, unit in parts) == text.replace(" ", ""):
            return sum((float(number) * UNITS[unit] for number, unit in parts), timedelta())
    except OverflowError:
        raise ValueError("must be a shorter time") from None
    raise ValueError("must be a time such as 30s, 5m, 12h or 7d")


def duration_or_never(value: object) -> object:
    never = isinstance(value, str) and value.strip().lower() in {"never", "none"}
    return None if never else duration(value)


def split(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def words(value: object) -> object:
    return split(value) if isinstance(value, str) else value


def lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def encryption_keys(value: object) -> object:
    """`id:base64,id:base64`. No message here may repeat any of it."""
    if not isinstance(value, str):
        return value
    keys: list[EncryptionKey] = []
    for number, entry in enumerate(split(value), start=1):
        name, _, encoded = entry.partition(":")
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,32}", name):
            raise ValueError(f"key {number} must be written id:base64")
        try:
            body = base64.b64decode(encoded.replace("-", "+").replace("_", "/"), validate=True)
        except binascii.Error:
            raise ValueError(f"key {number} is not base64") from None
        if len(body) != 32:
            raise ValueError(f"key {number} must be 32 bytes long, not {len(body)}")
        keys.append(EncryptionKey(name, SecretBytes(body)))
    if len({key.id for key in keys}) != len(keys):
        raise ValueError("each key needs an id of its own")
    return tuple(keys)


def policy_of(value: object) -> object:
    """A retention policy, in the words of `clew.checkpointing.policy`."""
    return policy.parse(value) if isinstance(value, str) else value


Retention = Annotated[Policy, BeforeValidator(policy_of)]
Duration = Annotated[timedelta, BeforeValidator(duration), Field(gt=timedelta())]
Pause = Annotated[timedelta, BeforeValidator(duration), Field(ge=timedelta())]
DurationOrNever = Annotated[
    Annotated[timedelta, Field(gt=timedelta())] | None, BeforeValidator(duration_or_never)
]
Words = Annotated[tuple[str, ...], BeforeValidator(words)]
EncryptionKeys = Annotated[tuple[EncryptionKey, ...], BeforeValidator(encryption_keys)]
Lower = BeforeValidator(lower)
