"""A user's own Starlette or FastAPI app around Clew: its routes come first, its middleware wraps
everything, its lifespan lasts as long as the server."""

import re
from collections.abc import Mapping
from contextlib import AsyncExitStack
from fnmatch import translate

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from clew.api import problems
from clew.api.auth import Gate
from clew.checkpointing.errors import CheckpointError
from clew.checkpointing.postgres import TROUBLE
from clew.runtime import errors, imports
from clew.runtime.config import Config, Headers, Http

# What a run's config may never be given, whatever langgraph.json says.
_NEVER = {"x-api-key", "x-service-key", "x-tenant-id", "authorization"}


def load(config: Config) -> Starlette | None:
    """The app that `http.app` names."""
    http = config.http or Http()
    if http.app is None:
        if http.enable_custom_route_auth:
            raise errors.ConfigError("http.enable_custom_route_auth needs http.app")
        return None
    if http.middleware_order == "auth_first":
        raise errors.ConfigError(
            "http.middleware_order: auth_first is not supported: Clew authenticates in its routes, "
            "after the middleware of your app"
        )
    _, found = imports.load(http.app, config.folders)
    if not isinstance(found, Starlette):
        raise errors.ConfigError(f"http.app: {http.app} is not a Starlette or FastAPI app")
    return found


async def around(
    stack: AsyncExitStack, own: Starlette, clew: FastAPI, gate: Gate, *, guarded: bool
) -> ASGIApp:
    """The user's app with Clew behind its routes."""
    await stack.enter_async_context(own.router.lifespan_context(own))
    theirs = Guarded(own, gate) if guarded else own
    own.mount("/", clew)
    return theirs


class Guarded:
    """Lets nobody unknown to the user's own routes; Clew's look for themselves."""

    def __init__(self, own: Starlette, gate: Gate) -> None:
        self._own, self._routes, self._gate = own, list(own.routes), gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and any(
            route.matches(scope)[0] is not Match.NONE for route in self._routes
        ):
            try:
                await self._gate.admit(HTTPConnection(scope))
            except (errors.ClewError, CheckpointError, TROUBLE) as error:
                refusal: Response = problems.of(error)
                await refusal(scope, receive, send)
                return
        await self._own(scope, receive, send)


def headers(chosen: Headers | None, given: Mapping[str, str]) -> dict[str, str]:
    """The request headers that langgraph.json hands on to graphs."""
    if chosen is None:
        return {}
    includes = [re.compile(translate(name.lower())) for name in chosen.includes or ()]
    excludes = [re.compile(translate(name.lower())) for name in chosen.excludes or ()]
    return {
        name: value
        for name, value in given.items()
        if name not in _NEVER
        and any(pattern.match(name) for pattern in includes)
        and not any(pattern.match(name) for pattern in excludes)
    }
