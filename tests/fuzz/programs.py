"""Random programs for a graph that does everything which moves checkpoints about.

One graph interprets a list of acts, one or more supersteps each: it talks, edits messages in
place, removes and rewrites, asks, fans out, fails once, and calls subgraphs with and without a
memory of their own.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypedDict

from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, RemoveMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Send, interrupt

Act = tuple[Any, ...]


def _extend(held: list[Any], writes: Sequence[Any]) -> list[Any]:
    return held + [item for write in writes for item in write]


def _newest(_: Any, handed: Any) -> Any:
    return handed


class State(TypedDict, total=False):
    todo: list[Act]
    act: Act
    messages: Annotated[list[AnyMessage], add_messages]
    notes: Annotated[list[str], operator.add]
    log: Annotated[list[str], DeltaChannel(_extend, snapshot_frequency=2)]
    pile: list[Any]
    doc: Annotated[dict[str, Any], _newest]  # two subgraphs may hand it back at once
    total: Annotated[int, operator.add]


class Inner(TypedDict, total=False):
    notes: Annotated[list[str], operator.add]
    messages: Annotated[list[AnyMessage], add_messages]
    seen: Annotated[list[str], operator.add]
    doc: dict[str, Any]


TEXT = st.sampled_from(
    ["hi", "会话", "a\x00b", "?", "long " * 60, "x" * 300, "déjà vu", "", "😀 done?"]
)
SMALL = st.integers(0, 3)

ACTS: st.SearchStrategy[Act] = st.one_of(
    st.tuples(st.just("say"), TEXT),
    st.tuples(st.just("reply"), TEXT, SMALL),
    st.tuples(st.just("edit"), SMALL, TEXT),
    st.tuples(st.just("mutate"), SMALL, TEXT),
    st.tuples(st.just("remove"), SMALL),
    st.tuples(st.just("note"), st.lists(TEXT, max_size=4)),
    st.tuples(st.just("pile"), st.lists(st.one_of(TEXT, SMALL, st.none()), max_size=8)),
    st.tuples(st.just("push"), TEXT),
    st.tuples(st.just("shuffle")),
    st.tuples(st.just("doc"), TEXT, st.one_of(TEXT, SMALL, st.none(), st.lists(SMALL))),
    st.tuples(st.just("count"), SMALL),
    st.tuples(st.just("log"), st.lists(TEXT, max_size=3)),
    st.tuples(st.just("ask"), st.integers(1, 2)),
    st.tuples(st.just("ask"), st.integers(1, 2)),
    st.tuples(st.just("fail"), st.integers(0, 10**9)),
    st.tuples(st.just("fan"), st.lists(st.booleans(), min_size=1, max_size=3)),
    st.tuples(st.just("sub"), st.booleans()),
    st.tuples(st.just("keep"), st.booleans()),
    st.tuples(st.just("both"), st.booleans()),
    st.tuples(st.just("both"), st.just(True)),
)

DURABILITY = st.sampled_from(["sync", "async", "exit"])

TURN = st.tuples(st.just("turn"), st.lists(ACTS, min_size=2, max_size=4), DURABILITY)
ANSWER = st.tuples(st.just("answer"), TEXT, st.booleans(), DURABILITY)
# Counted from the newest, which is where most of what can go wrong lies.
BACK = st.integers(0, 12)

STEPS: st.SearchStrategy[Act] = st.one_of(
    TURN,
    TURN,
    ANSWER,
    ANSWER,
    ANSWER,
    st.tuples(st.just("go on"), DURABILITY),
    st.tuples(st.just("update"), TEXT, st.booleans()),
    st.tuples(st.just("replay"), BACK, DURABILITY),
    st.tuples(st.just("branch"), BACK, st.lists(ACTS, min_size=1, max_size=2)),
    st.tuples(st.just("fork"), BACK),
    st.tuples(st.just("fork"), BACK),
    st.tuples(st.just("restore"), BACK),
    st.tuples(st.just("restore"), BACK),
    st.tuples(st.just("undo")),
    st.tuples(st.just("copy")),
    st.tuples(st.just("purge"), SMALL),
    st.tuples(st.just("cold")),
)

PROGRAMS: st.SearchStrategy[list[Act]] = st.builds(
    lambda first, rest: [first, *rest], TURN, st.lists(STEPS, min_size=2, max_size=9)
)


def graph(saver: BaseCheckpointSaver[Any], failed: set[int]) -> Any:
    """`failed` holds the numbers of what has failed before, and does not again."""
    builder: Any = StateGraph(State)
    builder.add_node("plan", _plan)
    builder.add_node("work", lambda state: _work(state, failed))
    builder.add_node("worker", _worker)
    builder.add_node("sub", _inner(None))
    builder.add_node("keep", _inner(True))
    builder.add_edge(START, "plan")
    builder.add_conditional_edges("plan", _route, ["work", "worker", "sub", "keep", "__end__"])
    for node in ("work", "worker", "sub", "keep"):
        builder.add_edge(node, "plan")
    return builder.compile(checkpointer=saver)


def _plan(state: State) -> Any:
    act, *todo = state.get("todo") or [("end",)]
    return {"total": 1, "act": act, "todo": todo}


def _route(state: State) -> Any:
    act: Act = state.get("act") or ("end",)
    match act[0]:
        case "end":
            return "__end__"
        case "fan":
            return [Send("worker", {"n": n, "ask": ask}) for n, ask in enumerate(act[1])]
        case "sub" | "keep":
            return act[0]
        case "both":
            return [Send("worker", {"n": 9, "ask": act[1]}), "sub", "keep"]
        case _:
            return "work"


def _work(state: State, failed: set[int]) -> Any:  # noqa: C901 - one line for each act
    act = state.get("act")
    messages = state.get("messages") or []
    at: Callable[[int], Any] = lambda n: messages[n % len(messages)]  # noqa: E731
    match act:
        case ("say", text):
            return {"messages": [HumanMessage(text)]}
        case ("reply", text, size):
            calls = [{"name": "t", "args": {"n": n}, "id": f"c{n}"} for n in range(size)]
            return {"messages": [AIMessage(text, tool_calls=calls)]}
        case ("edit", n, text) if messages:
            at(n).content = text
            return {"messages": [at(n)]}
        case ("mutate", n, text) if messages:
            at(n).additional_kwargs["mark"] = {"deep": [text]}
            return {"messages": [AIMessage("after")]}
        case ("remove", n) if messages:
            return {"messages": [RemoveMessage(id=str(at(n).id))]}
        case ("note", texts):
            return {"notes": texts}
        case ("pile", things):
            return {"pile": things}
        case ("push", text):
            pile = state.get("pile", [])
            pile.append(text)
            return {"pile": pile}
        case ("shuffle",):
            return {"pile": [*reversed(state.get("pile", [])), "turned"]}
        case ("doc", key, value):
            return {"doc": {**state.get("doc", {}), key: value}}
        case ("count", n):
            return {"total": n}
        case ("log", texts):
            return {"log": texts}
        case ("ask", times):
            return {"notes": [f"{n}: {interrupt({'n': n})}" for n in range(times)]}
        case ("fail", number) if number not in failed:
            failed.add(number)
            raise ArithmeticError(f"number {number}")
        case _:
            return {"notes": ["nothing"]}


def _worker(task: dict[str, Any]) -> Any:
    said = interrupt(task) if task["ask"] else "unasked"
    return {"notes": [f"worker {task['n']} {said}"], "log": [f"{task['n']}"]}


def _inner(checkpointer: bool | None) -> Any:
    def first(state: Inner) -> Any:
        return {"notes": ["inside"], "seen": [str(len(state.get("seen", [])))]}

    def second(state: Inner) -> Any:
        # Asks at every other call, so that some of what a session remembers was asked for.
        said = interrupt("inside?") if len(state.get("seen", [])) % 2 else "unasked"
        return {"notes": [said], "messages": [AIMessage(f"inner {said}")]}

    inner: Any = StateGraph(Inner)
    inner.add_node("first", first)
    inner.add_node("second", second)
    inner.add_edge(START, "first")
    inner.add_edge("first", "second")
    return inner.compile(checkpointer=checkpointer)
