"""Questions in plain language, SQL that only reads, and an answer in parts."""

import json
import re
import sqlite3
import traceback
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.cache.memory import InMemoryCache
from psycopg import conninfo, sql

from tests.agents.fake_openai import Endpoint, Raw, Text
from tests.agents.graph_loading import QUESTIONS, TURN, Graph, load, open_graph, shared, user


async def parts(graph: Graph, text: str, **context: Any) -> dict[str, dict[str, Any]]:
    """The parts of the answer, by type."""
    state = await graph.ainvoke(user(text), TURN, context=context or None)
    return {part["type"]: part for part in state["messages"][-1].content}


async def stages(graph: Graph, text: str, config: RunnableConfig = TURN) -> list[str]:
    stream = graph.astream(user(text), config, stream_mode="custom")
    events: list[Any] = [event async for event in stream]
    return [event["stage"] for event in events]


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


@pytest.mark.parametrize("pair", QUESTIONS["questions"], ids=lambda pair: pair["question"])
async def test_a_question_has_its_answer(pair: dict[str, Any]) -> None:
    answer = await parts(open_graph("analyst"), pair["question"])
    assert answer["table"]["rows"] == pair["rows"]
    # The SQL that is shown is the SQL that was run.
    with closing(sqlite3.connect(Path(load("analyst").__file__ or "").with_name("sales.db"))) as db:
        assert [list(row) for row in db.execute(answer["sql"]["sql"])] == pair["rows"]
    # The sentence tells the highest number, in the language of the question.
    assert f"{max(row[-1] for row in pair['rows']):,}" in answer["text"]["text"]
    chinese = any("\u4e00" <= letter <= "\u9fff" for letter in pair["question"])
    assert ("。" in answer["text"]["text"]) == chinese
    assert bool(re.match("[\u4e00-\u9fff]", answer["text"]["text"])) == chinese
    values = answer["vega-lite"]["spec"]["data"]["values"]
    assert [list(value.values()) for value in values] == pair["rows"]


@pytest.mark.parametrize("pair", QUESTIONS["follow_ups"], ids=lambda pair: pair["questions"][-1])
async def test_a_follow_up_uses_the_conversation(pair: dict[str, Any]) -> None:
    analyst = open_graph("analyst")
    for text in pair["questions"][:-1]:
        await parts(analyst, text)
    assert (await parts(analyst, pair["questions"][-1]))["table"]["rows"] == pair["rows"]


async def test_two_forks_of_a_conversation_follow_up_differently() -> None:
    analyst = open_graph("analyst")
    await parts(analyst, "Revenue by region in 2024")
    middle = (await analyst.aget_state(TURN)).config
    found: list[Any] = []
    for text in ("and in 2025?", "by category"):
        state = await analyst.ainvoke(user(text), middle)
        found.append(state["messages"][-1].content[2]["columns"])
    assert found == [["region", "revenue"], ["category", "revenue"]]


async def test_the_steps_are_told_while_they_happen() -> None:
    assert await stages(open_graph("analyst"), "Revenue by region") == [
        "reading tables",
        "writing SQL",
        "running SQL",
        "telling",
    ]


async def test_only_the_sentence_is_streamed_as_the_reply() -> None:
    analyst = open_graph("analyst")
    stream = analyst.astream(user("Revenue by region"), TURN, stream_mode="messages")
    chunks: list[Any] = [chunk async for chunk, _ in stream]
    final = (await analyst.aget_state(TURN)).values["messages"][-1]
    text = final.content[0]["text"]
    streamed = "".join(chunk.content for chunk in chunks if isinstance(chunk.content, str))
    assert streamed == text
    # Under the id of the message it becomes, so that the parts take the place of the tokens.
    assert {chunk.id for chunk in chunks} == {final.id}


async def test_an_identical_question_is_answered_from_the_cache() -> None:
    cache = InMemoryCache[Any]()
    analyst = open_graph("analyst", cache=cache)
    first = await parts(analyst, "Revenue by region")
    other: RunnableConfig = {"configurable": {"thread_id": "another session"}}
    assert await stages(analyst, "  Revenue  by region ", other) == ["telling"]
    table = (await analyst.aget_state(other)).values["messages"][-1].content[2]
    assert table == first["table"]
    # Another limit is another question.
    narrow = await parts(analyst, "Revenue by region", row_limit=2)
    assert len(narrow["table"]["rows"]) == 2
    # So is one in other letters, for the names in it may differ by nothing else.
    assert len(await stages(analyst, "revenue BY region", other)) > 1
    assert load("analyst").builder.nodes["query"].cache_policy.ttl == 24 * 60 * 60


async def test_a_name_that_is_given_to_another_database_is_not_answered_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    analyst = open_graph("analyst")
    for orders in (10, 20):
        file = tmp_path / f"{orders}.db"
        shared("sales_data").build(file)
        with closing(sqlite3.connect(file)) as db:
            db.execute("delete from orders where order_id > ?", [orders])
            db.commit()
        monkeypatch.setenv("ANALYST_DATASETS", json.dumps({"ours": f"sqlite:///{file}"}))
        answer = await parts(analyst, "How many orders?", dataset="ours")
        assert answer["table"]["rows"] == [[orders]]


@pytest.mark.parametrize("text", ["{", "[1]", '"postgresql://u:secret-word@h/d"', "secret-word"])
async def test_data_sets_that_are_no_json_object_are_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("ANALYST_DATASETS", text)
    with pytest.raises(ValueError, match="ANALYST_DATASETS is not") as caught:
        await parts(open_graph("analyst"), "How many orders?")
    assert "secret-word" not in str(caught.value)


async def test_a_long_table_is_told_from_its_beginning(endpoint: Endpoint) -> None:
    query = """with recursive r(n) as (select 1 union all select n + 1 from r where n < 200)
               select hex(zeroblob(1000)), n from r"""
    endpoint.replies(Text(query), Text("Many."))
    answer = await parts(open_graph("analyst"), "How many?", row_limit=2_000)
    assert len(answer["table"]["rows"]) == 200
    assert len(endpoint.requests[-1]["messages"][-1]["content"]) < 20_000


async def test_a_wide_table_is_told_with_its_last_column(endpoint: Endpoint) -> None:
    names = [f"c{n}" for n in range(30)]
    query = f"select {', '.join(f'{n} as {name}' for n, name in enumerate(names))}"
    endpoint.replies(Text(query), Text("Wide."))
    await parts(open_graph("analyst"), "How wide?")
    shown = json.loads(endpoint.requests[-1]["messages"][-1]["content"])
    assert shown["columns"] == [*names[:19], "c29"]
    assert shown["rows"] == [[*range(19), 29]]


@pytest.mark.parametrize("limit", [0, -1, "PT2M"])
async def test_a_time_limit_that_is_none_is_refused(limit: Any) -> None:
    with pytest.raises(ValueError, match="time_limit"):
        await parts(open_graph("analyst"), "Revenue by region", time_limit=limit)


async def test_it_works_without_a_cache() -> None:
    analyst = open_graph("analyst", cache=None)
    for _ in range(2):
        answer = await parts(analyst, "Revenue by region")
        assert len(answer["table"]["rows"]) == 4


async def test_rows_past_the_limit_are_cut_and_it_says_so() -> None:
    answer = await parts(open_graph("analyst"), "Revenue by month", row_limit=3)
    assert len(answer["table"]["rows"]) == 3
    assert answer["table"]["truncated"] is True


async def test_a_chart_over_time_is_a_line_and_over_anything_else_bars() -> None:
    chart = load("analyst").chart
    rows = [["2024-01", 1], ["2024-02", 2]]
    assert chart(["month", "n"], rows)["mark"] == "line"
    assert chart(["region", "n"], [["North", 1]])["mark"] == "bar"
    assert chart(["n"], [[7]])["mark"] == "text"
    assert chart(["month", "region", "n"], [["2024-01", "North", 1]])["encoding"]["color"]
    # A number is not a year, what is missing makes no text of numbers, and yes is not one.
    assert chart(["customer", "n"], [[1042, 1]])["mark"] == "bar"
    assert chart(["year", "n"], [[2024, 1]])["mark"] == "line"
    assert chart(["region", "n"], [["North", None], ["South", 2]])["mark"] == "bar"
    assert chart(["region", "paid"], [["North", True]]) is None
    assert chart(["name"], [["a"]]) is None
    assert chart(["n"], []) is None
    json.dumps(chart(["a.b", "a.b"], [["x", 1.5]]), allow_nan=False)


async def test_a_chart_holds_what_it_draws_and_no_more() -> None:
    chart = load("analyst").chart
    row = ["2024-01", "North", "a long note", 5, 7]
    (value,) = chart(["month", "region", "note", "n", "total"], [row])["data"]["values"]
    assert list(value.values()) == ["2024-01", "North", 7]
    assert len(chart(["n"], [[1]] * 500)["data"]["values"]) == 500
    assert chart(["n"], [[1]] * 501) is None


async def test_a_dataset_is_one_that_the_operator_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    analyst = open_graph("analyst")
    file = tmp_path / "our sales.db"
    shared("sales_data").build(file)
    with closing(sqlite3.connect(file)) as db:
        db.execute("delete from orders where order_id > 10")
        db.commit()
    monkeypatch.setenv("ANALYST_DATASETS", json.dumps({"ours": f"sqlite:///{file}"}))
    answer = await parts(analyst, "How many orders?", dataset="ours")
    assert answer["table"]["rows"] == [[10]]
    for name in ("theirs", f"sqlite:///{file}", "postgresql://localhost/clew"):
        with pytest.raises(ValueError, match="There is no data set") as caught:
            await parts(analyst, "How many orders?", dataset=name)
        assert "ours" not in str(caught.value).replace(repr(name), "")
    assert (await parts(analyst, "How many orders?"))["table"]["rows"] == [[1500]]


async def test_a_dataset_that_cannot_be_opened_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dsns = {
        "file": f"sqlite:///{tmp_path}/gone.db",
        "server": "postgresql://nobody:secret-word@127.0.0.1:1/x",
        "malformed": "postgresql://nobody:secret-word%zz@127.0.0.1:1/x",
        "other": "mysql://localhost",
    }
    monkeypatch.setenv("ANALYST_DATASETS", json.dumps(dsns))
    for name in dsns:
        with pytest.raises(ValueError, match="data set") as caught:
            await parts(open_graph("analyst"), "How many orders?", dataset=name)
        # Nor in the log, which has the errors that led to this one.
        assert "secret-word" not in "".join(traceback.format_exception(caught.value))
    assert files(tmp_path) == []


@pytest.mark.parametrize("text", ["", "   ", "\n"])
async def test_an_empty_question_is_a_clear_error_and_the_session_goes_on(text: str) -> None:
    analyst = open_graph("analyst")
    with pytest.raises(ValueError, match="question is empty"):
        await parts(analyst, text)
    assert (await parts(analyst, "How many orders?"))["table"]["rows"] == [[1500]]


async def test_what_the_rules_do_not_know_is_said_with_an_example() -> None:
    analyst = open_graph("analyst")
    with pytest.raises(RuntimeError, match="such as 'revenue by region"):
        await parts(analyst, "What is the meaning of life?")
    assert (await parts(analyst, "How many orders?"))["table"]["rows"] == [[1500]]


async def test_an_sql_error_goes_back_to_the_model_once(endpoint: Endpoint) -> None:
    endpoint.replies(
        Text("select 1 from nowhere"),
        Text("```sql\nselect count(*) as orders from orders;\n```"),
        Text("There were 1500 orders."),
    )
    analyst = open_graph("analyst")
    answer = await parts(analyst, "How many orders?")
    assert answer["table"]["rows"] == [[1500]]
    assert answer["text"]["text"] == "There were 1500 orders."
    retry = endpoint.requests[1]["messages"]
    assert retry[-2]["content"] == "select 1 from nowhere"
    assert "no such table: nowhere" in retry[-1]["content"]
    assert "create table orders" in retry[0]["content"].lower()


async def test_sql_that_cannot_be_made_valid_is_one_error_and_the_session_goes_on(
    endpoint: Endpoint,
) -> None:
    analyst = open_graph("analyst")
    endpoint.replies(Text("select 1 from nowhere"))
    with pytest.raises(ValueError, match=r"No valid SQL was found .*no such table"):
        await parts(analyst, "How many orders?")
    assert len(endpoint.requests) == 2
    endpoint.replies(Text("How many orders?"), Text("select 1500"), Text("1500."))
    assert (await parts(analyst, "How many orders?"))["table"]["rows"] == [[1500]]


async def test_a_model_that_wants_to_write_is_refused_by_the_connection(
    endpoint: Endpoint,
) -> None:
    endpoint.replies(Text("delete from orders"))
    with pytest.raises(ValueError, match="not authorized"):
        await parts(open_graph("analyst"), "Delete all orders")


async def test_a_follow_up_shows_the_model_the_conversation(endpoint: Endpoint) -> None:
    analyst = open_graph("analyst")
    endpoint.replies(Text("select 1"), Text("One order."))
    await parts(analyst, "How many orders in 2024?")
    endpoint.requests.clear()
    endpoint.replies(Text("How many orders in 2025?"), Text("select 2"), Text("Two."))
    answer = await parts(analyst, "and in 2025?")
    first = endpoint.requests[0]["messages"][-1]["content"]
    assert "How many orders in 2024?" in first
    assert "One order." in first
    assert "and in 2025?" in first
    assert endpoint.requests[1]["messages"][-1]["content"] == "How many orders in 2025?"
    assert answer["sql"]["question"] == "How many orders in 2025?"


async def test_an_endpoint_that_fails_is_not_cached(endpoint: Endpoint) -> None:
    analyst = open_graph("analyst")
    endpoint.replies(Raw("nonsense"))
    with pytest.raises(RuntimeError, match="The model endpoint"):
        await parts(analyst, "How many orders?")
    endpoint.answer = lambda request: Text("select 42")
    assert (await parts(analyst, "How many orders?"))["table"]["rows"] == [[42]]


def test_the_shipped_database_is_what_its_script_makes(tmp_path: Path) -> None:
    sales_data = shared("sales_data")
    sales_data.build(tmp_path / "sales.db")
    dumps: list[list[str]] = []
    for file in (sales_data.FILE, tmp_path / "sales.db"):
        with closing(sqlite3.connect(file)) as db:
            dumps.append(list(db.iterdump()))
    assert dumps[0] == dumps[1]
    assert sales_data.FILE.stat().st_size < 200_000


async def test_the_same_questions_are_answered_from_postgres(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    role, password = f"reader_{uuid.uuid4().hex}", "pw"
    _copy_to_postgres(dsn, role, password)
    try:
        parts_of = conninfo.conninfo_to_dict(dsn)
        place = f"host={parts_of['host']}&port={parts_of.get('port', 5432)}"
        url = f"postgresql://{role}:{password}@/{parts_of['dbname']}?{place}"
        monkeypatch.setenv("ANALYST_DATASETS", json.dumps({"warehouse": url}))
        analyst = open_graph("analyst")
        for pair in QUESTIONS["questions"]:
            answer = await parts(analyst, pair["question"], dataset="warehouse")
            assert answer["table"]["rows"] == pair["rows"]
        state = (await analyst.aget_state(TURN)).values
        assert password + "@" not in str(state)
    finally:
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(sql.SQL("drop owned by {}").format(sql.Identifier(role)))
            conn.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))


def _copy_to_postgres(dsn: str, role: str, password: str) -> None:
    """The sales tables, and a login that may read them."""
    sales_data = shared("sales_data")
    with psycopg.connect(dsn) as conn, closing(sqlite3.connect(sales_data.FILE)) as db:
        conn.execute(sales_data.TABLES.replace("real", "numeric").encode())
        for table in ("customers", "products", "orders"):
            copy = sql.SQL("copy {} from stdin").format(sql.Identifier(table))
            with conn.cursor() as cursor, cursor.copy(copy) as rows:
                for row in db.execute(f"select * from {table}"):  # noqa: S608 - a name from above
                    rows.write_row(row)
        login = sql.SQL("create role {} login password {}")
        conn.execute(login.format(sql.Identifier(role), sql.Literal(password)))
        reading = sql.SQL("grant select on customers, products, orders to {}")
        conn.execute(reading.format(sql.Identifier(role)))
