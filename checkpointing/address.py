"""Which session, namespace and checkpoint a config of LangGraph's speaks of."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from langchain_core.runnables import RunnableConfig

from clew.checkpointing.errors import InvalidId


def of(config: RunnableConfig) -> tuple[str, str, str | None]:
    """The thread id, the namespace, and the checkpoint id if one is named."""
    told = configurable(config)
    found = told.get("checkpoint_id") or None
    return (
        str(told["thread_id"]),
        told.get("checkpoint_ns") or "",
        str(UUID(found)) if found and is_uuid(found) else found,
    )


def configurable(config: RunnableConfig) -> dict[str, Any]:
    return config.get("configurable") or {}


def is_uuid(value: str) -> bool:
    try:
        UUID(value)
    except ValueError:
        return False
    return True


def plain_id(checkpoint_id: Any) -> str | None:
    """A checkpoint's id as rows have it, however it is spelt."""
    return str(uuid(str(checkpoint_id))) if checkpoint_id else None


def uuid(value: str) -> UUID:
    """Raises `InvalidId`."""
    try:
        return UUID(value)
    except ValueError as error:
        raise InvalidId(f"{value!r} is no UUID") from error
