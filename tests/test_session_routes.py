"""The sessions API as its callers have it: a real server, and one client for each caller."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
import pytest_asyncio

from clew.checkpointing.postgres import Database
from clew.runtime import ids, keys
from tests.serving import serve

Json = dict[str, Any]


class Callers:
    """Clients by name; `acme/alice` is one owner, `acme/root` that tenant's admin."""

    def __init__(self, db: Database, url: str, stack: AsyncExitStack) -> None:
        self._db, self._url, self._stack = db, url, stack

    async def __call__(
        self, tenant: str, name: str, role: keys.Role = "owner"
    ) -> httpx.AsyncClient:
        _, text = await keys.create(self._db, tenant, name, name=name, role=role)
        client = httpx.AsyncClient(base_url=self._url, headers={"x-api-key": text}, timeout=30)
        return await self._stack.enter_async_context(client)


@pytest_asyncio.fixture
async def callers(db: Database, dsn: str) -> AsyncIterator[Callers]:
    async with serve(dsn, api_keys=True) as url, AsyncExitStack() as stack:
        yield Callers(db, url, stack)


async def made(client: httpx.AsyncClient, **fields: Any) -> Json:
    reply = await client.post("/sessions", json=fields)
    assert reply.status_code == 201, reply.text
    return reply.json()


async def said(client: httpx.AsyncClient, thread_id: str, text: str) -> Json:
    body = {"content": text, "stream": False, "assistant_id": "echo"}
    reply = await client.post(f"/sessions/{thread_id}/messages", json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def test_rows_1_and_40_a_session_over_http(callers: Callers) -> None:
    alice = await callers("acme", "alice")
    chosen = ids.mint()
    reply = await alice.post(
        "/sessions",
        json={
            "thread_id": chosen,
            "assistant_id": "echo",
            "title": "会议",
            "description": "beside the title",
            "tags": ["a"],
            "metadata": {"n": 1},
            "ttl": {"ttl": 60, "sliding": False},
        },
    )
    row = reply.json()
    assert (reply.status_code, reply.headers["etag"]) == (201, '"1"')
    assert (row["thread_id"], row["state"], row["graph_id"]) == (chosen, "active", "echo")
    assert row["description"] == "beside the title"
    assert row["ttl"] == {"ttl": 60, "sliding": False, "strategy": "delete", "waiting": None}
    assert (await alice.get(f"/sessions/{chosen}")).json() == row
    again = await alice.post("/sessions", json={"thread_id": chosen, "if_exists": "do_nothing"})
    assert (again.status_code, again.json()) == (200, row)


async def test_rows_3_and_22_listing_filtering_and_paging(callers: Callers) -> None:
    alice = await callers("acme", "alice")
    for n in range(5):
        await made(
            alice, title=f"第{n}次会议", tags=["even" if n % 2 == 0 else "odd"], metadata={"n": n}
        )
    first = (await alice.get("/sessions", params={"limit": 3, "total": True})).json()
    assert (len(first["sessions"]), first["total"]) == (3, 5)
    rest = await alice.get("/sessions", params={"limit": 3, "cursor": first["cursor"]})
    assert [s["metadata"]["n"] for s in rest.json()["sessions"]] == [1, 0]
    assert rest.json()["cursor"] is None
    other = await alice.get("/sessions", params={"tag": "odd", "cursor": first["cursor"]})
    assert other.status_code == 422
    for params, expected in (
        ({"tag": "odd"}, [3, 1]),
        ({"any_tag": ["odd", "even"], "order": "asc"}, [0, 1, 2, 3, 4]),
        ({"metadata": json.dumps({"n": 2})}, [2]),
        ({"q": "会议", "limit": 1}, [4]),
        ({"state": "archived"}, []),
        ({"created_before": "2020-01-01T00:00:00+00:00"}, []),
    ):
        reply = await alice.get("/sessions", params=params)  # pyright: ignore[reportArgumentType]
        assert [s["metadata"]["n"] for s in reply.json()["sessions"]] == expected, params


async def test_row_41_if_match(callers: Callers) -> None:
    alice = await callers("acme", "alice")
    row = await made(alice, title="one")
    path = f"/sessions/{row['thread_id']}"
    changed = await alice.patch(path, json={"title": "two"}, headers={"if-match": '"1"'})
    assert (changed.status_code, changed.headers["etag"]) == (200, '"2"')
    stale = await alice.patch(path, json={"title": "three"}, headers={"if-match": '"1"'})
    assert (stale.status_code, stale.json()["code"], stale.json()["version"]) == (412, "stale", 2)
    assert (await alice.patch(path, json={}, headers={"if-match": "*"})).status_code == 200
    assert (await alice.patch(path, json={}, headers={"if-match": "x"})).status_code == 422


async def test_row_5_moves_over_http_and_the_audit_log(callers: Callers) -> None:
    alice = await callers("acme", "alice")
    path = f"/sessions/{(await made(alice))['thread_id']}"
    assert (await alice.post(f"{path}/archive")).json()["state"] == "archived"
    refused = await alice.post(f"{path}/archive")
    assert (refused.status_code, refused.json()["state"]) == (409, "archived")
    assert (await alice.patch(path, json={"title": "x"})).status_code == 409
    sent = await alice.post(f"{path}/messages", json={"content": "hi", "assistant_id": "echo"})
    assert sent.status_code == 409
    assert (await alice.post(f"{path}/unarchive")).json()["state"] == "active"
    assert (await alice.post(f"{path}/touch", json={"ttl": 5})).status_code == 200
    assert (await alice.delete(path)).json()["state"] == "deleted"
    assert (await alice.get(path)).status_code == 404
    assert (await alice.post(f"{path}/undelete")).json()["state"] == "active"
    entries = (await alice.get(f"{path}/audit")).json()["entries"]
    moves = ["undelete", "delete", "touch", "unarchive", "archive"]
    assert [e["move"] for e in entries] == moves
    assert {e["actor"] for e in entries} == {"owner:acme/alice"}
    assert (await alice.delete(path, params={"final": True})).json()["state"] == "purged"
    entries = (await alice.get(f"{path}/audit")).json()["entries"]
    assert [e["move"] for e in entries] == ["purge", *moves]
    assert (await alice.post(f"{path}/undelete")).status_code == 404


async def test_row_42_a_message_is_sent_and_the_reply_streamed_in_one_call(
    callers: Callers,
) -> None:
    alice = await callers("acme", "alice")
    key = (await made(alice, assistant_id="echo"))["thread_id"]
    async with alice.stream("POST", f"/sessions/{key}/messages", json={"content": "你好"}) as reply:
        events = [line async for line in reply.aiter_lines() if line.startswith("event: ")]
    assert reply.status_code == 200
    assert (events[0], events[-1]) == ("event: metadata", "event: end")
    await said(alice, key, "again")
    page = (await alice.get(f"/sessions/{key}/messages", params={"order": "desc"})).json()
    assert [m["message"]["content"] for m in page["messages"]] == ["again", "again", "你好", "你好"]
    assert page["total"] == 4
    both = await alice.post(f"/sessions/{key}/messages", json={"content": "x", "messages": [{}]})
    assert both.status_code == 422


async def test_row_38_settings_and_resources_of_a_session_reach_its_graph(
    callers: Callers,
) -> None:
    alice = await callers("acme", "alice")
    row = await made(
        alice,
        assistant_id="echo",
        resources={"datasets": ["sales"]},
        config={"tags": ["t"]},
        context={"fallback": "不知道"},
    )
    await said(alice, row["thread_id"], "hi")
    runs = (await alice.get(f"/threads/{row['thread_id']}/runs")).json()
    assert runs[0]["kwargs"]["context"] == {"datasets": ["sales"], "fallback": "不知道"}
    assert runs[0]["kwargs"]["config"]["tags"] == ["t"]


async def test_rows_8_and_9_limits_and_reuse_over_http(db: Database, dsn: str) -> None:
    async with serve(dsn, max_sessions=2) as url, httpx.AsyncClient(base_url=url) as client:
        body = {"assistant_id": "echo", "reuse": "latest"}
        replies = await asyncio.gather(*(client.post("/sessions", json=body) for _ in range(20)))
        assert sorted(r.status_code for r in replies) == [200] * 19 + [201]
        assert len({r.json()["thread_id"] for r in replies}) == 1
        assert (await client.post("/sessions", json={})).status_code == 201
        refused = await client.post("/sessions", json={})
        assert (refused.status_code, refused.json()["limit"]) == (429, 2)


async def test_row_13_batches_and_all_of_an_owner_or_agent(callers: Callers) -> None:
    alice, bob = await callers("acme", "alice"), await callers("acme", "bob")
    root = await callers("acme", "root", "admin")
    items: list[Json] = [{"title": "ok"}, {"title": "x" * 501}, {"assistant_id": "echo"}]
    results = (await alice.post("/sessions/batch", json={"create": items})).json()["results"]
    assert results[1]["problem"]["code"] == "too_large"
    keys_ = [results[n]["session"]["thread_id"] for n in (0, 2)]
    foreign = (await made(bob, assistant_id="echo"))["thread_id"]
    for what, wanted in (("get", [keys_[0], foreign, "no id", "\0"]), ("delete", ["\0", foreign])):
        got = await alice.post("/sessions/batch", json={what: wanted})
        codes = [result.get("problem", {}).get("code") for result in got.json()["results"]]
        assert codes == [None if key in keys_ else "not_found" for key in wanted]
    gone = await alice.post("/sessions/batch", json={"delete": [keys_[0], foreign]})
    assert gone.json()["results"][0]["session"]["state"] == "deleted"
    assert gone.json()["results"][1]["problem"]["code"] == "not_found"
    assert (await alice.delete("/agents/echo/sessions")).json() == {"deleted": 1, "busy": []}
    assert (await bob.get(f"/sessions/{foreign}")).status_code == 200
    assert (await alice.delete("/owners/bob/sessions")).status_code == 404
    assert (await root.delete("/owners/bob/sessions")).json()["deleted"] == 1
    assert (await root.delete("/owners/nobody/sessions")).status_code == 404
    assert (await alice.post("/sessions/batch", json={})).status_code == 422


async def test_row_21_templates_over_http(callers: Callers) -> None:
    alice = await callers("acme", "alice")
    body: Json = {"assistant_id": "echo", "context": {"system_prompt": "你是客服"}}
    template = (await alice.post("/templates", json={"name": "t", "body": body})).json()
    path = f"/templates/{template['template_id']}"
    row = await made(alice, template_id=template["template_id"], context={"more": 1})
    assert row["context"] == {"system_prompt": "你是客服", "more": 1}
    assert row["graph_id"] == "echo"
    assert row["template"] == {"template_id": template["template_id"], "version": 1}
    await alice.patch(path, json={"body": {"context": {"system_prompt": "v2"}}})
    back = await alice.patch(
        f"/sessions/{row['thread_id']}", json={"template_id": template["template_id"]}
    )
    assert back.json()["context"] == {"system_prompt": "v2"}
    assert (await alice.get(path, params={"version": 1})).json()["body"]["assistant_id"] == "echo"
    assert len((await alice.get("/templates")).json()["templates"]) == 1
    assert (await alice.delete(path)).status_code == 204
    assert (await alice.get(path)).status_code == 404


async def test_row_23_shares_over_http(callers: Callers) -> None:
    alice, bob = await callers("acme", "alice"), await callers("acme", "bob")
    key = (await made(alice, assistant_id="echo"))["thread_id"]
    path = f"/sessions/{key}"
    await said(alice, key, "first")
    state = (await alice.get(f"/threads/{key}/state")).json()
    assert (await bob.get(path)).status_code == 404
    pinned = await alice.post(
        f"{path}/shares",
        json={"owner": "bob", "checkpoint_id": state["checkpoint"]["checkpoint_id"]},
    )
    assert pinned.status_code == 201
    await said(alice, key, "secret")
    page = (await bob.get(f"{path}/messages")).json()
    assert [m["message"]["content"] for m in page["messages"]] == ["first", "first"]
    assert (await bob.get(f"{path}/messages", params={"scope": "all"})).status_code == 403
    assert (await bob.post(f"{path}/messages", json={"content": "x"})).status_code == 404
    assert len((await bob.get("/sessions/shared")).json()["shares"]) == 1
    # Read: nothing else opens.
    for attempt in (
        bob.patch(path, json={"title": "mine"}),
        bob.delete(path),
        bob.post(f"{path}/archive"),
        bob.get(f"{path}/shares"),
        bob.post(f"{path}/shares", json={}),
        bob.get(f"{path}/audit"),
        bob.get(f"/threads/{key}"),
    ):
        assert (await attempt).status_code == 404
    await alice.post(f"{path}/shares", json={"owner": "bob", "role": "writer"})
    await said(bob, key, "from bob")
    page = (await bob.get(f"{path}/messages")).json()
    assert page["messages"][-1]["message"]["content"] == "from bob"
    for share in (await alice.get(f"{path}/shares")).json()["shares"]:
        assert (await alice.delete(f"{path}/shares/{share['share_id']}")).status_code == 200
    assert (await bob.get(path)).status_code == 404
    assert (await bob.get(f"{path}/messages")).status_code == 404


async def test_row_23_a_reply_is_followed_and_stopped_by_those_it_is_shared_with(
    callers: Callers,
) -> None:
    alice, bob, eve = [await callers("acme", name) for name in ("alice", "bob", "eve")]
    key = (await made(alice, assistant_id="slow"))["thread_id"]
    path = f"/sessions/{key}"
    await alice.post(f"{path}/shares", json={"owner": "bob", "role": "writer"})
    await alice.post(f"{path}/shares", json={"owner": "eve", "role": "reader"})
    run = (
        await alice.post(f"/threads/{key}/runs", json={"assistant_id": "slow", "input": {}})
    ).json()
    at = f"{path}/runs/{run['run_id']}"
    assert (await eve.post(f"{at}/cancel")).status_code == 404
    assert (await bob.post(f"{at}/cancel")).status_code == 204
    told = [
        (await who.get(f"{at}/stream", headers={"Last-Event-ID": "-"})).text
        for who in (alice, bob, eve)
    ]
    assert told[0].startswith("event: metadata")
    assert told[0] == told[1] == told[2]
    for share in (await alice.get(f"{path}/shares")).json()["shares"]:
        await alice.delete(f"{path}/shares/{share['share_id']}")
    assert (await bob.get(f"{at}/stream")).status_code == 404
    pinned = (await alice.get(f"{path}/checkpoints/latest")).json()["checkpoint_id"]
    await alice.post(f"{path}/shares", json={"owner": "bob", "checkpoint_id": pinned})
    assert (await bob.get(f"{at}/stream")).status_code == 403


async def test_row_23_a_share_shows_checkpoints_as_far_as_it_reaches(callers: Callers) -> None:
    alice, bob = await callers("acme", "alice"), await callers("acme", "bob")
    key = (await made(alice, assistant_id="echo"))["thread_id"]
    path = f"/sessions/{key}"
    await said(alice, key, "first")
    early = (await alice.get(f"{path}/checkpoints/latest")).json()["checkpoint_id"]
    await said(alice, key, "secret")
    late = (await alice.get(f"{path}/checkpoints/latest")).json()["checkpoint_id"]
    assert (await bob.get(f"{path}/checkpoints")).status_code == 404
    pinned = {"owner": "bob", "checkpoint_id": early}
    share = (await alice.post(f"{path}/shares", json=pinned)).json()
    listed = (await bob.get(f"{path}/checkpoints")).json()["checkpoints"]
    assert [entry["checkpoint_id"] for entry in listed] == [early]
    for place in (early, "latest"):
        shown = await bob.get(f"{path}/checkpoints/{place}")
        assert shown.json()["checkpoint_id"] == early
        assert "first" in shown.text
        assert "secret" not in shown.text
    for refused in (f"{late}", f"{early}?line=1", "latest?line=1"):
        assert (await bob.get(f"{path}/checkpoints/{refused}")).status_code == 403
    assert (await bob.get(f"{path}/checkpoints", params={"scope": "all"})).status_code == 403
    for closed in ("checkpoints/tree", "pins", "labels", "export", f"diff?a={early}&b={late}"):
        assert (await bob.get(f"{path}/{closed}")).status_code == 404
    await alice.delete(f"{path}/shares/{share['share_id']}")
    assert (await bob.get(f"{path}/checkpoints/{early}")).status_code == 404
    await alice.post(f"{path}/shares", json={"owner": "bob"})  # live
    listed = (await bob.get(f"{path}/checkpoints")).json()["checkpoints"]
    assert {early, late} <= {entry["checkpoint_id"] for entry in listed}
    assert "secret" in (await bob.get(f"{path}/checkpoints/{late}")).text
    assert (await bob.get(f"{path}/checkpoints", params={"scope": "all"})).status_code == 403
    assert (await bob.delete(f"{path}/checkpoints/{early}")).status_code == 404
    assert (await bob.put(f"{path}/checkpoints/{early}/pin", json={})).status_code == 404


async def test_a_session_is_handed_over_with_all_that_belongs_to_it(callers: Callers) -> None:
    alice, bob = await callers("acme", "alice"), await callers("acme", "bob")
    root = await callers("acme", "root", "admin")
    key = (await made(alice, assistant_id="echo", tags=["t"], title="会议"))["thread_id"]
    await said(alice, key, "before")
    path = f"/sessions/{key}"
    assert (await alice.post(f"{path}/transfer", json={"owner": "bob"})).status_code == 403
    assert (await root.post(f"{path}/transfer", json={"owner": "bob"})).status_code == 200
    assert (await alice.get(path)).status_code == 404
    await said(bob, key, "after")
    page = (await bob.get(f"{path}/messages")).json()
    contents = [m["message"]["content"] for m in page["messages"]]
    assert contents == ["before", "before", "after", "after"]
    assert len((await bob.get("/sessions", params={"tag": "t"})).json()["sessions"]) == 1
    assert len((await bob.get("/sessions", params={"q": "议"})).json()["sessions"]) == 1
    assert (await alice.get("/sessions", params={"tag": "t"})).json()["sessions"] == []


async def test_an_owner_is_erased_over_http(callers: Callers) -> None:
    alice = await callers("acme", "alice")
    root = await callers("acme", "root", "admin")
    await said(alice, (await made(alice))["thread_id"], "hi")
    assert (await alice.post("/owners/alice/erase")).status_code == 403
    receipt = (await root.post("/owners/alice/erase")).json()
    assert receipt["removed"]["session"] == 1
    assert (await root.get(f"/erasures/{receipt['receipt_id']}")).json() == receipt
    assert (await alice.get("/sessions")).status_code == 401  # its key went too


async def test_row_16_titles_come_by_themselves_and_on_request(callers: Callers) -> None:
    alice = await callers("acme", "alice")
    key = (await made(alice, assistant_id="echo"))["thread_id"]
    assert (await alice.post(f"/sessions/{key}/title")).status_code == 409
    async with asyncio.timeout(30):
        async with alice.stream("GET", "/sessions/events", params={"thread_id": key}) as feed:
            await said(alice, key, "帮我写总结。谢谢")
            async for line in feed.aiter_lines():
                if line == "event: session.updated":
                    break
    assert (await alice.get(f"/sessions/{key}")).json()["title"] == "帮我写总结。谢谢"
    await alice.patch(f"/sessions/{key}", json={"title": "other"})
    retitled = await alice.post(f"/sessions/{key}/title")
    assert retitled.json()["title"] == "帮我写总结。谢谢"


async def test_row_28_a_feed_goes_on_where_it_was_cut(callers: Callers) -> None:
    alice = await callers("acme", "alice")
    bob = await callers("acme", "bob")

    async def told(last: str | None, count: int) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        headers = {"last-event-id": last} if last else {}
        async with (
            asyncio.timeout(30),
            alice.stream("GET", "/sessions/events", headers=headers) as feed,
        ):
            if last is None:
                await made(alice, title="one")
                await made(bob)
                await made(alice, title="two")
            kind = ""
            async for line in feed.aiter_lines():
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ")
                if line.startswith("id: "):
                    found.append((line.removeprefix("id: "), kind))
                    if len(found) == count:
                        break
        return found

    first = await told(None, 2)
    assert [kind for _, kind in first] == ["session.created"] * 2
    assert await told(first[0][0], 1) == first[1:]
    refused = await alice.get("/sessions/events", headers={"last-event-id": "x"})
    assert refused.status_code == 422


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"unknown": 1}, 422),
        ({"title": "x" * 501}, 413),
        ({"tags": ["x"] * 65 + [str(n) for n in range(65)]}, 413),
        ({"metadata": {"a": "\x00"}}, 422),
        ({"title": "a\x00"}, 422),
        ({"thread_id": "x"}, 422),
        ({"ttl": -1}, 422),
        ({"ttl": {"ttl": 1, "unknown": 2}}, 422),
        ({"assistant_id": "no such graph"}, 422),
        ({"assistant_id": "00000000-0000-0000-0000-000000000000"}, 404),
        ({"template_id": "x"}, 404),
    ],
)
async def test_bad_input_is_named(callers: Callers, body: Json, status: int) -> None:
    alice = await callers("acme", "alice")
    reply = await alice.post("/sessions", json=body)
    assert reply.status_code == status, reply.text
    problem = reply.json()
    assert reply.headers["content-type"] == "application/problem+json"
    assert isinstance(problem["detail"], str)
    assert problem["code"]


async def test_rows_10_and_30_expired_sessions_are_gone_and_counted(
    callers: Callers, db: Database
) -> None:
    alice = await callers("acme", "alice")
    key = (await made(alice, ttl=0))["thread_id"]
    for reply in (
        await alice.get(f"/sessions/{key}"),
        await alice.post(f"/sessions/{key}/messages", json={"content": "x"}),
        await alice.post(f"/sessions/{key}/archive"),
        await alice.get(f"/threads/{key}"),
    ):
        assert (reply.status_code, reply.json()["code"]) == (410, "gone")
    await made(alice, assistant_id="echo")
    stats = (await alice.get("/sessions/stats")).json()
    assert stats["by_state"] == {"active": 1, "expired": 1}
    assert stats["by_agent"]["echo"]["sessions"] == 1
