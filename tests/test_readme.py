"""The README is run: its curl line, its Python, its commands."""

import ast
import asyncio
import inspect
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.serving import AGENTS, serve
from tests.test_cli import run

README = (Path(__file__).parents[1] / "README.md").read_text()
MAKEFILE = (Path(__file__).parents[1] / "Makefile").read_text()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    """The indented lines, a backslash joining them."""
    text = re.sub(r"^```.*?^```", "", README, flags=re.DOTALL | re.MULTILINE)
    text = text.replace("\\\n", " ")
    return [line.strip() for line in re.findall(r"^    (\S.*)$", text, re.MULTILINE)]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_the_curl_line_streams_a_turn(dsn: str) -> None:
    (line,) = [line for line in commands() if line.startswith("curl")]
    async with serve(dsn, config=AGENTS) as url:
        process = await asyncio.create_subprocess_shell(
            line.replace("http://127.0.0.1:2024", url), stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
    assert process.returncode == 0
    assert said.startswith(b"event: metadata")
    assert b"event: messages" in said
    assert said.rstrip().split(b"event: ")[-1].startswith(b"end")


async def test_the_client_example_prints_a_turn(
    dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = [block for block in blocks("python") if "langgraph_sdk" in block]
    async with serve(dsn, config=AGENTS) as url:
        await execute(block.replace("http://127.0.0.1:2024", url), {})
    said = capsys.readouterr().out
    assert "metadata" in said
    assert "Hello" in said


async def test_the_example_of_rewinding_runs(dsn: str) -> None:
    (block,) = [block for block in blocks("python") if "clew.api.client" in block]
    async with serve(dsn, config=AGENTS) as url:
        await execute(block.replace("http://127.0.0.1:2024", url), {})


async def test_the_saver_example_compiles_a_graph(empty_dsn: str) -> None:
    from tests.bench.graphs import echo

    (block,) = [block for block in blocks("python") if "Saver" in block]
    code = block.replace('"postgresql://localhost/app"', repr(empty_dsn))
    code = (
        code.rstrip() + '\n    said = await graph.ainvoke({"messages": [("user", "hi")]}, config)\n'
    )
    given: dict[str, Any] = {
        "builder": echo(),
        "turn": {"messages": [("user", "hi")]},
        "config": {"configurable": {"thread_id": "mine"}},
    }
    await execute(code, given)
    assert [message.text for message in given["said"]["messages"]] == ["hi", "hi"]


async def execute(code: str, given: dict[str, Any]) -> None:
    compiled = compile(code, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(compiled, given)  # noqa: S307 - our own page
    if inspect.isawaitable(result):
        await result


async def test_every_other_command_exists(tmp_path: Path) -> None:
    """What they do is tried in test_cli.py and test_wheel.py; here, that they are spelled so."""
    _, told = await run("--help", cwd=tmp_path)
    for line in commands():
        for part in line.split(" && "):
            program, *words = part.split()
            if program == "make":
                assert re.search(rf"^{words[0]}:", MAKEFILE, re.MULTILINE), part
            elif program == "clew":
                assert words[0] in told, part
            else:
                assert program in ("curl", "pip", "cd"), part
