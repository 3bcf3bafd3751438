"""More than a server can take: who is over a limit, or meets a database that is away, is told when
to come back, and nobody else notices."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import psycopg
import pytest

from clew.api import problems
from clew.checkpointing import errors as below
from clew.runtime import errors
from tests.serving import serve

WAITING = """
select pid from pg_stat_activity
where datname = current_database() and wait_event_type = 'Lock' and application_name = 'clew'
    and query like '%clew.session where thread_id = % for no key update%'
"""


@asynccontextmanager
async def held(dsn: str, thread_id: str) -> AsyncGenerator[psycopg.AsyncConnection[Any]]:
    """Nobody gets at a session, so who asks for a turn on it waits in the middle of the request."""
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        await conn.execute("select from clew.session where thread_id = %s for update", [thread_id])
        yield conn
        await conn.rollback()


async def waiting(dsn: str, count: int) -> list[int]:
    """The connections that wait for a turn on a session, once there are so many."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        while len(rows := await (await conn.execute(WAITING)).fetchall()) < count:
            await conn.execute("select pg_sleep(0.02)")
    return [pid for (pid,) in rows]


def client(url: str) -> httpx.AsyncClient:
    """One that bears with a slow machine."""
    return httpx.AsyncClient(base_url=url, timeout=60)


async def session(http: httpx.AsyncClient) -> str:
    return (await http.post("/threads", json={})).json()["thread_id"]


def asking(http: httpx.AsyncClient, thread_id: str) -> asyncio.Task[httpx.Response]:
    body = {"assistant_id": "echo", "input": {"messages": []}}
    return asyncio.create_task(http.post(f"/threads/{thread_id}/runs", json=body))


@pytest.mark.parametrize("most", [2, 3])
async def test_who_finds_a_process_full_is_told_when_to_come_back(dsn: str, most: int) -> None:
    async with serve(dsn, max_requests=most) as url, client(url) as http:
        thread_id = await session(http)
        async with held(dsn, thread_id):
            inside = [asking(http, thread_id) for _ in range(2)]
            await waiting(dsn, 2)
            third = await http.get("/threads/" + thread_id)
            if most == 3:  # the control: it is the number that refuses
                assert third.status_code == 200
            else:
                assert third.status_code == 503
                assert third.headers["retry-after"] == "1"
                assert third.json()["code"] == "unavailable"
                assert (await http.get("/nowhere/ok")).status_code == 503
            assert (await http.get("/ok")).status_code == 200
            assert (await http.get("/metrics")).status_code == 200
        assert [(await each).status_code for each in inside] == [200, 200]
        assert (await http.get("/threads/" + thread_id)).status_code == 200


async def test_an_open_stream_takes_no_place(dsn: str) -> None:
    async with serve(dsn, max_requests=1) as url, client(url) as http:
        thread_id = await session(http)
        body = {"assistant_id": "slow", "input": {"wait": 60}, "stream_mode": ["custom"]}
        path = f"/threads/{thread_id}/runs"
        async with http.stream("POST", path + "/stream", json=body) as stream:
            lines = stream.aiter_lines()
            while "waiting" not in await anext(lines):
                pass
            (run,) = (await http.get(path)).json()
            assert run["status"] == "running"
            params = {"wait": "true"}
            cancelled = await http.post(f"{path}/{run['run_id']}/cancel", params=params)
            assert cancelled.is_success


# FastAPI would rather hear of a prefix from what is in front of it.
@pytest.mark.filterwarnings("ignore:The `root_path` parameter is deprecated")
async def test_who_is_watched_under_a_prefix_is_answered_there(dsn: str) -> None:
    async with (
        serve(dsn, max_requests=1, mount_prefix="/agents") as url,
        client(f"{url}/agents") as http,
    ):
        thread_id = await session(http)
        async with held(dsn, thread_id):
            inside = asking(http, thread_id)
            await waiting(dsn, 1)
            assert (await http.get("/ok")).status_code == 200
            assert (await http.get("/metrics")).status_code == 200
            assert (await http.get("/info")).status_code == 503
        assert (await inside).status_code == 200


async def test_a_body_that_is_on_its_way_takes_no_place(dsn: str) -> None:
    async with serve(dsn, max_requests=1) as url, client(url) as http, asyncio.timeout(60):
        thread_id = await session(http)
        path = httpx.URL(url)
        assert path.port is not None
        reader, writer = await asyncio.open_connection(path.host, path.port)
        writer.write(
            b"POST /threads HTTP/1.1\r\nHost: clew\r\nContent-Type: application/json\r\n"
            b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
        # The server is at the body now.
        assert b" 100 " in await reader.readuntil(b"\r\n\r\n")
        assert (await http.get("/threads/" + thread_id)).status_code == 200
        async with held(dsn, thread_id):
            inside = asking(http, thread_id)
            await waiting(dsn, 1)
            writer.write(b"{}")
            head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1\r\n" in head
        writer.close()
        assert (await inside).status_code == 200


async def test_who_waits_for_the_end_of_a_run_takes_no_place(dsn: str) -> None:
    async with serve(dsn, max_requests=1) as url, client(url) as http, asyncio.timeout(60):
        params = {"name": "slow", "arguments": {"wait": 3600}}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        called = asyncio.create_task(http.post("/mcp", json=body))
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
            find = "select thread_id, run_id from clew.run where status = 'running'"
            while not (run := await (await conn.execute(find)).fetchone()):
                await conn.execute("select pg_sleep(0.02)")
            path = f"/threads/{run[0]}/runs/{run[1]}/cancel"
            # It has its place until it begins to wait.
            while (stopped := await http.post(path, params={"wait": "true"})).status_code == 503:
                await conn.execute("select pg_sleep(0.02)")
        assert stopped.status_code == 200
        assert (await called).status_code == 200


async def test_who_has_as_many_runs_as_one_may_is_told_when_to_come_back(dsn: str) -> None:
    async with serve(dsn, max_runs=1) as url, client(url) as http:
        first, second = await session(http), await session(http)
        body: dict[str, Any] = {"assistant_id": "slow", "input": {"wait": 60}}
        run = (await http.post(f"/threads/{first}/runs", json=body)).json()
        refused = await http.post(f"/threads/{second}/runs", json=body)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
        assert refused.json()["code"] == "limited"
        path = f"/threads/{first}/runs/{run['run_id']}/cancel"
        assert (await http.post(path, params={"wait": "true"})).is_success
        body["input"]["wait"] = 0
        assert (await http.post(f"/threads/{second}/runs/wait", json=body)).status_code == 200


async def test_a_request_that_the_database_fails_may_come_again(dsn: str) -> None:
    async with serve(dsn) as url, client(url) as http:
        thread_id = await session(http)
        async with held(dsn, thread_id) as conn:
            asked = asking(http, thread_id)
            (pid,) = await waiting(dsn, 1)
            await conn.execute("select pg_terminate_backend(%s)", [pid])
            failed = await asked
        assert (failed.status_code, failed.headers["retry-after"]) == (503, "1")
        assert failed.json()["code"] == "database_unreachable"
        # What Postgres says of it is for the log.
        assert "terminat" not in failed.text
        assert (await asking(http, thread_id)).status_code == 200


async def test_a_key_that_no_index_holds_is_refused(dsn: str) -> None:
    async with serve(dsn) as url, client(url) as http:
        path = f"/threads/{await session(http)}/runs"
        body = {"assistant_id": "echo", "input": {"messages": []}}
        answers = [
            await http.post(path, json=body, headers={"Idempotency-Key": "k" * count})
            for count in (255, 256)
        ]
        assert [each.status_code for each in answers] == [200, 422]
        assert "Idempotency-Key" in answers[1].json()["detail"]


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (psycopg.OperationalError("the connection is lost"), True),
        (psycopg.errors.ConnectionFailure(), True),
        (psycopg.errors.DeadlockDetected(), True),
        (psycopg.errors.DiskFull(), True),
        (psycopg.errors.AdminShutdown(), True),
        (psycopg.errors.ProgramLimitExceeded("row size 8208 exceeds 2704"), False),
        (psycopg.errors.ObjectNotInPrerequisiteState(), False),
    ],
)
def test_what_comes_again_at_each_try_is_no_reason_to_try(
    error: psycopg.Error, *, passes: bool
) -> None:
    answer = problems.of(error)
    assert (answer.status_code, answer.headers.get("retry-after")) == (
        (503, "1") if passes else (500, None)
    )
    assert "8208" not in bytes(answer.body).decode()


def test_only_what_waiting_mends_says_when_to_come_back() -> None:
    away = problems.of(below.DatabaseUnreachable("no database connection became free in time"))
    assert (away.status_code, away.headers["retry-after"]) == (503, "1")
    missing = problems.of(errors.Unavailable("this server keeps no long-term memory"))
    assert (missing.status_code, missing.headers.get("retry-after")) == (503, None)
