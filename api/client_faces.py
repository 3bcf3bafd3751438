"""What lies beside `/sessions`: checkpoints with their labels and pins, shares, open questions,
templates, webhooks, and all sessions of an owner at once."""
# ruff: noqa: PIE790 - three dots tell type checkers that a route is its signature

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from clew.api.client_calls import AsyncFace, Call, Every, SyncFace, call
from clew.api.client_types import (
    CheckpointLabel,
    CheckpointLabelData,
    CheckpointLabels,
    CheckpointPage,
    CheckpointPin,
    CheckpointPins,
    CheckpointState,
    CheckpointTree,
    DeletedSessions,
    ErasureReceipt,
    Json,
    Key,
    OpenQuestions,
    Removed,
    Share,
    ShareList,
    Template,
    TemplateList,
    Webhook,
)


class CheckpointRoutes:
    @call("GET", "/sessions/{thread_id}/checkpoints")
    def list(
        self,
        thread_id: Key,
        *,
        scope: Literal["path", "line", "all"] = "line",
        ns: str = "",
        tip: Key | None = None,
        before: Key | None = None,
        limit: int = 20,
        run_id: Key | None = None,
        source: Literal["input", "loop", "update", "fork"] | None = None,
        step: int | None = None,
        metadata: Json | None = None,
    ) -> Call[CheckpointPage]:
        """One page, newest first; `before` of it is where the next one starts."""
        ...

    search = Every(
        list,  # noqa: A003 - the route above
        lambda page: page["checkpoints"],
        lambda page: page["before"],
        "before",
    )

    @call("GET", "/sessions/{thread_id}/checkpoints/tree")
    def tree(
        self, thread_id: Key, *, before: Key | None = None, limit: int = 1000
    ) -> Call[CheckpointTree]:
        """All lines, those that restores left included, and what is on them."""
        ...

    @call("GET", "/sessions/{thread_id}/checkpoints/latest")
    def latest(
        self, thread_id: Key, *, line: int | None = None, state: bool = True
    ) -> Call[CheckpointState]: ...

    @call("GET", "/sessions/{thread_id}/checkpoints/{checkpoint_id}")
    def get(
        self, thread_id: Key, checkpoint_id: Key, *, line: int | None = None, state: bool = True
    ) -> Call[CheckpointState]:
        """One, with its state as it was when this was the newest."""
        ...

    @call("POST", "/sessions/{thread_id}/checkpoints")
    def save(
        self,
        thread_id: Key,
        *,
        label: str,
        data: Any = None,
        move: bool = False,
        reason: str | None = None,
    ) -> Call[CheckpointLabel]:
        """Save the session as it is now under a name, with any JSON beside it."""
        ...

    @call("DELETE", "/sessions/{thread_id}/checkpoints/{checkpoint_id}")
    def delete(self, thread_id: Key, checkpoint_id: Key) -> Call[Removed]: ...

    @call("DELETE", "/sessions/{thread_id}/checkpoints")
    def clear(self, thread_id: Key) -> Call[None]:
        """Delete all of them; the session stays and begins anew."""
        ...

    @call("GET", "/sessions/{thread_id}/pins")
    def pins(self, thread_id: Key) -> Call[CheckpointPins]: ...

    @call("PUT", "/sessions/{thread_id}/checkpoints/{checkpoint_id}/pin")
    def pin(
        self,
        thread_id: Key,
        checkpoint_id: Key,
        *,
        reason: str | None = None,
        expires_at: datetime | str | None = None,
    ) -> Call[CheckpointPin]: ...

    @call("DELETE", "/sessions/{thread_id}/checkpoints/{checkpoint_id}/pin")
    def unpin(self, thread_id: Key, checkpoint_id: Key) -> Call[None]: ...

    @call("GET", "/sessions/{thread_id}/labels")
    def labels(self, thread_id: Key) -> Call[CheckpointLabels]: ...

    @call("GET", "/sessions/{thread_id}/labels/{name}")
    def labelled(self, thread_id: Key, name: str) -> Call[CheckpointLabelData]:
        """A label, and what was saved with it."""
        ...

    @call("PUT", "/sessions/{thread_id}/labels/{name}")
    def label(
        self, thread_id: Key, name: str, *, checkpoint_id: Key, move: bool = False
    ) -> Call[CheckpointLabel]: ...

    @call("DELETE", "/sessions/{thread_id}/labels/{name}")
    def unlabel(self, thread_id: Key, name: str) -> Call[None]: ...


class ShareRoutes:
    @call("GET", "/sessions/shared")
    def received(self, *, limit: int = 100) -> Call[ShareList]:
        """What others share with the caller now."""
        ...

    @call("POST", "/sessions/{thread_id}/shares")
    def create(
        self,
        thread_id: Key,
        *,
        owner: str | None = None,
        role: Literal["reader", "writer"] = "reader",
        checkpoint_id: Key | None = None,
        expires_in: float | None = None,
    ) -> Call[Share]:
        """With one owner of the tenant, or with all; `expires_in` is minutes."""
        ...

    @call("GET", "/sessions/{thread_id}/shares")
    def list(self, thread_id: Key) -> Call[ShareList]: ...

    @call("DELETE", "/sessions/{thread_id}/shares/{share_id}")
    def revoke(self, thread_id: Key, share_id: Key) -> Call[Share]: ...


class TemplateRoutes:
    @call("POST", "/templates")
    def create(
        self, *, name: str, body: Json, description: str | None = None, shared: bool = False
    ) -> Call[Template]: ...

    @call("GET", "/templates")
    def list(self, *, limit: int = 100) -> Call[TemplateList]: ...

    @call("GET", "/templates/{template_id}")
    def get(self, template_id: Key, *, version: int | None = None) -> Call[Template]: ...

    @call("PATCH", "/templates/{template_id}")
    def patch(
        self,
        template_id: Key,
        *,
        name: str | None = None,
        body: Json | None = None,
        description: str | None = None,
        shared: bool | None = None,
    ) -> Call[Template]:
        """A new body is a new version."""
        ...

    @call("DELETE", "/templates/{template_id}")
    def delete(self, template_id: Key) -> Call[None]: ...


class WebhookRoutes:
    @call("POST", "/webhooks")
    def create(self, *, url: str, kinds: Sequence[str] | None = None) -> Call[Webhook]: ...

    @call("GET", "/webhooks")
    def list(self) -> Call[Sequence[Webhook]]: ...

    @call("DELETE", "/webhooks/{webhook_id}")
    def delete(self, webhook_id: Key) -> Call[None]: ...


class OwnerRoutes:
    @call("DELETE", "/owners/{owner}/sessions")
    def delete_sessions(self, owner: str, *, graph_id: str | None = None) -> Call[DeletedSessions]:
        """All sessions of an owner; they can be brought back for a while."""
        ...

    @call("DELETE", "/agents/{graph_id}/sessions")
    def delete_agent_sessions(self, graph_id: str) -> Call[DeletedSessions]:
        """All sessions of an agent, as far as the caller reaches."""
        ...

    @call("POST", "/owners/{owner}/erase")
    def erase(self, owner: str) -> Call[ErasureReceipt]:
        """Remove everything of an owner, for good and at once. For admins."""
        ...

    @call("GET", "/erasures/{receipt_id}")
    def receipt(self, receipt_id: Key) -> Call[ErasureReceipt]: ...


class InterruptRoutes:
    @call("GET", "/interrupts")
    def list(
        self, *, thread_id: Key | None = None, limit: int = 100, offset: int = 0
    ) -> Call[OpenQuestions]:
        """What waits for an answer, newest first; `offset` of it is where the next page starts."""
        ...

    search = Every(
        list,  # noqa: A003 - the route above
        lambda page: page["interrupts"],
        lambda page: page["offset"],
        "offset",
    )


class Checkpoints(AsyncFace, CheckpointRoutes):
    pass


class SyncCheckpoints(SyncFace, CheckpointRoutes):
    pass


class Shares(AsyncFace, ShareRoutes):
    pass


class SyncShares(SyncFace, ShareRoutes):
    pass


class Templates(AsyncFace, TemplateRoutes):
    pass


class SyncTemplates(SyncFace, TemplateRoutes):
    pass


class Webhooks(AsyncFace, WebhookRoutes):
    pass


class SyncWebhooks(SyncFace, WebhookRoutes):
    pass


class Interrupts(AsyncFace, InterruptRoutes):
    pass


class SyncInterrupts(SyncFace, InterruptRoutes):
    pass


class Owners(AsyncFace, OwnerRoutes):
    pass


class SyncOwners(SyncFace, OwnerRoutes):
    pass
