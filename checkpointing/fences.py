"""The right to write a session, which ends for its writers as soon as someone else claims it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from clew.checkpointing import garbage, path, text
from clew.checkpointing.postgres import Connection
from clew.checkpointing.sql import Queries

_SQL = Queries("clew.checkpointing.queries")


@dataclass(frozen=True, slots=True)
class Fence:
    """The right to write a session: lost as soon as someone else claims it."""

    thread_id: str
    epoch: int


async def hold(conn: Connection, fence: Fence) -> bool:
    """Keep every other writer out until the transaction ends; False if the right is lost."""
    found = await path.through(conn)(_SQL["hold_head"], {"thread_id": text.escape(fence.thread_id)})
    return bool(found) and found[0]["epoch"] == fence.epoch


async def delete_runs(conn: Connection, fence: Fence, run_ids: Collection[UUID]) -> None:
    """As `garbage.delete_runs`, in the fence's session only: its forks have copies of a run's rows
    that this gives no right to."""
    fetch = path.through(conn)
    for line in await fetch(_SQL["lineages_of_runs"], {"run_ids": list(run_ids)}):
        if line["thread_id"] != text.escape(fence.thread_id):
            continue
        rows = await fetch(_SQL["skeletons"], {"lineage_id": line["lineage_id"]})
        doomed = {(row["ns"], row["checkpoint_id"]) for row in rows if row["run_id"] in run_ids}
        await garbage.drop(conn, line["lineage_id"], doomed)
