"""Brings what runs have streamed to the log, every 20 ms, or sooner when much has gathered. A flush
that finds its epoch over writes nothing, and whoever runs it is told.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack

import psycopg

from clew.checkpointing.errors import DatabaseUnreachable
from clew.runtime import events, notifier
from clew.runtime.events import EventLog
from clew.runtime.notifier import Wakeups
from clew.runtime.tape import Tape
from clew.runtime.telemetry import Telemetry

log = logging.getLogger(__name__)

FLUSH_SECONDS = 0.02
FLUSH_BYTES = 64 * 1024


class Flusher:
    def __init__(
        self,
        log: EventLog,
        wakeups: Wakeups,
        telemetry: Telemetry,
        tapes: Mapping[str, Tape],
        lost: Callable[[Tape], None],
    ) -> None:
        """`tapes` are of the runs that are here; `lost` is told of one that is not any more."""
        self._log = log
        self._wakeups = wakeups
        self._telemetry = telemetry
        self._tapes = tapes
        self._lost = lost
        self._over: set[tuple[str, str]] = set()
        self._dirty = asyncio.Event()
        self._urgent = asyncio.Event()

    def touched(self, tape: Tape) -> None:
        """Something was appended: flush it soon."""
        self._dirty.set()
        if tape.unwritten > FLUSH_BYTES:
            self._urgent.set()

    def over(self, tape: Tape) -> None:
        """The run has ended, with all of it in the log."""
        self._over.add((tape.run.thread_id, tape.run.run_id))

    async def run(self) -> None:
        pause = 0.0
        while True:
            await self._dirty.wait()
            if pause:
                await asyncio.sleep(pause)
            else:
                await self._gather()
            self._dirty.clear()
            self._urgent.clear()
            tapes = [tape for tape in self._tapes.values() if tape.unwritten and not tape.sealed]
            over, self._over = self._over, set[tuple[str, str]]()
            try:
                await self._write(tapes)
                await self._log.forget(over)
                pause = 0.0
            except (psycopg.Error, DatabaseUnreachable) as error:
                # Kept and tried again; the run waits once too much has gathered.
                log.warning("events were not written, trying again: %s", error)
                self._over |= over
                pause = min(1.0, pause * 2 or 0.05)
                self._dirty.set()

    async def _gather(self) -> None:
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._urgent.wait()
        except TimeoutError:
            pass

    async def _write(self, tapes: Iterable[Tape]) -> None:
        async with AsyncExitStack() as stack:
            batch: dict[tuple[str, int], Tape] = {}
            rows: list[events.Row] = []
            for tape in tapes:
                await stack.enter_async_context(tape.flushing)
                if not tape.sealed and (found := tape.rows()):
                    rows += found
                    batch[tape.run.thread_id, tape.epoch] = tape
            if not rows:
                return
            began = time.monotonic()
            held = await self._log.append(rows)
            count = sum(row.last_n - row.first_n + 1 for row in rows)
            self._telemetry.flushed(time.monotonic() - began, count)
            last = {(row.thread_id, row.epoch): row.last_n for row in rows}
            for key, tape in batch.items():
                if key in held:
                    tape.written(last[key])
                    continue
                tape.sealed = True
                self._telemetry.refused_by_fence()
                self._lost(tape)
        self._wakeups.publish(*(notifier.thread(thread_id) for thread_id, _ in batch))
