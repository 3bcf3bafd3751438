"""JSON Web Tokens, against a provider that really answers HTTP and really changes its keys."""

import asyncio
import hmac
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from jwt.utils import base64url_encode
from pydantic import SecretStr

from clew.runtime import errors, tokens
from clew.runtime.settings import Settings
from clew.runtime.tokens import Tokens

SECRET = "a secret of at least sixty-four bytes, which is what HS512 asks for"
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


class Provider:
    """An identity provider's published keys on a real socket."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = []
        self.up = True
        self.asked = 0
        self.url = ""

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncGenerator["Provider"]:
        provider = cls()
        server = await asyncio.start_server(provider.answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        provider.url = f"http://127.0.0.1:{port}/jwks.json"
        async with server:
            yield provider

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        body = json.dumps({"keys": self.keys}).encode()
        status = b"200 OK" if self.up else b"503 Down"
        writer.write(
            b"HTTP/1.1 %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
            % (status, len(body), body)
        )
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    def publish(self, kid: str, key: Any, **more: str) -> None:
        kind: Any = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
        self.keys.append({**kind.to_jwk(key.public_key(), as_dict=True), "kid": kid, **more})


def claims(**more: Any) -> dict[str, Any]:
    return {"sub": "alice", "exp": datetime.now(UTC) + timedelta(minutes=5), **more}


@asynccontextmanager
async def shared(**more: Any) -> AsyncGenerator[Tokens]:
    async with Tokens.open(Settings(jwt_secret=SecretStr(SECRET), **more)) as verifier:
        yield verifier


async def test_a_token_signed_by_the_shared_secret() -> None:
    async with shared() as verifier:
        assert (await verifier.verify(jwt.encode(claims(), SECRET)))["sub"] == "alice"


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "a.b.c",
        jwt.encode(claims(), "another secret of at least thirty-two bytes"),
        jwt.encode(claims(), "", algorithm="none"),
        jwt.encode(claims(), SECRET, algorithm="HS512"),
        jwt.encode({"sub": "alice"}, SECRET),
        jwt.encode({"exp": 2_000_000_000}, SECRET),
        # Made when tests are collected, which may be long before this one runs.
        jwt.encode(
            claims(
                nbf=datetime.now(UTC) + timedelta(days=1),
                exp=datetime.now(UTC) + timedelta(days=2),
            ),
            SECRET,
        ),
    ],
    # Names of their own: what is made from the time differs from one test process to the next.
    ids=[
        "empty",
        "one part",
        "no base64",
        "another secret",
        "no algorithm",
        "another algorithm",
        "no end",
        "nobody",
        "not yet",
    ],
)
async def test_a_token_that_does_not_hold_is_refused(token: str) -> None:
    async with shared() as verifier:
        with pytest.raises(errors.Unauthorized) as refusal:
            await verifier.verify(token)
        assert SECRET not in str(refusal.value)


async def test_clocks_may_differ_by_the_leeway_and_no_more() -> None:
    def ended(seconds: int) -> str:
        return jwt.encode(claims(exp=datetime.now(UTC) - timedelta(seconds=seconds)), SECRET)

    async with shared(jwt_leeway="30s") as verifier:
        assert await verifier.verify(ended(5))
        with pytest.raises(errors.Unauthorized, match="expired"):
            await verifier.verify(ended(40))


async def test_audience_and_issuer_must_be_those_of_the_settings() -> None:
    async with shared(jwt_audience="clew", jwt_issuer="https://id.example.com/") as verifier:
        right = {"aud": "clew", "iss": "https://id.example.com/"}
        assert await verifier.verify(jwt.encode(claims(**right), SECRET))
        for wrong in ({**right, "aud": "x"}, {**right, "iss": "x"}, {"aud": "clew"}, {}):
            with pytest.raises(errors.Unauthorized):
                await verifier.verify(jwt.encode(claims(**wrong), SECRET))


async def test_tokens_signed_by_published_keys_of_both_kinds() -> None:
    async with Provider.open() as provider:
        provider.publish("r", RSA_KEY, alg="RS256", use="sig")
        provider.publish("e", EC_KEY)
        provider.keys.append({"kty": "something-new", "kid": "n"})
        async with Tokens.open(Settings(jwt_jwks_url=provider.url)) as verifier:
            for key, kid, algorithm in ((RSA_KEY, "r", "RS256"), (EC_KEY, "e", "ES256")):
                token = jwt.encode(claims(), key, algorithm, headers={"kid": kid})
                assert (await verifier.verify(token))["sub"] == "alice"
        assert provider.asked == 1


async def test_a_public_key_is_no_secret() -> None:
    public = RSA_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    async with Provider.open() as provider:
        provider.publish("r", RSA_KEY)
        async with Tokens.open(Settings(jwt_jwks_url=provider.url)) as verifier:
            head = {"alg": "HS256", "typ": "JWT", "kid": "r"}
            body = {"sub": "alice", "exp": 4_000_000_000}
            signed = b".".join(base64url_encode(json.dumps(part).encode()) for part in (head, body))
            mark = hmac.digest(public, signed, "sha256")
            forged = (signed + b"." + base64url_encode(mark)).decode()
            with pytest.raises(errors.Unauthorized):
                await verifier.verify(forged)


async def test_a_new_key_is_found_and_a_forged_key_id_asks_only_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Provider.open() as provider:
        provider.publish("old", RSA_KEY)
        async with Tokens.open(Settings(jwt_jwks_url=provider.url)) as verifier:
            first = jwt.encode(claims(), RSA_KEY, "RS256", headers={"kid": "old"})
            await verifier.verify(first)
            monkeypatch.setattr(tokens, "PAUSE", timedelta(0))
            provider.keys.clear()
            provider.publish("new", EC_KEY)
            second = jwt.encode(claims(), EC_KEY, "ES256", headers={"kid": "new"})
            await asyncio.gather(*(verifier.verify(second) for _ in range(20)))
            assert provider.asked == 2
            with pytest.raises(errors.Unauthorized):  # withdrawn: refused from here on
                await verifier.verify(first)
            monkeypatch.undo()
            asked = provider.asked
            for n in range(20):
                forged = jwt.encode(claims(), EC_KEY, "ES256", headers={"kid": f"forged-{n}"})
                with pytest.raises(errors.Unauthorized):
                    await verifier.verify(forged)
            assert provider.asked == asked


async def test_a_provider_that_is_down_is_no_reason_to_let_anyone_in_or_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    token = jwt.encode(claims(), RSA_KEY, "RS256", headers={"kid": "r"})
    monkeypatch.setattr(tokens, "PAUSE", timedelta(0))
    async with Provider.open() as provider:
        provider.publish("r", RSA_KEY)
        provider.up = False
        async with Tokens.open(Settings(jwt_jwks_url=provider.url)) as verifier:
            with pytest.raises(errors.Unavailable):
                await verifier.verify(token)
            provider.up = True
            assert await verifier.verify(token)
            provider.up = False
            monkeypatch.setattr(tokens, "FRESH", timedelta(0))
            assert await verifier.verify(token)
            monkeypatch.setattr(tokens, "STALE", timedelta(0))
            with pytest.raises(errors.Unavailable):
                await verifier.verify(token)
