"""Crons: the times they fire at, and that each of them starts one run."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import psycopg
import pytest
import pytest_asyncio
from fastapi import FastAPI
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import (
    BadRequestError,
    NotFoundError,
    UnprocessableEntityError,
)

from clew.api import crons as routes
from clew.api import problems
from clew.api.auth import Caller, admit
from clew.api.deps import parts
from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.runtime import (
    assistants,
    config,
    crons,
    errors,
    graphs,
    leases,
    lifecycle,
    notifier,
    runs,
    schedules,
    sessions,
)
from clew.runtime.crons import Cron
from clew.runtime.firing import Crons
from clew.runtime.graphs import Graphs
from clew.runtime.notifier import Notifier
from clew.runtime.requests import RunRequest
from clew.runtime.runs import Run
from clew.runtime.telemetry import Telemetry

PROJECT = Path(__file__).parent / "project" / "langgraph.json"
ECHO = assistants.id_of("echo")
MINUTE = timedelta(minutes=1)
BERLIN, SHANGHAI = "Europe/Berlin", "Asia/Shanghai"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def times(schedule: str, zone: str | None, start: str, count: int) -> list[str]:
    found: list[str] = []
    moment: datetime | None = at(start)
    while len(found) < count and moment is not None:
        moment = schedules.after(schedule, zone, moment)
        found.append(moment.isoformat(" ", "minutes")[:-6] if moment else "never")
    return found


@pytest.mark.parametrize(
    ("schedule", "zone", "start", "expected"),
    [
        ("*/5 * * * *", None, "2026-03-01 10:02", ["2026-03-01 10:05", "2026-03-01 10:10"]),
        ("0 9 * * 1-5", SHANGHAI, "2026-03-06 00:00", ["2026-03-06 01:00", "2026-03-09 01:00"]),
        # Spring: at 02:00 the clocks of Berlin show 03:00.
        ("30 2 * * *", BERLIN, "2026-03-28 12:00", ["2026-03-29 01:00", "2026-03-30 00:30"]),
        # Autumn: 02:30 comes twice, and the daily time once.
        ("30 2 * * *", BERLIN, "2026-10-24 12:00", ["2026-10-25 00:30", "2026-10-26 01:30"]),
        # From within the second 02 o'clock.
        ("30 2 * * *", BERLIN, "2026-10-25 01:10", ["2026-10-26 01:30", "2026-10-27 01:30"]),
        # What goes by the hour keeps its pace.
        ("0 * * * *", BERLIN, "2026-10-24 23:30", ["2026-10-25 00:00", "2026-10-25 01:00"]),
        ("0 0 29 2 *", None, "2026-01-01 00:00", ["2028-02-29 00:00", "2032-02-29 00:00"]),
        ("0 0 L * *", None, "2026-02-01 00:00", ["2026-02-28 00:00", "2026-03-31 00:00"]),
    ],
)  # fmt: skip
def test_a_schedule_is_read_in_its_time_zone(
    schedule: str, zone: str | None, start: str, expected: list[str]
) -> None:
    assert times(schedule, zone, start, len(expected)) == expected


def test_no_time_comes_twice_or_goes_back_over_a_whole_year_of_any_zone() -> None:
    for zone in ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca"):
        moment = at("2026-01-01 00:00")
        days = 0
        while (found := schedules.after("30 2 * * *", zone, moment)) is not None:
            assert found > moment
            if found > at("2027-01-01 00:00"):
                break
            moment = found
            days += 1
        assert days in (365, 366), zone


@pytest.mark.parametrize(
    ("schedule", "zone", "text"),
    [
        ("bad", None, "Invalid cron schedule: 'bad'. Reason: expected 5 fields, found 1"),
        ("61 * * * *", None, "Invalid cron schedule: '61 * * * *'. Reason: Bad minute"),
        ("* * * * * *", None, "Reason: expected 5 fields, found 6"),
        ("0 0 30 2 *", None, "Reason: Bad day-of-month"),
        ("* * * * *", "No/Where", "Invalid timezone: 'No/Where'."),
        ("* * * * *", "../../etc/passwd", "Invalid timezone: '../../etc/passwd'."),
        ("* * * * *", "Europe", "Invalid timezone: 'Europe'."),
        ("1," * 500 + "1 * * * *", None, "longer than 256 characters"),
    ],
)
def test_what_is_no_schedule_is_refused_with_the_reason(
    schedule: str, zone: str | None, text: str
) -> None:
    with pytest.raises(errors.Invalid) as caught:
        schedules.check(schedule, zone)
    assert text in str(caught.value)


@pytest_asyncio.fixture
async def loaded(db: Database) -> Graphs:
    found = await graphs.load(config.read(PROJECT))
    await assistants.register(db, dict.fromkeys(found.ids()))
    return found


class Quiet:
    """Wake-ups where nobody waits."""

    patience = 1.0

    def __init__(self) -> None:
        self.topics: list[str] = []

    def publish(self, *topics: str) -> None:
        self.topics += topics

    def listen(self, topic: str) -> Any:
        raise AssertionError(topic)


async def ann(db: Database) -> Principal:
    return Principal.owner(await db.owner("acme", "ann"))


async def make(db: Database, who: Principal, **given: Any) -> Cron:
    given = {"assistant_id": ECHO, "schedule": "* * * * *", **given}
    return await crons.create(db, who, who.owner_from, **given)


async def due(db: Database, cron: Cron, ago: timedelta = MINUTE) -> None:
    """Its fire time has come."""
    await db.execute(
        SERVICE,
        "update clew.cron set next_at = now() - %s where cron_id = %s",
        [ago, cron.cron_id],
    )


async def made(db: Database) -> list[Run]:
    rows = await db.fetch(SERVICE, "select * from clew.run order by run_no")
    return [Run.of(row) for row in rows]


def loop(db: Database, loaded: Graphs, **given: Any) -> Crons:
    return Crons(db, loaded, Quiet(), Telemetry(loaded.ids()), **given)


async def test_a_fire_time_starts_one_run_and_the_next_one_lies_ahead(
    db: Database, loaded: Graphs
) -> None:
    who = await ann(db)
    asked = {
        "input": {"messages": ["\u0000 你好"]},
        "stream_mode": ["updates"],
        "durability": "sync",
    }
    cron = await make(db, who, request=asked, metadata={"team": "a"}, caller={"identity": "ann"})
    await due(db, cron)
    assert await loop(db, loaded).tick() == 1
    (run,) = await made(db)
    assert (run.status, run.owner_id, run.graph_id) == ("pending", cron.owner_id, "echo")
    assert run.kwargs["input"] == {"messages": ["\u0000 你好"]}
    assert run.kwargs["stream_mode"] == ["updates"]
    assert run.kwargs["durability"] == "sync"
    assert run.kwargs["config"]["configurable"]["cron_id"] == cron.cron_id
    assert run.kwargs["user"] == {"identity": "ann"}
    assert run.metadata["cron_id"] == cron.cron_id
    assert run.metadata["team"] == "a"
    after = await crons.get(db, who, cron.cron_id)
    assert after.next_at is not None
    assert after.next_at > datetime.now(UTC) - timedelta(seconds=5)
    assert await loop(db, loaded).tick() == 0


async def test_times_that_were_missed_are_made_up_for_by_one_run(
    db: Database, loaded: Graphs
) -> None:
    cron = await make(db, await ann(db))
    await due(db, cron, timedelta(hours=3))
    firing = loop(db, loaded)
    await firing.tick()
    assert await firing.tick() == 0
    assert len(await made(db)) == 1


async def test_replicas_that_fire_at_once_make_one_run_for_each_time(
    db: Database, dsn: str, loaded: Graphs
) -> None:
    who = await ann(db)
    all_of_them = [await make(db, who) for _ in range(40)]
    async with AsyncExitStack() as stack:
        replicas = [
            loop(await stack.enter_async_context(Database.open(dsn, max_size=4)), loaded)
            for _ in range(4)
        ]
        for _ in range(3):
            for cron in all_of_them:
                await due(db, cron)
            await asyncio.gather(*(replica.tick() for replica in replicas))
    found = await made(db)
    assert len(found) == 3 * len(all_of_them)
    counts = [sum(run.metadata["cron_id"] == cron.cron_id for run in found) for cron in all_of_them]
    assert counts == [3] * len(all_of_them)


async def test_a_process_that_dies_while_it_fires_leaves_the_time_to_another(
    db: Database, loaded: Graphs
) -> None:
    cron = await make(db, await ann(db))
    await due(db, cron)
    cron = await crons.get(db, SERVICE, cron.cron_id)
    # Somebody holds the last statement up, so that the process dies in the middle.
    async with db.transaction(SERVICE) as conn:
        await conn.execute("lock table clew.run in access exclusive mode")
        firing = asyncio.create_task(loop(db, loaded).fire(cron))
        await blocked(db)
        firing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await firing
    assert await made(db) == []
    assert await loop(db, loaded).tick() == 1
    assert len(await made(db)) == 1
    rows = await db.fetch(SERVICE, "select count(*) as sessions from clew.session")
    assert rows[0]["sessions"] == 1


async def blocked(db: Database) -> None:
    """Return once a statement waits for a lock."""
    async with asyncio.timeout(20):
        while not await db.fetch(
            SERVICE,
            "select from pg_locks l join pg_database d on d.oid = l.database "
            "where not l.granted and d.datname = current_database()",
        ):
            pass


async def test_a_stateless_cron_makes_a_thread_for_each_run(db: Database, loaded: Graphs) -> None:
    who = await ann(db)
    for kept in ("delete", "keep"):
        await due(db, await make(db, who, on_run_completed=kept))
    await loop(db, loaded).tick()
    threads = [await sessions.find(db, who, run.thread_id) for run in await made(db)]
    assert sorted(thread.temporary for thread in threads) == [False, True]


async def test_a_cron_of_a_thread_runs_there_and_goes_with_it(db: Database, loaded: Graphs) -> None:
    who = await ann(db)
    session = await sessions.create(db, who, who.owner_from, config={"tags": ["thread"]})
    cron = await make(db, who, thread_id=session.thread_id, request={"config": {"tags": ["cron"]}})
    assert cron.on_run_completed is None
    await due(db, cron)
    await loop(db, loaded).tick()
    (run,) = await made(db)
    assert run.thread_id == session.thread_id
    assert run.kwargs["config"]["tags"] == ["thread", "cron"]
    async with db.transaction(who) as conn:
        await conn.execute("delete from clew.session where thread_id = %s", [session.thread_id])
    with pytest.raises(errors.NotFound):
        await crons.get(db, who, cron.cron_id)


@pytest.mark.parametrize("trouble", ["busy", "archived", "full"])
async def test_a_time_that_cannot_be_met_is_skipped_and_keeps_back_no_other(
    db: Database, loaded: Graphs, trouble: str
) -> None:
    who = await ann(db)
    session = await sessions.create(db, who, who.owner_from)
    asked = {"multitask_strategy": "reject"} if trouble == "busy" else {}
    stuck = await make(db, who, thread_id=session.thread_id, request=asked)
    limits = runs.Limits(per_session=1)
    if trouble != "archived":
        request = RunRequest(graph_id="echo")
        await runs.create(db, who, who.owner_from, session.thread_id, request)
    else:
        await lifecycle.move(db, who, session.thread_id, "archive", actor="a")
    before = len(await made(db))
    fine = await make(db, who)
    await due(db, stuck, 2 * MINUTE)
    await due(db, fine)
    firing = loop(db, loaded, limits=limits)
    assert await firing.tick() == 2
    new = (await made(db))[before:]
    assert [run.metadata["cron_id"] for run in new] == [fine.cron_id]
    assert await firing.tick() == 0


async def test_a_cron_that_is_broken_keeps_back_no_other(
    db: Database, loaded: Graphs, caplog: pytest.LogCaptureFixture
) -> None:
    who = await ann(db)
    broken, fine = await make(db, who), await make(db, who)
    await db.execute(
        SERVICE,
        "update clew.cron set request = '{\"no_such_field\": 1}' where cron_id = %s",
        [broken.cron_id],
    )
    await due(db, broken, 2 * MINUTE)
    await due(db, fine)
    firing = loop(db, loaded)
    assert await firing.tick() == 2
    assert [run.metadata["cron_id"] for run in await made(db)] == [fine.cron_id]
    assert await firing.tick() == 0
    assert f"cron {broken.cron_id} failed" in caplog.text


async def test_a_cron_ends_and_can_be_switched_off(db: Database, loaded: Graphs) -> None:
    who = await ann(db)
    now = datetime.now(UTC)
    over = await make(db, who, end_at=now - MINUTE)
    off = await make(db, who, enabled=False)
    ending = await make(db, who, end_at=now + timedelta(seconds=30), schedule="0 0 1 1 *")
    assert [cron.next_at for cron in (over, off, ending)] == [None, None, None]
    on = await crons.update(db, who, off.cron_id, {"enabled": True})
    assert on.next_at is not None
    assert (await crons.update(db, who, on.cron_id, {"enabled": False})).next_at is None
    longer = await crons.update(db, who, over.cron_id, {"end_at": None})
    assert longer.next_at is not None
    last = await make(db, who, end_at=now + timedelta(minutes=3))
    await due(db, last)
    await db.execute(SERVICE, "update clew.cron set end_at = now() where next_at <= now()")
    await loop(db, loaded).tick()
    assert (await crons.get(db, who, last.cron_id)).next_at is None
    assert len(await made(db)) == 1


async def test_one_that_is_changed_while_it_is_due_fires_by_its_new_time_only(
    db: Database, loaded: Graphs
) -> None:
    who = await ann(db)
    cron = await make(db, who)
    await due(db, cron)
    seen = await crons.get(db, who, cron.cron_id)
    await crons.update(db, who, cron.cron_id, {"schedule": "0 0 1 1 *"})
    assert await loop(db, loaded).fire(seen) is None
    assert await made(db) == []


async def test_the_loop_wakes_workers_and_ends_when_it_is_left(
    db: Database, dsn: str, loaded: Graphs
) -> None:
    who = await ann(db)
    async with Notifier(db, dsn) as wakeups:
        telemetry = Telemetry(loaded.ids())
        crons_loop = Crons(db, loaded, wakeups, telemetry, interval=timedelta(milliseconds=20))
        with wakeups.listen(notifier.QUEUE) as bell:
            # From the start that a new line makes.
            while await bell.wait(0.01):
                pass
            async with crons_loop:
                await due(db, await make(db, who))
                assert await bell.wait(20)
        await due(db, await make(db, who))
    worker_id = await leases.enlist(db, "one", MINUTE)
    (run,) = await leases.claim(db, worker_id, 10)
    assert run.status == "running"
    assert b'clew_cron_fires_total{outcome="started"} 1.0' in telemetry.text()


async def test_the_loop_outlives_the_database(db: Database, dsn: str, loaded: Graphs) -> None:
    who = await ann(db)
    async with (
        Database.open(dsn, max_size=2) as torn,
        Notifier(torn, dsn) as wakeups,
        Crons(torn, loaded, wakeups, Telemetry(), interval=timedelta(milliseconds=20)),
    ):
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
            await conn.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = current_database() and pid <> pg_backend_pid()"
            )
        async with Database.open(dsn) as whole:
            await due(whole, await make(whole, who))
            async with asyncio.timeout(30):
                while not await made(whole):
                    pass


async def test_nobody_sees_or_makes_crons_on_what_is_not_his(db: Database, loaded: Graphs) -> None:
    alice = await ann(db)
    bob = Principal.owner(await db.owner("acme", "bob"))
    session = await sessions.create(db, alice, alice.owner_from)
    cron = await make(db, alice, thread_id=session.thread_id)
    with pytest.raises(errors.NotFound):
        await make(db, bob, thread_id=session.thread_id)
    for act in (
        crons.get(db, bob, cron.cron_id),
        crons.update(db, bob, cron.cron_id, {"enabled": False}),
        crons.delete(db, bob, cron.cron_id),
    ):
        with pytest.raises(errors.NotFound):
            await act
    assert (await crons.search(db, bob)).items == []
    assert await crons.count(db, bob) == 0
    admin = Principal.tenant_of(alice.owner_from)
    theirs = await crons.create(
        db, admin, bob.owner_from, assistant_id=ECHO, schedule="* * * * *",
        thread_id=session.thread_id,
    )  # fmt: skip
    assert theirs.owner_id == alice.owner_from


# The routes, with the official client.


@pytest_asyncio.fixture
async def client(db: Database, loaded: Graphs) -> AsyncIterator[LangGraphClient]:
    owner_id = await db.owner("default", "local")
    caller = Caller(Principal.owner(owner_id), owner_id, "default", "local")
    app = FastAPI()
    problems.install(app)
    app.include_router(routes.routes)
    app.dependency_overrides[admit] = lambda: caller
    app.dependency_overrides[parts] = lambda: cast(
        "Any", SimpleNamespace(db=db, graphs=loaded, config=config.read(PROJECT))
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://clew") as http:
        yield LangGraphClient(http)


async def test_the_official_client_makes_finds_changes_and_deletes_crons(
    client: LangGraphClient,
) -> None:
    cron: Any = await client.crons.create(
        "echo",
        schedule="*/5 * * * *",
        timezone="Europe/Berlin",
        input={"x": 1},
        metadata={"team": "a"},
        context={"model": "m"},
        stream_mode="updates",
        durability="exit",
    )
    assert cron["assistant_id"] == ECHO
    assert cron["thread_id"] is None
    assert cron["on_run_completed"] == "delete"
    assert cron["enabled"] is True
    assert cron["end_time"] is None
    assert cron["metadata"] == {"team": "a"}
    assert cron["payload"]["input"] == {"x": 1}
    assert cron["payload"]["context"] == {"model": "m"}
    assert cron["payload"]["stream_mode"] == ["updates"]
    assert cron["payload"]["config"] == {"configurable": {"cron_id": cron["cron_id"]}}
    assert datetime.fromisoformat(cron["next_run_date"]) > datetime.now(UTC)

    found = await client.crons.search(assistant_id="echo", metadata={"team": "a"}, enabled=True)
    assert [item["cron_id"] for item in found] == [cron["cron_id"]]
    assert await client.crons.search(metadata={"team": "b"}) == []
    picked = await client.crons.search(select=["cron_id", "schedule"])
    assert picked == [{"cron_id": cron["cron_id"], "schedule": "*/5 * * * *"}]
    assert await client.crons.count(assistant_id=ECHO) == 1

    changed = await client.crons.update(
        cron["cron_id"],
        schedule="0 9 * * *",
        timezone="UTC",
        end_time=datetime(2099, 1, 1),  # noqa: DTZ001 - what has no zone is UTC
        metadata={"more": True},
        input={"x": 2},
        on_run_completed="keep",
    )
    assert changed["schedule"] == "0 9 * * *"
    assert changed["end_time"] == "2099-01-01T00:00:00Z"
    assert changed["metadata"] == {"team": "a", "more": True}
    assert changed["payload"]["input"] == {"x": 2}
    assert changed["payload"]["context"] == {"model": "m"}
    assert changed["on_run_completed"] == "keep"
    assert "T09:00:00" in str(changed["next_run_date"])
    cleared = await client.crons.update(cron["cron_id"], end_time=None)
    assert cleared["end_time"] is None

    await client.crons.delete(cron["cron_id"])
    with pytest.raises(NotFoundError):
        await client.crons.delete(cron["cron_id"])


async def test_pages_of_crons_are_sorted_and_say_whether_there_is_more(
    client: LangGraphClient,
) -> None:
    for minute in (3, 1, 2):
        await client.crons.create("echo", schedule=f"{minute} 0 1 1 *")
    first = await client.http.client.post(
        "/runs/crons/search", json={"limit": 2, "sort_by": "next_run_date", "sort_order": "asc"}
    )
    assert [cron["schedule"][0] for cron in first.json()] == ["1", "2"]
    assert first.headers["x-pagination-next"] == "2"
    rest = await client.crons.search(offset=2, sort_by="next_run_date", sort_order="asc")
    assert [cron["schedule"][0] for cron in rest] == ["3"]


async def test_what_is_wrong_with_a_cron_is_told_when_it_is_made(
    client: LangGraphClient,
) -> None:
    with pytest.raises(UnprocessableEntityError, match=r"Invalid cron schedule: 'bad'\. Reason: "):
        await client.crons.create("echo", schedule="bad")
    with pytest.raises(UnprocessableEntityError, match=r"Invalid timezone: 'No/Where'\."):
        await client.crons.create("echo", schedule="* * * * *", timezone="No/Where")
    with pytest.raises(UnprocessableEntityError, match="Invalid assistant: 'nobody'"):
        await client.crons.create("nobody", schedule="* * * * *")
    with pytest.raises(NotFoundError):
        await client.crons.create(ECHO.replace("-", "")[::-1], schedule="* * * * *")
    with pytest.raises(UnprocessableEntityError, match="Webhook host blocked: loopback"):
        await client.crons.create("echo", schedule="* * * * *", webhook="http://127.0.0.1/x")
    with pytest.raises(BadRequestError, match="Cannot specify both configurable and context"):
        await client.crons.create(
            "echo",
            schedule="* * * * *",
            context={"a": 1},
            config={"configurable": {"b": 2}},
        )
    with pytest.raises(NotFoundError, match="not found"):
        await client.crons.create_for_thread(ECHO, "echo", schedule="* * * * *")
    answer = await client.http.client.patch(f"/runs/crons/{ECHO}", json={})
    assert answer.status_code == 400
    assert answer.json()["detail"] == "Request body cannot be empty"
    answer = await client.http.client.get(f"/runs/crons/{ECHO}")
    assert (answer.status_code, answer.json()["detail"]) == (404, "Not Found")
    answer = await client.http.client.get("/runs/crons/nonsense")
    assert answer.json()["detail"] == "Invalid cron ID: must be a UUID"
