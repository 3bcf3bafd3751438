"""Agents asked through the official A2A client over a real socket, in both dialects."""

import asyncio
import itertools
import json
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from a2a.client import A2ACardResolver, Client, ClientConfig, ClientFactory
from a2a.types import a2a_pb2 as a2a
from a2a.utils import errors as a2a_errors

from clew.checkpointing.postgres import Database
from clew.runtime import keys
from tests.conftest import create, drop
from tests.serving import serve
from tests.test_mcp import without

pytestmark = pytest.mark.asyncio(loop_scope="module")

DIALECTS = ("1.0", "0.3")
OVER = (a2a.TASK_STATE_COMPLETED, a2a.TASK_STATE_FAILED, a2a.TASK_STATE_CANCELED)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(server: str, template: str, tmp_path_factory: Any) -> AsyncGenerator[str]:
    """One server for all tests that can share one."""
    name = f"clew_{uuid.uuid4().hex}"
    config = project(tmp_path_factory.mktemp("agents"))
    try:
        async with serve(create(server, name, template=template), config=config) as base:
            yield base
    finally:
        drop(server, name)


GRAPHS = """
import asyncio
from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt


def one(node):
    return StateGraph(MessagesState).add_node("node", node).add_edge(START, "node").compile()


async def _ask(state: MessagesState):
    answer = interrupt({"question": "how many?"})
    return {"messages": [AIMessage(f"{answer} it is")]}


async def _wait(state: MessagesState):
    await asyncio.sleep(60)


async def _fail(state: MessagesState):
    raise ValueError("boom")


def _count(state: MessagesState):
    return {"messages": [AIMessage(f"{len(state['messages'])} messages")]}


asks, waits, breaks, counts = one(_ask), one(_wait), one(_fail), one(_count)
"""


def project(folder: Path) -> Path:
    own = (Path(__file__).parent / "project/graphs.py").read_text()
    (folder / "graphs.py").write_text(own)
    (folder / "agents.py").write_text(GRAPHS)
    graphs = {name: f"./agents.py:{name}" for name in ("asks", "waits", "breaks", "counts")}
    more = {name: f"./graphs.py:{name}" for name in ("echo", "tokens", "steps")}
    file = folder / "langgraph.json"
    file.write_text(json.dumps({"dependencies": ["."], "graphs": {**graphs, **more}}))
    return file


@asynccontextmanager
async def agent(
    url: str, graph: str, dialect: str = "1.0", *, streaming: bool = True, key: str | None = None
) -> AsyncGenerator[Client]:
    """The official client of one agent, found by its card and held to one dialect."""
    headers = {"x-api-key": key} if key else {}
    async with httpx.AsyncClient(headers=headers, timeout=30) as http:
        card = await A2ACardResolver(http, f"{url}/a2a/{graph}").get_agent_card()
        kept = [one for one in card.supported_interfaces if one.protocol_version == dialect]
        assert kept
        del card.supported_interfaces[:]
        card.supported_interfaces.extend(kept)
        config = ClientConfig(streaming=streaming, httpx_client=http)
        yield ClientFactory(config).create(card)


def message(text: str, context: str = "", task: str = "") -> a2a.SendMessageRequest:
    return a2a.SendMessageRequest(
        message=a2a.Message(
            role=a2a.ROLE_USER,
            message_id=str(uuid.uuid4()),
            context_id=context,
            task_id=task,
            parts=[a2a.Part(text=text)],
        )
    )


async def told(client: Client, request: a2a.SendMessageRequest) -> list[a2a.StreamResponse]:
    return [item async for item in client.send_message(request)]


async def sent(client: Client, text: str, context: str = "", task: str = "") -> a2a.Task:
    """The task that a message came to, without a stream."""
    [answer] = await told(client, message(text, context, task))
    return answer.task


def words(task: a2a.Task) -> str:
    return "".join(part.text for artifact in task.artifacts for part in artifact.parts)


async def test_a_card_names_the_agent_and_where_it_is_spoken_to(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as http:
        card = await A2ACardResolver(http, f"{url}/a2a/echo").get_agent_card()
        assert (card.name, card.capabilities.streaming) == ("echo", True)
        assert {(one.url, one.protocol_version) for one in card.supported_interfaces} == {
            (f"{url}/a2a/echo", "1.0"),
            (f"{url}/a2a/echo", "0.3"),
        }
        other = await http.get("/.well-known/agent-card.json", params={"assistant_id": "echo"})
        assert other.json()["name"] == "echo"
        assert (await http.get("/.well-known/agent-card.json")).status_code == 400
        assert (await http.get("/a2a/nobody/.well-known/agent-card.json")).status_code == 422


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_message_comes_to_a_completed_task(url: str, dialect: str) -> None:
    async with agent(url, "echo", dialect, streaming=False) as client:
        task = await sent(client, "你好")
        assert task.status.state == a2a.TASK_STATE_COMPLETED
        assert words(task) == "你好"
        found = await client.get_task(a2a.GetTaskRequest(id=task.id))
        assert (found.id, found.context_id) == (task.id, task.context_id)
        assert words(found) == "你好"


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_stream_tells_the_text_as_it_grows_and_ends_with_all_of_it(
    url: str, dialect: str
) -> None:
    async with agent(url, "tokens", dialect) as client:
        items = await told(client, message("weather?"))
    assert items[0].task.status.state == a2a.TASK_STATE_SUBMITTED
    grown = [
        item.status_update.status.message.parts[0].text
        for item in items
        if item.status_update.status.state == a2a.TASK_STATE_WORKING
    ]
    assert grown[-1] == "It is sunny today in 北京"
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(grown))
    [artifact] = [item.artifact_update for item in items if item.HasField("artifact_update")]
    assert artifact.artifact.parts[0].text == "It is sunny today in 北京"
    assert items[-1].status_update.status.state == a2a.TASK_STATE_COMPLETED


async def test_a_context_goes_on_over_several_messages(url: str) -> None:
    async with agent(url, "counts", streaming=False) as client:
        first = await sent(client, "one")
        second = await sent(client, "two", first.context_id)
        assert (words(first), words(second)) == ("1 messages", "3 messages")
        assert second.context_id == first.context_id
        assert second.id != first.id
        listed = await client.list_tasks(a2a.ListTasksRequest(context_id=first.context_id))
        assert [task.id for task in listed.tasks] == [second.id, first.id]
        own = str(uuid.uuid4())
        assert (await sent(client, "mine", own)).context_id == own


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_an_agent_that_asks_requires_input_and_takes_the_answer(
    url: str, dialect: str
) -> None:
    async with agent(url, "asks", dialect, streaming=False) as client:
        asked = await sent(client, "order")
        assert asked.status.state == a2a.TASK_STATE_INPUT_REQUIRED
        assert "how many?" in asked.status.message.parts[0].text
        done = await sent(client, "seven", asked.context_id, asked.id)
        assert done.status.state == a2a.TASK_STATE_COMPLETED
        assert words(done) == "seven it is"
    async with agent(url, "asks", dialect) as client:
        items = await told(client, message("order"))
        assert items[-1].status_update.status.state == a2a.TASK_STATE_INPUT_REQUIRED


async def test_a_graph_that_raises_is_a_failed_task(url: str) -> None:
    async with agent(url, "breaks", streaming=False) as client:
        task = await sent(client, "go")
        assert task.status.state == a2a.TASK_STATE_FAILED
        assert task.status.message.parts[0].text == "ValueError: boom"


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_task_is_found_again_while_it_runs_and_can_be_cancelled(
    url: str, dialect: str
) -> None:
    async with agent(url, "waits", dialect) as client:
        stream = client.send_message(message("wait"))
        task = (await anext(aiter(stream))).task
        again = client.subscribe(a2a.SubscribeToTaskRequest(id=task.id))
        now = (await anext(aiter(again))).task
        assert now.id == task.id
        assert now.status.state not in OVER
        rest = asyncio.create_task(collect(again))
        stopped = await client.cancel_task(a2a.CancelTaskRequest(id=task.id))
        assert stopped.status.state == a2a.TASK_STATE_CANCELED
        last = (await rest)[-1].status_update
        assert last.status.state == a2a.TASK_STATE_CANCELED
        assert (await collect(stream))[-1].status_update.status.state == a2a.TASK_STATE_CANCELED
        found = await client.get_task(a2a.GetTaskRequest(id=task.id))
        assert found.status.state == a2a.TASK_STATE_CANCELED
        with pytest.raises(a2a_errors.TaskNotCancelableError):
            await client.cancel_task(a2a.CancelTaskRequest(id=task.id))
        with pytest.raises(a2a_errors.UnsupportedOperationError):
            await anext(aiter(client.subscribe(a2a.SubscribeToTaskRequest(id=task.id))))


async def test_a_task_that_need_not_be_waited_for_is_answered_at_once(url: str) -> None:
    async with agent(url, "waits", streaming=False) as client:
        request = message("wait")
        request.configuration.return_immediately = True
        [answer] = await told(client, request)
        assert answer.task.status.state == a2a.TASK_STATE_SUBMITTED
        await client.cancel_task(a2a.CancelTaskRequest(id=answer.task.id))


async def test_a_message_to_a_task_that_is_over_is_refused(url: str) -> None:
    async with agent(url, "echo", streaming=False) as client:
        task = await sent(client, "x")
        with pytest.raises(a2a_errors.UnsupportedOperationError):
            await sent(client, "more", task.context_id, task.id)
        with pytest.raises(a2a_errors.InvalidParamsError):
            await sent(client, "more", str(uuid.uuid4()), task.id)
        with pytest.raises(a2a_errors.TaskNotFoundError):
            await sent(client, "more", task.context_id, f"{task.context_id}:{uuid.uuid4()}")


async def test_errors_have_the_codes_of_the_protocol(url: str) -> None:
    async with agent(url, "echo", streaming=False) as client:
        for id_ in ("nonsense", f"{uuid.uuid4()}:{uuid.uuid4()}"):
            with pytest.raises(a2a_errors.TaskNotFoundError):
                await client.get_task(a2a.GetTaskRequest(id=id_))
        pushing = a2a.TaskPushNotificationConfig(task_id="x", url="https://example.org")
        with pytest.raises(a2a_errors.PushNotificationNotSupportedError):
            await client.create_task_push_notification_config(pushing)
        file = message("x")
        file.message.parts.append(a2a.Part(url="https://example.org/x.png"))
        with pytest.raises(a2a_errors.ContentTypeNotSupportedError):
            await told(client, file)
        with pytest.raises(a2a_errors.InvalidParamsError):
            await sent(client, "x", "not a uuid")
    async with agent(url, "steps", streaming=False) as client:
        with pytest.raises(a2a_errors.InvalidParamsError, match="takes no messages"):
            await sent(client, "x")
    async with httpx.AsyncClient(base_url=url) as http:

        async def code(body: object) -> int:
            return (await http.post("/a2a/echo", json=body)).json()["error"]["code"]

        assert (await http.post("/a2a/echo", content=b"{")).json()["error"]["code"] == -32700
        assert await code([]) == -32600
        assert await code({"jsonrpc": "2.0", "id": 1, "method": "nope"}) == -32601
        odd = {"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": [1]}
        assert await code(odd) == -32602


async def test_tasks_of_another_are_not_found(dsn: str) -> None:
    async with Database.open(dsn) as db:
        _, alice = await keys.create(db, "acme", "alice", name="a")
        _, bob = await keys.create(db, "acme", "bob", name="b")
    async with (
        serve(dsn, api_keys=True) as url,
        agent(url, "echo", streaming=False, key=alice) as hers,
        agent(url, "echo", streaming=False, key=bob) as his,
        agent(url, "echo", key=bob) as listening,
    ):
        task = await sent(hers, "mine")
        assert words(await hers.get_task(a2a.GetTaskRequest(id=task.id))) == "mine"
        for ask in (
            his.get_task(a2a.GetTaskRequest(id=task.id)),
            his.cancel_task(a2a.CancelTaskRequest(id=task.id)),
            anext(aiter(listening.subscribe(a2a.SubscribeToTaskRequest(id=task.id)))),
            sent(his, "yours?", task.context_id, task.id),
        ):
            with pytest.raises(a2a_errors.TaskNotFoundError):
                await ask
        with pytest.raises(a2a_errors.A2AError):
            await sent(his, "into her context", task.context_id)
        with pytest.raises(a2a_errors.A2AError):
            await his.list_tasks(a2a.ListTasksRequest(context_id=task.context_id))
        async with httpx.AsyncClient(base_url=url) as http:
            assert (await http.post("/a2a/echo", json={})).status_code == 401
            assert (await http.get("/a2a/echo/.well-known/agent-card.json")).status_code == 401


async def test_langgraph_json_can_turn_it_off(dsn: str, tmp_path: Path) -> None:
    async with (
        serve(dsn, config=without(tmp_path, disable_a2a=True)) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        assert (await http.post("/a2a/echo", json={})).status_code == 404
        assert (await http.get("/a2a/echo/.well-known/agent-card.json")).status_code == 404


async def collect(stream: Any) -> list[a2a.StreamResponse]:
    return [item async for item in stream]
