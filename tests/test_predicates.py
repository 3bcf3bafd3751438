"""Conditions on a state: what each says, and what is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.api import predicates
from clew.runtime import errors

STATE = {
    "values": {
        "messages": [
            {"type": "human", "content": "你好，北京"},
            {"type": "ai", "content": "hello", "tool_calls": [{"name": "search"}]},
        ],
        "n": 3,
        "done": True,
        "nothing": None,
        "facts": {"city": "北京"},
    },
    "next": ["ask"],
}

HOLDS: list[tuple[str, str, Any]] = [
    ("values.messages", "count>=", 2),
    ("values.messages", "count==", 2),
    ("values.messages[*].tool_calls[*]", "count==", 1),
    ("values.absent", "count<", 1),
    ("values.messages[-1].content", "==", "hello"),
    ("values.messages[*].content", "contains", "北京"),
    ("values.messages[*].type", "==", "ai"),
    ("values.facts", "contains", "city"),
    ("next", "contains", "ask"),
    ("values.n", ">", 2.5),
    ("values.n", "<=", 3),
    ("values.messages[0].type", ">", "a"),
    ("values.n", "!=", True),
    ("values.nothing", "==", None),
    ("values.absent", "!=", 1),
]
FAILS: list[tuple[str, str, Any]] = [
    ("values.messages", "count>", 2),
    ("values.messages[*].type", "!=", "ai"),
    ("values.n", "<", "4"),
    ("values.done", "==", 1),
    ("values.done", ">", 0),
    ("values.n", "contains", 3),
    ("values.messages[7].content", "==", "hello"),
    ("values.n[*]", "==", 3),
]


def holds(where: Any) -> bool:
    return predicates.compile_(where)(STATE)


@pytest.mark.parametrize(("path", "op", "value"), HOLDS)
def test_it_holds(path: str, op: str, value: Any) -> None:
    where = {"path": path, "op": op, "value": value}
    assert holds(where)
    assert not holds({"not": where})


@pytest.mark.parametrize(("path", "op", "value"), FAILS)
def test_it_does_not_hold(path: str, op: str, value: Any) -> None:
    assert not holds({"path": path, "op": op, "value": value})


def test_conditions_combine() -> None:
    there = {"path": "values.n", "op": "exists"}
    gone = {"path": "values.n", "op": "missing"}
    assert holds({"all": [there, {"not": gone}]})
    assert holds({"any": [gone, there]})
    assert not holds({"all": [there, gone]})


@pytest.mark.parametrize(
    "where",
    [
        None,
        [],
        {},
        {"all": []},
        {"all": [{"path": "x", "op": "exists"}], "any": []},
        {"path": "x", "op": "exists", "value": 1},
        {"path": "x", "op": ">", "value": None},
        {"path": "x", "op": "count>", "value": "2"},
        {"path": "x", "op": "exists", "also": 1},
        {"path": "a..b", "op": "exists"},
        {"any": [{"path": "x", "op": "exists"}] * predicates.MOST},
    ],
)
def test_what_makes_no_sense_is_refused(where: Any) -> None:
    with pytest.raises(errors.Invalid):
        predicates.compile_(where)


def test_depth_is_bounded() -> None:
    where: Any = {"path": "x", "op": "exists"}
    for _ in range(500):
        where = {"not": where}
    with pytest.raises(errors.Invalid, match="deep"):
        predicates.compile_(where)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner),
    max_leaves=6,
)


@given(
    state=st.dictionaries(st.sampled_from("xyz"), JSON),
    path=st.sampled_from(["x", "x.y", "x[0]", "x[*]", "x[*].y", "[*]"]),
    op=st.sampled_from(predicates.OPS),
    value=JSON,
)
def test_no_state_makes_a_condition_fail_to_answer(
    state: dict[str, Any], path: str, op: str, value: Any
) -> None:
    where = {"path": path, "op": op}
    if op not in ("exists", "missing"):
        where["value"] = value
    try:
        condition = predicates.compile_(where)
    except errors.Invalid:
        return
    assert condition(state) in (True, False)
