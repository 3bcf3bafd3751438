"""What a model is shown: within the limit, whole, and never at the cost of the history."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from tests.agents.graph_loading import shared

context_policy = shared("context_policy")
SYSTEM = SystemMessage("Be kind.")


def turn(number: int, text: str, calls: int) -> list[BaseMessage]:
    said: list[BaseMessage] = [HumanMessage(f"{number}: {text}", id=f"h{number}")]
    if calls:
        ids = [f"c{number}-{n}" for n in range(calls)]
        said.append(AIMessage("", tool_calls=[{"name": "t", "args": {}, "id": i} for i in ids]))
        said += [ToolMessage(f"result {text}", tool_call_id=i) for i in ids]
    return [*said, AIMessage(f"answer {text}", id=f"a{number}")]


def whole(shown: list[BaseMessage]) -> bool:
    """Whether every call has its answers right behind it, and no answer is without its call."""
    waiting: set[str | None] = set()
    for message in shown:
        if isinstance(message, ToolMessage):
            if message.tool_call_id not in waiting:
                return False
            waiting.discard(message.tool_call_id)
        elif waiting:
            return False
        elif isinstance(message, AIMessage):
            waiting = {call["id"] for call in message.tool_calls}
    return not waiting


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.text("ab 茶水", min_size=1, max_size=300), st.integers(0, 3)),
        min_size=1,
        max_size=12,
    ),
    st.integers(600, 1500),
)
def test_the_view_is_whole_within_its_limit_and_ends_with_the_current_turn(
    turns: list[tuple[str, int]], limit: int
) -> None:
    history = [m for n, (text, calls) in enumerate(turns) for m in turn(n, text, calls)]
    before = [m.model_copy(deep=True) for m in history]
    shown = context_policy.view(SYSTEM, history, limit)
    assert context_policy.tokens(shown) <= limit
    assert shown[0] is SYSTEM
    assert shown[1].type == "human"
    assert whole(shown)
    assert shown[-1].id == history[-1].id
    assert history == before


def test_a_chinese_character_is_about_a_token() -> None:
    english, chinese = HumanMessage("tea " * 100), HumanMessage("茶" * 400)
    assert context_policy.tokens([chinese]) > 3 * context_policy.tokens([english])


def test_long_results_of_the_current_turn_are_cut_in_the_view_only() -> None:
    history = [*turn(0, "short", 0), *turn(1, "w" * 8_000, 2)[1:]]
    history.insert(2, HumanMessage("read both"))
    shown = context_policy.view(SYSTEM, history[:-1], 500)
    assert context_policy.tokens(shown) <= 500
    assert whole(shown)
    assert [m.type for m in shown] == ["system", "human", "ai", "tool", "tool"]
    assert len(history[4].text) > 8_000


def test_a_message_longer_than_the_limit_is_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match=r"about \d{4} tokens, and the limit is 500"):
        context_policy.view(SYSTEM, [HumanMessage("word " * 4_000)], 500)


async def test_folding_asks_for_no_more_than_the_limit_and_covers_what_left_the_view() -> None:
    history = [m for n in range(200) for m in turn(n, f"fact number {n}", n % 2)]
    requests: list[str] = []

    async def write(request: str) -> str:
        requests.append(request)
        return f"summary {len(requests)} " + "x" * 10_000

    summary = await context_policy.fold(None, history, 600, write)
    assert max(context_policy.tokens([HumanMessage(r)]) for r in requests) <= 600
    assert len(requests) > 5
    left = context_policy.unsummarised(summary, history)
    assert left[0].type == "human"
    assert context_policy.tokens(left) <= 300
    # All that is not left over was shown to whoever wrote the summary.
    told = "\n".join(requests)
    assert all(f"fact number {n}" in told for n in range(200 - len([m for m in left if m.id]) // 2))
    # Nothing new, nothing to do.
    again = await context_policy.fold(summary, history, 600, write)
    assert again == summary


async def test_a_summary_of_another_past_is_not_trusted() -> None:
    history = turn(0, "a", 0)
    stale = {"text": "of messages that are gone", "upto": "unknown"}
    assert context_policy.unsummarised(stale, history) == history
