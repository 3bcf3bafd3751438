"""What a webhook is told of a run: the run's row, and the values that it left."""

import logging
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pydantic_core import from_json

from clew.checkpointing.errors import CheckpointError, DatabaseUnreachable
from clew.checkpointing.postgres import Database, Principal
from clew.checkpointing.saver import Saver
from clew.runtime import errors, runs, sessions, states, wire
from clew.runtime.graphs import Graphs
from clew.runtime.runs import Run
from clew.runtime.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Payloads:
    """Reads as the run's owner does. `fields` are those that may be sent; None is all."""

    db: Database
    graphs: Graphs
    saver: Saver
    store: Store | None = None
    fields: Collection[str] | None = None

    async def of_run(
        self, owner_id: int, thread_id: str, run_id: str, state: bytes | None = None
    ) -> bytes:
        """`state` is of a run without checkpoints. NotFound where it has been deleted meanwhile."""
        run = await runs.get(self.db, Principal.owner(owner_id), thread_id, run_id)
        payload: dict[str, Any] = {
            "run_id": run.run_id,
            "thread_id": run.thread_id,
            "assistant_id": run.assistant_id,
            "metadata": run.metadata,
            "status": run.status,
            "multitask_strategy": run.multitask_strategy,
            "created_at": run.due_at,
            "updated_at": run.updated_at,
            "kwargs": run.shown(),
            "run_started_at": run.started_at,
            "run_ended_at": run.ended_at,
            "webhook_sent_at": datetime.now(UTC),
        }
        if run.error is not None:
            payload["error"] = run.error
        if self.fields is None or "values" in self.fields:
            payload["values"] = from_json(state) if state else await self._values(run)
        if self.fields is not None:
            payload = {name: value for name, value in payload.items() if name in self.fields}
        return wire.encode(payload)

    async def _values(self, run: Run) -> Any:
        """Those of the run's own last checkpoint, whatever its session has done since; of the
        session where the run made none."""
        try:
            session = await sessions.find(self.db, Principal.owner(run.owner_id), run.thread_id)
            session = replace(session, graph_id=run.graph_id)
            found = await states.history_of(
                self.graphs,
                self.saver,
                self.store,
                session,
                limit=1,
                metadata={"run_id": run.run_id},
            )
            if found:
                return found[0]["values"]
            state = await states.of_session(self.graphs, self.saver, self.store, session)
            return state["values"]
        except DatabaseUnreachable:
            raise
        except (errors.ClewError, CheckpointError) as error:
            # A graph that is not served any more, or a state that cannot be read: that the run is
            # over is worth telling without them.
            log.warning("a webhook of run %s goes without values: %s", run.run_id, error)
            return {}
