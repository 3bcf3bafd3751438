"""An OpenAI-compatible chat endpoint over real HTTP, which answers as a test tells it."""

import json
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Calls:
    """Tool calls: (name, arguments), the arguments as they go over the wire. Without `id`, each
    has one of its own.
    """

    calls: list[tuple[str, str]]
    id: str | None = None


@dataclass(frozen=True)
class Raw:
    """Anything else that an endpoint, or what stands before it, may send."""

    body: str
    status: int = 200
    content_type: str = "application/json"


@dataclass(frozen=True)
class Cut:
    """The connection breaks after these tokens."""

    text: str


Reply = Text | Calls | Raw | Cut


@dataclass
class Endpoint:
    url: str
    answer: Callable[[dict[str, Any]], Reply] = lambda request: Text("Hello from the endpoint.")
    requests: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def replies(self, *replies: Reply) -> None:
        """Give these one after the other, and the last one from then on."""
        left = list(replies)
        self.answer = lambda request: left.pop(0) if len(left) > 1 else left[0]

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        body = b""
        more = True
        while more:
            message: Any = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        request = json.loads(body)
        self.requests.append(request)
        reply = self.answer(request)
        status, kind, pieces = _wire(reply, bool(request.get("stream")), len(self.requests))
        # Closed after each answer: clients keep connections, and tests do not share event loops.
        headers = [(b"content-type", kind.encode()), (b"connection", b"close")]
        start: Any = {"type": "http.response.start", "status": status, "headers": headers}
        await send(start)
        if isinstance(reply, Cut):
            pieces = pieces[:-2]
        for piece in pieces:
            part: Any = {"type": "http.response.body", "body": piece.encode(), "more_body": True}
            await send(part)
        if isinstance(reply, Cut):
            return
        last: Any = {"type": "http.response.body", "body": b"", "more_body": False}
        await send(last)


def _wire(reply: Reply, stream: bool, number: int) -> tuple[int, str, list[str]]:
    if isinstance(reply, Raw):
        return reply.status, reply.content_type, [reply.body]
    frame = {"id": f"chatcmpl-{number}", "created": 1, "model": "fake"}
    calls: list[dict[str, Any]] = (
        [
            {
                "id": reply.id or f"call_{number}_{i}",
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            }
            for i, (name, arguments) in enumerate(reply.calls)
        ]
        if isinstance(reply, Calls)
        else []
    )
    text = reply.text if isinstance(reply, Text | Cut) else None
    reason = "tool_calls" if calls else "stop"
    if not stream:
        message = {"role": "assistant", "content": text} | ({"tool_calls": calls} if calls else {})
        choice = {"index": 0, "message": message, "finish_reason": reason}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        whole = {**frame, "object": "chat.completion", "choices": [choice], "usage": usage}
        return 200, "application/json", [json.dumps(whole)]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": token} for token in _tokens(text or "")]
    for i, call in enumerate(calls):
        # As the real one does: the name first, the arguments in pieces.
        name, whole = call["function"]["name"], call["function"]["arguments"]
        first = {**call, "index": i, "function": {"name": name, "arguments": ""}}
        deltas.append({"tool_calls": [first]})
        for part in (whole[: len(whole) // 2], whole[len(whole) // 2 :]):
            deltas.append({"tool_calls": [{"index": i, "function": {"arguments": part}}]})
    choices: list[dict[str, Any]] = [
        {"index": 0, "delta": delta, "finish_reason": None} for delta in deltas
    ]
    choices.append({"index": 0, "delta": {}, "finish_reason": reason})
    chunks = [
        json.dumps({**frame, "object": "chat.completion.chunk", "choices": [choice]})
        for choice in choices
    ]
    return 200, "text/event-stream", [f"data: {chunk}\n\n" for chunk in [*chunks, "[DONE]"]]


def _tokens(text: str) -> list[str]:
    return [word + " " for word in text.split(" ")[:-1]] + text.split(" ")[-1:]


@contextmanager
def serve() -> Generator[Endpoint]:
    # Listening before the server runs: a client that comes early waits instead of failing.
    listener = socket.create_server(("127.0.0.1", 0))
    endpoint = Endpoint(url=f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
    server = uvicorn.Server(uvicorn.Config(endpoint, lifespan="off", log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield endpoint
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
