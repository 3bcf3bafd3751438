"""docs/migrate.md: what it tells the reader to do is done here."""

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import Any

import httpx
import psycopg
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph_sdk import get_client

from tests.conftest import create, drop
from tests.project import graphs
from tests.serving import PROJECT, serve

PAGE = (Path(__file__).parents[1] / "docs" / "migrate.md").read_text()
ANN = "11111111-1111-4111-8111-111111111111"
WAITS = "22222222-2222-4222-8222-222222222222"


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


async def run(*arguments: str, **env: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *arguments,
        env={**os.environ, **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()


async def test_threads_are_copied_from_server_to_server(
    dsn: str, server: str, template: str, tmp_path: Path
) -> None:
    script = tmp_path / "copy_threads.py"
    script.write_text(block("python"))
    other = f"{tmp_path.name.replace('-', '_')}_old"
    old_dsn = create(server, other, template=template)
    try:
        async with (
            serve(old_dsn) as old_url,
            serve(dsn) as new_url,
            get_client(url=old_url) as old,
            get_client(url=new_url) as new,
        ):
            await old.threads.create(thread_id=ANN, metadata={"who": "安"})
            given: Any = {"messages": [{"role": "user", "content": "你好"}]}
            await old.runs.wait(ANN, "echo", input=given)
            await old.threads.create(thread_id=WAITS)
            assert ANN in await run(sys.executable, str(script), old_url, new_url)
            thread: Any = await new.threads.get(ANN)
            assert (thread["metadata"]["who"], thread["status"]) == ("安", "idle")
            was: Any = await old.threads.get_state(ANN)
            now: Any = await new.threads.get_state(ANN)
            for name in ("id", "type", "content"):
                said = [message[name] for message in now["values"]["messages"]]
                assert said == [message[name] for message in was["values"]["messages"]]
            assert now["next"] == []
            more: Any = await new.runs.wait(ANN, "echo", input=given)
            assert len(more["messages"]) == 4
            assert (await new.threads.get(WAITS))["thread_id"] == WAITS
    finally:
        drop(server, other)


async def test_threads_of_one_user_are_imported_and_stand_as_they_stood(
    dsn: str, empty_dsn: str
) -> None:
    async with AsyncPostgresSaver.from_conn_string(empty_dsn) as saver:
        await saver.setup()
        for thread_id, name in ((ANN, "echo"), (WAITS, "ask"), ("of-bob", "steps")):
            graph: Any = getattr(graphs, name).copy({"checkpointer": saver})
            said: Any = {"messages": [HumanMessage("hi")]} if name == "echo" else {"x": ["in"]}
            # The way a program names its graph, where it does.
            metadata = {"graph_id": name} if name == "ask" else {}
            at = {"configurable": {"thread_id": thread_id}, "metadata": metadata}
            await graph.ainvoke(said, at)
    async with await psycopg.AsyncConnection.connect(empty_dsn, autocommit=True) as conn:
        await conn.execute("create table public.thread (thread_id text, user_id text)")
        await conn.execute(
            "insert into public.thread values (%s, 'ann'), (%s, 'ann'), ('of-bob', 'bob')",
            [ANN, WAITS],
        )
        await conn.execute(block("sql").encode())
    command = ("-m", "clew.api.cli", "import", empty_dsn, "--schema", "of_ann")
    told = await run(
        sys.executable, *command, "--owner", "local", "--graph", "echo", DATABASE_URL=dsn
    )
    assert "Imported 2 sessions." in told
    async with serve(dsn, config=PROJECT) as url, httpx.AsyncClient(base_url=url) as http:
        threads = {
            item["thread_id"]: item for item in (await http.post("/threads/search", json={})).json()
        }
        assert threads.keys() == {ANN, WAITS}
        assert [m["content"] for m in threads[ANN]["values"]["messages"]] == ["hi", "hi"]
        assert threads[WAITS]["status"] == "interrupted"
        [[question]] = threads[WAITS]["interrupts"].values()
        assert question["value"] == {"question": "approve?"}
        body = {"assistant_id": "ask", "command": {"resume": "yes"}}
        done = await http.post(f"/threads/{WAITS}/runs/wait", json=body)
        assert done.json()["answer"] == "yes"
