"""Messages of a session, in pages from either end."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from clew.checkpointing.encryption import Keyring
from clew.checkpointing.keys import Vault
from clew.checkpointing.postgres import Database, Principal
from clew.checkpointing.saver import Saver
from clew.runtime import errors, ids, messages, sessions
from tests.project.graphs import echo
from tests.serving import serve
from tests.talks import Talks


@pytest_asyncio.fixture
async def client(dsn: str) -> AsyncIterator[LangGraphClient]:
    async with serve(dsn) as url, get_client(url=url) as official:
        yield official


@pytest_asyncio.fixture
async def who(db: Database) -> Principal:
    return Principal.owner(await db.owner("default", "local"))


async def talk(client: LangGraphClient, *texts: str, thread_id: str | None = None) -> str:
    """A session in which each text was said and echoed."""
    key = thread_id or (await client.threads.create())["thread_id"]
    for text in texts:
        said: dict[str, Any] = {"messages": [{"role": "user", "content": text}]}
        await client.runs.wait(key, "echo", input=said)
    return key


def contents(page: messages.Page) -> list[str]:
    return [item.message["content"] for item in page.items]


async def test_row_12_messages_are_paged_from_either_end(
    db: Database, client: LangGraphClient, who: Principal
) -> None:
    key = await talk(client, "一", "two", "三")
    expected = ["一", "一", "two", "two", "三", "三"]
    for newest_first in (False, True):
        seen: list[str] = []
        cursor = None
        while True:
            page = await messages.page(
                db, who, key, newest_first=newest_first, limit=4, cursor=cursor
            )
            assert page.total == 6
            seen += contents(page)
            cursor = page.cursor
            if cursor is None:
                break
        assert seen == (expected[::-1] if newest_first else expected)
    first = (await messages.page(db, who, key, limit=1)).items[0]
    assert (first.index, first.removed) == (0, False)
    assert (first.message["type"], first.message["content"]) == ("human", "一")
    assert first.message["id"]


async def test_a_cursor_stays_where_it_is_while_the_session_goes_on(
    db: Database, client: LangGraphClient, who: Principal
) -> None:
    key = await talk(client, "one", "two")
    page = await messages.page(db, who, key, newest_first=True, limit=2)
    await talk(client, "three", thread_id=key)
    rest = await messages.page(db, who, key, newest_first=True, limit=9, cursor=page.cursor)
    assert contents(rest) == ["one", "one"]
    for wrong in (
        messages.page(db, who, key, limit=2, cursor=page.cursor),
        messages.page(db, who, key, newest_first=True, scope="all", cursor=page.cursor),
    ):
        with pytest.raises(errors.Invalid):
            await wrong


async def test_what_was_removed_is_still_told_when_all_is_asked_for(
    db: Database, client: LangGraphClient, who: Principal
) -> None:
    key = await talk(client, "keep", "drop me")
    said: Any = (await client.threads.get_state(key))["values"]
    doomed = said["messages"][2]["id"]
    await client.threads.update_state(
        key, {"messages": [{"type": "remove", "id": doomed, "content": ""}]}
    )
    edited = {**said["messages"][0], "content": "kept, edited"}
    await client.threads.update_state(key, {"messages": [edited]})
    await talk(client, "after", thread_id=key)
    head = await messages.page(db, who, key)
    assert contents(head) == ["kept, edited", "keep", "drop me", "after", "after"]
    whole = await messages.page(db, who, key, scope="all")
    told = [(item.message["content"], item.removed) for item in whole.items]
    assert told.count(("drop me", True)) == 1
    assert ("keep", True) in told  # as it was before the edit
    assert [text for text, removed in told if not removed] == contents(head)
    assert whole.total == 7


async def test_messages_as_they_were_at_a_checkpoint(
    db: Database, client: LangGraphClient, who: Principal
) -> None:
    key = await talk(client, "one")
    then = (await client.threads.get_state(key))["checkpoint"]["checkpoint_id"]
    await talk(client, "two", thread_id=key)
    page = await messages.page(db, who, key, checkpoint_id=then)
    assert contents(page) == ["one", "one"]


async def test_a_session_without_messages_has_none(
    db: Database, client: LangGraphClient, who: Principal
) -> None:
    made = await sessions.create(db, who, who.owner_from)
    assert await messages.page(db, who, made.thread_id) == messages.Page([], None, 0)
    thread = await client.threads.create()
    await client.runs.wait(thread["thread_id"], "steps", input={"x": ["in"]})
    assert await messages.page(db, who, thread["thread_id"]) == messages.Page([], None, 0)
    bob = Principal.owner(await db.owner("default", "bob"))
    key = await talk(client, "secret")
    assert await messages.page(db, bob, key) == messages.Page([], None, 0)


async def test_row_29_encrypted_messages_are_read_by_who_holds_the_key(db: Database) -> None:
    talks = await Talks.open(db)
    vault = Vault(Keyring([("k1", b"k" * 32)]))
    talks.saver = Saver(db, principal=talks.who, owner_id=talks.owner_id, vault=vault)
    key = ids.mint()
    graph = echo.builder.compile(checkpointer=talks.saver)
    await talks.say(graph, key, {"messages": [("user", "秘密")]})
    page = await messages.page(db, talks.who, key, vault=vault)
    assert contents(page) == ["秘密", "秘密"]
