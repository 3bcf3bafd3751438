"""Every method of the clients' `store`."""

import uuid
from typing import Any

import pytest
from langgraph_sdk.errors import BadRequestError, UnprocessableEntityError

from tests.sdk.official import Official, shows


def place() -> list[str]:
    return ["sdk", uuid.uuid4().hex]


@shows("store.put_item", "PUT /store/items")
@shows("store.get_item", "GET /store/items")
async def test_an_item_is_kept_and_read(official: Official) -> None:
    at = place()
    await official.store.put_item(at, "k", {"likes": "茶"}, index=False, ttl=60)
    item = await official.store.get_item(at, "k", refresh_ttl=True)
    assert (item["namespace"], item["key"], item["value"]) == (at, "k", {"likes": "茶"})
    assert item["created_at"] == item["updated_at"]
    await official.store.put_item(at, "k", {"likes": "coffee"})
    again = await official.store.get_item(at, "k")
    assert again["value"] == {"likes": "coffee"}
    assert again["updated_at"] > item["updated_at"]
    assert await official.store.get_item(at, "nothing") is None
    with pytest.raises(BadRequestError, match="Namespace cannot be empty"):
        await official.store.put_item([], "k", {})
    with pytest.raises(BadRequestError, match="Root label"):
        await official.store.put_item(["langgraph"], "k", {})


@shows("store.delete_item", "DELETE /store/items")
async def test_an_item_is_forgotten(official: Official) -> None:
    at = place()
    await official.store.put_item(at, "k", {})
    await official.store.delete_item(at, "k")
    assert await official.store.get_item(at, "k") is None
    await official.store.delete_item(at, "k")


@shows("store.search_items", "POST /store/items/search")
async def test_items_are_found_below_a_namespace(official: Official) -> None:
    at = place()
    for n in range(3):
        await official.store.put_item([*at, str(n)], "k", {"n": n, "text": f"number {n}"})

    async def found(**given: Any) -> list[int]:
        answer = await official.store.search_items(at, **given)
        return sorted(item["value"]["n"] for item in answer["items"])

    assert await found() == [0, 1, 2]
    assert await found(filter={"n": 1}) == [1]
    assert await found(filter={"n": {"$gte": 1}}) == [1, 2]
    assert len(await found(limit=1, offset=1)) == 1
    assert await found(query="number 2", limit=1, refresh_ttl=False) == [2]
    other = await official.store.search_items(place())
    assert other == {"items": []}


@shows("store.list_namespaces", "POST /store/namespaces")
async def test_namespaces_are_listed(official: Official) -> None:
    root = place()
    for user in ("u1", "u2"):
        for kind in ("notes", "tasks"):
            await official.store.put_item([*root, user, kind], "k", {})

    async def found(**given: Any) -> list[list[str]]:
        answer = await official.store.list_namespaces(prefix=root, **given)
        return sorted(namespace[2:] for namespace in answer["namespaces"])

    assert await found() == [["u1", "notes"], ["u1", "tasks"], ["u2", "notes"], ["u2", "tasks"]]
    assert await found(suffix=["notes"]) == [["u1", "notes"], ["u2", "notes"]]
    assert await found(max_depth=3) == [["u1"], ["u2"]]
    assert len(await found(limit=2, offset=1)) == 2


async def test_a_label_with_a_period_is_refused_before_it_is_sent_and_by_the_server(
    official: Official,
) -> None:
    with pytest.raises(
        (ValueError, UnprocessableEntityError), match=r"without periods|cannot contain"
    ):
        await official.store.put_item(["a.b"], "k", {})
