"""Requests made up from the OpenAPI document, sent to a real server: whatever is asked, the answer
is none of the 5xx, it is of a kind that the document names, and a refusal is problem+json.

About half of them are given ids that exist, or nearly all would end at a 404. With `CLEW_LONG` set
there are many more; `CLEW_FUZZ_EXAMPLES` says how many for each route, `CLEW_FUZZ_SEED` which.
"""

import asyncio
import contextlib
import json
import os
import random
import threading
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

import httpx
import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, Response
from schemathesis.core.result import Ok

from clew.checkpointing.postgres import Database
from tests.isolation import victim
from tests.serving import serve

EXAMPLES = int(
    os.environ.get("CLEW_FUZZ_EXAMPLES") or ("300" if "CLEW_LONG" in os.environ else "3")
)
SEED = int(os.environ.get("CLEW_FUZZ_SEED", "1"))

# Other protocols, with errors of their own.
FOREIGN = ("/mcp", "/a2a/", "/.well-known/", "/a2a/{assistant_id}/.well-known/")
# Not made up from a schema: its body is lines of a bundle, see test_checkpoints_api.
UPLOADS = ("/sessions/import",)
# What takes its time to say the first word is a stream that was granted.
PATIENCE = (5, 0.5)


class Server:
    """A server in a thread of its own, with somebody in it who has something of everything."""

    def __init__(self, url: str, database: Database, loop: asyncio.AbstractEventLoop) -> None:
        self.url = url
        self._database, self.loop = database, loop
        self.ids: dict[str, Any] = {}

    def live(self) -> None:
        """Make sure that the ids are those of something that exists."""
        kept = requests.get(f"{self.url}/sessions/{self.ids.get('thread_id')}", timeout=60)
        if kept.status_code != 200:
            self.ids = asyncio.run_coroutine_threadsafe(self._live(), self.loop).result(120)

    async def _live(self) -> dict[str, Any]:
        async with httpx.AsyncClient(base_url=self.url, timeout=60) as alice:
            life = await victim.live(alice, self._database)
        return {**life.ids, "graph_id": "echo", "name": "mark", "owner": "alice"}


@contextlib.contextmanager
def serving(dsn: str) -> Generator[Server]:
    made: list[tuple[Server, asyncio.Event]] = []
    ready = threading.Event()

    async def run() -> None:
        async with serve(dsn, titles="off") as url, Database.open(dsn) as database:
            stop = asyncio.Event()
            made.append((Server(url, database, asyncio.get_running_loop()), stop))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert ready.wait(60)
    server, stop = made[0]
    try:
        yield server
    finally:
        server.loop.call_soon_threadsafe(stop.set)
        thread.join()


@pytest.fixture
def living(dsn: str) -> Iterator[Server]:
    with serving(dsn) as running:
        yield running


def informed(case: Case[Any], ids: dict[str, Any], luck: random.Random) -> None:
    """Put ids that exist in the places of made up ones."""
    if luck.random() < 0.7:
        for name in case.path_parameters or {}:
            if name in ids:
                case.path_parameters[name] = ids[name]
    places = [case.body, case.query]
    for place in places:
        if isinstance(place, dict):
            for name in place:
                if name in ids and luck.random() < 0.7:
                    place[name] = ids[name]
                if name == "assistant_id" and luck.random() < 0.5:
                    place[name] = luck.choice(["echo", "steps", "ask", "fails"])


def fault(case: Case[Any], reply: Response) -> str | None:
    """What is wrong with an answer."""
    status = reply.status_code
    if status >= 500:
        return f"{status} {reply.text[:300]}"
    documented = case.operation.definition.raw["responses"]
    named = str(status) if status < 400 else f"{status // 100}XX"
    if named not in documented:
        return f"{status} is not documented"
    if status < 400 or case.operation.path.startswith(FOREIGN):
        return None
    kind = "".join(reply.headers.get("content-type", []))
    if not kind.startswith("application/problem+json"):
        return f"{status} as {kind}: {reply.text[:300]}"
    problem = json.loads(reply.content)
    if not isinstance(problem["code"], str) or not isinstance(problem["detail"], str):
        return f"{status} {reply.text[:300]}"
    return None


# The server draws random numbers meanwhile, in its thread; Hypothesis blames the strategy.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
@pytest.mark.timeout(4 * 3600 if "CLEW_LONG" in os.environ else 600)
def test_no_request_of_the_openapi_document_brings_the_server_down(living: Server) -> None:
    schema = schemathesis.openapi.from_url(f"{living.url}/openapi.json")
    luck = random.Random(SEED)
    faults: dict[tuple[str, str], str] = {}
    seen: dict[int, int] = {}

    def tried(operation: Any) -> None:
        @hypothesis.seed(SEED)
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        )
        @given(case=operation.as_strategy())
        def one(case: Case[Any]) -> None:
            living.live()
            informed(case, living.ids, luck)
            try:
                reply = case.call(base_url=living.url, timeout=PATIENCE)
            except requests.exceptions.RequestException as error:
                # A stream that nobody ends.
                if "timed out" not in str(error):
                    raise
                return
            seen[reply.status_code] = seen.get(reply.status_code, 0) + 1
            if wrong := fault(case, reply):
                faults.setdefault((operation.method, operation.path), f"{wrong}\n  {curl(case)}")

        one()

    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        if found.ok().path not in UPLOADS:
            tried(found.ok())
    assert not faults, "\n".join(f"{m} {p}: {text}" for (m, p), text in faults.items())
    assert seen[200] > sum(seen.values()) / 5, seen  # else it tries nothing but refusals


def curl(case: Case[Any]) -> str:
    return case.as_curl_command()[:1000]


def test_a_body_that_is_too_large_is_a_problem_like_any_other(dsn: str) -> None:
    async def tried() -> None:
        async def piecemeal() -> AsyncIterator[bytes]:
            for _ in range(8):
                yield b'"' + b"x" * 511

        async with serve(dsn, max_body=2048) as url, httpx.AsyncClient(base_url=url) as http:
            for path in ("/sessions", "/sessions/import", "/runs/wait", "/mcp"):
                for content in (b'"' + b"x" * 4096, piecemeal()):
                    kind = {"content-type": "application/json"}
                    reply = await http.post(path, content=content, headers=kind)
                    assert reply.status_code == 413, f"{path}: {reply.text}"
                    assert reply.headers["content-type"] == "application/problem+json", path
                    assert reply.json()["code"] == "too_large"
                    assert "2048" in reply.json()["detail"]

    asyncio.run(tried())
