"""Who is calling, asked over HTTP as callers do."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import httpx
import jwt
import pytest
from fastapi import FastAPI
from langgraph_sdk import Auth
from pydantic import SecretStr

from clew.api import auth, problems
from clew.api.auth import Who
from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.runtime import config, keys
from clew.runtime.settings import Settings

SECRET = "a secret of at least thirty-two bytes"


@asynccontextmanager
async def server(
    db: Database,
    settings: Settings | None = None,
    custom: Auth | None = None,
    cache: config.AuthCache | None = None,
) -> AsyncGenerator[httpx.AsyncClient]:
    app = FastAPI()
    problems.install(app)

    @app.post("/who/{thing}")
    @app.get("/who/{thing}")
    async def who_is_it(who: Who, thing: str) -> dict[str, Any]:
        return {
            "principal": [who.principal.owner_from, who.principal.owner_to],
            "owner_id": who.owner_id,
            "tenant": who.tenant,
            "owner": who.owner,
            "role": who.role,
            "user": dict(who.user),
            "permissions": list(who.permissions),
            "actor": who.actor,
        }

    @app.get("/may/{resource}/{action}")
    async def what_may_it(who: Who, resource: str, action: str) -> dict[str, Any]:
        value: dict[str, Any] = {"metadata": {}}
        return {"filter": await who.authorize(resource, action, value), "value": value}

    async with auth.Gate.open(settings or Settings(), db, custom, cache) as gate:
        app.state.gate = gate
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://clew") as client:
            yield client


def token(**claims: Any) -> dict[str, str]:
    expires = datetime.now(UTC) + timedelta(minutes=5)
    return {"authorization": f"Bearer {jwt.encode({'exp': expires, **claims}, SECRET)}"}


async def test_without_any_authentication_everyone_is_the_local_owner(db: Database) -> None:
    async with server(db) as client:
        reply = (await client.get("/who/x")).json()
    local = await db.owner("default", "local")
    assert reply["principal"] == [local, local]
    assert (reply["tenant"], reply["owner"], reply["user"]) == ("default", "local", {})


async def test_row_1_the_owner_comes_from_the_proof_and_an_admin_may_act_for_another(
    db: Database,
) -> None:
    settings = Settings(api_keys=True, jwt_secret=SecretStr(SECRET))
    alice, bob = [await db.owner("acme", name) for name in ("alice", "bob")]
    async with server(db, settings) as client:
        assert (await client.get("/who/x")).status_code == 401
        reply = (await client.get("/who/x", headers=token(sub="alice", tenant="acme"))).json()
        assert reply["principal"] == [alice, alice]
        assert reply["user"]["identity"] == "alice"
        # The name of another in a header is not enough.
        acting = {**token(sub="alice", tenant="acme"), "x-clew-owner": "bob"}
        assert (await client.get("/who/x", headers=acting)).status_code == 403
        admin = token(sub="root", tenant="acme", clew_role="admin")
        reply = (await client.get("/who/x", headers=admin)).json()
        whole = Principal.tenant_of(alice)
        assert reply["principal"] == [whole.owner_from, whole.owner_to]
        reply = (await client.get("/who/x", headers={**admin, "x-clew-owner": "bob"})).json()
        assert (reply["principal"], reply["owner_id"]) == ([bob, bob], bob)
        assert reply["actor"] == "admin:acme/root"
        # A slash does not lead out of the tenant.
        reply = (await client.get("/who/x", headers={**admin, "x-clew-owner": "b/bob"})).json()
        assert (reply["tenant"], reply["owner"]) == ("acme", "b/bob")


async def test_an_api_key_is_taken_from_either_header(db: Database) -> None:
    _, text = await keys.create(db, "acme", "alice", name="ci", scopes=["threads:read"])
    _, service = await keys.create(db, "acme", "root", name="ops", role="service")
    async with server(db, Settings(api_keys=True)) as client:
        for headers in ({"x-api-key": text}, {"authorization": f"bearer {text}"}):
            reply = (await client.get("/who/x", headers=headers)).json()
            assert (reply["tenant"], reply["owner"]) == ("acme", "alice")
            assert reply["permissions"] == ["threads:read"]
            assert (await client.get("/may/threads/read", headers=headers)).status_code == 200
            assert (await client.get("/may/threads/create", headers=headers)).status_code == 403
        wrong = await client.get("/who/x", headers={"x-api-key": text + "x"})
        assert (wrong.status_code, wrong.json()["code"]) == (401, "unauthorized")
        headers = {"x-api-key": service}
        reply = (await client.get("/who/x", headers=headers)).json()
        assert reply["principal"] == [SERVICE.owner_from, SERVICE.owner_to]
        headers["x-clew-owner"] = "umbrella/alice"
        reply = (await client.get("/who/x", headers=headers)).json()
        assert (reply["tenant"], reply["owner"]) == ("umbrella", "alice")


async def test_keys_and_tokens_count_only_where_the_settings_say_so(db: Database) -> None:
    _, text = await keys.create(db, "acme", "alice", name="ci")
    async with server(db, Settings(jwt_secret=SecretStr(SECRET))) as client:
        assert (await client.get("/who/x", headers={"x-api-key": text})).status_code == 401
    async with server(db, Settings(api_keys=True)) as client:
        assert (await client.get("/who/x", headers=token(sub="alice"))).status_code == 401


@pytest.mark.parametrize(
    "claims",
    [{"sub": "a\x00b"}, {"sub": "a" * 300}, {"sub": "a", "tenant": ["x"]}],
)
async def test_a_name_that_cannot_be_kept_is_refused(db: Database, claims: dict[str, Any]) -> None:
    async with server(db, Settings(jwt_secret=SecretStr(SECRET))) as client:
        assert (await client.get("/who/x", headers=token(**claims))).status_code == 401


async def test_scopes_of_other_systems_are_passed_on_and_do_not_restrict(db: Database) -> None:
    async with server(db, Settings(jwt_secret=SecretStr(SECRET))) as client:
        headers = token(sub="alice", scope="openid profile")
        reply = (await client.get("/who/x", headers=headers)).json()
        assert reply["permissions"] == ["openid", "profile"]
        assert (await client.get("/may/threads/create", headers=headers)).status_code == 200
        headers = token(sub="alice", clew_scopes=["read"])
        assert (await client.get("/may/threads/create", headers=headers)).status_code == 403


def house() -> Auth:
    """The Auth object of a user."""
    custom = Auth()

    @custom.authenticate
    async def authenticate(  # pyright: ignore[reportUnusedFunction]
        authorization: str | None, path: str, body: Any, headers: dict[bytes, bytes]
    ) -> Any:
        if not authorization:
            raise Auth.exceptions.HTTPException(status_code=401, detail="who are you")
        if authorization == "assert":
            raise AssertionError("not you")
        if authorization == "banned":
            raise Auth.exceptions.HTTPException(status_code=403, detail="banned")
        return {"identity": authorization, "org": "o1", "seen": [path, body]}

    return custom


async def test_the_handlers_of_langgraph_json_say_who_calls(db: Database) -> None:
    async with server(db, custom=house()) as client:
        refused = await client.get("/who/x")
        assert (refused.status_code, refused.json()["detail"]) == (401, "who are you")
        refused = await client.get("/who/x", headers={"authorization": "assert"})
        assert (refused.status_code, refused.json()["detail"]) == (403, "not you")
        refused = await client.get("/who/x", headers={"authorization": "banned"})
        assert (refused.status_code, refused.json()["detail"]) == (403, "banned")
        reply = await client.post(
            "/who/x", headers={"authorization": "alice"}, json={"question": "何"}
        )
        alice = await db.owner("default", "alice")
        assert reply.json()["principal"] == [alice, alice]
        assert reply.json()["user"] == {
            "identity": "alice",
            "display_name": "alice",
            "is_authenticated": True,
            "permissions": [],
            "org": "o1",
            "seen": ["/who/x", {"question": "何"}],
        }


async def test_the_most_specific_handler_decides(db: Database) -> None:
    custom = house()

    @custom.on
    async def everything(ctx: Auth.types.AuthContext, value: Any) -> Any:  # pyright: ignore[reportUnusedFunction]
        return False

    @custom.on.threads
    async def threads(ctx: Auth.types.AuthContext, value: Any) -> Any:  # pyright: ignore[reportUnusedFunction]
        return {"owner": ctx.user.identity}

    @custom.on.threads.create
    async def create(ctx: Auth.types.AuthContext, value: Any) -> Any:  # pyright: ignore[reportUnusedFunction]
        value["metadata"]["owner"] = ctx.user["identity"]
        assert ctx.action == "create"
        assert ctx.permissions == []

    @custom.on.threads.delete
    async def delete(ctx: Auth.types.AuthContext, value: Any) -> Any:  # pyright: ignore[reportUnusedFunction]
        raise AssertionError("never")

    async with server(db, custom=custom) as client:
        headers = {"authorization": "alice"}
        reply = (await client.get("/may/threads/read", headers=headers)).json()
        condition = {"key": "owner", "operator": "eq", "value": "alice"}
        assert reply["filter"] == [[condition]]
        reply = (await client.get("/may/threads/create", headers=headers)).json()
        assert reply == {"filter": None, "value": {"metadata": {"owner": "alice"}}}
        refused = await client.get("/may/threads/delete", headers=headers)
        assert (refused.status_code, refused.json()["detail"]) == (403, "never")
        assert (await client.get("/may/store/put", headers=headers)).status_code == 403


async def test_a_kept_answer_is_that_of_the_same_headers(db: Database) -> None:
    asked: list[str] = []
    custom = Auth()

    def authenticate(authorization: str) -> str:
        asked.append(authorization)
        return authorization

    custom.authenticate(cast("Any", authenticate))  # not a coroutine, which works all the same

    cache = config.AuthCache(cache_keys=("authorization",), ttl_seconds=60, max_size=2)
    async with server(db, custom=custom, cache=cache) as client:
        for name in ("alice", "alice", "bob", "alice", "carol", "alice"):
            reply = await client.get("/who/x", headers={"authorization": name})
            assert reply.json()["owner"] == name
    assert asked == ["alice", "bob", "carol", "alice"]


async def test_an_authenticate_handler_that_fails_lets_nobody_in(db: Database) -> None:
    custom = Auth()

    @custom.authenticate
    async def authenticate(authorization: str | None) -> Any:  # pyright: ignore[reportUnusedFunction]
        if authorization == "nobody":
            return {"identity": ""}
        raise RuntimeError("password=hunter2")

    async with server(db, custom=custom) as client:
        for name in ("nobody", "x"):
            reply = await client.get("/who/x", headers={"authorization": name})
            assert reply.status_code == 500
            assert "hunter2" not in reply.text
