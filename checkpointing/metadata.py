"""What is kept of a checkpoint's metadata: what the graph says of it, never a secret.

LangGraph copies every scalar of `configurable`, API keys included, into the metadata of each
checkpoint. Here only what the saver is handed as metadata and what the caller put into the run's
own `metadata` is kept; of `configurable`, a few harmless names; and nothing that looks secret.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, cast
from uuid import NAMESPACE_OID, UUID, uuid5

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import EXCLUDED_METADATA_KEYS
from psycopg.types.json import Jsonb

from clew.checkpointing import secrets, text

_HARMLESS = frozenset(
    ("run_id", "assistant_id", "graph_id", "graph_version", "assistant_version", "run_attempt")
)
_EXACT_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Columns:
    """A checkpoint's metadata, in the shape of its row."""

    source: str | None
    step: int | None
    run_id: UUID | None
    root_id: UUID | None
    rest: Jsonb | None


def gather(
    config: RunnableConfig, metadata: Mapping[str, Any], declared: Collection[str] = ()
) -> dict[str, Any]:
    """Everything of this checkpoint's metadata that may be stored."""
    kept = {
        k: secrets.scrub(v)
        for k, v in metadata.items()
        if k != "writes" and not secrets.is_secret(k)
    }
    configurable = cast("Mapping[str, Any]", config.get("configurable") or {})
    for key, value in cast("Mapping[str, Any]", config.get("metadata") or {}).items():
        # What is in `configurable` too was copied from there on the way.
        if key not in configurable:
            _add(kept, key, value)
    for key in (*_HARMLESS, *declared):
        if key in configurable:
            _add(kept, key, configurable[key])
    return kept


def _add(kept: dict[str, Any], key: str, value: Any) -> None:
    if (
        key in kept
        or key in EXCLUDED_METADATA_KEYS
        or key.startswith("__")
        or secrets.is_secret(key)
    ):
        return
    if isinstance(value, (str, int, float, bool)):
        kept[key] = secrets.scrub(value)


def run_column(run_id: Any) -> UUID:
    """The column value of a run id of any form."""
    run_id = str(run_id)
    if _EXACT_UUID.fullmatch(run_id):
        return UUID(run_id)
    return uuid5(NAMESPACE_OID, run_id)


def split(ns: str, metadata: Mapping[str, Any]) -> Columns:
    """Spread metadata over the columns of a row; the rest, if any, is JSON."""
    rest = dict(metadata)
    source = rest.get("source")
    if isinstance(source, str):
        del rest["source"]
    step = rest.get("step")
    if type(step) is int and abs(step) < 1 << 31:
        del rest["step"]
    run_id = rest.get("run_id")
    if isinstance(run_id, str) and _EXACT_UUID.fullmatch(run_id):
        del rest["run_id"]
    root_id: UUID | None = None
    parents = rest.pop("parents", None)
    if ns and isinstance(parents, dict) and _is_uuid(cast("Any", parents.get(""))):
        root_id = UUID(parents[""])
        if len(cast("dict[str, Any]", parents)) > 1:
            rest["parents"] = {k: v for k, v in cast("dict[str, Any]", parents).items() if k}
    elif parents != {} or (ns and parents is not None):
        rest["parents"] = parents
    return Columns(
        source=source if isinstance(source, str) else None,
        step=step if type(step) is int and abs(step) < 1 << 31 else None,
        run_id=run_column(run_id) if run_id else None,
        root_id=root_id,
        rest=Jsonb(text.replace(rest, text.escape)) if rest else None,
    )


def join(row: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata that a row was made of."""
    rest: dict[str, Any] = text.replace(row["metadata"] or {}, text.unescape)
    found: dict[str, Any] = {}
    if row["source"] is not None:
        found["source"] = row["source"]
    if row["step"] is not None:
        found["step"] = row["step"]
    if row["root_id"] is not None:
        found["parents"] = {"": str(row["root_id"]), **(rest.pop("parents", None) or {})}
    elif "parents" not in rest:
        if not row["ns"]:
            found["parents"] = {}
    elif rest["parents"] is None:
        del rest["parents"]
    if row["run_id"] is not None and "run_id" not in rest:
        found["run_id"] = str(row["run_id"])
    return found | rest


def _is_uuid(value: Any) -> bool:
    return isinstance(value, str) and _EXACT_UUID.fullmatch(value) is not None
