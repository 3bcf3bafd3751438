"""One server for all tests of the official clients, in a thread of its own, as a sync client needs
it; a test keeps to the threads and assistants that it made."""

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.conftest import create, drop
from tests.sdk.official import KINDS, Claim, Official
from tests.serving import serve

PROJECT = Path(__file__).parent / "langgraph.json"


@pytest.fixture(scope="session")
def database(server: str, template: str) -> Iterator[str]:
    """The DSN of the database behind it."""
    name = f"clew_{uuid.uuid4().hex}"
    yield create(server, name, template=template)
    drop(server, name)


@pytest.fixture(scope="session")
def url(database: str) -> Iterator[str]:
    """The base URL of a server that lasts as long as the tests do."""
    told: list[str] = []
    ready = threading.Event()
    halts: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def main() -> None:
        stop = asyncio.Event()
        halts.append((asyncio.get_running_loop(), stop))
        async with serve(database, config=PROJECT, cron_interval="200ms") as base:
            told.append(base)
            ready.set()
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(main())
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="server")
    thread.start()
    ready.wait()
    assert told, "the server did not start"
    yield told[0]
    [(loop, stop)] = halts
    loop.call_soon_threadsafe(stop.set)
    thread.join()


@pytest_asyncio.fixture(params=KINDS)
async def official(url: str, request: pytest.FixtureRequest) -> AsyncIterator[Official]:
    """Each official client in turn; afterwards what the test claims to show must have happened."""
    client = Official(request.param, url)
    yield client
    await client.aclose()
    claims: list[Claim] = getattr(request.function, "claims", [])
    for claim in claims:
        reached = client.reached.get(claim.method, set())
        assert claim.endpoint in reached, f"{claim.method} reached {sorted(reached)}"
