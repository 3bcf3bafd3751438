"""Answers questions about a data set: writes SQL, runs it read-only, tells what came out.

The reply has a part for each thing an app shows in its own way: text, SQL, table and chart.
"""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import readonly_sql
import sales_rules
from chat_model import ask, choose, question
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import CachePolicy
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from readonly_sql import Cell, DatasetError, SqlError
from typing_extensions import TypedDict
from vega_chart import chart

SALES = f"sqlite:///{Path(__file__).with_name('sales.db')}"


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Context:
    # The name of a data set: `sales`, or one that the operator named in ANALYST_DATASETS.
    dataset: str = "sales"
    model: str = "gpt-4.1-mini"
    row_limit: Annotated[int, Field(ge=1, le=2_000)] = 200
    time_limit: Annotated[timedelta, Field(gt=timedelta(0), le=timedelta(minutes=1))] = timedelta(
        seconds=10
    )


class Asked(TypedDict):
    """All that an answer depends on, and therefore the key it is cached under."""

    question: str
    dataset: str
    model: str
    row_limit: int
    time_limit: float


class Found(TypedDict):
    sql: str
    columns: list[str]
    rows: list[list[Cell]]
    truncated: bool
    as_of: str


class Query(TypedDict):
    asked: Asked


VERSION = 1  # of how `query` answers: what was cached by code before a change outlives it


class State(MessagesState):
    asked: Asked
    found: Found


def locate(dataset: str) -> str:
    """The DSN of a data set. Names only: were a DSN taken from `context`, any client could read
    any database that the server can reach, and the password would lie in every session.
    """
    try:
        known = {"sales": SALES, **json.loads(os.environ.get("ANALYST_DATASETS") or "{}")}
    except (ValueError, TypeError) as fault:
        raise DatasetError("ANALYST_DATASETS is not a JSON object of names and DSNs.") from fault
    if dataset not in known:
        # Whoever asks is not told which there are.
        raise DatasetError(f"There is no data set {dataset!r}.")
    return str(known[dataset])


async def understand(state: State, runtime: Runtime[Context]) -> dict[str, Any]:
    """Turn what was said into a question that can be read, and cached, by itself."""
    context = runtime.context or Context()
    said = " ".join(question(state["messages"]).split())
    if not said:
        raise ValueError("The question is empty.")
    locate(context.dataset)
    if earlier := state.get("asked"):
        runtime.stream_writer({"stage": "understanding"})
        before = [m.text for m in state["messages"][:-1] if isinstance(m, AIMessage)]
        request = [
            f"Earlier question: {earlier['question']}",
            f"Earlier answer: {' '.join(before[-1].split()) if before else '(none)'}",
            f"Now: {said}",
        ]
        # "nostream": what is said between the steps is not part of the reply.
        model = choose(context.model, sales_rules.restate).with_config(tags=["nostream"])
        messages = [SystemMessage(RESTATE), HumanMessage("\n".join(request))]
        said = (await ask(model, messages)).text.strip()
    asked = Asked(
        question=said,
        dataset=context.dataset,
        model=context.model,
        row_limit=context.row_limit,
        time_limit=context.time_limit.total_seconds(),
    )
    return {"asked": asked}


RESTATE = """Rewrite the question under `Now` so that it can be understood without the earlier one.
If it does not refer to it, repeat it unchanged. Reply with the question alone."""


async def query(state: Query, runtime: Runtime[Context]) -> dict[str, Found]:
    asked = state["asked"]
    dsn = locate(asked["dataset"])
    runtime.stream_writer({"stage": "reading tables", "dataset": asked["dataset"]})
    rules = WRITE_SQL.format(
        dialect=readonly_sql.dialect(dsn), tables=await readonly_sql.tables(dsn)
    )
    model = choose(asked["model"], sales_rules.write_sql).with_config(tags=["nostream"])
    messages: list[BaseMessage] = [SystemMessage(rules), HumanMessage(asked["question"])]
    limits = asked["row_limit"], timedelta(seconds=asked["time_limit"])
    failure: SqlError | None = None
    for attempt in (1, 2):
        runtime.stream_writer({"stage": "writing SQL", "attempt": attempt})
        reply = await ask(model, messages)
        sql = bare(reply.text)
        runtime.stream_writer({"stage": "running SQL", "sql": sql})
        try:
            table = await readonly_sql.run(dsn, sql, *limits)
        except SqlError as fault:
            failure = fault
            runtime.stream_writer({"stage": "SQL failed", "error": str(fault)})
            messages += [reply, HumanMessage(f"The database says: {fault}. Correct the query.")]
        else:
            as_of = datetime.now(UTC).isoformat(timespec="seconds")
            return {
                "found": Found(
                    sql=sql,
                    columns=table.columns,
                    rows=table.rows,
                    truncated=table.truncated,
                    as_of=as_of,
                )
            }
    raise SqlError(f"No valid SQL was found for this question: {failure}") from failure


WRITE_SQL = """Write one {dialect} query that answers the question. Put the number that matters
last, after what it is grouped by. Reply with the SQL alone. The tables:
{tables}"""


def bare(text: str) -> str:
    """The SQL of a reply, without the fence that models like to put around it."""
    fenced = re.search(r"```(?:\w+\n)?(.*?)```", text, re.DOTALL)
    return (fenced[1] if fenced else text).strip().rstrip(";")


def key(state: Query) -> str:
    # LangGraph's own key pickles the input, and equal inputs may pickle to different bytes. A name
    # that the operator gave to another database is another data set; its DSN holds a password.
    dsn = hashlib.sha256(locate(state["asked"]["dataset"]).encode()).hexdigest()
    return json.dumps([VERSION, state["asked"], dsn], sort_keys=True)


async def answer(state: State, runtime: Runtime[Context]) -> dict[str, list[AIMessage]]:
    context = runtime.context or Context()
    asked, found = state["asked"], state["found"]
    runtime.stream_writer({"stage": "telling", "rows": len(found["rows"])})
    shown = {"question": question(state["messages"]), **excerpt(found["columns"], found["rows"])}
    model = choose(context.model, sales_rules.tell)
    messages = [SystemMessage(TELL), HumanMessage(json.dumps(shown, ensure_ascii=False))]
    reply = await ask(model, messages)
    parts: list[str | dict[Any, Any]] = [
        {"type": "text", "text": reply.text},
        {"type": "sql", "sql": found["sql"], "question": asked["question"]},
        {
            "type": "table",
            "columns": found["columns"],
            "rows": found["rows"],
            "truncated": found["truncated"],
            "as_of": found["as_of"],
        },
    ]
    if spec := chart(found["columns"], found["rows"]):
        parts.append({"type": "vega-lite", "spec": spec})
    # The same id as the tokens that were streamed, so an app puts the whole in their place.
    return {"messages": [AIMessage(parts, id=reply.id)]}


TELL = """Say in one or two sentences what these rows answer to the question, in its language.
Use only what is in the rows."""


def excerpt(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> dict[str, Any]:
    """Enough to say something about the rows: a prompt is no place for thousands."""

    def few(cells: Sequence[Cell]) -> list[Cell]:
        # The last one is the number that matters.
        kept = [*cells[:19], *cells[19:][-1:]]
        return [cell[:200] if isinstance(cell, str) else cell for cell in kept]

    return {"columns": few(columns), "rows": [few(row) for row in rows[:50]]}


builder = StateGraph(State, context_schema=Context, input_schema=MessagesState)
builder.add_node(understand)
# Only takes effect where the graph is given a cache. `Query` is all that the node sees of the
# state, so nothing that is not in the key can change what it answers.
builder.add_node(
    query, input_schema=Query, cache_policy=CachePolicy(key_func=key, ttl=24 * 60 * 60)
)
builder.add_node(answer)
builder.add_edge(START, "understand")
builder.add_edge("understand", "query")
builder.add_edge("query", "answer")
builder.add_edge("answer", END)
graph = builder.compile()
