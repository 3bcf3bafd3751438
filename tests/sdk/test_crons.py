"""Every method of the clients' `crons`."""

import uuid
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from langgraph_sdk.errors import BadRequestError, NotFoundError, UnprocessableEntityError

from tests.sdk.official import Official, shows

NEVER = "0 0 29 2 *"
IN: dict[str, Any] = {"x": ["in"]}


@shows("crons.create", "POST /runs/crons")
async def test_a_cron_is_made_of_a_schedule_and_a_request(official: Official) -> None:
    mark = {"batch": str(uuid.uuid4())}
    end = datetime.now(UTC) + timedelta(days=365 * 9)
    made: Any = await official.crons.create(
        "steps",
        schedule=NEVER,
        input=IN,
        metadata=mark,
        timezone="Asia/Shanghai",
        end_time=end,
        on_run_completed="keep",
        enabled=False,
        stream_mode=["updates"],
        interrupt_before=["two"],
    )
    assert (made["schedule"], made["timezone"]) == (NEVER, "Asia/Shanghai")
    assert (made["enabled"], made["on_run_completed"]) == (False, "keep")
    assert made["payload"]["input"] == IN
    assert made["payload"]["interrupt_before"] == ["two"]
    assert datetime.fromisoformat(made["end_time"]) == end
    assert made["thread_id"] is None
    with pytest.raises(UnprocessableEntityError, match="Invalid cron schedule: 'bad'"):
        await official.crons.create("steps", schedule="bad")
    with pytest.raises(UnprocessableEntityError, match="Invalid timezone"):
        await official.crons.create("steps", schedule=NEVER, timezone="No/Where")


@shows("crons.create_for_thread", "POST /threads/{thread_id}/runs/crons")
async def test_a_cron_of_a_thread_runs_there(official: Official, database: str) -> None:
    at = (await official.threads.create())["thread_id"]
    made = await official.crons.create_for_thread(at, "steps", schedule=NEVER, input=IN)
    assert (made["thread_id"], made["schedule"]) == (at, NEVER)
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
        await conn.execute(
            "update clew.cron set next_at = now() where cron_id = %s", [made["cron_id"]]
        )
    stream = official.threads.join_stream(at, last_event_id="-", stream_mode="lifecycle")
    async with aclosing(stream) as parts:
        done = [await anext(parts) for _ in range(2)][1]
    await official.crons.delete(made["cron_id"])
    assert done.data["status"] == "run_done"
    assert (await official.threads.get_state(at))["values"]["x"] == ["in", "one", "two"]


@shows("crons.update", "PATCH /runs/crons/{cron_id}")
@shows("crons.delete", "DELETE /runs/crons/{cron_id}")
async def test_a_cron_is_changed_and_deleted(official: Official) -> None:
    end = datetime.now(UTC) + timedelta(days=365 * 9)
    made = await official.crons.create("steps", schedule=NEVER, input=IN, end_time=end)
    at = made["cron_id"]
    changed = await official.crons.update(
        at, schedule="0 0 1 1 *", enabled=False, end_time=None, metadata={"m": 1}, input={"x": []}
    )
    assert (changed["schedule"], changed["enabled"]) == ("0 0 1 1 *", False)
    assert changed["end_time"] is None
    assert (changed["metadata"], changed["payload"]["input"]) == ({"m": 1}, {"x": []})
    with pytest.raises(BadRequestError, match="Request body cannot be empty"):
        await official.crons.update(at)
    await official.crons.delete(at)
    for gone in (official.crons.delete(at), official.crons.update(at, enabled=True)):
        with pytest.raises(NotFoundError, match="Not Found"):
            await gone


@shows("crons.search", "POST /runs/crons/search")
@shows("crons.count", "POST /runs/crons/count")
async def test_crons_are_found_and_counted(official: Official) -> None:
    mark = {"batch": str(uuid.uuid4())}
    thread_id = (await official.threads.create())["thread_id"]
    first = await official.crons.create("steps", schedule=NEVER, metadata=mark)
    second = await official.crons.create("echo", schedule=NEVER, metadata=mark, enabled=False)
    third = await official.crons.create_for_thread(
        thread_id, "steps", schedule=NEVER, metadata=mark
    )

    async def found(**given: Any) -> list[str]:
        crons = await official.crons.search(
            metadata=mark, sort_by="created_at", sort_order="asc", **given
        )
        return [cron["cron_id"] for cron in crons]

    everything = [first["cron_id"], second["cron_id"], third["cron_id"]]
    assert await found() == everything
    assert await found(limit=1, offset=1) == everything[1:2]
    assert await found(enabled=False) == [second["cron_id"]]
    assert await found(assistant_id="echo") == [second["cron_id"]]
    assert await found(thread_id=thread_id) == [third["cron_id"]]
    [picked] = await official.crons.search(thread_id=thread_id, select=["cron_id"])
    assert picked == {"cron_id": third["cron_id"]}
    assert await official.crons.count(metadata=mark) == 3
    assert await official.crons.count(metadata=mark, assistant_id="steps") == 2
    assert await official.crons.count(thread_id=thread_id) == 1
