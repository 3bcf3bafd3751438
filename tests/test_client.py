"""The Python client against a real server: every route of it, awaited and not."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, closing
from itertools import islice
from pathlib import Path
from typing import Any, assert_type, cast

import httpx
import pytest
import pytest_asyncio
from pydantic import TypeAdapter

from clew.api import client as clients
from clew.api import client_calls, client_errors, client_wire, document
from clew.api.client import Client, SyncClient, get_client, get_sync_client
from clew.api.client_types import MovedSession, Session, SharedSession
from clew.checkpointing.postgres import Database
from clew.runtime import keys
from tests.routes import application
from tests.serving import serve

Json = dict[str, Any]

# What the official clients speak for, or no client; all else is the sessions face.
OFFICIAL = {"assistants", "threads", "protocol v2", "crons", "runs", "store"}
OTHER = {"system", "mcp", "a2a"}
ANSWERS = {name: answer for name, _, answer in document.known()}


class Caller:
    """One client, called by name: both kinds are used alike, and what comes back is checked against
    the type that the client promises."""

    def __init__(self, client: Client | SyncClient, used: set[str]) -> None:
        self.client, self.used = client, used

    async def __call__(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        self.used.add(name)
        face, method = name.split(".")
        bound = getattr(getattr(self.client, face), "import_" if method == "import" else method)
        if isinstance(self.client, Client):
            value = await bound(*args, **kwargs)
        else:
            value = await asyncio.to_thread(bound, *args, **kwargs)
        if not isinstance(value, Path):
            adapter = TypeAdapter(ANSWERS[name])
            assert adapter.dump_python(adapter.validate_python(value)) == value, name
        return value

    async def wait(self, thread_id: str, graph_id: str, given: Json) -> Any:
        """A run, by the official client."""
        if isinstance(self.client, Client):
            return await self.client.runs.wait(thread_id, graph_id, input=given)
        return await asyncio.to_thread(self.client.runs.wait, thread_id, graph_id, input=given)

    async def all(self, name: str, /, *args: Any, most: int = 1000, **kwargs: Any) -> list[Any]:
        self.used.add(name)
        face, method = name.split(".")
        items = getattr(getattr(self.client, face), method)(*args, **kwargs)
        found: list[Any] = []
        if isinstance(self.client, Client):
            async with aclosing(items):
                async for item in items:
                    found.append(item)
                    if len(found) == most:
                        break
            return found

        def walk() -> list[Any]:
            with closing(items):
                return list(islice(items, most))

        return await asyncio.to_thread(walk)


class World:
    def __init__(self, db: Database, url: str, stack: AsyncExitStack, mode: str) -> None:
        self.db, self.url, self.mode, self.used = db, url, mode, set[str]()
        self._stack = stack

    async def caller(self, name: str, role: keys.Role = "owner", url: str | None = None) -> Caller:
        _, text = await keys.create(self.db, "acme", name, name=name, role=role)
        at = url or self.url
        if self.mode == "async":
            client = await self._stack.enter_async_context(get_client(url=at, api_key=text))
            return Caller(client, self.used)
        return Caller(self._stack.enter_context(get_sync_client(url=at, api_key=text)), self.used)


@pytest_asyncio.fixture(params=["async", "sync"])
async def world(db: Database, dsn: str, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with serve(dsn, api_keys=True) as url, AsyncExitStack() as stack:
        yield World(db, url, stack, request.param)


async def test_row_32_every_route_of_the_sessions_face_awaited_and_not(
    world: World, tmp_path: Path
) -> None:
    alice, bob = await world.caller("alice"), await world.caller("bob")
    await _registry(alice)
    await _talk_and_rewind(alice)
    await _marks(alice)
    await _files(alice, tmp_path)
    await _sharing(alice, bob)
    await _questions(alice, bob)
    await _templates_and_webhooks(alice)
    await _as_admin(await world.caller("root", "admin"), alice)
    # The feed is without end, and has a test of its own.
    walks = {f"{face}.search" for face in ("sessions", "checkpoints", "interrupts")}
    assert {*ANSWERS, *walks, "sessions.all_messages"} == {*world.used, "sessions.events"}


async def _registry(alice: Caller) -> None:
    made = await alice("sessions.create", assistant_id="echo", title="会议", ttl=60, tags=["a"])
    key = made["thread_id"]
    assert (await alice("sessions.create", assistant_id="echo", reuse="latest"))["thread_id"] == key
    assert (await alice("sessions.get", key))["title"] == "会议"
    changed = await alice("sessions.patch", key, version=made["version"], title=None)
    assert changed["title"] is None
    with pytest.raises(client_errors.Stale):
        await alice("sessions.patch", key, version=made["version"], title="late")
    for n in range(4):
        await alice("sessions.create", metadata={"n": n, "文": "字"}, tags=["b"])
    page = await alice("sessions.list", metadata={"文": "字"}, limit=2, total=True)
    assert (len(page["sessions"]), page["total"]) == (2, 4)
    found = await alice.all("sessions.search", tag=["b"], limit=3, order="asc")
    assert [row["metadata"]["n"] for row in found] == [0, 1, 2, 3]
    assert (await alice("sessions.archive", key))["state"] == "archived"
    with pytest.raises(client_errors.Conflict) as refused:
        await alice("sessions.archive", key)
    assert refused.value.facts["state"] == "archived"
    assert (await alice("sessions.unarchive", key))["state"] == "active"
    assert (await alice("sessions.touch", key, ttl=5))["ttl"]["ttl"] == 5
    assert (await alice("sessions.delete", key))["state"] == "deleted"
    with pytest.raises(client_errors.NotFound):
        await alice("sessions.get", key)
    assert (await alice("sessions.undelete", key))["state"] == "active"
    moves = [entry["move"] for entry in (await alice("sessions.audit", key))["entries"]]
    assert moves[:2] == ["undelete", "delete"]
    assert (await alice("sessions.stats"))["sessions"] == 5
    unknown = "00000000-0000-4000-8000-000000000000"
    results = (await alice("sessions.batch", get=[key, unknown]))["results"]
    assert results[0]["session"]["thread_id"] == key
    assert results[1]["problem"]["code"] == "not_found"
    with pytest.raises(client_errors.NotFound) as missing:
        await alice("sessions.get", unknown)
    assert (missing.value.code, missing.value.status_code) == ("not_found", 404)
    with pytest.raises(client_errors.Invalid, match="colour"):
        await alice("sessions.create", colour="red")


async def _talk_and_rewind(alice: Caller) -> None:
    key = (await alice("sessions.create", assistant_id="echo"))["thread_id"]
    state = await alice("sessions.ask", key, content="你好")
    assert state["messages"][-1]["content"] == "你好"
    parts = await alice.all("sessions.send", key, content="again", stream_mode=["values"])
    assert (parts[0].event, parts[-1].event) == ("metadata", "end")
    run_id = parts[0].data["run_id"]
    assert await alice.all("sessions.follow", key, run_id, last_event_id="-") == parts
    page = await alice("sessions.messages", key, limit=3)
    assert (len(page["messages"]), page["total"]) == (3, 4)
    said = await alice.all("sessions.all_messages", key, order="desc", limit=1)
    texts = [item["message"]["content"] for item in said]
    assert texts == ["again", "again", "你好", "你好"]
    assert (await alice("sessions.title", key))["title"] == "你好"
    lines = await alice.all("checkpoints.search", key, limit=2)
    first = next(c for c in reversed(lines) if c["step"] == 1)["checkpoint_id"]
    moved = await alice("sessions.restore", key, checkpoint_id=first, reason="wrong turn")
    assert (moved["message_count"], moved["checkpoint_id"]) == (2, first)
    assert (await alice("sessions.undo", key))["message_count"] == 4
    forked = await alice("sessions.fork", key, checkpoint_id=first, title="另一条路")
    assert (forked["parent_thread_id"], forked["message_count"]) == (key, 2)
    assert forked["thread_id"] != key
    between = await alice("sessions.diff", key, with_=forked["thread_id"])
    assert [e["op"] for e in between["values"].values()] == ["changed"]
    where = {"path": "values.messages", "op": "count>=", "value": 3}
    assert (await alice("sessions.bisect", key, where=where))["before_id"] is not None
    with pytest.raises(client_errors.NothingToUndo):
        await alice("sessions.undo", forked["thread_id"])
    with pytest.raises(client_errors.UnknownCheckpoint):
        await alice("sessions.restore", key, checkpoint_id=key)


async def _marks(alice: Caller) -> None:
    key = (await alice("sessions.create", assistant_id="echo"))["thread_id"]
    for text in ("a", "b", "c"):
        await alice("sessions.ask", key, content=text)
    saved = await alice("checkpoints.save", key, label="v1/好", data={"n": 1})
    newest = saved["checkpoint_id"]
    assert (await alice("checkpoints.labelled", key, "v1/好"))["data"] == {"n": 1}
    page = await alice("checkpoints.list", key, limit=4)
    older = page["checkpoints"][-1]["checkpoint_id"]
    assert (await alice("checkpoints.label", key, "old", checkpoint_id=older))["name"] == "old"
    names = [label["name"] for label in (await alice("checkpoints.labels", key))["labels"]]
    assert names == ["v1/好", "old"]
    assert await alice("checkpoints.unlabel", key, "old") is None
    with pytest.raises(client_errors.UnknownLabel):
        await alice("checkpoints.labelled", key, "old")
    assert (await alice("checkpoints.pin", key, older, reason="why"))["reason"] == "why"
    assert len((await alice("checkpoints.pins", key))["pins"]) == 1
    await alice("checkpoints.unpin", key, older)
    assert (await alice("checkpoints.latest", key, state=False))["checkpoint_id"] == newest
    shown = await alice("checkpoints.get", key, newest)
    assert len(shown["state"]["values"]["messages"]) == 6
    assert len((await alice("checkpoints.tree", key))["branches"]) == 1
    assert (await alice("checkpoints.delete", key, older))["checkpoints"] == 1
    with pytest.raises(client_errors.CheckpointInUse):
        await alice("checkpoints.delete", key, newest)
    assert (await alice("sessions.retention", key))["inherited"] is True
    assert (await alice("sessions.set_retention", key, policy="keep_last 1"))["inherited"] is False
    would = await alice("sessions.prune", key, dry_run=True)
    assert would == {**await alice("sessions.prune", key), "dry_run": True}
    assert would["checkpoints"] > 0
    assert await alice("sessions.unset_retention", key) is None
    assert (await alice("sessions.storage", key))["total_bytes"] > 0
    await alice("checkpoints.clear", key)
    assert (await alice("checkpoints.list", key))["checkpoints"] == []


async def _files(alice: Caller, folder: Path) -> None:
    key = (await alice("sessions.create", assistant_id="echo", title="out"))["thread_id"]
    file = folder / f"{key}.clew"
    with pytest.raises(client_errors.NotFound):
        await alice("sessions.export", key, file)
    await alice("sessions.ask", key, content="once")
    assert await alice("sessions.export", key, file) == file
    made = await alice("sessions.import", file, reason="back")
    assert (made["title"], made["message_count"]) == ("out", 2)
    assert made["imported"]["checkpoints"] == 3
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(client_errors.BundleError):
        await alice("sessions.import", file)
    assert os.listdir(folder) == [file.name]  # noqa: PTH208 - one name


async def _sharing(alice: Caller, bob: Caller) -> None:
    key = (await alice("sessions.create", assistant_id="echo"))["thread_id"]
    await alice("sessions.ask", key, content="mine")
    with pytest.raises(client_errors.NotFound):
        await bob("sessions.get", key)
    share = await alice("shares.create", key, owner="bob", expires_in=60)
    assert (await bob("sessions.get", key))["share"]["share_id"] == share["share_id"]
    assert [s["thread_id"] for s in (await bob("shares.received"))["shares"]] == [key]
    with pytest.raises(client_errors.NotFound):
        await bob("sessions.stop", key, key)  # a reader
    assert (await alice("shares.revoke", key, share["share_id"]))["revoked_at"] is not None
    assert len((await alice("shares.list", key))["shares"]) == 1
    with pytest.raises(client_errors.Forbidden):
        await bob("owners.erase", "alice")


async def _questions(alice: Caller, bob: Caller) -> None:
    keys: list[str] = []
    asked: Json = {}
    for _ in range(3):
        keys.append((await alice("sessions.create"))["thread_id"])
        asked = await alice.wait(keys[-1], "ask", {"x": []})
    page = await alice("interrupts.list", limit=2)
    assert [q["thread_id"] for q in page["interrupts"]] == keys[:0:-1]
    assert page["offset"] == 2
    found = await alice.all("interrupts.search", limit=1)
    assert [q["thread_id"] for q in found] == keys[::-1]
    assert found[0]["interrupt_id"] == asked["__interrupt__"][0]["id"]
    assert found[0]["value"] == asked["__interrupt__"][0]["value"]
    (one,) = (await alice("interrupts.list", thread_id=keys[0]))["interrupts"]
    assert one == found[2]
    await alice("sessions.archive", keys[0])
    assert len((await alice("interrupts.list"))["interrupts"]) == 2
    assert (await bob("interrupts.list"))["interrupts"] == []
    with pytest.raises(client_errors.NotFound):
        await bob("interrupts.list", thread_id=keys[1])


async def _templates_and_webhooks(alice: Caller) -> None:
    made = await alice("templates.create", name="t", body={"graph_id": "echo", "tags": ["t"]})
    key = made["template_id"]
    assert (await alice("sessions.create", template_id=key))["tags"] == ["t"]
    assert (await alice("templates.patch", key, body={"tags": ["u"]}))["version"] == 2
    assert (await alice("templates.get", key, version=1))["body"]["tags"] == ["t"]
    assert len((await alice("templates.list"))["templates"]) == 1
    await alice("templates.delete", key)
    hook = await alice("webhooks.create", url="https://93.184.216.34/x", kinds=["session.created"])
    assert await alice("webhooks.list") == [hook]
    await alice("webhooks.delete", hook["subscription_id"])


async def _as_admin(root: Caller, alice: Caller) -> None:
    key = (await alice("sessions.create", assistant_id="steps"))["thread_id"]
    assert (await root("sessions.transfer", key, owner="bob"))["thread_id"] == key
    with pytest.raises(client_errors.NotFound):
        await alice("sessions.get", key)
    assert await root("owners.delete_agent_sessions", "steps") == {"deleted": 1, "busy": []}
    assert (await root("owners.delete_sessions", "alice", graph_id="echo"))["deleted"] > 0
    receipt = await root("owners.erase", "alice")
    assert receipt["removed"]["session"] > 0
    assert await root("owners.receipt", receipt["receipt_id"]) == receipt


async def test_row_32_both_kinds_are_typed_and_the_official_parts_are_there(dsn: str) -> None:
    """What it asserts of types, `make check` checks."""
    async with serve(dsn) as url, get_client(url=url) as client:
        made = await client.sessions.create(title="t", assistant_id="echo")
        assert_type(made, Session)
        key = made["thread_id"]
        assert_type(await client.sessions.fork(key, title="u"), MovedSession)
        async for one in client.sessions.search(tag=["none"]):
            assert_type(one, Session)
        values = await client.runs.wait(
            key, "echo", input={"messages": [{"role": "user", "content": "官方"}]}
        )
        with get_sync_client(url=url) as blocking:
            found = await asyncio.to_thread(blocking.sessions.get, key)
            assert_type(found, SharedSession)
            thread = await asyncio.to_thread(blocking.threads.get, key)
        assert cast("Json", values)["messages"][-1]["content"] == "官方"
        assert (found["title"], found["message_count"], thread["thread_id"]) == ("t", 2, key)


class Cutting:
    """A proxy that lets every connection say so much and then cuts it."""

    def __init__(self, target: str) -> None:
        self.target = httpx.URL(target)
        self.marks: list[bytes] = []  # one connection each; then nothing is cut
        self.cut = 0
        self.spent = asyncio.Event()  # the last mark was come upon

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, out = await asyncio.open_connection(self.target.host, self.target.port)
        try:
            async with asyncio.TaskGroup() as group:
                up = group.create_task(self._pass(reader, out, cuts=False))
                group.create_task(self._pass(there, writer, cuts=True)).add_done_callback(
                    lambda _: up.cancel()
                )
        finally:
            for one in (writer, out):
                one.transport.abort()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, cuts: bool
    ) -> None:
        tail = b""
        while data := await reader.read(65536):
            if cuts and self.marks and self.marks[0] in tail + data:
                # What comes after the mark never arrives.
                mark = self.marks.pop(0)
                self.cut += 1
                if not self.marks:
                    self.spent.set()
                writer.write(data[: (tail + data).index(mark) + len(mark) - len(tail)])
                writer.close()
                await writer.wait_closed()
                return
            tail = (tail + data)[-32:]
            writer.write(data)
            await writer.drain()


@pytest.mark.filterwarnings("ignore:Reconnecting without")
async def test_row_32_a_stream_that_is_cut_goes_on_where_it_was(world: World) -> None:
    proxy = Cutting(world.url)
    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()[:2]
        alice = await world.caller("alice", url=f"http://{host}:{port}")
        key = (await alice("sessions.create", assistant_id="tokens"))["thread_id"]
        whole = await alice.all("sessions.send", key, content="one two three four")
        await alice("shares.create", key, owner="bob", role="writer")
        for caller in (alice, await world.caller("bob", url=f"http://{host}:{port}")):
            # Cut before the first event has come whole, and again in the middle.
            proxy.cut, proxy.marks = 0, [b"event: metadata", b"event: messages"]
            cut = await caller.all("sessions.send", key, content="one two three four")
            assert proxy.cut == 2
            assert [part.event for part in cut] == [part.event for part in whole]
            assert len({part.id for part in cut}) == len(cut)


async def test_row_32_the_feed_goes_on_after_a_cut_and_misses_nothing(world: World) -> None:
    proxy = Cutting(world.url)
    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()[:2]
        alice = await world.caller("alice", url=f"http://{host}:{port}")
        direct = await world.caller("alice")
        async with asyncio.TaskGroup() as group:
            proxy.marks = [b"session.archived\r\n"]
            feed = group.create_task(alice.all("sessions.events", last_event_id="0-0", most=4))
            key = (await direct("sessions.create"))["thread_id"]
            for move in ("archive", "unarchive", "delete"):
                await direct(f"sessions.{move}", key)
        kinds = [part.event for part in await feed]
        assert kinds == [
            "session.created", "session.archived", "session.unarchived", "session.deleted",
        ]  # fmt: skip
        assert proxy.cut == 1


async def test_row_32_a_feed_in_which_nothing_happens_may_be_cut_any_number_of_times(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_wire, "_TRIES", 1)
    proxy = Cutting(world.url)
    proxy.marks = [b"\r\n\r\n"] * 3  # where an answer begins
    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()[:2]
        alice = await world.caller("alice", url=f"http://{host}:{port}")
        direct = await world.caller("alice")
        async with asyncio.TaskGroup() as group:
            feed = group.create_task(alice.all("sessions.events", last_event_id="0-0", most=1))
            async with asyncio.timeout(20):
                await proxy.spent.wait()
            await direct("sessions.create")
        assert [part.event for part in await feed] == ["session.created"]


def test_row_32_the_client_offers_every_operation_of_the_sessions_face() -> None:
    offered = {
        (route.method, route.path)
        for face in clients.FACES.values()
        for route in client_calls.routes(face)
    }
    face = {
        (method.upper(), path)
        for path, operations in application().openapi()["paths"].items()
        for method, operation in operations.items()
        if operation.get("tags") and operation["tags"][0] not in OFFICIAL | OTHER
    }
    assert len(face) > 50
    assert face - offered == set(), "declare these in api/client_sessions.py or client_faces.py"
    assert offered - face == set(), "these are no more"


def test_row_32_each_documented_code_is_an_exception_of_its_kind() -> None:
    page = (Path(__file__).parents[1] / "docs" / "errors.md").read_text()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) > 30
    for code, status, _ in rows:
        kind = client_errors.of(int(status), code.strip("|` "))
        family = client_errors.of(int(status), None)
        assert issubclass(kind, family), (code, kind, family)
    assert client_errors.of(409, "new_one") is client_errors.Conflict


def test_the_client_brings_no_server_with_it() -> None:
    code = (
        "import sys, clew.api.client; "
        "print([m for m in ('fastapi', 'psycopg', 'langgraph', 'uvicorn') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
