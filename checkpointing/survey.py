"""Where a session's values lie, for a put that goes on from what this process never saw.

A process that just read the checkpoint knows; one that took over in the middle, or was asked to
put something by hand, looks once.
"""

from __future__ import annotations

from langgraph.checkpoint.base import ChannelVersions, Checkpoint

from clew.checkpointing import rows, text
from clew.checkpointing.manifest import Kind, Place
from clew.checkpointing.path import Fetch
from clew.checkpointing.postgres import Principal
from clew.checkpointing.sql import Queries
from clew.checkpointing.tracks import Memory, Track, relative

_SQL = Queries("clew.checkpointing.queries")
_PAGE = 200


async def track(
    fetch: Fetch,
    memory: Memory,
    who: Principal,
    thread_id: str,
    ns: str,
    checkpoint: Checkpoint,
    changed: ChannelVersions,
) -> Track:
    """The session's track, knowing the place of each channel that this put does not change."""
    known = memory.get(who, thread_id)
    missing = {
        (channel, version)
        for channel, version in checkpoint["channel_versions"].items()
        if channel not in changed and (known is None or known.place(ns, channel, version) is None)
    }
    if known is not None and not missing:
        return known
    standing = await fetch(_SQL["standing"], {"thread_id": text.escape(thread_id)})
    if not standing:
        return memory.track(who, thread_id, 0, 0, 0)
    head = standing[0]
    found = memory.track(who, thread_id, head["lineage_id"], head["sweep"], head["clock"])
    before: int | None = None
    while missing:
        page = await fetch(
            _SQL["layouts"],
            {
                "lineage_id": found.lineage_id, "ns": text.escape(ns),
                "before": before, "size": _PAGE,
            },
        )  # fmt: skip
        for row in page:
            before = row["seq"]
            layout = rows.layout_of(row)
            for channel, place in layout.places.items():
                version = layout.versions[channel]
                if (channel, version) in missing:
                    missing.discard((channel, version))
                    found.remember(ns, channel, version, relative(place, found))
        if len(page) < _PAGE:
            break
    for channel, version in missing:
        # Never stored: absent, unless the value itself was handed along.
        if channel not in checkpoint["channel_values"]:
            found.remember(ns, channel, version, Place(Kind.ABSENT))
    return found
