"""Runs: create, wait, join, list, batch, stateless, options, bad requests."""

from typing import Any

from tests.compat.side import Side

IN = {"x": ["in"]}


async def create(s: Side) -> None:
    thread = await s.thread(metadata={"t": 1})
    at = f"/threads/{thread}/runs"
    body = {
        "assistant_id": "steps",
        "input": IN,
        "metadata": {"m": 1},
        "config": {"tags": ["t"], "configurable": {"a": 1}},
    }
    run = await s.send("create", "POST", at, body)
    run_id = s.name(run["run_id"], "run")
    await s.settled(thread, run_id)
    await s.send("read", "GET", f"{at}/{run_id}")
    await s.send("list", "GET", at)
    await s.send("join", "GET", f"{at}/{run_id}/join")
    await s.send("stream", "GET", f"{at}/{run_id}/stream")
    await s.send("thread", "GET", f"/threads/{thread}")
    await s.send("state", "GET", f"/threads/{thread}/state")
    await s.send("list select", "GET", f"{at}?select=run_id&select=status")
    await s.send("list status", "GET", f"{at}?status=pending")
    await s.send("list limit", "GET", f"{at}?limit=1&offset=1")
    await s.send("list bad limit", "GET", f"{at}?limit=x")
    await s.send("list limit 0", "GET", f"{at}?limit=0")
    await s.send("list bad status", "GET", f"{at}?status=x")
    await s.send("cancel done", "POST", f"{at}/{run_id}/cancel")
    await s.send("delete", "DELETE", f"{at}/{run_id}")
    await s.send("delete again", "DELETE", f"{at}/{run_id}")
    await s.send("state after delete", "GET", f"/threads/{thread}/state")
    await s.send("history after delete", "POST", f"/threads/{thread}/history", {"limit": 10})
    await s.send("read deleted", "GET", f"{at}/{run_id}")
    await s.send("join deleted", "GET", f"{at}/{run_id}/join")
    await s.send("stream deleted", "GET", f"{at}/{run_id}/stream")


async def waiting(s: Side) -> None:
    for graph, given in (
        ("echo", {"messages": [{"role": "user", "content": "hi"}]}),
        ("steps", IN),
        ("ask", IN),
        ("twice", {}),
        ("fails", IN),
        ("parent", IN),
        ("tokens", {"messages": "x"}),
        ("tools", {"messages": "weather?"}),
    ):
        thread = await s.thread(graph)
        body = {"assistant_id": graph, "input": given}
        await s.send(f"wait {graph}", "POST", f"/threads/{thread}/runs/wait", body)
        runs = (await s.ask("GET", f"/threads/{thread}/runs")).body
        s.name(runs[0]["run_id"], f"run {graph}")
        await s.settled(thread, runs[0]["run_id"])
        await s.send(f"join {graph}", "GET", f"/threads/{thread}/runs/{runs[0]['run_id']}/join")
        await s.send(f"run {graph}", "GET", f"/threads/{thread}/runs/{runs[0]['run_id']}")


async def wait_modes(s: Side) -> None:
    for mode in (
        "updates",
        "messages",
        "messages-tuple",
        "custom",
        "tasks",
        "checkpoints",
        "debug",
        "events",
    ):
        thread = await s.thread(mode)
        await s.send(
            mode,
            "POST",
            f"/threads/{thread}/runs/wait",
            {"assistant_id": "steps", "input": IN, "stream_mode": mode},
        )
    thread = await s.thread("question")
    await s.send(
        "question",
        "POST",
        f"/threads/{thread}/runs/wait",
        {"assistant_id": "ask", "input": IN, "stream_mode": ["updates"]},
    )


async def resuming(s: Side) -> None:
    thread = await s.thread("ask")
    at = f"/threads/{thread}/runs/wait"
    await s.send("ask", "POST", at, {"assistant_id": "ask", "input": IN})
    await s.idle(thread)
    await s.send("resume", "POST", at, {"assistant_id": "ask", "command": {"resume": "yes"}})
    await s.idle(thread)
    await s.send("again", "POST", at, {"assistant_id": "ask", "command": {"resume": "yes"}})
    await s.idle(thread)
    await s.send("thread", "GET", f"/threads/{thread}")
    twice = await s.thread("twice")
    at = f"/threads/{twice}/runs/wait"
    first = await s.ask("POST", at, {"assistant_id": "twice", "input": {}})
    await s.idle(twice)
    state = (await s.ask("GET", f"/threads/{twice}/state")).body
    left = next(task for task in state["tasks"] if task["name"] == "left")["interrupts"][0]["id"]
    assert first.status == 200
    await s.send("left", "POST", at, {"assistant_id": "twice", "command": {"resume": {left: "L"}}})
    await s.idle(twice)
    await s.send("left thread", "GET", f"/threads/{twice}")
    await s.send("left state", "GET", f"/threads/{twice}/state")
    await s.send("right", "POST", at, {"assistant_id": "twice", "command": {"resume": "R"}})
    await s.idle(twice)
    await s.send("both", "GET", f"/threads/{twice}/state")
    goto = await s.thread("goto")
    at = f"/threads/{goto}/runs/wait"
    await s.send(
        "goto",
        "POST",
        at,
        {"assistant_id": "steps", "command": {"goto": "two", "update": {"x": ["u"]}}},
    )
    await s.idle(goto)
    await s.send(
        "goto send",
        "POST",
        at,
        {"assistant_id": "steps", "command": {"goto": {"node": "two", "input": {"x": ["s"]}}}},
    )
    await s.idle(goto)
    await s.send(
        "update pairs",
        "POST",
        at,
        {"assistant_id": "steps", "command": {"update": [["x", ["p"]]], "goto": ["two"]}},
    )
    await s.idle(goto)
    await s.send(
        "command and input",
        "POST",
        at,
        {"assistant_id": "steps", "input": IN, "command": {"goto": "one"}},
    )
    await s.idle(goto)
    await s.send("goto nowhere", "POST", at, {"assistant_id": "steps", "command": {"goto": "nope"}})
    await s.idle(goto)
    await s.send("goto state", "GET", f"/threads/{goto}/state")


async def breakpoints(s: Side) -> None:
    thread = await s.thread()
    at = f"/threads/{thread}/runs"
    await s.send(
        "before",
        "POST",
        f"{at}/wait",
        {"assistant_id": "steps", "input": IN, "interrupt_before": ["two"]},
    )
    await s.idle(thread)
    await s.send("state", "GET", f"/threads/{thread}/state")
    await s.send("thread", "GET", f"/threads/{thread}")
    await s.send("go on", "POST", f"{at}/stream", {"assistant_id": "steps", "input": None})
    await s.idle(thread)
    await s.send(
        "after all",
        "POST",
        f"{at}/stream",
        {
            "assistant_id": "steps",
            "input": IN,
            "interrupt_after": "*",
            "stream_mode": ["updates", "values"],
        },
    )
    await s.idle(thread)
    await s.send(
        "unknown node",
        "POST",
        f"{at}/wait",
        {"assistant_id": "steps", "input": IN, "interrupt_before": ["nope"]},
    )


async def options(s: Side) -> None:
    async def wait(label: str, **more: Any) -> None:
        thread = await s.thread(label)
        await s.send(
            label,
            "POST",
            f"/threads/{thread}/runs/wait",
            {"assistant_id": "context", "input": {}, **more},
        )
        await s.idle(thread)

    await wait("context", context={"name": "x"})
    await wait("configurable", config={"configurable": {"name": "x", "colour": "red"}})
    await wait("undeclared", context={"name": "x", "colour": "red"})
    await wait("both", context={"name": "x"}, config={"configurable": {"name": "y"}})
    await wait("recursion", assistant_id="steps", input=IN, config={"recursion_limit": 1})
    await wait("durability exit", assistant_id="steps", input=IN, durability="exit")
    await s.send(
        "exit history", "POST", f"/threads/{s.id('durability exit')}/history", {"limit": 9}
    )
    await wait("durability sync", assistant_id="steps", input=IN, durability="sync")
    await s.send(
        "sync history", "POST", f"/threads/{s.id('durability sync')}/history", {"limit": 9}
    )
    await wait("checkpoint_during", assistant_id="steps", input=IN, checkpoint_during=False)
    await wait("unknown key", assistant_id="steps", input=IN, nonsense=1)
    await wait("null modes", assistant_id="steps", input=IN, stream_mode=None)
    await wait("no modes", assistant_id="steps", input=IN, stream_mode=[])
    await wait("input text", assistant_id="steps", input="text")
    await wait("input list", assistant_id="steps", input=[1])
    await wait("input unknown keys", assistant_id="steps", input={"nope": 1})
    await wait("input null", assistant_id="steps", input=None)
    await wait("input absent", assistant_id="steps")
    await s.send(
        "create on the fly",
        "POST",
        f"/threads/{s.id('fly')}/runs/wait",
        {"assistant_id": "steps", "input": IN, "if_not_exists": "create", "metadata": {"m": 1}},
    )
    await s.idle(s.id("fly"))
    await s.send("made on the fly", "GET", f"/threads/{s.id('fly')}")
    run = await s.send(
        "later",
        "POST",
        f"/threads/{s.id('fly')}/runs",
        {"assistant_id": "steps", "input": IN, "after_seconds": 600},
    )
    s.name(run["run_id"], "later")
    await s.send("later thread", "GET", f"/threads/{s.id('fly')}")
    await s.send("later cancel", "POST", f"/threads/{s.id('fly')}/runs/{run['run_id']}/cancel")
    await s.idle(s.id("fly"))
    await s.send("later run", "GET", f"/threads/{s.id('fly')}/runs/{run['run_id']}")


async def assistants(s: Side) -> None:
    assistant = s.id("assistant")
    body = {
        "assistant_id": assistant,
        "graph_id": "context",
        "context": {"name": "a"},
        "metadata": {"am": 1},
        "config": {"tags": ["at"]},
    }
    await s.send("create", "POST", "/assistants", body)
    thread = await s.thread(metadata={"tm": 1})
    await s.send(
        "run",
        "POST",
        f"/threads/{thread}/runs/wait",
        {"assistant_id": assistant, "input": {}, "metadata": {"rm": 1}},
    )
    await s.idle(thread)
    await s.send("state", "GET", f"/threads/{thread}/state")
    await s.send("thread", "GET", f"/threads/{thread}")
    await s.send("runs", "GET", f"/threads/{thread}/runs?select=metadata&select=kwargs")
    await s.send(
        "override",
        "POST",
        f"/threads/{thread}/runs/wait",
        {"assistant_id": assistant, "input": {}, "context": {"name": "r"}},
    )
    await s.idle(thread)
    await s.ask("DELETE", f"/assistants/{assistant}")


async def stateless(s: Side) -> None:
    made = await s.send("create", "POST", "/runs", {"assistant_id": "steps", "input": IN})
    s.name(made["thread_id"], "thread")
    s.name(made["run_id"], "run")
    await s.wait_for(f"/threads/{made['thread_id']}", lambda body: "detail" in body)
    await s.send("gone", "GET", f"/threads/{made['thread_id']}")
    await s.send("wait", "POST", "/runs/wait", {"assistant_id": "steps", "input": IN})
    await s.send("wait fails", "POST", "/runs/wait", {"assistant_id": "fails", "input": IN})
    await s.send("wait ask", "POST", "/runs/wait", {"assistant_id": "ask", "input": IN})
    await s.send("wait parent", "POST", "/runs/wait", {"assistant_id": "parent", "input": IN})
    await s.send(
        "stream",
        "POST",
        "/runs/stream",
        {"assistant_id": "steps", "input": IN, "stream_mode": ["values", "updates"]},
    )
    await s.send("stream fails", "POST", "/runs/stream", {"assistant_id": "fails", "input": IN})
    kept = await s.send(
        "keep",
        "POST",
        "/runs",
        {"assistant_id": "steps", "input": IN, "on_completion": "keep", "metadata": {"m": 1}},
    )
    s.name(kept["thread_id"], "kept")
    s.name(kept["run_id"], "kept run")
    await s.settled(kept["thread_id"], kept["run_id"])
    await s.send("kept", "GET", f"/threads/{kept['thread_id']}")
    await s.send("kept state", "GET", f"/threads/{kept['thread_id']}/state")
    await s.send("resume", "POST", "/runs/wait", {"assistant_id": "ask", "command": {"resume": 1}})
    await s.send("bad keep", "POST", "/runs", {"assistant_id": "steps", "on_completion": "x"})
    await s.send("unknown assistant", "POST", "/runs/wait", {"assistant_id": "nope"})
    await s.send("missing assistant", "POST", "/runs/wait", {"assistant_id": s.id("nope")})
    batch = await s.send(
        "batch",
        "POST",
        "/runs/batch",
        [
            {"assistant_id": "steps", "input": IN},
            {"assistant_id": "echo", "input": {"messages": "x"}},
        ],
    )
    for number, run in enumerate(batch.body if isinstance(batch.body, list) else []):
        s.name(run["thread_id"], f"batch thread {number}")
        s.name(run["run_id"], f"batch run {number}")
    await s.send("batch nothing", "POST", "/runs/batch", [])
    await s.send("batch object", "POST", "/runs/batch", {})
    await s.send("batch bad", "POST", "/runs/batch", [{"assistant_id": "nope"}])


async def bad(s: Side) -> None:
    thread = await s.thread()
    at = f"/threads/{thread}/runs"
    ok = {"assistant_id": "steps", "input": IN}
    await s.send("no assistant", "POST", at, {"input": IN})
    await s.send("unknown graph", "POST", at, {"assistant_id": "nope"})
    await s.send("unknown assistant", "POST", at, {"assistant_id": s.id("nope")})
    await s.send("empty", "POST", at, content=b"")
    await s.send("broken", "POST", at, content=b"{")
    await s.send("list", "POST", at, [])
    await s.send("missing thread", "POST", f"/threads/{s.id('missing')}/runs", ok)
    await s.send("missing thread stream", "POST", f"/threads/{s.id('missing')}/runs/stream", ok)
    await s.send("missing thread wait", "POST", f"/threads/{s.id('missing')}/runs/wait", ok)
    await s.send("not a uuid", "POST", "/threads/x/runs", ok)
    for key, value in (
        ("stream_mode", "nope"),
        ("stream_mode", ["values", "nope"]),
        ("stream_mode", 7),
        ("multitask_strategy", "x"),
        ("if_not_exists", "x"),
        ("on_disconnect", "x"),
        ("durability", "x"),
        ("config", "x"),
        ("config", {"configurable": []}),
        ("config", {"recursion_limit": "x"}),
        ("config", {"tags": "x"}),
        ("context", "x"),
        ("metadata", []),
        ("command", "x"),
        ("command", {"nope": 1}),
        ("command", {"goto": 7}),
        ("interrupt_before", "one"),
        ("interrupt_after", 7),
        ("after_seconds", "x"),
        ("after_seconds", -1),
        ("webhook", 7),
        ("webhook", "not a url"),
        ("checkpoint", "x"),
        ("stream_subgraphs", "x"),
        ("stream_resumable", "x"),
        ("feedback_keys", "x"),
    ):
        await s.send(f"{key} {value}", "POST", f"{at}/stream", {**ok, key: value})
        await s.idle(thread)
    await s.send("unknown run", "GET", f"{at}/{s.id('run')}")
    await s.send("unknown run join", "GET", f"{at}/{s.id('run')}/join")
    await s.send("unknown run stream", "GET", f"{at}/{s.id('run')}/stream")
    await s.send("not a uuid run", "GET", f"{at}/x")
    await s.send("not a uuid join", "GET", f"{at}/x/join")
    await s.send("not a uuid stream", "GET", f"{at}/x/stream")
    await s.send("put", "PUT", at, {})
