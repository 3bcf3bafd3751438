"""A session's messages as LangChain's chat history, both ways and under the same id:

    RunnableWithMessageHistory(chain, lambda thread_id: ChatHistory(ground, owner_id, thread_id))

What is added becomes a checkpoint like any other, so it can be listed, forked and restored. A
message that is there already, by its id, is replaced and not added twice.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage, RemoveMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import REMOVE_ALL_MESSAGES
from langgraph.types import StateUpdate

from clew.checkpointing import lineage
from clew.checkpointing.errors import FenceLost, UnknownThread
from clew.checkpointing.postgres import Principal
from clew.checkpointing.saver import Fence
from clew.runtime import edits, errors, sessions, standing, states
from clew.runtime.sessions import Session
from clew.runtime.standing import Ground
from clew.runtime.store import Store

T = TypeVar("T")

NODE = "messages"


def _nothing(state: MessagesState) -> dict[str, Any]:
    return {}


# For sessions that have no graph of their own: it holds messages, and does nothing with them.
_HOLDER = (
    StateGraph(MessagesState).add_node(NODE, _nothing).add_edge(START, NODE).add_edge(NODE, END)
)


class ChatHistory(BaseChatMessageHistory):
    """Of one session of one owner, which is made at the first message if it is not there."""

    def __init__(self, ground: Ground, owner_id: int, thread_id: str) -> None:
        super().__init__()
        self._ground = ground
        self._who = Principal.owner(owner_id)
        self._thread_id = thread_id
        self._loop = asyncio.get_running_loop()

    # LangChain declares an attribute and means a property, as its own histories show.
    @property
    def messages(self) -> list[BaseMessage]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._wait(self.aget_messages())

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        self._wait(self.aadd_messages(messages))

    def clear(self) -> None:
        self._wait(self.aclear())

    async def aget_messages(self) -> list[BaseMessage]:
        try:
            session = await sessions.get(self._ground.db, self._who, self._thread_id)
        except errors.NotFound:
            return []
        saver = self._ground.saver.bind(principal=self._who, owner_id=session.owner_id)
        found = await saver.aget_tuple(states.config(self._thread_id))
        held: Any = found.checkpoint["channel_values"].get("messages") if found else None
        return [item for item in held or () if isinstance(item, BaseMessage)]

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        if messages:
            await self._write(list(messages))

    async def aclear(self) -> None:
        """Empty the state; what was said stays in the session's past."""
        if await self.aget_messages():
            await self._write([RemoveMessage(id=REMOVE_ALL_MESSAGES)])

    async def _write(self, messages: list[BaseMessage]) -> None:
        ground = self._ground
        session = await sessions.create(
            ground.db,
            self._who,
            self._who.owner_from,
            thread_id=self._thread_id,
            if_exists="do_nothing",
        )
        update = {"messages": messages}
        if session.graph_id is None:
            await self._hold(session, update)
            return
        await edits.update(
            ground.db,
            self._who,
            ground.graphs,
            ground.saver,
            ground.store if isinstance(ground.store, Store) else None,
            session,
            [[StateUpdate(update, None)]],
        )

    async def _hold(self, session: Session, update: dict[str, Any]) -> None:
        """Claimed like a run claims it, so that this and a run can never both write."""
        ground = self._ground
        async with ground.db.transaction(self._who) as conn:
            await standing.hold(conn, session.thread_id)
            try:
                head = await lineage.claim(conn, session.thread_id)
            except UnknownThread:
                head = await lineage.create(conn, session.thread_id, session.owner_id)
        fence = Fence(session.thread_id, head.epoch)
        owned = ground.saver.bind(principal=self._who, owner_id=session.owner_id, fence=fence)
        graph = _HOLDER.compile(checkpointer=owned)
        try:
            await graph.aupdate_state(states.config(session.thread_id), update, as_node=NODE)
            await owned.flush(session.thread_id)
            await standing.after_edit(ground.db, self._who, graph, session)
        except FenceLost as error:
            raise standing.busy() from error

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        """For synchronous chains, which run in threads; the loop's own would wait forever."""
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is self._loop:
            work.close()
            raise asyncio.InvalidStateError(
                "the history was used synchronously on the event loop: use its async methods there"
            )
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
