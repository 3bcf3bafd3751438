"""Crons, whose times are far off: create, read, change, search, count, and bad requests."""

from tests.compat.side import Side

YEARLY = "0 0 1 1 *"


async def crud(s: Side) -> None:
    body = {
        "schedule": YEARLY,
        "assistant_id": "echo",
        "input": {"messages": "x"},
        "metadata": {"set": "crons"},
        "timezone": "Europe/Berlin",
    }
    made = await s.send("create", "POST", "/runs/crons", body)
    one = s.name(made["cron_id"], "cron")
    await s.send("read", "GET", f"/runs/crons/{one}")
    await s.send(
        "patch", "PATCH", f"/runs/crons/{one}", {"schedule": "5 5 5 5 *", "enabled": False}
    )
    await s.send("patch metadata", "PATCH", f"/runs/crons/{one}", {"metadata": {"more": 1}})
    await s.send(
        "patch input",
        "PATCH",
        f"/runs/crons/{one}",
        {"input": {"messages": "y"}, "on_run_completed": "keep"},
    )
    await s.send("patch end", "PATCH", f"/runs/crons/{one}", {"end_time": "2099-01-01T00:00:00Z"})
    await s.send("patch no end", "PATCH", f"/runs/crons/{one}", {"end_time": None})
    await s.send("patch nothing", "PATCH", f"/runs/crons/{one}", {})
    await s.send("patch bad", "PATCH", f"/runs/crons/{one}", {"schedule": "x"})
    await s.send("patch zone", "PATCH", f"/runs/crons/{one}", {"timezone": "No/Where"})
    thread = await s.thread()
    mine = await s.send(
        "on a thread",
        "POST",
        f"/threads/{thread}/runs/crons",
        {**body, "config": {"configurable": {"a": 1}}},
    )
    s.name(mine["cron_id"], "thread cron")
    await s.send("missing thread", "POST", f"/threads/{s.id('nope')}/runs/crons", body)
    search = "/runs/crons/search"
    await s.send("search", "POST", search, {"metadata": {"set": "crons"}})
    await s.send("search thread", "POST", search, {"thread_id": thread})
    await s.send(
        "search enabled",
        "POST",
        search,
        {"enabled": False, "metadata": {"set": "crons"}, "select": ["cron_id", "enabled"]},
    )
    await s.send(
        "search page",
        "POST",
        search,
        {"metadata": {"set": "crons"}, "limit": 1, "sort_by": "created_at", "sort_order": "asc"},
    )
    await s.send("search bad sort", "POST", search, {"sort_by": "x"})
    await s.send("search bad select", "POST", search, {"select": ["x"]})
    await s.send("search limit 0", "POST", search, {"limit": 0})
    await s.send("count", "POST", "/runs/crons/count", {"metadata": {"set": "crons"}})
    await s.send("count thread", "POST", "/runs/crons/count", {"thread_id": thread})
    await s.send("delete", "DELETE", f"/runs/crons/{one}")
    await s.send("delete again", "DELETE", f"/runs/crons/{one}")
    await s.send("read deleted", "GET", f"/runs/crons/{one}")
    await s.ask("DELETE", f"/threads/{thread}")
    await s.send("died with its thread", "GET", f"/runs/crons/{mine['cron_id']}")


async def bad(s: Side) -> None:
    to = "/runs/crons"
    ok = {"schedule": YEARLY, "assistant_id": "echo"}
    await s.send("schedule", "POST", to, {**ok, "schedule": "bad"})
    await s.send("schedule seconds", "POST", to, {**ok, "schedule": "* * * * * *"})
    await s.send("no schedule", "POST", to, {"assistant_id": "echo"})
    await s.send("no assistant", "POST", to, {"schedule": YEARLY})
    await s.send("unknown graph", "POST", to, {**ok, "assistant_id": "nope"})
    await s.send("unknown assistant", "POST", to, {**ok, "assistant_id": s.id("nope")})
    await s.send("timezone", "POST", to, {**ok, "timezone": "No/Where"})
    await s.send("end", "POST", to, {**ok, "end_time": "x"})
    await s.send("completed", "POST", to, {**ok, "on_run_completed": "x"})
    await s.send("mode", "POST", to, {**ok, "stream_mode": "x"})
    await s.send("empty", "POST", to, content=b"")
    await s.send("unknown", "GET", f"{to}/{s.id('nope')}")
    await s.send("not a uuid", "GET", f"{to}/x")
    await s.send("patch unknown", "PATCH", f"{to}/{s.id('nope')}", {"enabled": False})
    await s.send("patch not a uuid", "PATCH", f"{to}/x", {"enabled": False})
    await s.send("delete not a uuid", "DELETE", f"{to}/x")
