"""A whole engine for tests: database, feed, worker, and small graphs that each do one thing."""

import asyncio
import operator
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Annotated, Any, NotRequired, TypedDict

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.config import get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from langgraph.runtime import Runtime
from langgraph.types import interrupt

from clew.checkpointing.postgres import Database, Principal
from clew.checkpointing.saver import Saver
from clew.checkpointing.sealed import Seals
from clew.runtime import runs, sessions
from clew.runtime.events import START as BEGINNING
from clew.runtime.events import Cursor, Event
from clew.runtime.feed import Follower
from clew.runtime.graphs import Graphs, Registered
from clew.runtime.notifier import Notifier
from clew.runtime.requests import RunRequest
from clew.runtime.runs import Run
from clew.runtime.sessions import Session
from clew.runtime.settings import Settings
from clew.runtime.worker import Worker

Json = dict[str, Any]


class Gate:
    """Where a node waits, so that a test can do something in the middle of a run."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()


GATES: defaultdict[str, Gate] = defaultdict(Gate)


class Trail(TypedDict, total=False):
    """What nodes leave behind, in order; each adds its name, so that nothing can happen unseen."""

    trail: Annotated[list[str], operator.add]
    gate: str
    answers: Annotated[list[Any], operator.add]


class Talk(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    gate: NotRequired[str]


def step(name: str) -> Any:
    def node(state: Trail) -> Trail:
        return {"trail": [name]}

    return node


async def _wait(state: Trail) -> Trail:
    gate = GATES[state.get("gate", "")]
    gate.entered.set()
    await gate.opened.wait()
    return {"trail": ["waited"]}


async def _stubborn(state: Trail) -> Trail:
    gate = GATES[state.get("gate", "")]
    gate.entered.set()
    while not gate.opened.is_set():
        try:
            await gate.opened.wait()
        except asyncio.CancelledError:
            continue
    return {"trail": ["stubborn"]}


def _ask(state: Trail) -> Trail:
    return {"answers": [interrupt({"question": "approve?"})], "trail": ["asked"]}


def _ask_twice(state: Trail) -> Trail:
    first = interrupt("first?")
    second = interrupt("second?")
    return {"answers": [first, second]}


def asks(name: str) -> Any:
    def node(state: Trail) -> Trail:
        return {"answers": [f"{name}={interrupt(name)}"]}

    return node


def _boom(state: Trail) -> Trail:
    raise ValueError("boom")


def _whose(state: Trail, config: RunnableConfig, runtime: Runtime[Any]) -> Trail:
    user = config.get("configurable", {})["langgraph_auth_user"]
    assert runtime.server_info is not None
    assert runtime.server_info.user is not None
    seen = runtime.server_info.user.identity
    return {"trail": [user["identity"], user.identity, seen, user.org, *user.permissions]}


class Strange:
    """Nothing can store this."""

    def __reduce__(self) -> Any:
        raise TypeError("not to be stored")


async def _speak(state: Talk) -> Json:
    get_stream_writer()({"thinking": True})
    model = GenericFakeChatModel(messages=iter([AIMessage("one two three")]))
    return {"messages": [await model.ainvoke(state["messages"])]}


def _call(state: Talk) -> Json:
    if isinstance(state["messages"][-1], ToolMessage):
        return {"messages": [AIMessage("done")]}
    calls: Any = [{"name": "look", "args": {"at": "it"}, "id": "call_1", "type": "tool_call"}]
    return {"messages": [AIMessage("", tool_calls=calls)]}


async def _look(state: Talk) -> Json:
    gate = GATES[state.get("gate", "")]
    gate.entered.set()
    await gate.opened.wait()
    return {"messages": [ToolMessage("seen", tool_call_id="call_1", name="look")]}


def _strict(state: Talk) -> Json:
    """A model as strict as the real ones about unanswered tool calls."""
    open_calls: set[str | None] = set()
    for message in state["messages"]:
        if isinstance(message, AIMessage):
            open_calls |= {call["id"] for call in message.tool_calls}
        elif isinstance(message, ToolMessage):
            open_calls.discard(message.tool_call_id)
        elif open_calls:
            raise ValueError("tool calls must be followed by their answers")
    return _call(state)


def chain(schema: Any, **nodes: Any) -> StateGraph[Any]:
    graph = StateGraph(schema)
    last = START
    for name, node in nodes.items():
        graph.add_node(name, node)
        graph.add_edge(last, name)
        last = name
    return graph


def both(schema: Any, **nodes: Any) -> StateGraph[Any]:
    graph = StateGraph(schema)
    for name, node in nodes.items():
        graph.add_node(name, node)
        graph.add_edge(START, name)
    return graph


def _tooling() -> StateGraph[Any]:
    graph = StateGraph(Talk)
    graph.add_node("model", _strict)
    graph.add_node("tools", _look)
    graph.add_edge(START, "model")
    graph.add_conditional_edges(
        "model",
        lambda state: "tools" if state["messages"][-1].tool_calls else "__end__",
        ["tools", "__end__"],
    )
    graph.add_edge("tools", "model")
    return graph


NODES = ("a", "b", "c", "d", "e")


def deadly(before: Callable[[str], None]) -> StateGraph[Any]:
    """Five nodes; `before` is called in each of them, before it has done anything."""

    def node(name: str) -> Any:
        async def run(state: Trail) -> Trail:
            if name == "a" and state.get("gate") == "ask":
                interrupt("go on?")
            before(name)
            return {"trail": [name]}

        return run

    return chain(Trail, **{name: node(name) for name in NODES})


def paced(name: str) -> Any:
    async def node(state: Trail) -> Trail:
        await asyncio.sleep(0.05)
        return {"trail": [name]}

    return node


BUILDERS: dict[str, Any] = {
    "paced": chain(Trail, **{name: paced(name) for name in NODES}),
    "deadly": deadly(lambda _: None),
    "five": chain(Trail, **{name: step(name) for name in ("a", "b", "c", "d", "e")}),
    "waits": chain(Trail, one=step("one"), wait=_wait, two=step("two")),
    "stubborn": chain(Trail, one=step("one"), wait=_stubborn),
    "asks": chain(Trail, one=step("one"), ask=_ask, two=step("two")),
    "asks_twice": chain(Trail, ask=_ask_twice),
    "asks_both": both(Trail, left=asks("left"), right=asks("right")),
    "nested": chain(
        Trail, one=step("one"), child=chain(Trail, inner=step("inner"), ask=_ask).compile()
    ),
    "whose": chain(Trail, whose=_whose),
    "fails": chain(Trail, one=step("one"), boom=_boom),
    "strange": chain(Trail, one=lambda state: {"answers": [Strange()]}, two=step("two")),
    "speaks": chain(Talk, speak=_speak),
    "tooling": _tooling(),
    "echo": chain(
        MessagesState, say=lambda state: {"messages": [AIMessage(state["messages"][-1].text)]}
    ),
}


def registered() -> Graphs:
    module = ModuleType("turns")
    return Graphs(
        {
            name: Registered(name, None, builder.compile(), module)
            for name, builder in BUILDERS.items()
        }
    )


@dataclass
class Engine:
    """One process's engine, and one owner with a session."""

    db: Database
    saver: Saver
    graphs: Graphs
    notifier: Notifier
    feed: Follower
    worker: Worker
    owner_id: int
    who: Principal
    thread_id: str

    async def ask(
        self, graph_id: str, given: Any = None, *, thread_id: str | None = None, **more: Any
    ) -> Run:
        request = RunRequest(graph_id=graph_id, input=given, **more)
        place = thread_id or self.thread_id
        return await self.worker.submit(self.who, self.owner_id, place, request)

    def follow(self, run: Run, after: Cursor = BEGINNING) -> AsyncIterator[Event]:
        return self.feed.follow(self.who, run.thread_id, run.run_id, after=after)

    async def events(self, run: Run) -> list[Event]:
        return [event async for event in self.follow(run)]

    async def result(self, run: Run) -> Run:
        """The run once it is over."""
        async for _ in self.follow(run):
            pass
        return await runs.get(self.db, self.who, run.thread_id, run.run_id)

    async def turn(self, graph_id: str, given: Any = None, **more: Any) -> Run:
        return await self.result(await self.ask(graph_id, given, **more))

    async def session(self, thread_id: str | None = None) -> Session:
        return await sessions.get(self.db, self.who, thread_id or self.thread_id)

    async def state(self, graph_id: str, thread_id: str | None = None) -> Any:
        saver = self.saver.bind(principal=self.who)
        async with self.graphs.open(graph_id, checkpointer=saver, store=None) as graph:
            at: Any = {"configurable": {"thread_id": thread_id or self.thread_id}}
            return await graph.aget_state(at)

    async def another(self) -> str:
        return (await sessions.create(self.db, self.who, self.owner_id)).thread_id


@asynccontextmanager
async def engine(
    dsn: str, *, thread_id: str | None = None, seals: Seals | None = None, **settings: Any
) -> AsyncGenerator[Engine]:
    chosen = Settings.model_validate({"heartbeat": 0.3, "lease": 2, **settings})
    async with Database.open(dsn, seals=seals) as db:
        saver = Saver(db)
        graphs = registered()
        owner_id = await db.owner("acme", "ann")
        who = Principal.owner(owner_id)
        if thread_id is None:
            thread_id = (await sessions.create(db, who, owner_id)).thread_id
        async with (
            Notifier(db, dsn) as notifier,
            Follower(db, notifier, saver) as feed,
            Worker(db, graphs, saver, notifier, feed, chosen) as worker,
        ):
            yield Engine(db, saver, graphs, notifier, feed, worker, owner_id, who, thread_id)
