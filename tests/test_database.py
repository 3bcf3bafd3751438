"""Which database a command works on, with real embedded servers and `clew dev` beside it."""

import importlib.util
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from clew.api import cli
from clew.runtime import place, postmaster
from tests.test_cli import clew, run

GRAPH = """
from langgraph.graph import START, MessagesState, StateGraph
graph = StateGraph(MessagesState).add_node("a", lambda s: {}).add_edge(START, "a").compile()
"""
COMMANDS = (
    ("sessions", "ls"),
    ("keys", "list"),
    ("encryption", "list"),
    ("migrate",),
    ("import", "postgresql://127.0.0.1:1/x", "--owner", "ann"),
    ("export", "postgresql://127.0.0.1:1/x", "--owner", "ann"),
)


def write(folder: Path, **more: object) -> None:
    (folder / "graph.py").write_text(GRAPH)
    told = {"dependencies": ["."], "graphs": {"mine": "./graph.py:graph"}, **more}
    (folder / "langgraph.json").write_text(json.dumps(told))


@pytest.fixture
def project() -> Iterator[Path]:
    """A short path that every user may enter, as the account of an embedded server must."""
    if importlib.util.find_spec(place.PACKAGE) is None:
        pytest.skip("needs the embedded Postgres")
    folder = Path(tempfile.mkdtemp(prefix="database-", dir="/tmp")).resolve()
    folder.chmod(0o755)
    write(folder)
    yield folder
    left = running(folder)
    shutil.rmtree(folder, ignore_errors=True)
    assert not left, "a server outlived its users"


def running(folder: Path) -> int | None:
    file = folder / ".clew/postgres/data/postmaster.pid"
    pid = int(file.read_text().split()[0]) if file.exists() else 0
    return pid if pid and postmaster.alive(pid, file.parent) else None


@pytest.mark.timeout(180)
async def test_commands_join_the_embedded_server_of_clew_dev_or_start_it(
    project: Path, tmp_path: Path
) -> None:
    bare = {"DATABASE_URL": "", "POSTGRES_URI": ""}
    async with clew("dev", "--port", "0", "--no-reload", cwd=project, **bare) as dev:
        url = (await dev.hear(r"serving on (http://[\d.:]+)"))[1]
        server = running(project)
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:
            made = await http.post("/sessions", json={"assistant_id": "mine", "title": "会议"})
            code, said = await run("sessions", "ls", cwd=project, **bare)
            assert (code, made.json()["thread_id"] in said) == (0, True), said
            code, said = await run("doctor", cwd=project, **bare)
            assert (code, "notifications arrive" in said) == (0, True), said
            # It is the same server still, and goes on.
            assert server is not None
            assert running(project) == server
            assert (await http.get("/sessions")).json()["sessions"][0]["title"] == "会议"
    assert running(project) is None
    code, said = await run("keys", "create", "--owner", "a", "--name", "k", cwd=project, **bare)
    assert code == 0, said
    assert running(project) is None
    # From elsewhere, by the setting.
    named = {**bare, "CLEW_CONFIG": str(project / "langgraph.json")}
    code, said = await run("keys", "list", cwd=tmp_path, **named)
    assert (code, "default/a" in said, running(project)) == (0, True, None), said


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder, and no database named."""
    for name in ("DATABASE_URL", "CLEW_DATABASE_URL", "POSTGRES_URI", "CLEW_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
@pytest.mark.parametrize("kind", ["no project", "a project that never ran"])
def test_without_any_both_ways_are_named_and_none_is_made(
    bare: Path, capsys: pytest.CaptureFixture[str], kind: str, words: tuple[str, ...]
) -> None:
    if kind != "no project":
        write(bare)
    assert cli.main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    for way in ("DATABASE_URL", "clew dev", "make dev", "CLEW_CONFIG"):
        assert way in said.err
    assert not (bare / ".clew").exists()


def test_the_doctor_makes_none_either(bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(bare)
    assert cli.main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "none yet: `clew dev` makes an embedded one here, DATABASE_URL names another" in said
    assert not (bare / ".clew").exists()


async def test_what_the_project_says_of_its_environment_counts(dsn: str, bare: Path) -> None:
    write(bare, env={"DATABASE_URL": dsn})
    code, said = await run("keys", "list", cwd=bare)
    assert (code, said) == (0, "No keys.\n")


def test_a_database_is_held_where_there_are_data(tmp_path: Path) -> None:
    assert not place.holds(tmp_path)
    (tmp_path / ".clew/postgres").mkdir(parents=True)
    assert not place.holds(tmp_path)
    (tmp_path / ".clew/postgres/data").mkdir()
    assert place.holds(tmp_path)
