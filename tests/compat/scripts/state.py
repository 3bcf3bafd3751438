"""State and history: reading, updating, forking, replaying, and bad requests."""

from typing import Any

from tests.compat.side import Side


async def _steps(s: Side, name: str = "thread", graph: str = "steps") -> str:
    thread = await s.thread(name)
    body = {"assistant_id": graph, "input": {"x": ["in"]}}
    await s.ask("POST", f"/threads/{thread}/runs/wait", body)
    await s.idle(thread)
    return thread


async def _history(s: Side, thread: str) -> list[dict[str, Any]]:
    return (await s.ask("POST", f"/threads/{thread}/history", {"limit": 100})).body


async def reading(s: Side) -> None:
    thread = await _steps(s)
    at = f"/threads/{thread}"
    await s.send("state", "GET", f"{at}/state")
    await s.send("state subgraphs", "GET", f"{at}/state?subgraphs=true")
    await s.send(
        "state by checkpoint",
        "POST",
        f"{at}/state/checkpoint",
        {"checkpoint": {"thread_id": thread}},
    )
    history = (await s.send("history", "POST", f"{at}/history", {"limit": 10})).body
    ids = [item["checkpoint"]["checkpoint_id"] for item in history]
    for number in (0, 1, 3):
        await s.send(f"state at {number}", "GET", f"{at}/state/{ids[number]}")
        await s.send(
            f"state checkpoint at {number}",
            "POST",
            f"{at}/state/checkpoint",
            {"checkpoint": {"checkpoint_id": ids[number], "checkpoint_ns": ""}},
        )
    await s.send("unknown checkpoint", "GET", f"{at}/state/1f1e53e6-4a10-6000-8000-000000000000")
    await s.send("bad checkpoint", "GET", f"{at}/state/x")
    await s.send(
        "bad checkpoint body",
        "POST",
        f"{at}/state/checkpoint",
        {"checkpoint": {"checkpoint_id": "x"}},
    )
    await s.send("no checkpoint", "POST", f"{at}/state/checkpoint", {})
    await s.send("history default", "POST", f"{at}/history", {})
    await s.send("history get", "GET", f"{at}/history")
    await s.send("history get limit", "GET", f"{at}/history?limit=2")
    await s.send("history get before", "GET", f"{at}/history?limit=5&before={ids[1]}")
    await s.send(
        "history before config",
        "POST",
        f"{at}/history",
        {"limit": 5, "before": {"configurable": {"checkpoint_id": ids[1]}}},
    )
    await s.send(
        "history before checkpoint",
        "POST",
        f"{at}/history",
        {"limit": 5, "before": {"checkpoint_id": ids[1]}},
    )
    await s.send("history before id", "POST", f"{at}/history", {"limit": 5, "before": ids[1]})
    await s.send("history metadata", "POST", f"{at}/history", {"limit": 5, "metadata": {"step": 0}})
    await s.send(
        "history source", "POST", f"{at}/history", {"limit": 5, "metadata": {"source": "loop"}}
    )
    await s.send("history other", "POST", f"{at}/history", {"limit": 5, "metadata": {"step": 77}})
    await s.send("history limit 0", "POST", f"{at}/history", {"limit": 0})
    await s.send("history limit 1001", "POST", f"{at}/history", {"limit": 1001})
    await s.send("history limit text", "GET", f"{at}/history?limit=x")
    await s.send("history empty", "POST", f"{at}/history", content=b"")


async def updating(s: Side) -> None:
    thread = await _steps(s)
    at = f"/threads/{thread}"
    await s.send("update", "POST", f"{at}/state", {"values": {"x": ["new"]}, "as_node": "one"})
    await s.send("state", "GET", f"{at}/state")
    await s.send("thread", "GET", at)
    await s.send("go on", "POST", f"{at}/runs/wait", {"assistant_id": "steps"})
    await s.send("no node", "POST", f"{at}/state", {"values": {"x": ["more"]}})
    await s.send("null", "POST", f"{at}/state", {"values": None})
    await s.send("null as node", "POST", f"{at}/state", {"values": None, "as_node": "one"})
    await s.send("end", "POST", f"{at}/state", {"values": None, "as_node": "__end__"})
    await s.send("copy", "POST", f"{at}/state", {"values": None, "as_node": "__copy__"})
    await s.send("input", "POST", f"{at}/state", {"values": {"x": ["i"]}, "as_node": "__input__"})
    await s.send("after", "GET", f"{at}/state")
    await s.send(
        "unknown node", "POST", f"{at}/state", {"values": {"x": ["q"]}, "as_node": "bogus"}
    )
    await s.send("list", "POST", f"{at}/state", {"values": [1]})
    await s.send("text", "POST", f"{at}/state", {"values": "text"})
    await s.send("unknown key", "POST", f"{at}/state", {"values": {"nope": 1}, "as_node": "one"})
    await s.send("nothing", "POST", f"{at}/state", {})
    await s.send("empty", "POST", f"{at}/state", content=b"")
    await s.send("patch", "PATCH", f"{at}/state", {"metadata": {}})
    await s.send("history", "POST", f"{at}/history", {"limit": 50})
    fresh = await s.thread("fresh")
    await s.send("no graph", "POST", f"/threads/{fresh}/state", {"values": {"x": ["q"]}})
    named = await s.thread("named", metadata={"graph_id": "steps"})
    await s.send("first", "POST", f"/threads/{named}/state", {"values": {"x": ["q"]}})
    await s.send(
        "first as node",
        "POST",
        f"/threads/{named}/state",
        {"values": {"x": ["q"]}, "as_node": "one"},
    )
    await s.send("first state", "GET", f"/threads/{named}/state")
    await s.send("first thread", "GET", f"/threads/{named}")
    await s.send(
        "bad checkpoint", "POST", f"{at}/state", {"values": {"x": ["q"]}, "checkpoint_id": "x"}
    )


async def forking(s: Side) -> None:
    thread = await _steps(s)
    at = f"/threads/{thread}"
    history = await _history(s, thread)
    old = history[1]["checkpoint"]["checkpoint_id"]
    await s.send(
        "update",
        "POST",
        f"{at}/state",
        {
            "values": {"x": ["UPD"]},
            "as_node": "one",
            "checkpoint": {"checkpoint_id": old, "checkpoint_ns": ""},
        },
    )
    await s.send(
        "end", "POST", f"{at}/state", {"values": None, "as_node": "__end__", "checkpoint_id": old}
    )
    await s.send(
        "replay",
        "POST",
        f"{at}/runs/wait",
        {
            "assistant_id": "steps",
            "input": None,
            "checkpoint": {"checkpoint_id": old, "checkpoint_ns": ""},
        },
    )
    await s.idle(thread)
    await s.send(
        "anew",
        "POST",
        f"{at}/runs/wait",
        {"assistant_id": "steps", "input": {"x": ["new"]}, "checkpoint_id": old},
    )
    await s.idle(thread)
    await s.send("state", "GET", f"{at}/state")
    await s.send("history", "POST", f"{at}/history", {"limit": 50})
    await s.send(
        "unknown",
        "POST",
        f"{at}/runs/wait",
        {
            "assistant_id": "steps",
            "input": None,
            "checkpoint_id": "1f1e53e6-4a10-6000-8000-000000000000",
        },
    )
    await s.send(
        "bad",
        "POST",
        f"{at}/runs/wait",
        {"assistant_id": "steps", "input": None, "checkpoint_id": "x"},
    )
    await s.send(
        "bad in checkpoint",
        "POST",
        f"{at}/runs/wait",
        {"assistant_id": "steps", "input": None, "checkpoint": {"checkpoint_id": "x"}},
    )


async def interrupted(s: Side) -> None:
    for graph in ("ask", "parent", "twice"):
        thread = await _steps(s, graph, graph)
        at = f"/threads/{thread}"
        await s.send(f"state {graph}", "GET", f"{at}/state")
        await s.send(f"subgraphs {graph}", "GET", f"{at}/state?subgraphs=true")
        await s.send(f"history {graph}", "POST", f"{at}/history", {"limit": 10})
        await s.send(f"thread {graph}", "GET", at)


async def subgraph(s: Side) -> None:
    thread = await _steps(s, graph="parent")
    at = f"/threads/{thread}"
    state = (await s.ask("GET", f"{at}/state")).body
    ns = state["tasks"][0]["checkpoint"]["checkpoint_ns"]
    s.name(ns.partition(":")[2], "child task")
    await s.send("state", "POST", f"{at}/state/checkpoint", {"checkpoint": {"checkpoint_ns": ns}})
    await s.send(
        "history", "POST", f"{at}/history", {"limit": 10, "checkpoint": {"checkpoint_ns": ns}}
    )
    await s.send(
        "update",
        "POST",
        f"{at}/state",
        {"values": {"x": ["sub"]}, "checkpoint": {"checkpoint_ns": ns}, "as_node": "inner"},
    )
    await s.send("parent", "GET", f"{at}/state?subgraphs=true")
    await s.send(
        "resume",
        "POST",
        f"{at}/runs/wait",
        {"assistant_id": "parent", "command": {"resume": "yes"}},
    )
    await s.idle(thread)
    await s.send("done", "GET", f"{at}/state?subgraphs=true")


async def failed(s: Side) -> None:
    thread = await _steps(s, graph="fails")
    at = f"/threads/{thread}"
    await s.send("state", "GET", f"{at}/state")
    await s.send("history", "POST", f"{at}/history", {"limit": 10})
    await s.send("mend", "POST", f"{at}/state", {"values": {"x": ["mended"]}, "as_node": "boom"})
    await s.send("thread", "GET", at)
    await s.send("mended", "GET", f"{at}/state")


async def busy(s: Side) -> None:
    thread = await s.thread()
    run = (
        await s.ask(
            "POST", f"/threads/{thread}/runs", {"assistant_id": "slow", "input": {"wait": 30}}
        )
    ).body
    s.name(run["run_id"], "run")
    await s.running(thread, run["run_id"])
    await s.send(
        "update", "POST", f"/threads/{thread}/state", {"values": {"x": ["new"]}, "as_node": "one"}
    )
    await s.send("thread", "GET", f"/threads/{thread}")
    await s.send("state", "GET", f"/threads/{thread}/state")
    await s.send("copy", "POST", f"/threads/{thread}/copy")
    await s.send("delete", "DELETE", f"/threads/{thread}")
    await s.send("gone", "GET", f"/threads/{thread}")
