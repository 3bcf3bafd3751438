"""The store: put, get, delete, search, namespaces, and bad requests."""

from tests.compat.side import Side

ITEMS = "/store/items"


async def items(s: Side) -> None:
    ns = ["users", "甲"]
    await s.send(
        "put", "PUT", ITEMS, {"namespace": ns, "key": "k", "value": {"a": 1, "b": {"c": [1]}}}
    )
    await s.send("get", "GET", f"{ITEMS}?namespace=users.甲&key=k")
    await s.send("put again", "PUT", ITEMS, {"namespace": ns, "key": "k", "value": {"a": 2}})
    await s.send("get again", "GET", f"{ITEMS}?namespace=users.甲&key=k&refresh_ttl=false")
    await s.send(
        "put index", "PUT", ITEMS, {"namespace": ns, "key": "l", "value": {"a": 3}, "index": False}
    )
    await s.send(
        "put ttl", "PUT", ITEMS, {"namespace": ns, "key": "m", "value": {"a": 4}, "ttl": 60}
    )
    await s.send("missing", "GET", f"{ITEMS}?namespace=users.甲&key=nope")
    await s.send("missing namespace", "GET", f"{ITEMS}?namespace=nope&key=k")
    await s.send("search", "POST", f"{ITEMS}/search", {"namespace_prefix": ["users"]})
    await s.send(
        "search filter",
        "POST",
        f"{ITEMS}/search",
        {"namespace_prefix": ["users"], "filter": {"a": 3}},
    )
    for operator, value in (
        ("$gt", 2),
        ("$gte", 3),
        ("$lt", 4),
        ("$lte", 3),
        ("$ne", 3),
        ("$eq", 4),
    ):
        await s.send(
            f"search {operator}",
            "POST",
            f"{ITEMS}/search",
            {"namespace_prefix": ["users"], "filter": {"a": {operator: value}}},
        )
    await s.send(
        "search page",
        "POST",
        f"{ITEMS}/search",
        {"namespace_prefix": ["users"], "limit": 1, "offset": 1},
    )
    await s.send("search nothing", "POST", f"{ITEMS}/search", {"namespace_prefix": ["nobody"]})
    await s.send(
        "search query", "POST", f"{ITEMS}/search", {"namespace_prefix": ["users"], "query": "x"}
    )
    await s.send(
        "search bad operator",
        "POST",
        f"{ITEMS}/search",
        {"namespace_prefix": ["users"], "filter": {"a": {"$like": 3}}},
    )
    await s.send("delete", "DELETE", ITEMS, {"namespace": ns, "key": "k"})
    await s.send("delete again", "DELETE", ITEMS, {"namespace": ns, "key": "k"})
    await s.send("get deleted", "GET", f"{ITEMS}?namespace=users.甲&key=k")


async def namespaces(s: Side) -> None:
    for ns in (["n", "a", "x"], ["n", "a", "y"], ["n", "b"], ["n"]):
        await s.ask("PUT", ITEMS, {"namespace": ns, "key": "k", "value": {"a": 1}})
    to = "/store/namespaces"
    await s.send("prefix", "POST", to, {"prefix": ["n"]})
    await s.send("suffix", "POST", to, {"prefix": ["n"], "suffix": ["x"]})
    await s.send("depth", "POST", to, {"prefix": ["n"], "max_depth": 2})
    await s.send("page", "POST", to, {"prefix": ["n"], "limit": 2, "offset": 1})
    await s.send("wildcard", "POST", to, {"prefix": ["n", "*", "x"]})
    await s.send("nothing", "POST", to, {"prefix": ["nobody"]})


async def bad(s: Side) -> None:
    await s.send("period", "PUT", ITEMS, {"namespace": ["a.b"], "key": "k", "value": {}})
    await s.send("empty label", "PUT", ITEMS, {"namespace": [""], "key": "k", "value": {}})
    await s.send("empty namespace", "PUT", ITEMS, {"namespace": [], "key": "k", "value": {}})
    await s.send("reserved", "PUT", ITEMS, {"namespace": ["langgraph"], "key": "k", "value": {}})
    await s.send("no key", "PUT", ITEMS, {"namespace": ["a"], "value": {}})
    await s.send("no value", "PUT", ITEMS, {"namespace": ["a"], "key": "k"})
    await s.send("value text", "PUT", ITEMS, {"namespace": ["a"], "key": "k", "value": "x"})
    await s.send("value list", "PUT", ITEMS, {"namespace": ["a"], "key": "k", "value": [1]})
    await s.send("namespace text", "PUT", ITEMS, {"namespace": "a", "key": "k", "value": {}})
    await s.send("bad ttl", "PUT", ITEMS, {"namespace": ["a"], "key": "k", "value": {}, "ttl": "x"})
    await s.send(
        "bad index", "PUT", ITEMS, {"namespace": ["a"], "key": "k", "value": {}, "index": 7}
    )
    await s.send("empty", "PUT", ITEMS, content=b"")
    await s.send("get no key", "GET", f"{ITEMS}?namespace=a")
    await s.send("get no namespace", "GET", f"{ITEMS}?key=a")
    await s.send("get bad namespace", "GET", f"{ITEMS}?namespace=a..b&key=k")
    await s.send("delete nothing", "DELETE", ITEMS, {})
    await s.send("delete period", "DELETE", ITEMS, {"namespace": ["a.b"], "key": "k"})
    await s.send("search nothing", "POST", f"{ITEMS}/search", {})
    await s.send("search limit", "POST", f"{ITEMS}/search", {"namespace_prefix": [], "limit": "x"})
    await s.send(
        "search limit 0", "POST", f"{ITEMS}/search", {"namespace_prefix": ["zz"], "limit": 0}
    )
    await s.send("search period", "POST", f"{ITEMS}/search", {"namespace_prefix": ["a.b"]})
    await s.send("namespaces nothing", "POST", "/store/namespaces", {})
    await s.send("namespaces period", "POST", "/store/namespaces", {"prefix": ["a.b"]})
    await s.send("namespaces depth", "POST", "/store/namespaces", {"max_depth": "x"})
