"""Changing a session's state from outside a run: one value, one checkpoint at a time.

An edit claims the session's epoch like a run does, so an edit and a run can never both write: the
one that comes later makes the earlier one's writes land nowhere, and the loser is told.
"""

from collections.abc import Sequence
from typing import Any

from langgraph.errors import EmptyInputError, InvalidUpdateError
from langgraph.types import Command, StateUpdate

from clew.checkpointing import lineage
from clew.checkpointing.errors import FenceLost, UnknownThread
from clew.checkpointing.postgres import Database, Principal
from clew.checkpointing.saver import Fence, Saver
from clew.runtime import errors, standing, states
from clew.runtime.graphs import Graphs
from clew.runtime.sessions import Session
from clew.runtime.store import Store

Json = dict[str, Any]


async def update(
    db: Database,
    who: Principal,
    graphs: Graphs,
    saver: Saver,
    store: Store | None,
    session: Session,
    steps: Sequence[Sequence[StateUpdate]],
    *,
    checkpoint: Json | None = None,
) -> Json:
    """Apply the updates, each superstep a checkpoint, at the head or at an older checkpoint (a
    branch then). Returns where the last one is."""
    if session.graph_id is None:
        raise errors.BadRequest(
            f"Thread '{session.thread_id}' has no assigned graph ID. This usually occurs when no "
            "runs have been made on this particular thread. Set metadata.graph_id when creating "
            "it, or run it once."
        )
    owned = saver.bind(
        principal=who, owner_id=session.owner_id, fence=await _claim(db, who, session)
    )
    at = states.config(session.thread_id, checkpoint)
    at["metadata"] = {"graph_id": session.graph_id}
    async with graphs.open(
        session.graph_id,
        config=at,
        checkpointer=owned,
        store=store.bind(session.owner_id) if store else None,
        access_context="threads.update",
    ) as graph:
        try:
            made = await graph.abulk_update_state(at, steps)
            await owned.flush(session.thread_id)
            await standing.after_edit(db, who, graph, session)
        except FenceLost as error:
            raise standing.busy() from error
        except (ValueError, InvalidUpdateError, EmptyInputError) as error:
            raise errors.BadRequest(str(error)) from error
    where = made.get("configurable", {})
    return {key: where[key] for key in _PLACE if key in where}


_PLACE = ("thread_id", "checkpoint_ns", "checkpoint_id", "checkpoint_map")


def superstep(given: Json) -> list[StateUpdate]:
    """One of `supersteps`: what each node is taken to have written."""
    updates = given.get("updates")
    if not isinstance(updates, list) or not updates:
        raise errors.Invalid("supersteps: each needs a list of updates")
    found: list[StateUpdate] = []
    for item in updates:
        if not isinstance(item, dict) or "as_node" not in item:
            raise errors.Invalid("supersteps: an update needs as_node, and values or command")
        command: Json | None = item.get("command")
        # LangGraph's `aupdate_state` takes a Command where its annotation says a dict.
        values: Any = Command(**command) if command else item.get("values")
        found.append(StateUpdate(values, item["as_node"]))
    return found


async def _claim(db: Database, who: Principal, session: Session) -> Fence:
    async with db.transaction(who) as conn:
        await standing.hold(conn, session.thread_id)
        try:
            head = await lineage.claim(conn, session.thread_id)
        except UnknownThread:
            head = await lineage.create(conn, session.thread_id, session.owner_id)
        return Fence(session.thread_id, head.epoch)
