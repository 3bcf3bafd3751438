"""Rows as the protocol shows them: threads, runs, assistants."""

from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from clew.runtime.assistants import Assistant
from clew.runtime.runs import Run
from clew.runtime.sessions import Session

Json = dict[str, Any]


def pick(row: Json, select: Collection[str] | None) -> Json:
    return {key: row[key] for key in select if key in row} if select else row


def thread(session: Session) -> Json:
    """Without `values`, which are read from the head where they are wanted."""
    return {
        "thread_id": session.thread_id,
        "created_at": session.created_at,
        "updated_at": session.updated_at,
        "state_updated_at": session.state_updated_at,
        "metadata": session.metadata,
        "status": session.status,
        "config": session.config,
        "context": session.context,
        "error": session.error,
        "interrupts": session.interrupts,
    }


def ttl(session: Session) -> Json | None:
    if session.ttl is None:
        return None
    return {
        "strategy": session.ttl_strategy,
        "ttl_minutes": session.ttl.total_seconds() / 60,
        "expires_at": session.expires_at,
    }


def run(item: Run) -> Json:
    row: Json = {
        "run_id": item.run_id,
        "thread_id": item.thread_id,
        "assistant_id": item.assistant_id,
        "metadata": item.metadata,
        "status": item.status,
        "multitask_strategy": item.multitask_strategy,
        "created_at": item.due_at,  # a scheduled run is of the moment it is due
        "updated_at": item.updated_at,
        "kwargs": item.shown(),
    }
    if item.cancel_reason is not None:
        row["cancel_reason"] = item.cancel_reason
    return row


def assistant(item: Assistant) -> Json:
    row = asdict(item)
    del row["owner_id"]
    return row


def version(item: Assistant) -> Json:
    row = assistant(item)
    del row["updated_at"]
    return row
