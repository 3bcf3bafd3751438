"""Workers: runs start, stop, move and end as asked, and whatever happens their session settles."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

import pytest
import pytest_asyncio
from langchain_core.messages import ToolMessage

from clew.checkpointing import lineage
from clew.checkpointing.postgres import SERVICE
from clew.runtime import errors, interrupts, leases, runs
from clew.runtime.events import BULKY, PLAIN, START, Event, PostgresLog, Row, unpack
from clew.runtime.executor import Executor, Turn
from clew.runtime.requests import RunRequest
from clew.runtime.sql import queries
from tests.turns import GATES, Engine, engine

SOON = timedelta(seconds=10)


@pytest_asyncio.fixture
async def here(dsn: str) -> AsyncIterator[Engine]:
    GATES.clear()
    async with engine(dsn) as found:
        yield found


def data(event: Event) -> Any:
    return json.loads(event.data)


async def test_a_turn_runs_and_settles_its_session(here: Engine):
    run = await here.ask("five", {"trail": ["start"]})
    assert run.status == "running"
    assert (await here.result(run)).status == "success"
    assert (await here.state("five")).values["trail"] == ["start", "a", "b", "c", "d", "e"]
    assert (await here.session()).status == "idle"


async def test_turns_that_wait_follow_at_once(here: Engine):
    made = [await here.ask("five", {"trail": [str(n)]}) for n in range(4)]
    for run in made:
        assert (await here.result(run)).status == "success"
    trail = (await here.state("five")).values["trail"]
    assert [name for name in trail if name.isdigit()] == ["0", "1", "2", "3"]


async def test_more_sessions_than_capacity_are_all_served(dsn: str):
    async with engine(dsn, concurrency=2) as here:
        made = [
            await here.ask("five", {"trail": []}, thread_id=await here.another()) for _ in range(12)
        ]
        ended = await asyncio.gather(*(here.result(run) for run in made))
        assert {run.status for run in ended} == {"success"}


async def test_an_api_process_leaves_runs_to_workers(dsn: str):
    async with engine(dsn, role="api") as api:
        run = await api.ask("five", {"trail": []})
        assert run.status == "pending"
        async with engine(dsn):
            assert (await api.result(run)).status == "success"


async def test_a_scheduled_run_starts_when_it_is_due(here: Engine):
    run = await here.ask("five", {"trail": []}, after=timedelta(seconds=0.3))
    assert run.status == "pending"
    ended = await here.result(run)
    assert ended.status == "success"
    assert ended.started_at is not None
    assert ended.started_at >= run.due_at


async def test_an_error_of_the_graph_is_told_and_not_tried_again(here: Engine):
    run = await here.ask("fails", {"trail": []})
    events = await here.events(run)
    assert data(events[-2]) == {"error": "ValueError", "message": "boom"}
    assert data(events[-1]) == {
        "run_id": run.run_id,
        "status": "error",
        "outcome": "failed",
    }
    ended = await here.result(run)
    assert (ended.status, ended.attempt, ended.error) == ("error", 1, data(events[-2]))
    session = await here.session()
    assert (session.status, session.error) == ("error", data(events[-2]))
    assert (await here.state("fails")).values["trail"] == ["one"]


async def test_a_state_that_cannot_be_stored_fails_the_run_and_nothing_else(here: Engine):
    assert (await here.turn("strange", {"trail": []})).status == "error"
    assert (await here.session()).status == "error"
    other = await here.another()
    assert (await here.turn("five", {"trail": []}, thread_id=other)).status == "success"


async def test_a_graph_that_is_not_there_fails_the_run(here: Engine):
    ended = await here.turn("nowhere", {})
    assert ended.status == "error"
    assert (await here.session()).status == "error"


async def test_a_run_over_its_time_is_stopped(here: Engine):
    run = await here.ask("waits", {"trail": []}, timeout=timedelta(seconds=0.2))
    ended = await here.result(run)
    assert ended.status == "timeout"
    session = await here.session()
    assert session.status == "error"
    assert session.error is not None
    assert session.error["error"] == "TimeoutError"


async def test_what_a_run_streamed_is_handed_over_when_it_is_cut_off(
    dsn: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("clew.runtime.flusher.FLUSH_SECONDS", 3600)
    # On a slow machine it would give up before it is done.
    monkeypatch.setattr("clew.runtime.executor.LEAVING_SECONDS", 30.0)
    GATES.clear()
    async with asyncio.timeout(60), engine(dsn, role="api") as api:
        await api.ask("waits", {"trail": []}, stream_mode=["updates"])
        worker_id = await leases.enlist(api.db, "test", timedelta(seconds=30))
        (run,) = await leases.claim(api.db, worker_id, 1)
        execute = Executor(api.db, api.graphs, api.saver, api.feed, api.notifier).execute
        going_on = asyncio.create_task(execute(Turn(run)))
        await GATES[""].entered.wait()
        async for event in api.follow(run):
            if event.name == "updates":
                break
        going_on.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going_on
        ended = await runs.get(api.db, api.who, run.thread_id, run.run_id)
        assert (ended.status, ended.crashes) == ("pending", 0)
        page = await PostgresLog(api.db).read(api.who, run.thread_id, START)
        told = [entry for row in page.rows for entry in unpack(row.codec, row.body)]
        assert [entry.name for entry in told] == ["metadata", "updates"]


async def test_cancel_returns_when_it_has_stopped_and_keeps_what_was_done(here: Engine):
    run = await here.ask("waits", {"trail": []})
    await GATES[""].entered.wait()
    stopped = await here.worker.cancel(
        here.who, here.thread_id, run.run_id, reason="by hand", wait=SOON
    )
    assert stopped is not None
    assert stopped.status == "interrupted"
    state = await here.state("waits")
    assert state.values["trail"] == ["one"]
    assert state.next == ("wait",)
    session = await here.session()
    assert session.status == "interrupted"
    assert session.error == {"error": "UserInterrupt", "message": "by hand"}
    GATES[""].opened.set()
    assert (await here.turn("waits")).status == "success"
    assert (await here.state("waits")).values["trail"] == ["one", "waited", "two"]


async def test_cancel_reaches_another_process(here: Engine, dsn: str):
    run = await here.ask("waits", {"trail": []})
    await GATES[""].entered.wait()
    async with engine(dsn, role="api", thread_id=here.thread_id) as api:
        stopped = await api.worker.cancel(api.who, api.thread_id, run.run_id, wait=SOON)
    assert stopped is not None
    assert stopped.status == "interrupted"


async def test_cancelling_what_is_over_finds_nothing(here: Engine):
    run = await here.turn("five", {"trail": []})
    with pytest.raises(errors.NotFound):
        await here.worker.cancel(here.who, here.thread_id, run.run_id)


async def test_rolling_back_leaves_the_session_as_it_was_before(here: Engine):
    await here.turn("five", {"trail": ["first"]})
    before = await here.state("five")
    run = await here.ask("waits", {"trail": ["second"]})
    await GATES[""].entered.wait()
    gone = await here.worker.cancel(
        here.who, here.thread_id, run.run_id, action="rollback", wait=SOON
    )
    assert gone is None
    after = await here.state("five")
    assert (after.config, after.values) == (before.config, before.values)
    assert (await here.session()).status == "idle"
    rows = await here.db.fetch(
        SERVICE, "select from clew.checkpoint where run_id = %s", [run.run_id]
    )
    assert rows == []


async def test_rolling_back_an_answer_asks_again(here: Engine):
    await here.turn("asks", {"trail": []})
    (question,) = (await here.state("asks")).interrupts
    GATES["x"].opened.clear()
    run = await here.ask("asks", command={"resume": "yes"}, interrupt_after=["ask"])
    await here.result(run)
    assert (await here.state("asks")).interrupts == ()
    # What a rolled back answer wrote beside the question goes with it.
    await here.saver.adelete_for_runs([run.run_id])
    assert [each.id for each in (await here.state("asks")).interrupts] == [question.id]


async def test_double_texting_interrupt_goes_on_from_what_was_done(here: Engine):
    first = await here.ask("waits", {"trail": ["first"]})
    await GATES[""].entered.wait()
    second = await here.ask("five", {"trail": ["second"]}, multitask_strategy="interrupt")
    assert (await here.result(second)).status == "success"
    assert (await here.result(first)).status == "interrupted"
    trail = (await here.state("five")).values["trail"]
    assert trail == ["first", "one", "second", "a", "b", "c", "d", "e"]


async def test_double_texting_rollback_starts_from_before(here: Engine):
    first = await here.ask("waits", {"trail": ["first"]})
    await GATES[""].entered.wait()
    second = await here.ask("five", {"trail": ["second"]}, multitask_strategy="rollback")
    assert (await here.result(second)).status == "success"
    trail = (await here.state("five")).values["trail"]
    assert trail == ["second", "a", "b", "c", "d", "e"]
    with pytest.raises(errors.NotFound):
        await runs.get(here.db, here.who, here.thread_id, first.run_id)


async def test_double_texting_reject_is_refused_at_once(here: Engine):
    await here.ask("waits", {"trail": []})
    with pytest.raises(errors.Conflict):
        await here.ask("five", {"trail": []}, multitask_strategy="reject")


async def test_a_question_is_asked_kept_and_answered(here: Engine):
    run = await here.ask("asks", {"trail": []}, interrupt_timeout=timedelta(hours=1))
    events = await here.events(run)
    assert data(events[-1])["outcome"] == "interrupted"
    told = [data(e) for e in events if e.name == "values" and b"__interrupt__" in e.data]
    assert [item["value"] for chunk in told for item in chunk["__interrupt__"]] == [
        {"question": "approve?"}
    ]
    assert (await here.result(run)).status == "success"
    session = await here.session()
    assert session.status == "interrupted"
    (question,) = await interrupts.inbox(here.db, here.who)
    assert question.value == {"question": "approve?"}
    assert question.deadline_at is not None
    (shown,) = session.interrupts.values()
    assert [item["id"] for item in shown] == [question.interrupt_id]
    answer = {"resume": {question.interrupt_id: "yes"}}
    assert (await here.turn("asks", command=answer, strict_resume=True)).status == "success"
    assert (await here.state("asks")).values["answers"] == ["yes"]
    assert (await here.session()).status == "idle"
    assert await interrupts.inbox(here.db, here.who) == []
    again = await here.turn("asks", command=answer, strict_resume=True)
    assert again.status == "error"
    assert again.error is not None
    assert again.error["error"] == "UnknownInterruptError"


async def test_of_two_questions_one_can_be_answered_first(here: Engine):
    await here.turn("asks_both", {"trail": []})
    asked = {q.value: q.interrupt_id for q in await interrupts.inbox(here.db, here.who)}
    assert set(asked) == {"left", "right"}
    await here.turn("asks_both", command={"resume": {asked["left"]: 1}})
    (left,) = await interrupts.inbox(here.db, here.who)
    assert left.value == "right"
    assert (await here.session()).status == "interrupted"
    await here.turn("asks_both", command={"resume": {asked["right"]: 2}})
    assert sorted((await here.state("asks_both")).values["answers"]) == ["left=1", "right=2"]
    assert (await here.session()).status == "idle"


async def test_a_question_survives_the_process_that_asked_it(here: Engine, dsn: str):
    await here.turn("nested", {"trail": []}, stream_subgraphs=True)
    async with engine(dsn, thread_id=here.thread_id) as there:
        (question,) = await interrupts.inbox(there.db, there.who)
        assert question.namespace[0].startswith("child:")
        ended = await there.turn("nested", command={"resume": {question.interrupt_id: "yes"}})
        assert ended.status == "success"
        assert (await there.state("nested")).values["answers"] == ["yes"]


async def test_a_new_input_drops_open_questions(here: Engine):
    await here.turn("asks", {"trail": []})
    (question,) = await interrupts.inbox(here.db, here.who)
    await here.turn("five", {"trail": ["new"]})
    assert await interrupts.inbox(here.db, here.who) == []
    closed = await interrupts.get(here.db, here.who, here.thread_id, question.interrupt_id)
    assert closed.outcome == "dropped"


async def test_a_breakpoint_pauses_and_the_next_run_passes_it(here: Engine):
    await here.turn("five", {"trail": []}, interrupt_before=["c"])
    state = await here.state("five")
    assert (state.values["trail"], state.next) == (["a", "b"], ("c",))
    assert (await here.session()).status == "interrupted"
    await here.turn("five", interrupt_before=["c"])
    assert (await here.state("five")).values["trail"] == ["a", "b", "c", "d", "e"]


async def test_a_run_from_a_checkpoint_branches_there(here: Engine):
    await here.turn("five", {"trail": ["old"]})
    async with here.graphs.open("five", checkpointer=here.saver, store=None) as graph:
        at: Any = {"configurable": {"thread_id": here.thread_id}}
        states = [state async for state in graph.aget_state_history(at)]
    (point,) = [state for state in states if state.next == ("c",)]
    checkpoint = dict(point.config.get("configurable", {}))
    await here.turn("five", checkpoint=checkpoint)
    assert (await here.state("five")).values["trail"] == ["old", "a", "b", "c", "d", "e"]
    await here.turn("five", {"trail": ["new"]}, checkpoint=checkpoint)
    trail = (await here.state("five")).values["trail"]
    assert trail == ["old", "a", "b", "new", "a", "b", "c", "d", "e"]


async def test_a_cancelled_tool_call_does_not_spoil_the_session(here: Engine):
    said = {"messages": [{"role": "user", "content": "look"}]}
    run = await here.ask("tooling", said)
    await GATES[""].entered.wait()
    await here.worker.cancel(here.who, here.thread_id, run.run_id, wait=SOON)
    GATES[""].opened.set()
    ended = await here.turn("tooling", said)
    assert ended.status == "success"
    messages = (await here.state("tooling")).values["messages"]
    notes = [m for m in messages if isinstance(m, ToolMessage) and m.status == "error"]
    assert [note.tool_call_id for note in notes] == ["call_1"]
    assert messages[-1].text == "done"


async def test_a_fork_of_a_broken_off_session_is_mended_as_well(here: Engine):
    said = {"messages": [{"role": "user", "content": "look"}]}
    run = await here.ask("tooling", said)
    await GATES[""].entered.wait()
    await here.worker.cancel(here.who, here.thread_id, run.run_id, wait=SOON)
    GATES[""].opened.set()
    fork = await here.another()
    async with here.db.transaction(here.who) as conn:
        await lineage.fork(conn, here.thread_id, fork)
    ended = await here.turn("tooling", said, thread_id=fork)
    assert ended.mends
    assert ended.status == "success"


async def test_a_sound_session_is_not_looked_at_for_repair(here: Engine):
    said = {"messages": [{"role": "user", "content": "hello"}]}
    assert not (await here.turn("echo", said)).mends
    assert not (await here.turn("echo", said)).mends


async def test_a_session_knows_about_how_much_it_holds(here: Engine):
    said = {"messages": [{"role": "user", "content": "hello " * 500}]}
    for _ in range(3):
        await here.turn("echo", said)
    row = await here.db.one(here.who, queries["bytes_of_session"], {"thread_id": here.thread_id})
    assert row is not None
    stored = row["checkpoint_bytes"] + row["write_bytes"] + row["item_bytes"]
    assert (await here.session()).bytes == pytest.approx(stored, rel=0.25)


async def test_listeners_hear_of_starts_and_of_messages(here: Engine):
    run = await here.turn("echo", {"messages": [{"role": "user", "content": "hello"}]})
    rows = await here.db.fetch(
        SERVICE, "select kind, run_id::text, data from clew.outbox order by outbox_id"
    )
    told = [row["kind"] for row in rows if row["run_id"] == run.run_id]
    assert told == ["run.created", "run.started", "run.success"]
    (added,) = [row["data"] for row in rows if row["kind"] == "session.message_added"]
    assert added == {"message_count": 2, "added": 2}


async def test_a_graph_finds_who_asked_by_key_and_by_name(here: Engine):
    user = {"identity": "ann", "permissions": ["read"], "org": "acme"}
    run = await here.turn("whose", {"trail": []}, user=user)
    assert run.status == "success"
    assert (await here.state("whose")).values["trail"] == ["ann", "ann", "ann", "acme", "read"]


async def test_a_stateless_run_leaves_nothing_to_be_found(here: Engine):
    from clew.runtime import ids

    thread_id = ids.mint()
    run = await here.ask("five", {"trail": []}, thread_id=thread_id, temporary=True)
    events = await here.events(run)
    last = [data(event) for event in events if event.name == "values"][-1]
    assert last["trail"] == ["a", "b", "c", "d", "e"]
    with pytest.raises(errors.NotFound):
        await here.session(thread_id)
    rows = await here.db.fetch(SERVICE, "select from clew.checkpoint")
    assert rows == []


async def test_a_graph_that_will_not_stop_is_fenced_off(
    here: Engine, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("clew.runtime.executor.STOPPING_SECONDS", 0.2)
    run = await here.ask("stubborn", {"trail": []})
    await GATES[""].entered.wait()
    stopped = await here.worker.cancel(here.who, here.thread_id, run.run_id, wait=SOON)
    assert stopped is not None
    assert stopped.status == "interrupted"
    ghost = [task for task in asyncio.all_tasks() if task.get_name() == f"run-{run.run_id}"]
    GATES[""].opened.set()
    await asyncio.wait(ghost)
    assert (await here.state("stubborn")).values["trail"] == ["one"]


async def test_a_drained_worker_hands_over_at_the_next_superstep(here: Engine, dsn: str):
    run = await here.ask("waits", {"trail": []})
    await GATES[""].entered.wait()
    leaving = asyncio.create_task(here.worker.drain(SOON))
    async with engine(dsn, thread_id=here.thread_id) as there:
        GATES[""].opened.set()
        await leaving
        ended = await there.result(run)
        assert (ended.status, ended.attempt, ended.crashes) == ("success", 2, 0)
        trail = (await there.state("waits")).values["trail"]
        assert trail == ["one", "waited", "two"]
        assert here.worker.capacity == 0


@pytest.mark.parametrize("protocol", ["legacy", "v2"])
async def test_what_a_worker_streamed_last_is_handed_over_with_the_run(
    here: Engine, dsn: str, monkeypatch: pytest.MonkeyPatch, protocol: Literal["legacy", "v2"]
):
    run = await here.ask("waits", {"trail": []}, stream_mode=["updates"], protocol=protocol)
    await GATES[""].entered.wait()
    # The step that is under way is stored, and its events are not flushed before the run leaves.
    monkeypatch.setattr("clew.runtime.flusher.FLUSH_SECONDS", 3600.0)
    leaving = asyncio.create_task(here.worker.drain(SOON))
    async with engine(dsn, thread_id=here.thread_id) as there:
        GATES[""].opened.set()
        await leaving
        events = await there.events(run)
    assert {event.epoch for event in events} == {1, 2}
    told = [event.data for event in events if event.name == "updates"]
    for step in (b"one", b"waited", b"two"):
        assert len([update for update in told if b'"%s"' % step in update]) == 1
    numbers = [event.n for event in events if event.epoch == 1]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_who_lost_its_run_hands_no_events_over(here: Engine):
    run = await here.ask("waits", {"trail": []})
    await GATES[""].entered.wait()
    late = Row(run.thread_id, run.run_id, 1, 90, 90, v2=False, kind=BULKY, codec=PLAIN, body=b"")
    assert not await leases.release(here.db, replace(run, worker_id=-1), [late])
    assert not await leases.release(here.db, replace(run, epoch=9), [late])
    rows = await here.db.fetch(SERVICE, "select from clew.event where last_n = 90")
    assert rows == []
    assert (await runs.get(here.db, here.who, run.thread_id, run.run_id)).status == "running"


async def test_a_run_that_outlasts_the_grace_goes_on_elsewhere(here: Engine, dsn: str):
    run = await here.ask("waits", {"trail": []})
    await GATES[""].entered.wait()
    async with engine(dsn, thread_id=here.thread_id) as there:
        await here.worker.drain(timedelta(0))
        GATES[""].opened.set()
        assert (await there.result(run)).status == "success"
        trail = (await there.state("waits")).values["trail"]
        assert trail == ["one", "waited", "two"]


async def test_leaving_a_worker_gives_its_runs_to_others(dsn: str):
    GATES.clear()
    async with engine(dsn) as here:
        run = await here.ask("waits", {"trail": []})
        await GATES[""].entered.wait()
        thread_id = here.thread_id
    GATES[""].opened.set()
    async with engine(dsn, thread_id=thread_id) as there:
        assert (await there.result(run)).status == "success"
        rows = await there.db.fetch(SERVICE, "select worker_id from clew.worker")
        assert [row["worker_id"] for row in rows] == [there.worker.worker_id]


async def test_a_run_that_kills_its_workers_is_given_up_with_the_reason(here: Engine):
    run = await runs.create(
        here.db,
        here.who,
        here.owner_id,
        here.thread_id,
        RunRequest(graph_id="five", input={"trail": []}, after=timedelta(seconds=0.5)),
    )
    await here.db.execute(SERVICE, "update clew.run set crashes = 3, due_at = now()")
    here.notifier.publish("queue")
    ended = await here.result(run)
    assert ended.status == "error"
    assert ended.error is not None
    assert "died on it 3 times" in ended.error["message"]
    assert (await here.session()).status == "error"


async def test_a_worker_taken_for_dead_stops_and_begins_anew(here: Engine, dsn: str):
    run = await here.ask("waits", {"trail": []})
    await GATES[""].entered.wait()
    old = here.worker.worker_id
    async with engine(dsn, thread_id=here.thread_id) as there:
        await here.db.execute(
            SERVICE,
            "delete from clew.worker where worker_id = %s",
            [old],
        )
        await here.db.execute(
            SERVICE,
            "update clew.run set status = 'pending', worker_id = null, crashes = crashes + 1",
        )
        there.notifier.publish("queue")
        GATES[""].opened.set()
        ended = await there.result(run)
        assert (ended.status, ended.attempt) == ("success", 2)
        trail = (await there.state("waits")).values["trail"]
        assert trail == ["one", "waited", "two"]
    fresh = await here.another()
    assert (await here.turn("five", {"trail": []}, thread_id=fresh)).status == "success"


async def test_tokens_are_streamed_in_both_protocols(here: Engine):
    said = {"messages": [{"role": "user", "content": "hi"}]}
    run = await here.ask("speaks", said, stream_mode=["messages-tuple", "custom"])
    events = await here.events(run)
    chunks = [data(event)[0] for event in events if event.name == "messages"]
    assert "".join(chunk["content"] for chunk in chunks) == "one two three"
    assert [data(event) for event in events if event.name == "custom"] == [{"thinking": True}]
    run = await here.ask("speaks", said, protocol="v2")
    events = await here.events(run)
    told = [data(event) for event in events if event.name == "messages"]
    assert [each["event"] for each in told[:2]] == ["message-start", "content-block-start"]
    assert (
        "".join(each["delta"]["text"] for each in told if each["event"] == "content-block-delta")
        == "one two three"
    )
    assert told[-1]["event"] == "message-finish"
    assert events[0].name == events[-1].name == "lifecycle"
    assert data(events[-1])["event"] == "completed"


async def test_whole_states_are_stored_once_and_read_back_as_they_were(here: Engine, dsn: str):
    modes = ["values", "checkpoints", "tasks", "debug"]
    for _ in range(2):
        await here.turn("five", {"trail": ["x" * 2000]}, stream_mode=modes)
    run = await here.ask("five", {"trail": ["x" * 2000]}, stream_mode=modes)
    near = await here.events(run)
    async with engine(dsn, thread_id=here.thread_id) as there:
        far = await there.events(run)
    assert [(e.id, e.name, data(e)) for e in far] == [(e.id, e.name, data(e)) for e in near]
    rows = await here.db.fetch(
        SERVICE, "select octet_length(body) as size from clew.event where run_id = %s", [run.run_id]
    )
    assert sum(row["size"] for row in rows) < 6000
