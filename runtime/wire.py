"""Values as JSON, the way the official clients expect to see them.

Messages become flat objects, interrupts keep only what `Interrupt(**i)` accepts, what JSON has no
word for gets the nearest one, and no value of a user's graph can make it fail.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from langgraph.types import Interrupt, Send
from pydantic_core import PydanticSerializationError, to_json


def encode(value: object) -> bytes:
    try:
        return _to_json(value)
    except (PydanticSerializationError, UnicodeEncodeError):
        # A lone surrogate, a cycle, or an object whose own serializer raises: rare, so the
        # careful and slow way is only taken then.
        return _to_json(_plain(value, ()))


def interrupt(item: Interrupt) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": item.id, "value": item.value}
    schema = getattr(item, "response_schema", None)
    if schema is not None:
        shown["response_schema"] = schema
    return shown


def problem(error: BaseException) -> dict[str, str]:
    """An exception of a graph as clients see it; only classes whose text is meant for people."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    message = str(error) if kinds & _TOLD else "An internal error occurred"
    return {"error": type(error).__name__, "message": message}


_TOLD = {
    "ValueError",
    "TypeError",
    "KeyError",
    "AttributeError",
    "RuntimeError",
    "RecursionError",
    "TimeoutError",
    "InvalidUpdateError",
    "GraphBubbleUp",
    "EmptyInputError",
    "TaskNotFound",
    "HTTPException",
    "UserInterrupt",
    "ClewError",
}


def _to_json(value: object) -> bytes:
    return to_json(
        value,
        bytes_mode="base64",
        timedelta_mode="float",
        inf_nan_mode="null",
        fallback=_fallback,
    )


def _fallback(value: object) -> object:
    if isinstance(value, Send):
        return {"node": value.node, "args": value.arg}
    if isinstance(value, BaseException):
        return problem(value)
    if isinstance(value, type):
        return value.__name__
    return None


def _plain(value: object, above: tuple[int, ...]) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if value is None or isinstance(value, bool | int | float):
        return value
    if id(value) in above:
        return None
    above = (*above, id(value))
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return {str(_plain(str(key), ())): _plain(item, above) for key, item in items}
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, bytes | bytearray):
        return [_plain(item, above) for item in cast("Sequence[Any]", value)]
    if hasattr(value, "model_dump"):
        return _plain(dict(cast("Any", value).__dict__), above)
    try:
        _to_json(value)
    except (PydanticSerializationError, UnicodeEncodeError):
        return None
    return value
