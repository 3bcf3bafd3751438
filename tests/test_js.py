"""The official JavaScript client and both of its hooks, against a real server: under Node, in
jsdom, and in a real browser. The scripts of `tests/js` say one line for each check."""

import asyncio
import json
import os
import shutil
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.conftest import create, drop
from tests.serving import serve

HERE = Path(__file__).parent / "js"

# One server, one bundle: all of it in one process.
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("js"),
    pytest.mark.timeout(300),
]

# What a user of either hook does.
SCENARIOS = {
    "submit twice",
    "edit and fork",
    "regenerate",
    "interrupt and resume",
    "stop",
    "reload while running",
    "enqueue",
    "error",
    "reconnect after a cut",
    "edit and regenerate after pruning",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bundle(javascript: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both hooks and their checks, as a page loads them."""
    folder = tmp_path_factory.mktemp("bundle")
    code, _, said = await execute("node", "build.mjs", str(folder), cwd=HERE)
    assert code == 0, said
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(javascript: Path, server: str, template: str) -> AsyncIterator[str]:
    name = f"clew_{uuid.uuid4().hex}"
    dsn = create(server, name, template=template)
    try:
        async with serve(dsn, config=HERE / "project" / "langgraph.json") as url:
            yield url
    finally:
        drop(server, name)


async def execute(*command: str, cwd: Path, **env: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env={**os.environ, **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complained = await process.communicate()
    return process.returncode or 0, said.decode(), complained.decode()


async def checks(script: str, *arguments: str, **env: str) -> set[str]:
    """Run a script; the names of its checks, all of which have held."""
    code, said, complained = await execute("node", script, *arguments, cwd=HERE, **env)
    results: list[dict[str, Any]] = [json.loads(line) for line in said.splitlines()]
    failed = [f"{each['check']}: {each['error']}" for each in results if each["error"]]
    assert not failed, "\n\n".join(failed)
    assert code == 0, complained
    return {each["check"] for each in results}


async def test_every_method_of_the_client(url: str) -> None:
    names = await checks("client.mjs", url)
    assert {"the parts of a client", "runs.stream", "threads.stream", "store.putItem"} <= names


@pytest.mark.parametrize("hook", ["legacy", "v2", "newest"])
async def test_a_hook_in_jsdom(hook: str, url: str, bundle: Path) -> None:
    assert await checks("jsdom.mjs", url, str(bundle), hook) >= SCENARIOS


@pytest.mark.parametrize("hook", ["legacy", "v2"])
async def test_a_hook_in_a_browser(hook: str, url: str, bundle: Path) -> None:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("needs chromium")
    names = await checks("browser.mjs", url, str(bundle), hook, CHROMIUM=found)
    assert names >= SCENARIOS
