"""The events of one run while it is here: numbered, kept for readers of this process, and handed to
the log a flush at a time.

A reader has nothing of its own but a place; who falls behind what is kept here goes on from the
log. So the memory of a run's events is bounded, however many read them and however slowly.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence

from clew.runtime import compaction, events, wire
from clew.runtime.events import Entry, Ref, Row
from clew.runtime.runs import Run

KEPT = 256 * 1024  # bytes that stay in memory after they were written to the log
FULL = 4 * 1024 * 1024  # unwritten bytes at which the run has to wait
LARGEST_ROW = 1024 * 1024
# Tokens that come faster than this are shown together: a reader costs by how often it is woken.
PACE_SECONDS = 0.01


class Tape:
    def __init__(self, run: Run, epoch: int) -> None:
        self.run = run
        self.epoch = epoch
        self.entries: deque[Entry] = deque()
        self.readers = 0
        self.closed = False
        self.complete = False  # closed with the run's last event on it
        self.sealed = False
        self.replaces = False  # what it has to write at the end is all that stays of the run
        # Held while a flush of it is under way.
        self.flushing = asyncio.Lock()
        self._n = 0
        self._shown_n = 0  # readers see no further
        self._holding = False  # while the end is being written
        self._paced = 0.0  # when the next token may be shown by itself
        self._later: asyncio.TimerHandle | None = None
        self._written_n = 0
        self._held = 0
        self._unwritten = 0
        self._waiting: set[asyncio.Future[None]] = set()
        self._room = asyncio.Event()
        self._room.set()
        self._clear = asyncio.Event()
        # The statement that started the run wrote its first event.
        opening = (
            {"event": "running", "graph_name": run.graph_id, "attempt": run.attempt}
            if run.protocol == "v2"
            else {"run_id": run.run_id, "attempt": run.attempt}
        )
        name = "lifecycle" if run.protocol == "v2" else "metadata"
        started = int(run.started_at.timestamp() * 1000) if run.started_at else None
        self.append(name, wire.encode(opening), at=started)
        self.written(1)

    @property
    def first_n(self) -> int:
        """The number of the oldest event that is still here, or of the next to come."""
        return self.entries[0].n if self.entries else self._n + 1

    @property
    def last_n(self) -> int:
        """The number of the newest event that readers see."""
        return self._shown_n

    @property
    def unwritten(self) -> int:
        """Bytes that are not yet in the log."""
        return self._unwritten

    def append(
        self,
        name: str,
        data: bytes | None,
        *,
        ns: tuple[str, ...] = (),
        node: str | None = None,
        ref: Ref | None = None,
        rest: bytes = b"",
        at: int | None = None,
    ) -> Entry:
        """Number an event. With a `ref`, the log keeps only `rest` of its data."""
        self._n += 1
        stored = rest if ref is not None else data or b"null"
        moment = time.time_ns() // 1_000_000 if at is None else at
        entry = Entry(self._n, moment, name, ns, node, stored, data, ref)
        self.entries.append(entry)
        size = _size(entry)
        self._held += size
        self._unwritten += size
        self._clear.clear()
        if self._unwritten > FULL:
            self._room.clear()
        if events.kind(name) == events.TOKENS:
            self._show_soon()
        else:
            self._show()
        return entry

    async def room(self) -> None:
        """Wait while more is unwritten than may be lost or held."""
        await self._room.wait()

    async def caught_up(self) -> None:
        """Wait until the log has everything."""
        await self._clear.wait()

    def rows(self) -> list[Row]:
        """What the log does not have yet."""
        rows: list[Row] = []
        piece: list[Entry] = []
        held = 0
        for entry in self._since(self._written_n):
            piece.append(entry)
            held += len(entry.stored)
            if held > LARGEST_ROW:
                rows.append(self._row(piece))
                piece, held = [], 0
        if piece:
            rows.append(self._row(piece))
        return rows

    def written(self, last_n: int) -> None:
        """The log has everything up to this number."""
        for entry in self._since(self._written_n):
            if entry.n > last_n:
                break
            self._unwritten -= _size(entry)
        self._written_n = last_n
        if self._unwritten <= FULL:
            self._room.set()
        if last_n == self._n:
            self._clear.set()
        while self._held > KEPT and self.entries and self.entries[0].n <= last_n:
            self._held -= _size(self.entries.popleft())

    def hold(self) -> None:
        """Show readers nothing further: nobody hears that a run is over before it is."""
        self._show()
        self._holding = True

    async def seal(self, *, ends: bool = True) -> list[Row]:
        """Nothing is flushed from now on; returns what the end of the run has to write, or who
        hands it over before its end."""
        self.sealed = True
        async with self.flushing:
            if not ends or self.run.attempt > 1 or self.first_n > 1:
                return self.rows()
            # All of it is here: it is written as it is to stay, and needs no compaction later.
            self.replaces = True
            run, v2 = self.run, self.run.protocol == "v2"
            return [
                Row(run.thread_id, run.run_id, self.epoch, first_n, last_n, v2, sort, codec, body)
                for first_n, last_n, sort, codec, body in compaction.apart(self.entries)
            ]

    def close(self, *, complete: bool) -> None:
        """Nothing comes any more. Unless this is all, readers go on from the log."""
        self.closed = self.sealed = True
        self.complete = complete
        self._holding = not complete
        self._room.set()
        self._show()

    def after(self, n: int) -> Sequence[Entry] | None:
        """The events after this number; None where some of them are only in the log."""
        if n + 1 < self.first_n or (self.closed and not self.complete):
            return None
        found = self._since(n)
        hidden = self._n - self._shown_n
        return found[: max(0, len(found) - hidden)] if hidden else found

    async def news(self, n: int, seconds: float) -> None:
        """Wait for an event after this number, or for the end, at most so long."""
        if self.last_n > n or self.closed:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            await asyncio.wait({waiter}, timeout=seconds)
        finally:
            self._waiting.discard(waiter)

    def _since(self, n: int) -> list[Entry]:
        start = max(0, n + 1 - self.first_n)
        if start == 0:
            return list(self.entries)
        # A deque is slow in the middle and quick at its ends, where readers are.
        fresh = len(self.entries) - start
        return [self.entries[-i] for i in range(fresh, 0, -1)]

    def _row(self, entries: Sequence[Entry]) -> Row:
        run = self.run
        return events.row(run.thread_id, run.run_id, self.epoch, entries, v2=run.protocol == "v2")

    def _show_soon(self) -> None:
        now = time.monotonic()
        if now >= self._paced:
            self._show_tokens()
        elif self._later is None:
            loop = asyncio.get_running_loop()
            self._later = loop.call_later(self._paced - now, self._show_tokens)

    def _show_tokens(self) -> None:
        self._paced = time.monotonic() + PACE_SECONDS
        self._show()

    def _show(self) -> None:
        """Readers see all that is here, unless the end is being written."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if not self._holding:
            self._shown_n = self._n
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting.clear()


def _size(entry: Entry) -> int:
    return len(entry.stored) + (len(entry.data) if entry.ref and entry.data else 0) + 100
