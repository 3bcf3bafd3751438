"""Who is calling: the principal of a request or socket, and what it is allowed.

One way in is open at a time for each kind of proof: the handlers of `langgraph.json` where there
are any, else API keys and JSON Web Tokens as the settings say; with none of these everybody is the
owner `local`, which only serves on loopback.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from fastapi import Depends
from langgraph_sdk import Auth
from starlette.requests import HTTPConnection

from clew.api.handlers import Handlers
from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.runtime import config, errors, keys
from clew.runtime.sessions import Filter
from clew.runtime.settings import Settings
from clew.runtime.tokens import Tokens

Role = Literal["owner", "admin", "service"]

# An admin may act for an owner of the same tenant, by name; the service for any `tenant/owner`.
ACT_FOR = "x-clew-owner"


@dataclass(frozen=True, slots=True)
class Caller:
    """`principal` is what it may reach in the database, `owner_id` who owns what it makes."""

    principal: Principal
    owner_id: int
    tenant: str
    owner: str
    role: Role = "owner"
    user: Mapping[str, Any] = field(default_factory=dict[str, Any])
    permissions: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    handlers: Handlers | None = field(default=None, repr=False)

    @property
    def actor(self) -> str:
        """As the audit log names it."""
        return f"{self.role}:{self.tenant}/{self.user.get('identity') or self.owner}"

    def shown(self) -> dict[str, Any] | None:
        """The caller as graphs see it in their config; nothing where nobody is told apart."""
        return dict(self.user) or None

    async def authorize(self, resource: str, action: str, value: Any) -> Filter | None:
        """What rows must meet to be part of this action; Forbidden where it is refused outright."""
        if not keys.allows(self.scopes, resource, action):
            raise errors.Forbidden(f"this key is not allowed to {action} {resource}")
        if self.handlers is None:
            return None
        return await self.handlers.authorize(self.user, resource, action, value)

    def require(self, *roles: Role) -> None:
        if self.role not in roles:
            raise errors.Forbidden(f"this is for the role {' or '.join(roles)}")


class Gate:
    """Tells callers apart. Made by `open`, one for a process."""

    def __init__(
        self, settings: Settings, db: Database, tokens: Tokens | None, handlers: Handlers | None
    ) -> None:
        self._settings = settings
        self._db = db
        self._tokens = tokens
        self._handlers = handlers

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: Settings,
        db: Database,
        custom: Auth | None = None,
        cache: config.AuthCache | None = None,
    ) -> AsyncGenerator["Gate"]:
        """`custom` is the loaded Auth object of langgraph.json."""
        handlers = Handlers(custom, cache) if custom is not None else None
        if settings.jwt_secret is None and settings.jwt_jwks_url is None:
            yield cls(settings, db, None, handlers)
            return
        async with Tokens.open(settings) as tokens:
            yield cls(settings, db, tokens, handlers)

    async def admit(self, connection: HTTPConnection) -> Caller:
        caller = await self._recognise(connection)
        if (wanted := connection.headers.get(ACT_FOR)) is not None:
            caller = await self._act_for(caller, wanted)
        return caller

    async def _recognise(self, connection: HTTPConnection) -> Caller:
        if self._handlers is not None:
            user = await self._handlers.authenticate(connection)
            return await self._caller(user, self._handlers)
        if not self._settings.authenticates:
            owner_id = await self._db.owner("default", "local")
            return Caller(Principal.owner(owner_id), owner_id, "default", "local")
        scheme, _, bearer = connection.headers.get("authorization", "").partition(" ")
        bearer = bearer.strip() if scheme.lower() == "bearer" else ""
        key = connection.headers.get("x-api-key") or (
            bearer if bearer.startswith(keys.PREFIX) else ""
        )
        if key and self._settings.api_keys:
            return self._holder(await keys.verify(self._db, key))
        if bearer and self._tokens is not None:
            return await self._bearer(await self._tokens.verify(bearer))
        ways = [
            *(["an API key in x-api-key"] if self._settings.api_keys else []),
            *(["a bearer token"] if self._tokens is not None else []),
        ]
        raise errors.Unauthorized(f"send {' or '.join(ways)}")

    async def _bearer(self, claims: dict[str, Any]) -> Caller:
        """`sub` is the owner; `tenant`, `clew_role` and `clew_scopes` are read where given. Scopes
        of other systems are only passed on to graphs."""
        given = claims.get("scope", claims.get("scp", claims.get("permissions")))
        permissions = given.split() if isinstance(given, str) else list(given or ())
        user = {
            **claims,
            "identity": str(claims["sub"]),
            "is_authenticated": True,
            "display_name": str(claims.get("name") or claims["sub"]),
            "permissions": permissions,
        }
        return await self._caller(user, None)

    async def _caller(self, user: Mapping[str, Any], handlers: Handlers | None) -> Caller:
        tenant = named(user.get("tenant") or "default")
        owner = named(user.get("clew_owner") or user["identity"])
        role: Role = user.get("clew_role") or "owner"
        if role not in ("owner", "admin", "service"):
            raise errors.Forbidden(f"{role!r} is not a role")
        owner_id = await self._db.owner(tenant, owner)
        return Caller(
            reach(role, owner_id),
            owner_id,
            tenant,
            owner,
            role,
            user,
            tuple(user["permissions"]),
            tuple(user.get("clew_scopes") or ()),
            handlers,
        )

    def _holder(self, holder: keys.Holder) -> Caller:
        key = holder.key
        user = {
            "identity": holder.owner,
            "is_authenticated": True,
            "display_name": key.name,
            "permissions": key.scopes,
        }
        return Caller(
            reach(key.role, key.owner_id),
            key.owner_id,
            holder.tenant,
            holder.owner,
            key.role,
            user,
            tuple(key.scopes),
            tuple(key.scopes),
        )

    async def _act_for(self, caller: Caller, wanted: str) -> Caller:
        caller.require("admin", "service")
        tenant, owner = caller.tenant, wanted
        if caller.role == "service" and "/" in wanted:
            tenant, _, owner = wanted.partition("/")
        owner_id = await self._db.owner(named(tenant), named(owner))
        # From here on it reaches no further than the owner it stands for.
        return replace(
            caller,
            principal=Principal.owner(owner_id),
            owner_id=owner_id,
            tenant=tenant,
            owner=owner,
        )


def named(value: Any) -> str:
    """The name of an owner or tenant, as it can be stored."""
    if not isinstance(value, str) or not 0 < len(value) <= 256 or "\x00" in value:
        raise errors.Unauthorized("the name of the caller is not one that can be kept")
    return value.encode("utf-8", "replace").decode()


def reach(role: Role, owner_id: int) -> Principal:
    if role == "service":
        return SERVICE
    return Principal.tenant_of(owner_id) if role == "admin" else Principal.owner(owner_id)


async def admit(connection: HTTPConnection) -> Caller:
    """The dependency of every route; `app.state.gate` is set by whoever builds the app."""
    gate: Gate = connection.app.state.gate
    return await gate.admit(connection)


Who = Annotated[Caller, Depends(admit)]
