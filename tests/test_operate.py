"""What operators do from the command line, as they do it: in processes of their own."""

import base64
import os
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import START, MessagesState, StateGraph

from clew.checkpointing import keys
from clew.checkpointing.encryption import Keyring
from clew.checkpointing.postgres import Database, Principal
from clew.checkpointing.stock import Stock
from clew.runtime import sessions, storekeys
from tests.test_cli import run


def graph(saver: Any) -> Any:
    def echo(state: MessagesState) -> Any:
        return {"messages": [AIMessage(state["messages"][-1].text)]}

    return (
        StateGraph(MessagesState).add_node(echo).add_edge(START, "echo").compile(checkpointer=saver)
    )


async def test_sessions_come_in_are_encrypted_rotated_and_go_out_again(
    dsn: str, empty_dsn: str, db: Database, tmp_path: Path
) -> None:
    async with Stock.open(empty_dsn, setup=True) as stock, stock.connection() as conn:
        for n in range(3):
            config: Any = {"configurable": {"thread_id": f"thread-{n}"}}
            said = {"messages": [HumanMessage("hello")]}
            await graph(AsyncPostgresSaver(conn)).ainvoke(said, config)

    async def clew(*arguments: str, keyring: str = "") -> str:
        env = {"DATABASE_URL": dsn, **({"CLEW_ENCRYPTION_KEYS": keyring} if keyring else {})}
        code, said = await run(*arguments, cwd=tmp_path, **env)
        assert code == 0, said
        return said

    said = await clew("import", empty_dsn, "--owner", "ann")
    assert "3/3" in said
    assert "Imported 3 sessions." in said
    ann = Principal.owner(await db.owner("default", "ann"))
    named = str(uuid5(NAMESPACE_OID, "thread-1"))
    assert "3 of them name no graph" in said
    assert (await sessions.get(db, ann, named)).metadata == {"imported_thread_id": "thread-1"}
    # Once more does no harm, and says what was not known before.
    again = await clew("import", empty_dsn, "--owner", "ann", "--graph", "echo")
    assert "Imported 0 sessions." in again
    session = await sessions.get(db, ann, named)
    assert (session.graph_id, session.message_count) == ("echo", 2)
    assert "(not encrypted): 3 lineages" in await clew("encryption", "list")
    secret = os.urandom(32)
    old = f"old:{base64.b64encode(secret).decode()}"
    new = f"new:{base64.b64encode(os.urandom(32)).decode()}"
    assert "Encrypted 3 lineages" in await clew("encryption", "encrypt", keyring=old)
    assert await keys.in_use(db) == {"old": 3}
    await storekeys.Keys(Keyring([("old", secret)])).writers(db, ann.owner_from, [None])
    assert "old: 1 keys of the store" in await clew("encryption", "list", keyring=old)
    assert "4 data keys are now under new." in await clew(
        "encryption", "rewrap", keyring=f"{new},{old}"
    )
    async with Stock.open(empty_dsn, schema="out", setup=True) as stock:
        told = await clew("export", empty_dsn, "--schema", "out", "--owner", "ann", keyring=new)
        assert "Exported 3 sessions." in told
        assert named in await stock.threads()
        assert len(await stock.threads()) == 3


async def test_mistakes_are_one_line(dsn: str, empty_dsn: str, tmp_path: Path) -> None:
    code, said = await run("encryption", "rewrap", cwd=tmp_path, DATABASE_URL=dsn)
    assert (code, "CLEW_ENCRYPTION_KEYS" in said, "Traceback" in said) == (2, True, False)
    code, said = await run("import", empty_dsn, "--owner", "a", cwd=tmp_path, DATABASE_URL=dsn)
    assert (code, "no tables" in said, "Traceback" in said) == (1, True, False)
