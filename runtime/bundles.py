"""Sessions as files: out with what the registry says of them, in under another id.

Nothing in a file is believed: the storage is verified as it is read (docs/bundle.md), and of the
registry's part only what has the right shape is taken.
"""

from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError

from clew.checkpointing import bundle, lineage
from clew.checkpointing.bundle import Imported
from clew.checkpointing.errors import BundleEdited, UnknownThread
from clew.checkpointing.lineage import Scope
from clew.checkpointing.postgres import Principal
from clew.runtime import errors, forks, ids
from clew.runtime.forks import NO_LIMIT
from clew.runtime.limits import Limit
from clew.runtime.rewind import Moved
from clew.runtime.sessions import Fields, Json, Session
from clew.runtime.sql import queries
from clew.runtime.standing import Ground, Why


class Carried(BaseModel):
    """What a bundle says of a session besides its checkpoints."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    graph_id: str | None = None
    assistant_id: str | None = None
    kind: str | None = None
    title: str | None = None
    description: str | None = None
    tags: list[str] = []
    metadata: Json = {}
    config: Json = {}
    context: Json = {}
    resources: Json = {}


@dataclass(frozen=True, slots=True)
class Loaded:
    moved: Moved
    counts: Imported


async def dump(
    ground: Ground, who: Principal, session: Session, *, scope: Scope = "all"
) -> AsyncGenerator[bytes]:
    """The lines of a session's bundle, of one moment. A session in which nothing ever ran has
    nothing to export: `NotFound`."""
    carried = Carried.model_validate(
        {name: getattr(session, name) for name in Carried.model_fields}
    ).model_dump()
    lines = bundle.dump(
        ground.db, who, session.thread_id, scope=scope, session=carried, vault=ground.vault
    )
    async with aclosing(lines):
        try:
            async for line in lines:
                yield line
        except UnknownThread:
            raise errors.NotFound(
                f"session {session.thread_id} has no checkpoint to export yet"
            ) from None


async def load(
    ground: Ground,
    who: Principal,
    owner_id: int,
    chunks: AsyncIterable[bytes],
    why: Why,
    *,
    thread_id: str | None = None,
    stamp: Json | None = None,
    limit: Limit = NO_LIMIT,
) -> Loaded:
    """Make a session of a bundle, or nothing at all. `stamp` is metadata that it gets whatever the
    file says."""
    new_id = ids.mint() if thread_id is None else ids.check(thread_id)
    async with ground.db.transaction(who) as conn:
        made = await bundle.load(
            conn,
            chunks,
            new_id,
            owner_id,
            vault=ground.vault,
            actor=why.actor,
            reason=why.reason,
        )
        fields = _fields(made.session, stamp or {})
        target = await forks.register(conn, owner_id, new_id, limit, fields)
        head = await lineage.head(conn, new_id)
        size = await (
            await conn.execute(queries["bytes_of_session"], {"thread_id": new_id})
        ).fetchone()
        assert size is not None
        stored = size["checkpoint_bytes"] + size["write_bytes"] + size["item_bytes"]
        await conn.execute(queries["weigh_session"], {"thread_id": new_id, "bytes": stored})
        return Loaded(await forks.settled(conn, ground, target, head, full=True), made)


def _fields(told: Mapping[str, Any] | None, stamp: Json) -> Fields:
    try:
        carried = Carried.model_validate(told or {})
        assistant_id = carried.assistant_id and str(UUID(carried.assistant_id))
    except (ValidationError, ValueError):
        raise BundleEdited("what the bundle says of its session does not hold together") from None
    return {
        "graph_id": carried.graph_id,
        "assistant_id": assistant_id,
        "kind": carried.kind,
        "title": carried.title,
        "description": carried.description,
        "tags": carried.tags,
        "metadata": {**carried.metadata, **stamp},
        "config": carried.config,
        "context": carried.context,
        "resources": carried.resources,
    }
