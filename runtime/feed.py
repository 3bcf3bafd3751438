"""The one way to read what runs stream: from memory where the run is here, from the log everywhere
else, and from one to the other without a seam.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from clew.checkpointing.postgres import Database, Principal
from clew.checkpointing.saver import Saver
from clew.runtime import events, notifier, reading
from clew.runtime.events import START, Cursor, Entry, Event, EventLog, PostgresLog, Want
from clew.runtime.flusher import Flusher
from clew.runtime.notifier import Bell, Wakeups
from clew.runtime.reading import Reader
from clew.runtime.runs import TERMINAL, Run
from clew.runtime.sql import queries
from clew.runtime.tape import Tape
from clew.runtime.telemetry import Telemetry
from clew.runtime.whole import Whole

log = logging.getLogger(__name__)

# Runs that have just ended stay readable from memory: a short run may be over before its first
# reader arrives.
RECENT = 64
# After something came a reader looks again this soon: its place of copies may not have the end.
SOON_SECONDS = 0.1
# As many events are handed on at once, so that a reader who does not take them holds no more.
BATCH = 64
# Rows of the log that may have a state in them.
STATES = (events.MIXED, events.BULKY)
# The place after all events of an epoch.
_ALL = 2**31 - 1

# Entries, and the run and epoch that they are of, and whether that run is v2.
Told = tuple[Sequence[Entry], tuple[str, int, bool]]


class Follower:
    """`async with Follower(...) as feed`: the feed of this process."""

    def __init__(
        self,
        db: Database,
        wakeups: Wakeups,
        saver: Saver,
        log: EventLog | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._db = db
        self._telemetry = telemetry or Telemetry()
        self._wakeups = wakeups
        self._log: EventLog = log or PostgresLog(db)
        self._whole = Whole(saver)
        self._by_thread: dict[str, Tape] = {}
        self._by_run: OrderedDict[str, Tape] = OrderedDict()
        self._lost: dict[str, Callable[[], None]] = {}
        self._flusher = Flusher(
            self._log, wakeups, self._telemetry, self._by_thread, self._told_lost
        )
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        self._stack.callback(tasks.create_task(self._flusher.run()).cancel)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What was raised inside goes on as it is, not as a group of one.
        await self._stack.aclose()

    # For the one who runs a run.

    def open(self, run: Run, on_lost: Callable[[], None]) -> Tape:
        """The tape of a run that starts here; `on_lost` is called when its epoch is over."""
        if run.epoch is None:
            raise ValueError(f"run {run.run_id} has not started")
        tape = Tape(run, run.epoch)
        self._by_thread[run.thread_id] = tape
        self._by_run[run.run_id] = tape
        self._by_run.move_to_end(run.run_id)
        self._lost[run.run_id] = on_lost
        self._wakeups.publish(notifier.thread(run.thread_id))
        return tape

    def touched(self, tape: Tape) -> None:
        """Something was appended: flush it soon."""
        self._flusher.touched(tape)

    def _told_lost(self, tape: Tape) -> None:
        if on_lost := self._lost.get(tape.run.run_id):
            on_lost()

    def close(self, tape: Tape, *, complete: bool) -> None:
        """The run has ended with its last event on the tape; or it is no longer ours."""
        tape.close(complete=complete)
        self._lost.pop(tape.run.run_id, None)
        if complete:
            self._flusher.over(tape)
        if self._by_thread.get(tape.run.thread_id) is tape:
            del self._by_thread[tape.run.thread_id]
        while len(self._by_run) > RECENT:
            oldest = next(iter(self._by_run.values()))
            if not oldest.closed:
                self._by_run.move_to_end(oldest.run.run_id)
                break
            del self._by_run[oldest.run.run_id]
        self._wakeups.publish(notifier.thread(tape.run.thread_id))

    # For readers.

    async def tip(self, who: Principal, thread_id: str) -> Cursor:
        """The place after the newest event."""
        tape = self._here(who, self._by_thread.get(thread_id))
        if tape is not None:
            return Cursor(tape.epoch, tape.last_n)
        return await self._log.tip(who, thread_id)

    async def place(
        self, who: Principal, thread_id: str, run_id: str, checkpoint_id: str
    ) -> Cursor:
        """See `events.Feed`."""
        reader = Reader(who, thread_id, run_id, START, None, brief=False)
        tape, here = self._tape(reader), START
        if tape is not None:
            n = reading.holding(tape.after(tape.first_n - 1) or (), checkpoint_id)
            here = START if n is None else Cursor(tape.epoch, n)
            if n is not None and self._whole_run(reader, tape):
                return here
        async for row, entries in reading.logged(self._log, who, thread_id, run_id, STATES):
            n = reading.holding(entries, checkpoint_id)
            if n is not None:
                return Cursor(row.epoch, n)
        return here

    async def follow(
        self,
        who: Principal,
        thread_id: str,
        run_id: str | None = None,
        *,
        after: Cursor = START,
        want: Want | None = None,
        brief: bool = False,
    ) -> AsyncIterator[Event]:
        """See `events.Feed`."""
        batches = self.batches(who, thread_id, run_id, after=after, want=want, brief=brief)
        async for batch in batches:
            for event in batch:
                yield event

    async def batches(
        self,
        who: Principal,
        thread_id: str,
        run_id: str | None = None,
        *,
        after: Cursor = START,
        want: Want | None = None,
        brief: bool = False,
    ) -> AsyncIterator[Sequence[Event]]:
        """See `events.Feed`."""
        reader = Reader(who, thread_id, run_id, after, want, brief=brief)
        if brief:
            await self._shorten(reader)
        with self._wakeups.listen(notifier.thread(thread_id)) as bell:
            async for entries, tape_or_row in self._entries(reader, bell):
                batch: list[Event] = []
                for entry in entries:
                    # A state may have to be waited for.
                    if batch and (entry.data is None or len(batch) == BATCH):
                        yield batch
                        batch = []
                    event = await self._event(reader, entry, *tape_or_row)
                    if event is not None:
                        batch.append(event)
                if batch:
                    yield batch

    async def _shorten(self, reader: Reader) -> None:
        """A new subscriber is told nothing of what was over when the newest run was made. To some
        clients the end of any run is the end of the one that they have just started."""
        row = await self._db.one(reader.who, queries["last_run"], {"thread_id": reader.thread_id})
        if row is None:
            return
        over: int | None = row["over"]
        if reader.cursor == START and over is not None:
            reader.cursor = Cursor(over, _ALL)
        reader.brief_but = str(row["run_id"])
        reader.brief = over is None or row["epoch"] > over

    async def _entries(  # noqa: C901 - two sources and the seam between them, read in one go
        self, reader: Reader, bell: Bell
    ) -> AsyncGenerator[Told]:
        while True:
            # The tape first, the log second: what the log then lacks is on the tape.
            tape = self._tape(reader)
            before = reader.cursor
            if tape is None or not self._whole_run(reader, tape):
                async for found in self._logged(reader, tape):
                    yield found
                if reader.over:
                    return
            if tape is not None:
                async for found in self._live(reader, tape):
                    yield found
                if reader.over:
                    return
                if not tape.closed:
                    continue
            reader.brief = False
            if reader.cursor != before:
                # There may be more elsewhere than was found at first; while it flows, what comes
                # next rings.
                if reader.settled:
                    await bell.wait(SOON_SECONDS)
                reader.settled = True
                continue
            if await self._ended(reader):
                return
            await bell.wait(self._wakeups.patience)

    def _tape(self, reader: Reader) -> Tape | None:
        if reader.run_id is None:
            return self._here(reader.who, self._by_thread.get(reader.thread_id))
        tape = self._here(reader.who, self._by_run.get(reader.run_id))
        return tape if tape and tape.run.thread_id == reader.thread_id else None

    def _here(self, who: Principal, tape: Tape | None) -> Tape | None:
        """Memory is under the same rule as the tables are."""
        if tape and who.owner_from <= tape.run.owner_id <= who.owner_to:
            return tape
        return None

    def _whole_run(self, reader: Reader, tape: Tape) -> bool:
        """Whether the tape has all that this reader still lacks, so that the log can be spared."""
        if reader.cursor.epoch == tape.epoch:
            return tape.after(reader.cursor.n) is not None
        first = reader.run_id is not None and tape.run.attempt == 1
        return first and reader.cursor.epoch < tape.epoch and tape.after(0) is not None

    async def _logged(self, reader: Reader, tape: Tape | None) -> AsyncGenerator[Told]:
        while True:
            # A tape of a higher epoch is entered next, and what is before it is then passed. All of
            # that is in the record; copies may lack the end of a run.
            passes = tape is not None and reader.cursor.epoch < tape.epoch
            rows, more = await self._log.read(
                reader.who,
                reader.thread_id,
                reader.cursor,
                run_id=reader.run_id,
                brief_but=reader.brief_but if reader.brief else None,
                live=None if passes else reader.live,
            )
            rows = reading.whole(rows, more=more)
            # One by one where that will do: unpacked they are many times as large.
            stretches: Iterable[tuple[events.Row, list[Entry]]] = events.merged(rows)
            skip = set[tuple[int, int]]()
            if reader.brief:
                stretches = list(stretches)
                skip = reading.superseded(stretches)
                reader.note((row.epoch, entries) for row, entries in stretches)
            for row, entries in stretches:
                if told := reader.take(row, entries, skip):
                    yield told, (row.run_id, row.epoch, row.v2)
                if reader.over:
                    return
                reader.cursor = max(reader.cursor, Cursor(row.epoch, row.last_n))
            if not more:
                return

    async def _live(self, reader: Reader, tape: Tape) -> AsyncGenerator[Told]:
        if reader.cursor.epoch > tape.epoch:
            return
        reader.cursor = max(reader.cursor, Cursor(tape.epoch, 0))
        reader.within = tape.run.run_id
        place = (tape.run.run_id, tape.epoch, tape.run.protocol == "v2")
        tape.readers += 1
        try:
            while True:
                entries = tape.after(reader.cursor.n)
                if entries is None:
                    return
                # It keeps from being freed what it has not told yet.
                entries = reading.some(entries)
                reader.note([(tape.epoch, entries)])
                if entries:
                    reader.cursor = Cursor(tape.epoch, entries[-1].n)
                    reader.over = reader.ends(entries[-1])
                    yield entries, place
                    if reader.over:
                        return
                reader.brief = False
                if tape.closed and tape.last_n <= reader.cursor.n:
                    return
                await tape.news(reader.cursor.n, 60.0)
        finally:
            tape.readers -= 1

    async def _ended(self, reader: Reader) -> bool:
        """Whether nothing can come any more. The end of a run and its last event are one
        transaction, so what is not in the log after this is not anywhere."""
        if reader.run_id is None:
            return False
        values = {"run_id": reader.run_id, "thread_id": reader.thread_id}
        row = await self._db.one(reader.who, queries["stream_status"], values)
        if row is not None and row["status"] not in TERMINAL:
            return False
        left = await self._log.read(
            reader.who, reader.thread_id, reader.cursor, run_id=reader.run_id, limit=1
        )
        return not left.rows

    async def _runs(self, reader: Reader, run_id: str, epoch: int) -> bool:
        values = {"run_id": run_id, "thread_id": reader.thread_id}
        row = await self._db.one(reader.who, queries["stream_status"], values)
        return row is not None and row["status"] == "running" and row["epoch"] == epoch

    async def _event(
        self, reader: Reader, entry: Entry, run_id: str, epoch: int, v2: bool
    ) -> Event | None:
        if reader.want is not None and not reader.want(entry.name, entry.ns):
            return None
        data = entry.data
        if data is None and entry.ref is not None:
            data = await self._whole.render(
                reader.who,
                reader.thread_id,
                entry.ref,
                entry.stored,
                comes=lambda: self._runs(reader, run_id, epoch),
                v2=v2,
            )
            if data is None:
                return None
        return Event(
            epoch=epoch,
            n=entry.n,
            run_id=run_id,
            name=entry.name,
            ns=entry.ns,
            data=data or b"null",
            at=entry.at,
            node=entry.node,
            protocol="v2" if v2 else "legacy",
            past=(epoch, entry.n) in reader.past,
        )
