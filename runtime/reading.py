"""What one reader of a feed keeps: where it is, what for, and what it need not be told."""

from collections import deque
from collections.abc import AsyncGenerator, Container, Iterable, Sequence

from clew.checkpointing.postgres import Principal
from clew.runtime import events
from clew.runtime.events import START, Cursor, Entry, EventLog, Want

# How many whole states of one namespace a new subscriber is told of what has been.
STATES = 16


class Reader:
    """Where one reader is, and what for."""

    def __init__(
        self,
        who: Principal,
        thread_id: str,
        run_id: str | None,
        cursor: Cursor,
        want: Want | None,
        *,
        brief: bool,
    ) -> None:
        self.who = who
        self.thread_id = thread_id
        self.run_id = run_id
        self.cursor = cursor
        self.want = want
        self.brief = brief
        self.brief_but: str | None = None
        self.within = run_id if cursor.epoch else None  # the run that the cursor is in
        self.settled = False  # whether all that was there at first has been read
        self.over = False
        self.past = set[tuple[int, int]]()  # checkpoints that have newer ones among what was there

    @property
    def live(self) -> str | None:
        return self.within if self.cursor.epoch else None

    def note(self, told: Iterable[tuple[int, Sequence[Entry]]]) -> None:
        """What is about to be told, as far as it was there before this reader."""
        self.past.clear()
        if not self.brief:
            return
        newest: dict[tuple[str, ...], tuple[int, int]] = {}
        for epoch, entries in told:
            for entry in entries:
                if entry.name == "checkpoints":
                    if entry.ns in newest:
                        self.past.add(newest[entry.ns])
                    newest[entry.ns] = (epoch, entry.n)

    def older(self, run_id: str) -> bool:
        """Whether only the bounds of this run are to be told."""
        return self.brief and self.brief_but is not None and run_id != self.brief_but

    def take(
        self, row: events.Row, entries: Sequence[Entry], skip: set[tuple[int, int]]
    ) -> list[Entry]:
        """What of a stretch of the log is to be told; the place is then after it."""
        told: list[Entry] = []
        for entry in entries:
            if (row.epoch, entry.n) <= self.cursor:
                continue
            self.cursor = Cursor(row.epoch, entry.n)
            self.within = row.run_id
            meant = not self.older(row.run_id) or events.kind(entry.name) == events.BRIEF
            if meant and (row.epoch, entry.n) not in skip:
                told.append(entry)
            if self.ends(entry):
                self.over = True
                break
        return told

    def ends(self, entry: Entry) -> bool:
        """Whether this event is the last of the run that is followed."""
        return self.run_id is not None and events.terminal(entry)


async def logged(
    log: EventLog, who: Principal, thread_id: str, run_id: str, kinds: Container[int]
) -> AsyncGenerator[tuple[events.Row, list[Entry]]]:
    """What the log has of a run by now, of these kinds."""
    at, more = START, True
    while more:
        rows, more = await log.read(who, thread_id, at, run_id=run_id)
        rows = whole(rows, more=more)
        if rows:
            at = Cursor(rows[-1].epoch, rows[-1].last_n)
        for row, entries in events.merged(row for row in rows if row.kind in kinds):
            yield row, entries


def whole(rows: list[events.Row], *, more: bool) -> list[events.Row]:
    """What one flush has written may be several rows, and the last of them may not be on the page.
    What the page ends with is then left for the next, unless it is all."""
    if not more or not rows:
        return rows
    end = (rows[-1].epoch, rows[-1].first_n)
    return [row for row in rows if (row.epoch, row.first_n) != end] or rows


def holding(entries: Iterable[Entry], checkpoint_id: str) -> int | None:
    """The number of the first event with the state of this checkpoint."""
    return next(
        (entry.n for entry in entries if entry.ref and entry.ref.checkpoint_id == checkpoint_id),
        None,
    )


def some(entries: Sequence[Entry]) -> Sequence[Entry]:
    """As much of it as a reader may hold at once."""
    held = 0
    for count, entry in enumerate(entries, start=1):
        held += len(entry.stored)
        if held > events.PAGE_BYTES:
            return entries[:count]
    return entries


def superseded(
    stretches: list[tuple[events.Row, list[Entry]]],
) -> set[tuple[int, int]]:
    """Whole states that a new subscriber is spared, since enough later ones of the same namespace
    follow. Those it gets put the messages that are told between them in their order."""
    kept: dict[tuple[str, tuple[str, ...]], deque[tuple[int, int]]] = {}
    skip: set[tuple[int, int]] = set()
    for row, entries in stretches:
        for entry in entries:
            if entry.ref is not None:
                newest = kept.setdefault((entry.name, entry.ns), deque())
                newest.append((row.epoch, entry.n))
                if len(newest) > STATES:
                    skip.add(newest.popleft())
    return skip
