"""What requests of the Agent Server protocol look like, field by field.

Keys that no client is known to send are ignored, as the official server does, but never in
silence: they are logged and named in a response header. A known option that Clew does not support
is refused by name.
"""

import logging
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from clew.runtime import errors

log = logging.getLogger(__name__)

IGNORED_HEADER = "X-Clew-Ignored"

Json = dict[str, Any]
Strategy = Literal["reject", "enqueue", "interrupt", "rollback"]
Durability = Literal["sync", "async", "exit"]
STREAM_MODES = (
    "values",
    "updates",
    "messages",
    "messages-tuple",
    "tasks",
    "checkpoints",
    "debug",
    "custom",
    "events",
    "tools",
)


class Body(BaseModel):
    """A request body whose unknown keys are ignored aloud."""

    model_config = ConfigDict(extra="allow", frozen=True)

    def ignored(self) -> list[str]:
        return sorted(self.__pydantic_extra__ or {})

    def notice(self) -> dict[str, str]:
        """The header that names them, for the response."""
        names = [name for name in self.ignored() if name.isascii() and name.isidentifier()]
        if not names:
            return {}
        log.info("ignored unknown keys in a request: %s", ", ".join(names))
        return {IGNORED_HEADER: ", ".join(names)}


def _one_or_many(value: object) -> object:
    if value is None or value == []:
        return ["values"]
    return [value] if isinstance(value, str) else value


def known_modes(modes: list[str]) -> list[str]:
    for mode in modes:
        if mode not in STREAM_MODES:
            raise ValueError(f"stream_mode: {mode!r} is none of {', '.join(STREAM_MODES)}")
    return modes


StreamModes = Annotated[list[str], BeforeValidator(_one_or_many)]
Nodes = Literal["*"] | list[str]


def _in_utc(moment: datetime) -> datetime:
    # Postgres knows fewer offsets than Python does.
    try:
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except OverflowError:
        raise ValueError("is outside of the calendar") from None


Moment = Annotated[datetime, AfterValidator(_in_utc)]
ZonedMoment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
Minutes = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Offset = Annotated[int, Field(ge=0, le=2**31 - 1)]


class Checkpoint(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    thread_id: str | None = None
    checkpoint_ns: str | None = None
    checkpoint_id: str | None = None
    checkpoint_map: Json | None = None


class Ttl(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    ttl: Minutes | None = None
    strategy: Literal["delete", "keep_latest"] = "delete"


class ThreadCreate(Body):
    thread_id: UUID | None = None
    metadata: Json | None = None
    if_exists: Literal["raise", "do_nothing"] = "raise"
    ttl: Ttl | Minutes | None = None
    supersteps: list[Json] | None = None


class ThreadPatch(Body):
    metadata: Json | None = None
    ttl: Ttl | Minutes | None = None


Sort = Literal["thread_id", "status", "created_at", "updated_at", "state_updated_at"]
Status = Literal["idle", "busy", "interrupted", "error"]
THREAD_FIELDS = (
    "thread_id",
    "created_at",
    "updated_at",
    "state_updated_at",
    "metadata",
    "status",
    "config",
    "context",
    "values",
    "error",
    "interrupts",
)


class ThreadSearch(Body):
    ids: list[UUID] | None = None
    metadata: Json | None = None
    values: Json | None = None
    status: Status | None = None
    limit: int = Field(10, ge=1, le=1000)
    offset: Offset = 0
    sort_by: Sort | None = None
    sort_order: Literal["asc", "desc"] | None = None
    # One tuple names the fields for the schema and for the queries: pyright wants them spelled out.
    select: list[Literal[THREAD_FIELDS]] | None = None  # pyright: ignore[reportInvalidTypeForm]
    extract: dict[str, str] | None = Field(None, max_length=10)


class ThreadCount(Body):
    metadata: Json | None = None
    values: Json | None = None
    status: Status | None = None


class ThreadPrune(Body):
    thread_ids: list[UUID]
    strategy: Literal["delete", "keep_latest"] = "delete"


class StateUpdate(Body):
    values: Any = None
    as_node: str | None = None
    checkpoint: Checkpoint | None = None
    checkpoint_id: str | None = None


class StateQuery(Body):
    checkpoint: Checkpoint = Checkpoint()
    subgraphs: bool = False
    select: list[str] | None = None


class HistoryQuery(Body):
    limit: int = Field(1, ge=1, le=1000)
    before: Any = None  # an id, a checkpoint, or a config: clients send all three
    metadata: Json | None = None
    checkpoint: Checkpoint | None = None
    select: list[str] | None = None


class Sent(BaseModel):
    """A node and what it is called with, whatever the state says."""

    model_config = ConfigDict(extra="allow", frozen=True)

    node: str
    input: Any = None


class Command(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    update: Any = None
    resume: Any = None
    goto: str | Sent | list[str | Sent] | None = None


def _typed(config: Json) -> Json:
    for name, kind, called in _CONFIG:
        if config.get(name) is not None and not isinstance(config[name], kind):
            raise ValueError(f"{name} must be {called}")
    return config


# What of a run's config has a type; the rest of it is passed on.
_CONFIG: tuple[tuple[str, type, str], ...] = (
    ("configurable", dict, "an object"),
    ("metadata", dict, "an object"),
    ("tags", list, "a list"),
    ("recursion_limit", int, "a whole number"),
)
RunConfig = Annotated[Json, AfterValidator(_typed)]


class RunCreate(Body):
    """Everything a run can be asked for, with the official server's defaults."""

    assistant_id: str
    input: Any = None
    command: Command | None = None
    stream_mode: StreamModes = Field(default_factory=lambda: ["values"])
    stream_subgraphs: bool = False
    stream_resumable: bool = False
    on_disconnect: Literal["continue", "cancel"] = "continue"
    multitask_strategy: Strategy = "enqueue"
    if_not_exists: Literal["reject", "create"] = "reject"
    on_completion: Literal["delete", "keep"] = "delete"
    config: RunConfig = Field(default_factory=dict)
    context: Json | None = None
    checkpoint: Checkpoint | None = None
    checkpoint_id: UUID | None = None
    interrupt_before: Nodes | None = None
    interrupt_after: Nodes | None = None
    metadata: Json | None = None
    webhook: str | None = None
    after_seconds: float = Field(0, ge=0, le=1e9, allow_inf_nan=False)
    durability: Durability | None = None
    checkpoint_during: bool | None = None
    feedback_keys: list[str] | None = None
    langsmith_tracer: Json | None = None
    strict_resume: bool = False

    @model_validator(mode="after")
    def _is_supported(self) -> Self:
        known_modes(self.stream_mode)
        for name in ("feedback_keys", "langsmith_tracer"):
            if getattr(self, name):
                raise errors.Unsupported(
                    f"{name} needs LangSmith, which Clew does not talk to", option=name
                )
        return self


class CancelMany(Body):
    thread_id: UUID | None = None
    run_ids: list[UUID] | None = None
    status: Literal["pending", "running", "all"] | None = None
