"""What the routes of the sessions face answer, as types. The Python client returns them, and the
OpenAPI document and the TypeScript client are written from them. Instants are ISO 8601 texts, as
they come over the wire; durations are minutes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired
from uuid import UUID

from typing_extensions import TypedDict  # which pydantic can read on 3.11 as well

Key = str | UUID
Json = Mapping[str, Any]
Role = Literal["user", "assistant", "system", "tool"]
Strategy = Literal["reject", "enqueue", "interrupt", "rollback"]
State = Literal["active", "idle", "archived", "expired", "deleted"]
Status = Literal["idle", "busy", "interrupted", "error"]


class SessionTtl(TypedDict):
    """`ttl` and `waiting` are minutes; `waiting` counts while the session waits for a human."""

    ttl: float | None
    sliding: bool
    strategy: Literal["delete", "keep_latest"]
    waiting: float | None


class TtlChoice(TypedDict, total=False):
    ttl: float | None
    sliding: bool | None
    strategy: Literal["delete", "keep_latest"]
    waiting: float | None


class Session(TypedDict):
    thread_id: str
    state: State
    status: Status
    graph_id: str | None
    assistant_id: str | None
    kind: str | None
    title: str | None
    description: str | None
    tags: Sequence[str]
    metadata: dict[str, Any]
    config: dict[str, Any]
    context: dict[str, Any]
    resources: dict[str, Any]
    template: dict[str, Any] | None
    interrupts: dict[str, Any]
    error: dict[str, Any] | None
    message_count: int
    bytes: int
    version: int
    parent_thread_id: str | None
    created_at: str
    updated_at: str
    last_active_at: str
    ttl: SessionTtl | None
    expires_at: str | None
    idle_after: float
    archived_at: str | None
    deleted_at: str | None


class SharedSession(Session):
    share: NotRequired["Share"]  # where it is somebody else's


class MovedSession(Session):
    """A session after its head has moved: where it is, and what comes next."""

    next: Sequence[str]
    checkpoint_id: str | None
    line: int | None


class ImportCounts(TypedDict):
    source_thread_id: str
    lineages: int
    items: int
    checkpoints: int
    writes: int


class ImportedSession(MovedSession):
    imported: ImportCounts


class PurgedSession(TypedDict):
    thread_id: str
    state: Literal["purged"]


class SessionPage(TypedDict):
    sessions: Sequence[Session]
    cursor: str | None
    total: NotRequired[int | None]


class BatchProblem(TypedDict):
    code: str
    detail: str


class BatchResult(TypedDict, total=False):
    """One of the two."""

    session: Session
    problem: BatchProblem


class BatchResults(TypedDict):
    results: Sequence[BatchResult]


class Figures(TypedDict):
    sessions: int
    messages: int
    bytes: int
    average_duration: float | None


class SessionStats(Figures):
    by_state: dict[str, int]
    by_agent: dict[str, Figures]
    by_owner: dict[str, Figures]
    by_day: dict[str, int]


class AuditEntry(TypedDict):
    thread_id: str | None
    actor: str
    move: str
    from_state: str | None
    to_state: str | None
    detail: dict[str, Any] | None
    made_at: str


class AuditLog(TypedDict):
    entries: Sequence[AuditEntry]


class SessionMessage(TypedDict):
    index: int
    removed: bool
    message: dict[str, Any]


class MessagePage(TypedDict):
    messages: Sequence[SessionMessage]
    cursor: str | None
    total: int


class Share(TypedDict):
    share_id: str
    thread_id: str
    owner: str | None
    role: Literal["reader", "writer"]
    checkpoint_id: str | None
    created_at: str
    expires_at: str | None
    revoked_at: str | None


class ShareList(TypedDict):
    shares: Sequence[Share]


class CheckpointEntry(TypedDict):
    checkpoint_id: str
    parent_id: str | None
    lineage_id: int
    seq: int
    ns: str
    source: str | None
    step: int | None
    run_id: str | None
    created_at: str
    metadata: dict[str, Any]
    labels: Sequence[str]
    pinned: bool
    interrupted: bool
    failed: bool
    bytes: int


class CheckpointState(CheckpointEntry):
    state: NotRequired[dict[str, Any]]


class CheckpointPage(TypedDict):
    checkpoints: Sequence[CheckpointEntry]
    before: str | None


class Branch(TypedDict):
    lineage_id: int
    kind: str
    own: bool
    is_head: bool
    parent_id: int | None
    source_id: int | None
    fork_id: str | None
    fork_parent: str | None
    scope: str
    moment: int | None
    created_at: str
    tip: str | None
    checkpoints: int
    actor: str | None
    reason: str | None


class CheckpointTree(TypedDict):
    branches: Sequence[Branch]
    checkpoints: Sequence[CheckpointEntry]
    before: str | None


class CheckpointLabel(TypedDict):
    name: str
    checkpoint_id: str
    actor: str | None
    labelled_at: str
    has_data: bool


class CheckpointLabelData(CheckpointLabel):
    data: Any


class CheckpointLabels(TypedDict):
    labels: Sequence[CheckpointLabel]


class CheckpointPin(TypedDict):
    checkpoint_id: str
    actor: str | None
    reason: str | None
    pinned_at: str
    expires_at: str | None


class CheckpointPins(TypedDict):
    pins: Sequence[CheckpointPin]


class Removed(TypedDict):
    """What of a session's history went, or would go."""

    thread_id: str
    checkpoint_ids: Sequence[str]
    checkpoints: int
    writes: int
    items: int
    bytes: int


class PrunedSession(Removed):
    dry_run: bool


class DiffSides(TypedDict):
    a: Sequence[str]
    b: Sequence[str]


class DiffQuestions(TypedDict):
    removed: Sequence[Any]
    added: Sequence[Any]


class SessionDiff(TypedDict):
    a: dict[str, Any]
    b: dict[str, Any]
    values: dict[str, dict[str, Any]]
    next: DiffSides
    interrupts: DiffQuestions
    metadata: Sequence[dict[str, Any]]


class BisectResult(TypedDict):
    checkpoint_id: str | None
    lineage_id: int | None
    before_id: str | None
    loads: int
    length: int


class OpenQuestion(TypedDict):
    """What a run stopped to ask; `on_deadline` is the answer that it gets if nobody gives one."""

    thread_id: str
    interrupt_id: str
    run_id: str | None
    namespace: Sequence[str]
    value: Any
    response_schema: Any
    created_at: str
    deadline_at: str | None
    on_deadline: Any


class OpenQuestions(TypedDict):
    interrupts: Sequence[OpenQuestion]
    offset: int | None


class RetentionPolicy(TypedDict):
    policy: str
    inherited: bool


class StorageSize(TypedDict):
    count: int
    bytes: int


class ChannelSize(StorageSize):
    namespace: str | None
    channel: str | None


class SessionStorage(TypedDict):
    thread_id: str
    total_bytes: int
    checkpoints: StorageSize
    values: StorageSize
    writes: StorageSize
    channels: Sequence[ChannelSize]


class Template(TypedDict):
    template_id: str
    name: str
    description: str | None
    shared: bool
    body: dict[str, Any]
    version: int
    created_at: str
    updated_at: str


class TemplateList(TypedDict):
    templates: Sequence[Template]


class Webhook(TypedDict):
    subscription_id: str
    url: str
    kinds: Sequence[str] | None
    attempts: int
    fault: str | None
    created_at: str


class DeletedSessions(TypedDict):
    deleted: int
    busy: Sequence[str]


class ErasureReceipt(TypedDict):
    receipt_id: str
    subject: str
    removed: dict[str, int]
    started_at: str
    ended_at: str
