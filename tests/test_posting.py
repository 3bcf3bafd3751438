"""One call to a webhook: to the address that was judged, signed, nothing taken on trust."""

import base64
import hashlib
import hmac
import ssl
import tempfile
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr

from clew.runtime import errors, posting, targets
from clew.runtime.posting import Poster
from clew.runtime.targets import Rules
from tests.receiver import receiving

HERE = Rules(loopback=True)
SECRET = SecretStr("whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode())


async def test_a_name_that_resolves_elsewhere_when_it_is_called_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Only the resolver is replaced: it answers as an attacker's would, differently the second time.
    answers = iter([[ip_address("93.184.215.14")], [ip_address("127.0.0.1")]])

    async def resolve(host: str, port: int) -> Any:
        return next(answers)

    monkeypatch.setattr(targets, "_resolve", resolve)
    async with receiving() as receiver, Poster.open(Rules()) as poster:
        url = receiver.url.replace("127.0.0.1", "rebinding.example")
        await Rules().check(url)
        answer = await poster.post(url, "1", b"{}")
        assert answer.fault == "Webhook host blocked: loopback IP range"
        assert receiver.got.empty()


async def test_the_call_goes_to_the_address_that_was_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_up: list[str] = []

    async def resolve(host: str, port: int) -> Any:
        looked_up.append(host)
        return [ip_address("127.0.0.1")]

    monkeypatch.setattr(targets, "_resolve", resolve)
    async with receiving() as receiver, Poster.open(HERE) as poster:
        # No resolver but ours knows this name, so a second look-up could not succeed.
        url = receiver.url.replace("127.0.0.1", "名字.invalid")
        assert (await poster.post(url, "1", b"{}")).fault is None
        got = await receiver.next()
    assert looked_up == ["名字.invalid".encode("idna").decode()]
    assert got.headers["host"].startswith(looked_up[0])
    assert got.line == "POST /hook?a=1 HTTP/1.1"


async def test_a_call_is_signed_for_the_libraries_that_verify_such_calls() -> None:
    async with (
        receiving() as receiver,
        Poster.open(HERE, headers={"X-Own": "v", "user-agent": "mine"}, secret=SECRET) as poster,
    ):
        await poster.post(receiver.url, "msg_1", '{"说":1}'.encode())
        got = await receiver.next()
    stamp = got.headers["webhook-timestamp"]
    signed = b".".join((b"msg_1", stamp.encode(), got.body))
    digest = hmac.new(b"0123456789abcdef0123456789abcdef", signed, hashlib.sha256).digest()
    assert got.headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()
    assert abs(time.time() - int(stamp)) < 60
    assert got.headers["webhook-id"] == "msg_1"
    assert got.headers["x-own"] == "v"
    assert got.headers["user-agent"] == "mine"
    assert got.headers["content-type"] == "application/json"


async def test_without_a_secret_nothing_is_signed() -> None:
    async with receiving() as receiver, Poster.open(HERE) as poster:
        await poster.post(receiver.url, "1", b"{}")
        assert "webhook-signature" not in (await receiver.next()).headers


def test_a_secret_is_text_or_marked_base64() -> None:
    assert posting.key(SecretStr("plain")) == b"plain"
    assert posting.key(SECRET) == b"0123456789abcdef0123456789abcdef"
    with pytest.raises(errors.ConfigError):
        posting.key(SecretStr("whsec_not base64!"))


@pytest.mark.parametrize(
    ("status", "final"), [(302, False), (400, False), (500, False), (410, True)]
)
async def test_only_2xx_is_taken_and_no_redirect_is_followed(status: int, final: bool) -> None:
    async with receiving(status) as receiver, Poster.open(HERE) as poster:
        answer = await poster.post(receiver.url, "1", b"{}")
        await receiver.next()
        assert receiver.got.empty()
    assert (answer.fault, answer.final) == (f"HTTP {status}", final)


async def test_a_fault_never_tells_the_url() -> None:
    async with receiving() as receiver:
        gone = receiver.url
    async with Poster.open(HERE) as poster:
        answer = await poster.post(gone, "1", b"{}")
    assert answer.fault == "ConnectError"


async def test_tls_is_verified_for_the_name_and_not_for_the_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def resolve(host: str, port: int) -> Any:
        return [ip_address("127.0.0.1")]

    monkeypatch.setattr(targets, "_resolve", resolve)
    authority, serving = certified("hooks.example")
    async with (
        receiving(tls=serving) as receiver,
        Poster.open(HERE, tls=authority) as poster,
    ):
        url = receiver.url.replace("http://127.0.0.1", "https://hooks.example")
        assert (await poster.post(url, "1", b"{}")).fault is None
        assert (await receiver.next()).headers["host"].startswith("hooks.example")
        other = url.replace("hooks.example", "other.example")
        assert (await poster.post(other, "1", b"{}")).fault == "ConnectError"
        assert receiver.got.empty()


def certified(name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A client's context that trusts the certificate of a server of that name, and the server's."""
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(private, hashes.SHA256())
    )
    text = certificate.public_bytes(serialization.Encoding.PEM)
    secret = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(text + secret)
        file.flush()
        serving.load_cert_chain(file.name)
    return ssl.create_default_context(cadata=text.decode()), serving
