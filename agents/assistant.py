"""A chat agent with tools, memory across sessions, and a bounded view of an unbounded history.

What the model is shown never passes `max_tokens`; what the session holds is never cut.
"""

import ast
import hashlib
import operator
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Literal, NotRequired
from zoneinfo import ZoneInfo

from chat_model import NOTICE, answered, ask, choose, keep_going, question
from context_policy import Summary, clip, fold, unsummarised, view
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.tools import tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, ToolRuntime, tools_condition
from langgraph.runtime import Runtime
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Context:
    """What an assistant may set. Validated, because clients fill it in."""

    model: str = "gpt-4.1-mini"
    system_prompt: str = "You are a helpful assistant."
    max_tokens: Annotated[int, Field(ge=1_000)] = 8_000
    strategy: Literal["trim", "summarise"] = "trim"


class State(MessagesState):
    summary: NotRequired[Summary]


# Tools. One that raises does not end the turn: the model is told, and may do better.


@tool
def now(timezone: str = "UTC") -> str:
    """The current date and time in an IANA time zone."""
    return datetime.now(ZoneInfo(timezone)).isoformat(timespec="seconds")


ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}


@tool
def calculate(expression: Annotated[str, Field(max_length=200)]) -> str:
    """The value of an arithmetic expression of numbers, + - * / % and parentheses."""

    # A walk over the syntax tree, for `eval` would run whatever a user talks the model into.
    def value(node: ast.expr) -> float:
        match node:
            case ast.Constant(value=int() | float() as number):
                return number
            case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
                return ARITHMETIC[type(op)](value(left), value(right))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -value(operand)
            case _:
                raise ValueError(f"not arithmetic: {ast.unparse(node)}")

    return str(value(ast.parse(expression.strip(), mode="eval").body))


@tool
async def remember(fact: str, runtime: ToolRuntime[Context, State]) -> str:
    """Keep a fact about the user for all later conversations."""
    if runtime.store is None:
        return "Nothing was kept: this server has no store."
    # A step may run twice after a crash; the same fact under the same key is still one fact.
    key = hashlib.sha256(fact.encode()).hexdigest()[:16]
    await runtime.store.aput(memories(runtime), key, {"text": fact})
    return f"Kept: {fact}"


TOOLS = [now, calculate, remember]


def memories(runtime: Runtime[Context] | ToolRuntime[Context, State]) -> tuple[str, ...]:
    """Where this user's memories live. The name comes from who is logged in, not from `context`,
    where a client could write anybody's.
    """
    user = runtime.server_info.user if runtime.server_info else None
    # In hex, since a store refuses dots, and most names that are e-mail addresses have one.
    return ("memories", user.identity.encode().hex() if user else "anyone")


async def recall(runtime: Runtime[Context]) -> list[str]:
    if runtime.store is None:
        return []
    # Without a query: a store that has no embeddings would find only what shares a word with it,
    # and one that is encrypted refuses it.
    found = await runtime.store.asearch(memories(runtime), limit=50)
    return [item.value["text"] for item in found]


TOOLS_COST = count_tokens_approximately([], tools=[convert_to_openai_tool(t) for t in TOOLS])


async def answer(state: State, runtime: Runtime[Context]) -> dict[str, Any]:
    # A run without a context has `None` here, so the defaults are the graph's own affair.
    context = runtime.context or Context()
    messages = state["messages"]
    question(messages)  # raises where there is nothing to answer
    keep_going(messages)
    facts = await recall(runtime)
    # The limit is for everything that is sent: instructions, memories and tools count too.
    limit = context.max_tokens - TOOLS_COST
    instructions = "\n".join([context.system_prompt, *(f"- Known: {fact}" for fact in facts)])
    instructions = clip(instructions, limit // 4)
    summary = state.get("summary")
    update: dict[str, Any] = {}
    if context.strategy == "summarise":
        write = partial(summarise, context.model)
        summary = await fold(summary, messages, limit // 2, write)
        if summary:
            instructions += f"\nEarlier in this conversation: {summary['text']}"
            messages = unsummarised(summary, messages)
            update["summary"] = summary
    model = choose(context.model, offline).bind_tools(TOOLS)
    reply = await ask(model, view(SystemMessage(instructions), answered(messages), limit))
    return {"messages": [reply], **update}


async def summarise(model: str, request: str) -> str:
    # Without the tag, the summary would be streamed to the user as if it were the reply.
    quiet = choose(model, offline_summary).with_config(tags=["nostream"])
    return (await ask(quiet, [SystemMessage(SUMMARISE), HumanMessage(request)])).text


SUMMARISE = """Write the summary of a conversation anew, so that it covers what was said next.
Keep names, numbers, decisions and open questions. Reply with the summary alone."""


def explain(fault: Exception) -> str:
    return f"The tool failed: {type(fault).__name__}: {fault}"


builder = StateGraph(State, context_schema=Context, input_schema=MessagesState)
builder.add_node(answer)
builder.add_node("tools", ToolNode(TOOLS, handle_tool_errors=explain))
builder.add_edge(START, "answer")
builder.add_conditional_edges("answer", tools_condition)
builder.add_edge("tools", "answer")
graph = builder.compile()


# Without a key: what the model would say, by rule.


def offline(messages: Sequence[BaseMessage]) -> AIMessage:
    last = messages[-1]
    if isinstance(last, ToolMessage):
        return AIMessage(f"{last.text}\n\n{NOTICE}")
    text = last.text
    if found := re.search(
        r"(?:remember(?: that)?|记住)[:：,，\s]*(.+)", text, re.IGNORECASE | re.DOTALL
    ):
        return call(last, "remember", fact=found[1].strip())
    if found := re.search(r"[-\d(][\d\s.()]*[-+*/%][-+*/%\d\s.()]*[\d)]", text):
        return call(last, "calculate", expression=found[0])
    if re.search(r"\b(time|date|today)\b|几点|时间|今天", text, re.IGNORECASE):
        return call(last, "now")
    if re.search(r"know about me|remember about me|记得我|知道我", text, re.IGNORECASE):
        known = re.findall(r"^- Known: (.+)$", messages[0].text, re.MULTILINE)
        return AIMessage(f"{'; '.join(known) or 'Nothing yet.'}\n\n{NOTICE}")
    return AIMessage(f"You said: {text}\n\n{NOTICE}")


def call(asked: BaseMessage, name: str, **args: Any) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": name, "args": args, "id": f"call_{asked.id}"}])


def offline_summary(messages: Sequence[BaseMessage]) -> AIMessage:
    """The first words of each line: enough to see what a summary stands for."""
    said = messages[-1].text.removeprefix("Summary so far: ").splitlines()
    return AIMessage(" / ".join(" ".join(line.split()[:12])[:80] for line in said if line))
