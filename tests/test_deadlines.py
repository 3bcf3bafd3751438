"""Questions with a deadline: answered by default, or given up, once, whoever looks."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest_asyncio

from clew.checkpointing.postgres import SERVICE
from clew.runtime import deadlines, interrupts, runs
from tests.turns import Engine, engine


@pytest_asyncio.fixture
async def here(dsn: str) -> AsyncIterator[Engine]:
    async with engine(dsn) as found:
        yield found


async def overdue(here: Engine) -> None:
    past = "update clew.interrupt set deadline_at = now() - interval '1 second'"
    await here.db.execute(SERVICE, past)


async def test_the_default_answer_is_given_by_one_run_however_many_look(here: Engine):
    wait = timedelta(hours=1)
    await here.turn("asks", {"trail": []}, interrupt_timeout=wait, interrupt_default={"ok": False})
    await overdue(here)
    await asyncio.gather(*(deadlines.meet(here.db) for _ in range(5)))
    here.notifier.publish("queue")
    answer, _ = await runs.list_(here.db, here.who, here.thread_id)
    assert answer.metadata["answered_by"] == "deadline"
    assert (await here.result(answer)).status == "success"
    assert (await here.state("asks")).values["answers"] == [{"ok": False}]
    assert await runs.count(here.db, here.who, here.thread_id) == 2
    assert (await here.session()).status == "idle"


async def test_without_a_default_the_question_is_given_up(here: Engine):
    await here.turn("asks", {"trail": []}, interrupt_timeout=timedelta(hours=1))
    (question,) = await interrupts.inbox(here.db, here.who)
    await overdue(here)
    await deadlines.meet(here.db)
    closed = await interrupts.get(here.db, here.who, here.thread_id, question.interrupt_id)
    assert closed.outcome == "timeout"
    assert await interrupts.inbox(here.db, here.who) == []
    session = await here.session()
    assert (session.status, session.interrupts) == ("idle", {})
    assert (await here.turn("five", {"trail": ["on"]})).status == "success"


async def test_one_of_two_questions_given_up_leaves_the_other(here: Engine):
    await here.turn("asks_both", {"trail": []}, interrupt_timeout=timedelta(hours=1))
    asked = {q.value: q.interrupt_id for q in await interrupts.inbox(here.db, here.who)}
    await overdue(here)
    later = await interrupts.get(here.db, here.who, here.thread_id, asked["right"])
    await interrupts.set_deadline(here.db, here.who, here.thread_id, later.interrupt_id, None)
    await deadlines.meet(here.db)
    assert [q.value for q in await interrupts.inbox(here.db, here.who)] == ["right"]
    assert (await here.session()).status == "interrupted"


async def test_a_question_before_its_deadline_waits(here: Engine):
    await here.turn("asks", {"trail": []}, interrupt_timeout=timedelta(hours=1))
    assert await deadlines.meet(here.db) is False
    assert len(await interrupts.inbox(here.db, here.who)) == 1
