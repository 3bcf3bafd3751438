"""The loop that starts the runs of crons. Every replica may run it: whoever claims a fire time
makes its run and moves the cron on in one transaction, so a fire time has one run, whatever crashes
and however many look.

Times that passed while no process ran are made up for by one run, not by one each.
"""

import asyncio
import logging
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from types import TracebackType
from typing import Literal, Self

import psycopg

from clew.checkpointing.errors import DatabaseUnreachable
from clew.checkpointing.postgres import SERVICE, Connection, Database, Principal
from clew.checkpointing.sealed import apart, closed
from clew.runtime import errors, ids, notifier, runs, sessions, turns
from clew.runtime.crons import Cron
from clew.runtime.graphs import Graphs
from clew.runtime.notifier import Wakeups
from clew.runtime.requests import RunRequest
from clew.runtime.runs import Limits, Run
from clew.runtime.sql import queries
from clew.runtime.telemetry import Telemetry

log = logging.getLogger(__name__)

BATCH = 100


class Crons:
    """`async with Crons(...)`: fire times are met for as long as it lasts."""

    def __init__(
        self,
        db: Database,
        graphs: Graphs,
        wakeups: Wakeups,
        telemetry: Telemetry,
        *,
        interval: timedelta = timedelta(seconds=5),
        limits: Limits | None = None,
    ) -> None:
        self._db = db
        self._graphs = graphs
        self._wakeups = wakeups
        self._telemetry = telemetry
        self._interval = interval.total_seconds()
        self._limits = limits
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        self._stack.callback(tasks.create_task(self._loop()).cancel)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, trace)

    async def _loop(self) -> None:
        while True:
            wait = self._interval
            try:
                while await self.tick() == BATCH:
                    pass
                row = await self._db.one(SERVICE, queries["next_cron"], {"opens": self._db.opens})
                if row is not None and row["wait"] is not None:
                    wait = min(wait, max(0.01, row["wait"].total_seconds()))
            except (psycopg.Error, DatabaseUnreachable) as error:
                # The loop outlives a database that is away; what is due stays due.
                log.warning("crons could not be looked at, trying again: %s", error)
            except Exception:
                # One fault must not end all that runs here.
                log.exception("crons could not be looked at, trying again")
            await asyncio.sleep(wait)

    async def tick(self) -> int:
        """Fire what is due now, a bounded number; says how many there were."""
        with apart():
            due = await self._db.fetch(SERVICE, _DUE, {"limit": BATCH, "opens": self._db.opens})
        for row in due:
            why = closed(row["request"])
            try:
                cron = Cron.of(row) if why is None else None
            except ValueError:
                cron, why = None, "it is not in a form that this release knows"
            if cron is not None:
                await self._meet(cron)
            else:
                log.error("cron %s cannot be read: %s", row["cron_id"], why)
                await self._skip(Cron.of({**row, "request": b"{}"}), "failed")
        return len(due)

    async def _meet(self, cron: Cron) -> None:
        try:
            if await self.fire(cron) is not None:
                self._telemetry.fired("started")
        except (psycopg.OperationalError, DatabaseUnreachable):
            raise
        except errors.ClewError as error:
            # Its thread is gone or takes no runs, or too many wait already: not this time.
            log.warning("cron %s did not start a run: %s", cron.cron_id, error)
            await self._skip(cron, "refused")
        except Exception:
            # The loop's boundary: whatever is wrong with one cron must not keep back the others.
            log.exception("cron %s failed to start a run", cron.cron_id)
            await self._skip(cron, "failed")

    async def _skip(self, cron: Cron, outcome: Literal["refused", "failed"]) -> None:
        self._telemetry.fired(outcome)
        async with self._db.transaction(Principal.owner(cron.owner_id)) as conn:
            if (moment := await _claim(conn, cron)) is not None:
                await _move_on(conn, cron, moment)

    async def fire(self, cron: Cron) -> Run | None:
        """The run of the time that the cron is due at; None if another process makes it."""
        request = await self._request(cron)
        thread_id = cron.thread_id or ids.mint()
        async with self._db.transaction(Principal.owner(cron.owner_id)) as conn:
            # Session before cron, the order in which a session's deletion locks them.
            if cron.thread_id is not None:
                await conn.execute(queries["lock_session_for_run"], {"thread_id": thread_id})
            moment = await _claim(conn, cron)
            if moment is None:
                return None
            if cron.thread_id is None and not request.temporary:
                values = sessions.row_of(cron.owner_id, thread_id, {"graph_id": request.graph_id})
                await conn.execute(queries["create_session"], values)
            run = await runs.add(conn, cron.owner_id, thread_id, request, limits=self._limits)
            await _move_on(conn, cron, moment)
        cancels = request.multitask_strategy in ("interrupt", "rollback")
        self._wakeups.publish(notifier.QUEUE, *([notifier.CANCEL] if cancels else []))
        return run

    async def _request(self, cron: Cron) -> RunRequest:
        who = Principal.owner(cron.owner_id)
        chosen = await turns.assistant(self._db, who, self._graphs, cron.assistant_id)
        session = cron.thread_id and await sessions.get(self._db, who, cron.thread_id)
        assert cron.next_at is not None
        asked = turns.compose(
            chosen,
            session or None,
            {**cron.request, "metadata": {**cron.metadata, "cron_id": cron.cron_id}},
            temporary=cron.on_run_completed == "delete",
            user=cron.caller,
            # A second lock on the door, for a database that was set back in time.
            idempotency_key=f"cron:{cron.cron_id}:{cron.next_at.isoformat()}",
        )
        named = {"configurable": {"cron_id": cron.cron_id}}
        return replace(asked, config=turns.merge([asked.config, named]))


_DUE = queries["due_crons"]


async def _claim(conn: Connection, cron: Cron) -> datetime | None:
    """The database's time, if the fire time is ours from here to the end of the transaction."""
    row = await (await conn.execute(queries["claim_cron"], _key(cron))).fetchone()
    return row["moment"] if row else None


async def _move_on(conn: Connection, cron: Cron, moment: datetime) -> None:
    await conn.execute(queries["move_cron_on"], {**_key(cron), "next_at": cron.upcoming(moment)})


def _key(cron: Cron) -> dict[str, object]:
    return {"cron_id": cron.cron_id, "fire_at": cron.next_at, "updated_at": cron.updated_at}
