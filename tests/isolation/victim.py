"""Alice, who has something of everything, and what would show that somebody else touched it."""

from dataclasses import dataclass
from typing import Any

import httpx
from psycopg import sql

from clew.checkpointing.postgres import SERVICE, Connection, Database

Json = dict[str, Any]

SECRET = "alices-secret-秘密"

# What changes by itself while nobody touches anything: the use of a key, and what is read along.
RESTLESS = {"api_key", "session_term"}


@dataclass(frozen=True, slots=True)
class Life:
    """The ids of what alice has, by the names that routes and queries give them."""

    owner_id: int
    ids: Json


async def live(alice: httpx.AsyncClient, db: Database) -> Life:
    """A session with a run, marks, a share and a question; an assistant, a template, an item."""

    async def post(path: str, body: Json, method: str = "POST") -> Any:
        reply = await alice.request(method, path, json=body)
        assert reply.status_code < 300, f"{path}: {reply.text}"
        return reply.json() if reply.content else None

    agent = await post(
        "/assistants", {"graph_id": "echo", "name": SECRET, "metadata": {"s": SECRET}}
    )
    described = {"assistant_id": "echo", "title": SECRET, "metadata": {"s": SECRET}}
    session = await post("/sessions", described)
    key = session["thread_id"]
    said = {"messages": [{"role": "user", "content": SECRET}]}
    await post(f"/threads/{key}/runs/wait", {"assistant_id": "echo", "input": said})
    run = (await alice.get(f"/threads/{key}/runs")).json()[0]
    state = (await alice.get(f"/threads/{key}/state")).json()
    checkpoint_id = state["checkpoint"]["checkpoint_id"]
    await post(f"/sessions/{key}/labels/mark", {"checkpoint_id": checkpoint_id}, "PUT")
    await post(f"/sessions/{key}/checkpoints/{checkpoint_id}/pin", {}, "PUT")
    share = await post(f"/sessions/{key}/shares", {"owner": "carol"})
    asked = await post("/sessions", {"assistant_id": "ask"})
    asking = {"assistant_id": "ask", "input": {"x": [SECRET]}}
    await post(f"/threads/{asked['thread_id']}/runs/wait", asking)
    template = await post("/templates", {"name": SECRET, "body": {"title": SECRET}})
    due = {"assistant_id": "echo", "schedule": "0 0 1 1 *", "input": {"s": SECRET}}
    cron = await post(f"/threads/{key}/runs/crons", due)
    item = {"namespace": ["notes"], "key": "k", "value": {"s": SECRET}}
    if (await alice.put("/store/items", json=item)).status_code != 404:  # it can be turned off
        await post("/store/items", item, "PUT")
    owner_id = await db.owner("acme", "alice")
    ids = {
        "assistant_id": agent["assistant_id"],
        "thread_id": key,
        "run_id": run["run_id"],
        "checkpoint_id": checkpoint_id,
        "share_id": share["share_id"],
        "template_id": template["template_id"],
        "cron_id": cron["cron_id"],
        "asked_id": asked["thread_id"],
    }
    return Life(owner_id, ids)


async def possessions(conn: Connection, owner_id: int) -> dict[str, str | None]:
    """A digest of every row of this owner, by table. The connection is the service's."""
    cursor = await conn.execute(
        "select c.relname::text as name from pg_class c "
        "join pg_namespace n on n.oid = c.relnamespace and n.nspname = 'clew' "
        "join pg_attribute a on a.attrelid = c.oid and a.attname = 'owner_id' "
        "where c.relkind in ('r', 'p') and not c.relispartition"
    )
    digest = "select md5(string_agg(t::text, ',' order by t::text)) as digest "
    found: dict[str, str | None] = {}
    for row in await cursor.fetchall():
        if row["name"] in RESTLESS:
            continue
        statement = sql.SQL(digest + "from clew.{} t where owner_id = %s")
        one = await conn.execute(statement.format(sql.Identifier(row["name"])), [owner_id])
        [digested] = await one.fetchall()
        found[row["name"]] = digested["digest"]
    return found


async def snapshot(db: Database, owner_id: int) -> dict[str, str | None]:
    async with db.transaction(SERVICE) as conn:
        return await possessions(conn, owner_id)


def changed(before: dict[str, str | None], after: dict[str, str | None]) -> list[str]:
    return sorted(name for name in before | after if before.get(name) != after.get(name))
