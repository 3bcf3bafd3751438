"""What an interrupt asks, as a row keeps it: open until it is answered, dropped or overdue."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self, cast

from clew.checkpointing.sealed import Sealed
from clew.runtime import wire


@dataclass(frozen=True, slots=True)
class Question:
    """An interrupt that waits for an answer."""

    interrupt_id: str
    namespace: tuple[str, ...]
    value: bytes  # JSON
    response_schema: bytes | None = None
    deadline_at: datetime | None = None
    on_deadline: bytes | None = None  # the answer given then

    @classmethod
    def of(cls, interrupt_id: str, namespace: tuple[str, ...], value: Any, schema: Any) -> Self:
        """A graph that gives its question a time limit says so in the interrupt's value: `deadline`
        is an ISO time, `on_deadline` the answer to resume with once it has passed."""
        deadline = _deadline(value)
        return cls(
            interrupt_id,
            namespace,
            wire.encode(value),
            None if schema is None else wire.encode(schema),
            deadline,
            wire.encode(value["on_deadline"]) if deadline and "on_deadline" in value else None,
        )


def columns(questions: Sequence[Question]) -> dict[str, list[Any]]:
    """The parameters that put them into rows."""
    return {
        "interrupt_ids": [q.interrupt_id for q in questions],
        "namespaces": ["|".join(q.namespace) for q in questions],
        "interrupt_values": [Sealed(q.value) for q in questions],
        "schemas": [q.response_schema and Sealed(q.response_schema) for q in questions],
        "deadlines": [q.deadline_at for q in questions],
        "defaults": [q.on_deadline and Sealed(q.on_deadline) for q in questions],
    }


def _deadline(value: Any) -> datetime | None:
    if not isinstance(value, Mapping):
        return None
    given = cast("Mapping[str, Any]", value).get("deadline")
    if not isinstance(given, str):
        return None
    try:
        moment = datetime.fromisoformat(given)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
