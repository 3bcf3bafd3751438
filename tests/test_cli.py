"""The command line as a user meets it: real processes, their exit codes and what they say."""

import asyncio
import base64
import contextlib
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest

from clew.checkpointing import migrate
from clew.checkpointing.saver import Saver
from tests.bench.graphs import echo
from tests.conftest import MIGRATIONS

ROOT = Path(__file__).parents[1]


class Process:
    """A running `clew`, and what it has said so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said = ""

    async def hear(self, pattern: str) -> re.Match[str]:
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            while not (match := re.search(pattern, self.said)):
                line = await self.process.stdout.readline()
                if not line:
                    raise AssertionError(f"it ended without saying {pattern!r}:\n{self.said}")
                self.said += line.decode()
        return match


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CLEW_")}
    return {**kept, "CLEW_DRAIN_GRACE": "1s", **more}


@contextlib.asynccontextmanager
async def clew(*arguments: str, cwd: Path, **env: str) -> AsyncGenerator[Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "clew.api.cli", *arguments, cwd=cwd, env=environment(**env),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield Process(process)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.communicate(), 30)


async def run(*arguments: str, cwd: Path, **env: str) -> tuple[int, str]:
    async with clew(*arguments, cwd=cwd, **env) as running:
        out, _ = await running.process.communicate()
    assert running.process.returncode is not None
    return running.process.returncode, out.decode()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "graph.py").write_text(
        "from langchain_core.messages import AIMessage\n"
        "from langgraph.graph import START, MessagesState, StateGraph\n"
        "def say(state: MessagesState):\n"
        "    return {'messages': [AIMessage('one: ' + state['messages'][-1].text)]}\n"
        "graph = StateGraph(MessagesState).add_node(say).add_edge(START, 'say').compile()\n"
    )
    (tmp_path / "langgraph.json").write_text(
        json.dumps({"dependencies": ["."], "graphs": {"mine": "./graph.py:graph"}})
    )
    return tmp_path


async def test_help_tells_every_command(tmp_path: Path) -> None:
    code, said = await run("--help", cwd=tmp_path)
    assert code == 0
    for command in ("dev", "serve", "worker", "migrate", "new", "doctor", "version"):
        assert command in said


async def test_version_tells_what_it_runs_on(tmp_path: Path) -> None:
    code, said = await run("version", cwd=tmp_path)
    assert code == 0
    assert "clew 0." in said
    assert "langgraph 1.2" in said


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "There is no"),
        ("{", "line 1"),
        ('{"graphs": {}}', "graphs"),
        ('{"graphs": {"a": "./nothing.py:graph"}, "dependencies": []}', "nothing.py"),
        ('{"graphs": {"a": "./broken.py:graph"}, "dependencies": ["."]}', "broken.py"),
        ('{"grafs": {"a": "./a.py:graph"}}', "grafs"),
    ],
)
async def test_a_broken_project_is_one_clear_message(
    tmp_path: Path, text: str | None, told: str
) -> None:
    (tmp_path / "broken.py").write_text("import does_not_exist\n")
    if text is not None:
        (tmp_path / "langgraph.json").write_text(text)
    code, said = await run(
        "serve", "--port", "0", cwd=tmp_path, DATABASE_URL="postgresql://localhost:1/x"
    )
    assert code in (1, 2)
    assert said.startswith("clew: ")
    assert told in said
    assert "Traceback" not in said


async def test_an_unknown_setting_is_named_with_the_one_that_was_meant(project: Path) -> None:
    code, said = await run(
        "serve", "--port", "0", cwd=project, CLEW_PROT="1", CLEW_POOL_SIZE="many"
    )
    assert code == 2
    assert "CLEW_PROT" in said
    assert "CLEW_PORT" in said
    assert "CLEW_POOL_SIZE" in said
    assert "Traceback" not in said


async def test_an_unreachable_database_is_one_line_without_the_password(project: Path) -> None:
    url = "postgresql://me:hunter2@127.0.0.1:1/x"
    code, said = await run("serve", "--port", "0", cwd=project, DATABASE_URL=url)
    assert code == 1
    assert "127.0.0.1" in said
    assert "hunter2" not in said
    assert "Traceback" not in said


async def test_a_port_in_use_starts_nothing(project: Path, empty_dsn: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code, said = await run("serve", "--port", port, cwd=project, DATABASE_URL=empty_dsn)
    assert code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in said
    assert "--port (PORT=... make dev)" in said
    assert len(await migrate.pending(empty_dsn, *MIGRATIONS)) == len(migrate.collect(*MIGRATIONS))


async def test_the_world_is_not_served_without_authentication(project: Path) -> None:
    code, said = await run("serve", "--host", "0.0.0.0", "--port", "0", cwd=project)  # noqa: S104
    assert code == 2
    assert "authentication" in said
    assert "`clew keys create`" in said


async def test_serve_answers_and_ends_in_order(project: Path, empty_dsn: str) -> None:
    async with clew("serve", "--port", "0", cwd=project, DATABASE_URL=empty_dsn) as running:
        url = (await running.hear(r"serving on (http://[\d.:]+)"))[1]
        async with httpx.AsyncClient(base_url=url) as http:
            answer = await http.post("/runs/wait", json=turn("hello"))
            assert answer.json()["messages"][-1]["content"] == "one: hello"
        running.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(running.process.wait(), 15) == 0


def turn(text: str) -> dict[str, object]:
    return {"assistant_id": "mine", "input": {"messages": [{"role": "user", "content": text}]}}


async def test_dev_reloads_on_save_and_finds_the_sessions_of_its_last_start(
    project: Path, empty_dsn: str
) -> None:
    async with clew("dev", "--port", "0", cwd=project, DATABASE_URL=empty_dsn) as running:
        url = (await running.hear(r"curl -N (http://[\d.:]+)/runs/stream"))[1]
        await running.hear("serving on")
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:
            thread = (await http.post("/threads", json={})).json()["thread_id"]
            at = f"/threads/{thread}/runs/wait"
            assert (await http.post(at, json=turn("a"))).json()["messages"][-1]["content"] == (
                "one: a"
            )
            file = project / "graph.py"
            running.said = ""
            file.write_text(file.read_text().replace("one: ", "two: "))
            await running.hear("Reloading: graph.py changed")
            child = await running.hear(r"Reloading[\s\S]*Started server process \[(\d+)\]")
            values = (await http.post(at, json=turn("b"))).json()["messages"]
            assert [m["content"] for m in values] == ["a", "one: a", "b", "two: b"]
            running.said = ""
            os.kill(int(child[1]), signal.SIGKILL)
            await running.hear("The server was ended by SIGKILL; it starts again")
            await running.hear("serving on")
            values = (await http.post(at, json=turn("c"))).json()["messages"]
            assert values[-1]["content"] == "two: c"
            running.said = ""
            file.write_text("this is not python\n")
            await running.hear("graph.py")
            await running.hear("starts again when a file is saved")
        running.process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(running.process.wait(), 15) == 0


async def test_new_makes_a_project_that_serves(tmp_path: Path, empty_dsn: str) -> None:
    code, said = await run("new", "demo", cwd=tmp_path)
    assert code == 0
    assert "cd demo && clew dev" in said
    demo = tmp_path / "demo"
    async with clew("serve", "--port", "0", cwd=demo, DATABASE_URL=empty_dsn) as running:
        url = (await running.hear(r"serving on (http://[\d.:]+)"))[1]
        async with httpx.AsyncClient(base_url=url) as http:
            body = {**turn("hi"), "assistant_id": "demo"}
            answer = await http.post("/runs/wait", json=body)
            assert answer.json()["messages"][-1]["content"] == "You said: hi"
    code, said = await run("new", "demo", cwd=tmp_path)
    assert code == 1
    assert "not an empty folder" in said


async def test_migrate_prints_what_it_would_do_and_then_does_it(
    tmp_path: Path, empty_dsn: str
) -> None:
    code, said = await run("migrate", "--sql", cwd=tmp_path, DATABASE_URL=empty_dsn)
    assert code == 0
    assert "create table clew.session" in said
    assert await migrate.pending(empty_dsn, *MIGRATIONS)
    code, said = await run("migrate", cwd=tmp_path, DATABASE_URL=empty_dsn)
    assert code == 0
    assert "applied 0001_owner" in said
    assert await migrate.pending(empty_dsn, *MIGRATIONS) == []


async def test_doctor_finds_a_sound_project_sound_and_says_what_to_do_about_the_rest(
    project: Path, empty_dsn: str
) -> None:
    code, said = await run("doctor", cwd=project, DATABASE_URL=empty_dsn)
    assert code == 1
    assert "FAIL schema" in said
    assert "clew migrate" in said
    await migrate.apply(empty_dsn, *MIGRATIONS)
    code, said = await run("doctor", cwd=project, DATABASE_URL=empty_dsn)
    assert code == 0, said
    assert "a foreign row is invisible" in said
    assert "notifications arrive" in said
    assert "nothing is stored encrypted" in said


async def test_doctor_tells_where_keys_and_data_do_not_fit(project: Path, dsn: str) -> None:
    keys = {name: f"{name}:{base64.b64encode(os.urandom(32)).decode()}" for name in ("k1", "k2")}
    async with Saver.open(dsn) as saver:
        await (
            echo()
            .compile(checkpointer=saver)
            .ainvoke({"messages": [("user", "hi")]}, {"configurable": {"thread_id": "plain"}})
        )
    env = {"DATABASE_URL": dsn, "CLEW_ENCRYPTION_KEYS": keys["k1"]}
    code, said = await run("doctor", cwd=project, **env)
    assert code == 1
    assert "FAIL encryption: on, and 1 lineages of sessions are stored plain" in said
    code, said = await run("encryption", "encrypt", cwd=project, **env)
    assert code == 0, said
    code, said = await run("doctor", cwd=project, **env)
    assert code == 0, said
    code, said = await run("doctor", cwd=project, **env | {"CLEW_ENCRYPTION_KEYS": keys["k2"]})
    assert code == 1
    assert "stored under a key that is not set: k1" in said
