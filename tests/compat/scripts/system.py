"""What is asked of the server itself, MCP and A2A on the wire, and preflights of browsers."""

from tests.compat.side import Side, uuid_of

ORIGIN = {"Origin": "http://app.example"}


async def health(s: Side) -> None:
    await s.send("ok", "GET", "/ok")
    await s.send("ok db", "GET", "/ok?check_db=1")
    await s.send("root", "GET", "/")
    await s.send("info", "GET", "/info")
    await s.send("unknown", "GET", "/nope")
    await s.send("post ok", "POST", "/ok")


async def browsers(s: Side) -> None:
    asks = {
        **ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-api-key,content-type",
    }
    await s.send("preflight", "OPTIONS", "/threads", headers=asks)
    await s.send(
        "private network",
        "OPTIONS",
        "/threads",
        headers={**asks, "Access-Control-Request-Private-Network": "true"},
    )
    await s.send("simple", "GET", "/ok", headers=ORIGIN)
    await s.send("error", "GET", f"/threads/{s.id('nope')}", headers=ORIGIN)


async def mcp(s: Side) -> None:
    accept = {"Accept": "application/json, text/event-stream"}

    async def call(label: str, method: str, params: object = None, **more: object) -> None:
        body = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": method,
            **({"params": params} if params else {}),
            **more,
        }
        await s.send(label, "POST", "/mcp", body, headers=accept)

    hello = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "x", "version": "1"},
    }
    await call("initialize", "initialize", hello)
    await call("initialize old", "initialize", {**hello, "protocolVersion": "1999-01-01"})
    await call("ping", "ping")
    await call("list", "tools/list")
    await call("steps", "tools/call", {"name": "steps", "arguments": {"x": ["in"]}})
    await call("fails", "tools/call", {"name": "fails", "arguments": {"x": ["in"]}})
    await call("ask", "tools/call", {"name": "ask", "arguments": {"x": ["in"]}})
    await call("unknown tool", "tools/call", {"name": "nope", "arguments": {}})
    await call("unknown method", "nope")
    await s.send(
        "notification",
        "POST",
        "/mcp",
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        headers=accept,
    )
    await s.send(
        "response", "POST", "/mcp", {"jsonrpc": "2.0", "id": 1, "result": {}}, headers=accept
    )
    await s.send("broken", "POST", "/mcp", content=b"{", headers=accept)
    await s.send(
        "accept",
        "POST",
        "/mcp",
        {"jsonrpc": "2.0", "id": 1, "method": "ping"},
        headers={"Accept": "text/html"},
    )
    await s.send("get", "GET", "/mcp", headers=accept)
    await s.send("delete", "DELETE", "/mcp")


async def a2a(s: Side) -> None:
    agent = uuid_of("echo")
    await s.send("card", "GET", f"/.well-known/agent-card.json?assistant_id={agent}")
    await s.send("card missing", "GET", "/.well-known/agent-card.json")
    await s.send("card unknown", "GET", f"/.well-known/agent-card.json?assistant_id={s.id('nope')}")

    async def call(label: str, method: str, params: object = None, to: str = agent) -> object:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}
        return (
            await s.send(
                label,
                "POST",
                f"/a2a/{to}",
                body,
                headers={"Accept": "application/json, text/event-stream"},
            )
        ).body

    message = {
        "role": "user",
        "messageId": "m1",
        "kind": "message",
        "parts": [{"kind": "text", "text": "hi"}],
    }
    sent = await call("send", "message/send", {"message": message})
    task = sent.get("result", {}) if isinstance(sent, dict) else {}
    thread, _, run = str(task.get("id") or ":").partition(":")
    s.name(task.get("contextId"), "context")
    s.name(thread, "context")
    s.name(run, "run")
    ids = {"id": task.get("id"), "contextId": task.get("contextId")}
    await call("get", "tasks/get", ids)
    await call("cancel done", "tasks/cancel", ids)
    await call(
        "get unknown", "tasks/get", {"id": f"{s.id('a')}:{s.id('b')}", "contextId": s.id("a")}
    )
    await call("stream", "message/stream", {"message": {**message, "messageId": "m2"}})
    newer = {"role": "ROLE_USER", "messageId": "m3", "parts": [{"text": "hi"}]}
    await call("send newer", "SendMessage", {"message": newer})
    await call("stream newer", "SendStreamingMessage", {"message": {**newer, "messageId": "m4"}})
    await call("no message", "message/send", {})
    await call(
        "file",
        "message/send",
        {"message": {**message, "parts": [{"kind": "file", "file": {"uri": "x"}}]}},
    )
    await call("unknown method", "nope")
    await call("no messages key", "message/send", {"message": message}, to=uuid_of("steps"))
    await call("unknown agent", "message/send", {"message": message}, to=s.id("nope"))
    await s.send(
        "broken", "POST", f"/a2a/{agent}", content=b"{", headers={"Accept": "application/json"}
    )
