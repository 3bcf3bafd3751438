"""Every method of the clients' `runs`."""

import asyncio
import uuid
from contextlib import aclosing
from typing import Any

import pytest
from langgraph_sdk.errors import ConflictError, NotFoundError, UnprocessableEntityError

from tests.sdk.official import Official, shows

Json = dict[str, Any]
IN: Json = {"x": ["in"]}
DONE: Json = {"x": ["in", "one", "two"], "n": 1}


async def new(official: Official) -> str:
    return (await official.threads.create())["thread_id"]


async def told(stream: Any) -> list[Any]:
    return [part async for part in stream]


async def begun(official: Official, at: str, run_id: str) -> None:
    """Once the run's node has said that it waits."""
    stream = official.runs.join_stream(at, run_id, last_event_id="-", stream_mode="custom")
    async with aclosing(stream) as parts:
        async for part in parts:
            if part.data == {"waiting": True}:
                return


@shows("runs.stream", "POST /threads/{thread_id}/runs/stream")
async def test_a_run_streams_and_says_who_it_is(official: Official) -> None:
    at = await new(official)
    created: list[Any] = []
    parts = await told(
        official.runs.stream(
            at,
            "steps",
            input=IN,
            stream_mode=["values", "updates", "custom"],
            metadata={"m": 1},
            on_run_created=created.append,
        )
    )
    assert [part.event for part in parts] == [
        *("metadata", "values", "custom", "updates", "values", "updates", "values", "end")
    ]
    run_id = parts[0].data["run_id"]
    assert created == [{"run_id": run_id, "thread_id": at}]
    assert parts[2].data == {"hello": "from one"}
    assert parts[3].data == {"one": {"x": ["one"]}}
    assert parts[-2].data == DONE
    assert parts[-1].data["run_id"] == run_id
    assert parts[-1].data["status"] == "success"
    run = await official.runs.get(at, run_id)
    assert (run["status"], run["metadata"]["m"]) == ("success", 1)


@shows("runs.stream", "POST /threads/{thread_id}/runs/stream")
@pytest.mark.parametrize(
    ("mode", "event"),
    [
        ("values", "values"),
        ("updates", "updates"),
        ("messages", "messages/partial"),
        ("messages-tuple", "messages"),
        ("tasks", "tasks"),
        ("checkpoints", "checkpoints"),
        ("debug", "debug"),
        ("events", "events"),
        ("tools", None),
    ],
)
async def test_every_stream_mode_streams(official: Official, mode: str, event: str | None) -> None:
    given = {"messages": [{"role": "user", "content": "hi"}]}
    parts = await told(
        official.runs.stream(await new(official), "tokens", input=given, stream_mode=mode)
    )
    events = {part.event for part in parts} - {"metadata", "end", "messages/metadata"}
    assert events == ({event} if event else set())


async def test_a_stream_in_the_newer_words_of_the_client(official: Official) -> None:
    stream = official.runs.stream(await new(official), "steps", input=IN, version="v2")
    parts = await told(stream)
    assert parts[-1]["type"] in ("values", "end")
    assert [part["data"] for part in parts if part["type"] == "values"][-1] == DONE


@shows("runs.stream", "POST /runs/stream")
async def test_a_run_without_a_thread_streams_and_leaves_nothing(official: Official) -> None:
    created: list[Any] = []
    stream = official.runs.stream(None, "steps", input=IN, on_run_created=created.append)
    assert (await told(stream))[-2].data == DONE
    with pytest.raises(NotFoundError):
        await official.threads.get(created[0]["thread_id"])
    kept: list[Any] = []
    await told(
        official.runs.stream(
            None, "steps", input=IN, on_completion="keep", on_run_created=kept.append
        )
    )
    assert (await official.threads.get_state(kept[0]["thread_id"]))["values"] == DONE


async def test_subgraphs_stream_under_their_own_names(official: Official) -> None:
    stream = official.runs.stream(
        await new(official), "nested", input=IN, stream_mode="updates", stream_subgraphs=True
    )
    events = [part.event for part in await told(stream)]
    assert [event.partition(":")[0] for event in events[1:-1]] == [
        "updates",
        "updates|child",
        "updates",
    ]


@shows("runs.create", "POST /threads/{thread_id}/runs", "POST /runs")
@shows("runs.get", "GET /threads/{thread_id}/runs/{run_id}")
@shows("runs.join", "GET /threads/{thread_id}/runs/{run_id}/join")
async def test_a_run_in_the_background_is_joined(official: Official) -> None:
    at = await new(official)
    made = await official.runs.create(at, "steps", input=IN, metadata={"m": "平"})
    assert (made["thread_id"], made["metadata"]["m"]) == (at, "平")
    assert await official.runs.join(at, made["run_id"]) == DONE
    read = await official.runs.get(at, made["run_id"])
    assert (read["status"], read["kwargs"]["input"]) == ("success", IN)
    stateless = await official.runs.create(None, "steps", input=IN, on_completion="keep")
    assert await official.runs.join(stateless["thread_id"], stateless["run_id"]) == DONE


async def test_a_run_begins_later_where_it_is_asked_to(official: Official) -> None:
    at = await new(official)
    made = await official.runs.create(at, "steps", input=IN, after_seconds=3600)
    assert made["status"] == "pending"
    assert (await official.threads.get(at))["status"] == "busy"
    await official.runs.cancel(at, made["run_id"])
    assert (await official.runs.get(at, made["run_id"]))["status"] == "interrupted"


@shows("runs.wait", "POST /threads/{thread_id}/runs/wait", "POST /runs/wait")
async def test_a_run_is_waited_for(official: Official) -> None:
    at = await new(official)
    assert await official.runs.wait(at, "steps", input=IN) == DONE
    assert await official.runs.wait(None, "steps", input=IN) == DONE
    created = str(uuid.uuid4())
    assert await official.runs.wait(created, "steps", input=IN, if_not_exists="create") == DONE
    with pytest.raises(Exception, match="ValueError: boom"):
        await official.runs.wait(at, "fails", input=IN)
    failed = await official.runs.wait(at, "fails", input=IN, raise_error=False)
    assert failed["__error__"] == {"error": "ValueError", "message": "boom"}
    assert (await official.threads.get(at))["error"] == failed["__error__"]


async def test_a_question_is_told_and_answered(official: Official) -> None:
    at = await new(official)
    asked = await official.runs.wait(at, "ask", input=IN)
    [question] = asked["__interrupt__"]
    assert question["value"] == {"question": "approve?"}
    assert (await official.threads.get(at))["status"] == "interrupted"
    answered = await official.runs.wait(at, "ask", command={"resume": {question["id"]: "yes"}})
    assert (answered["answer"], answered["n"]) == ("yes", 1)


async def test_one_of_two_questions_is_answered_and_the_other_stays(official: Official) -> None:
    at = await new(official)
    asked = await official.runs.wait(at, "both", input=IN)
    by_name = {item["value"]: item["id"] for item in asked["__interrupt__"]}
    rest = await official.runs.wait(at, "both", command={"resume": {by_name["left"]: "L"}})
    assert [item["value"] for item in rest["__interrupt__"]] == ["right"]
    done = await official.runs.wait(at, "both", command={"resume": {by_name["right"]: "R"}})
    assert sorted(done["x"]) == ["in", "left=L", "right=R"]


async def test_a_resume_that_is_strict_needs_a_question_that_waits(official: Official) -> None:
    at = await new(official)
    await official.runs.wait(at, "ask", input=IN)
    failed = await official.runs.wait(
        at, "ask", command={"resume": {"0" * 32: "x"}}, strict_resume=True, raise_error=False
    )
    assert failed["__error__"]["error"] == "UnknownInterruptError"


async def test_runs_stop_before_and_after_nodes_and_begin_at_checkpoints(
    official: Official,
) -> None:
    at = await new(official)
    stopped = await official.runs.wait(at, "steps", input=IN, interrupt_before=["two"])
    assert stopped["x"] == ["in", "one"]
    state = await official.threads.get_state(at)
    assert (await official.runs.wait(at, "steps", interrupt_after="*"))["x"] == ["in", "one", "two"]
    again = await official.runs.wait(at, "steps", checkpoint=state["checkpoint"])
    assert again["x"] == ["in", "one", "two"]
    other = await official.runs.wait(
        at, "steps", input={"x": ["new"]}, checkpoint_id=state["checkpoint_id"]
    )
    assert other["x"] == ["in", "one", "new", "one", "two"]


async def test_context_and_durability_reach_the_graph_and_its_history(official: Official) -> None:
    at = await new(official)
    warm = await official.runs.wait(at, "context", input=IN, context={"tone": "warm"})
    assert warm["x"] == ["in", "warm"]
    configured = await official.runs.wait(
        None, "context", input=IN, config={"configurable": {"tone": "cold"}}
    )
    assert configured["x"] == ["in", "cold"]
    other = await new(official)
    async for _ in official.runs.stream(other, "steps", input=IN, durability="exit"):
        pass
    assert len(await official.threads.get_history(other)) == 1


@shows("runs.list", "GET /threads/{thread_id}/runs")
async def test_runs_are_listed_newest_first(official: Official) -> None:
    at = await new(official)
    for _ in range(2):
        await official.runs.wait(at, "steps", input=IN)
    await official.runs.wait(at, "fails", input=IN, raise_error=False)
    listed = await official.runs.list(at)
    assert [run["status"] for run in listed] == ["error", "success", "success"]
    assert [run["run_id"] for run in await official.runs.list(at, limit=1, offset=1)] == [
        listed[1]["run_id"]
    ]
    [failed] = await official.runs.list(at, status="error", select=["run_id", "status"])
    assert failed == {"run_id": listed[0]["run_id"], "status": "error"}


@shows("runs.create_batch", "POST /runs/batch")
async def test_a_batch_is_made_of_runs_of_their_own(official: Official) -> None:
    asked = [
        {"assistant_id": "steps", "input": {"x": [name]}, "on_completion": "keep"}
        for name in ("a", "b")
    ]
    made = await official.runs.create_batch(asked)
    assert len({run["thread_id"] for run in made}) == 2
    joined = [await official.runs.join(run["thread_id"], run["run_id"]) for run in made]
    assert [values["x"][0] for values in joined] == ["a", "b"]


@shows("runs.join_stream", "GET /threads/{thread_id}/runs/{run_id}/stream")
async def test_a_stream_is_joined_from_the_start_from_an_event_and_from_now(
    official: Official,
) -> None:
    at = await new(official)
    made = await official.runs.create(at, "steps", input=IN, stream_mode=["values", "custom"])
    run_id = made["run_id"]
    whole = await told(official.runs.join_stream(at, run_id, last_event_id="-1"))
    assert [part.event for part in whole] == [
        *("metadata", "values", "custom", "values", "values", "end")
    ]
    rest = await told(official.runs.join_stream(at, run_id, last_event_id=whole[2].id))
    assert [part.id for part in rest] == [part.id for part in whole[3:]]
    both = official.runs.join_stream(
        at, run_id, last_event_id="-", stream_mode=["custom", "updates"]
    )
    assert [part.event for part in await told(both)] == ["custom", "end"]
    assert await told(official.runs.join_stream(at, run_id)) == []


@shows("runs.cancel", "POST /threads/{thread_id}/runs/{run_id}/cancel")
async def test_a_run_is_stopped_and_its_thread_stays_usable(official: Official) -> None:
    at = await new(official)
    made = await official.runs.create(at, "slow", input=IN, stream_mode=["custom"])
    await begun(official, at, made["run_id"])
    await official.runs.cancel(at, made["run_id"], wait=True)
    assert (await official.runs.get(at, made["run_id"]))["status"] == "interrupted"
    state = await official.threads.get_state(at)
    assert (state["values"]["x"], state["next"]) == (["in", "one"], ["wait"])
    with pytest.raises(NotFoundError, match="No matching runs to cancel"):
        await official.runs.cancel(at, made["run_id"])
    assert (await official.runs.wait(at, "steps", input=IN))["x"][-2:] == ["one", "two"]


@shows("runs.cancel", "POST /threads/{thread_id}/runs/{run_id}/cancel")
async def test_a_run_that_is_rolled_back_was_never_there(official: Official) -> None:
    at = await new(official)
    made = await official.runs.create(at, "slow", input=IN, stream_mode=["custom"])
    await begun(official, at, made["run_id"])
    await official.runs.cancel(at, made["run_id"], wait=True, action="rollback")
    with pytest.raises(NotFoundError):
        await official.runs.get(at, made["run_id"])
    assert await official.threads.get_history(at) == []
    assert (await official.threads.get(at))["status"] == "idle"


@shows("runs.cancel_many", "POST /runs/cancel")
async def test_many_runs_are_stopped_at_once(official: Official) -> None:
    at = await new(official)
    made = [
        await official.runs.create(at, "slow", input=IN, stream_mode=["custom"]) for _ in range(3)
    ]
    await begun(official, at, made[0]["run_id"])
    ids = [run["run_id"] for run in made]
    await official.runs.cancel_many(thread_id=at, run_ids=ids)
    await official.runs.join(at, ids[0])
    assert [run["status"] for run in await official.runs.list(at)] == ["interrupted"] * 3
    with pytest.raises(NotFoundError, match="No runs found to cancel"):
        await official.runs.cancel_many(thread_id=at, run_ids=[str(uuid.uuid4())])
    with pytest.raises(UnprocessableEntityError):
        await official.runs.cancel_many()


@shows("runs.delete", "DELETE /threads/{thread_id}/runs/{run_id}")
async def test_a_deleted_run_takes_its_checkpoints_with_it(official: Official) -> None:
    at = await new(official)
    await official.runs.wait(at, "steps", input=IN)
    await official.runs.wait(at, "steps", input={"x": ["more"]})
    last = (await official.runs.list(at))[0]["run_id"]
    await official.runs.delete(at, last)
    with pytest.raises(NotFoundError):
        await official.runs.get(at, last)
    assert (await official.threads.get_state(at))["values"] == DONE
    with pytest.raises(NotFoundError, match="Run not found"):
        await official.runs.delete(at, last)


async def test_two_turns_at_once_are_settled_as_asked(official: Official) -> None:
    at = await new(official)
    first = await official.runs.create(at, "slow", input=IN, stream_mode=["custom"])
    await begun(official, at, first["run_id"])
    with pytest.raises(ConflictError, match="already running a task"):
        await official.runs.create(at, "steps", input=IN, multitask_strategy="reject")
    queued = await official.runs.create(at, "steps", input={"x": ["queued"]})
    assert queued["status"] == "pending"
    taken = official.runs.wait(at, "steps", input={"x": ["taken"]}, multitask_strategy="interrupt")
    values = await asyncio.wait_for(taken, 30)
    assert "taken" in values["x"]
    assert (await official.runs.get(at, first["run_id"]))["status"] == "interrupted"
    other = await new(official)
    slow = await official.runs.create(other, "slow", input=IN, stream_mode=["custom"])
    await begun(official, other, slow["run_id"])
    alone = await official.runs.wait(
        other, "steps", input={"x": ["alone"]}, multitask_strategy="rollback"
    )
    assert alone["x"] == ["alone", "one", "two"]
    with pytest.raises(NotFoundError):
        await official.runs.get(other, slow["run_id"])


async def test_a_checkpoint_may_be_named_in_the_config(official: Official) -> None:
    at = await new(official)
    await official.runs.wait(at, "steps", input=IN)
    older = (await official.threads.get_history(at))[1]
    await official.threads.update_state(at, {"x": ["edited"]}, as_node="two")
    config = {"configurable": {"checkpoint_id": older["checkpoint_id"]}}
    assert await official.runs.wait(at, "steps", config=config) == DONE
