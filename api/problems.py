"""Errors as HTTP: the only place where an error meets a status code.

The body is problem+json (RFC 9457) with `detail` as one string, which is what the official
clients show, and `code`, which is stable and meant for programs.
"""

import json
import logging
from datetime import timedelta
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from clew.checkpointing import errors as below
from clew.checkpointing.postgres import TROUBLE, passes
from clew.runtime import errors

log = logging.getLogger(__name__)

# Looked up along the MRO, so a new leaf needs a line only where it differs from its parent.
STATUS: dict[type[BaseException], int] = {
    errors.ClewError: 500,
    errors.Invalid: 422,
    errors.BadRequest: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Gone: 410,
    errors.TooLarge: 413,
    errors.Limited: 429,
    errors.Unavailable: 503,
    errors.Stale: 412,
    below.CheckpointError: 500,
    below.DatabaseUnreachable: 503,
    below.UnknownThread: 404,
    below.UnknownCheckpoint: 404,
    below.UnknownLabel: 404,
    below.ThreadExists: 409,
    below.FenceLost: 409,
    below.NothingToUndo: 409,
    below.DeltaInUse: 409,
    below.CheckpointInUse: 409,
    below.LabelTaken: 409,
    below.InvalidId: 422,
    below.BundleError: 422,
    below.StockError: 422,
}

# What is refused while a body is read has to come as an error of Starlette's: routes that parse a
# body hand on no other.
_OURS = {413: errors.TooLarge.code, 503: errors.Unavailable.code}

SOON = timedelta(seconds=1)  # to try again, where the database is away or has too much to do

# What the OpenAPI document says of every error of every route.
DOCUMENTED: dict[int | str, dict[str, Any]] = {
    status: {
        "description": about,
        "content": {
            "application/problem+json": {
                "schema": {
                    "type": "object",
                    "required": ["type", "title", "status", "code", "detail"],
                    "properties": {
                        "type": {"type": "string"},
                        "title": {"type": "string"},
                        "status": {"type": "integer"},
                        "code": {"type": "string", "description": "Stable, for programs."},
                        "detail": {"type": "string", "description": "For people."},
                    },
                }
            }
        },
    }
    for status, about in (("4XX", "Refused"), ("5XX", "The server's own fault"))
}


def status_of(error: BaseException) -> int:
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def response(
    status: int,
    detail: str,
    *,
    code: str | None = None,
    headers: dict[str, str] | None = None,
    **facts: object,
) -> Response:
    phrase = HTTPStatus(status).phrase
    body = {
        "type": "about:blank",
        "title": phrase,
        "status": status,
        "code": code or phrase.lower().replace(" ", "_"),
        "detail": detail,
        **facts,
    }
    return Response(
        json.dumps(body, ensure_ascii=False, default=str).encode("utf-8", "replace"),
        status,
        headers,
        "application/problem+json",
    )


def of(error: BaseException) -> Response:
    """The response to an error of ours."""
    if passes(error):
        log.warning("the database failed a request: %s", error)
        # Its own words may name hosts and statements.
        error = below.DatabaseUnreachable("the database did not answer; try again")
    status = status_of(error)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("request failed", exc_info=error)
        code = getattr(error, "code", "internal")
        return response(status, "Internal Server Error", code=code)
    headers: dict[str, str] = {}
    away = isinstance(error, below.DatabaseUnreachable)
    retry_after: timedelta | None = SOON if away else getattr(error, "retry_after", None)
    if retry_after is not None:
        headers["Retry-After"] = str(max(1, round(retry_after.total_seconds())))
    facts: dict[str, Any] = getattr(error, "facts", {})
    code = getattr(error, "code", "internal")
    return response(status, str(error), code=code, headers=headers, **facts)


def install(app: FastAPI) -> None:
    """Every error that leaves a route of this app leaves it through here."""

    async def ours(_request: Request, error: Exception) -> Response:
        return of(error)

    async def http(_request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        headers = dict(error.headers or {})
        code = _OURS.get(error.status_code)
        return response(error.status_code, str(error.detail), code=code, headers=headers)

    async def validation(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return response(422, describe(error), code=errors.Invalid.code)

    app.add_exception_handler(errors.ClewError, ours)
    app.add_exception_handler(below.CheckpointError, ours)
    app.add_exception_handler(TROUBLE, ours)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(Exception, ours)


# What is said of a body that is empty, or no object.
_NO_BODY = {"missing", "model_attributes_type", "dict_type", "model_type"}


def sentences(error: ValidationError) -> str:
    """The same of a body that another protocol wrapped."""
    inside = [{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()]
    return describe(RequestValidationError(inside))


def describe(error: RequestValidationError) -> str:
    """A validation error as sentences that name the field, without echoing what was sent."""
    faults: list[str] = []
    for fault in error.errors():
        where = [str(part) for part in fault["loc"]]
        if fault["type"] == "json_invalid" or (where == ["body"] and fault["type"] in _NO_BODY):
            return "Invalid JSON in request body"
        if where[0] == "path":
            name = where[-1].removesuffix("_id")
            return f"Invalid {name} ID: must be a UUID"
        named = next((part for part in reversed(where) if part.endswith(("_id", "_ids"))), None)
        if named and fault["type"].startswith("uuid"):
            return f"Invalid {named.rstrip('s').removesuffix('_id')} ID: must be a UUID"
        message = fault["msg"].removeprefix("Value error, ")
        faults.append(f"{'.'.join(where[1:])}: {message}" if where[1:] else message)
    return "; ".join(faults)
