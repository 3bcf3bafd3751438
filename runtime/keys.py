"""API keys: made once, shown once, kept as a digest, scoped, and revocable at once."""

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Literal, Self

from psycopg.rows import DictRow

from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.runtime import errors
from clew.runtime.sql import queries

Role = Literal["owner", "admin", "service"]

PREFIX = "clew_"
_SCOPE = re.compile(r"^(\*|(\w+:)?(read|write))$")


@dataclass(frozen=True, slots=True)
class Key:
    key_id: str
    owner_id: int
    name: str
    role: Role
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None

    @classmethod
    def of(cls, row: DictRow) -> Self:
        return cls(**{field.name: row[field.name] for field in fields(cls)})


@dataclass(frozen=True, slots=True)
class Holder:
    """Whom a presented key speaks for."""

    key: Key
    tenant: str
    owner: str


async def create(
    db: Database,
    tenant: str,
    owner: str,
    *,
    name: str,
    role: Role = "owner",
    scopes: Iterable[str] = (),
    lifetime: timedelta | None = None,
) -> tuple[Key, str]:
    """A new key and its text, which nothing can bring back later."""
    scopes = [scope(text) for text in scopes]
    text = PREFIX + secrets.token_urlsafe(32)
    values = {
        "key_id": secrets.token_hex(6),
        "owner_id": await db.owner(tenant, owner),
        "digest": _digest(text),
        "name": name,
        "role": role,
        "scopes": scopes,
        "lifetime": lifetime,
    }
    [row] = await db.fetch(SERVICE, queries["create_key"], values)
    return Key.of(row), text


def scope(text: str) -> str:
    if not _SCOPE.match(text):
        raise errors.Invalid(f"{text!r} is not a scope: read, write, threads:read, ...")
    return text


async def verify(db: Database, text: str) -> Holder:
    row = None
    if text.startswith(PREFIX):
        row = await db.one(SERVICE, queries["find_key"], {"digest": _digest(text)})
    if row is None:
        raise errors.Unauthorized("the API key is unknown, expired or revoked")
    return Holder(Key.of(row), row["tenant"], row["owner"])


async def search(db: Database, who: Principal, *, limit: int | None = 1000) -> list[Key]:
    """The keys that this principal may see, newest first; never their text."""
    return [Key.of(row) for row in await db.fetch(who, queries["list_keys"], {"limit": limit})]


async def revoke(db: Database, who: Principal, key_id: str) -> Key:
    row = await db.one(who, queries["revoke_key"], {"key_id": key_id})
    if row is None:
        raise errors.NotFound(f"API key {key_id} not found")
    return Key.of(row)


def allows(scopes: Iterable[str], resource: str, action: str) -> bool:
    """Whether a key's scopes cover an action; without scopes it may all that its role may."""
    scopes = set(scopes)
    kind = "read" if action in ("read", "search", "get", "list_namespaces") else "write"
    return not scopes or not scopes.isdisjoint({"*", kind, f"{resource}:{kind}"})


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
