"""A row that cannot be opened is the fault of that row: what came along with it goes on, and so
does the worker."""

import asyncio
import json
import os
from datetime import timedelta
from typing import Any

import pytest

from clew.checkpointing.encryption import Keyring
from clew.checkpointing.errors import UnknownKey
from clew.checkpointing.postgres import SERVICE, Database
from clew.checkpointing.sealed import Sealed, Seals
from clew.runtime import deadlines, runs, sessions
from clew.runtime.requests import RunRequest
from clew.runtime.runs import Run
from tests.turns import Engine, engine

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


async def test_runs_whose_request_cannot_be_read_end_alone(dsn: str):
    ours = Seals(OURS)
    sealed = whole(ours)
    spoiled = {
        "under key 'lost'": whole(Seals(OTHERS)),
        "was changed": sealed[:-1] + bytes([sealed[-1] ^ 1]),
        "cut off": sealed[:9],
        "a form that this release": b"[" + SECRET.encode(),
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
            assert row["error"]["message"].startswith("The request of this run cannot be read: ")
            assert why in row["error"]["message"]
            assert SECRET not in json.dumps(row)
            turn = here.ask("five", {"trail": []}, thread_id=run.thread_id)
            assert (await here.result(await turn)).status == "success"


async def test_without_keys_what_is_sealed_ends_as_an_error(dsn: str):
    async with Database.open(dsn, seals=Seals(OURS)) as db:
        run = await asked(db, await db.owner("acme", "ann"))
    async with asyncio.timeout(60), engine(dsn) as here:
        row = await ended(here, run)
        assert row["status"] == "error"
        assert "CLEW_ENCRYPTION_KEYS is not set" in row["error"]["message"]


async def test_a_run_that_broke_on_the_way_is_given_back_unread(dsn: str):
    async with asyncio.timeout(60), engine(dsn, seals=Seals(OURS)) as here:
        run = await asked(here.db, here.owner_id, RunRequest(graph_id="five", after=SOON))
        await spoil(dsn, run, whole(Seals(OTHERS)))
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
        async with Database.open(dsn, seals=Seals(OTHERS)) as others:
            change = "update clew.interrupt set on_deadline = %s where thread_id = %s"
            await others.execute(SERVICE, change, [Sealed(b'"no"'), threads[0]])
        await here.db.execute(
            SERVICE, "update clew.interrupt set deadline_at = now() - interval '1 second'"
        )
        await deadlines.meet(here.db)
        assert [(await here.session(key)).status for key in threads] == ["idle", "busy"]


SOON = timedelta(hours=1)
