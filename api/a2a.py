"""Assistants as agents of the A2A protocol: JSON-RPC, with streams as server-sent events.

A context is a thread, a task one run of it (`<thread_id>:<run_id>`). An agent that stops to ask a
human leaves its task in `input-required`; the next message of that context is the answer, which
is a task of its own. Nothing is pushed: whoever lost a stream subscribes to the task again.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from clew.api import admission, intake, outcome, problems, sse
from clew.api.a2a_words import METHODS, State, Unreadable, Words, text_of
from clew.api.auth import Caller, Who
from clew.api.deps import Clew, Parts, reach
from clew.api.reply import Reply
from clew.api.schema import Json, RunCreate
from clew.checkpointing.errors import CheckpointError
from clew.runtime import errors, graphs, ids, runs, turns, wire
from clew.runtime.assistants import Assistant
from clew.runtime.events import Event
from clew.runtime.runs import Run

routes = APIRouter(tags=["a2a"])

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND = -32700, -32600, -32601
INVALID_PARAMS, INTERNAL, TASK_NOT_FOUND, NOT_CANCELABLE = -32602, -32603, -32001, -32002
NO_PUSHING, UNSUPPORTED, CONTENT_TYPE = -32003, -32004, -32005
PAGE = 50
Handler = Callable[[Parts, Caller, Assistant, Json, Words], Awaitable[Json]]


class Fault(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@routes.get("/.well-known/agent-card.json")
async def card_by_query(
    clew: Clew, who: Who, request: Request, assistant_id: str | None = None
) -> Reply:
    if assistant_id is None:
        text = "Missing required query parameter: assistant_id"
        return Reply({"error": {"code": INVALID_PARAMS, "message": text}}, 400)
    return await card(clew, who, assistant_id, request)


@routes.get("/a2a/{assistant_id}/.well-known/agent-card.json")
async def card(clew: Clew, who: Who, assistant_id: str, request: Request) -> Reply:
    allowed = await who.authorize("assistants", "read", {"assistant_id": assistant_id})
    chosen = await turns.assistant(
        clew.db, who.principal, clew.graphs, assistant_id, allowed=allowed
    )
    return Reply(_card(chosen, f"{str(request.base_url).rstrip('/')}/a2a/{assistant_id}"))


def _card(chosen: Assistant, url: str) -> Json:
    about = chosen.description or f"The {chosen.name} assistant"
    skill = {"id": chosen.graph_id, "name": chosen.name, "description": about, "tags": ["chat"]}
    return {
        "name": chosen.name,
        "description": about,
        "version": str(chosen.version),
        "capabilities": {"streaming": True, "pushNotifications": False},
        "defaultInputModes": ["text/plain", "application/json"],
        "defaultOutputModes": ["text/plain"],
        "skills": [skill],
        "provider": {"organization": "Clew", "url": url},
        "supportedInterfaces": [
            {"url": url, "protocolBinding": "JSONRPC", "protocolVersion": version}
            for version in ("1.0", "0.3")
        ],
        # What clients of 0.3 look for.
        "protocolVersion": "0.3.0",
        "url": url,
        "preferredTransport": "JSONRPC",
    }


@routes.post("/a2a/{assistant_id}")
async def post(clew: Clew, who: Who, assistant_id: str, request: Request) -> Response:
    try:
        body = await request.json()
    except ValueError:
        return Reply(_error(None, PARSE_ERROR, "Parse error"))
    if not isinstance(body, dict) or not isinstance(body.get("method"), str):
        return Reply(_error(None, INVALID_REQUEST, "Invalid request"))
    asked = cast("Json", body)
    number, name = asked.get("id"), str(asked["method"])
    words = Words(newer=name not in METHODS)
    method = METHODS.get(name, name)
    given: Any = asked.get("params") or {}
    try:
        if not isinstance(given, dict):
            raise Fault(INVALID_PARAMS, "params must be an object")
        params = cast("Json", given)
        chosen = await turns.assistant(clew.db, who.principal, clew.graphs, assistant_id)
        if method == "SendStreamingMessage":
            run = await _start(clew, who, chosen, params)
            return sse.stream(_told(clew, who, run, words, number, "submitted"))
        if method == "SubscribeToTask":
            run, state = await _under_way(clew, who, params)
            return sse.stream(_told(clew, who, run, words, number, state))
        if method == "GetExtendedAgentCard":
            return Reply(_result(number, _card(chosen, str(request.url))))
        handle = _handler(method, name)
        return Reply(_result(number, await handle(clew, who, chosen, params, words)))
    except Fault as error:
        return Reply(_error(number, error.code, str(error)))
    except (errors.ClewError, CheckpointError) as error:
        internal = problems.status_of(error) >= 500
        text = "Internal error" if internal else str(error)
        return Reply(_error(number, INTERNAL if internal else INVALID_PARAMS, text))


def _result(number: Any, result: Any) -> Json:
    return {"jsonrpc": "2.0", "id": number, "result": result}


def _error(number: Any, code: int, message: str) -> Json:
    return {"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": message}}


def _handler(method: str, name: str) -> Handler:
    if method in PUSHING:
        raise Fault(NO_PUSHING, "Push notifications are not supported")
    if method not in HANDLERS:
        raise Fault(METHOD_NOT_FOUND, f"Method not found: {name}")
    return HANDLERS[method]


async def _start(clew: Parts, who: Caller, chosen: Assistant, params: Json) -> Run:
    message = params.get("message")
    if not isinstance(message, dict):
        raise Fault(INVALID_PARAMS, "params.message is required")
    given = cast("Json", message)
    try:
        text = text_of(given)
        context = given.get("contextId") or (given.get("taskId") or "").partition(":")[0]
        thread_id = str(UUID(context)) if context else ids.mint()
    except Unreadable as error:
        raise Fault(CONTENT_TYPE, str(error)) from error
    except ValueError as error:
        raise Fault(INVALID_PARAMS, "contextId must be a UUID") from error
    if given.get("taskId"):
        await _open_to_messages(clew, who, given["taskId"], thread_id)
    body: Json = {"assistant_id": chosen.assistant_id, "if_not_exists": "create"}
    body["stream_mode"] = ["values", "messages-tuple"]
    if context and await _waits(clew, who, thread_id):
        body["command"] = {"resume": text}
    else:
        await _takes_messages(clew, chosen)
        user = {"role": "user", "content": text, "id": given.get("messageId") or ids.mint()}
        body["input"] = {"messages": [user]}
    try:
        return await intake.start(clew, who, thread_id, RunCreate.model_validate(body), None)
    except ValidationError as error:
        raise Fault(INVALID_PARAMS, problems.sentences(error)) from error


async def _open_to_messages(clew: Parts, who: Caller, task_id: Any, thread_id: str) -> None:
    """A message may name the task it goes on with: one of this context that asked for it."""
    run = await _find(clew, who, {"id": task_id})
    if run.thread_id != thread_id:
        raise Fault(INVALID_PARAMS, "the task is not of this context")
    if run.over and not await _waits(clew, who, thread_id):
        raise Fault(UNSUPPORTED, "The task is over: send the message without its taskId")


async def _waits(clew: Parts, who: Caller, thread_id: str) -> bool:
    try:
        return (await reach(clew, who, thread_id)).status == "interrupted"
    except errors.NotFound:
        return False


async def _takes_messages(clew: Parts, chosen: Assistant) -> None:
    async with clew.graphs.open(
        chosen.graph_id,
        config={},
        checkpointer=None,
        store=clew.store,
        access_context="assistants.read",
    ) as graph:
        schema = graphs.schemas(graph)["input_schema"] or {}
    if "messages" not in schema.get("properties", {}):
        raise Fault(INVALID_PARAMS, f"{chosen.name} takes no messages, so it cannot serve A2A")


def _task_id(run: Run) -> str:
    return f"{run.thread_id}:{run.run_id}"


async def _find(clew: Parts, who: Caller, params: Json) -> Run:
    thread_id, _, run_id = str(params.get("id") or "").partition(":")
    try:
        await reach(clew, who, ids.check(thread_id))
        return await runs.get(clew.db, who.principal, thread_id, ids.check(run_id, "run"))
    except (errors.NotFound, errors.Invalid):
        raise Fault(TASK_NOT_FOUND, "Task not found") from None


async def _under_way(clew: Parts, who: Caller, params: Json) -> tuple[Run, State]:
    run = await _find(clew, who, params)
    if run.over:
        raise Fault(UNSUPPORTED, "The task is over: there is nothing to subscribe to")
    return run, "submitted" if run.status == "pending" else "working"


async def _task(clew: Parts, who: Caller, run: Run, words: Words) -> Json:
    """The task as it is now."""
    if run.status in ("pending", "running"):
        state: State = "submitted" if run.status == "pending" else "working"
        return words.task(_task_id(run), run.thread_id, state)
    state, text = ended(run, json.loads(await outcome.of(clew, who, run)))
    return words.task(_task_id(run), run.thread_id, state, text)


def ended(run: Run, result: Json) -> tuple[State, str | None]:
    """What a finished run comes to, and what it has to say."""
    if run.status == "interrupted":
        return "canceled", None
    if "__error__" in result:
        return "failed", f"{result['__error__']['error']}: {result['__error__']['message']}"
    if result.get("__interrupt__"):
        asked = [item.get("value") for item in result["__interrupt__"]]
        said = asked[0] if len(asked) == 1 else asked
        text = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
        return "input-required", text
    return "completed", spoken(result)


def spoken(values: Json) -> str:
    """The text of the last message of a state."""
    messages = values.get("messages")
    if not isinstance(messages, list) or not messages:
        return json.dumps(values, ensure_ascii=False)
    return plain(cast("Json", messages[-1]).get("content"))


def plain(content: Any) -> str:
    if isinstance(content, str):
        return content
    blocks = cast("list[Any]", content) if isinstance(content, list) else []
    return "".join(block.get("text", "") for block in blocks if isinstance(block, dict))


async def send(clew: Parts, who: Caller, chosen: Assistant, params: Json, words: Words) -> Json:
    run = await _start(clew, who, chosen, params)
    how: Json = params.get("configuration") or {}
    if how.get("returnImmediately") or how.get("blocking") is False:
        return words.result("task", words.task(_task_id(run), run.thread_id, "submitted"))
    admission.leave()
    await outcome.of(clew, who, run)
    done = await runs.get(clew.db, who.principal, run.thread_id, run.run_id)
    return words.result("task", await _task(clew, who, done, words))


async def get(clew: Parts, who: Caller, _chosen: Assistant, params: Json, words: Words) -> Json:
    return await _task(clew, who, await _find(clew, who, params), words)


async def cancel(clew: Parts, who: Caller, _chosen: Assistant, params: Json, words: Words) -> Json:
    run = await _find(clew, who, params)
    if run.status not in ("pending", "running"):
        raise Fault(NOT_CANCELABLE, "Task cannot be canceled")
    admission.leave()
    await clew.worker.cancel(who.principal, run.thread_id, run.run_id, wait=outcome.PATIENCE)
    return words.task(_task_id(run), run.thread_id, "canceled")


def _number(params: Json, name: str, default: int, most: int) -> int:
    given = str(params.get(name) or default)
    if not given.isascii() or not given.isdigit() or len(given) > 10:
        raise Fault(INVALID_PARAMS, f"{name} must be a number")
    return min(int(given), most)


async def list_(clew: Parts, who: Caller, _chosen: Assistant, params: Json, words: Words) -> Json:
    context = str(params.get("contextId") or "")
    if not context:
        raise Fault(INVALID_PARAMS, "contextId is required")
    await reach(clew, who, ids.check(context))
    offset = _number(params, "pageToken", 0, 2**31 - 1)
    size = _number(params, "pageSize", PAGE, PAGE)
    found = await runs.list_(clew.db, who.principal, context, limit=size + 1, offset=offset)
    tasks = [await _task(clew, who, run, words) for run in found[:size]]
    more = str(offset + size) if len(found) > size else ""
    total = await runs.count(clew.db, who.principal, context)
    return {"tasks": tasks, "nextPageToken": more, "pageSize": len(tasks), "totalSize": total}


PUSHING = {
    f"{verb}TaskPushNotificationConfig{'s' if verb == 'List' else ''}"
    for verb in ("Create", "Get", "List", "Delete")
}
HANDLERS = {"SendMessage": send, "GetTask": get, "CancelTask": cancel, "ListTasks": list_}


async def _told(
    clew: Parts, who: Caller, run: Run, words: Words, number: Any, state: State
) -> AsyncIterator[bytes]:
    """A task from what it is now to its end: the text as it grows, then the whole of it."""
    task_id, context = _task_id(run), run.thread_id

    def say(content: Json) -> bytes:
        return sse.frame("message", wire.encode(_result(number, content)))

    yield say(words.result("task", words.task(task_id, context, state)))
    so_far = ""
    async for event in clew.feed.follow(who.principal, context, run.run_id):
        if more := _delta(event):
            so_far += more
            yield say(words.status_update(task_id, context, "working", so_far, final=False))
    done = await runs.get(clew.db, who.principal, context, run.run_id)
    ending, text = ended(done, json.loads(await outcome.of(clew, who, done)))
    if ending == "completed" and text:
        yield say(words.artifact_update(task_id, context, text))
        text = None
    yield say(words.status_update(task_id, context, ending, text, final=True))


def _delta(event: Event) -> str:
    """What the model just said, if this is that."""
    if event.name != "messages" or event.ns:
        return ""
    chunk = json.loads(event.data)[0]
    return plain(chunk.get("content")) if chunk.get("type") == "AIMessageChunk" else ""
