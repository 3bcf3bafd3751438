"""One call to a webhook: to an address that was just judged, signed, bounded in time, and with
nothing of the answer read but its status.

The signature follows the Standard Webhooks specification, so receivers verify it with a library
that exists for their language: base64 of HMAC-SHA256 over `id.timestamp.body`.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import importlib.metadata
import ssl
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
from pydantic import SecretStr

from clew.runtime import errors
from clew.runtime.targets import Rules

TIMEOUT = 10.0  # for each step of a call
WHOLE = 20.0  # for all of it
GONE = 410  # the receiver wants no more
PREFIX = "whsec_"
AGENT = f"clew/{importlib.metadata.version('clew')}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a call; `fault` is None where it was taken."""

    fault: str | None
    seconds: float
    final: bool = False  # asking again is of no use


class Poster:
    """Made by `open`. `headers` are sent with each call and may be secret."""

    def __init__(
        self,
        rules: Rules,
        headers: Mapping[str, str],
        secret: SecretStr | None,
        remote: httpx.AsyncClient,
        local: httpx.AsyncClient | None,
    ) -> None:
        self._rules = rules
        self._headers = headers
        self._key = key(secret) if secret is not None else None
        self._remote = remote
        self._local = local

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        rules: Rules,
        *,
        headers: Mapping[str, str] | None = None,
        secret: SecretStr | None = None,
        local: httpx.AsyncBaseTransport | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> AsyncGenerator["Poster"]:
        """`local` leads to this server's own routes, for relative URLs."""
        here = None
        remote = httpx.AsyncClient(
            verify=tls or httpx.create_ssl_context(trust_env=False),
            timeout=TIMEOUT,
            # A proxy would resolve the name again; a redirect would lead anywhere; and a kept
            # connection was verified for one host name only, while others share its address.
            trust_env=False,
            follow_redirects=False,
            limits=httpx.Limits(max_keepalive_connections=0),
        )
        async with remote:
            if local is None:
                yield cls(rules, headers or {}, secret, remote, None)
                return
            here = httpx.AsyncClient(transport=local, base_url="http://clew", timeout=TIMEOUT)
            async with here:
                yield cls(rules, headers or {}, secret, remote, here)

    @property
    def reaches_itself(self) -> bool:
        return self._local is not None

    async def post(self, url: str, message_id: str, body: bytes) -> Answer:
        began = time.monotonic()
        final = False
        try:
            async with asyncio.timeout(WHOLE):
                status = await self._send(url, message_id, body)
            fault = None if 200 <= status < 300 else f"HTTP {status}"
            final = status == GONE
        except errors.Invalid as error:
            fault = str(error)
        except TimeoutError:
            fault = "no answer in time"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            # The text may quote the URL, which may hold a secret.
            fault = type(error).__name__
        return Answer(fault, time.monotonic() - began, final)

    async def _send(self, url: str, message_id: str, body: bytes) -> int:
        headers = httpx.Headers({"Content-Type": "application/json", "User-Agent": AGENT})
        headers.update(self._headers)
        headers.update(self._signed(message_id, body))
        if self._rules.local(url):
            if self._local is None:
                raise errors.Invalid("this process does not serve")
            return (await self._local.post(url, content=body, headers=headers)).status_code
        target = await self._rules.find(url)
        headers["Host"] = target.host_header
        async with self._remote.stream(
            "POST",
            target.url,
            content=body,
            headers=headers,
            extensions={"sni_hostname": target.host},
        ) as answer:
            return answer.status_code

    def _signed(self, message_id: str, body: bytes) -> dict[str, str]:
        moment = int(time.time())
        headers = {"webhook-id": message_id, "webhook-timestamp": str(moment)}
        if self._key is not None:
            headers["webhook-signature"] = sign(self._key, message_id, moment, body)
        return headers


def key(secret: SecretStr) -> bytes:
    """`whsec_` and base64, as the libraries of receivers take it; any other text is its bytes."""
    text = secret.get_secret_value()
    if text.startswith(PREFIX):
        try:
            return base64.b64decode(text.removeprefix(PREFIX), validate=True)
        except binascii.Error:
            raise errors.ConfigError(
                f"CLEW_WEBHOOK_SECRET begins with {PREFIX} but goes on with what is not base64"
            ) from None
    return text.encode()


def sign(secret: bytes, message_id: str, moment: int, body: bytes) -> str:
    signed = f"{message_id}.{moment}.".encode() + body
    digest = hmac.new(secret, signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()
