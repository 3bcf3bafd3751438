"""Every assistant as a tool of the Model Context Protocol: streamable HTTP, stateless, JSON."""

import json
from typing import Any, cast

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from clew.api import admission, health, intake, outcome, problems
from clew.api.auth import Caller, Who
from clew.api.deps import Clew, Parts
from clew.api.reply import Reply
from clew.api.schema import Json, RunCreate
from clew.runtime import assistants, errors, graphs
from clew.runtime.assistants import Assistant

routes = APIRouter(prefix="/mcp", tags=["mcp"])

VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
PAGE = 100

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602
UNSUPPORTED_VERSION = -32022


class Fault(Exception):
    """An error of the protocol itself, as opposed to one of a tool."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@routes.post("")
async def post(clew: Clew, who: Who, request: Request) -> Response:
    accepted = request.headers.get("accept", "*/*")
    if not any(kind in accepted for kind in ("application/json", "text/event-stream", "*/*")):
        text = "Accept header must include application/json or text/event-stream"
        return Reply({"error": text}, 400)
    try:
        body = await request.json()
    except ValueError:
        return Reply(_error(None, PARSE_ERROR, "Parse error"), 400)
    if isinstance(body, dict) and "method" not in body and {"result", "error"} & body.keys():
        return Response(status_code=202)  # an answer, though nothing was asked
    if not isinstance(body, dict) or not isinstance(body.get("method"), str):
        return Reply(_error(None, INVALID_REQUEST, "Invalid request"), 400)
    message = cast("Json", body)
    spoken = request.headers.get("mcp-protocol-version")
    if spoken is not None and spoken not in VERSIONS:
        # Of newer clients this is the first question; the answer sends them to `initialize`.
        error = _error(message.get("id"), UNSUPPORTED_VERSION, "Unsupported protocol version")
        error["error"]["data"] = {"supported": list(VERSIONS), "requested": spoken}
        return Reply(error, 400)
    if "id" not in message:
        return Response(status_code=202)  # a notification: nothing to answer
    try:
        run = METHODS.get(message["method"])
        if run is None:
            raise Fault(METHOD_NOT_FOUND, f"Method not found: {message['method']}")
        params: Any = message.get("params") or {}
        if not isinstance(params, dict):
            raise Fault(INVALID_PARAMS, "params must be an object")
        result = await run(clew, who, cast("Json", params))
    except Fault as error:
        return Reply(_error(message["id"], error.code, str(error)))
    return Reply({"jsonrpc": "2.0", "id": message["id"], "result": result})


@routes.get("", include_in_schema=False)
async def get(who: Who) -> Response:
    return Response(status_code=405, headers={"Allow": "POST"})  # no stream of the server's own


@routes.delete("", include_in_schema=False)
async def delete(who: Who) -> Response:
    raise errors.NotFound("there are no MCP sessions: every request stands alone")


def _error(number: Any, code: int, message: str) -> Json:
    return {"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": message}}


async def initialize(_clew: Parts, _who: Caller, params: Json) -> Json:
    asked = params.get("protocolVersion")
    return {
        "protocolVersion": asked if asked in VERSIONS else VERSIONS[-1],
        "capabilities": {"tools": {"listChanged": False}},
        "serverInfo": {"name": "Clew", "version": health.VERSION},
    }


async def ping(_clew: Parts, _who: Caller, _params: Json) -> Json:
    return {}


async def list_tools(clew: Parts, who: Caller, params: Json) -> Json:
    cursor = params.get("cursor") or "0"
    if not (isinstance(cursor, str) and cursor.isascii() and cursor.isdigit() and len(cursor) < 10):
        raise Fault(INVALID_PARAMS, "Invalid cursor")
    allowed = await who.authorize("assistants", "search", {})
    page = await assistants.search(
        clew.db,
        who.principal,
        sort_order="asc",
        limit=PAGE,
        offset=int(cursor),
        allowed=allowed,
    )
    tools = [await _tool(clew, item) for item in page.items]
    more = {"nextCursor": str(int(cursor) + PAGE)} if page.more else {}
    return {"tools": tools, **more}


async def _tool(clew: Parts, item: Assistant) -> Json:
    async with clew.graphs.open(
        item.graph_id,
        config={},
        checkpointer=None,
        store=clew.store,
        access_context="assistants.read",
    ) as graph:
        schema = graphs.schemas(graph)["input_schema"]
    return {
        "name": item.name,
        "title": item.name,
        "description": item.description or f"Tool based on the {item.name} assistant",
        "inputSchema": _spoken({"type": "object", **(schema or {})}),
        "annotations": {"title": item.name},
    }


def _spoken(schema: Json) -> Json:
    """A schema that a model can fill in: a list of messages is what there is to say, as text."""
    properties: Json = schema.get("properties") or {}
    if "messages" not in properties:
        return schema
    said = {"type": "string", "title": "Messages", "description": "What to say to the agent."}
    shown = {**schema, "properties": {**properties, "messages": said}}
    if "#/$defs/" not in json.dumps(shown["properties"]):
        shown.pop("$defs", None)
    return shown


async def call(clew: Parts, who: Caller, params: Json) -> Json:
    chosen = await _named(clew, who, str(params.get("name")))
    try:
        body = RunCreate.model_validate(
            {"assistant_id": chosen.assistant_id, "input": params.get("arguments") or {}}
        )
    except ValidationError as error:
        raise Fault(INVALID_PARAMS, problems.sentences(error)) from error
    try:
        run = await intake.start(clew, who, None, body, None)
    except errors.ClewError as error:
        return _told(str(error), failed=True)
    admission.leave()
    result = json.loads(await outcome.of(clew, who, run))
    if "__error__" in result:
        fault = result["__error__"]
        return _told(f"{fault['error']}: {fault['message']}", failed=True)
    text = json.dumps(result, ensure_ascii=False)
    return {**_told(text), "structuredContent": result}


def _told(text: str, *, failed: bool = False) -> Json:
    return {"content": [{"type": "text", "text": text}], "isError": failed}


async def _named(clew: Parts, who: Caller, name: str) -> Assistant:
    allowed = await who.authorize("assistants", "search", {})
    page = await assistants.search(clew.db, who.principal, name=name, limit=1000, allowed=allowed)
    found = next((item for item in page.items if item.name == name), None)
    if found is None:
        raise Fault(INVALID_PARAMS, f"Unknown tool: {name}")
    return found


METHODS = {
    "initialize": initialize,
    "ping": ping,
    "tools/list": list_tools,
    "tools/call": call,
}
