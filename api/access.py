"""Which session a path of the sessions API names, and what the caller may do to it: one's own, or
one that its owner shares. Foreign and unknown are one.
"""

from dataclasses import dataclass, replace

from clew.api.auth import Caller
from clew.api.deps import Parts
from clew.checkpointing.postgres import Principal
from clew.runtime import errors, sessions, shares
from clew.runtime.sessions import Filter, Session
from clew.runtime.shares import Role, Share


@dataclass(frozen=True, slots=True)
class Access:
    session: Session
    who: Caller  # reaches no further than the share, where there is one
    allowed: Filter | None
    share: Share | None = None

    @property
    def principal(self) -> Principal:
        return self.who.principal

    @property
    def checkpoint_id(self) -> str | None:
        """Where a share is pinned; nothing later is shown."""
        return self.share.checkpoint_id if self.share else None


async def demand(who: Caller, action: str, thread_id: object) -> Filter | None:
    return await who.authorize("threads", action, {"thread_id": thread_id})


async def open_(
    clew: Parts, who: Caller, thread_id: object, action: str = "read", *, role: Role = "reader"
) -> Access:
    """One's own session, or a shared one if the share is for as much as `role`."""
    key = str(thread_id)
    allowed = await demand(who, action, thread_id)
    try:
        session = await sessions.get(clew.db, who.principal, key, allowed=allowed)
    except errors.NotFound:
        share = await shares.access(clew.db, who.owner_id, key)
        if share is None or (role == "writer" and share.role != "writer"):
            raise
        session = await sessions.get(clew.db, share.principal, key)
        acting = replace(who, principal=share.principal, owner_id=share.owner_id)
        return Access(session, acting, None, share)
    return Access(session, who, allowed)
