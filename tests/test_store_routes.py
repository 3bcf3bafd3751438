"""The store over HTTP, by the official client."""

import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest_asyncio
from fastapi import FastAPI
from langgraph_sdk import Auth, get_client
from langgraph_sdk.client import LangGraphClient

from clew.api import problems
from clew.api import store as store_api
from clew.api.auth import Gate
from clew.checkpointing.postgres import SERVICE, Database
from clew.runtime.settings import Settings
from clew.runtime.store import Store
from tests.serving import serve


@pytest_asyncio.fixture
async def opened(db: Database) -> AsyncIterator[Store]:
    async with Store.open(db) as found:
        yield found


auth = Auth()


@auth.authenticate
async def authenticate(headers: dict[bytes, bytes]) -> str:
    return headers[b"x-user"].decode()


@auth.on.store
async def scope(ctx: Auth.types.AuthContext, value: dict[str, Any]) -> None:
    value["namespace"] = (ctx.user.identity, *(value["namespace"] or ()))


@auth.on.store.delete
async def keep(ctx: Auth.types.AuthContext, value: Auth.types.on.store.delete.value) -> bool:
    return value["key"] != "kept"


@contextlib.asynccontextmanager
async def serving(
    db: Database, opened: Store | None, custom: Auth | None = None
) -> AsyncGenerator[httpx.AsyncClient]:
    chosen = Settings.model_validate({"database_url": "postgresql://nowhere"})
    app = FastAPI()
    problems.install(app)
    app.include_router(store_api.routes)
    app.state.parts = SimpleNamespace(db=db, store=opened)
    async with Gate.open(chosen, db, custom) as gate:
        app.state.gate = gate
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            yield http


async def test_the_official_client_uses_every_route(opened: Store, db: Database) -> None:
    async with serving(db, opened) as http:
        client = LangGraphClient(http).store
        await client.put_item(["users", "u1"], key="k", value={"n": 1, "text": "喜欢火锅"})
        await client.put_item(["users", "u2"], key="k", value={"n": 2}, index=False, ttl=10)
        item = await client.get_item(["users", "u1"], key="k", refresh_ttl=True)
        assert set(item) == {"namespace", "key", "value", "created_at", "updated_at"}
        assert (item["namespace"], item["value"]["n"]) == (["users", "u1"], 1)
        assert await client.get_item(["users", "u1"], key="missing") is None
        found = await client.search_items(["users"], filter={"n": {"$gte": 2}})
        assert [(i["namespace"][1], i.get("score")) for i in found["items"]] == [("u2", None)]
        found = await client.search_items(["users"], query="火锅", limit=1)
        assert [(i["key"], i.get("score")) for i in found["items"]] == [("k", 1.0)]
        listed = await client.list_namespaces(prefix=["users"], max_depth=2)
        assert listed == {"namespaces": [["users", "u1"], ["users", "u2"]]}
        await client.delete_item(["users", "u1"], key="k")
        await client.delete_item(["users", "u1"], key="k")
        listed = await client.list_namespaces(suffix=["u2"])
        assert listed == {"namespaces": [["users", "u2"]]}


async def test_bad_requests_say_what_is_wrong(opened: Store, db: Database) -> None:
    put = {"namespace": ["a"], "key": "k", "value": {}}
    thread_id = "0194f3c4-0000-7000-8000-000000000000"
    bad: list[tuple[str, str, Any, int, str]] = [
        ("GET", "/store/items?namespace=a", None, 400, "Key is required"),
        ("GET", "/store/items?namespace=a..b&key=k", None, 422, "Namespace label ''"),
        ("PUT", "/store/items", {**put, "namespace": []}, 400, "Namespace cannot be empty."),
        ("PUT", "/store/items", {**put, "namespace": ["langgraph"]}, 400, "langgraph"),
        (
            "PUT",
            "/store/items",
            {**put, "namespace": ["a.b"]},
            422,
            "Namespace label 'a.b' must be a non-empty string without periods",
        ),
        ("PUT", "/store/items", {**put, "namespace": "a"}, 422, "namespace"),
        ("PUT", "/store/items", {**put, "value": [1]}, 422, "value"),
        ("PUT", "/store/items", {**put, "key": ""}, 422, "key"),
        ("PUT", "/store/items", {**put, "key": "k" * 2000}, 413, "key"),
        ("PUT", "/store/items", {**put, "index": True}, 422, "index"),
        ("PUT", "/store/items", {**put, "ttl": 0}, 422, "ttl"),
        ("PUT", "/store/items", {**put, "namespace": ["sessions", thread_id]}, 404, thread_id),
        ("DELETE", "/store/items", {"namespace": ["a"]}, 422, "key"),
        ("POST", "/store/items/search", {"filter": {"a": {"$near": 1}}}, 422, "$near"),
        ("POST", "/store/items/search", {"limit": -1}, 422, "limit"),
        ("POST", "/store/namespaces", {"max_depth": 0}, 422, "max_depth"),
    ]
    async with serving(db, opened) as http:
        for method, path, body, status, text in bad:
            answer = await http.request(method, path, json=body)
            assert answer.status_code == status, (method, path, body, answer.text)
            assert answer.headers["content-type"] == "application/problem+json"
            assert text in answer.json()["detail"]
        assert (await http.post("/store/items/search", json={})).json() == {"items": []}
        answer = await http.put("/store/items", json={**put, "whatever": 1})
        assert (answer.status_code, answer.headers["x-clew-ignored"]) == (204, "whatever")
        empty = await http.get("/store/items?namespace=a&key=k&refresh_ttl=")
        assert empty.json()["value"] == {}
    async with serving(db, None) as http:
        assert (await http.post("/store/items/search", json={})).status_code == 503


async def test_handlers_rewrite_namespaces_and_refuse(opened: Store, db: Database) -> None:
    async with serving(db, opened, auth) as http:

        def of(user: str) -> Any:
            return LangGraphClient(cast("Any", _As(http, user))).store

        for user in ("alice", "bob"):
            for key in ("k", "kept"):
                await of(user).put_item(["notes"], key=key, value={"of": user})
        item = await of("alice").get_item(["notes"], key="k")
        assert (item["namespace"], item["value"]) == (["alice", "notes"], {"of": "alice"})
        found = await of("bob").search_items([])
        assert {tuple(i["namespace"]) for i in found["items"]} == {("bob", "notes")}
        listed = await of("bob").list_namespaces()
        assert listed == {"namespaces": [["bob", "notes"]]}
        headers = {"x-user": "alice"}
        for key, status in (("kept", 403), ("k", 204)):
            body = {"namespace": ["alice", "notes"], "key": key}
            answer = await http.request("DELETE", "/store/items", json=body, headers=headers)
            assert answer.status_code == status
        # Whatever namespace a handler lets through, another's items are not in it.
        assert await opened.bind(await db.owner("default", "nobody")).asearch(()) == []


class _As:
    """A client's transport that says who is calling."""

    def __init__(self, http: httpx.AsyncClient, user: str) -> None:
        self._http, self._user = http, user

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._http, name)
        if name not in {"get", "post", "put", "delete", "request"}:
            return found

        def call(*args: Any, **more: Any) -> Any:
            more["headers"] = {**(more.get("headers") or {}), "x-user": self._user}
            return found(*args, **more)

        return call


AGENT = """
from typing import TypedDict

from langgraph.graph import StateGraph
from langgraph.runtime import Runtime


class State(TypedDict):
    say: str
    known: list


async def remember(state: State, runtime: Runtime) -> State:
    await runtime.store.aput(("facts",), state["say"], {"text": state["say"]})
    return state


def recall(state: State, runtime: Runtime) -> State:
    found = runtime.store.search(("facts",), query="火锅")
    return {"say": state["say"], "known": [item.value["text"] for item in found]}


graph = StateGraph(State).add_sequence([remember, recall]).add_edge("__start__", "remember")
"""


async def test_row_39_what_a_run_remembers_its_owner_finds_and_nobody_else(
    dsn: str, tmp_path: Path
) -> None:
    (tmp_path / "agent.py").write_text(AGENT)
    config = tmp_path / "langgraph.json"
    config.write_text(json.dumps({"graphs": {"agent": "./agent.py:graph"}}))
    async with serve(dsn, config=config) as url, get_client(url=url, api_key=None) as client:
        given = {"say": "用户喜欢吃火锅", "known": []}
        values = cast("Any", await client.runs.wait(None, "agent", input=given))
        assert values["known"] == ["用户喜欢吃火锅"]
        found = await client.store.search_items(["facts"], query="喜欢")
        assert [item["value"]["text"] for item in found["items"]] == ["用户喜欢吃火锅"]
    async with Database.open(dsn) as db, Store.open(db) as opened:
        rows = await db.fetch(SERVICE, "select owner_id from clew.store_item")
        assert await opened.bind(rows[0]["owner_id"]).asearch(())
        assert await opened.bind(rows[0]["owner_id"] + 1).asearch(()) == []
