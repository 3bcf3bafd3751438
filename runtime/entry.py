"""How a run enters its graph: with what, where, and again after a crash.

A run that is started again must neither lose a superstep that was stored nor do anything to the
state twice. If the head's checkpoint carries the run's id, its input has been taken and the run
goes on from there with none. If not, nothing of it was taken: it enters with what was asked, after
what it wrote beside the old head, such as the answer to a question, is taken back. Entering again
with a command, an answer or a checkpoint id would apply it twice.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Literal, cast
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.types import Command, Send
from pydantic import BaseModel

from clew.checkpointing.postgres import SERVICE, Database
from clew.checkpointing.saver import Saver
from clew.runtime import errors
from clew.runtime.requests import RunRequest
from clew.runtime.runs import Run
from clew.runtime.sql import queries
from clew.runtime.user import User

log = logging.getLogger(__name__)

Json = dict[str, Any]
Nodes = Sequence[str] | Literal["*"] | None

# LangGraph's own keys of `configurable`.
STRICT_RESUME = "__pregel_strict_resume"
CACHE = "__pregel_cache"  # which subgraphs look in before the one they were compiled with


def asked(run: Run) -> tuple[RunRequest, Exception | None]:
    """What was asked; where that cannot be read, what can be said of any run, and why."""
    try:
        return run.request(), None
    except (TypeError, ValueError, OverflowError) as error:
        # The client is not told: it may name keys. A field of the wrong type names no value.
        why = run.fault or f"{type(error).__name__} in one of its fields"
        log.error("the request of run %s cannot be read: %s", run.run_id, why)  # noqa: TRY400
        fault = RuntimeError("The request of this run cannot be read.")
        return RunRequest(graph_id=run.graph_id, protocol=run.protocol), fault


async def reenter(db: Database, saver: Saver, run: Run, request: RunRequest) -> bool:
    """Whether a run that was started before goes on from the head, instead of from its start."""
    if run.attempt <= 1:
        return False
    head = await saver.aget_tuple(config_of(run.thread_id))
    if head is not None and head.metadata.get("run_id") == run.run_id:
        return True
    if request.command is not None:
        await take_back(db, saver, run)
    return False


async def take_back(db: Database, saver: Saver, run: Run) -> None:
    """Remove what the run has stored: its checkpoints, and what it wrote beside older ones."""
    await saver.adelete_for_runs([run.run_id])
    key = {"run_id": run.run_id, "epoch": run.epoch}
    await db.execute(SERVICE, queries["take_back_writes"], key)


def given(request: RunRequest, *, again: bool) -> Any:
    """What the graph is called with."""
    if again:
        return None
    if request.command is None:
        return request.input
    command = request.command
    update = command.get("update")
    if isinstance(update, list):
        update = [tuple(pair) for pair in cast("list[Any]", update)]
    return Command(update=update, resume=command.get("resume"), goto=_goto(command.get("goto")))


def config(run: Run, request: RunRequest, *, again: bool) -> RunnableConfig:
    """The graph's config: the caller's, and who, where and what this is."""
    asked = dict(request.config)
    user = request.user or {}
    identity = user.get("identity", "")
    configurable: Json = {
        **(asked.pop("configurable", None) or {}),
        "thread_id": run.thread_id,
        "run_id": run.run_id,
        "graph_id": run.graph_id,
        "assistant_id": run.assistant_id,
        "user_id": identity,
        "langgraph_auth_user_id": identity,
    }
    if request.user is not None:
        configurable["langgraph_auth_user"] = User({"identity": "", **user})
        configurable["langgraph_auth_permissions"] = user.get("permissions", [])
    # A run is of the whole graph: its namespace is not named, else every subgraph's events,
    # which take it over as metadata, would name the root's.
    configurable.pop("checkpoint_ns", None)
    for key in ("checkpoint_id", "checkpoint_map"):
        configurable.pop(key, None)
        if request.checkpoint and not again and request.checkpoint.get(key):
            configurable[key] = request.checkpoint[key]
    if request.strict_resume:
        configurable[STRICT_RESUME] = True
    metadata: Json = {
        **(asked.pop("metadata", None) or {}),
        **run.metadata,
        "run_id": run.run_id,
        "thread_id": run.thread_id,
        "graph_id": run.graph_id,
        "assistant_id": run.assistant_id,
        "run_attempt": run.attempt,
    }
    return cast(
        "RunnableConfig",
        {
            **asked,
            "configurable": configurable,
            "metadata": metadata,
            "run_id": UUID(run.run_id),
        },
    )


def config_of(thread_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}


def context(schema: Any, asked: Mapping[str, Any]) -> Json | None:
    """What of the caller's context the graph declares; all of it where it declares nothing."""
    if not asked:
        return None
    if schema is None:
        return dict(asked)
    names = _names(schema)
    return {key: value for key, value in asked.items() if names is None or key in names}


async def paused(
    saver: Saver, run: Run, following: Sequence[str], before: Nodes, after: Nodes
) -> bool:
    """Whether the head is at a breakpoint of this run. Going on from there would pass it: a run
    that stopped there and crashed before it could say so has stopped."""
    if not before and not after:
        return False
    head = await saver.aget_tuple(config_of(run.thread_id))
    if head is None or not _moved(head):
        return False
    if _meets(before, following):
        return bool(following)
    if not after or head.parent_config is None:
        return False
    parent = await saver.aget_tuple(head.parent_config)
    return parent is not None and bool(following) and _meets(after, _ran(parent, head))


def _moved(head: CheckpointTuple) -> bool:
    seen = head.checkpoint["versions_seen"].get("__interrupt__", {})
    return any(
        str(version) > str(seen.get(channel, ""))
        for channel, version in head.checkpoint["channel_versions"].items()
    )


def _ran(parent: CheckpointTuple, head: CheckpointTuple) -> list[str]:
    """The nodes of the superstep between two checkpoints."""
    before, after = parent.checkpoint["versions_seen"], head.checkpoint["versions_seen"]
    return [node for node, seen in after.items() if seen != before.get(node)]


def _meets(nodes: Nodes, names: Sequence[str]) -> bool:
    if nodes == "*":
        return any(not name.startswith("__") for name in names)
    return bool(nodes) and not set(nodes).isdisjoint(names)


def _goto(goto: Any) -> Any:
    if goto is None:
        return ()
    if isinstance(goto, list):
        return [_goto(each) for each in cast("list[Any]", goto)]
    if isinstance(goto, dict):
        target = cast("Json", goto)
        if "node" not in target:
            raise errors.Invalid("command.goto: an object names a node and its input")
        return Send(target["node"], target.get("input"))
    return goto


def _names(schema: Any) -> set[str] | None:
    if is_dataclass(schema):
        return {field.name for field in fields(schema)}
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return set(schema.model_fields)
    return None  # of a TypedDict LangGraph passes on whatever it is given
