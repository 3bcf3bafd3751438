"""Protocol v2: commands, and events read until a run's end."""

from typing import Any

from tests.compat.side import Event, Side

MAIN = ["lifecycle", "values", "messages", "input"]
ALL = [
    "values",
    "updates",
    "messages",
    "tools",
    "lifecycle",
    "input",
    "checkpoints",
    "tasks",
    "custom",
]


def _ends(event: Event) -> bool:
    name, data = event
    return (
        name == "lifecycle"
        and data["params"]["namespace"] == []
        and data["params"]["data"]["event"] in ("completed", "failed", "interrupted")
    )


def _completes(event: Event) -> bool:
    name, data = event
    return (
        name == "lifecycle"
        and data["params"]["namespace"] == []
        and data["params"]["data"]["event"] == "completed"
    )


async def _command(s: Side, label: str, thread: str, method: str, **params: Any) -> Any:
    return await s.send(
        label, "POST", f"/threads/{thread}/commands", {"id": 1, "method": method, "params": params}
    )


async def runs(s: Side) -> None:
    for graph, given in (
        ("steps", {"x": ["in"]}),
        ("tools", {"messages": [{"role": "user", "content": "weather?", "id": "m1"}]}),
        ("tokens", {"messages": [{"type": "human", "content": "x", "id": "m1"}]}),
        ("ask", {"x": ["in"]}),
        ("twice", {}),
        ("parent", {"x": ["in"]}),
        ("fails", {"x": ["in"]}),
    ):
        thread = s.id(graph)
        reply = await _command(
            s, f"start {graph}", thread, "run.start", assistant_id=graph, input=given
        )
        s.name((reply.body.get("result") or {}).get("run_id"), f"run {graph}")
        await s.send(
            f"events {graph}",
            "POST",
            f"/threads/{thread}/stream/events",
            {"channels": MAIN},
            until=_ends,
        )
        await s.idle(thread)
        await s.send(f"state {graph}", "GET", f"/threads/{thread}/state")
        await s.send(
            f"replay {graph}",
            "POST",
            f"/threads/{thread}/stream/events",
            {"channels": MAIN},
            until=_ends,
        )
        if graph in ("steps", "tools"):
            await s.send(
                f"all {graph}",
                "POST",
                f"/threads/{thread}/stream/events",
                {"channels": ALL},
                until=_ends,
            )
        await s.send(
            f"run {graph}",
            "GET",
            f"/threads/{thread}/runs?select=kwargs&select=status&select=multitask_strategy",
        )


async def answering(s: Side) -> None:
    thread = s.id("thread")
    await s.ask(
        "POST",
        f"/threads/{thread}/commands",
        {"id": 1, "method": "run.start", "params": {"assistant_id": "ask", "input": {"x": ["in"]}}},
    )
    await s.wait_for(f"/threads/{thread}", lambda found: found.get("status") == "interrupted")
    state = (await s.ask("GET", f"/threads/{thread}/state")).body
    await _command(
        s, "unknown", thread, "input.respond", interrupt_id="nope", namespace=[], response=1
    )
    await _command(
        s,
        "respond",
        thread,
        "input.respond",
        interrupt_id=state["interrupts"][0]["id"],
        namespace=[],
        response="yes",
    )
    await s.wait_for(f"/threads/{thread}", lambda found: found.get("status") == "idle")
    await s.send(
        "events",
        "POST",
        f"/threads/{thread}/stream/events",
        {"channels": ["lifecycle", "input", "values"]},
        until=_completes,
    )
    await s.send("state", "GET", f"/threads/{thread}/state")
    twice = s.id("twice")
    await s.ask(
        "POST",
        f"/threads/{twice}/commands",
        {"id": 1, "method": "run.start", "params": {"assistant_id": "twice", "input": {}}},
    )
    await s.wait_for(f"/threads/{twice}", lambda found: found.get("status") == "interrupted")
    state = (await s.ask("GET", f"/threads/{twice}/state")).body
    responses = [
        {"interrupt_id": item["id"], "namespace": [], "response": item["value"]["ask"]}
        for item in state["interrupts"]
    ]
    await _command(s, "both", twice, "input.respond", responses=responses)
    await s.wait_for(f"/threads/{twice}", lambda found: found.get("status") == "idle")
    await s.send("both state", "GET", f"/threads/{twice}/state")


async def going_on(s: Side) -> None:
    """A question answered by a plain input, and a run that starts from an older checkpoint."""
    thread = s.id("thread")
    await _start(s, thread, "ask", {"x": ["in"]})
    await s.wait_for(f"/threads/{thread}", lambda found: found.get("status") == "interrupted")
    await _start(s, thread, "ask", {"x": ["SECOND"]})
    await s.wait_for(f"/threads/{thread}", lambda found: found.get("status") == "idle")
    await s.send("answered", "GET", f"/threads/{thread}/state")
    await s.send("runs", "GET", f"/threads/{thread}/runs?select=status&select=thread_id")
    fork = s.id("fork")
    await _start(s, fork, "steps", {"x": ["in"]})
    await s.wait_for(f"/threads/{fork}", lambda found: found.get("status") == "idle")
    history = (await s.ask("POST", f"/threads/{fork}/history", {"limit": 10})).body
    old = history[2]["checkpoint"]["checkpoint_id"]
    await _start(s, fork, "steps", None, config={"configurable": {"checkpoint_id": old}})
    await s.idle(fork)
    await s.send("forked", "GET", f"/threads/{fork}/state")
    await s.send("history", "POST", f"/threads/{fork}/history", {"limit": 20})


async def _start(s: Side, thread: str, graph: str, given: object, **more: object) -> None:
    params = {"assistant_id": graph, "input": given, **more}
    body = {"id": 1, "method": "run.start", "params": params}
    reply = await s.ask("POST", f"/threads/{thread}/commands", body)
    await s.wait_for(
        f"/threads/{thread}/runs/{reply.body['result']['run_id']}",
        lambda run: run["status"] not in ("pending", "running"),
    )


async def commands(s: Side) -> None:
    thread = await s.thread()
    at = f"/threads/{thread}/commands"
    await s.send("no method", "POST", at, {"id": 1})
    await s.send("no id", "POST", at, {"method": "run.start"})
    await s.send("text id", "POST", at, {"id": "1", "method": "run.start", "params": {}})
    await s.send("empty", "POST", at, content=b"")
    await s.send("broken", "POST", at, content=b"{")
    await s.send("list", "POST", at, [])
    await _command(s, "unknown", thread, "nope")
    await _command(s, "no assistant", thread, "run.start", input={})
    await _command(s, "unknown graph", thread, "run.start", assistant_id="nope")
    await _command(s, "unknown assistant", thread, "run.start", assistant_id=s.id("nope"))
    await _command(
        s,
        "bad checkpoint",
        thread,
        "run.start",
        assistant_id="steps",
        config={"configurable": {"checkpoint_id": "x"}},
    )
    await _command(s, "reject", thread, "run.start", assistant_id="steps", multitaskStrategy="nope")
    await _command(s, "respond nothing", thread, "input.respond")
    await _command(
        s, "respond unknown", thread, "input.respond", interrupt_id="x", namespace=[], response=1
    )
    await _command(s, "subscribe", thread, "subscription.subscribe", channels=["values"])
    await _command(s, "tree", thread, "agent.getTree")
    await s.send(
        "not a uuid", "POST", "/threads/x/commands", {"id": 1, "method": "run.start", "params": {}}
    )
    events = f"/threads/{thread}/stream/events"
    await s.send("no channels", "POST", events, {}, opened=True)
    await s.send("no channel", "POST", events, {"channels": []})
    await s.send("bad channel", "POST", events, {"channels": ["bogus"]}, opened=True)
    await s.send("bad since", "POST", events, {"channels": ["values"], "since": "x"}, opened=True)
    await s.send("bad depth", "POST", events, {"channels": ["values"], "depth": -1}, opened=True)
    await s.send(
        "bad namespaces", "POST", events, {"channels": ["values"], "namespaces": "x"}, opened=True
    )
    await s.send("events broken", "POST", events, content=b"{")
    await s.send(
        "events not a uuid",
        "POST",
        "/threads/x/stream/events",
        {"channels": ["values"]},
        opened=True,
    )


async def filters(s: Side) -> None:
    thread = s.id("thread")
    await s.ask(
        "POST",
        f"/threads/{thread}/commands",
        {
            "id": 1,
            "method": "run.start",
            "params": {"assistant_id": "parent", "input": {"x": ["in"]}},
        },
    )
    await s.wait_for(f"/threads/{thread}", lambda found: found.get("status") == "interrupted")
    at = f"/threads/{thread}/stream/events"
    await s.send(
        "root",
        "POST",
        at,
        {"channels": ["lifecycle", "values"], "namespaces": [[]], "depth": 0},
        until=_ends,
    )
    await s.send(
        "root 1",
        "POST",
        at,
        {"channels": ["lifecycle", "values"], "namespaces": [[]], "depth": 1},
        until=_ends,
    )
    await s.send("lifecycle", "POST", at, {"channels": ["lifecycle"]}, until=_ends)
    await s.send(
        "since", "POST", at, {"channels": ["lifecycle", "values"], "since": 2}, until=_ends
    )


async def legacy(s: Side) -> None:
    """Runs of the older API as the protocol shows them."""
    thread = await s.thread()
    await s.ask(
        "POST",
        f"/threads/{thread}/runs/stream",
        {
            "assistant_id": "steps",
            "input": {"x": ["in"]},
            "stream_mode": ["values", "updates"],
            "stream_resumable": True,
        },
    )
    await s.idle(thread)
    await s.send(
        "events", "POST", f"/threads/{thread}/stream/events", {"channels": MAIN}, until=_ends
    )
