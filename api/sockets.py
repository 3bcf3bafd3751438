"""Protocol v2 over one WebSocket: commands in; their answers and what is subscribed to, out."""

import asyncio
import json
import logging
from uuid import UUID

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from clew.api import commands, protocol
from clew.api.auth import Caller, Who
from clew.api.deps import Clew, Parts
from clew.api.protocol import Subscription
from clew.api.schema import Json
from clew.runtime import errors, wire
from clew.runtime.events import Cursor

log = logging.getLogger(__name__)

routes = APIRouter(prefix="/threads/{thread_id}", tags=["protocol v2"])

MOST = 64  # subscriptions of one socket


@routes.websocket("/stream/events")
async def socket(clew: Clew, who: Who, thread_id: UUID, websocket: WebSocket) -> None:
    await websocket.accept()
    talk = Talk(clew, who, str(thread_id), websocket)
    try:
        async with asyncio.TaskGroup() as tasks:
            while True:
                text = await websocket.receive_text()
                await talk.hear(text, tasks)
    except* WebSocketDisconnect:
        log.debug("a socket of thread %s was closed", thread_id)


class Talk:
    """The state of one socket: its subscriptions, and whose turn it is to write."""

    def __init__(self, clew: Parts, who: Caller, thread_id: str, socket: WebSocket) -> None:
        self._clew, self._who, self._thread_id, self._socket = clew, who, thread_id, socket
        self._subscriptions: dict[str, asyncio.Task[None]] = {}
        self._writing = asyncio.Lock()
        self._seq = 0  # the highest that was told

    async def hear(self, text: str, tasks: asyncio.TaskGroup) -> None:
        try:
            body = json.loads(text)
        except ValueError:
            why = "Protocol commands must be valid JSON."
            await self._say({**commands.MALFORMED, "message": why})
            return
        if not commands.well_formed(body):
            await self._say(commands.MALFORMED)
            return
        method, params = body["method"], body.get("params") or {}
        if method == "subscription.subscribe":
            await self._subscribe(body["id"], params, tasks)
        elif method == "subscription.unsubscribe":
            task = self._subscriptions.pop(str(params.get("subscription_id")), None)
            if task is None:
                await self._refuse(body["id"], "no_such_subscription", "No such subscription.")
            else:
                task.cancel()
                await self._say({"type": "success", "id": body["id"], "result": {}})
        else:
            said = await commands.answer(self._clew, self._who, self._thread_id, body)
            if "meta" in said:
                told = said["meta"]["applied_through_seq"]
                said["meta"]["applied_through_seq"] = max(told, self._seq)
            await self._say(said)

    async def _subscribe(self, number: int, params: Json, tasks: asyncio.TaskGroup) -> None:
        try:
            wanted, after = protocol.subscription(params), commands.since(params.get("since"))
        except errors.BadRequest as error:
            await self._refuse(number, "invalid_argument", str(error))
            return
        name = f"sub-{number}"
        if name in self._subscriptions or len(self._subscriptions) >= MOST:
            why = "that id is taken" if name in self._subscriptions else f"{MOST} are open already"
            await self._refuse(number, "invalid_argument", f"Cannot subscribe: {why}.")
            return
        await self._say(
            {
                "type": "success",
                "id": number,
                "result": {"subscription_id": name, "replayed_events": 0},
            }
        )
        self._subscriptions[name] = tasks.create_task(self._pump(wanted, after))

    async def _pump(self, wanted: Subscription, after: Cursor) -> None:
        """On one socket `seq` grows whatever subscription an event is for: a client hands each to
        all of its own, and after the end of a run takes what has a lower one for read already."""
        reader = protocol.Reader(wanted)
        async for event in commands.follow(self._clew, self._who, self._thread_id, wanted, after):
            async with self._writing:
                seq = max(event.seq, self._seq + 1)
                if (rendered := reader.render(event, seq)) is not None:
                    self._seq = seq
                    await self._socket.send_text(rendered[1].decode())

    async def _refuse(self, number: int, code: str, message: str) -> None:
        await self._say({"type": "error", "id": number, "error": code, "message": message})

    async def _say(self, body: Json) -> None:
        async with self._writing:
            await self._socket.send_text(wire.encode(body).decode())
