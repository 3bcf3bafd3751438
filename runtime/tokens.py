"""JSON Web Tokens: signed by a shared secret, or by keys that an identity provider publishes and
changes whenever it likes.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
import jwt

from clew.runtime import errors
from clew.runtime.settings import Settings

log = logging.getLogger(__name__)

# Published keys are read again at this age, or at a token whose key is not among them; the pause
# keeps forged key ids from turning this server against the provider.
FRESH = timedelta(minutes=10)
PAUSE = timedelta(seconds=10)
# Keys of a provider that cannot be reached go on counting for this long.
STALE = timedelta(hours=1)


class Tokens:
    """Verifies tokens. Made by `open`."""

    def __init__(self, settings: Settings, client: httpx.AsyncClient) -> None:
        self._settings = settings
        self._client = client
        self._keys: dict[str | None, Any] = {}
        self._read_at: float | None = None
        self._tried_at: float | None = None
        self._reading = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncGenerator["Tokens"]:
        async with httpx.AsyncClient(timeout=5.0, follow_redirects=False) as client:
            yield cls(settings, client)

    async def verify(self, token: str) -> dict[str, Any]:
        """The claims of a token that holds, with `sub` and `exp` among them."""
        settings = self._settings
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            return jwt.decode(
                token,
                await self._key(kid),
                algorithms=list(settings.jwt_algorithms),
                audience=settings.jwt_audience,
                issuer=settings.jwt_issuer,
                leeway=settings.jwt_leeway,
                options={
                    "require": ["exp", "sub"],
                    "verify_aud": settings.jwt_audience is not None,
                    "verify_iss": settings.jwt_issuer is not None,
                },
            )
        except jwt.ExpiredSignatureError:
            raise errors.Unauthorized("the token has expired") from None
        except (jwt.PyJWTError, ValueError) as error:
            # The reason helps whoever sets up a provider and says nothing of any key.
            raise errors.Unauthorized(f"the token is not valid: {error}") from None

    async def _key(self, kid: Any) -> Any:
        secret = self._settings.jwt_secret
        if secret is not None:
            return secret.get_secret_value().encode()
        if self._older(self._read_at, FRESH) or (kid is not None and kid not in self._keys):
            await self._read(kid)
        if not self._keys:
            raise errors.Unavailable("the keys that tokens are signed with cannot be read")
        if kid in self._keys:
            return self._keys[kid]
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        raise jwt.InvalidKeyError("its key is not among those published")

    async def _read(self, kid: Any) -> None:
        async with self._reading:
            known = kid in self._keys and not self._older(self._read_at, FRESH)
            if known or not self._older(self._tried_at, PAUSE):
                return  # somebody else has just read them
            self._tried_at = time.monotonic()
            try:
                reply = await self._client.get(str(self._settings.jwt_jwks_url))
                reply.raise_for_status()
                keys = published(reply.json())
            except (httpx.HTTPError, ValueError) as error:
                log.warning("the published keys cannot be read: %s", error)
                if self._older(self._read_at, STALE):
                    self._keys = {}
                return
            self._keys = keys
            self._read_at = time.monotonic()

    @staticmethod
    def _older(moment: float | None, age: timedelta) -> bool:
        return moment is None or time.monotonic() - moment > age.total_seconds()


def published(document: Any) -> dict[str | None, Any]:
    """The signature keys of a JWKS document by their id; unknown kinds are passed over."""
    entries = document.get("keys") if isinstance(document, dict) else None
    keys: dict[str | None, Any] = {}
    for entry in entries if isinstance(entries, list) else ():
        try:
            key = jwt.PyJWK(entry)
        except (jwt.PyJWTError, AttributeError, TypeError):
            continue
        if key.key_type != "oct" and key.public_key_use != "enc":
            # A key that names its algorithm is good for that one alone.
            keys[key.key_id] = key if entry.get("alg") else key.key
    if not keys:
        raise ValueError("it holds no key for signatures")
    return keys
