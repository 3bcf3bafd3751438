"""What a session's storage takes, in all and channel by channel, without decoding a value.

Counted is what lies in the session's own lines. A fork's past lies in what it was forked from, and
counts there.
"""

from collections import defaultdict
from dataclasses import dataclass

from clew.checkpointing import items, manifest, text
from clew.checkpointing.postgres import Database, Principal
from clew.runtime.sql import queries


@dataclass(frozen=True, slots=True)
class Size:
    count: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Channel:
    """`namespace` is the path of nodes to the subgraph; both are None for what no newest checkpoint
    names any more."""

    namespace: str | None
    channel: str | None
    count: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Storage:
    thread_id: str
    total_bytes: int
    checkpoints: Size
    values: Size
    writes: Size
    channels: list[Channel]  # the largest first


async def measure(db: Database, who: Principal, thread_id: str) -> Storage:
    key = {"thread_id": text.escape(thread_id)}
    async with db.transaction(who) as conn:
        total = await (await conn.execute(queries["bytes_of_session"], key)).fetchone()
        streams = await (await conn.execute(queries["bytes_of_streams"], key)).fetchall()
        layouts = await (await conn.execute(queries["layouts_of_session"], key)).fetchall()
    assert total is not None
    names: dict[int, tuple[str, str]] = {}
    for row in layouts:
        ns = text.unescape(row["ns"])
        layout = manifest.decode(row["state"], row["ranges"], row["lineage_id"])
        for channel in layout.places:
            names[items.stream(ns, channel)] = (_path(ns), channel)
    sizes: dict[tuple[str | None, str | None], list[int]] = defaultdict(lambda: [0, 0])
    for row in streams:
        size = sizes[names.get(row["stream"], (None, None))]
        size[0] += row["items"]
        size[1] += row["bytes"]
    channels = [Channel(ns, channel, *size) for (ns, channel), size in sizes.items()]
    return Storage(
        thread_id=thread_id,
        total_bytes=total["checkpoint_bytes"] + total["write_bytes"] + total["item_bytes"],
        checkpoints=Size(total["checkpoints"], total["checkpoint_bytes"]),
        values=Size(total["items"], total["item_bytes"]),
        writes=Size(total["writes"], total["write_bytes"]),
        channels=sorted(channels, key=lambda c: -c.bytes),
    )


def _path(ns: str) -> str:
    """A namespace without the ids of the calls in it."""
    return "|".join(part.partition(":")[0] for part in ns.split("|"))
