"""Every method of the clients' `assistants`."""

import uuid
from typing import Any

import pytest
from langgraph_sdk.errors import ConflictError, NotFoundError

from tests.sdk.official import Official, shows

STEPS = str(uuid.uuid5(uuid.UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8"), "steps"))


@shows("assistants.create", "POST /assistants")
@shows("assistants.get", "GET /assistants/{assistant_id}")
async def test_an_assistant_is_made_and_read(official: Official) -> None:
    asked = str(uuid.uuid4())
    made = await official.assistants.create(
        "steps",
        config={"configurable": {"tone": "kind"}, "tags": ["a"]},
        metadata={"team": "红队"},
        assistant_id=asked,
        name="Steps",
        description="two nodes",
    )
    assert made["assistant_id"] == asked
    assert (made["graph_id"], made["version"], made["name"]) == ("steps", 1, "Steps")
    assert made["context"] == {"tone": "kind"}
    assert made["description"] == "two nodes"
    assert await official.assistants.get(asked) == made
    with pytest.raises(ConflictError, match="already exists"):
        await official.assistants.create("steps", assistant_id=asked)
    again = await official.assistants.create("echo", assistant_id=asked, if_exists="do_nothing")
    assert again == made


async def test_the_assistant_of_a_graph_is_there_from_the_start(official: Official) -> None:
    found = await official.assistants.get(STEPS)
    assert found["metadata"] == {"created_by": "system"}
    assert found["description"] == "Two nodes, one after the other."


@shows("assistants.get_graph", "GET /assistants/{name}/graph")
async def test_a_graph_is_drawn_by_its_name_and_by_its_assistant(official: Official) -> None:
    drawn = await official.assistants.get_graph("parent")
    assert [node["id"] for node in drawn["nodes"]] == ["__start__", "child", "after", "__end__"]
    assert {"source": "__start__", "target": "child"} in drawn["edges"]
    inside = await official.assistants.get_graph("parent", xray=True)
    assert "child:inner" in [node["id"] for node in inside["nodes"]]
    by_id = await official.assistants.get_graph(STEPS)
    assert [node["id"] for node in by_id["nodes"]] == ["__start__", "one", "two", "__end__"]


@shows("assistants.get_schemas", "GET /assistants/{assistant_id}/schemas")
async def test_schemas_describe_input_output_state_and_context(official: Official) -> None:
    found = await official.assistants.get_schemas(STEPS)
    assert found["graph_id"] == "steps"
    assert set(found["input_schema"]["properties"]) == {"x", "n", "wait", "answer"}
    assert set(found) == {
        "graph_id",
        "input_schema",
        "output_schema",
        "state_schema",
        "config_schema",
        "context_schema",
    }
    [chosen] = await official.assistants.search(
        graph_id="context", metadata={"created_by": "system"}
    )
    context = (await official.assistants.get_schemas(chosen["assistant_id"]))["context_schema"]
    assert context["properties"]["tone"]["default"] == "plain"


@shows(
    "assistants.get_subgraphs",
    "GET /assistants/{assistant_id}/subgraphs",
    "GET /assistants/{assistant_id}/subgraphs/{namespace}",
)
async def test_subgraphs_are_told_with_their_schemas(official: Official) -> None:
    [chosen] = await official.assistants.search(
        graph_id="parent", metadata={"created_by": "system"}
    )
    found = await official.assistants.get_subgraphs(chosen["assistant_id"])
    assert list(found) == ["child"]
    assert "x" in found["child"]["state_schema"]["properties"]
    at = chosen["assistant_id"]
    assert await official.assistants.get_subgraphs(at, namespace="child", recurse=True) == found
    assert await official.assistants.get_subgraphs(at, namespace="nobody") == {}


@shows("assistants.update", "PATCH /assistants/{assistant_id}")
@shows("assistants.get_versions", "POST /assistants/{assistant_id}/versions")
@shows("assistants.set_latest", "POST /assistants/{assistant_id}/latest")
async def test_an_update_is_a_version_and_versions_can_be_gone_back_to(official: Official) -> None:
    made = await official.assistants.create("steps", metadata={"a": 1}, name="first")
    at = made["assistant_id"]
    second = await official.assistants.update(
        at,
        graph_id="echo",
        config={"tags": ["b"]},
        metadata={"b": 2},
        name="second",
        description="now echoes",
    )
    assert (second["version"], second["graph_id"], second["name"]) == (2, "echo", "second")
    assert second["metadata"] == {"a": 1, "b": 2}
    versions = await official.assistants.get_versions(at)
    assert [version["version"] for version in versions] == [2, 1]
    assert "updated_at" not in versions[0]
    assert len(await official.assistants.get_versions(at, limit=1, offset=1)) == 1
    back = await official.assistants.set_latest(at, 1)
    assert (back["version"], back["graph_id"], back["name"]) == (1, "steps", "first")
    with pytest.raises(NotFoundError, match="Version 99 not found"):
        await official.assistants.set_latest(at, 99)
    with_context = await official.assistants.update(at, context={"tone": "warm"})
    assert with_context["context"] == {"tone": "warm"}


@shows("assistants.delete", "DELETE /assistants/{assistant_id}")
async def test_an_assistant_goes_and_takes_its_threads_where_asked(official: Official) -> None:
    made = await official.assistants.create("steps")
    thread = await official.threads.create()
    await official.runs.wait(thread["thread_id"], made["assistant_id"], input={"x": ["in"]})
    await official.assistants.delete(made["assistant_id"], delete_threads=True)
    with pytest.raises(NotFoundError):
        await official.assistants.get(made["assistant_id"])
    with pytest.raises(NotFoundError):
        await official.threads.get(thread["thread_id"])


@shows("assistants.search", "POST /assistants/search")
@shows("assistants.count", "POST /assistants/count")
async def test_assistants_are_found_page_by_page_and_counted(official: Official) -> None:
    mark = {"batch": str(uuid.uuid4())}
    names = ["alpha", "Beta", "gamma"]
    for name in names:
        await official.assistants.create("steps", metadata=mark, name=name)
    assert await official.assistants.count(metadata=mark) == 3
    assert await official.assistants.count(metadata=mark, graph_id="echo") == 0
    assert await official.assistants.count(metadata=mark, name="A") == 3
    page: Any = await official.assistants.search(
        metadata=mark,
        graph_id="steps",
        limit=2,
        sort_by="created_at",
        sort_order="asc",
        select=["name", "version"],
        response_format="object",
    )
    assert page["assistants"] == [{"name": name, "version": 1} for name in names[:2]]
    assert page["next"] == "2"
    rest = await official.assistants.search(
        metadata=mark, offset=2, sort_by="created_at", sort_order="asc"
    )
    assert [item["name"] for item in rest] == ["gamma"]
    assert [
        item["name"] for item in await official.assistants.search(metadata=mark, name="bet")
    ] == ["Beta"]
