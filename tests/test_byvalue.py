"""Threads found by their values: what containment means, and when the search is refused."""

import asyncio
import base64
import json
import secrets
from typing import Any, cast

import httpx
import pytest

from clew.api import byvalue
from clew.checkpointing.postgres import Database
from clew.runtime import errors
from tests.serving import serve


@pytest.mark.parametrize(
    ("held", "wanted", "found"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [2]}}, True),
        ({"a": [{"b": 1, "c": 2}]}, {"a": [{"b": 1}]}, True),
        ({"a": [1]}, {"a": 1}, False),
        ({"a": 1}, {"a": True}, False),
        ({"a": None}, {"a": None}, True),
        ({}, {"a": None}, False),
        ({"a": "北京"}, {"a": "北京"}, True),
        ({"a": []}, {"a": []}, True),
    ],
)
async def test_containment_is_that_of_postgres(
    db: Database, held: Any, wanted: Any, *, found: bool
) -> None:
    assert byvalue.contains(held, wanted) is found
    async with db.connection() as conn:
        row = await (
            await conn.execute(
                "select %s::jsonb @> %s::jsonb as held",
                [text(held), text(wanted)],
            )
        ).fetchone()
    assert row is not None
    assert row["held"] is found


async def test_where_one_thread_cannot_be_read_no_other_is_read_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[str] = []

    async def show(_clew: Any, thread: str) -> Any:
        try:
            if thread == "broken":
                raise errors.NotFound(thread)
            await asyncio.Event().wait()
        finally:
            ended.append(thread)

    monkeypatch.setattr(byvalue, "show", show)
    threads: Any = ["one", "broken", "two"]
    with pytest.raises(errors.NotFound, match="broken"):
        await byvalue.shown(cast("Any", None), threads)
    assert sorted(ended) == ["broken", "one", "two"]


def text(value: Any) -> str:
    return json.dumps(value)


async def test_a_search_that_cannot_be_complete_is_refused(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(byvalue, "MOST", 3)
    async with serve(dsn) as url, httpx.AsyncClient(base_url=url) as http:
        for n in range(4):
            body = {"assistant_id": "steps", "input": {"x": [str(n)]}, "if_not_exists": "create"}
            at = f"00000000-0000-4000-8000-00000000000{n}"
            await http.post(f"/threads/{at}/runs/wait", json=body)
        # The newest first: found among the first three, with one more page to come.
        near = {"values": {"x": ["3"]}, "limit": 1}
        refused = await http.post("/threads/search", json=near)
        assert (refused.status_code, refused.json()["option"]) == (422, "values")
        assert "narrow the search" in refused.json()["detail"]
        assert (await http.post("/threads/count", json=near)).status_code == 422
        enough = await http.post("/threads/search", json={"values": {"n": 1}, "limit": 1})
        assert enough.headers["x-pagination-next"] == "1"
        some = {"ids": [f"00000000-0000-4000-8000-00000000000{n}" for n in range(2)]}
        found = await http.post("/threads/search", json={"values": {"x": ["1"]}, **some})
        assert [thread["thread_id"][-1] for thread in found.json()] == ["1"]


async def test_a_thread_of_a_graph_that_is_gone_spoils_no_list(dsn: str) -> None:
    async with serve(dsn) as url, httpx.AsyncClient(base_url=url) as http:
        made = await http.post("/threads", json={"metadata": {"graph_id": "renamed"}})
        assert (made.status_code, made.json()["values"]) == (200, None)
        body = {"assistant_id": "steps", "input": {"x": []}, "on_completion": "keep"}
        await http.post("/runs/wait", json=body)
        listed = (await http.post("/threads/search", json={})).json()
        assert [thread["values"] for thread in listed] == [{"x": ["one", "two"], "n": 1}, None]
        found = (await http.post("/threads/search", json={"values": {"n": 1}})).json()
        assert [thread["thread_id"] for thread in found] == [listed[0]["thread_id"]]
        at = made.json()["thread_id"]
        assert (await http.get(f"/threads/{at}")).status_code == 200
        state = await http.get(f"/threads/{at}/state")
        assert (state.status_code, "renamed" in state.json()["detail"]) == (404, True)


async def test_with_encryption_on_it_is_refused(dsn: str) -> None:
    keys = f"k1:{base64.b64encode(secrets.token_bytes(32)).decode()}"
    async with (
        serve(dsn, encryption_keys=keys) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        for path in ("/threads/search", "/threads/count"):
            answer = await http.post(path, json={"values": {"n": 1}})
            assert (answer.status_code, answer.json()["code"]) == (422, "unsupported")
            assert answer.json()["option"] == "values"
        assert (await http.post("/threads/search", json={"values": {}})).status_code == 200
