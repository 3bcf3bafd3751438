"""What runs stream, replayable by id for days, exact to the token.

An event's id is `epoch-n`: the session's epoch while its run ran, and its number in it. Ids only
grow within a session, whatever crashes. A run that is started again goes on in a higher epoch; its
`metadata` or `lifecycle` event with `attempt` above 1 is the mark to drop what an unfinished
message had streamed before.

Legacy runs write `metadata`, the stream modes (`values`, `updates`, `messages`,
`messages/metadata|partial|complete`, `custom`, `tasks`, `checkpoints`, `debug`, `events`,
`tools`), `error`, and last of all `end` with `{run_id, status, outcome}`. v2 runs write
`lifecycle` (the root's `running` first and one of `completed|failed|interrupted` last), `values`,
`updates`, `messages`, `tools`, `checkpoints`, `tasks`, `custom`, `input.requested`. The names are
without namespace suffix, the data is JSON.
"""

import json
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple, Protocol

import zstandard
from pydantic_core import from_json

from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.checkpointing.sealed import Sealed
from clew.runtime import errors
from clew.runtime.sql import queries

# What a row holds. Only the first is replayed of older runs to a new subscriber; the second may
# have a shorter life.
BRIEF, TOKENS, MIXED, BULKY = 0, 1, 2, 3
PLAIN, ZSTD = 0, 1

# What is read at once, rows and bytes: a reader that does not take it holds it for as long.
PAGE = 200
PAGE_BYTES = 512 * 1024

BRIEF_NAMES = frozenset(
    {"metadata", "lifecycle", "input.requested", "input.answered", "error", "end"}
)


class Cursor(NamedTuple):
    """A place between events: what comes after it has a greater epoch, or a greater number."""

    epoch: int
    n: int

    @property
    def id(self) -> str:
        return f"{self.epoch}-{self.n}"

    @property
    def seq(self) -> int:
        """The place as one number, below 2^53."""
        return self.epoch << 32 | self.n


START = Cursor(0, 0)


@dataclass(frozen=True, slots=True)
class Event:
    epoch: int
    n: int
    run_id: str
    name: str
    ns: tuple[str, ...]
    data: bytes  # JSON
    at: int  # milliseconds since 1970
    node: str | None = None
    protocol: str = "legacy"
    past: bool = False  # told to a new subscriber, who will be told a newer one of its kind

    @property
    def cursor(self) -> Cursor:
        return Cursor(self.epoch, self.n)

    @property
    def id(self) -> str:
        return f"{self.epoch}-{self.n}"

    @property
    def seq(self) -> int:
        return self.epoch << 32 | self.n


@dataclass(frozen=True, slots=True)
class Ref:
    """A whole state that is stored once, in its checkpoint: where, which channels of it, and under
    which key of the event's data they belong (at the top without one). `blanks` are those that hold
    nothing: a checkpoint knows no channel that was never written."""

    checkpoint_id: str
    ns: str
    keys: tuple[str, ...]
    path: tuple[str, ...] = ()
    blanks: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(slots=True)
class Entry:
    """An event as the log keeps it. With a `ref`, the state is left out of `stored`; `data` is then
    only there where somebody was listening."""

    n: int
    at: int
    name: str
    ns: tuple[str, ...]
    node: str | None
    stored: bytes
    data: bytes | None
    ref: Ref | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One flush of one run: the events first_n to last_n, or those of one kind among them."""

    thread_id: str
    run_id: str
    epoch: int
    first_n: int
    last_n: int
    v2: bool
    kind: int
    codec: int
    body: bytes


class Page(NamedTuple):
    """Rows in order, and whether there may be more behind them."""

    rows: list[Row]
    more: bool


def parse(text: str) -> Cursor:
    """The cursor of a Last-Event-ID; `-`, `-1` and `0` are the start. Else Invalid."""
    if text in ("-", "-1", "0"):
        return START
    match = re.fullmatch(r"(\d{1,19})-(\d{1,10})", text.strip())
    if match is None:
        raise errors.Invalid(f"Invalid last-event-id: {text[:40]!r} is not an id of this server")
    return Cursor(int(match[1]), int(match[2]))


def at(seq: int) -> Cursor:
    """The cursor that a sequence number stands for."""
    return Cursor(seq >> 32, seq & 0xFFFFFFFF)


def kind(name: str) -> int:
    if name in BRIEF_NAMES:
        return BRIEF
    return TOKENS if name.split("/", maxsplit=1)[0] in ("messages", "events") else BULKY


def terminal(entry: Entry) -> bool:
    """Whether this is the last event of its run."""
    if entry.name == "end":
        return True
    if entry.name != "lifecycle" or entry.ns:
        return False
    return from_json(entry.stored).get("event") in ("completed", "failed", "interrupted")


# A body is lines in pairs: a header, and the data as it is; encoded JSON has no line breaks.


def pack(entries: Sequence[Entry]) -> tuple[int, bytes]:
    """The codec and the body that hold these."""
    lines: list[bytes] = []
    for entry in entries:
        header: list[Any] = [entry.n, entry.at, entry.name, entry.ns, entry.node]
        if entry.ref is not None:
            ref = entry.ref
            header.append([ref.checkpoint_id, ref.ns, ref.keys, ref.path, ref.blanks])
        lines += (json.dumps(header, ensure_ascii=False).encode(), entry.stored)
    lines.append(b"")
    body = b"\n".join(lines)
    if len(body) < 512:
        return PLAIN, body
    return ZSTD, zstandard.compress(body, 3)


def unpack(codec: int, body: bytes) -> Iterator[Entry]:
    if codec == ZSTD:
        body = zstandard.decompress(body)
    lines = iter(body.split(b"\n"))
    for header in lines:
        if not header:
            return
        n, moment, name, ns, node, *more = from_json(header)
        stored = next(lines)
        ref = None
        if more:
            place, where, keys, path, blanks = more[0]
            ref = Ref(place, where, tuple(keys), tuple(path), blanks)
        yield Entry(n, moment, name, tuple(ns), node, stored, None if ref else stored, ref)


def row(thread_id: str, run_id: str, epoch: int, entries: Sequence[Entry], *, v2: bool) -> Row:
    """One flush as a row."""
    kinds = {kind(entry.name) for entry in entries}
    held = kinds.pop() if len(kinds) == 1 else MIXED
    return Row(thread_id, run_id, epoch, entries[0].n, entries[-1].n, v2, held, *pack(entries))


def merged(rows: Iterable[Row]) -> Iterator[tuple[Row, list[Entry]]]:
    """Rows of the log, in its order, as stretches of entries in theirs."""
    for _, group in groupby(rows, key=lambda row: (row.epoch, row.first_n, row.last_n)):
        stretch = list(group)
        entries = [entry for row in stretch for entry in unpack(row.codec, row.body)]
        if len(stretch) > 1:
            entries.sort(key=lambda entry: entry.n)
        yield stretch[0], entries


class EventLog(Protocol):
    """Where events are kept. Postgres by default; an adapter must keep the order and the fence."""

    async def append(self, rows: Sequence[Row]) -> Mapping[tuple[str, int], int]:
        """Write one flush. Returns the (thread_id, epoch) that it still held, with their owners: of
        the others nothing was written."""
        ...

    async def read(
        self,
        who: Principal,
        thread_id: str,
        after: Cursor,
        *,
        run_id: str | None = None,
        brief_but: str | None = None,
        live: str | None = None,
        limit: int = PAGE,
    ) -> Page:
        """Rows with events after a cursor, in order. `brief_but`: of other runs than this one only
        what tells that they were. `live`: the run that the cursor is within, where that is known;
        a hint where to look first."""
        ...

    async def tip(self, who: Principal, thread_id: str) -> Cursor: ...

    async def forget(self, runs: Iterable[tuple[str, str]]) -> None:
        """These (thread_id, run_id) are over: copies of what is kept are needed no more."""
        ...


class PostgresLog:
    def __init__(self, db: Database) -> None:
        self._db = db

    async def append(self, rows: Sequence[Row]) -> Mapping[tuple[str, int], int]:
        values = {
            "thread_ids": [row.thread_id for row in rows],
            "epochs": [row.epoch for row in rows],
            "firsts": [row.first_n for row in rows],
            "lasts": [row.last_n for row in rows],
            "run_ids": [row.run_id for row in rows],
            "v2s": [row.v2 for row in rows],
            "kinds": [row.kind for row in rows],
            "codecs": [row.codec for row in rows],
            "bodies": [Sealed(row.body) for row in rows],
        }
        written = await self._db.fetch(SERVICE, queries["append_events"], values)
        return {(row["thread_id"], row["epoch"]): row["owner_id"] for row in written}

    async def read(
        self,
        who: Principal,
        thread_id: str,
        after: Cursor,
        *,
        run_id: str | None = None,
        brief_but: str | None = None,
        live: str | None = None,
        limit: int = PAGE,
    ) -> Page:
        values = {
            "thread_id": thread_id,
            "epoch": after.epoch,
            "n": after.n,
            "run_id": run_id,
            "brief_but": brief_but,
            "limit": limit,
            "bytes": PAGE_BYTES,
        }
        found = await self._db.fetch(who, queries["read_events"], values)
        # By the bytes that the database counted, which may be sealed and then are more than ours.
        held = sum(row.pop("size") for row in found)
        rows = [Row(thread_id, str(row.pop("run_id")), **row) for row in found]
        return Page(rows, len(rows) >= limit or held >= PAGE_BYTES)

    async def tip(self, who: Principal, thread_id: str) -> Cursor:
        row = await self._db.one(who, queries["newest_event"], {"thread_id": thread_id})
        return START if row is None else Cursor(row["epoch"], row["last_n"])

    async def forget(self, runs: Iterable[tuple[str, str]]) -> None:
        """There are no copies."""


# Whether a reader wants an event of this name and namespace: asked before anything is rendered.
Want = Callable[[str, tuple[str, ...]], bool]


class Feed(Protocol):
    """The events of sessions, from memory where a run is here and from the log everywhere else."""

    def follow(
        self,
        who: Principal,
        thread_id: str,
        run_id: str | None = None,
        *,
        after: Cursor = START,
        want: Want | None = None,
        brief: bool = False,
    ) -> AsyncIterator[Event]:
        """The events after a cursor, old and then live, in order, none left out, none twice. Of one
        run, until it is over; of a session, until the reader leaves. `brief`: of runs that
        were over when the newest was made nothing, of others before the last only that they were,
        and of whole states only the newest few, until it is live."""
        ...

    def batches(
        self,
        who: Principal,
        thread_id: str,
        run_id: str | None = None,
        *,
        after: Cursor = START,
        want: Want | None = None,
        brief: bool = False,
    ) -> AsyncIterator[Sequence[Event]]:
        """As `follow`, those together that there are at the moment."""
        ...

    async def tip(self, who: Principal, thread_id: str) -> Cursor:
        """The place after the newest event."""
        ...

    async def place(
        self, who: Principal, thread_id: str, run_id: str, checkpoint_id: str
    ) -> Cursor:
        """The place in a run after the first event with this state, as far as it is here or in the
        log; its start if there is none."""
        ...
