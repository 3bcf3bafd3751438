"""Protocol v2 over one WebSocket: commands, subscriptions and events side by side."""

from tests.compat import socket
from tests.compat.side import Event, Side

MAIN = ["lifecycle", "values", "messages", "input"]
TURNS = {
    "steps": {"x": ["in"]},
    "tools": {"messages": [{"role": "user", "content": "weather?", "id": "m1"}]},
    "tokens": {"messages": [{"type": "human", "content": "x", "id": "m1"}]},
    "fails": {"x": ["in"]},
}


def _ends(event: Event) -> bool:
    name, data = event
    return (
        name == "lifecycle"
        and data["params"]["namespace"] == []
        and data["params"]["data"]["event"] in ("completed", "failed", "interrupted")
    )


async def turns(s: Side) -> None:
    for graph, given in TURNS.items():
        thread = await s.thread(graph)
        async with socket.opened(s, thread) as wire:
            await wire.send(f"subscribe {graph}", "subscription.subscribe", channels=MAIN)
            begun = await wire.send(f"start {graph}", "run.start", assistant_id=graph, input=given)
            s.name((begun.get("result") or {}).get("run_id"), f"run {graph}")
            await wire.told(f"events {graph}", _ends)
        await s.idle(thread)
        await s.send(f"state {graph}", "GET", f"/threads/{thread}/state")


async def answering(s: Side) -> None:
    thread = await s.thread()
    async with socket.opened(s, thread) as wire:
        await wire.send("subscribe", "subscription.subscribe", channels=["lifecycle", "input"])
        begun = await wire.send("start", "run.start", assistant_id="ask", input={"x": ["in"]})
        s.name((begun.get("result") or {}).get("run_id"), "run")
        await wire.told("question", _ends)
        await s.idle(thread)
        await wire.send("unknown", "input.respond", interrupt_id="x", namespace=[], response=1)
        state = (await s.ask("GET", f"/threads/{thread}/state")).body
        asked = state["interrupts"][0]["id"]
        await wire.send(
            "respond", "input.respond", interrupt_id=asked, namespace=[], response="yes"
        )
        await wire.told("answer", _ends)
        await wire.send("tree", "agent.getTree")
    await s.idle(thread)
    await s.send("state", "GET", f"/threads/{thread}/state")


async def elsewhere(s: Side) -> None:
    """An answer that names another place than the one where the question was asked."""
    thread = await s.thread()
    async with socket.opened(s, thread) as wire:
        await wire.send("subscribe", "subscription.subscribe", channels=["lifecycle", "input"])
        begun = await wire.send("start", "run.start", assistant_id="ask", input={"x": ["in"]})
        s.name((begun.get("result") or {}).get("run_id"), "run")
        await wire.told("question", _ends)
        await s.idle(thread)
        state = (await s.ask("GET", f"/threads/{thread}/state")).body
        asked = state["interrupts"][0]["id"]
        await wire.send("respond", "input.respond", interrupt_id=asked, namespace=["x"], response=1)


async def commands(s: Side) -> None:
    thread = await s.thread()
    async with socket.opened(s, thread) as wire:
        await wire.say("broken", "{")
        await wire.say("list", "[]")
        await wire.say("no method", '{"id": 1}')
        await wire.say("no id", '{"method": "run.start"}')
        await wire.send("unknown", "nope")
        await wire.send("no channels", "subscription.subscribe")
        await wire.send("bad channel", "subscription.subscribe", channels=["bogus"])
        await wire.send("no subscription", "subscription.unsubscribe", subscription_id="x")
        made = await wire.send("subscribe", "subscription.subscribe", channels=["values"])
        name = (made.get("result") or {}).get("subscription_id")
        s.name(name, "subscription")
        await wire.send("unsubscribe", "subscription.unsubscribe", subscription_id=name)
        await wire.send("again", "subscription.unsubscribe", subscription_id=name)
        await wire.send("no assistant", "run.start", input={})
        await wire.send("unknown graph", "run.start", assistant_id="nope")
        await wire.send("respond nothing", "input.respond")
        await wire.send("tree", "agent.getTree")
