"""Threads: CRUD, search, count, copy, prune, and bad requests."""

from tests.compat.side import Side


async def crud(s: Side) -> None:
    one = s.id("one")
    body = {"thread_id": one, "metadata": {"a": 1, "名": "值"}}
    await s.send("create", "POST", "/threads", body)
    await s.send("create again", "POST", "/threads", body)
    await s.send(
        "do nothing", "POST", "/threads", {**body, "metadata": {}, "if_exists": "do_nothing"}
    )
    await s.send("read", "GET", f"/threads/{one}")
    await s.send("read ttl", "GET", f"/threads/{one}?include=ttl")
    await s.send("patch", "PATCH", f"/threads/{one}", {"metadata": {"b": {"c": 2}, "a": None}})
    await s.send(
        "patch minimal",
        "PATCH",
        f"/threads/{one}",
        {"metadata": {"d": 1}},
        headers={"Prefer": "return=minimal"},
    )
    await s.send("patch nothing", "PATCH", f"/threads/{one}", {})
    await s.send("patch null", "PATCH", f"/threads/{one}", {"metadata": None})
    await s.send("read again", "GET", f"/threads/{one}")
    await s.send("state", "GET", f"/threads/{one}/state")
    await s.send("history", "POST", f"/threads/{one}/history", {})
    await s.send("runs", "GET", f"/threads/{one}/runs")
    await s.send("delete", "DELETE", f"/threads/{one}")
    await s.send("delete again", "DELETE", f"/threads/{one}")
    await s.send("read deleted", "GET", f"/threads/{one}")
    made = await s.send("bare", "POST", "/threads", {})
    s.name(made["thread_id"], "bare")
    await s.send("empty body", "POST", "/threads", content=b"")
    await s.send(
        "graph", "POST", "/threads", {"thread_id": s.id("graph"), "metadata": {"graph_id": "steps"}}
    )


async def after_runs(s: Side) -> None:
    for graph, given in (
        ("echo", {"messages": [{"role": "user", "content": "hi", "id": "m1"}]}),
        ("steps", {"x": ["in"]}),
        ("ask", {"x": ["in"]}),
        ("twice", {}),
        ("fails", {"x": ["in"]}),
        ("parent", {"x": ["in"]}),
    ):
        thread = await s.thread(graph, metadata={"mine": 1})
        body = {"assistant_id": graph, "input": given, "metadata": {"run": "meta"}}
        await s.ask("POST", f"/threads/{thread}/runs/wait", body)
        await s.idle(thread)
        await s.send(f"read {graph}", "GET", f"/threads/{thread}")


async def search(s: Side) -> None:
    for number, name in enumerate(("a", "b", "c")):
        await s.thread(
            name, metadata={"set": "threads.search", "n": number, "deep": {"k": [1, number]}}
        )
    await s.ask(
        "POST", f"/threads/{s.id('a')}/runs/wait", {"assistant_id": "ask", "input": {"x": ["in"]}}
    )
    await s.ask(
        "POST", f"/threads/{s.id('b')}/runs/wait", {"assistant_id": "steps", "input": {"x": ["in"]}}
    )
    await s.idle(s.id("a"))
    await s.idle(s.id("b"))
    own = {"metadata": {"set": "threads.search"}}
    to = "/threads/search"
    await s.send("all", "POST", to, own)
    await s.send("page", "POST", to, {**own, "limit": 2})
    await s.send("next page", "POST", to, {**own, "limit": 2, "offset": 2})
    await s.send("beyond", "POST", to, {**own, "offset": 7})
    await s.send(
        "ids",
        "POST",
        to,
        {"ids": [s.id("a"), s.id("c")], "sort_by": "thread_id", "select": ["thread_id"]},
    )
    await s.send("no ids", "POST", to, {**own, "ids": []})
    await s.send(
        "status",
        "POST",
        to,
        {**own, "status": "interrupted", "select": ["thread_id", "status", "interrupts"]},
    )
    await s.send(
        "deep",
        "POST",
        to,
        {
            "metadata": {"set": "threads.search", "deep": {"k": [1]}},
            "select": ["thread_id"],
            "sort_by": "thread_id",
        },
    )
    await s.send(
        "values",
        "POST",
        to,
        {"ids": [s.id("a"), s.id("b")], "values": {"n": 1}, "select": ["thread_id", "values"]},
    )
    for sort in ("thread_id", "status", "created_at", "updated_at", "state_updated_at"):
        if sort != "state_updated_at":
            await s.send(
                f"sort {sort}",
                "POST",
                to,
                {**own, "sort_by": sort, "sort_order": "asc", "select": ["thread_id", "status"]},
            )
    await s.send(
        "select", "POST", to, {**own, "select": ["thread_id", "metadata", "config", "values"]}
    )
    await s.send(
        "extract",
        "POST",
        to,
        {
            "ids": [s.id("b")],
            "select": ["thread_id"],
            "extract": {
                "first": "values.x[0]",
                "last": "values.x[-1]",
                "none": "values.nope",
                "m": "metadata.deep.k",
            },
        },
    )
    await s.send(
        "extract too many", "POST", to, {"extract": {f"k{n}": "values.x" for n in range(11)}}
    )
    await s.send("extract bad", "POST", to, {"extract": {"a": "nope.x"}})
    await s.send("count", "POST", "/threads/count", own)
    await s.send("count status", "POST", "/threads/count", {**own, "status": "idle"})
    await s.send("count nothing", "POST", "/threads/count", {"metadata": {"set": "nobody"}})
    await s.send("bad status", "POST", to, {"status": "nope"})
    await s.send("bad sort", "POST", to, {"sort_by": "nope"})
    await s.send("bad order", "POST", to, {"sort_order": "nope"})
    await s.send("bad select", "POST", to, {"select": ["nope"]})
    await s.send("limit 0", "POST", to, {"limit": 0})
    await s.send("limit 1001", "POST", to, {"limit": 1001})
    await s.send("bad ids", "POST", to, {"ids": ["x"]})
    await s.send("bad metadata", "POST", to, {"metadata": "x"})


async def copy(s: Side) -> None:
    thread = await s.thread(metadata={"a": 1})
    for text in ("one", "two"):
        await s.ask(
            "POST",
            f"/threads/{thread}/runs/wait",
            {"assistant_id": "steps", "input": {"x": [text]}},
        )
    await s.idle(thread)
    made = await s.send("copy", "POST", f"/threads/{thread}/copy")
    twin = s.name(made["thread_id"], "twin")
    await s.send("read", "GET", f"/threads/{twin}")
    await s.send("state", "GET", f"/threads/{twin}/state")
    await s.send("history", "POST", f"/threads/{twin}/history", {"limit": 20})
    await s.send("runs", "GET", f"/threads/{twin}/runs")
    await s.send(
        "run",
        "POST",
        f"/threads/{twin}/runs/wait",
        {"assistant_id": "steps", "input": {"x": ["three"]}},
    )
    await s.send("original", "GET", f"/threads/{thread}/state")
    await s.send("unknown", "POST", f"/threads/{s.id('nope')}/copy")
    await s.send("bad id", "POST", "/threads/x/copy")


async def supersteps(s: Side) -> None:
    steps = [
        {"updates": [{"values": {"x": ["a"]}, "as_node": "__input__"}]},
        {"updates": [{"values": {"x": ["b"]}, "as_node": "one"}]},
    ]
    body = {"thread_id": s.id("one"), "metadata": {"graph_id": "steps"}, "supersteps": steps}
    await s.send("create", "POST", "/threads", body)
    await s.send("state", "GET", f"/threads/{s.id('one')}/state")
    await s.send("history", "POST", f"/threads/{s.id('one')}/history", {"limit": 10})
    await s.send("go on", "POST", f"/threads/{s.id('one')}/runs/wait", {"assistant_id": "steps"})
    await s.send("no graph", "POST", "/threads", {"thread_id": s.id("two"), "supersteps": steps})
    wrong = [{"updates": [{"values": {"x": ["a"]}, "as_node": "nope"}]}]
    await s.send(
        "bad node", "POST", "/threads", {**body, "thread_id": s.id("three"), "supersteps": wrong}
    )


async def prune(s: Side) -> None:
    one, two = await s.thread("one"), await s.thread("two")
    await s.send("prune", "POST", "/threads/prune", {"thread_ids": [one, s.id("nobody")]})
    await s.send("gone", "GET", f"/threads/{one}")
    await s.send("there", "GET", f"/threads/{two}")
    await s.send("bad strategy", "POST", "/threads/prune", {"thread_ids": [two], "strategy": "x"})
    await s.send("bad ids", "POST", "/threads/prune", {"thread_ids": ["x"]})
    await s.send("nothing", "POST", "/threads/prune", {})


async def bad(s: Side) -> None:
    missing = s.id("missing")
    for method, path in (
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("GET", "/state"),
        ("POST", "/state"),
        ("POST", "/state/checkpoint"),
        ("GET", "/history"),
        ("POST", "/history"),
        ("GET", "/runs"),
        ("GET", f"/runs/{s.id('run')}"),
        ("GET", f"/runs/{s.id('run')}/join"),
        ("DELETE", f"/runs/{s.id('run')}"),
        ("POST", f"/runs/{s.id('run')}/cancel"),
        ("GET", f"/state/{s.id('checkpoint')}"),
    ):
        body = {} if method in ("POST", "PATCH") else None
        await s.send(f"{method} missing{path}", method, f"/threads/{missing}{path}", body)
        await s.send(f"{method} not a uuid{path}", method, f"/threads/x{path}", body)
    await s.send("create id", "POST", "/threads", {"thread_id": "x"})
    await s.send("create metadata", "POST", "/threads", {"metadata": []})
    await s.send("create if_exists", "POST", "/threads", {"if_exists": "x"})
    await s.send("create ttl", "POST", "/threads", {"ttl": {"ttl": "x"}})
    await s.send("create broken", "POST", "/threads", content=b"{")
    await s.send("create list", "POST", "/threads", [1])
    await s.send("put", "PUT", f"/threads/{missing}")
    await s.send("get search", "GET", "/threads/search")
    await s.send("unknown path", "GET", f"/threads/{missing}/nope")
