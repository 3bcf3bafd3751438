"""A session's state at a checkpoint, as the protocol shows it: values, what comes next, tasks,
interrupts, and where it came from."""

from contextlib import AbstractAsyncContextManager
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.pregel import Pregel
from langgraph.types import PregelTask, StateSnapshot

from clew.checkpointing.postgres import Principal
from clew.checkpointing.saver import Saver
from clew.runtime import errors, wire
from clew.runtime.graphs import Graphs
from clew.runtime.sessions import Session
from clew.runtime.store import Store

EMPTY: dict[str, Any] = {
    "values": {},
    "next": [],
    "tasks": [],
    "metadata": None,
    "created_at": None,
    "checkpoint": None,
    "parent_checkpoint": None,
    "interrupts": [],
    "checkpoint_id": None,
    "parent_checkpoint_id": None,
}


def config(thread_id: str, checkpoint: dict[str, Any] | None = None) -> RunnableConfig:
    """The LangGraph config of a session, or of one of its checkpoints."""
    configurable: dict[str, Any] = {"thread_id": thread_id, "checkpoint_ns": ""}
    for key in ("checkpoint_ns", "checkpoint_id", "checkpoint_map"):
        if checkpoint and checkpoint.get(key) is not None:
            configurable[key] = checkpoint[key]
    return {"configurable": configurable}


async def of_session(
    graphs: Graphs,
    saver: Saver,
    store: Store | None,
    session: Session,
    *,
    checkpoint: dict[str, Any] | None = None,
    subgraphs: bool = False,
) -> dict[str, Any]:
    """The state at the head, or at a checkpoint; `EMPTY` where nothing has run yet."""
    if session.graph_id is None:
        return EMPTY
    at = config(session.thread_id, checkpoint)
    async with _reading(graphs, saver, store, session, at) as graph:
        try:
            return shown(await graph.aget_state(at, subgraphs=subgraphs))
        except ValueError as error:  # LangGraph's word for a namespace that is no subgraph
            raise errors.NotFound(str(error)) from error


async def history_of(
    graphs: Graphs,
    saver: Saver,
    store: Store | None,
    session: Session,
    *,
    limit: int,
    checkpoint: dict[str, Any] | None = None,
    before: str | None = None,
    metadata: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """States, newest first; of a subgraph where the checkpoint names its namespace."""
    if session.graph_id is None:
        return []
    at = config(session.thread_id, checkpoint)
    older: RunnableConfig | None = {"configurable": {"checkpoint_id": before}} if before else None
    async with _reading(graphs, saver, store, session, at) as graph:
        pages = graph.aget_state_history(at, filter=metadata, before=older, limit=limit)
        try:
            return [shown(snapshot) async for snapshot in pages]
        except ValueError as error:
            raise errors.NotFound(str(error)) from error


def _reading(
    graphs: Graphs,
    saver: Saver,
    store: Store | None,
    session: Session,
    at: RunnableConfig,
) -> AbstractAsyncContextManager[Pregel[Any, Any, Any, Any]]:
    """The session's graph on the session's own rows: a reader never reaches past its owner."""
    assert session.graph_id is not None
    bound = saver.bind(principal=Principal.owner(session.owner_id), owner_id=session.owner_id)
    return graphs.open(
        session.graph_id,
        config=at,
        checkpointer=bound,
        store=store.bind(session.owner_id) if store else None,
        access_context="threads.read",
    )


def shown(snapshot: StateSnapshot) -> dict[str, Any]:
    checkpoint = _checkpoint(snapshot.config)
    parent = _checkpoint(snapshot.parent_config)
    return {
        "values": snapshot.values,
        "next": list(snapshot.next),
        "tasks": [_task(task) for task in snapshot.tasks],
        "metadata": snapshot.metadata,
        "created_at": snapshot.created_at,
        "checkpoint": checkpoint,
        "parent_checkpoint": parent,
        "interrupts": [wire.interrupt(item) for item in snapshot.interrupts],
        "checkpoint_id": checkpoint and checkpoint.get("checkpoint_id"),
        "parent_checkpoint_id": parent and parent.get("checkpoint_id"),
    }


def _checkpoint(at: RunnableConfig | None) -> dict[str, Any] | None:
    if at is None:
        return None
    configurable = at.get("configurable", {})
    keys = ("thread_id", "checkpoint_ns", "checkpoint_id", "checkpoint_map")
    found = {key: configurable[key] for key in keys if configurable.get(key) is not None}
    return found if "checkpoint_id" in found else None


def _task(task: PregelTask) -> dict[str, Any]:
    nested = task.state
    place: dict[str, Any] | None = None
    if nested is not None and not isinstance(nested, StateSnapshot):
        configurable = nested.get("configurable", {})
        place = {
            key: configurable[key]
            for key in ("thread_id", "checkpoint_ns", "checkpoint_id")
            if configurable.get(key) is not None
        }
    return {
        "id": task.id,
        "name": task.name,
        "path": list(task.path),
        "error": task.error if isinstance(task.error, str | None) else repr(task.error),
        "interrupts": [wire.interrupt(item) for item in task.interrupts],
        "checkpoint": place,
        "state": shown(nested) if isinstance(nested, StateSnapshot) else None,
        "result": task.result,
    }
