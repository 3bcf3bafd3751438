"""What a saver can do beyond what LangGraph's loop asks of it: delete, copy and prune sessions."""

from __future__ import annotations

from collections.abc import Sequence

from clew.checkpointing import fences, garbage, lineage, metadata
from clew.checkpointing.footing import Footing


class Extended(Footing):
    """The extended capabilities of a saver."""

    async def adelete_thread(self, thread_id: str) -> None:
        await self.flush(thread_id)
        async with self._held(str(thread_id)) as conn:
            await lineage.purge(conn, str(thread_id))
        self._memory.forget(self.principal, str(thread_id))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        wanted = [metadata.run_column(run_id) for run_id in run_ids]
        async with self._held(self.fence.thread_id if self.fence else None) as conn:
            if self.fence is None:
                await garbage.delete_runs(conn, wanted)
            else:
                await fences.delete_runs(conn, self.fence, wanted)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        async with self._held(source_thread_id) as conn:
            await lineage.fork(conn, source_thread_id, target_thread_id, scope="all")
        self._memory.forget(self.principal, target_thread_id)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        if strategy not in ("keep_latest", "delete"):
            raise ValueError(f"unknown strategy: {strategy}")
        for thread_id in thread_ids:
            if strategy == "delete":
                await self.adelete_thread(thread_id)
                continue
            async with self._held(thread_id) as conn:
                await garbage.keep_latest(conn, thread_id)
