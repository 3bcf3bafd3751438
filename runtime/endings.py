"""What is left when a run ends: its last events, its open questions, how much was said."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from langgraph.types import StateSnapshot
from pydantic_core import from_json

from clew.runtime import wire
from clew.runtime.leases import Ending
from clew.runtime.questions import Question
from clew.runtime.runs import Run

Json = dict[str, Any]


def last_words(run: Run, ending: Ending) -> Sequence[tuple[str, Json, tuple[str, ...]]]:
    """The events that end a run, in the words of its protocol."""
    outcome = "failed" if ending.error else "interrupted"
    if ending.status == "success" and ending.rest == "idle":
        outcome = "completed"
    if run.protocol == "legacy":
        end = {"run_id": run.run_id, "status": ending.status, "outcome": outcome}
        if ending.error:
            return [("error", ending.error, ()), ("end", end, ())]
        return [("end", end, ())]
    asked = [("input.requested", _asked(item), item.namespace) for item in ending.questions]
    last: Json = {"event": outcome, "graph_name": run.graph_id}
    if ending.error:
        last["error"] = ending.error["message"]
    return [*asked, ("lifecycle", last, ())]


def _asked(item: Question) -> Json:
    value = from_json(item.value)
    # One official client reads `payload`, the other `value`.
    shown: Json = {"interrupt_id": item.interrupt_id, "payload": value, "value": value}
    if item.response_schema is not None:
        shown["response_schema"] = from_json(item.response_schema)
    return shown


def interrupts(snapshot: StateSnapshot | None) -> Json:
    if snapshot is None:
        return {}
    return {
        task.id: [wire.interrupt(item) for item in task.interrupts]
        for task in snapshot.tasks
        if task.interrupts
    }


def questions(
    snapshot: StateSnapshot | None, namespaces: Mapping[str, tuple[str, ...]]
) -> list[Question]:
    if snapshot is None:
        return []
    return [
        Question.of(
            item.id,
            namespaces.get(item.id, ()),
            item.value,
            getattr(item, "response_schema", None),
        )
        for item in snapshot.interrupts
    ]


def messages(values: Any) -> int | None:
    """How many messages the session has; None where it has no such channel."""
    held = cast("Json", values).get("messages") if isinstance(values, dict) else None
    return len(cast("list[Any]", held)) if isinstance(held, list) else None
