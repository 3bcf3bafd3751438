"""The wheel holds everything, and a user's own project runs from it outside this checkout."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"api": "clew/api", "runtime": "clew/runtime", "checkpointing": "clew/checkpointing"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    # A copy, so that building leaves nothing behind in the checkout.
    source = tmp_path_factory.mktemp("source")
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", *PACKAGES, "pyproject.toml", "README.md",
         "LICENSE"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.splitlines()  # fmt: skip
    for name in tracked:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", str(out), str(source)], check=True)
    (built,) = out.glob("clew-*.whl")
    return built


def test_every_module_query_and_migration_is_in_the_wheel(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    for folder, place in PACKAGES.items():
        for file in (ROOT / folder).rglob("*"):
            if file.suffix in (".py", ".sql", ".html", ".js", ".css") or file.name == "py.typed":
                name = f"{place}/{file.relative_to(ROOT / folder).as_posix()}"
                assert name in inside, f"{name} is missing: list its package in pyproject.toml"
    tops = {name.split("/")[0] for name in inside}
    assert tops == {"clew", next(top for top in tops if top.endswith(".dist-info"))}


USER_GRAPH = """
from api.words import greeting
from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph

def say(state: MessagesState):
    return {"messages": [AIMessage(greeting() + state["messages"][-1].text)]}

graph = StateGraph(MessagesState).add_node(say).add_edge(START, "say").compile()
"""


@pytest.mark.timeout(300)
def test_a_users_project_with_its_own_api_and_agents_runs_from_the_wheel(
    wheel: Path, empty_dsn: str, tmp_path: Path
) -> None:
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    pip = [
        str(home / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
    ]
    subprocess.run([*pip, "-c", _constraints(tmp_path), str(wheel)], check=True, cwd=tmp_path)
    project = tmp_path / "project"
    for folder in ("api", "agents"):
        (project / folder).mkdir(parents=True)
        (project / folder / "__init__.py").touch()
    (project / "api" / "words.py").write_text("def greeting(): return 'mine: '\n")
    (project / "agents" / "mine.py").write_text(USER_GRAPH)
    graphs = {"dependencies": ["."], "graphs": {"mine": "./agents/mine.py:graph"}}
    (project / "langgraph.json").write_text(json.dumps(graphs))
    environment = {**os.environ, "CLEW_DRAIN_GRACE": "1s"}
    environment.pop("PYTHONPATH", None)
    with subprocess.Popen(
        [str(home / "bin" / "clew"), "serve", "--port", "0"],
        cwd=project, env={**environment, "DATABASE_URL": empty_dsn},
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            url = _address(process)
            body = {
                "assistant_id": "mine",
                "input": {"messages": [{"role": "user", "content": "你好"}]},
            }
            request = urllib.request.Request(  # noqa: S310  (our own server)
                f"{url}/runs/wait", json.dumps(body).encode(), {"content-type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                assert json.load(answer)["messages"][-1]["content"] == "mine: 你好"
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0


def _constraints(where: Path) -> str:
    """The tested versions, without hashes, which pip wants for all or nothing."""
    text = (ROOT / "requirements.lock").read_text()
    pins = re.findall(r"^([\w.\[\]-]+==\S+)(?: ; ([^\\\n]+))?", text, re.MULTILINE)
    file = where / "constraints.txt"
    file.write_text("\n".join(f"{pin} ; {mark}" if mark else pin for pin, mark in pins))
    return str(file)


def _address(process: "subprocess.Popen[str]") -> str:
    assert process.stderr is not None
    seen: list[str] = []
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        line = process.stderr.readline()
        if not line:
            break
        seen.append(line)
        if match := re.search(r"serving on (http://[\d.:]+)", line):
            return match[1]
    raise AssertionError("the server did not start:\n" + "".join(seen))
