"""Who can reach the server: this machine alone, or strangers too, who then prove who they are."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from clew.runtime import errors

if TYPE_CHECKING:
    from clew.runtime.settings import Settings


def check(settings: Settings, *, custom_auth: bool) -> None:
    """Refuse to serve strangers by oversight. `custom_auth`: langgraph.json brings its own."""
    if loopback(settings.host) or settings.authenticates or custom_auth or settings.allow_insecure:
        return
    raise errors.ConfigError(
        f"Listening on {settings.host} would let anyone who can reach this machine read every "
        "session, since no authentication is set up. Set CLEW_JWT_SECRET, CLEW_JWT_JWKS_URL, "
        "CLEW_API_KEYS=true (`clew keys create` makes a key) or `auth` in langgraph.json; or "
        "listen on 127.0.0.1; or, where something in front checks callers, set "
        "CLEW_ALLOW_INSECURE=true."
    )


def loopback(host: str | None) -> bool:
    """Only what is certainly this machine: a name is not looked up."""
    if not host:
        return False
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
