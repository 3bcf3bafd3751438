"""What requests of the sessions API look like, and how its rows are shown. Unknown fields are
refused by name. Durations are minutes.
"""

from datetime import timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from clew.api.schema import Minutes, Moment, StreamModes, known_modes
from clew.runtime import errors
from clew.runtime.lifecycle import Entry
from clew.runtime.sessions import Session
from clew.runtime.shares import Share
from clew.runtime.stats import Figures, Stats
from clew.runtime.templates import Template

Json = dict[str, Any]


def _instant(value: object) -> object:
    # A query's `+` arrives as a space.
    return value.replace(" ", "+") if isinstance(value, str) else value


Instant = Annotated[Moment, BeforeValidator(_instant)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TtlBody(Strict):
    ttl: Minutes | None = None
    sliding: bool | None = None
    strategy: Literal["delete", "keep_latest"] = "delete"
    waiting: Minutes | None = None


class Described(Strict):
    title: str | None = None
    description: str | None = None
    kind: str | None = None
    tags: list[str] | None = None
    metadata: Json | None = None
    config: Json | None = None
    context: Json | None = None
    resources: Json | None = None
    ttl: TtlBody | Minutes | None = None
    idle_after: Minutes | None = None


class SessionCreate(Described):
    thread_id: UUID | None = None
    assistant_id: str | None = None  # an assistant's id, or a graph's name
    if_exists: Literal["raise", "do_nothing"] = "raise"
    reuse: Literal["latest"] | None = None
    template_id: str | None = None
    template_version: int | None = Field(None, ge=1, le=2**31 - 1)


class SessionPatch(Described):
    assistant_id: str | None = None
    template_id: str | None = None  # put the settings back to those of a template
    template_version: int | None = Field(None, ge=1, le=2**31 - 1)


class Touch(Strict):
    ttl: Minutes | None = None


class Transfer(Strict):
    owner: str = Field(min_length=1, max_length=256)


class BatchOf(Strict):
    """One of the three."""

    create: list[SessionCreate] | None = None
    get: list[str] | None = None
    delete: list[str] | None = None


class MessageSend(Strict):
    """What is said: `content`, or whole `messages`, such as a batch from elsewhere."""

    content: str | list[Json] | None = None
    messages: list[Json] | None = Field(None, min_length=1)
    role: Literal["user", "assistant", "system", "tool"] = "user"
    metadata: Json | None = None  # of the message
    assistant_id: str | None = None
    context: Json | None = None
    config: Json | None = None
    stream: bool = True
    stream_mode: Annotated[StreamModes, AfterValidator(known_modes)] = Field(
        default_factory=lambda: ["messages-tuple", "values"]
    )
    multitask_strategy: Literal["reject", "enqueue", "interrupt", "rollback"] = "reject"
    on_disconnect: Literal["continue", "cancel"] = "continue"

    def said(self) -> list[Json]:
        if (self.content is None) == (self.messages is None):
            raise errors.Invalid("content: give either content or messages")
        if self.messages is not None:
            return self.messages
        message: Json = {"role": self.role, "content": self.content}
        if self.metadata:
            message["additional_kwargs"] = {"metadata": self.metadata}
        return [message]


class ShareCreate(Strict):
    owner: str | None = Field(None, min_length=1, max_length=256)  # None: the whole tenant
    role: Literal["reader", "writer"] = "reader"
    checkpoint_id: UUID | None = None
    expires_in: Minutes | None = None


class TemplateCreate(Strict):
    name: str = Field(min_length=1)
    description: str | None = None
    shared: bool = False
    body: Json


class TemplatePatch(Strict):
    name: str | None = Field(None, min_length=1)
    description: str | None = None
    shared: bool | None = None
    body: Json | None = None


def version_of(if_match: str | None) -> int | None:
    """The version that an `If-Match` header names; None where any will do."""
    if if_match is None or if_match.strip() == "*":
        return None
    text = if_match.strip().removeprefix("W/").strip('"')
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise errors.Invalid("If-Match: must be a version, as the ETag of a session tells it")
    return int(text)


def etag(session: Session) -> dict[str, str]:
    return {"ETag": f'"{session.version}"'}


def session(row: Session) -> Json:
    return {
        "thread_id": row.thread_id,
        "state": row.state,
        "status": row.status,
        "graph_id": row.graph_id,
        "assistant_id": row.assistant_id,
        "kind": row.kind,
        "title": row.title,
        "description": row.description,
        "tags": row.tags,
        "metadata": row.metadata,
        "config": row.config,
        "context": row.context,
        "resources": row.resources,
        "template": row.template,
        "interrupts": row.interrupts,
        "error": row.error,
        "message_count": row.message_count,
        "bytes": row.bytes,
        "version": row.version,
        "parent_thread_id": row.parent_thread_id,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "last_active_at": row.last_active_at,
        "ttl": None
        if row.ttl is None
        else {
            "ttl": minutes(row.ttl),
            "sliding": row.ttl_sliding,
            "strategy": row.ttl_strategy,
            "waiting": minutes(row.ttl_waiting),
        },
        "expires_at": row.expires_at,
        "idle_after": minutes(row.idle_after),
        "archived_at": row.archived_at,
        "deleted_at": row.deleted_at,
    }


def share(row: Share) -> Json:
    return {
        "share_id": row.share_id,
        "thread_id": row.thread_id,
        "owner": row.grantee,
        "role": row.role,
        "checkpoint_id": row.checkpoint_id,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "revoked_at": row.revoked_at,
    }


def template(row: Template) -> Json:
    return {
        "template_id": row.template_id,
        "name": row.name,
        "description": row.description,
        "shared": row.shared,
        "body": row.body,
        "version": row.version,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }


def entry(row: Entry) -> Json:
    return {
        "thread_id": row.thread_id,
        "actor": row.actor,
        "move": row.move,
        "from_state": row.from_state,
        "to_state": row.to_state,
        "detail": row.detail,
        "made_at": row.made_at,
    }


def stats(found: Stats) -> Json:
    return {
        **_figures(found.total),
        "by_state": found.by_state,
        "by_agent": {name: _figures(f) for name, f in found.by_agent.items()},
        "by_owner": {name: _figures(f) for name, f in found.by_owner.items()},
        "by_day": {day.isoformat(): number for day, number in found.by_day.items()},
    }


def _figures(found: Figures) -> Json:
    return {
        "sessions": found.sessions,
        "messages": found.messages,
        "bytes": found.bytes,
        "average_duration": minutes(found.average_duration),
    }


def minutes(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds() / 60
