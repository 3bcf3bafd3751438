"""What a graph tells of itself: the JSON Schemas of its types, its drawing, its subgraphs; in the
shapes that the assistants' routes answer with."""

import copy
import logging
import typing
from collections.abc import Callable, Mapping
from typing import Any, cast

from langgraph.channels.base import BaseChannel
from langgraph.graph.state import CompiledStateGraph
from langgraph.pregel import Pregel
from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError
from typing_extensions import is_typeddict

from clew.runtime.factories import AnyGraph

logger = logging.getLogger(__name__)

Schema = dict[str, Any]


def schemas(graph: AnyGraph) -> dict[str, Schema | None]:
    """None where a type has no JSON Schema. Tens of milliseconds with messages: worth keeping."""
    context = attempt(graph.get_context_jsonschema) or declared(graph.context_schema)
    given = received = None
    if isinstance(graph, CompiledStateGraph):
        given, received = graph.builder.input_schema, graph.builder.output_schema
    return {
        "input_schema": attempt(graph.get_input_jsonschema) or declared(given),
        "output_schema": attempt(graph.get_output_jsonschema) or declared(received),
        "state_schema": shape(
            graph.get_name("State"),
            {
                name: channel.ValueType
                for name in graph.stream_channels_list
                if isinstance(channel := graph.channels[name], BaseChannel)
            },
        ),
        "config_schema": context or {},
        "context_schema": context,
    }


def attempt(make: Callable[[], Schema | None]) -> Schema | None:
    try:
        return make()
    except (PydanticUserError, TypeError, ValueError, KeyError, NameError, AttributeError) as error:
        logger.debug("a type of a graph has no JSON Schema: %s", error)
        return None


def declared(kind: Any) -> Schema | None:
    """The schema of a plain `typing.TypedDict`, which pydantic refuses before Python 3.12."""
    if not is_typeddict(kind):
        return None
    try:
        hints = typing.get_type_hints(kind, include_extras=True)
    except NameError:  # names under TYPE_CHECKING
        return None
    found = shape(kind.__name__, hints)
    if required := sorted(kind.__required_keys__):
        found["required"] = required
    return found


def shape(title: str, types: Mapping[str, Any]) -> Schema:
    """An object of these types; a type that has no schema stands as anything."""
    adapters = {name: adapter(kind) for name, kind in types.items()}
    found, shared = TypeAdapter.json_schemas(
        [(name, "validation", each) for name, each in adapters.items()]
    )
    properties = {name: found[name, "validation"] for name in adapters}
    return {**shared, "title": title, "type": "object", "properties": properties}


def adapter(kind: Any) -> TypeAdapter[Any]:
    try:
        made = TypeAdapter[Any](kind)
    except (PydanticUserError, TypeError, NameError):
        return TypeAdapter(Any)
    return TypeAdapter(Any) if attempt(made.json_schema) is None else made


async def draw(graph: AnyGraph, xray: bool | int = False) -> dict[str, list[dict[str, Any]]]:
    drawn = (await uncached(graph).aget_graph(xray=xray)).to_json()
    for node in drawn["nodes"]:
        if isinstance(data := node.get("data"), dict):
            data.pop("id", None)  # the class that runs it: nothing for callers
    return drawn


def uncached(graph: AnyGraph) -> AnyGraph:
    """A copy without cache policies. Drawing goes through the motions of a run on an empty state,
    and would ask the user's own key functions for the key of that."""
    bare = copy.copy(graph)
    bare.cache_policy = None
    bare.nodes = {
        name: node.copy(
            {
                "cache_policy": None,
                "subgraphs": [
                    uncached(cast("AnyGraph", sub)) if isinstance(sub, Pregel) else sub
                    for sub in node.subgraphs
                ],
            }
        )
        for name, node in graph.nodes.items()
    }
    return bare


def subgraphs(
    graph: AnyGraph, namespace: str | None = None, *, recurse: bool = False
) -> dict[str, dict[str, Schema | None]]:
    return {
        place: schemas(cast("AnyGraph", sub))
        for place, sub in graph.get_subgraphs(namespace=namespace, recurse=recurse)
        if isinstance(sub, Pregel)
    }
