"""What docs/agents.md says of changing a graph under live sessions, each line tried."""

import json
import operator
from pathlib import Path
from typing import Annotated, Any, Protocol

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt
from langgraph_sdk import get_client
from typing_extensions import TypedDict

from tests.agents.graph_loading import TURN, Graph, interrupts
from tests.serving import serve


class Node(Protocol):
    def __call__(self, state: Any) -> dict[str, Any]: ...


class Before(TypedDict, total=False):
    text: str
    log: Annotated[list[str], operator.add]


def chain(state: type, saver: InMemorySaver, **nodes: Node) -> Graph:
    builder = StateGraph(state)
    last = START
    for name, node in nodes.items():
        builder.add_node(name, node)
        builder.add_edge(last, name)
        last = name
    return builder.compile(checkpointer=saver)


def write(state: Any) -> dict[str, Any]:
    return {"text": "old", "log": ["wrote"]}


def approve(state: Any) -> dict[str, Any]:
    return {"log": [f"approve: {interrupt('approve?')}"]}


def done(state: Any) -> dict[str, Any]:
    return {"log": ["done"]}


@pytest.fixture
def saver() -> InMemorySaver:
    """One session that has finished a turn."""
    saver = InMemorySaver()
    chain(Before, saver, write=write).invoke({"text": "hi"}, TURN)
    return saver


@pytest.fixture
def waiting() -> InMemorySaver:
    """One session that waits in `approve` for a human."""
    saver = InMemorySaver()
    chain(Before, saver, write=write, approve=approve, done=done).invoke({"text": "hi"}, TURN)
    return saver


def test_a_new_key_is_absent_in_old_sessions(saver: InMemorySaver) -> None:
    class After(Before, total=False):
        mood: str

    seen: list[Any] = []

    def look(state: Any) -> dict[str, Any]:
        seen.append(state.get("mood"))
        return {"mood": "good"}

    result = chain(After, saver, look=look).invoke({"text": "again"}, TURN)
    assert seen == [None]
    assert result["log"] == ["wrote"]


def test_a_key_that_is_gone_is_hidden_and_comes_back_with_the_old_code(
    saver: InMemorySaver,
) -> None:
    class After(TypedDict, total=False):
        text: str

    assert "log" not in chain(After, saver, write=lambda state: {}).get_state(TURN).values
    assert chain(Before, saver, write=write).get_state(TURN).values["log"] == ["wrote"]


def test_a_renamed_key_is_a_new_one(saver: InMemorySaver) -> None:
    class After(TypedDict, total=False):
        words: str

    assert chain(After, saver, write=lambda state: {}).get_state(TURN).values == {}


def test_a_value_of_the_old_type_is_what_new_code_is_given(saver: InMemorySaver) -> None:
    class After(TypedDict, total=False):
        log: Annotated[dict[str, int], operator.or_]

    # The list that the old code wrote meets the reducer of the new.
    with pytest.raises(TypeError, match="unsupported operand"):
        chain(After, saver, write=lambda state: {"log": {"a": 1}}).invoke({}, TURN)


def test_a_new_node_after_where_a_session_waits_is_run(waiting: InMemorySaver) -> None:
    new: Node = lambda state: {"log": ["new"]}  # noqa: E731 - one line of one test
    graph = chain(Before, waiting, write=write, approve=approve, new=new, done=done)
    assert graph.invoke(Command(resume="yes"), TURN)["log"] == [
        "wrote",
        "approve: yes",
        "new",
        "done",
    ]


def test_a_new_node_before_where_a_session_waits_is_not_missed(waiting: InMemorySaver) -> None:
    new: Node = lambda state: {"log": ["new"]}  # noqa: E731 - one line of one test
    graph = chain(Before, waiting, write=write, new=new, approve=approve, done=done)
    assert graph.invoke(Command(resume="yes"), TURN)["log"] == ["wrote", "approve: yes", "done"]


def test_new_code_in_a_node_is_used_where_a_session_waits_in_it(waiting: InMemorySaver) -> None:
    def kinder(state: Any) -> dict[str, Any]:
        return {"log": [f"kindly: {interrupt('would you approve?')}"]}

    graph = chain(Before, waiting, write=write, approve=kinder, done=done)
    # The question that clients see is the one that was asked, until it is asked again.
    assert [i.value for i in graph.get_state(TURN).interrupts] == ["approve?"]
    assert graph.invoke(Command(resume="yes"), TURN)["log"][1] == "kindly: yes"


def test_a_session_that_waits_in_a_node_that_is_gone_forgets_the_question(
    waiting: InMemorySaver,
) -> None:
    graph = chain(Before, waiting, write=write, confirm=approve, done=done)
    assert graph.get_state(TURN).next == ()
    result = graph.invoke(Command(resume="yes"), TURN)
    # The answer is taken without an error and nothing is done.
    assert result["log"] == ["wrote"]
    # The session itself goes on with its next turn.
    assert interrupts(graph.invoke({"text": "again"}, TURN))


def test_the_old_node_kept_aside_lets_waiting_sessions_finish(waiting: InMemorySaver) -> None:
    builder = StateGraph(Before)
    builder.add_node("write", write)
    builder.add_node("confirm", approve)
    builder.add_node("approve", approve)  # no edge leads here any more
    builder.add_node("done", done)
    builder.add_edge(START, "write")
    builder.add_edge("write", "confirm")
    builder.add_edge("confirm", "done")
    builder.add_edge("approve", "done")
    graph = builder.compile(checkpointer=waiting)
    assert graph.invoke(Command(resume="yes"), TURN)["log"] == ["wrote", "approve: yes", "done"]


def test_a_question_put_before_another_takes_its_answer(waiting: InMemorySaver) -> None:
    def two(state: Any) -> dict[str, Any]:
        why = interrupt("why?")
        return {"log": [f"why: {why}", f"approve: {interrupt('approve?')}"]}

    graph = chain(Before, waiting, write=write, approve=two, done=done)
    (asked,) = interrupts(graph.invoke(Command(resume="yes"), TURN))
    # "yes" went to the new question, and the old one is asked again.
    assert asked.value == "approve?"
    assert graph.invoke(Command(resume="sure"), TURN)["log"][1:3] == ["why: yes", "approve: sure"]


def test_a_question_put_after_another_is_asked_next(waiting: InMemorySaver) -> None:
    def two(state: Any) -> dict[str, Any]:
        answer = interrupt("approve?")
        return {"log": [f"approve: {answer}", f"why: {interrupt('why?')}"]}

    graph = chain(Before, waiting, write=write, approve=two, done=done)
    (asked,) = interrupts(graph.invoke(Command(resume="yes"), TURN))
    assert asked.value == "why?"
    assert graph.invoke(Command(resume="so"), TURN)["log"][1:3] == ["approve: yes", "why: so"]


OLD = """
import dataclasses
from langgraph.graph import START, StateGraph
from langgraph.types import CachePolicy, interrupt
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from typing_extensions import TypedDict


@dataclass(config=ConfigDict(extra="forbid"))
class Context:
    mood: str = "good"
    gone: str = ""


@dataclasses.dataclass
class Order:
    number: int


class State(TypedDict, total=False):
    text: str
    order: Order
    seen: list[str]


def key(state):
    return state["text"]


async def look_up(state):
    return {"order": Order(7), "seen": ["old"]}


async def approve(state):
    answer = interrupt("approve?")
    return {"seen": [*state["seen"], type(state["order"]).__name__, answer]}


builder = StateGraph(State, context_schema=Context)
builder.add_node(look_up, cache_policy=CachePolicy(key_func=key, ttl=3600))
builder.add_node(approve)
builder.add_edge(START, "look_up")
builder.add_edge("look_up", "approve")
graph = builder.compile()
"""
NEW = (
    OLD.replace('["old"]', '["new"]')
    .replace("Order", "Purchase")
    .replace('    gone: str = ""\n', "")
    .replace("    seen: list[str]\n", "    seen: list[str]\n    rated: int\n")
    .replace(
        "graph = builder",
        'builder.add_node("rate", lambda state: {"rated": 5})\n'
        'builder.add_edge("approve", "rate")\ngraph = builder',
    )
)


async def test_sessions_of_a_server_go_on_under_new_code(dsn: str, tmp_path: Path) -> None:
    for name, code in {"old": OLD, "new": NEW}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "graph.py").write_text(code)
        config = {"dependencies": ["."], "graphs": {"orders": "./graph.py:graph"}}
        (tmp_path / name / "langgraph.json").write_text(json.dumps(config))
    context: Any = {"mood": "bad", "gone": "x"}
    async with (
        serve(dsn, config=tmp_path / "old" / "langgraph.json") as url,
        get_client(url=url) as client,
    ):
        thread = (await client.threads.create())["thread_id"]
        assistant = (await client.assistants.create("orders", context=context))["assistant_id"]
        state: Any = await client.runs.wait(thread, assistant, input={"text": "tea"})
        assert state["seen"] == ["old"]
    async with (
        serve(dsn, config=tmp_path / "new" / "langgraph.json") as url,
        get_client(url=url) as client,
    ):
        assert (await client.threads.get_state(thread))["next"] == ["approve"]
        state = await client.runs.wait(thread, assistant, command={"resume": "yes"})
        # The class that has another name now is a mapping; a field of the context that is gone
        # does no harm; the new node is run and the new key is written.
        assert state["seen"] == ["old", "dict", "yes"]
        assert state["rated"] == 5
        # Old code's cache answers new sessions too, for the same question and no other.
        for text, seen in {"tea": ["old"], "water": ["new"]}.items():
            another = (await client.threads.create())["thread_id"]
            state = await client.runs.wait(another, "orders", input={"text": text})
            assert state["seen"] == seen
