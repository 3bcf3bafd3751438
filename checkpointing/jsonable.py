"""Any value as plain JSON, for comparing and showing; no value can make it fail."""

from __future__ import annotations

import json
from typing import Any

from langchain_core.messages import BaseMessage
from langgraph.types import Interrupt, Send
from pydantic_core import PydanticSerializationError, to_jsonable_python


def render(value: Any) -> Any:
    try:
        return to_jsonable_python(
            value,
            bytes_mode="base64",
            timedelta_mode="float",
            inf_nan_mode="strings",
            fallback=_fallback,
        )
    except (PydanticSerializationError, ValueError):  # a cycle, or its own serializer raises
        return {"unserializable": type(value).__name__}


def canonical(value: Any) -> str:
    """The same text for equal values that were rendered."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def identity(value: Any) -> str | None:
    """The id that tells an element of a list apart, if it has one: a message's, a document's."""
    if isinstance(value, BaseMessage):
        return value.id
    found = value.get("id") if isinstance(value, dict) else None
    return found if isinstance(found, str) and found else None


def _fallback(value: Any) -> Any:
    if isinstance(value, Send):
        return {"node": value.node, "args": value.arg}
    if isinstance(value, Interrupt):
        return {"id": value.id, "value": value.value}
    if isinstance(value, BaseException):
        return repr(value)
    return getattr(value, "__dict__", None) or type(value).__name__
