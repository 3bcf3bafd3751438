"""Every route of the OpenAPI document, tried with somebody else's ids by a neighbour of the same
tenant and by a stranger of another: nothing is read, nothing is changed, and what is foreign looks
like what is not there. A new route fails here until it says what to try.
"""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect

from clew.checkpointing.postgres import Database
from clew.runtime import ids, keys
from tests import routes
from tests.isolation import victim
from tests.isolation.victim import SECRET, Json, Life
from tests.serving import serve

OPERATIONS = [
    (method.upper(), path)
    for path, operations in routes.application().openapi()["paths"].items()
    for method in operations
]

# These are nobody's: the server's own, and what every owner shares.
OPEN = {
    ("GET", "/ok"),
    ("GET", "/info"),
    ("GET", "/metrics"),
    ("GET", "/.well-known/agent-card.json"),
    ("GET", "/assistants/{name}/graph"),
}
# These answer 200 with an error inside, whatever is wrong.
ENVELOPES = {("POST", "/threads/{thread_id}/commands"), ("POST", "/a2a/{assistant_id}")}
# The one creation by a route with an id in its path: foreign and unknown are both a conflict.
CONFLICT = {("POST", "/threads/{thread_id}/copy")}

MESSAGE: Json = {"messages": [{"role": "user", "content": "x"}]}
# What makes a request one that its owner could make. `$name` is an id of alice's.
BODIES: dict[tuple[str, str], Json] = {
    ("POST", "/assistants"): {
        "graph_id": "echo", "assistant_id": "$assistant_id", "if_exists": "do_nothing",
    },
    ("POST", "/assistants/search"): {"metadata": {"s": SECRET}},
    ("POST", "/assistants/count"): {"metadata": {"s": SECRET}},
    ("PATCH", "/assistants/{assistant_id}"): {"name": "mine"},
    ("POST", "/assistants/{assistant_id}/versions"): {},
    ("POST", "/assistants/{assistant_id}/latest"): {"version": 1},
    ("POST", "/threads"): {"thread_id": "$thread_id", "if_exists": "do_nothing"},
    ("PATCH", "/threads/{thread_id}"): {"metadata": {"mine": 1}},
    ("POST", "/threads/search"): {"ids": ["$thread_id"], "metadata": {"s": SECRET}},
    ("POST", "/threads/count"): {"metadata": {"s": SECRET}},
    ("POST", "/threads/prune"): {"thread_ids": ["$thread_id"]},
    ("POST", "/threads/{thread_id}/state"): {"values": MESSAGE},
    ("POST", "/threads/{thread_id}/state/checkpoint"): {
        "checkpoint": {"checkpoint_id": "$checkpoint_id"},
    },
    ("POST", "/threads/{thread_id}/history"): {"limit": 10},
    ("POST", "/threads/{thread_id}/commands"): {
        "id": 1, "method": "run.start", "params": {"assistant_id": "echo", "input": MESSAGE},
    },
    ("POST", "/threads/{thread_id}/stream/events"): {"channels": ["values"]},
    ("POST", "/threads/{thread_id}/runs"): {"assistant_id": "echo", "input": MESSAGE},
    ("POST", "/threads/{thread_id}/runs/stream"): {"assistant_id": "echo", "input": MESSAGE},
    ("POST", "/threads/{thread_id}/runs/wait"): {"assistant_id": "echo", "input": MESSAGE},
    ("POST", "/runs"): {"assistant_id": "$assistant_id", "input": MESSAGE},
    ("POST", "/runs/stream"): {"assistant_id": "$assistant_id", "input": MESSAGE},
    ("POST", "/runs/wait"): {"assistant_id": "$assistant_id", "input": MESSAGE},
    ("POST", "/runs/batch"): [{"assistant_id": "$assistant_id", "input": MESSAGE}],  # pyright: ignore[reportAssignmentType]
    ("POST", "/runs/cancel"): {"thread_id": "$thread_id", "run_ids": ["$run_id"]},
    ("PUT", "/store/items"): {"namespace": ["notes"], "key": "k", "value": {"mine": 1}},
    ("DELETE", "/store/items"): {"namespace": ["notes"], "key": "k"},
    ("POST", "/store/items/search"): {"namespace_prefix": ["notes"]},
    ("POST", "/store/namespaces"): {},
    ("POST", "/sessions"): {"thread_id": "$thread_id", "if_exists": "do_nothing"},
    ("POST", "/sessions/batch"): {"get": ["$thread_id"]},
    ("PATCH", "/sessions/{thread_id}"): {"title": "mine"},
    ("POST", "/sessions/{thread_id}/transfer"): {"owner": "bob"},
    ("POST", "/sessions/{thread_id}/messages"): {"content": "x", "assistant_id": "echo"},
    ("POST", "/sessions/{thread_id}/shares"): {"owner": "bob"},
    ("POST", "/sessions/{thread_id}/checkpoints"): {"label": "mine", "data": {}},
    ("PUT", "/sessions/{thread_id}/labels/{name}"): {"checkpoint_id": "$checkpoint_id"},
    ("PUT", "/sessions/{thread_id}/retention"): {"policy": "keep_all"},
    ("POST", "/sessions/{thread_id}/restore"): {"checkpoint_id": "$checkpoint_id"},
    ("POST", "/sessions/{thread_id}/bisect"): {
        "where": {"path": "values.messages", "op": "exists"},
    },
    ("POST", "/templates"): {"name": "mine", "body": {}},
    ("PATCH", "/templates/{template_id}"): {"name": "mine"},
    ("POST", "/a2a/{assistant_id}"): {
        "jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": {
            "kind": "message", "role": "user", "messageId": "m", "contextId": "$thread_id",
            "parts": [{"kind": "text", "text": "x"}],
        }},
    },
    ("POST", "/webhooks"): {"url": "https://example.com/hook"},
    ("POST", "/runs/crons"): {"assistant_id": "$assistant_id", "schedule": "0 0 1 1 *"},
    ("POST", "/threads/{thread_id}/runs/crons"): {
        "assistant_id": "echo", "schedule": "0 0 1 1 *",
    },
    ("POST", "/runs/crons/search"): {"thread_id": "$thread_id"},
    ("POST", "/runs/crons/count"): {"thread_id": "$thread_id"},
    ("PATCH", "/runs/crons/{cron_id}"): {"enabled": False},
}  # fmt: skip
QUERIES: dict[tuple[str, str], Json] = {
    ("GET", "/sessions"): {"q": SECRET},
    ("GET", "/sessions/events"): {"thread_id": "$thread_id"},
    ("GET", "/store/items"): {"namespace": "notes", "key": "k"},
    ("GET", "/sessions/{thread_id}/diff"): {"a": "$checkpoint_id", "b": "$checkpoint_id"},
}
# Where there is no id in the path, what the neighbour gets is its own, which has nothing of alice.
NOBODYS = ids.mint()
PATHS = {"graph_id": "echo", "name": "mark", "owner": "alice", "receipt_id": ids.mint(),
         "namespace": "x"}  # fmt: skip


def filled(value: Any, life: Life) -> Any:
    text = json.dumps(value)
    return json.loads(re.sub(r"\$(\w+)", lambda m: str(life.ids[m[1]]), text))


def address(path: str, life: Life) -> str:
    known = {**PATHS, **life.ids}
    return re.sub(r"\{(\w+)(?::\w+)?\}", lambda m: str(known.get(m[1], NOBODYS)), path)


async def attempt(
    client: httpx.AsyncClient, operation: tuple[str, str], life: Life
) -> tuple[int, str]:
    """The answer, or as much of a stream as says whether it is one."""
    method, path = operation
    body = BODIES.get(operation)
    async with client.stream(
        method,
        address(path, life),
        params=filled(QUERIES.get(operation, {}), life),
        json=filled(body, life) if body is not None else None,
    ) as reply:
        if reply.headers.get("content-type", "").startswith("text/event-stream"):
            # A stream that was granted is a fault already; what it begins with is for the report.
            text = ""
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.3):
                    async for chunk in reply.aiter_text():
                        text += chunk
            return reply.status_code, text
        await reply.aread()
        return reply.status_code, reply.text


def refused(operation: tuple[str, str], status: int, text: str) -> bool:
    if operation in ENVELOPES:
        return '"error"' in text
    return status in ((409,) if operation in CONFLICT else (403, 404))


@pytest_asyncio.fixture
async def people(db: Database, dsn: str) -> AsyncIterator[dict[str, Any]]:
    async with serve(dsn, api_keys=True, titles="off") as url, AsyncExitStack() as stack:
        found: dict[str, Any] = {"url": url}
        for tenant, name in (("acme", "alice"), ("acme", "bob"), ("umbrella", "eve")):
            _, text = await keys.create(db, tenant, name, name=name)
            client = httpx.AsyncClient(base_url=url, headers={"x-api-key": text}, timeout=20)
            found[name] = await stack.enter_async_context(client)
            found[f"{name}_key"] = text
        yield found


async def test_row_6_no_route_shows_or_changes_what_is_somebody_elses(
    db: Database, people: dict[str, Any]
) -> None:
    life = await victim.live(people["alice"], db)
    before = await victim.snapshot(db, life.owner_id)
    nowhere = Life(life.owner_id, {name: ids.mint() for name in life.ids})
    faults: list[str] = []
    for operation in OPERATIONS:
        if operation in OPEN:
            continue
        for name in ("bob", "eve"):
            status, text = await attempt(people[name], operation, life)
            told = f"{name}: {operation[0]} {operation[1]} -> {status} {text[:150]}"
            if status >= 500 or SECRET in text or json.dumps(SECRET)[1:-1] in text:
                faults.append(told)
            of_alice = re.search(
                r"\{(thread_id|assistant_id|run_id|template_id|cron_id|webhook_id)\}", operation[1]
            )
            if of_alice and not refused(operation, status, text):
                faults.append(f"not refused: {told}")
            if of_alice and status == 404:
                # The same as for an id that nobody has.
                other_status, other = await attempt(people[name], operation, nowhere)
                for key, value in life.ids.items():
                    text, other = text.replace(value, "#"), other.replace(nowhere.ids[key], "#")
                if (status, text) != (other_status, other):
                    faults.append(f"told apart: {told} / {other_status} {other[:150]}")
        after = await victim.snapshot(db, life.owner_id)
        if tables := victim.changed(before, after):
            faults.append(f"{operation[0]} {operation[1]} changed {', '.join(tables)}")
            before = after
    assert not faults, "\n".join(faults)


async def test_row_6_a_key_for_the_store_alone_opens_nothing_else(
    db: Database, people: dict[str, Any]
) -> None:
    life = await victim.live(people["alice"], db)
    before = await victim.snapshot(db, life.owner_id)
    _, text = await keys.create(db, "acme", "alice", name="narrow", scopes=["store:write"])
    faults: list[str] = []
    async with httpx.AsyncClient(base_url=people["url"], headers={"x-api-key": text}) as narrow:
        for operation in OPERATIONS:
            if operation in OPEN | ENVELOPES or operation[1].startswith(("/store", "/mcp")):
                continue
            status, told = await attempt(narrow, operation, life)
            if status != 403 and '"code":"forbidden"' not in told:
                faults.append(f"{operation[0]} {operation[1]} -> {status} {told[:150]}")
    assert not faults, "\n".join(faults)
    assert not victim.changed(before, await victim.snapshot(db, life.owner_id))


async def test_the_same_requests_are_ones_that_their_owner_can_make(
    db: Database, people: dict[str, Any]
) -> None:
    """Otherwise the suite would prove nothing: a malformed request is refused to anybody."""
    faults: list[str] = []
    life: Life | None = None
    spent = False
    for operation in OPERATIONS:
        if operation in OPEN or "erase" in operation[1] or "erasures" in operation[1]:
            continue
        if life is None or spent:
            life = await victim.live(people["alice"], db)
        spent = operation[0] == "DELETE" or operation[1].endswith(("archive", "prune", "transfer"))
        status, text = await attempt(people["alice"], operation, life)
        if status in (400, 404, 405, 415, 422) and operation not in UNANSWERED:
            faults.append(f"{operation[0]} {operation[1]} -> {status} {text[:200]}")
    assert not faults, "\n".join(faults)


# Of these even the owner has none, or asks for what needs more than one request.
UNANSWERED = {
    ("GET", "/assistants/{assistant_id}/subgraphs/{namespace}"),
    ("POST", "/sessions/import"),
    ("POST", "/mcp"),
    ("POST", "/webhooks"),  # names a host, which is looked up
    ("DELETE", "/webhooks/{webhook_id}"),
    ("POST", "/threads/{thread_id}/runs/{run_id}/cancel"),
    ("POST", "/sessions/{thread_id}/runs/{run_id}/cancel"),
    ("GET", "/a2a/{assistant_id}/.well-known/agent-card.json"),
    ("POST", "/runs/cancel"),
    ("POST", "/sessions/{thread_id}/undelete"),
    ("POST", "/sessions/{thread_id}/unarchive"),
}


async def test_row_6_batches_and_copies_take_nothing_of_somebody_else(
    db: Database, people: dict[str, Any]
) -> None:
    life = await victim.live(people["alice"], db)
    before = await victim.snapshot(db, life.owner_id)
    key, checkpoint_id = life.ids["thread_id"], life.ids["checkpoint_id"]
    for name in ("bob", "eve"):
        client: httpx.AsyncClient = people[name]
        mine = (await client.post("/sessions", json={"assistant_id": "echo"})).json()["thread_id"]
        body = {"content": "x", "stream": False}
        await client.post(f"/sessions/{mine}/messages", json=body)
        replies = [
            await client.post("/sessions/batch", json={"delete": [key]}),
            await client.post("/sessions", json={"template_id": life.ids["template_id"]}),
            await client.post("/sessions", json={"assistant_id": life.ids["assistant_id"]}),
            await client.post(f"/sessions/{mine}/restore", json={"checkpoint_id": checkpoint_id}),
            await client.get(f"/sessions/{mine}/checkpoints/{checkpoint_id}"),
            await client.get(f"/threads/{mine}/state/{checkpoint_id}"),
            await client.get(f"/threads/{mine}/runs/{life.ids['run_id']}"),
            await client.get(f"/threads/{mine}/runs/{life.ids['run_id']}/stream"),
            await client.post(
                f"/threads/{mine}/runs/wait",
                json={"assistant_id": "echo", "checkpoint_id": checkpoint_id, "input": MESSAGE},
            ),
            await client.get("/sessions/shared"),
            await client.get("/sessions"),
            await client.get("/sessions/stats"),
            await client.get("/templates"),
        ]
        for reply in replies:
            assert reply.status_code < 500, reply.text
            assert SECRET not in reply.text
            assert json.dumps(SECRET)[1:-1] not in reply.text
    assert victim.changed(before, await victim.snapshot(db, life.owner_id)) == []


@pytest.mark.parametrize("name", ["bob", "eve"])
async def test_row_6_a_websocket_on_a_foreign_session_tells_nothing(
    db: Database, people: dict[str, Any], name: str
) -> None:
    life = await victim.live(people["alice"], db)
    before = await victim.snapshot(db, life.owner_id)
    commands: list[Json] = [
        {"id": 1, "method": "subscription.subscribe", "params": {"channels": ["values"]}},
        {"id": 2, "method": "run.start", "params": {"assistant_id": "echo", "input": MESSAGE}},
        {"id": 3, "method": "input.respond", "params": {"response": "mine"}},
        {"id": 4, "method": "state.get", "params": {}},
    ]

    async def answers(thread_id: str, *, meanwhile: bool = False) -> list[str]:
        place = people["url"].replace("http", "ws") + f"/threads/{thread_id}/stream/events"
        headers = {"x-api-key": people[f"{name}_key"]}
        heard: list[str] = []
        async with connect(place, additional_headers=headers) as ws:
            for command in commands:
                await ws.send(json.dumps(command))
                heard.append(str(await ws.recv()).replace(thread_id, "#"))
            if meanwhile:
                # What alice's next turn streams is not for this subscription.
                said = {"messages": [{"role": "user", "content": SECRET}]}
                asked = {"assistant_id": "echo", "input": said}
                path = f"/threads/{thread_id}/runs/wait"
                assert (await people["alice"].post(path, json=asked)).status_code == 200
                await ws.send("{}")  # answered after whatever came before it
                heard.append(str(await ws.recv()))
        return heard

    heard = await answers(life.ids["thread_id"])
    assert SECRET not in "".join(heard)
    assert victim.changed(before, await victim.snapshot(db, life.owner_id)) == []
    # A subscription is granted before a session exists: foreign and unknown are one here too.
    assert heard[0] == (await answers(ids.mint()))[0]
    heard = await answers(life.ids["thread_id"], meanwhile=True)
    assert SECRET not in "".join(heard)
    assert '"error"' in heard[-1], heard[-1]
