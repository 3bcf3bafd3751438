"""Assistants as tools, asked through the official MCP client over a real socket."""

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
import pytest_asyncio
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from clew.checkpointing.postgres import Database
from clew.runtime import keys
from tests.conftest import create, drop
from tests.serving import AGENTS, serve

HELLO = {"messages": [{"role": "user", "content": "Hello 北京"}]}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(server: str, template: str) -> AsyncGenerator[str]:
    """One server for all tests that can share one."""
    name = f"clew_{uuid.uuid4().hex}"
    try:
        async with serve(create(server, name, template=template)) as base:
            yield base
    finally:
        drop(server, name)


@asynccontextmanager
async def client(url: str, key: str | None = None, mode: str = "auto") -> AsyncGenerator[Client]:
    headers = {"x-api-key": key} if key else {}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=30) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http), mode=mode) as opened,
    ):
        yield opened


async def test_every_assistant_is_a_tool_with_the_schema_of_its_input(url: str) -> None:
    async with client(url) as opened:
        tools = {tool.name: tool for tool in (await opened.list_tools()).tools}
    assert set(tools) >= {"ask", "echo", "fails", "parent", "slow", "steps", "tokens"}
    assert tools["steps"].description == "Two nodes, one after the other."
    schema = tools["steps"].input_schema
    assert schema["type"] == "object"
    assert schema["properties"]["x"] == {"type": "array", "items": {"type": "string"}}
    # Not LangChain's forty kilobytes of message classes: what a model fills in is a text.
    assert tools["echo"].input_schema["properties"]["messages"]["type"] == "string"
    assert "$defs" not in tools["echo"].input_schema


async def test_a_call_answers_with_the_final_state_as_text_and_as_structure(url: str) -> None:
    async with client(url) as opened:
        done = await opened.call_tool("steps", {"x": ["in"]})
        said = await opened.call_tool("echo", HELLO)
        short = await opened.call_tool("echo", {"messages": "Hello 北京"})
    assert not done.is_error
    assert done.structured_content == {"x": ["in", "one", "two"], "n": 1}
    assert json.loads(text(done)) == done.structured_content
    structured: Any = said.structured_content
    assert [message["content"] for message in structured["messages"]] == ["Hello 北京"] * 2
    brief: Any = short.structured_content
    assert [message["content"] for message in brief["messages"]] == ["Hello 北京"] * 2


async def test_an_agent_with_tools_of_its_own_is_one_tool(dsn: str) -> None:
    async with serve(dsn, config=AGENTS) as url, client(url) as opened:
        names = [tool.name for tool in (await opened.list_tools()).tools]
        assert {"echo", "assistant", "approval", "analyst", "librarian"} <= set(names)
        asked = {"messages": [{"role": "user", "content": "what is 6 * 7?"}]}
        done = await opened.call_tool("assistant", asked)
        assert not done.is_error
        structured: Any = done.structured_content
        assert structured["messages"][-1]["content"]


async def test_a_graph_that_raises_is_an_error_of_the_tool_not_of_the_protocol(url: str) -> None:
    async with client(url) as opened:
        failed = await opened.call_tool("fails", {"x": ["in"]})
    assert failed.is_error
    assert text(failed) == "ValueError: boom"


async def test_a_graph_that_stops_to_ask_says_what_it_asks(url: str) -> None:
    async with client(url) as opened:
        asked = await opened.call_tool("ask", {"x": ["in"]})
    structured: Any = asked.structured_content
    assert structured["__interrupt__"][0]["value"] == {"question": "approve?"}
    assert structured["x"] == ["in"]


async def test_a_call_leaves_no_session_behind(url: str) -> None:
    async with client(url) as opened, httpx.AsyncClient(base_url=url) as http:
        await opened.call_tool("steps", {"x": ["in"]})
        assert (await http.post("/threads/search", json={})).json() == []


async def test_an_unknown_tool_is_refused_as_invalid_parameters(url: str) -> None:
    async with client(url) as opened:
        with pytest.raises(MCPError, match="Unknown tool: nobody") as refused:
            await opened.call_tool("nobody", {})
    assert refused.value.error.code == -32602


async def test_an_assistant_of_ones_own_is_a_tool_by_its_name(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as http, client(url) as opened:
        body = {"graph_id": "steps", "name": "我的步骤", "description": "mine"}
        await http.post("/assistants", json=body)
        tools = {tool.name: tool for tool in (await opened.list_tools()).tools}
        assert tools["我的步骤"].description == "mine"
        done = await opened.call_tool("我的步骤", {"x": ["a"]})
        assert done.structured_content == {"x": ["a", "one", "two"], "n": 1}


async def test_tools_come_in_pages_that_a_cursor_leads_through(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as http, client(url) as opened:
        bodies = [{"graph_id": "steps", "name": f"n{number:03}"} for number in range(100)]
        await asyncio.gather(*(http.post("/assistants", json=body) for body in bodies))
        first = await opened.list_tools()
        assert (len(first.tools), first.next_cursor) == (100, "100")
        rest = await opened.list_tools(cursor=first.next_cursor)
        assert rest.next_cursor is None
        names = [tool.name for tool in (*first.tools, *rest.tools)]
        assert len(names) == len(set(names))
        assert names.count("n099") == 1
        with pytest.raises(MCPError, match="Invalid cursor"):
            await opened.list_tools(cursor="nonsense")


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_of_either_age_agrees_on_a_version(url: str, mode: str) -> None:
    async with client(url, mode=mode) as opened:
        assert opened.protocol_version == "2025-11-25"
        assert opened.server_info is not None
        assert opened.server_info.name == "Clew"


async def test_versions_are_negotiated_and_unknown_ones_refused(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as http:
        for asked, agreed in (("2024-11-05", "2024-11-05"), ("1999-01-01", "2025-11-25")):
            result = (await rpc(http, "initialize", {"protocolVersion": asked}))["result"]
            assert result["protocolVersion"] == agreed
        body = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        headers = {"mcp-protocol-version": "2099-01-01"}
        refused = await http.post("/mcp", json=body, headers=headers)
        assert refused.status_code == 400
        assert "2025-11-25" in refused.json()["error"]["data"]["supported"]


async def test_there_are_no_protocol_sessions(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as http:
        opened = await http.post("/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "ping"})
        assert "mcp-session-id" not in opened.headers
        assert (await http.get("/mcp")).status_code == 405
        assert (await http.delete("/mcp")).status_code == 404
        note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        assert (await http.post("/mcp", json=note)).status_code == 202
        answer = {"jsonrpc": "2.0", "id": 4, "result": {}}
        assert (await http.post("/mcp", json=answer)).status_code == 202


async def test_what_is_no_request_is_refused_with_the_code_for_it(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as http:
        assert (await rpc(http, "nope"))["error"]["code"] == -32601
        assert (await rpc(http, "ping", ["list"]))["error"]["code"] == -32602
        broken = await http.post("/mcp", content=b"{")
        assert (broken.status_code, broken.json()["error"]["code"]) == (400, -32700)
        odd = await http.post("/mcp", json=[1])
        assert (odd.status_code, odd.json()["error"]["code"]) == (400, -32600)
        page = await http.post("/mcp", json={}, headers={"accept": "text/html"})
        assert page.status_code == 400


async def test_a_key_opens_ones_own_assistants_and_nobody_elses(dsn: str) -> None:
    async with Database.open(dsn) as db:
        _, alice = await keys.create(db, "acme", "alice", name="a")
        _, bob = await keys.create(db, "acme", "bob", name="b")
    async with serve(dsn, api_keys=True) as url, httpx.AsyncClient(base_url=url) as http:
        body = {"graph_id": "steps", "name": "secret"}
        await http.post("/assistants", json=body, headers={"x-api-key": alice})
        async with client(url, alice) as hers:
            assert "secret" in [tool.name for tool in (await hers.list_tools()).tools]
            assert not (await hers.call_tool("secret", {"x": []})).is_error
        async with client(url, bob) as his:
            assert "secret" not in [tool.name for tool in (await his.list_tools()).tools]
            with pytest.raises(MCPError, match="Unknown tool"):
                await his.call_tool("secret", {"x": []})
        for key in (None, f"{bob}x"):
            headers = {"x-api-key": key} if key else {}
            refused = await http.post("/mcp", json={}, headers=headers)
            assert refused.status_code == 401


async def test_langgraph_json_can_turn_it_off(dsn: str, tmp_path: Path) -> None:
    async with (
        serve(dsn, config=without(tmp_path, disable_mcp=True)) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        assert (await http.post("/mcp", json={})).status_code == 404


def without(folder: Path, **http: bool) -> Path:
    """A project that serves less."""
    (folder / "graphs.py").write_text((Path(__file__).parent / "project/graphs.py").read_text())
    file = folder / "langgraph.json"
    file.write_text(
        json.dumps({"dependencies": ["."], "graphs": {"echo": "./graphs.py:echo"}, "http": http})
    )
    return file


async def rpc(http: httpx.AsyncClient, method: str, params: Any = None) -> Any:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}
    return (await http.post("/mcp", json=body)).json()


def text(result: Any) -> str:
    return result.content[0].text
