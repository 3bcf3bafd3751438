"""What routes are given: the parts that `app.py` built, and the session a path names."""

import asyncio
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from clew.api.auth import Caller
from clew.checkpointing.postgres import Database
from clew.checkpointing.saver import Saver
from clew.runtime import sessions
from clew.runtime.config import Config
from clew.runtime.events import Feed
from clew.runtime.graphs import Graphs
from clew.runtime.sessions import Session
from clew.runtime.settings import Settings
from clew.runtime.store import Store
from clew.runtime.telemetry import Telemetry
from clew.runtime.worker import Worker


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything a request may need. Built once, in `app.py`, and handed down from there."""

    settings: Settings
    config: Config
    db: Database
    graphs: Graphs
    saver: Saver
    store: Store | None
    feed: Feed
    worker: Worker
    leaving: asyncio.Event  # set when this process has been told to stop
    telemetry: Telemetry = field(default_factory=Telemetry)


async def parts(connection: HTTPConnection) -> Parts:
    return connection.app.state.parts


Clew = Annotated[Parts, Depends(parts)]


async def reach(clew: Parts, who: Caller, thread_id: object, action: str = "read") -> Session:
    """The session of that id, if the caller may do this to it. Foreign and unknown are one."""
    allowed = await who.authorize("threads", action, {"thread_id": thread_id})
    return await sessions.get(clew.db, who.principal, str(thread_id), allowed=allowed)
