"""Assistants: CRUD, versions, schemas, drawings, subgraphs, search, count, and bad requests."""

from tests.compat.side import GRAPHS, Side, uuid_of


async def crud(s: Side) -> None:
    one = s.id("one")
    body = {
        "assistant_id": one,
        "graph_id": "steps",
        "name": "第一",
        "config": {"configurable": {"a": 1}, "tags": ["t"], "recursion_limit": 7},
        "metadata": {"set": "crud"},
        "description": "first",
    }
    await s.send("create", "POST", "/assistants", body)
    await s.send("create again", "POST", "/assistants", body)
    await s.send("do nothing", "POST", "/assistants", {**body, "if_exists": "do_nothing"})
    await s.send("read", "GET", f"/assistants/{one}")
    await s.send("patch name", "PATCH", f"/assistants/{one}", {"name": "uno", "metadata": {"b": 2}})
    await s.send("patch config", "PATCH", f"/assistants/{one}", {"config": {"tags": ["u"]}})
    await s.send("patch context", "PATCH", f"/assistants/{one}", {"context": {"k": "v"}})
    await s.send("patch graph", "PATCH", f"/assistants/{one}", {"graph_id": "echo"})
    await s.send("patch nothing", "PATCH", f"/assistants/{one}", {})
    await s.send("patch unknown graph", "PATCH", f"/assistants/{one}", {"graph_id": "nope"})
    both = {"context": {"k": 1}, "config": {"configurable": {"z": 1}}}
    await s.send("patch both", "PATCH", f"/assistants/{one}", both)
    await s.send("versions", "POST", f"/assistants/{one}/versions", {})
    await s.send("versions page", "POST", f"/assistants/{one}/versions", {"limit": 2, "offset": 1})
    await s.send("versions filter", "POST", f"/assistants/{one}/versions", {"metadata": {"b": 2}})
    await s.send("latest", "POST", f"/assistants/{one}/latest", {"version": 1})
    await s.send("read after latest", "GET", f"/assistants/{one}")
    await s.send("patch after latest", "PATCH", f"/assistants/{one}", {"name": "neu"})
    await s.send("latest unknown", "POST", f"/assistants/{one}/latest", {"version": 99})
    await s.send("latest nothing", "POST", f"/assistants/{one}/latest", {})
    await s.send("delete", "DELETE", f"/assistants/{one}")
    await s.send("read deleted", "GET", f"/assistants/{one}")
    await s.send("delete again", "DELETE", f"/assistants/{one}")
    await s.send("versions deleted", "POST", f"/assistants/{one}/versions", {})


async def defaults(s: Side) -> None:
    made = await s.send("bare", "POST", "/assistants", {"graph_id": "echo"})
    s.name(made["assistant_id"], "bare")
    more = await s.send(
        "context", "POST", "/assistants", {"graph_id": "context", "context": {"name": "x"}}
    )
    s.name(more["assistant_id"], "context")
    both = {"graph_id": "echo", "context": {"a": 1}, "config": {"configurable": {"b": 1}}}
    await s.send("both", "POST", "/assistants", both)
    await s.send(
        "null name",
        "POST",
        "/assistants",
        {"graph_id": "echo", "name": None, "metadata": {"gone": 1}},
    )
    await s.send("unknown graph", "POST", "/assistants", {"graph_id": "nope"})
    await s.send("no graph", "POST", "/assistants", {})
    for reply in (made, more):
        await s.ask("DELETE", f"/assistants/{reply['assistant_id']}")
    found = await s.ask("POST", "/assistants/search", {"metadata": {"gone": 1}})
    for item in found.body:
        await s.ask("DELETE", f"/assistants/{item['assistant_id']}")


async def drawings(s: Side) -> None:
    for graph in ("echo", "steps", "parent", "tools", "twice"):
        await s.send(f"graph {graph}", "GET", f"/assistants/{uuid_of(graph)}/graph")
        await s.send(f"schemas {graph}", "GET", f"/assistants/{uuid_of(graph)}/schemas")
        await s.send(f"subgraphs {graph}", "GET", f"/assistants/{uuid_of(graph)}/subgraphs")
    await s.send("schemas context", "GET", f"/assistants/{uuid_of('context')}/schemas")
    await s.send("xray", "GET", f"/assistants/{uuid_of('parent')}/graph?xray=true")
    await s.send("xray 1", "GET", f"/assistants/{uuid_of('parent')}/graph?xray=1")
    await s.send("xray 0", "GET", f"/assistants/{uuid_of('parent')}/graph?xray=0")
    await s.send("xray bad", "GET", f"/assistants/{uuid_of('parent')}/graph?xray=deep")
    await s.send("graph by name", "GET", "/assistants/parent/graph")
    await s.send("graph by unknown name", "GET", "/assistants/nope/graph")
    await s.send("recurse", "GET", f"/assistants/{uuid_of('parent')}/subgraphs?recurse=true")
    await s.send("subgraph", "GET", f"/assistants/{uuid_of('parent')}/subgraphs/child")
    await s.send("no such subgraph", "GET", f"/assistants/{uuid_of('parent')}/subgraphs/nope")
    missing = s.id("missing")
    for what in ("", "/graph", "/schemas", "/subgraphs"):
        await s.send(f"missing{what}", "GET", f"/assistants/{missing}{what}")
        if what != "/graph":
            await s.send(f"by name{what}", "GET", f"/assistants/echo{what}")


async def search(s: Side) -> None:
    for number, name in enumerate(("Alpha", "beta", "Gamma")):
        await s.ask(
            "POST",
            "/assistants",
            {
                "assistant_id": s.id(name),
                "graph_id": ("echo", "steps", "echo")[number],
                "name": name,
                "metadata": {"set": "search", "n": number, "deep": {"a": [1, 2]}},
            },
        )
    own = {"metadata": {"set": "search"}}
    await s.send("all", "POST", "/assistants/search", own)
    await s.send("page 1", "POST", "/assistants/search", {**own, "limit": 2})
    await s.send("page 2", "POST", "/assistants/search", {**own, "limit": 2, "offset": 2})
    await s.send("beyond", "POST", "/assistants/search", {**own, "offset": 9})
    await s.send("by name", "POST", "/assistants/search", {**own, "name": "ALP"})
    await s.send("by wildcard", "POST", "/assistants/search", {**own, "name": "%"})
    await s.send("by graph", "POST", "/assistants/search", {**own, "graph_id": "echo"})
    await s.send("unknown graph", "POST", "/assistants/search", {"graph_id": "nope"})
    await s.send("deep", "POST", "/assistants/search", {"metadata": {"deep": {"a": [2]}}})
    for sort in ("name", "created_at", "updated_at", "graph_id", "assistant_id"):
        for order in ("asc", "desc"):
            body = {**own, "sort_by": sort, "sort_order": order, "select": ["name"]}
            if sort != "graph_id":  # two of them tie
                await s.send(f"sort {sort} {order}", "POST", "/assistants/search", body)
    await s.send("order alone", "POST", "/assistants/search", {**own, "sort_order": "asc"})
    await s.send("bad sort", "POST", "/assistants/search", {"sort_by": "nope"})
    await s.send("bad order", "POST", "/assistants/search", {"sort_order": "up"})
    await s.send("bad select", "POST", "/assistants/search", {"select": ["nope"]})
    await s.send(
        "select", "POST", "/assistants/search", {**own, "select": ["assistant_id", "version"]}
    )
    await s.send("limit 0", "POST", "/assistants/search", {"limit": 0})
    await s.send("limit 1001", "POST", "/assistants/search", {"limit": 1001})
    await s.send("limit text", "POST", "/assistants/search", {"limit": "many"})
    await s.send("offset -1", "POST", "/assistants/search", {"offset": -1})
    await s.send("count", "POST", "/assistants/count", own)
    await s.send("count name", "POST", "/assistants/count", {**own, "name": "a"})
    await s.send("count graph", "POST", "/assistants/count", {**own, "graph_id": "steps"})
    await s.send("count unknown graph", "POST", "/assistants/count", {"graph_id": "nope"})
    await s.send(
        "system",
        "POST",
        "/assistants/search",
        {
            "metadata": {"created_by": "system"},
            "sort_by": "name",
            "sort_order": "asc",
            "limit": len(GRAPHS),
        },
    )
    for name in ("Alpha", "beta", "Gamma"):
        await s.ask("DELETE", f"/assistants/{s.id(name)}")


async def delete_with_threads(s: Side) -> None:
    assistant = s.id("assistant")
    await s.ask("POST", "/assistants", {"assistant_id": assistant, "graph_id": "echo"})
    thread = await s.thread()
    await s.ask(
        "POST",
        f"/threads/{thread}/runs/wait",
        {"assistant_id": assistant, "input": {"messages": "x"}},
    )
    await s.send("delete", "DELETE", f"/assistants/{assistant}?delete_threads=true")
    await s.send("thread", "GET", f"/threads/{thread}")


async def bad(s: Side) -> None:
    await s.send("id", "POST", "/assistants", {"graph_id": "echo", "assistant_id": "x"})
    await s.send("metadata", "POST", "/assistants", {"graph_id": "echo", "metadata": []})
    await s.send("config", "POST", "/assistants", {"graph_id": "echo", "config": "x"})
    await s.send("if_exists", "POST", "/assistants", {"graph_id": "echo", "if_exists": "maybe"})
    await s.send("empty body", "POST", "/assistants", content=b"")
    await s.send(
        "broken body",
        "POST",
        "/assistants",
        content=b"{",
        headers={"content-type": "application/json"},
    )
    await s.send("list body", "POST", "/assistants", [])
    await s.send("get search", "GET", "/assistants/search")
    await s.send("put", "PUT", f"/assistants/{s.id('x')}")
    await s.send("patch missing", "PATCH", f"/assistants/{s.id('x')}", {"name": "y"})
