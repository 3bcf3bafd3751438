"""A human in the loop: the model proposes actions, a person approves, edits or rejects each one,
and only then is anything done. No answer in time means no.

Each proposal waits in a task of its own, so two can be open in one turn and be answered in any
order. An interrupt's value carries what a form needs and, for whoever serves the graph,
`deadline` (ISO time) and `on_deadline` (the answer to resume with once it has passed).
"""

import operator
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self, cast

from chat_model import NOTICE, ModelError, ask, choose, keep_going, question
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolCall,
    ToolMessage,
)
from langchain_core.tools import BaseTool, tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.runtime import Runtime
from langgraph.types import Command, Send, interrupt
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from typing_extensions import TypedDict


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Context:
    model: str = "gpt-4.1-mini"
    # In JSON, seconds or an ISO 8601 duration such as "PT1H".
    time_limit: Annotated[timedelta, Field(le=timedelta(days=365))] = timedelta(hours=24)


class Answer(BaseModel):
    """Approve the action, approve it with other arguments, or reject it and say why."""

    # Clients get the JSON Schema of this class, with the line above in it. LangGraph refuses an
    # answer that does not fit, and the question stays open.

    decision: Literal["approve", "edit", "reject"]
    arguments: dict[str, Any] | None = Field(
        default=None, description="with edit: the new arguments"
    )
    reason: str | None = Field(default=None, description="with reject: why not")

    @model_validator(mode="after")
    def complete(self) -> Self:
        if self.decision == "edit" and not self.arguments:
            raise ValueError("an edit needs the new arguments")
        if self.decision == "reject" and not self.reason:
            raise ValueError("a rejection needs a reason")
        return self


class Decision(TypedDict):
    approved: bool
    arguments: dict[str, Any]
    reason: str


class State(MessagesState):
    # By tool call. Parallel reviews each add theirs; kept, as the record of who allowed what.
    decisions: Annotated[dict[str, Decision], operator.or_]


class Proposal(TypedDict):
    """What one review is sent. The deadline is fixed here, before the wait: a node starts again
    from its first line when it is resumed, and must not find a new deadline there.
    """

    call: ToolCall
    deadline: str


# Actions. These only pretend; where yours reach the world, hand the tool call's id along as an
# idempotency key, for a step that crashed half-way runs again.


@tool
def refund(order: str, amount: Annotated[float, Field(gt=0)]) -> str:
    """Pay money back for an order."""
    return f"Refunded {amount:.2f} for order {order}."


@tool
def send_email(to: str, subject: str, body: str) -> str:
    """Send an e-mail to a customer."""
    return f"Sent '{subject}' to {to}."


ACTIONS: dict[str, BaseTool] = {action.name: action for action in (refund, send_email)}


def problem_with(call: ToolCall, arguments: dict[str, Any]) -> str | None:
    """Why this could not be carried out as it stands."""
    if call["name"] not in ACTIONS:
        return f"There is no action {call['name']!r}; there are {', '.join(ACTIONS)}."
    try:
        TypeAdapter(ACTIONS[call["name"]].get_input_schema()).validate_python(arguments)
    except ValidationError as fault:
        return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in fault.errors())
    return None


async def propose(
    state: State, runtime: Runtime[Context]
) -> Command[Literal["review", "act", "__end__"]]:
    context = runtime.context or Context()
    question(state["messages"])  # raises where there is nothing to answer
    keep_going(state["messages"])
    model = choose(context.model, offline).bind_tools(list(ACTIONS.values()))
    reply = await ask(model, [SystemMessage(INSTRUCTIONS), *state["messages"]])
    if len({call["id"] for call in reply.tool_calls}) < len(reply.tool_calls):
        # A decision is kept by the call's id; two calls must not share one.
        raise ModelError("The model endpoint gave two tool calls the same id.")
    deadline = (datetime.now(UTC) + context.time_limit).isoformat(timespec="milliseconds")
    # What could not be done anyway is not worth a human's time: it goes straight to `act`, which
    # tells the model why.
    open_calls = [c for c in reply.tool_calls if not problem_with(c, c["args"])]
    sends = [Send("review", Proposal(call=call, deadline=deadline)) for call in open_calls]
    goto: Sequence[Send] | Literal["act", "__end__"] = sends or "act"
    if not reply.tool_calls:
        goto = "__end__"
    return Command(update={"messages": [reply]}, goto=goto)


INSTRUCTIONS = """You act for customer service. Propose actions by calling tools, all that the
request needs at once. A human decides on each. Report what was done and what was declined."""


async def review(state: Proposal) -> dict[str, Any]:
    call, deadline = state["call"], state["deadline"]
    no_answer = Answer(decision="reject", reason=f"No answer before {deadline}.")
    value: dict[str, Any] = {
        "action": call["name"],
        "arguments": call["args"],
        "problem": None,
        "deadline": deadline,
        "on_deadline": no_answer.model_dump(exclude_none=True),
    }
    while True:
        answer = interrupt(value, response_schema=Answer)
        # Whether or not the server watches the clock, a late yes is a no.
        if datetime.now(UTC) > datetime.fromisoformat(deadline):
            answer = no_answer
        arguments = answer.arguments if answer.decision == "edit" else call["args"]
        problem = problem_with(call, arguments or {})
        if answer.decision == "reject" or not problem:
            break
        # An edit that cannot be carried out is asked about again, not failed.
        value = {**value, "arguments": arguments, "problem": problem}
    decision = Decision(
        approved=answer.decision != "reject",
        arguments=arguments or {},
        reason=answer.reason or "",
    )
    return {"decisions": {str(call["id"]): decision}}


async def act(state: State) -> dict[str, list[ToolMessage]]:
    """Runs once, after all reviews of the turn. It answers every call of the proposal, so the
    model never sees one without its outcome.
    """
    proposal = cast("AIMessage", state["messages"][-1])
    outcomes: list[ToolMessage] = []
    approved: list[ToolCall] = []
    for call in proposal.tool_calls:
        # First, for nobody was asked about such a call: an old decision may go by the same id.
        if problem := problem_with(call, call["args"]):
            outcomes.append(_outcome(call, f"Not possible. {problem}"))
            continue
        decision = state["decisions"][str(call["id"])]
        if decision["approved"]:
            approved.append(ToolCall({**call, "args": decision["arguments"]}))
        else:
            outcomes.append(_outcome(call, f"Declined. {decision['reason']}"))
    done = await CARRY_OUT.ainvoke(approved) if approved else {"messages": []}
    return {"messages": [*outcomes, *done["messages"]]}


def _outcome(call: ToolCall, text: str) -> ToolMessage:
    return ToolMessage(text, tool_call_id=call["id"], name=call["name"], status="error")


def explain(fault: Exception) -> str:
    return f"The action failed: {type(fault).__name__}: {fault}"


CARRY_OUT = ToolNode(list(ACTIONS.values()), handle_tool_errors=explain)

# The input is messages and nothing else: nobody sends a decision along with the question.
builder = StateGraph(State, context_schema=Context, input_schema=MessagesState)
builder.add_node(propose)
builder.add_node(review, input_schema=Proposal)
builder.add_node(act)
builder.add_edge(START, "propose")
builder.add_edge("review", "act")
builder.add_edge("act", "propose")
graph = builder.compile()


# Without a key: what the model would propose, by rule.


def offline(messages: Sequence[BaseMessage]) -> AIMessage:
    last = messages[-1]
    if not isinstance(last, HumanMessage):
        outcomes = [m.text for m in messages[_proposal(messages) + 1 :]]
        return AIMessage("\n".join([*outcomes, "", NOTICE]))
    calls: list[ToolCall] = []
    order = re.search(r"(?:order|订单)\D{0,3}(\d+)", last.text, re.IGNORECASE)
    amount = re.search(r"(\d+(?:\.\d+)?)\s*(?:EUR|USD|dollars|euros|元|块)", last.text)
    if order and re.search(r"refund|退款", last.text, re.IGNORECASE):
        args = {"order": order[1], "amount": float(amount[1]) if amount else 10.0}
        calls.append(ToolCall(name="refund", args=args, id=f"call_refund_{last.id}"))
    if address := re.search(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+", last.text, re.ASCII):
        args = {"to": address[0], "subject": "Your order", "body": last.text}
        calls.append(ToolCall(name="send_email", args=args, id=f"call_email_{last.id}"))
    text = f"I can refund an order and write to an e-mail address.\n\n{NOTICE}"
    return AIMessage("" if calls else text, tool_calls=calls)


def _proposal(messages: Sequence[BaseMessage]) -> int:
    return max(i for i, message in enumerate(messages) if isinstance(message, AIMessage))
