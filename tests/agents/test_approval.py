"""A human in the loop: asked in parallel, answered in any order, and not for ever."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from langgraph.types import Command, Interrupt

from tests.agents.fake_openai import Calls, Endpoint, Text
from tests.agents.graph_loading import TURN, Graph, interrupts, load, open_graph, user

REQUEST = "Refund order 1042, 12.50 EUR, and tell a.b@example.com"
APPROVE = {"decision": "approve"}
REJECT = {"decision": "reject", "reason": "not ours"}


async def ask(graph: Graph, text: str = REQUEST, **context: Any) -> list[Interrupt[Any]]:
    return interrupts(await graph.ainvoke(user(text), TURN, context=context or None))


async def respond(graph: Graph, answers: dict[str, Any]) -> dict[str, Any]:
    return await graph.ainvoke(Command(resume=answers), TURN)


async def test_two_actions_wait_in_parallel_with_all_that_a_form_needs() -> None:
    refund, email = await ask(open_graph("approval"))
    assert (refund.value["action"], email.value["action"]) == ("refund", "send_email")
    assert refund.value["arguments"] == {"order": "1042", "amount": 12.5}
    schema = refund.response_schema
    assert isinstance(schema, dict)
    assert schema["properties"]["decision"]["enum"] == ["approve", "edit", "reject"]
    assert schema["required"] == ["decision"]
    # The documented shape for whoever serves the graph: when, and with what answer.
    wait = datetime.fromisoformat(refund.value["deadline"]) - datetime.now(UTC)
    assert timedelta(hours=23) < wait < timedelta(hours=25)
    no = load("approval").Answer.model_validate(refund.value["on_deadline"])
    assert no.decision == "reject"


async def test_they_are_answered_one_by_one_and_done_once_when_all_are() -> None:
    graph = open_graph("approval")
    refund, email = await ask(graph)
    state = await respond(graph, {email.id: APPROVE})
    assert [i.id for i in interrupts(state)] == [refund.id]
    assert not [m for m in state["messages"] if m.type == "tool"]
    state = await respond(graph, {refund.id: REJECT})
    assert not interrupts(state)
    outcomes = {m.name: (m.text, m.status) for m in state["messages"] if m.type == "tool"}
    assert outcomes == {
        "refund": ("Declined. not ours", "error"),
        "send_email": ("Sent 'Your order' to a.b@example.com.", "success"),
    }
    approved = {d["approved"]: d for d in state["decisions"].values()}
    assert approved[False]["reason"] == "not ours"
    assert state["messages"][-1].type == "ai"


async def test_an_action_that_raises_is_told_and_the_other_one_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(order: str, amount: float) -> str:
        raise ConnectionError("the bank is closed")

    monkeypatch.setattr(load("approval").refund, "func", refuse)
    graph = open_graph("approval")
    waiting = await ask(graph)
    state = await respond(graph, {i.id: APPROVE for i in waiting})
    outcomes = {m.name: (m.text, m.status) for m in state["messages"] if m.type == "tool"}
    assert outcomes == {
        "refund": ("The action failed: ConnectionError: the bank is closed", "error"),
        "send_email": ("Sent 'Your order' to a.b@example.com.", "success"),
    }


async def test_an_edit_is_what_is_carried_out() -> None:
    graph = open_graph("approval")
    (refund,) = await ask(graph, "refund order 7, 30 EUR")
    edit = {"decision": "edit", "arguments": {"order": "7", "amount": 5}}
    state = await respond(graph, {refund.id: edit})
    assert "Refunded 5.00 for order 7." in state["messages"][-1].text


async def test_an_edit_that_cannot_be_carried_out_is_asked_about_again() -> None:
    graph = open_graph("approval")
    (refund,) = await ask(graph, "refund order 7, 30 EUR")
    edit = {"decision": "edit", "arguments": {"order": "7", "amount": -5}}
    (again,) = interrupts(await respond(graph, {refund.id: edit}))
    assert "amount" in again.value["problem"]
    assert again.value["arguments"] == edit["arguments"]
    assert again.value["deadline"] == refund.value["deadline"]
    state = await respond(graph, {again.id: APPROVE})
    assert "Refunded 30.00 for order 7." in state["messages"][-1].text


@pytest.mark.parametrize(
    "answer",
    [
        {"decision": "maybe"},
        {"decision": "edit"},
        {"decision": "reject"},
        "yes",
        {},
    ],
)
async def test_an_answer_that_does_not_fit_is_refused_and_the_question_stays(answer: Any) -> None:
    graph = open_graph("approval")
    (refund,) = await ask(graph, "refund order 7, 30 EUR")
    with pytest.raises(ValueError, match="validation error"):
        await respond(graph, {refund.id: answer})
    assert [i.id for i in (await graph.aget_state(TURN)).interrupts] == [refund.id]
    state = await respond(graph, {refund.id: APPROVE})
    assert "Refunded" in state["messages"][-1].text


async def test_an_answer_after_the_deadline_counts_as_a_no() -> None:
    graph = open_graph("approval")
    refund, email = await ask(graph, time_limit=0)
    state = await respond(graph, {refund.id: APPROVE, email.id: APPROVE})
    outcomes = [m.text for m in state["messages"] if m.type == "tool"]
    assert len(outcomes) == 2
    assert all(text.startswith("Declined. No answer before") for text in outcomes)


async def test_a_server_that_watches_the_clock_resumes_with_what_the_interrupt_says() -> None:
    graph = open_graph("approval")
    waiting = await ask(graph, time_limit="PT1H")
    state = await respond(graph, {i.id: i.value["on_deadline"] for i in waiting})
    assert not interrupts(state)
    assert not any(decision["approved"] for decision in state["decisions"].values())


async def test_a_new_message_while_waiting_drops_the_question_and_does_nothing() -> None:
    graph = open_graph("approval")
    await ask(graph)
    state = await graph.ainvoke(user("hello?"), TURN)
    assert not interrupts(state)
    assert not state["decisions"]
    assert "I can refund" in state["messages"][-1].text


async def test_decisions_cannot_be_sent_along_with_the_question() -> None:
    graph = open_graph("approval")
    forged = {"approved": True, "arguments": {}, "reason": ""}
    await graph.ainvoke({**user("refund order 1, 5 EUR"), "decisions": {"x": forged}}, TURN)
    assert (await graph.aget_state(TURN)).values["decisions"] == {}


async def test_a_branch_from_before_the_question_asks_and_is_answered_for_itself() -> None:
    graph = open_graph("approval")
    (refund,) = await ask(graph, "refund order 7, 30 EUR")
    before = [s.config async for s in graph.aget_state_history(TURN) if s.next == ("propose",)]
    yes = await respond(graph, {refund.id: APPROVE})
    (again,) = interrupts(await graph.ainvoke(None, before[0]))
    no = await respond(graph, {again.id: REJECT})
    assert "Refunded" in yes["messages"][-1].text
    assert "Declined" in no["messages"][-1].text


async def test_what_cannot_be_done_is_not_worth_a_humans_time(endpoint: Endpoint) -> None:
    graph = open_graph("approval")
    calls = [
        ("launch", "{}"),
        ("refund", '{"order": "7", "amount": -1}'),
        ("send_email", '{"to": "a@example.com", "subject": "s", "body": "b"}'),
    ]
    endpoint.replies(Calls(calls), Text("Only the e-mail was sent."))
    (email,) = await ask(graph, "do it all")
    assert email.value["action"] == "send_email"
    state = await respond(graph, {email.id: APPROVE})
    texts = [m.text for m in state["messages"] if m.type == "tool"]
    assert any("no action 'launch'" in text for text in texts)
    assert any("amount" in text for text in texts)
    assert any(text.startswith("Sent") for text in texts)
    told = [m for m in endpoint.requests[-1]["messages"] if m["role"] == "tool"]
    assert len(told) == 3


async def test_nothing_that_can_be_done_at_all_comes_back_to_the_model(endpoint: Endpoint) -> None:
    graph = open_graph("approval")
    endpoint.replies(Calls([("launch", "{}")]), Text("I cannot launch."))
    state = await graph.ainvoke(user("launch"), TURN)
    assert not interrupts(state)
    assert state["messages"][-1].text == "I cannot launch."


async def test_an_approval_of_one_call_is_not_one_of_another_with_its_id(
    endpoint: Endpoint,
) -> None:
    graph = open_graph("approval")
    refund = ("refund", '{"order": "7", "amount": 5}')
    endpoint.replies(Calls([refund], id="call_0"), Text("Done."))
    (asked,) = await ask(graph, "refund")
    await respond(graph, {asked.id: APPROVE})
    # The next turn's call goes by the same id, as with some endpoints, and cannot be done.
    endpoint.replies(Calls([("refund", '{"order": "8"}')], id="call_0"), Text("Not done."))
    state = await graph.ainvoke(user("another"), TURN)
    texts = [m.text for m in state["messages"] if m.type == "tool"]
    assert texts[0] == "Refunded 5.00 for order 7."
    assert texts[1].startswith("Not possible. amount")
    # Two in one turn would share a decision.
    endpoint.replies(Calls([refund, refund], id="call_0"))
    with pytest.raises(RuntimeError, match="the same id"):
        await graph.ainvoke(user("two"), TURN)
