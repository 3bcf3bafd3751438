"""The routes of `/sessions` as methods: find, create, change, talk, rewind, and take elsewhere."""
# ruff: noqa: PIE790 - three dots tell type checkers that a route is its signature

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from langgraph_sdk.schema import StreamPart
from typing_extensions import TypedDict, Unpack

from clew.api.client_calls import AsyncFace, Call, Every, SyncFace, call, download, stream
from clew.api.client_types import (
    AuditLog,
    BatchResults,
    BisectResult,
    ImportedSession,
    Json,
    Key,
    MessagePage,
    MovedSession,
    PrunedSession,
    PurgedSession,
    RetentionPolicy,
    Role,
    Session,
    SessionDiff,
    SessionPage,
    SessionStats,
    SessionStorage,
    SharedSession,
    State,
    Status,
    Strategy,
    TtlChoice,
)


class Described(TypedDict, total=False):
    """What a session may be given. `assistant_id` is an assistant's id or a graph's name; `ttl` and
    `idle_after` are minutes."""

    title: str | None
    description: str | None
    kind: str | None
    tags: Sequence[str] | None
    metadata: Json | None
    config: Json | None
    context: Json | None
    resources: Json | None
    ttl: TtlChoice | float | None
    idle_after: float | None
    assistant_id: str | None
    template_id: str | None
    template_version: int | None


class New(Described, total=False):
    thread_id: Key | None
    if_exists: Literal["raise", "do_nothing"]
    reuse: Literal["latest"] | None


class Sought(TypedDict, total=False):
    """What is looked for; `q` in titles and messages."""

    q: str | None
    state: Sequence[State] | None
    status: Sequence[Status] | None
    tag: Sequence[str] | None
    any_tag: Sequence[str] | None
    kind: str | None
    graph_id: str | None
    assistant_id: Key | None
    parent_thread_id: Key | None
    metadata: Json | None
    created_after: datetime | str | None
    created_before: datetime | str | None
    updated_after: datetime | str | None
    updated_before: datetime | str | None
    sort: Literal["updated_at", "created_at", "last_active_at"]
    order: Literal["asc", "desc"]
    limit: int
    cursor: str | None
    total: bool


class Said(TypedDict, total=False):
    """`content`, or whole `messages`; who answers, and how."""

    content: str | Sequence[Json] | None
    messages: Sequence[Json] | None
    role: Role
    metadata: Json | None
    assistant_id: str | None
    context: Json | None
    config: Json | None
    stream_mode: Sequence[str]
    multitask_strategy: Strategy
    on_disconnect: Literal["continue", "cancel"]


class Batch(TypedDict, total=False):
    """One of the three."""

    create: Sequence[New] | None
    get: Sequence[str] | None
    delete: Sequence[str] | None


class Registry:
    """Create, find, change, archive, delete and bring back."""

    @call("POST", "/sessions")
    def create(self, **fields: Unpack[New]) -> Call[Session]:
        """A new session, or with `reuse="latest"` the latest one that is there."""
        ...

    @call("GET", "/sessions/{thread_id}")
    def get(self, thread_id: Key) -> Call[SharedSession]: ...

    @call("GET", "/sessions")
    def list(self, **fields: Unpack[Sought]) -> Call[SessionPage]:
        """One page; `cursor` of it is where the next one starts."""
        ...

    # All of them, page after page, `limit` at a time.
    search = Every(
        list,  # noqa: A003 - the route above
        lambda page: page["sessions"],
        lambda page: page["cursor"],
        "cursor",
    )

    @call("PATCH", "/sessions/{thread_id}", headers={"version": "If-Match"})
    def patch(
        self, thread_id: Key, *, version: int | None = None, **fields: Unpack[Described]
    ) -> Call[Session]:
        """Change what is named. With `version`, only if nobody changed it since: else `Stale`."""
        ...

    @call("DELETE", "/sessions/{thread_id}")
    def delete(self, thread_id: Key, *, final: bool = False) -> Call[Session | PurgedSession]:
        """It can be brought back for a while, unless it is `final`."""
        ...

    @call("POST", "/sessions/{thread_id}/undelete")
    def undelete(self, thread_id: Key) -> Call[Session]: ...

    @call("POST", "/sessions/{thread_id}/archive")
    def archive(self, thread_id: Key) -> Call[Session]: ...

    @call("POST", "/sessions/{thread_id}/unarchive")
    def unarchive(self, thread_id: Key) -> Call[Session]: ...

    @call("POST", "/sessions/{thread_id}/touch")
    def touch(self, thread_id: Key, *, ttl: float | None = None) -> Call[Session]:
        """Count as activity now; `ttl` in minutes replaces the session's."""
        ...

    @call("POST", "/sessions/{thread_id}/transfer")
    def transfer(self, thread_id: Key, *, owner: str) -> Call[Session]:
        """Give it to another owner of the tenant. For admins."""
        ...

    @call("POST", "/sessions/{thread_id}/title")
    def title(self, thread_id: Key) -> Call[Session]:
        """Title it by what was said first in it."""
        ...

    @call("GET", "/sessions/{thread_id}/audit")
    def audit(self, thread_id: Key, *, limit: int = 100) -> Call[AuditLog]: ...

    @call("GET", "/sessions/stats")
    def stats(self, *, graph_id: str | None = None, days: int = 30) -> Call[SessionStats]: ...

    @call("POST", "/sessions/batch")
    def batch(self, **fields: Unpack[Batch]) -> Call[BatchResults]:
        """Each item has its own result or problem, in its place."""
        ...

    @stream("GET", "/sessions/events", headers={"last_event_id": "Last-Event-ID"}, endless=True)
    def events(
        self, *, thread_id: Key | None = None, last_event_id: str | None = None
    ) -> Call[StreamPart]:
        """`session.*` and `run.*` as they happen, without end; from `last_event_id` on where it is
        given."""
        ...


class Talk:
    """What is said in a session."""

    @call("GET", "/sessions/{thread_id}/messages")
    def messages(
        self,
        thread_id: Key,
        *,
        scope: Literal["head", "all"] = "head",
        order: Literal["asc", "desc"] = "asc",
        checkpoint_id: Key | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Call[MessagePage]:
        """One page, from either end."""
        ...

    all_messages = Every(
        messages, lambda page: page["messages"], lambda page: page["cursor"], "cursor"
    )

    @stream("POST", "/sessions/{thread_id}/messages", fixed={"stream": True})
    def send(self, thread_id: Key, **fields: Unpack[Said]) -> Call[StreamPart]:
        """Send a message and stream the reply. A stream that is cut goes on where it was."""
        ...

    @call("POST", "/sessions/{thread_id}/messages", fixed={"stream": False})
    def ask(self, thread_id: Key, **fields: Unpack[Said]) -> Call[dict[str, Any]]:
        """Send a message and wait for the state after the reply."""
        ...

    @stream(
        "GET",
        "/sessions/{thread_id}/runs/{run_id}/stream",
        headers={"last_event_id": "Last-Event-ID"},
    )
    def follow(
        self, thread_id: Key, run_id: Key, *, last_event_id: str | None = None
    ) -> Call[StreamPart]:
        """What a reply in progress still says; from `last_event_id` on where it is given."""
        ...

    @call("POST", "/sessions/{thread_id}/runs/{run_id}/cancel")
    def stop(self, thread_id: Key, run_id: Key) -> Call[None]:
        """Answers when the run has stopped; what it had said stays."""
        ...


class Rewind:
    """Back, forth and aside; docs/rewind.md."""

    @call("POST", "/sessions/{thread_id}/restore")
    def restore(
        self,
        thread_id: Key,
        *,
        checkpoint_id: Key | None = None,
        label: str | None = None,
        line: int | None = None,
        reason: str | None = None,
    ) -> Call[MovedSession]: ...

    @call("POST", "/sessions/{thread_id}/undo")
    def undo(self, thread_id: Key, *, reason: str | None = None) -> Call[MovedSession]: ...

    @call("POST", "/sessions/{thread_id}/fork", named={"source": "thread_id"})
    def fork(
        self,
        source: Key,
        *,
        checkpoint_id: Key | None = None,
        label: str | None = None,
        line: int | None = None,
        reason: str | None = None,
        thread_id: Key | None = None,
        scope: Literal["path", "all"] = "path",
        title: str | None = None,
        tags: Sequence[str] | None = None,
        metadata: Json | None = None,
        owner: str | None = None,
    ) -> Call[MovedSession]:
        """A new session that begins at a checkpoint of this one; `thread_id` is the new one's."""
        ...

    @call("GET", "/sessions/{thread_id}/diff")
    def diff(
        self,
        thread_id: Key,
        *,
        a: Key | None = None,
        b: Key | None = None,
        with_: Key | None = None,
        a_line: int | None = None,
        b_line: int | None = None,
    ) -> Call[SessionDiff]: ...

    @call("POST", "/sessions/{thread_id}/bisect")
    def bisect(
        self,
        thread_id: Key,
        *,
        where: Json,
        tip: Key | None = None,
        since: Key | None = None,
    ) -> Call[BisectResult]: ...


class Keeping:
    """What of its history a session keeps, and sessions as files."""

    @call("GET", "/sessions/{thread_id}/retention")
    def retention(self, thread_id: Key) -> Call[RetentionPolicy]: ...

    @call("PUT", "/sessions/{thread_id}/retention")
    def set_retention(
        self, thread_id: Key, *, policy: str, reason: str | None = None
    ) -> Call[RetentionPolicy]: ...

    @call("DELETE", "/sessions/{thread_id}/retention")
    def unset_retention(self, thread_id: Key) -> Call[None]: ...

    @call("POST", "/sessions/{thread_id}/prune")
    def prune(
        self,
        thread_id: Key,
        *,
        policy: str | None = None,
        dry_run: bool = False,
        reason: str | None = None,
    ) -> Call[PrunedSession]: ...

    @call("GET", "/sessions/{thread_id}/storage")
    def storage(self, thread_id: Key) -> Call[SessionStorage]: ...

    @download("GET", "/sessions/{thread_id}/export")
    def export(
        self, thread_id: Key, file: Path | str, *, scope: Literal["all", "path"] = "all"
    ) -> Call[Path]:
        """Write the session to a file, lossless. A download that is cut leaves no file."""
        ...

    @call("POST", "/sessions/import", query=("thread_id", "reason"))
    def import_(
        self, file: Path | str, *, thread_id: Key | None = None, reason: str | None = None
    ) -> Call[ImportedSession]:
        """Make a new session of such a file."""
        ...


class SessionRoutes(Registry, Talk, Rewind, Keeping):
    """All of `client.sessions`."""


class Sessions(AsyncFace, SessionRoutes):
    pass


class SyncSessions(SyncFace, SessionRoutes):
    pass
