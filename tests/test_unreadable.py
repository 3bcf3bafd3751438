"""A row that cannot be opened is the fault of that row: what came along with it goes on, and so
does the worker."""

import asyncio
import json
import os
from datetime import timedelta
from typing import Any, LiteralString

import pytest

from clew.checkpointing.encryption import Keyring
from clew.checkpointing.errors import UnknownKey
from clew.checkpointing.postgres import SERVICE, Database
from clew.checkpointing.sealed import Seals
from clew.runtime import assistants, deadlines, errors, rowkeys, runs, sessions
from clew.runtime.firing import Crons
from clew.runtime.requests import RunRequest
from clew.runtime.runs import Run
from clew.runtime.sql import queries
from clew.runtime.telemetry import Telemetry
from tests.test_crons import Quiet
from tests.turns import Engine, engine, registered

SECRET = "kanarienvogel"
OURS, OTHERS = Keyring([("k1", os.urandom(32))]), Keyring([("lost", os.urandom(32))])
ASKED = RunRequest(graph_id="five", input={"trail": [SECRET]})


async def asked(db: Database, owner_id: int, request: RunRequest = ASKED) -> Run:
    """A run of a session of its own, that waits for a worker."""
    session = await sessions.create(db, SERVICE, owner_id)
    return await runs.create(db, SERVICE, owner_id, session.thread_id, request)


async def spoil(dsn: str, run: Run, body: bytes) -> None:
    async with Database.open(dsn) as plain:
        change = "update clew.run set request = %s where run_id = %s"
        assert await plain.execute(SERVICE, change, [body, run.run_id])


async def ended(here: Engine, run: Run) -> dict[str, Any]:
    """Its row, without what cannot be opened, once it is over."""
    async for _ in here.follow(run):
        pass
    row = await here.db.one(
        SERVICE,
        "select r.status, r.error, s.status as session from clew.run r "
        "join clew.session s using (thread_id) where r.run_id = %s",
        [run.run_id],
    )
    assert row is not None
    return row


def whole(seals: Seals) -> bytes:
    return seals.seal(json.dumps({"input": {"trail": [SECRET]}}).encode())


async def test_runs_whose_request_cannot_be_read_end_alone(
    dsn: str, caplog: pytest.LogCaptureFixture
):
    ours = Seals(OURS)
    sealed = whole(ours)
    spoiled = {
        "was changed": sealed[:-1] + bytes([sealed[-1] ^ 1]),
        "cut off": sealed[:9],
        "a form that this release": b"[" + SECRET.encode(),
        "TypeError in one of its fields": ours.seal(b'{"timeout": "soon"}'),
        "OverflowError in one of its fields": b'{"timeout": 1e300}',
        "ValueError in one of its fields": b'{"timeout": NaN}',
        "not in a form": b'{"stream_mode": 5}',
        "not in a form that": b'{"stream_mode": [[]]}',
        "not in a form that this": b'{"command": 5}',
        "not in a form that this release": b'{"trace": 5}',
    }
    async with Database.open(dsn, seals=ours) as db:
        owner_id = await db.owner("acme", "ann")
        before, *waiting, after = [await asked(db, owner_id) for _ in range(len(spoiled) + 2)]
    for run, body in zip(waiting, spoiled.values(), strict=True):
        await spoil(dsn, run, body)
    async with asyncio.timeout(60), engine(dsn, seals=ours) as here:
        for run in (before, after):
            assert (await ended(here, run)) == {
                "status": "success",
                "error": None,
                "session": "idle",
            }
        for run, why in zip(waiting, spoiled, strict=True):
            row = await ended(here, run)
            assert (row["status"], row["session"]) == ("error", "error")
            assert row["error"]["message"] == "The request of this run cannot be read."
            assert SECRET not in json.dumps(row)
            assert any(run.run_id in said and why in said for said in caplog.messages)
            turn = here.ask("five", {"trail": []}, thread_id=run.thread_id)
            assert (await here.result(await turn)).status == "success"


@pytest.mark.parametrize("lacking", [None, OTHERS])
async def test_what_a_process_lacks_the_key_of_is_left_for_one_that_has_it(
    dsn: str, lacking: Keyring | None, caplog: pytest.LogCaptureFixture
):
    """And keeps back nothing else: neither what comes after it nor the process."""
    async with Database.open(dsn, seals=Seals(OURS)) as db:
        owner_id = await db.owner("acme", "ann")
        left = [await asked(db, owner_id) for _ in range(2)]
    other = lacking and Seals(lacking)
    async with asyncio.timeout(60), engine(dsn, seals=other) as here:
        run = await asked(here.db, here.owner_id)
        here.notifier.publish("queue")
        assert (await ended(here, run))["status"] == "success"
        await rowkeys.complain(here.db)
        assert f"run {left[0].run_id} waits for a process that has key 'k1'" in caplog.text
        assert SECRET not in caplog.text
    async with Database.open(dsn) as db:
        untouched = "select from clew.run where status = 'pending' and attempt = 0"
        assert len(await db.fetch(SERVICE, untouched)) == 2
    async with asyncio.timeout(60), engine(dsn, seals=Seals(OURS)) as here:
        for run in left:
            assert (await ended(here, run))["status"] == "success"


async def test_a_process_does_not_begin_without_the_keys_in_use(dsn: str):
    async with Database.open(dsn, seals=Seals(OURS)) as db:
        owner_id = await db.owner("acme", "ann")
        await rowkeys.demand(db, ())
        await asked(db, owner_id)
    async with Database.open(dsn) as db:
        await rowkeys.demand(db, ["new", "k1"])
        for known in ((), ("new",)):
            with pytest.raises(errors.ConfigError, match="run that is encrypted under key 'k1'"):
                await rowkeys.demand(db, known)
        await db.execute(SERVICE, "update clew.run set request = '{}'")
        await rowkeys.demand(db, ())
        lineage = (
            "insert into clew.lineage (owner_id, thread_id, kind, key_id, wrapped_key) "
            "select owner_id, thread_id, 'root', 'k3', 'x' from clew.session limit 1"
        )
        await db.execute(SERVICE, lineage)
        with pytest.raises(errors.ConfigError, match=r"lineage .* under key 'k3'"):
            await rowkeys.demand(db, ["k1"])


async def fall_due(db: Database, cron: bytes) -> None:
    """A cron of each session, and its question."""
    await assistants.register(db, {"five": ""})
    made = (
        "insert into clew.cron (cron_id, owner_id, assistant_id, thread_id, schedule, request, "
        "next_at) select gen_random_uuid(), owner_id, %s, thread_id, '* * * * *', %s, "
        "now() - interval '1 hour' from clew.session"
    )
    await db.execute(SERVICE, made, [assistants.id_of("five"), cron])
    await db.execute(SERVICE, "update clew.interrupt set deadline_at = now()")


async def left_due(db: Database) -> list[dict[str, Any]]:
    return await db.fetch(
        SERVICE,
        "select i.outcome, c.next_at <= now() as late "
        "from clew.interrupt i join clew.cron c using (thread_id)",
    )


def firing(db: Database) -> Crons:
    return Crons(db, registered(), Quiet(), Telemetry())


@pytest.mark.parametrize("lacking", [None, OTHERS])
async def test_crons_and_deadlines_wait_for_a_process_that_has_their_key(
    dsn: str, lacking: Keyring | None
):
    async with asyncio.timeout(60), engine(dsn, seals=Seals(OURS)) as here:
        await here.turn("asks", {"trail": []}, **ASKS)
    async with Database.open(dsn, seals=lacking and Seals(lacking)) as db:
        await fall_due(db, Seals(OURS).seal(b'{"input": {"trail": []}}'))
        assert await firing(db).tick() == 0
        assert not await deadlines.meet(db)
        assert await left_due(db) == [{"outcome": None, "late": True}]
        # Nor does the loop spin for it.
        assert await db.one(SERVICE, queries["next_cron"], {"opens": db.opens}) == {"wait": None}
    async with Database.open(dsn, seals=Seals(OURS)) as db:
        assert await deadlines.meet(db)
        assert await firing(db).tick() == 1
        assert await runs.count(db, SERVICE, here.thread_id) == 3
        assert await left_due(db) == [{"outcome": None, "late": False}]


@pytest.mark.parametrize("spoiled", [b"{", b"\x82clewrow\x02k1"])
@pytest.mark.parametrize("column", ["interrupt set on_deadline", "run set request"])
async def test_a_cron_and_a_question_that_cannot_be_read_keep_back_nothing(
    dsn: str, spoiled: bytes, column: LiteralString
):
    async with asyncio.timeout(60), engine(dsn) as here:
        await here.turn("asks", {"trail": []}, **ASKS)
    async with Database.open(dsn) as db:
        await fall_due(db, spoiled)
        await db.execute(SERVICE, f"update clew.{column} = %s", [spoiled])
        assert await firing(db).tick() == 1
        assert not await deadlines.meet(db)
        assert await left_due(db) == [{"outcome": "timeout", "late": False}]


async def test_a_run_that_broke_on_the_way_is_given_back_unread(dsn: str):
    async with asyncio.timeout(60), engine(dsn, seals=Seals(OURS)) as here:
        run = await asked(here.db, here.owner_id, RunRequest(graph_id="five", after=SOON))
        await spoil(dsn, run, whole(Seals(OURS))[:-1] + b"?")
        # As where the answer to a claim was lost.
        lost = "update clew.run set status = 'running', worker_id = %s, epoch = 0 where run_id = %s"
        await here.db.execute(SERVICE, lost, [here.worker.worker_id, run.run_id])
        await here.db.execute(
            SERVICE, "update clew.run set due_at = now() where run_id = %s", [run.run_id]
        )
        assert (await ended(here, run))["status"] == "error"
        assert (await here.turn("five", {"trail": []})).status == "success"


async def test_a_request_made_twice_of_a_run_that_cannot_be_read_is_refused(dsn: str):
    async with asyncio.timeout(60), engine(dsn, seals=Seals(OURS)) as here:
        given: dict[str, Any] = {"after": SOON, "idempotency_key": "once"}
        run = await here.ask("five", {"trail": []}, **given)
        await spoil(dsn, run, whole(Seals(OTHERS)))
        with pytest.raises(UnknownKey):
            await here.ask("five", {"trail": []}, **given)
        other = await here.another()
        assert (await here.turn("five", {"trail": []}, thread_id=other)).status == "success"


async def test_a_default_answer_that_cannot_be_read_gives_up_its_question_alone(dsn: str):
    async with asyncio.timeout(60), engine(dsn, seals=Seals(OURS), role="api") as here:
        threads = [here.thread_id, await here.another()]
        async with engine(dsn, seals=Seals(OURS), thread_id=here.thread_id) as worker:
            for thread_id in threads:
                await worker.turn(
                    "asks",
                    {"trail": []},
                    thread_id=thread_id,
                    interrupt_timeout=SOON,
                    interrupt_default="yes",
                )
        change = "update clew.interrupt set on_deadline = %s where thread_id = %s"
        await here.db.execute(SERVICE, change, [whole(Seals(OURS))[:-1], threads[0]])
        await here.db.execute(
            SERVICE, "update clew.interrupt set deadline_at = now() - interval '1 second'"
        )
        await deadlines.meet(here.db)
        assert [(await here.session(key)).status for key in threads] == ["idle", "busy"]


SOON = timedelta(hours=1)
ASKS: dict[str, Any] = {"interrupt_timeout": SOON, "interrupt_default": "yes"}
