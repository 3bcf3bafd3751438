"""Titles from what was said first."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from clew.checkpointing.postgres import Database, Principal
from clew.runtime import errors, sessions, titles
from tests.serving import serve


@pytest_asyncio.fixture
async def client(dsn: str) -> AsyncIterator[LangGraphClient]:
    async with serve(dsn, titles="off") as url, get_client(url=url) as official:
        yield official


@pytest_asyncio.fixture
async def who(db: Database) -> Principal:
    return Principal.owner(await db.owner("default", "local"))


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Hello", "Hello"),
        ("  spaced \n\n out  ", "spaced out"),
        ("How do I sort a list? I tried many things and none of them worked for me so far",
         "How do I sort a list"),
        ("word " * 40, "word word word word word word word word word word word…"),
        ("帮我写一份季度总结。要包含销售数据", "帮我写一份季度总结"),
        ("长" * 100, "长" * 29 + "…"),
        ("## **Title** with `marks`", "Title with marks"),
        ("version 3.11 of python", "version 3.11 of python"),
        ("x" * 200, "x" * 59 + "…"),
    ],
)  # fmt: skip
async def test_row_16_without_a_model_the_first_words_are_the_title(text: str, title: str) -> None:
    assert await titles.first_words(text) == title


async def test_row_16_a_title_comes_from_the_first_user_message(
    db: Database, client: LangGraphClient, who: Principal
) -> None:
    key = (await client.threads.create())["thread_id"]
    with pytest.raises(errors.Conflict):
        await titles.give(db, who, key, titles.first_words)
    said: dict[str, Any] = {
        "messages": [
            {"role": "system", "content": "be nice"},
            {"role": "user", "content": [{"type": "text", "text": "会议纪要怎么写"}]},
        ]
    }
    await client.runs.wait(key, "echo", input=said)
    assert (await titles.give(db, who, key, titles.first_words)).title == "会议纪要怎么写"
    await sessions.patch(db, who, key, {"title": "mine"})
    await titles.fill(db, who, key, titles.first_words)
    assert (await sessions.get(db, who, key)).title == "mine"
    bob = Principal.owner(await db.owner("default", "bob"))
    with pytest.raises(errors.NotFound):
        await titles.give(db, bob, key, titles.first_words)


async def test_row_16_a_model_writes_the_title_and_its_failure_does_not_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replies = ["200 OK", "200 OK", "500 Broken", "500 Broken"]
    asked: list[dict[str, Any]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        asked.append(json.loads(await reader.readexactly(length)))
        message = {"role": "assistant", "content": ' "Sorting\n a list" '}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        kind = "chat.completion"
        reply = {"id": "1", "object": kind, "created": 1, "model": "m", "choices": [choice]}
        body = json.dumps(reply)
        writer.write(
            f"HTTP/1.1 {replies.pop(0)}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n{body}".encode()
        )
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{port}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "unused")
    async with server:
        write = titles.by_model("m")
        assert await write("How do I sort a list?") == "Sorting a list"
        assert asked[0]["model"] == "m"
        assert asked[0]["messages"][-1]["content"] == "How do I sort a list?"
        replies.pop(0)
        assert await write("How do I sort a list?") == "How do I sort a list?"
