"""Webhooks: what they say of runs and sessions, and that none is lost."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import psycopg
import pytest
import pytest_asyncio
from fastapi import FastAPI
from pydantic import SecretStr

from clew.api import problems
from clew.api import webhooks as routes
from clew.api.auth import Caller, admit
from clew.api.deps import parts
from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.checkpointing.saver import Saver
from clew.runtime import (
    assistants,
    config,
    crons,
    errors,
    graphs,
    leases,
    lifecycle,
    notifier,
    outbox,
    runs,
    sessions,
    subscriptions,
    sweeper,
    webhooks,
)
from clew.runtime.config import Config
from clew.runtime.feed import Follower
from clew.runtime.firing import Crons
from clew.runtime.graphs import Graphs
from clew.runtime.leases import Ending
from clew.runtime.notifier import Notifier
from clew.runtime.outbox import Happening
from clew.runtime.payloads import Payloads
from clew.runtime.posting import Poster
from clew.runtime.requests import RunRequest
from clew.runtime.runs import Run
from clew.runtime.settings import Settings
from clew.runtime.sql import queries
from clew.runtime.targets import Rules
from clew.runtime.telemetry import Telemetry
from clew.runtime.webhooks import Webhooks
from clew.runtime.worker import Worker
from tests.receiver import receiving

PROJECT = Path(__file__).parent / "project" / "langgraph.json"
HERE = Rules(loopback=True)
SECRET = SecretStr("a secret of the server")


# Runs that are over.


@pytest_asyncio.fixture
async def loaded(db: Database) -> Graphs:
    found = await graphs.load(config.read(PROJECT))
    await assistants.register(db, dict.fromkeys(found.ids()))
    return found


@pytest_asyncio.fixture
async def wakeups(db: Database, dsn: str) -> AsyncIterator[Notifier]:
    async with Notifier(db, dsn) as notifier:
        yield notifier


@dataclass
class Engine:
    """All that it takes to run graphs, and to tell of it."""

    db: Database
    loaded: Graphs
    saver: Saver
    wakeups: Notifier
    worker: Worker
    telemetry: Telemetry

    async def run(self, graph_id: str, url: str, *, temporary: bool = False, **asked: Any) -> Run:
        owner_id = await self.db.owner("acme", "ann")
        who = Principal.owner(owner_id)
        session = await sessions.create(
            self.db, who, owner_id, graph_id=graph_id, temporary=temporary
        )
        request = RunRequest(graph_id=graph_id, webhook=url, temporary=temporary, **asked)
        return await self.worker.submit(who, owner_id, session.thread_id, request)

    @asynccontextmanager
    async def telling(self, *, fields: Any = None, **given: Any) -> AsyncGenerator[None]:
        payloads = Payloads(self.db, self.loaded, self.saver, None, fields)
        async with (
            Poster.open(HERE, **given) as poster,
            Webhooks(self.db, self.wakeups, payloads, poster, self.telemetry),
        ):
            yield

    async def waiting(self) -> list[Any]:
        return await self.db.fetch(SERVICE, "select * from clew.webhook order by created_at")

    async def gone(self) -> None:
        """Return once nothing waits to be told any more."""
        async with asyncio.timeout(30):
            while await self.waiting():
                pass

    async def hurry(self) -> None:
        """What was to be tried again later is due now."""
        await self.db.execute(SERVICE, "update clew.webhook set due_at = now()")
        await self.db.execute(SERVICE, "update clew.subscription set due_at = now()")
        self.wakeups.publish(notifier.WEBHOOK)


@pytest_asyncio.fixture
async def engine(db: Database, loaded: Graphs, wakeups: Notifier) -> AsyncIterator[Engine]:
    saver = Saver(db)
    telemetry = Telemetry(loaded.ids())
    settings = Settings.model_validate({"database_url": "postgresql://unused"})
    async with (
        Follower(db, wakeups, saver) as feed,
        Worker(db, loaded, saver, wakeups, feed, settings) as worker,
    ):
        yield Engine(db, loaded, saver, wakeups, worker, telemetry)


async def test_the_end_of_a_run_is_told_with_what_it_left(engine: Engine) -> None:
    async with receiving() as receiver, engine.telling(secret=SECRET):
        asked: Any = {"trace": {"traceparent": "t"}, "user": {"identity": "ann"}}
        run = await engine.run("steps", receiver.url, input={"x": ["说"]}, **asked)
        got = await receiver.next()
        await engine.gone()
    said = got.said
    assert said["run_id"] == run.run_id == got.headers["webhook-id"]
    assert said["thread_id"] == run.thread_id
    assert said["status"] == "success"
    assert said["values"] == {"x": ["说", "one", "two"], "n": 1}
    assert said["kwargs"]["input"] == {"x": ["说"]}
    assert said["run_started_at"] <= said["run_ended_at"] <= said["webhook_sent_at"]
    assert "error" not in said
    assert not {"user", "trace"} & set(said["kwargs"])
    assert b'clew_webhooks_total{outcome="sent"} 1.0' in engine.telemetry.text()


async def test_a_failed_run_tells_its_error_and_an_interrupted_graph_its_values(
    engine: Engine,
) -> None:
    async with receiving() as receiver, engine.telling():
        await engine.run("fails", receiver.url, input={"x": ["in"]})
        said = (await receiver.next()).said
        assert said["status"] == "error"
        assert set(said["error"]) == {"error", "message"}
        await engine.run("ask", receiver.url, input={"x": ["in"]})
        said = (await receiver.next()).said
        assert (said["status"], said["values"]) == ("success", {"x": ["in"]})


async def test_what_is_told_is_of_that_run_and_not_of_the_next(engine: Engine) -> None:
    async with receiving() as receiver:
        first = await engine.run("steps", receiver.url, input={"x": ["first"]})
        who = Principal.owner(first.owner_id)
        second = await engine.worker.submit(
            who,
            first.owner_id,
            first.thread_id,
            RunRequest(graph_id="steps", input={"x": ["second"]}),
        )
        await over(engine, second)
        async with engine.telling():
            said = (await receiver.next()).said
    assert said["run_id"] == first.run_id
    assert said["values"]["x"] == ["first", "one", "two"]


async def over(engine: Engine, run: Run) -> Run:
    who = Principal.owner(run.owner_id)
    with engine.wakeups.listen(notifier.thread(run.thread_id)) as bell:
        async with asyncio.timeout(30):
            while not (found := await runs.get(engine.db, who, None, run.run_id)).over:
                await bell.wait(1)
    return found


async def test_a_stateless_run_is_told_before_its_thread_goes(engine: Engine) -> None:
    async with receiving() as receiver:
        run = await engine.run("steps", receiver.url, temporary=True, input={"x": ["in"]})
        await over(engine, run)
        rules = sweeper.Rules(undo_window=timedelta(0))
        await sweeper.sweep(engine.db, rules)
        assert [row["run_id"] for row in await engine.waiting()]
        async with engine.telling():
            said = (await receiver.next()).said
            await engine.gone()
        await sweeper.sweep(engine.db, rules)
    assert said["values"] == {"x": ["in", "one", "two"], "n": 1}
    with pytest.raises(errors.NotFound):
        await sessions.find(engine.db, SERVICE, run.thread_id)


async def test_a_cron_s_run_is_told_as_any_other(engine: Engine) -> None:
    owner_id = await engine.db.owner("acme", "ann")
    async with receiving() as receiver, engine.telling():
        cron = await crons.create(
            engine.db,
            Principal.owner(owner_id),
            owner_id,
            assistant_id=assistants.id_of("steps"),
            schedule="* * * * *",
            request={"input": {"x": ["tick"]}, "webhook": receiver.url},
        )
        await engine.db.execute(SERVICE, "update clew.cron set next_at = now()")
        async with Crons(engine.db, engine.loaded, engine.wakeups, engine.telemetry):
            said = (await receiver.next()).said
        await engine.gone()
    assert said["metadata"]["cron_id"] == cron.cron_id
    assert said["values"] == {"x": ["tick", "one", "two"], "n": 1}


async def test_only_allowed_fields_are_sent(engine: Engine) -> None:
    async with receiving() as receiver, engine.telling(fields=["run_id", "status"]):
        run = await engine.run("steps", receiver.url, input={"x": []})
        said = (await receiver.next()).said
    assert said == {"run_id": run.run_id, "status": "success"}


async def test_what_is_refused_is_sent_again_until_it_is_taken(engine: Engine) -> None:
    async with receiving(500, 503) as receiver, engine.telling():
        run = await engine.run("steps", receiver.url, input={"x": []})
        seen = [await receiver.next()]
        for fault in ("HTTP 500", "HTTP 503"):
            await noted(engine, fault)
            await engine.hurry()
            seen.append(await receiver.next())
        await engine.gone()
    assert {got.headers["webhook-id"] for got in seen} == {run.run_id}
    assert b'clew_webhooks_total{outcome="again"} 2.0' in engine.telemetry.text()


async def noted(engine: Engine, fault: str) -> Any:
    async with asyncio.timeout(30):
        while (row := (await engine.waiting())[0])["fault"] != fault:
            pass
    return row


async def test_it_waits_longer_each_time_and_is_given_up_in_the_end(engine: Engine) -> None:
    waits: list[float] = []
    async with receiving(*[500] * 20) as receiver, engine.telling():
        await engine.run("steps", receiver.url, input={"x": []})
        for attempt in range(1, webhooks.MOST + 1):
            await receiver.next()
            async with asyncio.timeout(30):
                while not (await engine.waiting())[0]["fault"]:
                    pass
            (row,) = await engine.db.fetch(
                SERVICE,
                "select *, extract(epoch from due_at - now())::float8 as wait from clew.webhook",
            )
            assert row["attempts"] == attempt
            waits.append(row["wait"])
            await engine.db.execute(SERVICE, "update clew.webhook set fault = null")
            await engine.hurry()
    assert (await engine.waiting())[0]["given_up_at"] is not None
    assert receiver.got.empty()
    expected = [min(5 * 4**n, 6 * 3600) for n in range(webhooks.MOST)]
    for wait, wanted in zip(waits, expected, strict=True):
        assert 0.85 * wanted - 3 < wait < 1.11 * wanted


async def test_a_receiver_that_is_gone_is_asked_once(engine: Engine) -> None:
    async with receiving(410) as receiver, engine.telling():
        await engine.run("steps", receiver.url, input={"x": []})
        await receiver.next()
        assert (await noted(engine, "HTTP 410"))["given_up_at"] is not None


async def test_a_process_that_dies_in_the_middle_leaves_it_to_another(engine: Engine) -> None:
    async with receiving() as receiver:
        await over(engine, await engine.run("steps", receiver.url, input={"x": []}))
        values = {"limit": 10, "local": False}
        assert len(await engine.db.fetch(SERVICE, queries["claim_webhooks"], values)) == 1
        # Claimed, and then nothing is heard of it.
        assert await engine.db.fetch(SERVICE, queries["claim_webhooks"], values) == []
        async with engine.telling():
            await engine.hurry()
            await receiver.next()
            await engine.gone()


async def test_replicas_send_each_webhook_once(engine: Engine) -> None:
    async with receiving() as receiver:
        made = [await engine.run("steps", receiver.url, input={"x": []}) for _ in range(20)]
        for run in made:
            await over(engine, run)
        async with engine.telling(), engine.telling(), engine.telling():
            await engine.gone()
    told = [receiver.got.get_nowait().headers["webhook-id"] for _ in made]
    assert sorted(told) == sorted(run.run_id for run in made)
    assert receiver.got.empty()


@pytest.mark.parametrize("status", ["pending", "running"])
async def test_every_way_to_end_a_run_is_told(db: Database, status: str) -> None:
    """By the trigger, whatever ended it: also a run that never started."""
    owner_id = await db.owner("acme", "ann")
    who = Principal.owner(owner_id)
    session = await sessions.create(db, who, owner_id)
    worker_id = await leases.enlist(db, "w", timedelta(minutes=1)) if status == "running" else None
    request = RunRequest(graph_id="steps", webhook="https://example.com/")
    run = await runs.create(db, who, owner_id, session.thread_id, request, worker_id=worker_id)
    assert await db.fetch(who, "select from clew.webhook") == []
    if status == "running":
        await leases.finish(db, run, Ending(status="timeout", rest="error"), [])
    else:
        await runs.cancel(db, who, run_ids=[run.run_id])
    (row,) = await db.fetch(who, "select * from clew.webhook")
    assert (str(row["run_id"]), row["url"]) == (run.run_id, "https://example.com/")
    bob = Principal.owner(await db.owner("acme", "bob"))
    assert await db.fetch(bob, "select from clew.webhook") == []
    await sessions.delete(db, who, session.thread_id, actor="a")
    assert await db.fetch(SERVICE, "select from clew.webhook") == []


async def test_a_server_whose_webhooks_are_off_forgets_them(engine: Engine) -> None:
    async with receiving() as receiver:
        await over(engine, await engine.run("steps", receiver.url, input={"x": []}))
        payloads = Payloads(engine.db, engine.loaded, engine.saver)
        async with Webhooks(engine.db, engine.wakeups, payloads, None, engine.telemetry):
            await engine.gone()
    assert receiver.got.empty()


async def test_a_relative_url_is_a_route_of_this_server(engine: Engine) -> None:
    app = FastAPI()
    heard: asyncio.Queue[Any] = asyncio.Queue()

    @app.post("/hook")
    async def hook(body: dict[str, Any]) -> None:  # pyright: ignore[reportUnusedFunction]
        heard.put_nowait(body)

    run = await engine.run("steps", "/hook", input={"x": []})
    await over(engine, run)
    async with engine.telling(local=httpx.ASGITransport(app)):
        async with asyncio.timeout(30):
            assert (await heard.get())["run_id"] == run.run_id
        await engine.gone()


# What happens to sessions.


async def test_row_28_what_happens_to_sessions_is_told_in_order_and_signed(engine: Engine) -> None:
    db = engine.db
    alice, bob = [Principal.owner(await db.owner("acme", name)) for name in ("ann", "bob")]
    await sessions.create(db, alice, alice.owner_from, title="before")
    async with receiving(500) as receiver, engine.telling(secret=SECRET):
        await subscriptions.create(db, alice, alice.owner_from, receiver.url)
        made = await sessions.create(db, alice, alice.owner_from, title="会话")
        await sessions.create(db, bob, bob.owner_from)
        await lifecycle.move(db, alice, made.thread_id, "archive", actor="a")
        refused = await receiver.next()
        async with asyncio.timeout(30):
            while not (await subscriptions.list_(db, alice))[0].fault:
                pass
        await engine.hurry()
        got = [await receiver.next(), await receiver.next()]
        assert receiver.got.empty()
    assert [each.said["type"] for each in got] == ["session.created", "session.archived"]
    assert refused.body == got[0].body
    assert refused.headers["webhook-id"] == got[0].headers["webhook-id"] == got[0].said["id"]
    assert got[0].said["data"]["thread_id"] == made.thread_id
    assert got[0].said["data"]["title"] == "会话"
    assert got[0].headers["webhook-signature"].startswith("v1,")


async def test_row_28_a_message_is_heard_by_hook_feed_and_webhook(engine: Engine) -> None:
    """What is said begins a run and what is answered ends it: whoever listens hears both."""
    db = engine.db
    alice = Principal.owner(await db.owner("acme", "ann"))
    hook: asyncio.Queue[Happening] = asyncio.Queue()
    expected = ["session.created", "run.created", "run.started", "run.success"]
    async with receiving() as receiver, engine.telling(), outbox.hooked(db, hook.put):
        await subscriptions.create(db, alice, alice.owner_from, receiver.url)
        place, since = await outbox.end(db)
        session = await sessions.create(db, alice, alice.owner_from, graph_id="steps")
        request = RunRequest(graph_id="steps", input={"x": ["说"]})
        run = await engine.worker.submit(alice, alice.owner_from, session.thread_id, request)
        async with asyncio.timeout(30):
            by_hook = [await hook.get() for _ in expected]
            by_feed: list[Happening] = []
            async for happening in outbox.follow(db, alice, place, since=since):
                by_feed.append(happening)
                if happening.kind == expected[-1]:
                    break
            by_webhook = [(await receiver.next()).said for _ in expected]
    assert [happening.kind for happening in by_hook] == expected
    assert by_feed == by_hook
    assert [told["type"] for told in by_webhook] == expected
    for told in by_webhook:
        assert told["data"]["thread_id"] == session.thread_id
    assert [h.run_id for h in by_hook] == [None, run.run_id, run.run_id, run.run_id]


async def test_a_subscription_hears_nothing_of_what_was_before_it(engine: Engine, dsn: str) -> None:
    alice = Principal.owner(await engine.db.owner("acme", "ann"))
    async with receiving() as receiver, engine.telling():
        async with await psycopg.AsyncConnection.connect(dsn) as other:
            # Open all along, as a backup or another database's transaction may be: no place can be
            # behind what happens meanwhile.
            await other.execute("select pg_current_xact_id()")
            await sessions.create(engine.db, alice, alice.owner_from)
            await subscriptions.create(engine.db, alice, alice.owner_from, receiver.url)
            _, since = start = await outbox.end(engine.db)
            made = await sessions.create(engine.db, alice, alice.owner_from)
        assert (await receiver.next()).said["data"]["thread_id"] == made.thread_id
        assert receiver.got.empty()
    told = await outbox.read(engine.db, alice, start[0], since=since)
    assert [each.thread_id for each in told] == [made.thread_id]


async def test_a_subscription_hears_the_kinds_it_asked_for_and_an_admin_his_tenant(
    engine: Engine,
) -> None:
    db = engine.db
    alice = Principal.owner(await db.owner("acme", "ann"))
    stranger = Principal.owner(await db.owner("other", "eve"))
    admin = Principal.tenant_of(alice.owner_from)
    async with receiving() as receiver, engine.telling():
        await subscriptions.create(
            db, admin, alice.owner_from, receiver.url, kinds=["session.archived"]
        )
        await sessions.create(db, stranger, stranger.owner_from)
        made = await sessions.create(db, alice, alice.owner_from)
        await lifecycle.move(db, alice, made.thread_id, "archive", actor="a")
        said = (await receiver.next()).said
    assert (said["type"], said["data"]["thread_id"]) == ("session.archived", made.thread_id)
    assert receiver.got.empty()


async def test_the_routes_of_subscriptions(db: Database) -> None:
    owner_id = await db.owner("acme", "ann")
    caller = Caller(Principal.owner(owner_id), owner_id, "acme", "ann")
    app = FastAPI()
    problems.install(app)
    app.include_router(routes.routes)
    app.dependency_overrides[admit] = lambda: caller
    app.dependency_overrides[parts] = lambda: cast(
        "Any", SimpleNamespace(db=db, config=Config.model_construct(webhooks=None, http=None))
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://clew") as client:
        asked = {"url": "https://93.184.215.14/hook", "kinds": ["session.created"]}
        made = await client.post("/webhooks", json=asked)
        assert made.status_code == 201
        assert made.json() | asked == made.json()
        assert (await client.get("/webhooks")).json() == [made.json()]
        for wrong in ({**asked, "url": "http://127.0.0.1/"}, {**asked, "kinds": ["a;b"]},
                      {**asked, "secret": "x"}, {}):  # fmt: skip
            assert (await client.post("/webhooks", json=wrong)).status_code == 422
        caller = replace(caller, principal=Principal.owner(await db.owner("acme", "bob")))
        place = f"/webhooks/{made.json()['subscription_id']}"
        assert (await client.delete(place)).status_code == 404
        caller = replace(caller, principal=Principal.owner(owner_id))
        assert (await client.delete(place)).status_code == 204
        assert (await client.get("/webhooks")).json() == []
