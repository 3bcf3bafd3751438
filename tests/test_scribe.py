"""What is said is found, and names a session, shortly after the turn in which it was said."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.runtime import outbox, scribe, search, sessions, titles
from clew.runtime.search import Wanted
from tests.serving import serve


@pytest_asyncio.fixture
async def client(dsn: str) -> AsyncIterator[LangGraphClient]:
    async with serve(dsn, titles="off") as url, get_client(url=url) as official:
        yield official


@pytest_asyncio.fixture
async def who(db: Database) -> Principal:
    return Principal.owner(await db.owner("default", "local"))


async def say(client: LangGraphClient, key: str, text: str) -> None:
    said: dict[str, Any] = {"messages": [{"role": "user", "content": text}]}
    await client.runs.wait(key, "echo", input=said)


async def read(db: Database, threads: int) -> None:
    """Until the scribe has read this many sessions; others' transactions may hold it back."""
    async with asyncio.timeout(30):
        while threads > 0:
            threads -= await scribe.catch_up(db, titles.first_words)
            await asyncio.sleep(0)


async def test_row_3_what_was_said_is_found_in_any_language(
    db: Database, client: LangGraphClient, who: Principal
) -> None:
    key = (await client.threads.create())["thread_id"]
    await say(client, key, "请把今天的会议纪要发给所有人")
    await read(db, 1)
    await say(client, key, "and the Budget too")
    await read(db, 1)

    async def found(text: str) -> list[str]:
        return [s.thread_id for s in (await search.page(db, who, Wanted(text=text))).items]

    assert await found("会议") == [key]
    assert await found("budget 纪要") == [key]
    assert await found("预算") == []
    session = await sessions.get(db, who, key)
    assert session.title == "请把今天的会议纪要发给所有人"


async def test_each_message_is_read_once(
    db: Database, client: LangGraphClient, who: Principal
) -> None:
    key = (await client.threads.create())["thread_id"]
    for text in ("one", "two"):
        await say(client, key, text)
        await read(db, 1)
    [row] = await db.fetch(SERVICE, "select seen from clew.session_term")
    assert row["seen"]
    assert await scribe.catch_up(db, None) == 0
    stamp = "select xmin::text as xmin from clew.session_term"
    before = await db.fetch(SERVICE, stamp)
    await scribe.index(db, who, key)
    assert await db.fetch(SERVICE, stamp) == before


async def test_a_fault_in_one_session_keeps_nobody_else_from_being_read(
    db: Database, client: LangGraphClient, who: Principal
) -> None:
    keys = [(await client.threads.create())["thread_id"] for _ in range(2)]

    async def write(said: str) -> str:
        if "bad" in said:
            raise LookupError(said)
        return said

    for key, text in zip(keys, ("bad words", "good words"), strict=True):
        await say(client, key, text)
    read = 0
    async with asyncio.timeout(30):
        while read < 2:
            read += await scribe.catch_up(db, write)
    assert [(await sessions.get(db, who, key)).title for key in keys] == [None, "good words"]


async def test_row_28_runs_are_told_as_well(db: Database, client: LangGraphClient) -> None:
    key = (await client.threads.create())["thread_id"]
    await say(client, key, "hi")
    kinds: list[str] = []
    async with asyncio.timeout(30):
        async for happening in outbox.follow(db, SERVICE, outbox.START, thread_id=key):
            kinds.append(happening.kind)
            if happening.kind == "run.success":
                assert happening.run_id is not None
                assert happening.data == {"graph_id": "echo"}
                break
    assert kinds == ["session.created", "run.created", "run.started", "run.success"]
