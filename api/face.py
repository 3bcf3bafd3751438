"""The routes of the application, and what is around them."""

from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from clew.api import (
    a2a,
    admission,
    assistants,
    bounded,
    bundles,
    checkpoints,
    commands,
    copies,
    crons,
    document,
    happenings,
    health,
    inbox,
    mcp,
    metrics,
    owners,
    problems,
    retention,
    rewinding,
    runs,
    session_messages,
    session_runs,
    sessions,
    shares,
    sockets,
    store,
    templates,
    threads,
    threadstate,
    webhooks,
)
from clew.api.auth import Gate
from clew.api.deps import Parts
from clew.runtime.config import Cors, Http, OpenAPI
from clew.runtime.settings import Settings

# `location` lets the official JavaScript client reconnect across origins, `x-clew-ignored` lets
# a developer see in a browser what was not understood.
EXPOSED = (
    "x-pagination-total",
    "x-pagination-next",
    "content-location",
    "location",
    "x-clew-ignored",
)


def application(parts: Parts, gate: Gate) -> FastAPI:
    settings, config = parts.settings, parts.config
    http = config.http or Http()
    app = FastAPI(
        title="Clew",
        version=health.VERSION,
        docs_url=None if http.disable_meta else "/docs",
        redoc_url=None,
        root_path=settings.mount_prefix or http.mount_prefix or "",
        responses=problems.DOCUMENTED,
    )
    app.state.parts, app.state.gate, app.state.leaving = parts, gate, parts.leaving
    problems.install(app)
    app.add_middleware(bounded.Bounded, limit=settings.max_body)
    app.add_middleware(admission.Admission, most=settings.max_requests)
    app.add_middleware(CORSMiddleware, **cors(settings, http.cors))
    app.add_middleware(metrics.Counted, telemetry=parts.telemetry)
    app.include_router(health.routes)
    if settings.metrics and not http.disable_meta:
        app.include_router(metrics.routes)
    if not http.disable_assistants:
        app.include_router(assistants.routes)
    if not http.disable_threads:
        app.include_router(threads.routes)
        app.include_router(threadstate.routes)
        app.include_router(commands.routes)
        app.include_router(sockets.routes)
        app.include_router(copies.routes)
    if not http.disable_runs:
        app.include_router(crons.routes)
        app.include_router(runs.routes)
    if not http.disable_store:
        app.include_router(store.routes)
    app.include_router(happenings.routes)
    app.include_router(shares.given)
    app.include_router(sessions.routes)
    app.include_router(session_messages.routes)
    app.include_router(session_runs.routes)
    app.include_router(shares.routes)
    for part in (checkpoints, rewinding, bundles, retention):
        app.include_router(part.routes)
    app.include_router(inbox.routes)
    app.include_router(templates.routes)
    app.include_router(webhooks.routes)
    app.include_router(owners.routes)
    document.extend(app)
    if config.auth and config.auth.openapi:
        _document(app, config.auth.openapi)
    if not http.disable_mcp:
        app.include_router(mcp.routes)
    if not http.disable_a2a:
        app.include_router(a2a.routes)
    return app


def cors(settings: Settings, chosen: Cors | None) -> dict[str, Any]:
    """A `cors` object in langgraph.json replaces the defaults, as it does on the stock server."""
    if chosen is not None:
        return chosen.model_dump(exclude_none=True)
    return {
        "allow_origins": settings.cors_allow_origins,
        "allow_methods": ("*",),
        "allow_headers": ("*",),
        "expose_headers": EXPOSED,
        "allow_private_network": True,
        "max_age": 600,
    }


def _document(app: FastAPI, chosen: OpenAPI) -> None:
    """Add what `auth.openapi` of langgraph.json says to the served document."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        document = plain()
        schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes.update(chosen.security_schemes)
        if chosen.security:
            document["security"] = [dict(item) for item in chosen.security]
        document["paths"].update(chosen.paths)
        return document

    app.openapi = openapi
