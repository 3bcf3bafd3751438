"""The loop that calls others: when a run is over, and when something happened to a session.

At least once: a call counts as made when it was answered with 2xx, and until then it is tried
again, later each time, by whichever process comes to it. A receiver tells repetitions by their
`webhook-id`. What happens to sessions is told in order.
"""

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg.rows import DictRow

from clew.checkpointing.errors import DatabaseUnreachable
from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.runtime import errors, notifier, outbox, wire
from clew.runtime.notifier import Bell, Wakeups
from clew.runtime.outbox import Happening, Place
from clew.runtime.payloads import Payloads
from clew.runtime.posting import Answer, Poster
from clew.runtime.sql import queries
from clew.runtime.telemetry import Telemetry

log = logging.getLogger(__name__)

AT_ONCE = 32  # calls in progress in one process
MOST = 8  # attempts for one run
PAGE = 100
POLL = 2.0


class Webhooks:
    """`async with Webhooks(...)`: calls are made for as long as it lasts. With `poster` None none
    are, and those of runs are forgotten."""

    def __init__(
        self,
        db: Database,
        wakeups: Wakeups,
        payloads: Payloads,
        poster: Poster | None,
        telemetry: Telemetry,
    ) -> None:
        self._db = db
        self._wakeups = wakeups
        self._payloads = payloads
        self._poster = poster
        self._telemetry = telemetry
        self._calls: set[asyncio.Task[None]] = set()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        self._stack.callback(self._stop, tasks.create_task(self._loop(tasks)))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, trace)

    def _stop(self, loop: asyncio.Task[None]) -> None:
        # A call that is cut off is made again, by another process, in a minute.
        for task in (loop, *self._calls):
            task.cancel()

    async def _loop(self, tasks: asyncio.TaskGroup) -> None:
        with self._wakeups.listen(notifier.WEBHOOK) as bell:
            while True:
                more = False
                try:
                    more = await self._take(tasks, bell)
                except (psycopg.Error, DatabaseUnreachable) as error:
                    # The loop outlives a database that is away; what is due stays due.
                    log.warning("webhooks could not be looked at, trying again: %s", error)
                except Exception:
                    # One fault must not end all that runs here.
                    log.exception("webhooks could not be looked at, trying again")
                if not more:
                    await bell.wait(min(POLL, self._wakeups.patience))

    async def _take(self, tasks: asyncio.TaskGroup, bell: Bell) -> bool:
        """Start what is due, as far as there is room; says whether there may be more."""
        if self._poster is None:
            await self._db.execute(SERVICE, queries["drop_webhooks"])
            return False
        room = AT_ONCE - len(self._calls)
        values = {"limit": room, "local": self._poster.reaches_itself}
        due = await self._db.fetch(SERVICE, queries["claim_webhooks"], values) if room else []
        calls: list[Coroutine[Any, Any, None]] = [self._tell_of_run(self._poster, r) for r in due]
        if room := room - len(due):
            values["limit"] = room
            found = await self._db.fetch(SERVICE, queries["claim_subscriptions"], values)
            calls += [self._tell_of_sessions(self._poster, row) for row in found]
        for call in calls:
            task = tasks.create_task(self._guarded(call, bell))
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)
        return bool(calls) and len(self._calls) < AT_ONCE

    async def _guarded(self, call: Coroutine[Any, Any, None], bell: Bell) -> None:
        full = len(self._calls) >= AT_ONCE
        try:
            await call
        except (psycopg.Error, DatabaseUnreachable) as error:
            log.warning("what became of a webhook could not be noted: %s", error)
        except Exception:
            # The loop's boundary: one call that cannot be made must not end all others. It comes
            # up again in a minute.
            log.exception("a webhook could not be sent")
        if full:
            bell.ring()

    async def _tell_of_run(self, poster: Poster, row: DictRow) -> None:
        run_id = str(row["run_id"])
        try:
            body = await self._payloads.of_run(
                row["owner_id"], row["thread_id"], run_id, row["state"]
            )
            answer = await poster.post(row["url"], run_id, body)
        except errors.NotFound:
            return  # deleted meanwhile, and the webhook with it
        except (psycopg.Error, DatabaseUnreachable):
            raise
        except Exception as error:
            # The call's boundary: values can be objects with code of their own.
            log.exception("the webhook of run %s could not be made", run_id)
            answer = Answer(type(error).__name__, 0.0)
        if answer.fault is None:
            await self._db.execute(SERVICE, queries["webhook_taken"], {"run_id": run_id})
            self._telemetry.delivered("sent", answer.seconds)
            return
        values = {
            "run_id": run_id,
            "fault": answer.fault,
            "final": answer.final,
            "most": MOST,
        }
        refused = await self._db.one(SERVICE, queries["webhook_refused"], values)
        given_up = bool(refused and refused["given_up"])
        self._telemetry.delivered("given_up" if given_up else "again", answer.seconds)
        level = logging.WARNING if given_up else logging.INFO
        log.log(
            level,
            "the webhook of run %s was not taken (attempt %s%s): %s",
            run_id,
            row["attempts"],
            ", the last one" if given_up else "",
            answer.fault,
        )

    async def _tell_of_sessions(self, poster: Poster, row: DictRow) -> None:
        """One happening after the other: the next one waits until this one was taken."""
        subscription_id, kinds = str(row["subscription_id"]), row["kinds"]
        who = Principal(row["reach_from"], row["reach_to"])
        place = Place(int(row["xid"]), row["outbox_id"])
        fault: str | None = None
        for happening in await outbox.read(self._db, who, place, since=row["since"], limit=PAGE):
            if kinds is None or happening.kind in kinds:
                answer = await poster.post(row["url"], str(happening.place), _event(happening))
                fault = answer.fault
                self._telemetry.delivered("again" if fault else "sent", answer.seconds)
                if fault is not None:
                    log.info("webhook %s did not take an event: %s", subscription_id, fault)
                    break
            moved = {
                "subscription_id": subscription_id,
                "xid": str(happening.place.xid),
                "outbox_id": happening.place.outbox_id,
            }
            if not await self._db.execute(SERVICE, queries["subscription_went_on"], moved):
                return
        values = {"subscription_id": subscription_id, "fault": fault}
        await self._db.execute(SERVICE, queries["subscription_rests"], values)


def _event(happening: Happening) -> bytes:
    return wire.encode(
        {
            "id": str(happening.place),
            "type": happening.kind,
            "timestamp": happening.created_at,
            "data": {
                **happening.data,
                "thread_id": happening.thread_id,
                "run_id": happening.run_id,
            },
        }
    )
