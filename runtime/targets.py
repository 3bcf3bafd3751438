"""Where a webhook may go. The caller chose the URL and this server makes the call, from inside its
network: so a URL is judged when it is given, and its addresses again when the call is made, which
then goes to the address that was judged and to no other.
"""

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

from clew.runtime import errors
from clew.runtime.config import Config

Address = IPv4Address | IPv6Address

PORTS = {"http": 80, "https": 443}
LOOKUP_SECONDS = 5.0
NAT64 = ip_network("64:ff9b::/96")
# Where clouds hand out credentials, outside the link-local range: never, whatever is allowed.
METADATA = frozenset({ip_address("100.100.100.200"), ip_address("fd00:ec2::254")})


@dataclass(frozen=True, slots=True)
class Target:
    """What to connect to: an address, and the host that the URL names, for TLS and the server."""

    parts: SplitResult
    host: str
    port: int
    address: Address

    @property
    def url(self) -> str:
        """The URL with the address in the place of the host."""
        where = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        parts = self.parts
        userinfo, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{userinfo}{at}{where}:{self.port}", fragment="").geturl()

    @property
    def host_header(self) -> str:
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == PORTS[self.parts.scheme] else f"{name}:{self.port}"


@dataclass(frozen=True, slots=True)
class Rules:
    require_https: bool = False
    allowed_domains: Sequence[str] | None = None
    allowed_ports: Sequence[int] | None = None
    max_url_length: int = 4096
    loopback: bool = False  # this server itself, by a relative URL or by address
    private: bool = False  # addresses of private networks

    async def check(self, url: str) -> None:
        """Raises Invalid for a URL that may not be called, as far as can be told now."""
        if not self.local(url):
            await self.find(url)

    def local(self, url: str) -> bool:
        """Whether it is a path on this server. Invalid where such are not allowed."""
        if len(url) > self.max_url_length:
            raise errors.Invalid("Webhook URL too long")
        if not url.startswith("/") or url.startswith("//"):
            return False
        if not self.loopback:
            raise _blocked("relative URLs not allowed")
        return True

    async def find(self, url: str) -> Target:
        """Resolve a URL. Invalid if any of its addresses is one that may not be called: which of
        them is taken is not ours to bet on."""
        parts, host, port = self._split(url)
        addresses = await _resolve(host, port)
        for address in addresses:
            if (reason := self._fault(address)) is not None:
                raise _blocked(reason)
        return Target(parts, host, port, addresses[0])

    def _split(self, url: str) -> tuple[SplitResult, str, int]:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
            host = host and host.encode("idna").decode()
        except ValueError:  # UnicodeError is one
            raise errors.Invalid("Webhook URL is malformed") from None
        if parts.scheme not in PORTS:
            raise _blocked(f"scheme '{parts.scheme[:20]}' not allowed")
        if not host or any(not c.isprintable() or c.isspace() or c == "\\" for c in url):
            raise errors.Invalid("Webhook URL is malformed")
        if self.require_https and parts.scheme != "https":
            raise errors.Invalid("Webhook must use https")
        port = port if port is not None else PORTS[parts.scheme]
        if self.allowed_ports is not None and port not in self.allowed_ports:
            raise errors.Invalid(f"Webhook port {port} not allowed")
        if self.allowed_domains and not any(_matches(host, d) for d in self.allowed_domains):
            raise errors.Invalid("Webhook domain not allowed")
        return parts, host, port

    def _fault(self, address: Address) -> str | None:
        for seen in _embedded(address):
            if seen.is_loopback:
                if not self.loopback:
                    return "loopback IP range"
            elif seen.is_link_local or seen in METADATA:
                return "link-local IP range"
            elif seen.is_multicast or seen.is_unspecified or seen.is_reserved:
                return "reserved IP range"
            elif not seen.is_global and not self.private:
                return "private IP range"
        return None


def of(config: Config) -> Rules:
    """What `webhooks.url` of langgraph.json says. Where it says nothing, any public host will do;
    given at all, it also asks for https."""
    url = config.webhooks.url if config.webhooks else None
    if url is None:
        return Rules()
    return Rules(
        url.require_https,
        url.allowed_domains,
        url.allowed_ports,
        url.max_url_length,
        loopback=not url.disable_loopback,
        private=url.disable_private_ips is False,
    )


def _matches(host: str, domain: str) -> bool:
    host, domain = host.lower().rstrip("."), domain.lower()
    if domain.startswith("*."):
        return host.endswith(domain[1:])
    return host == domain


def _embedded(address: Address) -> list[Address]:
    """An address, and the one inside it."""
    if isinstance(address, IPv4Address):
        return [address]
    inner: list[Address | None] = [address.ipv4_mapped, address.sixtofour]
    if address.teredo is not None:
        inner.append(address.teredo[1])
    if address in NAT64:
        inner.append(IPv4Address(address.packed[-4:]))
    found = [each for each in inner if each is not None]
    # What is mapped is nothing but the address inside; Python calls the rest of it reserved.
    return found if address.ipv4_mapped or address in NAT64 else [address, *found]


async def _resolve(host: str, port: int) -> list[Address]:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(LOOKUP_SECONDS):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError):
        raise _blocked("DNS resolution failed") from None
    addresses = [ip_address(str(each[4][0]).partition("%")[0]) for each in found]
    if not addresses:
        raise _blocked("DNS resolution failed")
    return addresses


def _blocked(reason: str) -> errors.Invalid:
    return errors.Invalid(f"Webhook host blocked: {reason}")
