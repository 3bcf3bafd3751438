"""From what a caller asks for to what a run is: which assistant, and whose settings win.

A request's settings win over the session's, and those over the assistant's.
"""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, cast

from clew.checkpointing.postgres import Database, Principal
from clew.runtime import assistants, errors
from clew.runtime.assistants import Assistant
from clew.runtime.graphs import Graphs
from clew.runtime.requests import RunRequest
from clew.runtime.sessions import Filter, Session

Json = dict[str, Any]


async def assistant(
    db: Database,
    who: Principal,
    graphs: Graphs,
    name: str,
    *,
    allowed: Filter | None = None,
) -> Assistant:
    """The assistant of that id, or the one that comes with the graph of that name."""
    if name in graphs.ids():
        return await assistants.get(db, who, assistants.id_of(name), allowed=allowed)
    try:
        uuid.UUID(name)
    except ValueError:
        raise errors.Invalid(
            f"Invalid assistant: '{name}'. Must be either:\n- A valid assistant UUID, or\n"
            f"- One of the registered graphs: {', '.join(graphs.ids())}"
        ) from None
    try:
        return await assistants.get(db, who, name, allowed=allowed)
    except errors.NotFound:
        raise errors.NotFound("Thread or assistant not found.") from None


_PLACE = ("checkpoint_id", "checkpoint_ns", "checkpoint_map")


def _without(given: Json, keys: Sequence[str]) -> Json:
    return {key: value for key, value in given.items() if key not in keys}


def compose(
    chosen: Assistant, session: Session | None, asked: Mapping[str, Any], **more: Any
) -> RunRequest:
    """One request out of three layers. `asked` holds fields of the protocol that were given;
    `more` are fields of the request that are decided already."""
    given = dict(asked)
    own: Json = given.pop("config", None) or {}
    context: Json | None = given.pop("context", None)
    configurable = cast("Json", own.get("configurable") or {})
    if context and configurable:
        raise errors.BadRequest(
            "Cannot specify both configurable and context. Prefer setting context alone. "
            "Context was introduced in LangGraph 0.6.0 and is the long term planned replacement "
            "for configurable."
        )
    # Older graphs only know `configurable`; those of today read `context`. Either fills the other.
    layers = [chosen.config, session.config if session else {}, own]
    if context:
        layers.append({"configurable": context})
    config = merge(layers)
    metadata: Json = {
        **chosen.metadata,
        **(session.metadata if session else {}),
        **cast("Json", own.get("metadata") or {}),
        **(given.pop("metadata", None) or {}),
        "graph_id": chosen.graph_id,
        "assistant_id": chosen.assistant_id,
    }
    metadata.pop("thread_id", None)
    # Where to begin may be said in either place.
    place = {key: configurable[key] for key in _PLACE if configurable.get(key) is not None}
    checkpoint: Json = {**place, **(given.pop("checkpoint", None) or {})}
    if (checkpoint_id := given.pop("checkpoint_id", None)) is not None:
        checkpoint = {"checkpoint_ns": "", **checkpoint, "checkpoint_id": checkpoint_id}
    return RunRequest(
        graph_id=chosen.graph_id,
        assistant_id=chosen.assistant_id,
        config=config,
        context={
            **chosen.context,
            **(session.resources if session else {}),
            **(session.context if session else {}),
            **(context if context is not None else _without(configurable, _PLACE)),
        },
        metadata=metadata,
        checkpoint=checkpoint if checkpoint.get("checkpoint_id") else None,
        **given,
        **more,
    )


def merge(layers: list[Json]) -> Json:
    """Later layers win; `configurable` is merged key by key, tags add up."""
    merged: Json = {}
    for layer in layers:
        for key, value in layer.items():
            if key == "configurable":
                merged[key] = {**merged.get(key, {}), **(value or {})}
            elif key == "tags":
                merged[key] = list(dict.fromkeys([*merged.get(key, []), *(value or [])]))
            elif key != "metadata":
                merged[key] = value
    return merged
