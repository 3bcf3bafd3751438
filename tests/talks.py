"""Real graphs on a real saver: what the tests of history and retention talk to."""

from __future__ import annotations

import asyncio
import operator
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict, cast

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, Send, interrupt

from clew.checkpointing.postgres import Connection, Database, Principal
from clew.checkpointing.saver import Saver

Graph = Any
Json = dict[str, Any]


@dataclass
class Talks:
    """One owner's sessions."""

    db: Database
    saver: Saver
    who: Principal
    owner_id: int

    @classmethod
    async def open(cls, db: Database, name: str = "alice") -> Talks:
        owner_id = await db.owner("acme", name)
        who = Principal.owner(owner_id)
        return cls(db, Saver(db, principal=who, owner_id=owner_id), who, owner_id)

    @asynccontextmanager
    async def work(self) -> AsyncGenerator[Connection]:
        async with self.db.transaction(self.who) as conn:
            yield conn

    async def say(
        self, graph: Graph, thread_id: str, given: Any, *, run_id: str | None = None, **at: Any
    ) -> Any:
        """One turn, as a server runs it: with a run id, in `async` durability."""
        config = at_thread(thread_id, **at)
        config["metadata"] = {"run_id": run_id or str(uuid.uuid4())}
        answer = await graph.ainvoke(given, config, durability="async")
        await self.saver.flush(thread_id)
        return answer

    async def rows(self, query: str, *params: Any) -> list[Json]:
        async with self.work() as conn:
            cursor = await conn.execute(cast("Any", query), params or None)
            return await cursor.fetchall() if cursor.description else []


def at_thread(thread_id: str, **at: Any) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, **at}}


def human(text: str, id: str | None = None) -> Json:  # noqa: A002 - LangChain's word
    return {"messages": [HumanMessage(text, id=id or str(uuid.uuid4()))]}


def chat(saver: Saver) -> Graph:
    """A model that answers once."""

    def model(state: MessagesState) -> Json:
        last = state["messages"][-1]
        return {"messages": [AIMessage(f"re: {last.content}", id=str(uuid.uuid4()))]}

    builder = StateGraph(MessagesState)
    builder.add_node("model", model)
    builder.add_edge(START, "model")
    builder.add_edge("model", END)
    return builder.compile(checkpointer=saver)


def agent(saver: Saver) -> Graph:
    """A model that calls a tool before it answers."""

    def model(state: MessagesState) -> Json:
        last = state["messages"][-1]
        if isinstance(last, ToolMessage):
            return {"messages": [AIMessage(f"it is {last.content}", id=str(uuid.uuid4()))]}
        call = {"name": "look", "args": {"for": str(last.content)}, "id": str(uuid.uuid4())}
        return {"messages": [AIMessage("", id=str(uuid.uuid4()), tool_calls=[cast("Any", call)])]}

    def look(state: MessagesState) -> Json:
        call = cast("AIMessage", state["messages"][-1]).tool_calls[0]
        text = f"found {call['args']['for']}"
        return {"messages": [ToolMessage(text, tool_call_id=call["id"], id=str(uuid.uuid4()))]}

    def route(state: MessagesState) -> str:
        return "look" if cast("AIMessage", state["messages"][-1]).tool_calls else END

    builder = StateGraph(MessagesState)
    builder.add_node("model", model)
    builder.add_node("look", look)
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", route, ["look", END])
    builder.add_edge("look", "model")
    return builder.compile(checkpointer=saver)


class Form(TypedDict, total=False):
    topic: str
    facts: dict[str, Any]
    answers: Annotated[list[str], operator.add]


def approval(saver: Saver) -> Graph:
    """Asks, and goes on with the answer."""

    def prepare(state: Form) -> Json:
        return {"facts": {"topic": state.get("topic"), "asked": len(state.get("answers", []))}}

    def ask(state: Form) -> Json:
        return {"answers": [interrupt({"about": state.get("topic")})]}

    builder = StateGraph(Form)
    builder.add_node("prepare", prepare)
    builder.add_node("ask", ask)
    builder.add_edge(START, "prepare")
    builder.add_edge("prepare", "ask")
    builder.add_edge("ask", END)
    return builder.compile(checkpointer=saver)


def brittle(saver: Saver) -> Graph:
    """Two nodes side by side, of which one breaks when it is told to."""

    def steady(state: Form) -> Json:
        return {"answers": ["steady"]}

    def broken(state: Form) -> Json:
        if state.get("topic") == "break":
            raise ValueError("broken")
        return {"answers": ["mended"]}

    builder = StateGraph(Form)
    builder.add_node("steady", steady)
    builder.add_node("broken", broken)
    builder.add_edge(START, "steady")
    builder.add_edge(START, "broken")
    return builder.compile(checkpointer=saver)


def stoppable(saver: Saver) -> tuple[Graph, asyncio.Event]:
    """As `brittle`, but what breaks there waits here, until the event or for ever."""
    free = asyncio.Event()

    async def steady(state: Form) -> Json:
        return {"answers": ["steady"]}

    async def waiting(state: Form) -> Json:
        await free.wait()
        return {"answers": ["waited"]}

    builder = StateGraph(Form)
    builder.add_node("steady", steady)
    builder.add_node("waiting", waiting)
    builder.add_edge(START, "steady")
    builder.add_edge(START, "waiting")
    return builder.compile(checkpointer=saver), free


def fan(saver: Saver) -> Graph:
    """Sends, and a join that waits for two."""

    def spread(state: Form) -> Sequence[Send]:
        return [Send("work", {"topic": str(i)}) for i in range(3)]

    def work(state: Form) -> Json:
        return {"answers": [str(state.get("topic"))]}

    def plan(state: Form) -> Json:
        return {}

    builder = StateGraph(Form)
    for name in ("plan", "work", "left", "right", "longer", "end"):
        builder.add_node(name, work if name == "work" else plan)
    builder.add_edge(START, "plan")
    builder.add_conditional_edges("plan", spread, ["work"])
    builder.add_edge("plan", "left")
    builder.add_edge("plan", "right")
    builder.add_edge("right", "longer")
    builder.add_edge(["left", "longer"], "end")
    return builder.compile(checkpointer=saver)


def nested(saver: Saver, *, stateful: bool = False, asks: bool = True) -> Graph:
    """A graph in a graph in a graph, the innermost asking; or one that remembers its calls."""

    def count(state: Form) -> Json:
        return {"answers": [f"call {len(state.get('answers', []))}"]}

    def ask(state: Form) -> Json:
        return {"answers": [interrupt({"inner": state.get("topic")})]}

    def note(state: Form) -> Json:
        return {"facts": {"noted": state.get("topic")}}

    inner = StateGraph(Form)
    inner.add_node("count", count)
    inner.add_edge(START, "count")
    if stateful or not asks:
        inner.add_edge("count", END)
    else:
        inner.add_node("ask", ask)
        inner.add_edge("count", "ask")
        inner.add_edge("ask", END)
    middle = StateGraph(Form)
    middle.add_node("note", note)
    middle.add_node("inner", inner.compile(checkpointer=True if stateful else None))
    middle.add_edge(START, "note")
    middle.add_edge("note", "inner")
    middle.add_edge("inner", END)
    outer = StateGraph(Form)
    outer.add_node("middle", middle.compile(checkpointer=True if stateful else None))
    outer.add_edge(START, "middle")
    outer.add_edge("middle", END)
    return outer.compile(checkpointer=saver)


def add(value: list[AnyMessage], writes: Sequence[Any]) -> list[AnyMessage]:
    merged = list(value or [])
    for write in writes:
        merged += write if isinstance(write, list) else [write]
    return merged


def delta(saver: Saver, *, every: int = 5, key: str = "messages") -> Graph:
    """A chat whose messages are a DeltaChannel."""

    channel = DeltaChannel(add, snapshot_frequency=every)
    # Made by a call: an annotation in a string cannot see what is local here.
    fields: Any = {key: Annotated[list[AnyMessage], channel], "turns": Annotated[int, operator.add]}
    Log: Any = cast("Any", TypedDict)("Log", fields)  # noqa: N806

    def model(state: Any) -> Json:
        text = f"re: {state[key][-1].content}"
        return {key: [AIMessage(text, id=str(uuid.uuid4()))], "turns": 1}

    builder = StateGraph(Log)
    builder.add_node("model", model)
    builder.add_edge(START, "model")
    builder.add_edge("model", END)
    return builder.compile(checkpointer=saver)


def answer(value: Any) -> Command[Any]:
    return Command(resume=value)


async def states(graph: Graph, thread_id: str) -> dict[str, Any]:
    """Every state that LangGraph's own history shows, by checkpoint id."""
    found: dict[str, Any] = {}
    async for state in graph.aget_state_history(at_thread(thread_id)):
        found[state.config["configurable"]["checkpoint_id"]] = state
    return found


def shown(state: Any) -> Json:
    """What must not change about a state that is kept."""
    return {
        "values": state.values,
        "next": state.next,
        "metadata": state.metadata,
        "created_at": state.created_at,
        "interrupts": [(i.id, i.value) for i in state.interrupts],
        "tasks": [(task.id, task.name) for task in state.tasks],
    }
