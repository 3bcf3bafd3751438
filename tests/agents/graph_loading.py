"""Loads the graphs as a server does: by path, as `langgraph.json` says, nothing of ours around."""

import functools
import importlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph.state import CompiledStateGraph
from langgraph.store.memory import InMemoryStore
from langgraph.types import Interrupt

ROOT = Path(__file__).parents[2]
CONFIG = json.loads((ROOT / "langgraph.json").read_text())
QUESTIONS = json.loads((Path(__file__).parent / "questions.json").read_text())

sys.path += [str(ROOT / folder) for folder in CONFIG["dependencies"]]

Graph = CompiledStateGraph[Any, Any, Any, Any]
TURN: RunnableConfig = {"configurable": {"thread_id": "t"}}


def shared(name: str) -> ModuleType:
    """A module that the graphs share."""
    return importlib.import_module(name)


@functools.cache
def load(graph_id: str) -> ModuleType:
    """The module of a registered graph."""
    path = CONFIG["graphs"][graph_id]["path"].partition(":")[0]
    spec = importlib.util.spec_from_file_location(f"loaded_{graph_id}", ROOT / path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def open_graph(graph_id: str, **parts: Any) -> Graph:
    """A registered graph with a checkpointer, a store and a cache, as a server gives it."""
    graph: Graph = getattr(load(graph_id), CONFIG["graphs"][graph_id]["path"].partition(":")[2])
    return graph.copy(
        update={
            "checkpointer": InMemorySaver(),
            "store": InMemoryStore(),
            "cache": InMemoryCache(),
            **parts,
        }
    )


def user(content: Any, **rest: Any) -> dict[str, Any]:
    """The input of a turn."""
    return {"messages": [{"role": "user", "content": content}], **rest}


def interrupts(state: dict[str, Any]) -> list[Interrupt[Any]]:
    return list(state.get("__interrupt__", []))
