"""Row 18: a session as LangChain's memory, under the same id, in both directions."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory
from langgraph_sdk import get_client

from clew.checkpointing.postgres import Database
from clew.checkpointing.saver import Saver
from clew.runtime import config, errors, graphs, ids, messages, sessions
from clew.runtime.chat_history import ChatHistory
from clew.runtime.standing import Ground
from tests.serving import PROJECT, serve


@pytest_asyncio.fixture
async def ground(db: Database) -> AsyncIterator[Ground]:
    yield Ground(db, await graphs.load(config.load(PROJECT)), Saver(db))


async def owner(ground: Ground, name: str = "local") -> int:
    return await ground.db.owner("default", name)


def chain(ground: Ground, owner_id: int) -> Any:
    """Answers with how many messages it was given."""

    def count(given: list[BaseMessage]) -> AIMessage:
        return AIMessage(f"I know {len(given)}")

    return RunnableWithMessageHistory(
        RunnableLambda(count), lambda session_id: ChatHistory(ground, owner_id, session_id)
    )


@pytest.mark.filterwarnings("ignore:RunnableWithMessageHistory is deprecated")
async def test_row_18_a_chain_remembers_in_a_session(ground: Ground) -> None:
    owner_id, key = await owner(ground), ids.mint()
    talk = chain(ground, owner_id)
    at = {"configurable": {"session_id": key}}
    replies = [await talk.ainvoke([HumanMessage(text)], at) for text in ("一", "two")]
    assert [reply.content for reply in replies] == ["I know 1", "I know 3"]
    history = ChatHistory(ground, owner_id, key)
    said = [message.content for message in await history.aget_messages()]
    assert said == ["一", "I know 1", "two", "I know 3"]
    who = ground.saver.bind(owner_id=owner_id).principal
    page = await messages.page(ground.db, who, key)
    assert [item.message["content"] for item in page.items] == said
    session = await sessions.get(ground.db, who, key)
    assert (session.owner_id, session.status, session.message_count) == (owner_id, "idle", 4)


async def test_row_18_what_a_graph_said_is_remembered_and_not_saved_twice(
    ground: Ground, dsn: str
) -> None:
    async with serve(dsn, titles="off") as url, get_client(url=url) as client:
        key = (await client.threads.create())["thread_id"]
        said: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
        await client.runs.wait(key, "echo", input=said)
        history = ChatHistory(ground, await owner(ground), key)
        known = await history.aget_messages()
        assert [message.content for message in known] == ["hi", "hi"]
        await history.aadd_messages(known)  # the same again, by their ids
        await history.aadd_messages([HumanMessage("from the chain")])
        values: Any = (await client.threads.get_state(key))["values"]
        contents = [message["content"] for message in values["messages"]]
        assert contents == ["hi", "hi", "from the chain"]


async def test_a_synchronous_chain_works_from_a_thread_and_not_on_the_loop(ground: Ground) -> None:
    history = ChatHistory(ground, await owner(ground), ids.mint())
    await asyncio.to_thread(history.add_messages, [HumanMessage("hi")])
    found = await asyncio.to_thread(lambda: history.messages)
    assert [message.content for message in found] == ["hi"]
    with pytest.raises(asyncio.InvalidStateError):
        history.clear()
    await asyncio.to_thread(history.clear)
    assert await history.aget_messages() == []
    await history.aclear()


async def test_row_6_a_foreign_session_is_no_history(ground: Ground) -> None:
    alice, bob, key = await owner(ground, "alice"), await owner(ground, "bob"), ids.mint()
    await ChatHistory(ground, alice, key).aadd_messages([HumanMessage("secret")])
    theirs = ChatHistory(ground, bob, key)
    assert await theirs.aget_messages() == []
    with pytest.raises(errors.Conflict):
        await theirs.aadd_messages([HumanMessage("mine")])
