"""Streams of runs: every mode alone and combined, subgraphs, interrupts, errors, joins, replays."""

import asyncio

from tests.compat.side import Event, Side

IN = {"x": ["in"]}
HI = {"messages": [{"role": "user", "content": "weather?", "id": "m1"}]}
MODES = (
    "values",
    "updates",
    "messages",
    "messages-tuple",
    "custom",
    "tasks",
    "checkpoints",
    "debug",
    "events",
)
INPUTS = {
    "steps": IN,
    "tools": HI,
    "tokens": HI,
    "echo": HI,
    "ask": IN,
    "parent": IN,
    "twice": {},
    "fails": IN,
}


async def _stream(s: Side, graph: str, label: str, modes: object, **more: object) -> str:
    thread = await s.thread(label)
    body = {"assistant_id": graph, "input": INPUTS[graph], "stream_mode": modes, **more}
    await s.send(label, "POST", f"/threads/{thread}/runs/stream", body)
    await s.idle(thread)
    return thread


async def steps(s: Side) -> None:
    for mode in MODES:
        await _stream(s, "steps", mode, mode)


async def tools(s: Side) -> None:
    for mode in MODES:
        await _stream(s, "tools", mode, mode)


async def tokens(s: Side) -> None:
    for mode in ("messages", "messages-tuple"):
        await _stream(s, "tokens", mode, mode)
        await _stream(s, "echo", f"echo {mode}", mode)


async def failing(s: Side) -> None:
    for mode in MODES:
        await _stream(s, "fails", mode, mode)


async def asking(s: Side) -> None:
    for mode in MODES:
        thread = await _stream(s, "ask", mode, mode)
        body = {"assistant_id": "ask", "command": {"resume": {"ok": True}}, "stream_mode": mode}
        await s.send(f"resume {mode}", "POST", f"/threads/{thread}/runs/stream", body)
        await s.idle(thread)


async def asking_twice(s: Side) -> None:
    for mode in ("values", "updates", "tasks"):
        await _stream(s, "twice", mode, mode)


async def subgraphs(s: Side) -> None:
    for mode in MODES:
        thread = await _stream(s, "parent", mode, mode, stream_subgraphs=True)
        body = {
            "assistant_id": "parent",
            "command": {"resume": 1},
            "stream_mode": mode,
            "stream_subgraphs": True,
        }
        await s.send(f"resume {mode}", "POST", f"/threads/{thread}/runs/stream", body)
        await s.idle(thread)
    for mode in ("values", "updates", "custom", "debug"):
        await _stream(s, "parent", f"not {mode}", mode)


async def combined(s: Side) -> None:
    for modes in (
        ["values", "updates"],
        ["updates", "custom"],
        ["messages", "values"],
        ["messages-tuple", "values"],
        ["messages", "messages-tuple"],
        ["values", "updates", "custom", "tasks"],
        ["values", "debug"],
        ["tasks", "checkpoints"],
        ["values", "values"],
        list(MODES[:-1]),
    ):
        await _stream(s, "steps", "+".join(modes), modes)
        await _stream(s, "tools", "tools " + "+".join(modes), modes)
    await _stream(s, "ask", "ask", ["values", "updates"])
    await _stream(s, "parent", "parent", ["values", "updates"], stream_subgraphs=True)
    await _stream(s, "fails", "fails", ["values", "updates", "tasks"])


async def resumable(s: Side) -> None:
    thread = await _stream(s, "steps", "stream", ["values", "updates"], stream_resumable=True)
    last = s.replies[-1]
    run = (await s.ask("GET", f"/threads/{thread}/runs")).body[0]["run_id"]
    s.name(run, "run")
    at = f"/threads/{thread}/runs/{run}/stream"
    await s.send("replay", "GET", at, headers={"Last-Event-ID": "-1"})
    await s.send("replay dash", "GET", at, headers={"Last-Event-ID": "-"})
    await s.send("replay some", "GET", at, headers={"Last-Event-ID": last.ids[1]})
    await s.send("replay none", "GET", at)
    await s.send(
        "replay values", "GET", f"{at}?stream_mode=values", headers={"Last-Event-ID": "-1"}
    )
    await s.send("replay empty mode", "GET", f"{at}?stream_mode=", headers={"Last-Event-ID": "-1"})
    await s.send(
        "replay two",
        "GET",
        f"{at}?stream_mode=values&stream_mode=updates",
        headers={"Last-Event-ID": "-1"},
    )
    await s.send(
        "replay bad mode", "GET", f"{at}?stream_mode=nope", headers={"Last-Event-ID": "-1"}
    )
    await s.send("replay garbage", "GET", at, headers={"Last-Event-ID": "garbage"})


async def joining(s: Side) -> None:
    for resumable in (False, True):
        thread = await s.thread(f"thread {resumable}")
        at = f"/threads/{thread}/runs"
        body = {
            "assistant_id": "slow",
            "input": {"wait": 1.5},
            "stream_mode": ["values", "custom"],
            "stream_resumable": resumable,
        }
        run = s.name((await s.ask("POST", at, body))["run_id"], f"run {resumable}")
        await s.running(thread, run)
        await asyncio.gather(
            s.send(f"join {resumable}", "GET", f"{at}/{run}/stream"),
        )
        await s.settled(thread, run)
        await s.send(f"late {resumable}", "GET", f"{at}/{run}/stream")
        await s.send(
            f"late all {resumable}", "GET", f"{at}/{run}/stream", headers={"Last-Event-ID": "-1"}
        )


async def joined_while_pending(s: Side) -> None:
    thread = await s.thread()
    at = f"/threads/{thread}/runs"
    first = await s.ask("POST", at, {"assistant_id": "slow", "input": {"wait": 2}})
    await s.running(thread, first["run_id"])
    body = {"assistant_id": "steps", "input": IN, "stream_mode": ["values", "updates"]}
    run = s.name((await s.ask("POST", at, body))["run_id"], "run")
    await s.send("join", "GET", f"{at}/{run}/stream")
    await s.settled(thread, run)
    await s.send("refused stream", "POST", f"{at}/stream", {**body, "multitask_strategy": "reject"})
    await s.idle(thread)


async def joined_while_cancelled(s: Side) -> None:
    thread = await s.thread()
    at = f"/threads/{thread}/runs"
    body = {
        "assistant_id": "slow",
        "input": {"wait": 30},
        "stream_mode": ["values", "custom"],
        "stream_resumable": True,
    }
    run = s.name((await s.ask("POST", at, body))["run_id"], "run")
    await s.running(thread, run)
    joined = asyncio.create_task(
        s.send("join", "GET", f"{at}/{run}/stream", headers={"Last-Event-ID": "-1"})
    )
    await s.ask("POST", f"{at}/{run}/cancel?wait=1")
    await joined
    await s.idle(thread)


async def disconnecting(s: Side) -> None:
    for choice, expected in (("cancel", "interrupted"), ("continue", "success")):
        thread = await s.thread(choice)
        body = {
            "assistant_id": "slow",
            "input": {"wait": 8 if choice == "cancel" else 1},
            "stream_mode": ["values", "custom"],
            "on_disconnect": choice,
        }
        await s.send(
            choice,
            "POST",
            f"/threads/{thread}/runs/stream",
            body,
            until=lambda event: event[0] == "custom" and "waiting" in event[1],
        )
        await s.wait_for(
            f"/threads/{thread}/runs", lambda runs, expected=expected: runs[0]["status"] == expected
        )
        await s.idle(thread)
        await s.send(f"{choice} runs", "GET", f"/threads/{thread}/runs?select=status")
        await s.send(f"{choice} thread", "GET", f"/threads/{thread}")


async def of_a_thread(s: Side) -> None:
    thread = await _stream(s, "steps", "run", ["values"], stream_resumable=True)
    at = f"/threads/{thread}/stream"

    def done(event: Event) -> bool:
        return event[0] == "metadata" and event[1].get("status") == "run_done"

    await s.send("replay", "GET", at, headers={"Last-Event-ID": "-"}, until=done)
    await s.send(
        "lifecycle",
        "GET",
        f"{at}?stream_modes=lifecycle",
        headers={"Last-Event-ID": "-"},
        until=done,
    )
    await s.send("bad mode", "GET", f"{at}?stream_modes=zz", opened=True)
    await s.send("bad id", "GET", at, headers={"Last-Event-ID": "garbage"}, opened=True)
    await s.send("not a uuid", "GET", "/threads/x/stream", opened=True)


async def namespaces(s: Side) -> None:
    """What the JavaScript client has in the query: namespaces, and the checkpoint it shows."""
    body = {
        "assistant_id": "parent",
        "input": IN,
        "stream_mode": ["values", "updates"],
        "stream_subgraphs": True,
        "stream_resumable": True,
    }
    for label, query in (("root", "namespace="), ("child", "namespace=child")):
        thread = await s.thread(label)
        await s.send(label, "POST", f"/threads/{thread}/runs/stream?{query}", body)
        await s.idle(thread)
        run = (await s.ask("GET", f"/threads/{thread}/runs")).body[0]["run_id"]
        s.name(run, f"run {label}")
        head = (await s.ask("GET", f"/threads/{thread}/state")).body["checkpoint"]["checkpoint_id"]
        every = {"Last-Event-ID": "-1"}
        at = f"/threads/{thread}/runs/{run}/stream"
        await s.send(f"join {label}", "GET", f"{at}?{query}", headers=every)
        await s.send(f"shown {label}", "GET", f"{at}?checkpoint_id={head}", headers=every)
