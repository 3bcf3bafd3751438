"""The graphs that langgraph.json registers, ready to run with our own saver and store.

`load` imports them all, or fails naming file, line and reason. `Graphs.open` lends out one graph
for one use: a shallow copy, so that concurrent uses with different savers never meet.
"""

import asyncio
import contextlib
import copy
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph._internal import _serde  # pyright: ignore[reportPrivateUsage] - no public way
from langgraph.cache.base import BaseCache
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.pregel import Pregel
from langgraph.store.base import BaseStore
from langgraph_sdk.auth.types import BaseUser
from langgraph_sdk.runtime import AccessContext

from clew.runtime import errors, factories, imports, topology
from clew.runtime.cache import Cache
from clew.runtime.config import Config
from clew.runtime.factories import AnyGraph, Factory, Purpose

logger = logging.getLogger(__name__)

# What an open graph tells of itself.
schemas, draw, subgraphs = topology.schemas, topology.draw, topology.subgraphs

UNNAMED = "LangGraph"
ALLOWLIST = "_serde_allowlist"


@dataclass(frozen=True, slots=True)
class Registered:
    path: str
    description: str | None
    source: AnyGraph | Factory
    module: ModuleType


class Graphs:
    def __init__(self, registered: Mapping[str, Registered]) -> None:
        self._registered = registered
        self._warned: set[str] = set()

    def ids(self) -> list[str]:
        return list(self._registered)

    def describe(self, graph_id: str) -> str | None:
        return self._find(graph_id).description

    def transformers(self, graph_id: str) -> Callable[[], Any] | None:
        """The module's `stream_transformers`, which add channels to event streams."""
        return getattr(self._find(graph_id).module, "stream_transformers", None)

    def _find(self, graph_id: str) -> Registered:
        found = self._registered.get(graph_id)
        if found is None:
            raise errors.NotFound(f"Graph '{graph_id}' not found. Expected one of: {self.ids()}")
        return found

    @contextlib.asynccontextmanager
    async def open(
        self,
        graph_id: str,
        *,
        config: RunnableConfig | None = None,
        checkpointer: BaseCheckpointSaver[Any] | None,
        store: BaseStore | None,
        cache: BaseCache[Any] | None = None,
        access_context: AccessContext = "threads.create_run",
        user: BaseUser | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[AnyGraph]:
        found = self._find(graph_id)
        fault: BaseException | None = None
        async with contextlib.AsyncExitStack() as stack:
            if isinstance(found.source, Factory):
                purpose = Purpose(config or {}, store, access_context, user, context)
                try:
                    graph = mended(await factories.make(found.source, purpose, stack))
                except errors.GraphError as error:
                    raise errors.GraphError(f"Graph {graph_id}: {error.message}") from None
            else:
                graph = found.source
            self._warn(graph_id, graph)
            bound = copy.copy(graph)
            bound.checkpointer = checkpointer
            bound.store = store
            bound.cache = graph.cache or knowing(cache, graph)
            bound.name = graph_id if graph.name == UNNAMED else graph.name
            try:
                yield bound
            except BaseException as error:
                fault = error
                raise
        # A graph's own context manager may not swallow what ended its use, least of all a cancel.
        if fault is not None:
            raise fault

    def _warn(self, graph_id: str, graph: AnyGraph) -> None:
        if graph_id in self._warned:
            return
        self._warned.add(graph_id)
        if graph.checkpointer is not None:
            logger.warning("graph %s sets a checkpointer: Clew uses its own instead", graph_id)
        if graph.store is not None:
            logger.warning("graph %s sets a store: Clew uses its own instead", graph_id)


async def load(config: Config) -> Graphs:
    registered: dict[str, Registered] = {}
    faults: list[str] = []
    for graph_id, spec in config.graphs.items():
        try:
            module, source = await asyncio.to_thread(prepare, spec.path, config.folders)
            registered[graph_id] = Registered(spec.path, spec.description, source, module)
        except errors.LoadError as error:
            faults.append(f"Graph {graph_id} ({spec.path}) cannot be loaded. {error.message}")
    if faults:
        raise errors.GraphError("\n".join(faults))
    return Graphs(registered)


def prepare(path: str, folders: Sequence[Path]) -> tuple[ModuleType, AnyGraph | Factory]:
    module, value = imports.load(path, folders)
    if isinstance(value, Pregel | StateGraph):
        with imports.blamed(folders):
            return module, mended(factories.compiled(value))
    if not callable(value):
        raise errors.GraphError(f"It is no graph but {type(value).__name__}.")
    return module, factories.read(value)


def mended(graph: AnyGraph) -> AnyGraph:
    """`with_config` makes a copy that forgets which types the graph declared, so that its state
    would come back from checkpoints as plain dicts. What `create_agent` returns is such a copy."""
    subgraphs = (sub for _, sub in graph.get_subgraphs(recurse=True))
    for each in (graph, *subgraphs):
        if isinstance(each, CompiledStateGraph) and getattr(each, ALLOWLIST) is None:
            built = cast("CompiledStateGraph[Any, Any, Any, Any]", each)
            setattr(built, ALLOWLIST, declared(built.builder))
    return graph


def knowing(cache: BaseCache[Any] | None, graph: AnyGraph) -> BaseCache[Any] | None:
    """Our own cache, as our saver, brings back only classes that the graph declares."""
    allowed = getattr(graph, ALLOWLIST, None)
    return cache.with_allowlist(allowed) if isinstance(cache, Cache) and allowed else cache


def declared(builder: StateGraph[Any, Any, Any, Any]) -> set[tuple[str, ...]]:
    branches = (branch for each in builder.branches.values() for branch in each.values())
    schemas: Iterable[type[Any] | None] = (
        builder.state_schema,
        builder.input_schema,
        builder.output_schema,
        builder.context_schema,
        *(node.input_schema for node in builder.nodes.values()),
        *(branch.input_schema for branch in branches),
    )
    return _serde.build_serde_allowlist(
        schemas=[schema for schema in schemas if schema is not None], channels=builder.channels
    )


def watched(config: Config) -> list[Path]:
    """What a reload on save must look at: files, and folders with all below them."""
    folders = [
        folder
        for folder in config.folders
        if not any(folder.is_relative_to(other) for other in config.folders if other != folder)
    ]
    return [config.path, *([config.env.file] if config.env.file else []), *folders]
