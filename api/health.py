"""Is it up, what is it: never authenticated."""

import importlib.metadata
from typing import Any

from fastapi import APIRouter

from clew.api.deps import Clew

routes = APIRouter(tags=["system"])

VERSION = importlib.metadata.version("clew")


@routes.get("/ok")
@routes.get("/", include_in_schema=False)
async def ok(clew: Clew, *, check_db: bool = False) -> dict[str, Any]:
    if clew.config.http and clew.config.http.disable_meta:
        return {"ok": True}
    if check_db:
        async with clew.db.connection() as conn:
            await conn.execute("select 1")
    return {"ok": True, "services": {"postgres": "ok"} if check_db else {}}


@routes.get("/info")
async def info(clew: Clew) -> dict[str, Any]:
    return {
        "version": VERSION,
        "langgraph_py_version": importlib.metadata.version("langgraph"),
        "flags": {
            "assistants": not (clew.config.http and clew.config.http.disable_assistants),
            "crons": clew.settings.crons,
            "langsmith": False,
            "stream_namespaces": True,
            "strict_resume": True,
        },
        "host": {"kind": "self-hosted"},
    }
