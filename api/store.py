"""The long-term memory over HTTP. A caller reaches its own items only, whatever a namespace says;
the handlers of langgraph.json may rewrite the namespace of each request.
"""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from langgraph.store.base import Item
from pydantic import BeforeValidator, Field

from clew.api.auth import Caller, Who
from clew.api.deps import Clew, Parts
from clew.api.reply import Reply
from clew.api.schema import Body, Json, Offset
from clew.runtime import errors
from clew.runtime.store import Store

routes = APIRouter(prefix="/store", tags=["store"])

Namespace = list[str]
# The official clients send an empty value for what they were not given.
Flag = Annotated[bool | None, BeforeValidator(lambda value: None if value == "" else value)]


class Put(Body):
    namespace: Namespace
    key: str = Field(min_length=1)
    value: Json
    index: Literal[False] | list[str] | None = None
    ttl: float | None = Field(None, gt=0)  # minutes


class Delete(Body):
    namespace: Namespace
    key: str


class Search(Body):
    namespace_prefix: Namespace = Field(default_factory=list[str])
    filter: Json | None = None
    limit: int = Field(10, ge=0, le=1000)
    offset: Offset = 0
    query: str | None = None
    refresh_ttl: bool | None = None


class Listing(Body):
    prefix: Namespace | None = None
    suffix: Namespace | None = None
    max_depth: int | None = Field(None, ge=1, le=2**31 - 1)
    limit: int = Field(100, ge=0, le=1000)
    offset: Offset = 0


@routes.put("/items", status_code=204)
async def put(clew: Clew, who: Who, body: Put) -> Response:
    """Keep an item, or replace it."""
    value: Json = {
        "namespace": labels(body.namespace),
        "key": body.key,
        "value": body.value,
        "index": body.index,
    }
    await who.authorize("store", "put", value)
    # Without a ttl the store's own default counts.
    more: Json = {} if body.ttl is None else {"ttl": body.ttl}
    await store(clew, who).aput(
        writable(value["namespace"]), value["key"], value["value"], value["index"], **more
    )
    return Response(status_code=204, headers=body.notice())


@routes.get("/items")
async def get(
    clew: Clew,
    who: Who,
    key: str | None = None,
    namespace: str = "",
    refresh_ttl: Annotated[Flag, Query()] = None,
) -> Reply:
    """One item, or `null` where there is none."""
    if not key:
        raise errors.BadRequest("Key is required")
    split = namespace.split(".") if namespace else []
    value: Json = {"namespace": labels(split), "key": key}
    await who.authorize("store", "get", value)
    item = await store(clew, who).aget(
        labels(value["namespace"]), value["key"], refresh_ttl=refresh_ttl
    )
    return Reply(shown(item) if item is not None else None)


@routes.delete("/items", status_code=204)
async def delete(clew: Clew, who: Who, body: Delete) -> Response:
    """Forget an item; one that is not there is forgotten already."""
    value: Json = {"namespace": labels(body.namespace), "key": body.key}
    await who.authorize("store", "delete", value)
    await store(clew, who).adelete(writable(value["namespace"]), value["key"])
    return Response(status_code=204, headers=body.notice())


@routes.post("/items/search")
async def search(clew: Clew, who: Who, body: Search) -> Reply:
    """Items below a namespace, by conditions on their values, by words or by meaning."""
    value: Json = {
        "namespace": labels(body.namespace_prefix),
        "filter": body.filter,
        "limit": body.limit,
        "offset": body.offset,
        "query": body.query,
    }
    await who.authorize("store", "search", value)
    items = await store(clew, who).asearch(
        labels(value["namespace"]),
        query=value["query"],
        filter=value["filter"],
        limit=value["limit"],
        offset=value["offset"],
        refresh_ttl=body.refresh_ttl,
    )
    found = [{**shown(item), "score": item.score} for item in items]
    return Reply({"items": found}, headers=body.notice())


@routes.post("/namespaces")
async def namespaces(clew: Clew, who: Who, body: Listing) -> Reply:
    """The namespaces in use, cut at a depth where one is given."""
    value: Json = {
        "namespace": None if body.prefix is None else labels(body.prefix),
        "suffix": None if body.suffix is None else labels(body.suffix),
        "max_depth": body.max_depth,
        "limit": body.limit,
        "offset": body.offset,
    }
    await who.authorize("store", "list_namespaces", value)
    found = await store(clew, who).alist_namespaces(
        prefix=labels(value["namespace"] or ()),
        suffix=labels(value["suffix"] or ()),
        max_depth=value["max_depth"],
        limit=value["limit"],
        offset=value["offset"],
    )
    return Reply({"namespaces": found}, headers=body.notice())


def store(clew: Parts, who: Caller) -> Store:
    """The memory of the caller. An admin reaches another's by acting for them."""
    if not isinstance(clew.store, Store):
        raise errors.Unavailable("this server keeps no long-term memory")
    return clew.store.bind(who.owner_id)


def labels(namespace: Any) -> tuple[str, ...]:
    """The labels of a namespace, from the request or from a handler that rewrote it."""
    for label in namespace:
        if not isinstance(label, str) or not label or "." in label or "\x00" in label:
            raise errors.Invalid(
                f"Namespace label '{label}' must be a non-empty string without periods"
            )
    return tuple(namespace)


def writable(namespace: Any) -> tuple[str, ...]:
    found = labels(namespace)
    if not found:
        raise errors.BadRequest("Namespace cannot be empty.")
    if found[0] == "langgraph":
        raise errors.BadRequest('Root label for namespace cannot be "langgraph".')
    return found


def shown(item: Item) -> Json:
    return {
        "namespace": item.namespace,
        "key": item.key,
        "value": item.value,
        "created_at": item.created_at,
        "updated_at": item.updated_at,
    }
