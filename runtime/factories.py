"""Functions that make graphs: what they want to be told, and calling them.

A factory may be sync or async, or a context manager of either kind that is left when the graph is
no longer needed; it takes nothing, the config, the server runtime, or both.
"""

import contextlib
import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from langchain_core.runnables import RunnableConfig
from langgraph.graph import StateGraph
from langgraph.pregel import Pregel
from langgraph.store.base import BaseStore
from langgraph_sdk.auth.types import BaseUser

# The classes behind the public names, which are unions and cannot be made.
from langgraph_sdk.runtime import (
    AccessContext,
    _ExecutionRuntime,  # pyright: ignore[reportPrivateUsage]
    _ReadRuntime,  # pyright: ignore[reportPrivateUsage]
)
from pydantic import BaseModel, ValidationError
from typing_extensions import is_typeddict

from clew.runtime import errors

AnyGraph = Pregel[Any, Any, Any, Any]
Wanted = Literal["config", "runtime"]


@dataclass(frozen=True, slots=True)
class Factory:
    call: Callable[..., object]
    first: tuple[Wanted, ...]  # given by position
    named: Mapping[str, Wanted]
    context: type[Any] | None  # what `ServerRuntime[...]` names


@dataclass(frozen=True, slots=True)
class Purpose:
    """Why a graph is wanted, for whom, and with what."""

    config: RunnableConfig
    store: BaseStore | None
    access_context: AccessContext = "threads.create_run"
    user: BaseUser | None = None
    context: Mapping[str, Any] | None = None


def read(call: Callable[..., object]) -> Factory:
    """Learn from a function's signature what to give it."""
    if inspect.isclass(call):
        raise errors.GraphError(f"{call.__name__} is a class, not a graph.")
    if inspect.isasyncgenfunction(call):
        call = contextlib.asynccontextmanager(call)
    elif inspect.isgeneratorfunction(call):
        call = contextlib.contextmanager(call)
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError):
        raise errors.GraphError("It is neither a graph nor a function that makes one.") from None
    parameters = [
        p for p in signature.parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    hints = annotations(call)
    wanted: dict[str, Wanted | None] = {
        p.name: wants(p.name, hints.get(p.name, p.annotation)) for p in parameters
    }
    required = [p.name for p in parameters if p.default is p.empty]
    unknown = [name for name in required if wanted[name] is None]
    if len(unknown) == len(required) == 1:
        wanted[unknown.pop()] = "config"
    if unknown:
        raise errors.GraphError(
            f"Its parameter {unknown[0]} is neither a RunnableConfig nor a ServerRuntime."
        )
    first: list[Wanted] = []
    named: dict[str, Wanted] = {}
    for parameter in parameters:
        what = wanted[parameter.name]
        if what and parameter.kind is parameter.POSITIONAL_ONLY:
            first.append(what)
        elif what:
            named[parameter.name] = what
    return Factory(call, tuple(first), named, contextual(wanted, hints))


def contextual(wanted: Mapping[str, Wanted | None], hints: Mapping[str, Any]) -> type[Any] | None:
    """`Ctx` of `ServerRuntime[Ctx]`."""
    found = [hints.get(name) for name, what in wanted.items() if what == "runtime"]
    return next(filter(inspect.isclass, typing.get_args(found[0] if found else None)), None)


def annotations(call: Callable[..., object]) -> dict[str, Any]:
    target = getattr(call, "func", call)
    # Not to see whether it can be called: to see what the method is annotated with.
    target = target if inspect.isroutine(target) else getattr(target, "__call__", target)  # noqa: B004
    try:
        return typing.get_type_hints(target)
    except (NameError, TypeError, AttributeError):
        return {}  # names under TYPE_CHECKING: the words themselves still tell


def wants(name: str, annotation: object) -> Wanted | None:
    text = str(annotation)
    if name == "runtime" or any(word in text for word in ("ServerRuntime", "_ExecutionRuntime")):
        return "runtime"
    return "config" if name == "config" or "RunnableConfig" in text else None


async def make(factory: Factory, purpose: Purpose, stack: contextlib.AsyncExitStack) -> AnyGraph:
    """Call the factory. What it opened is closed with `stack`."""
    given = {"config": lambda: configured(purpose), "runtime": lambda: runtime(factory, purpose)}
    made = factory.call(
        *(given[what]() for what in factory.first),
        **{name: given[what]() for name, what in factory.named.items()},
    )
    if inspect.isawaitable(made):
        made = await made
    if isinstance(made, contextlib.AbstractAsyncContextManager):
        made = await stack.enter_async_context(cast("Any", made))
    elif isinstance(made, contextlib.AbstractContextManager):
        made = stack.enter_context(cast("Any", made))
    return compiled(made)


def compiled(value: object) -> AnyGraph:
    if isinstance(value, StateGraph):
        return cast("StateGraph[Any, Any, Any, Any]", value).compile()
    if isinstance(value, Pregel):
        return cast("AnyGraph", value)
    raise errors.GraphError(f"It made no graph but {type(value).__name__}.")


def configured(purpose: Purpose) -> RunnableConfig:
    return {
        **purpose.config,
        "configurable": dict(purpose.config.get("configurable") or {}),
        "metadata": dict(purpose.config.get("metadata") or {}),
    }


def runtime(factory: Factory, purpose: Purpose) -> object:
    # The type says that a store is always there, and on a server it is.
    store = cast("BaseStore", purpose.store)
    if purpose.access_context != "threads.create_run":
        return _ReadRuntime(access_context=purpose.access_context, user=purpose.user, store=store)
    return _ExecutionRuntime(
        access_context=purpose.access_context,
        user=purpose.user,
        store=store,
        context=build(factory.context, purpose.context),
    )


def build(schema: type[Any] | None, given: Mapping[str, Any] | None) -> Any:
    """The context as its declared type."""
    if schema is None:
        return given
    values = fit(schema, given or {})
    if not (dataclasses.is_dataclass(schema) or issubclass(schema, BaseModel)):
        return values
    try:
        return schema(**values)
    except (TypeError, ValidationError) as error:
        raise errors.Invalid(f"context: {error}") from error


def fit(schema: type[Any] | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Only those keys of a context that its schema declares, as the official server does."""
    if schema is None:
        return dict(given)
    if dataclasses.is_dataclass(schema):
        known = {field.name for field in dataclasses.fields(schema)}
    elif issubclass(schema, BaseModel):
        if schema.model_config.get("extra") == "allow":
            return dict(given)
        known = set(schema.model_fields)
        known |= {info.alias for info in schema.model_fields.values() if info.alias}
    elif is_typeddict(schema):
        known = set(typing.get_type_hints(schema))
    else:
        return dict(given)
    return {name: value for name, value in given.items() if name in known}
