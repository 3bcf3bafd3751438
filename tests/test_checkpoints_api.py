"""Rewinding over HTTP, with the official client looking on: it sees the restored path alone."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import jwt
import pytest
import pytest_asyncio
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import ConflictError

from tests.serving import serve

SECRET = "a-secret-of-more-than-thirty-two-bytes"
NOBODY = "00000000-0000-4000-8000-000000000000"

Json = dict[str, Any]


def token(name: str, **claims: Any) -> dict[str, str]:
    told = {"sub": name, "exp": int(time.time()) + 3600, **claims}
    return {"authorization": "Bearer " + jwt.encode(told, SECRET, "HS256")}


@pytest_asyncio.fixture
async def url(dsn: str) -> AsyncIterator[str]:
    async with serve(dsn, jwt_secret=SECRET) as base:
        yield base


@pytest_asyncio.fixture
async def client(url: str) -> AsyncIterator[LangGraphClient]:
    async with get_client(url=url, headers=token("alice")) as official:
        yield official


@pytest_asyncio.fixture
async def http(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, headers=token("alice"), timeout=30) as plain:
        yield plain


def hello(text: str) -> Json:
    return {"messages": [{"role": "user", "content": text}]}


async def ok(answer: Any, status: int = 200) -> Any:
    found: httpx.Response = await answer
    assert found.status_code == status, found.text
    return found.json() if found.content else None


async def refused(answer: Any, status: int, code: str) -> Json:
    found: httpx.Response = await answer
    assert found.status_code == status, found.text
    assert found.headers["content-type"] == "application/problem+json"
    assert found.json()["code"] == code, found.text
    assert isinstance(found.json()["detail"], str)
    return found.json()


async def said(client: LangGraphClient, thread_id: str) -> list[str]:
    values: Any = (await client.threads.get_state(thread_id))["values"]
    return [message["content"] for message in values["messages"]]


async def talk(client: LangGraphClient, *turns: str) -> tuple[str, list[str]]:
    """A thread with these turns, and the checkpoint that each ended with."""
    thread_id = (await client.threads.create())["thread_id"]
    heads: list[str] = []
    for turn in turns:
        await client.runs.wait(thread_id, "echo", input=hello(turn))
        heads.append(await head(client, thread_id))
    return thread_id, heads


async def head(client: LangGraphClient, thread_id: str) -> str:
    state: Any = await client.threads.get_state(thread_id)
    return state["checkpoint"]["checkpoint_id"]


async def path(client: LangGraphClient, thread_id: str) -> list[str]:
    history: Any = await client.threads.get_history(thread_id, limit=100)
    return [state["checkpoint"]["checkpoint_id"] for state in history]


async def test_row_37_an_operator_lists_restores_and_forks_and_clients_see_the_restored_path(
    client: LangGraphClient, http: httpx.AsyncClient
) -> None:
    thread_id, (first, second) = await talk(client, "one", "二")
    at = f"/sessions/{thread_id}"
    listed = await ok(http.get(f"{at}/checkpoints", params={"limit": 2}))
    assert listed["checkpoints"][0]["checkpoint_id"] == second
    older = await ok(http.get(f"{at}/checkpoints", params={"before": listed["before"]}))
    assert older["before"] is None
    assert len(listed["checkpoints"]) + len(older["checkpoints"]) == 6
    moved = await ok(
        http.post(f"{at}/restore", json={"checkpoint_id": first, "reason": "wrong turn"})
    )
    assert (moved["status"], moved["next"], moved["checkpoint_id"]) == ("idle", [], first)
    assert await said(client, thread_id) == ["one", "one"]
    shown = await path(client, thread_id)
    assert shown[0] == first
    assert second not in shown
    tree = await ok(http.get(f"{at}/checkpoints/tree"))
    assert {entry["checkpoint_id"] for entry in tree["checkpoints"]} >= {first, second}
    [now] = [branch for branch in tree["branches"] if branch["is_head"]]
    assert (now["tip"], now["reason"], now["actor"]) == (first, "wrong turn", "owner:default/alice")
    # A turn goes on from there, and the restored path grows.
    await client.runs.wait(thread_id, "echo", input=hello("three"))
    assert await said(client, thread_id) == ["one", "one", "three", "three"]
    forked = await ok(http.post(f"{at}/fork", json={"checkpoint_id": second, "title": "分叉"}), 201)
    assert forked["parent_thread_id"] == thread_id
    assert forked["title"] == "分叉"
    assert await said(client, forked["thread_id"]) == ["one", "one", "二", "二"]
    undone = await ok(http.post(f"{at}/undo"))
    assert undone["checkpoint_id"] == second
    assert await said(client, thread_id) == ["one", "one", "二", "二"]
    await refused(http.post(f"{at}/undo"), 409, "nothing_to_undo")


async def test_row_20_an_interrupted_session_is_forked_and_answered_on_both_sides(
    client: LangGraphClient, http: httpx.AsyncClient
) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    await client.runs.wait(thread_id, "parent", input={"x": ["in"]})
    asked = await head(client, thread_id)
    forked = await ok(http.post(f"/sessions/{thread_id}/fork"), 201)
    other = forked["thread_id"]
    assert (forked["status"], forked["next"]) == ("interrupted", ["child"])
    for one, answer in ((other, "no"), (thread_id, "yes")):
        thread = await client.threads.get(one)
        assert thread["status"] == "interrupted"
        [[waiting]] = thread["interrupts"].values()
        assert waiting["value"] == {"question": "approve?"}
        values: Any = await client.runs.wait(one, "parent", command={"resume": answer})
        assert values["answer"] == answer
        assert (await client.threads.get(one))["status"] == "idle"
    # Back to the question, and the other answer.
    moved = await ok(http.post(f"/sessions/{thread_id}/restore", json={"checkpoint_id": asked}))
    assert (moved["status"], moved["next"]) == ("interrupted", ["child"])
    state: Any = await client.threads.get_state(thread_id)
    assert state["next"] == ["child"]
    assert "answer" not in state["values"]
    values = await client.runs.wait(thread_id, "parent", command={"resume": "later"})
    assert values["answer"] == "later"
    fork_state: Any = await client.threads.get_state(other)
    assert fork_state["values"]["answer"] == "no"


async def test_a_failed_session_restored_goes_on_from_before_its_failure(
    client: LangGraphClient, http: httpx.AsyncClient
) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    await client.runs.wait(thread_id, "fails", input={"x": ["in"]}, raise_error=False)
    assert (await client.threads.get(thread_id))["status"] == "error"
    failed, before = (await path(client, thread_id))[:2]
    at = f"/sessions/{thread_id}/restore"
    moved = await ok(http.post(at, json={"checkpoint_id": before}))
    assert (moved["status"], moved["next"], moved["error"]) == ("interrupted", ["one"], None)
    moved = await ok(http.post(at, json={"checkpoint_id": failed}))
    assert (moved["status"], moved["next"]) == ("error", ["boom"])


async def test_nothing_moves_while_a_run_is_in_flight(
    client: LangGraphClient, http: httpx.AsyncClient
) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    started = asyncio.Event()

    async def run() -> None:
        async for part in client.runs.stream(
            thread_id, "slow", input={"x": [], "wait": 60}, stream_mode="custom"
        ):
            if part.event == "custom":
                started.set()

    running = asyncio.create_task(run())
    await started.wait()
    begun = (await path(client, thread_id))[-1]
    at = f"/sessions/{thread_id}"
    for attempt in (
        http.post(f"{at}/restore", json={"checkpoint_id": begun}),
        http.post(f"{at}/undo"),
        http.post(f"{at}/checkpoints", json={"label": "x"}),
        http.delete(f"{at}/checkpoints"),
        http.delete(f"{at}/checkpoints/{begun}"),
        http.post(f"{at}/prune"),
    ):
        problem = await refused(attempt, 409, "conflict")
        assert "already running a task" in problem["detail"]
    pruned = await client.threads.prune([thread_id], strategy="keep_latest")
    assert pruned["pruned_count"] == 0
    await ok(http.post(f"{at}/fork", json={"checkpoint_id": begun}), 201)
    [run_row] = await client.runs.list(thread_id)
    await client.runs.cancel(thread_id, run_row["run_id"], wait=True)
    await running
    await ok(http.post(f"{at}/restore", json={"checkpoint_id": begun}))


async def test_row_19_checkpoints_are_saved_with_data_found_pinned_and_removed(
    client: LangGraphClient, http: httpx.AsyncClient
) -> None:
    thread_id, (first, second) = await talk(client, "one", "two")
    at = f"/sessions/{thread_id}"
    latest = await ok(http.get(f"{at}/checkpoints/latest"))
    assert latest["checkpoint_id"] == second
    assert len(latest["state"]["values"]["messages"]) == 4
    one = await ok(http.get(f"{at}/checkpoints/{first}"))
    assert [m["content"] for m in one["state"]["values"]["messages"]] == ["one", "one"]
    bare = await ok(http.get(f"{at}/checkpoints/{first}", params={"state": False}))
    assert "state" not in bare
    saved = await ok(
        http.post(f"{at}/checkpoints", json={"label": "里程碑/1", "data": {"n": [1, "二"]}}), 201
    )
    assert saved["has_data"]
    found = await ok(http.get(f"{at}/labels/里程碑/1"))
    assert found["data"] == {"n": [1, "二"]}
    await refused(
        http.put(f"{at}/labels/里程碑/1", json={"checkpoint_id": first}), 409, "label_taken"
    )
    await ok(http.put(f"{at}/labels/start", json={"checkpoint_id": first}))
    await ok(http.put(f"{at}/checkpoints/{second}/pin", json={"reason": "proof"}))
    [pin] = (await ok(http.get(f"{at}/pins")))["pins"]
    assert (pin["checkpoint_id"], pin["reason"]) == (second, "proof")
    for held in (first, second):
        await refused(http.delete(f"{at}/checkpoints/{held}"), 409, "checkpoint_in_use")
    await ok(http.delete(f"{at}/labels/start"), 204)
    await ok(http.delete(f"{at}/checkpoints/{second}/pin"), 204)
    gone = await ok(http.delete(f"{at}/checkpoints/{first}"))
    assert gone["checkpoint_ids"] == [first]
    assert first not in await path(client, thread_id)
    moved = await ok(http.post(f"{at}/restore", json={"label": "里程碑/1"}))
    assert moved["checkpoint_id"] == saved["checkpoint_id"]
    await ok(http.delete(f"{at}/checkpoints"), 204)
    assert await path(client, thread_id) == []
    assert (await ok(http.get(f"{at}/checkpoints")))["checkpoints"] == []
    await client.runs.wait(thread_id, "echo", input=hello("anew"))
    assert await said(client, thread_id) == ["anew", "anew"]


async def test_diff_and_bisect_tell_what_changed_and_when(
    client: LangGraphClient, http: httpx.AsyncClient
) -> None:
    thread_id, heads = await talk(client, "one", "two", "北京", "four")
    at = f"/sessions/{thread_id}"
    diff = await ok(http.get(f"{at}/diff", params={"a": heads[0], "b": heads[1]}))
    added = diff["values"]["messages"]["added"]
    assert [item["value"]["content"] for item in added] == ["two", "two"]
    forked = await ok(http.post(f"{at}/fork", json={"checkpoint_id": heads[0]}), 201)
    across = await ok(http.get(f"{at}/diff", params={"with": forked["thread_id"]}))
    assert len(across["values"]["messages"]["removed"]) == 6
    where = {"path": "values.messages[*].content", "op": "contains", "value": "北京"}
    found = await ok(http.post(f"{at}/bisect", json={"where": where}))
    assert found["length"] == 12
    assert found["loads"] <= 6
    began = await ok(http.get(f"{at}/checkpoints/{found['checkpoint_id']}"))
    assert began["state"]["values"]["messages"][-1]["content"] == "北京"
    counted = await ok(
        http.post(
            f"{at}/bisect",
            json={"where": {"path": "values.messages", "op": "count>=", "value": 4}},
        )
    )
    assert counted["checkpoint_id"] == heads[1]
    never = {"all": [where, {"not": {"path": "next", "op": "exists"}}]}
    assert (await ok(http.post(f"{at}/bisect", json={"where": never})))["checkpoint_id"] is None


async def test_row_24_a_session_is_downloaded_and_uploaded_under_a_new_id(
    client: LangGraphClient, http: httpx.AsyncClient, url: str
) -> None:
    thread_id, (first, _) = await talk(client, "one", "two")
    await ok(http.post(f"/sessions/{thread_id}/restore", json={"checkpoint_id": first}))
    answer = await http.get(f"/sessions/{thread_id}/export")
    assert answer.headers["content-disposition"] == f'attachment; filename="{thread_id}.clew"'
    async with get_client(url=url, headers=token("bob")) as other:
        headers = token("bob")
        made = await ok(http.post("/sessions/import", content=answer.content, headers=headers), 201)
        assert made["imported"]["source_thread_id"] == thread_id
        assert await path(other, made["thread_id"]) == await path(client, thread_id)
        await other.runs.wait(made["thread_id"], "echo", input=hello("three"))
        assert await said(other, made["thread_id"]) == ["one", "one", "three", "three"]
        threads = len(await other.threads.search())
        for content, code in (
            (answer.content[:-20], "bundle_truncated"),
            (answer.content.replace(b'"scope":"all"', b'"scope":"ALL"'), "bundle_edited"),
            (b"hello\n", "bundle_unsupported"),
        ):
            await refused(
                http.post("/sessions/import", content=content, headers=headers), 422, code
            )
        assert len(await other.threads.search()) == threads
    taken = http.post("/sessions/import", params={"thread_id": thread_id}, content=answer.content)
    await refused(taken, 409, "thread_exists")


async def test_an_upload_has_a_largest_size_whether_it_tells_its_own_or_not(dsn: str) -> None:
    async def piecemeal() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield b"x" * 512

    async with serve(dsn, max_body=2048) as base, httpx.AsyncClient(base_url=base) as http:
        for content in (b"x" * 4096, piecemeal()):
            answer = await http.post("/sessions/import", content=content)
            assert answer.status_code == 413, answer.text
        assert (await ok(http.get("/sessions")))["sessions"] == []


async def test_retention_is_chosen_tried_and_applied(
    client: LangGraphClient, http: httpx.AsyncClient
) -> None:
    thread_id, heads = await talk(client, *(f"turn {n}" for n in range(4)))
    at = f"/sessions/{thread_id}"
    assert await ok(http.get(f"{at}/retention")) == {
        "policy": "keep_runs after 30d",
        "inherited": True,
    }
    await ok(http.put(f"{at}/retention", json={"policy": "keep_last 1"}))
    assert (await ok(http.get(f"{at}/retention"))) == {"policy": "keep_last 1", "inherited": False}
    await ok(http.put(f"{at}/checkpoints/{heads[1]}/pin"))
    before = await ok(http.get(f"{at}/storage"))
    would = await ok(http.post(f"{at}/prune", json={"dry_run": True}))
    assert await ok(http.get(f"{at}/storage")) == before
    did = await ok(http.post(f"{at}/prune"))
    assert {**did, "dry_run": True} == would
    after = await ok(http.get(f"{at}/storage"))
    assert after["total_bytes"] < before["total_bytes"]
    assert {heads[1], heads[3]} <= set(await path(client, thread_id))
    assert await said(client, thread_id) == [f"turn {n}" for n in range(4) for _ in "ab"]
    await ok(http.delete(f"{at}/retention"), 204)
    assert (await ok(http.get(f"{at}/retention")))["inherited"]


async def test_threads_are_copied_with_all_branches_pruned_and_measured(
    client: LangGraphClient, http: httpx.AsyncClient
) -> None:
    thread_id, heads = await talk(client, "one", "two")
    branch: Any = await client.threads.update_state(
        thread_id, hello("a branch"), checkpoint_id=heads[0], as_node="say"
    )
    await client.threads.update(thread_id, metadata={"k": "v"})
    # The SDK gives nothing back; the wire has the new thread.
    made = await ok(http.post(f"/threads/{thread_id}/copy"))
    assert made["thread_id"] != thread_id
    assert made["metadata"]["k"] == "v"
    assert made["status"] == "idle"
    assert "values" not in made
    copied = await path(client, made["thread_id"])
    assert copied == await path(client, thread_id)
    assert {*heads, branch["checkpoint"]["checkpoint_id"]} <= set(copied)
    with pytest.raises(ConflictError, match="Conflict"):
        await client.threads.copy(NOBODY)
    size = await ok(http.get(f"/threads/{thread_id}/storage"))
    parts = ("checkpoints", "channel_values", "pending_writes")
    assert size["total_bytes"] == sum(size[part]["bytes"] for part in parts)
    assert size["checkpoints"]["count"] == len(copied)
    alone, (_, latest) = await talk(client, "one", "two")
    both = [thread_id, alone, NOBODY]
    assert (await client.threads.prune(both, strategy="keep_latest"))["pruned_count"] == 2
    assert await path(client, alone) == [latest]
    # What the copy still sees is there for it.
    assert await path(client, made["thread_id"]) == copied
    assert (await client.threads.prune(both))["pruned_count"] == 2
    assert await path(client, made["thread_id"]) == copied
    assert await said(client, made["thread_id"]) == ["one", "one", "a branch"]
    assert [thread["thread_id"] for thread in await client.threads.search()] == [made["thread_id"]]


async def test_a_shared_session_is_continued_as_ones_own(
    client: LangGraphClient, http: httpx.AsyncClient, url: str
) -> None:
    thread_id, (first, second) = await talk(client, "one", "private")
    shares = f"/sessions/{thread_id}/shares"
    await ok(http.post(shares, json={"owner": "bob", "checkpoint_id": first}), 201)
    async with get_client(url=url, headers=token("bob")) as other:
        fork, headers = f"/sessions/{thread_id}/fork", token("bob")
        await refused(
            http.post(fork, json={"checkpoint_id": second}, headers=headers), 403, "forbidden"
        )
        made = await ok(http.post(fork, headers=headers), 201)
        await client.threads.delete(thread_id)
        await other.runs.wait(made["thread_id"], "echo", input=hello("mine"))
        assert await said(other, made["thread_id"]) == ["one", "one", "mine", "mine"]


async def test_an_admin_copies_for_another_owner_and_nobody_else_does(
    client: LangGraphClient, http: httpx.AsyncClient, url: str
) -> None:
    thread_id, _ = await talk(client, "one")
    fork = f"/sessions/{thread_id}/fork"
    await refused(http.post(fork, json={"owner": "bob"}), 403, "forbidden")
    admin = token("root", clew_role="admin")
    made = await ok(http.post(fork, json={"owner": "bob"}, headers=admin), 201)
    async with get_client(url=url, headers=token("bob")) as other:
        assert await said(other, made["thread_id"]) == ["one", "one"]
    await refused(http.get(f"/sessions/{made['thread_id']}"), 404, "not_found")


async def test_a_foreign_session_is_an_unknown_one_on_every_route(
    client: LangGraphClient, http: httpx.AsyncClient
) -> None:
    thread_id, (first,) = await talk(client, "one")
    before = await path(client, thread_id)
    where = {"path": "next", "op": "exists"}
    routes: list[tuple[str, str, Any]] = [
        ("GET", "checkpoints", None),
        ("GET", "checkpoints/tree", None),
        ("GET", "checkpoints/latest", None),
        ("GET", f"checkpoints/{first}", None),
        ("POST", "checkpoints", {"label": "x"}),
        ("DELETE", "checkpoints", None),
        ("DELETE", f"checkpoints/{first}", None),
        ("PUT", f"checkpoints/{first}/pin", {}),
        ("DELETE", f"checkpoints/{first}/pin", None),
        ("GET", "pins", None),
        ("GET", "labels", None),
        ("GET", "labels/x", None),
        ("PUT", "labels/x", {"checkpoint_id": first}),
        ("DELETE", "labels/x", None),
        ("POST", "restore", {"checkpoint_id": first}),
        ("POST", "undo", {}),
        ("POST", "fork", {}),
        ("GET", "diff", None),
        ("POST", "bisect", {"where": where}),
        ("GET", "export", None),
        ("GET", "retention", None),
        ("PUT", "retention", {"policy": "keep_all"}),
        ("DELETE", "retention", None),
        ("POST", "prune", {}),
        ("GET", "storage", None),
    ]
    for method, route, body in routes:
        told: list[str] = []
        for id_ in (thread_id, NOBODY):
            answer = await http.request(
                method, f"/sessions/{id_}/{route}", json=body, headers=token("bob")
            )
            assert answer.status_code == 404, (method, route, answer.text)
            told.append(answer.text.replace(id_, "ID"))
        assert told[0] == told[1], route
    own = await ok(http.post("/threads", json={}, headers=token("bob")))
    across = http.get(
        f"/sessions/{own['thread_id']}/diff", params={"with": thread_id}, headers=token("bob")
    )
    await refused(across, 404, "not_found")
    await refused(http.post(f"/threads/{thread_id}/copy", headers=token("bob")), 409, "conflict")
    pruned = http.post("/threads/prune", json={"thread_ids": [thread_id]}, headers=token("bob"))
    assert await ok(pruned) == {"pruned_count": 0}
    assert await path(client, thread_id) == before


NOT_UNDERSTOOD: list[tuple[str, str, Any, str]] = [
    ("POST", "restore", {"checkpoint_id": NOBODY, "extra": 1}, "extra"),
    ("POST", "restore", {}, "checkpoint_id: "),
    ("POST", "restore", {"checkpoint_id": NOBODY, "label": "x"}, "give one"),
    ("POST", "restore", {"checkpoint_id": "x"}, "checkpoint ID"),
    ("POST", "undo", {"because": "x"}, "because"),
    ("POST", "fork", {"name": "x"}, "name"),
    ("POST", "checkpoints", {"label": ""}, "label"),
    ("POST", "prune", {"policy": "keep_some"}, "policy"),
    ("PUT", "retention", {"policy": "ttl"}, "policy"),
    ("GET", "checkpoints?limit=0", None, "limit"),
    ("GET", "checkpoints?page=2", None, "page"),
    ("GET", "checkpoints?metadata=[1]", None, "metadata"),
    ("GET", "diff?c=1", None, "c"),
    ("GET", "checkpoints/nonsense", None, "must be a UUID"),
    ("PUT", f"checkpoints/{NOBODY}/pin", {"expires_at": "2030-01-01T00:00:00"}, "expires_at"),
    ("POST", "bisect", {"where": {"path": "x", "op": "matches", "value": "("}}, "where.op"),
    ("POST", "bisect", {"where": {"path": "x", "op": "=="}}, "where.value"),
    ("POST", "bisect", {"where": {"any": [{"not": 1}]}}, "where.any[0].not"),
    ("POST", "bisect", {"where": {"path": "a[", "op": "exists"}}, "path"),
]


async def test_what_is_not_understood_is_refused_by_name(
    client: LangGraphClient, http: httpx.AsyncClient
) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    for method, route, body, named in NOT_UNDERSTOOD:
        answer = http.request(method, f"/sessions/{thread_id}/{route}", json=body)
        problem = await refused(answer, 422, "invalid")
        assert named in problem["detail"], (route, body, problem)
