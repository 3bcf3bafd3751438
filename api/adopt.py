"""Sessions that came from LangGraph's own tables: which graph each is of, and how it stands. The
tables do not say either, and a session that has no graph shows nothing."""

from langchain_core.runnables import RunnableConfig

from clew.checkpointing import lineage
from clew.checkpointing.keys import Vault
from clew.checkpointing.postgres import Database, Principal
from clew.checkpointing.saver import Saver
from clew.runtime import forks, sessions, standing
from clew.runtime.graphs import Graphs
from clew.runtime.standing import Ground


async def settle(
    db: Database, vault: Vault | None, who: Principal, thread_id: str, graph_id: str | None
) -> str | None:
    """Give the session its graph, the one that is named or else the one that its checkpoints name,
    and make its row what its head says. Returns the graph; one that it has already stays."""
    session = await sessions.get(db, who, thread_id)
    saver = Saver(db, principal=who, owner_id=session.owner_id, vault=vault)
    named = session.graph_id or graph_id or await _told(saver, thread_id)
    if named is not None and session.graph_id is None:
        changes = {"graph_id": named, "metadata": {"graph_id": named}}
        await sessions.patch(db, who, thread_id, changes)
    # What is stored tells enough; the graphs themselves are not loaded here.
    ground = Ground(db, Graphs({}), saver)
    async with db.transaction(who) as conn:
        held = await standing.hold(conn, thread_id, archived=True)
        await forks.settled(conn, ground, held, await lineage.head(conn, thread_id))
    return named


async def _told(saver: Saver, thread_id: str) -> str | None:
    at: RunnableConfig = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
    newest = await saver.aget_tuple(at)
    found = newest.metadata.get("graph_id") if newest else None
    return found if isinstance(found, str) else None
