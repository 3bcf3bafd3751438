"""What is asked of a run: the fields, and how the run's row keeps them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, Self

from clew.runtime import wire

Multitask = Literal["reject", "enqueue", "interrupt", "rollback"]
Durability = Literal["sync", "async", "exit"]
Protocol = Literal["legacy", "v2"]
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What is asked of a run. The run's row keeps it as `kwargs`."""

    graph_id: str
    assistant_id: str | None = None
    input: Any = None
    command: Json | None = None  # update, resume, goto; wins over input
    config: Json = field(default_factory=dict[str, Any])
    context: Json = field(default_factory=dict[str, Any])
    metadata: Json = field(default_factory=dict[str, Any])
    user: Json | None = None  # who asked, for the graph's config; never shown
    protocol: Protocol = "legacy"
    stream_mode: Sequence[str] = ("values",)
    stream_subgraphs: bool = False
    stream_resumable: bool = False
    multitask_strategy: Multitask = "enqueue"
    checkpoint: Json | None = None  # checkpoint_id, checkpoint_ns, checkpoint_map
    interrupt_before: Sequence[str] | Literal["*"] | None = None
    interrupt_after: Sequence[str] | Literal["*"] | None = None
    durability: Durability = "async"
    strict_resume: bool = False
    after: timedelta = timedelta()
    timeout: timedelta | None = None
    interrupt_timeout: timedelta | None = None  # how long its questions wait for an answer
    interrupt_default: Any = None  # the answer then; None gives the questions up
    on_disconnect: Literal["continue", "cancel"] = "continue"
    on_completion: Literal["delete", "keep"] = "delete"
    temporary: bool = False  # stateless: the session is made for this run
    webhook: str | None = None
    idempotency_key: str | None = None
    trace: Mapping[str, str] = field(default_factory=dict[str, str])  # traceparent, tracestate
    extras: Json = field(default_factory=dict[str, Any])  # feedback_keys, langsmith_tracer

    def encode(self) -> bytes:
        kept = {
            _WIRE.get(name, name): value
            for name in _STORED
            if (value := getattr(self, name)) is not None
        }
        for name in ("timeout", "interrupt_timeout"):
            if name in kept:
                kept[name] = kept[name].total_seconds()
        return wire.encode(kept)

    @classmethod
    def decode(cls, kwargs: Json, **columns: Any) -> Self:
        """The request of a stored run, of its `kwargs` and what has columns of its own."""
        kept = {name: kwargs[key] for name in _STORED if (key := _WIRE.get(name, name)) in kwargs}
        for name in ("timeout", "interrupt_timeout"):
            if name in kept:
                kept[name] = timedelta(seconds=kept[name])
        return cls(**columns, **kept)


# What has no column of its own, and what the protocol calls it.
_STORED = (
    *("input", "command", "config", "context", "user", "stream_mode", "stream_subgraphs"),
    *("stream_resumable", "checkpoint", "interrupt_before", "interrupt_after", "durability"),
    *("strict_resume", "timeout", "interrupt_timeout", "interrupt_default", "on_disconnect"),
    *("on_completion", "temporary", "webhook", "trace", "extras"),
)
_WIRE = {"stream_subgraphs": "subgraphs", "stream_resumable": "resumable"}
