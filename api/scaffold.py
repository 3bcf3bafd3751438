"""`clew new`: a project with one graph, small enough to read before it is run."""

import json
import re
from pathlib import Path

from clew.runtime.errors import StartError

_GRAPH = '''"""A graph that answers with what it was told. Make it yours."""

from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState, StateGraph


async def answer(state: MessagesState):
    if not state["messages"]:
        raise ValueError("Say something first.")  # the client gets this text; the session goes on
    return {"messages": [AIMessage(f"You said: {state['messages'][-1].text}")]}


builder = StateGraph(MessagesState)
builder.add_node(answer)
builder.add_edge(START, "answer")
builder.add_edge("answer", END)
graph = builder.compile()  # no checkpointer, no store: the server brings its own
'''

_README = """# {name}

    clew dev

starts the server on http://127.0.0.1:2024 and prints a `curl` line that streams a turn of
`{graph}`, the graph in `graph.py`. Edit the file: the server reloads.
"""


def create(where: Path) -> list[Path]:
    """Write the project into a folder that is new or empty; returns the files."""
    name = re.sub(r"\W+", "-", where.resolve().name.lower()).strip("-") or "agent"
    if where.exists() and (not where.is_dir() or any(where.iterdir())):
        raise StartError(f"{where} exists and is not an empty folder: choose another name")
    config = {
        "dependencies": ["."],
        "graphs": {name: {"path": "./graph.py:graph", "description": "Says back what it hears."}},
        "env": ".env",
    }
    texts = {
        "langgraph.json": json.dumps(config, indent=2, ensure_ascii=False) + "\n",
        "graph.py": _GRAPH,
        ".env": "# OPENAI_API_KEY=\n",
        ".gitignore": ".clew/\n.env\n__pycache__/\n",
        "README.md": _README.format(name=where.resolve().name, graph=name),
    }
    try:
        where.mkdir(parents=True, exist_ok=True)
        for file, text in texts.items():
            (where / file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise StartError(f"cannot write to {where}: {error.strerror}") from error
    return [where / file for file in texts]
