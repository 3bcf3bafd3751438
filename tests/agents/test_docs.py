"""The Python of docs/agents.md is run: what needs no server, and what an app would call."""

import ast
import inspect
import json
import re
from typing import Any

from langgraph_sdk import get_client

from tests.agents.graph_loading import CONFIG, ROOT, TURN, open_graph
from tests.serving import AGENTS, serve

PAGE = (ROOT / "docs" / "agents.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


async def run(blocks: list[str], given: dict[str, Any]) -> None:
    """One after the other, as a reader would paste them into one session."""
    for block in blocks:
        code = compile(block, "docs/agents.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, given)  # noqa: S307 - our own page
        if inspect.isawaitable(result):
            await result


async def test_the_graphs_on_the_page_do_what_it_says() -> None:
    blocks = [block for block in BLOCKS if "client." not in block]
    assert len(blocks) == 6
    await run(blocks, {"__name__": "docs"})


async def test_the_calls_on_the_page_do_what_it_says(dsn: str) -> None:
    blocks = [block for block in BLOCKS if "client." in block]
    assert len(blocks) == 4
    async with serve(dsn, config=AGENTS) as url, get_client(url=url) as client:
        await run(blocks, {"client": client})


async def test_the_json_on_the_page_is_json_and_its_question_has_its_answer() -> None:
    blocks = [
        json.loads(block)
        for block in re.findall(r"^```json\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    ]
    (given,) = [block for block in blocks if "documents" in block]
    # On a store that does not rank, as on one that does.
    state = await open_graph("librarian").ainvoke(given, TURN)
    (citation,) = state["messages"][-1].content[0]["annotations"]
    assert citation["cited_text"] == given["documents"][0]["text"]


def test_every_registered_graph_is_on_the_page_and_described() -> None:
    for name, entry in CONFIG["graphs"].items():
        assert f"| `{name}` |" in PAGE
        assert entry["description"]
