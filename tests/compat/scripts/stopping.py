"""Runs that are stopped, and what a second turn does to the first."""

from tests.compat.side import Side

IN = {"x": ["in"]}
SLOW = {"assistant_id": "slow", "input": {"wait": 30}}


async def one(s: Side) -> None:
    for action in ("interrupt", "rollback"):
        thread = await s.thread(action)
        at = f"/threads/{thread}/runs"
        run_id = s.name((await s.ask("POST", at, SLOW))["run_id"], f"run {action}")
        await s.running(thread, run_id)
        await s.send(f"running {action}", "GET", f"{at}/{run_id}")
        await s.send(f"cancel {action}", "POST", f"{at}/{run_id}/cancel?wait=1&action={action}")
        await s.idle(thread)
        await s.send(f"run {action}", "GET", f"{at}/{run_id}")
        await s.send(f"thread {action}", "GET", f"/threads/{thread}")
        await s.send(f"state {action}", "GET", f"/threads/{thread}/state")
        await s.send(f"join {action}", "GET", f"{at}/{run_id}/join")
        await s.send(f"again {action}", "POST", f"{at}/{run_id}/cancel")
    thread = await s.thread("nowait")
    at = f"/threads/{thread}/runs"
    run_id = s.name((await s.ask("POST", at, SLOW))["run_id"], "run nowait")
    await s.running(thread, run_id)
    queued = s.name(
        (await s.ask("POST", at, {"assistant_id": "steps", "input": IN}))["run_id"], "queued"
    )
    await s.send("queued", "GET", f"{at}/{queued}")
    await s.send("cancel queued", "POST", f"{at}/{queued}/cancel")
    await s.wait_for(f"{at}/{queued}", lambda run: run["status"] != "pending")
    await s.send("queued after", "GET", f"{at}/{queued}")
    await s.send("cancel nowait", "POST", f"{at}/{run_id}/cancel?wait=0&action=interrupt")
    await s.settled(thread, run_id)
    await s.send("thread nowait", "GET", f"/threads/{thread}")
    await s.send("bad action", "POST", f"{at}/{run_id}/cancel?action=stop")
    await s.send("unknown", "POST", f"{at}/{s.id('nope')}/cancel")
    await s.send("unknown wait", "POST", f"{at}/{s.id('nope')}/cancel?wait=1")
    await s.send("not a uuid", "POST", f"{at}/x/cancel")


async def many(s: Side) -> None:
    thread = await s.thread()
    at = f"/threads/{thread}/runs"
    ids = [s.name((await s.ask("POST", at, SLOW))["run_id"], f"run {n}") for n in range(2)]
    await s.running(thread, ids[0])
    await s.send("cancel", "POST", "/runs/cancel", {"thread_id": thread, "run_ids": ids})
    for run_id in ids:
        await s.settled(thread, run_id)
        await s.send("run", "GET", f"{at}/{run_id}")
    await s.send("again", "POST", "/runs/cancel", {"thread_id": thread, "run_ids": ids})
    await s.send("nothing", "POST", "/runs/cancel", {})
    await s.send(
        "both", "POST", "/runs/cancel", {"thread_id": thread, "run_ids": ids, "status": "all"}
    )
    await s.send("bad status", "POST", "/runs/cancel", {"status": "x"})
    await s.send("thread alone", "POST", "/runs/cancel", {"thread_id": thread})
    await s.send(
        "unknown", "POST", "/runs/cancel", {"thread_id": thread, "run_ids": [s.id("nope")]}
    )


async def multitask(s: Side) -> None:
    for strategy in ("reject", "enqueue", "interrupt", "rollback"):
        thread = await s.thread(strategy)
        at = f"/threads/{thread}/runs"
        first = s.name(
            (
                await s.ask(
                    "POST", at, {**SLOW, "input": {"wait": 3 if strategy == "enqueue" else 30}}
                )
            )["run_id"],
            f"first {strategy}",
        )
        await s.running(thread, first)
        second = await s.send(
            f"second {strategy}",
            "POST",
            at,
            {"assistant_id": "steps", "input": IN, "multitask_strategy": strategy},
        )
        if strategy == "reject":
            await s.ask("POST", f"{at}/{first}/cancel?wait=1")
            await s.idle(thread)
        else:
            s.name(second["run_id"], f"second {strategy}")
            await s.settled(thread, second["run_id"])
        await s.send(f"first after {strategy}", "GET", f"{at}/{first}")
        if second["run_id"]:
            await s.send(f"second after {strategy}", "GET", f"{at}/{second['run_id']}")
        await s.send(f"state {strategy}", "GET", f"/threads/{thread}/state")
        await s.send(f"thread {strategy}", "GET", f"/threads/{thread}")
        await s.send(f"history {strategy}", "POST", f"/threads/{thread}/history", {"limit": 20})


async def rejected(s: Side) -> None:
    thread = await s.thread()
    at = f"/threads/{thread}/runs"
    run = await s.ask("POST", at, SLOW)
    await s.running(thread, run["run_id"])
    body = {"assistant_id": "steps", "input": IN, "multitask_strategy": "reject"}
    for way in ("", "/stream", "/wait"):
        await s.send(f"reject{way}", "POST", f"{at}{way}", body)
    await s.ask("POST", f"{at}/{run['run_id']}/cancel?wait=1")
    await s.idle(thread)
    await s.send("runs", "GET", f"{at}?select=status&select=multitask_strategy")
