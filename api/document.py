"""The OpenAPI document, with what the sessions face answers.

Routes encode their answers themselves, so FastAPI cannot tell. The client's routes can: each says
what it gets, and so clients and document cannot drift apart. `x-clew-calls` names the client's
methods for an operation and how each reads the answer, for those who generate clients.
"""

from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, cast, get_args, get_type_hints

from fastapi import FastAPI
from langgraph_sdk.schema import StreamPart
from pydantic import TypeAdapter

from clew.api import client, client_calls

Json = dict[str, Any]

_REF = "#/components/schemas/{model}"


def extend(app: FastAPI) -> None:
    """Let the application's document tell these things too."""
    plain = app.openapi

    def openapi() -> Json:
        document = plain()
        if "x-clew-calls" not in document:
            answers(document)
        return document

    app.openapi = openapi


def answers(document: Json) -> None:
    """Write into a document what its operations answer, as far as the client knows them."""
    document["x-clew-calls"] = 1  # the version of what `x-clew-calls` says
    found = [known for known in known() if known[1].path in document["paths"]]
    adapters = {n: TypeAdapter(kind) for n, (_, _, kind) in enumerate(found) if _is_json(kind)}
    schemas, shared = TypeAdapter.json_schemas(
        [(n, "serialization", adapter) for n, adapter in adapters.items()], ref_template=_REF
    )
    components = document.setdefault("components", {}).setdefault("schemas", {})
    taken = components.keys() & shared.get("$defs", {}).keys()
    if taken:
        raise ValueError(f"{taken}: an answer must not be named as a request is")
    components.update(shared.get("$defs", {}))
    for n, (name, route, kind) in enumerate(found):
        operation = document["paths"][route.path].get(route.method.lower())
        if operation is None:
            continue
        call: Json = {"name": name, "answer": _reading(kind)}
        if route.fixed:
            call["fixed"] = dict(route.fixed)
        if getattr(route, "endless", False):
            call["endless"] = True
        operation.setdefault("x-clew-calls", []).append(call)
        media, schema = _content(kind, schemas.get((n, "serialization")))
        for status, response in operation["responses"].items():
            if media is None or not str(status).startswith("2"):
                continue
            content = response.setdefault("content", {})
            if content.get("application/json") == {"schema": {}}:
                del content["application/json"]
            content[media] = {"schema": schema}


def known() -> Iterator[tuple[str, client_calls.Route[Any], Any]]:
    """Every route of the client: its name, itself, and the type of its answer."""
    for face, kind in client.FACES.items():
        for route in client_calls.routes(kind):
            [answer] = get_args(get_type_hints(route.described)["return"])
            yield f"{face}.{route.name.rstrip('_')}", route, answer


def _reading(kind: object) -> str:
    if kind is StreamPart:
        return "events"
    if kind is Path:
        return "file"
    return "none" if kind is NoneType else "json"


def _is_json(kind: object) -> bool:
    return _reading(kind) == "json"


def _content(kind: object, schema: Any) -> tuple[str | None, Json]:
    match _reading(kind):
        case "events":
            return "text/event-stream", {"type": "string"}
        case "file":
            return "application/x-ndjson", {"type": "string", "format": "binary"}
        case "json":
            return "application/json", cast("Json", schema)
        case _:
            return None, {}
