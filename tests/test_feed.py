"""Streams: every reader gets every event once, in order, wherever and whenever it reads; and the
same where Redis carries them to other processes.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from psycopg import sql

from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.checkpointing.saver import Saver
from clew.runtime import compaction, leases, runs, sessions
from clew.runtime.channels import Channels
from clew.runtime.events import START, Cursor, Event, EventLog, PostgresLog, Ref
from clew.runtime.fanout import Fanout
from clew.runtime.feed import Follower
from clew.runtime.leases import Ending
from clew.runtime.line import Line
from clew.runtime.notifier import Notifier, thread
from clew.runtime.requests import RunRequest
from clew.runtime.runs import Run
from clew.runtime.tape import FULL, KEPT, Tape
from tests import redises

DONE = Ending(status="success", rest="idle")


class Process:
    """What one process has of it all: its own readers, its own flushes."""

    def __init__(self, db: Database, notifier: Notifier, feed: Follower, worker_id: int) -> None:
        self.db = db
        self.notifier = notifier
        self.feed = feed
        self.worker_id = worker_id
        self.lost: list[str] = []
        self.told = asyncio.Event()

    async def start(self, thread_id: str | None = None) -> tuple[Run, Tape]:
        owner_id = await self.db.owner("acme", "ann")
        who = Principal.owner(owner_id)
        if thread_id is None:
            thread_id = (await sessions.create(self.db, who, owner_id)).thread_id
        run = await runs.create(
            self.db,
            who,
            owner_id,
            thread_id,
            RunRequest(graph_id="echo"),
            worker_id=self.worker_id,
        )
        assert run.status == "running"
        return run, self.open(run)

    def open(self, run: Run) -> Tape:
        def lost() -> None:
            self.lost.append(run.run_id)
            self.told.set()

        return self.feed.open(run, lost)

    async def claim(self) -> tuple[Run, Tape]:
        (run,) = await leases.claim(self.db, self.worker_id, 1)
        return run, self.open(run)

    async def write(self, tape: Tape, *texts: str, name: str = "custom") -> None:
        for text in texts:
            tape.append(name, f'"{text}"'.encode())
            self.feed.touched(tape)
            await tape.room()

    async def finish(self, run: Run, tape: Tape) -> None:
        tape.hold()
        tape.append("end", b'{"status":"success"}')
        ended = await leases.finish(self.db, run, DONE, await tape.seal())
        self.feed.close(tape, complete=ended is not None)

    async def texts(self, run: Run, after: Cursor = START, **more: Any) -> list[str]:
        return [event.data.decode() async for event in self.follow(run, after, **more)]

    def follow(self, run: Run, after: Cursor = START, **more: Any) -> AsyncIterator[Event]:
        who = Principal.owner(run.owner_id)
        return self.feed.follow(who, run.thread_id, run.run_id, after=after, **more)


@asynccontextmanager
async def process(dsn: str, redis: str | None = None) -> AsyncGenerator[Process]:
    async with AsyncExitStack() as stack:
        db = await stack.enter_async_context(Database.open(dsn))
        log: EventLog = PostgresLog(db)
        wakeups = Notifier(db, dsn)
        if redis is not None:
            line = await stack.enter_async_context(Line(redis))
            log, wakeups = Fanout(log, line), Channels(db, dsn, line)
        notifier = await stack.enter_async_context(wakeups)
        feed = await stack.enter_async_context(Follower(db, notifier, Saver(db), log))
        worker_id = await leases.enlist(db, "test", timedelta(seconds=30))
        yield Process(db, notifier, feed, worker_id)


@pytest.fixture(scope="module", params=["postgres", "redis"])
def redis_url(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """What events travel by."""
    if request.param == "postgres":
        yield None
        return
    with redises.serving() as redis:
        yield redis.url


@pytest_asyncio.fixture
async def here(dsn: str, redis_url: str | None) -> AsyncIterator[Process]:
    async with process(dsn, redis_url) as found:
        yield found


@pytest_asyncio.fixture
async def there(dsn: str, redis_url: str | None) -> AsyncIterator[Process]:
    async with process(dsn, redis_url) as found:
        yield found


async def read(events: AsyncIterator[Event], count: int) -> list[Event]:
    """The next so many."""
    return [await anext(events) for _ in range(count)]


def opening(run: Run) -> str:
    return f'{{"run_id":"{run.run_id}","attempt":{run.attempt}}}'


END = '{"status":"success"}'


async def test_a_reader_here_and_a_reader_there_see_the_same(here: Process, there: Process):
    run, tape = await here.start()
    near, far = (asyncio.create_task(p.texts(run)) for p in (here, there))
    await here.write(tape, "one", "two")
    await here.write(tape, "三")
    await here.finish(run, tape)
    expected = [opening(run), '"one"', '"two"', '"三"', END]
    assert await near == expected
    assert await far == expected


async def test_ids_are_the_same_everywhere_and_only_grow(here: Process, there: Process):
    run, tape = await here.start()
    await here.write(tape, *map(str, range(50)))
    await here.finish(run, tape)
    near = [event.id async for event in here.follow(run)]
    far = [event.id async for event in there.follow(run)]
    assert near == far == [f"{run.epoch}-{n}" for n in range(1, 53)]


@pytest.mark.parametrize("cut", [0, 1, 2, 7, 19, 20, 21])
async def test_a_reader_resumes_at_any_event_anywhere(here: Process, there: Process, cut: int):
    run, tape = await here.start()
    await here.write(tape, *map(str, range(10)))
    first = await read(here.follow(run), min(cut, 11)) if cut else []
    after = first[-1].cursor if first else START
    rest = asyncio.create_task(there.texts(run, after))
    await here.write(tape, *map(str, range(10, 20)))
    await here.finish(run, tape)
    got = [event.data.decode() for event in first] + await rest
    assert got == [opening(run), *(f'"{n}"' for n in range(20)), END]


async def test_one_who_comes_after_the_end_reads_it_all_without_the_process(
    here: Process, there: Process
):
    run, tape = await here.start()
    await here.write(tape, "one")
    await here.finish(run, tape)
    assert await here.texts(run) == await there.texts(run) == [opening(run), '"one"', END]
    assert await there.texts(run, Cursor(run.epoch or 0, 3)) == []


async def test_nobody_hears_of_the_end_before_it_is_committed(here: Process):
    run, tape = await here.start()
    reader = here.follow(run)
    await anext(reader)
    tape.hold()
    tape.append("end", END.encode())
    rows = await tape.seal()
    waiting = asyncio.ensure_future(anext(reader))
    done, _ = await asyncio.wait({waiting}, timeout=0.05)
    assert not done
    ended = await leases.finish(here.db, run, DONE, rows)
    assert ended
    here.feed.close(tape, complete=True)
    assert (await waiting).name == "end"
    assert (await runs.get(here.db, SERVICE, None, run.run_id)).status == "success"


async def test_a_run_that_waits_can_be_followed_already(here: Process, there: Process):
    first, tape = await here.start()
    who = Principal.owner(first.owner_id)
    waiting = await runs.create(
        here.db, who, first.owner_id, first.thread_id, RunRequest(graph_id="echo")
    )
    followed = [asyncio.create_task(p.texts(waiting)) for p in (here, there)]
    await here.finish(first, tape)
    claimed, tape = await here.claim()
    await here.write(tape, "hello")
    await here.finish(claimed, tape)
    for task in followed:
        assert await task == [opening(claimed), '"hello"', END]


async def test_a_stream_ends_with_a_run_that_never_started_or_is_gone(here: Process):
    first, _ = await here.start()
    who = Principal.owner(first.owner_id)
    for action in ("interrupt", "rollback"):
        waiting = await runs.create(
            here.db, who, first.owner_id, first.thread_id, RunRequest(graph_id="echo")
        )
        followed = asyncio.create_task(here.texts(waiting))
        await runs.cancel(here.db, who, run_ids=[waiting.run_id], action=action)
        here.notifier.publish(thread(first.thread_id))
        assert await followed == []


async def test_a_new_attempt_goes_on_in_a_higher_epoch_and_says_so(here: Process, there: Process):
    run, tape = await here.start()
    followed = [asyncio.create_task(p.texts(run)) for p in (here, there)]
    await here.write(tape, "lost work")
    await tape.caught_up()
    assert await leases.release(here.db, run)
    here.feed.close(tape, complete=False)
    again, tape = await there.claim()
    assert again.attempt == 2
    await there.write(tape, "done again")
    await there.finish(again, tape)
    for task in followed:
        assert await task == [opening(run), '"lost work"', opening(again), '"done again"', END]


async def test_who_lost_the_epoch_writes_nothing_and_is_told(here: Process, there: Process):
    run, tape = await here.start()
    assert await leases.release(here.db, run)
    again, new = await there.claim()
    await here.write(tape, "a ghost")
    await here.told.wait()
    assert here.lost == [run.run_id]
    here.feed.close(tape, complete=False)
    await there.finish(again, new)
    expected = [opening(run), opening(again), END]
    assert await there.texts(run) == expected
    assert await here.texts(run) == expected


async def test_a_session_is_followed_across_runs_and_processes(here: Process, there: Process):
    run, tape = await here.start()
    who = Principal.owner(run.owner_id)
    streams = [p.feed.follow(who, run.thread_id) for p in (here, there)]
    await here.write(tape, "one")
    await here.finish(run, tape)
    second, tape = await there.start(run.thread_id)
    await there.write(tape, "two")
    await there.finish(second, tape)
    expected = [opening(run), '"one"', END, opening(second), '"two"', END]
    for stream in streams:
        got = await read(stream, 6)
        assert [event.data.decode() for event in got] == expected
        assert [event.run_id for event in got] == [run.run_id] * 3 + [second.run_id] * 3
        assert [e.seq for e in got] == sorted(e.seq for e in got)


async def test_a_reader_far_behind_what_is_in_memory_misses_nothing(here: Process):
    run, tape = await here.start()
    reader = here.follow(run)
    await anext(reader)
    text = "x" * 2000
    for n in range(2 * KEPT // len(text)):
        await here.write(tape, f"{n}:{text}")
    await tape.caught_up()
    await here.write(tape, "last")
    assert tape.first_n > 50
    await here.finish(run, tape)
    numbers = [event.n async for event in reader]
    assert numbers == list(range(2, tape.last_n + 1))


async def test_a_flood_waits_for_the_log_and_does_not_fill_the_memory(here: Process):
    run, tape = await here.start()
    most = 0
    for n in range(40):
        tape.append("custom", b'"' + b"y" * (1024 * 1024) + b'"')
        here.feed.touched(tape)
        most = max(most, tape.unwritten)
        await tape.room()
        assert n < 40
    assert most < FULL + 2 * 1024 * 1024
    await here.finish(run, tape)
    assert len([1 async for _ in here.follow(run)]) == 42


async def test_readers_that_never_read_cost_nothing(here: Process):
    run, tape = await here.start()
    idle = [here.follow(run) for _ in range(500)]
    for reader in idle:
        await anext(reader)
    for n in range(300):
        await here.write(tape, f"{n}" + "z" * 4000)
    await tape.caught_up()
    assert sum(len(entry.stored) for entry in tape.entries) <= KEPT
    await here.finish(run, tape)
    assert [event.n async for event in idle[7]] == list(range(2, 303))


async def test_compaction_changes_no_event_and_leaves_few_rows(here: Process, there: Process):
    run, tape = await here.start()
    for n in range(30):
        await here.write(tape, f"token {n}", name="messages")
        await here.write(tape, f"step {n}", name="updates")
        await tape.caught_up()
    await here.finish(run, tape)
    before = [replace(event) async for event in there.follow(run)]
    middle = before[20].cursor
    await compaction.compact(here.db, run.thread_id, run.run_id)
    assert [event async for event in there.follow(run)] == before
    assert [event async for event in there.follow(run, middle)] == before[21:]
    rows = await here.db.fetch(SERVICE, "select kind from clew.event order by kind")
    assert [row["kind"] for row in rows] == [0, 1, 3]
    await compaction.compact(here.db, run.thread_id, run.run_id)
    assert [event async for event in there.follow(run)] == before


async def test_a_brief_replay_spares_the_bulk_of_older_runs(here: Process, there: Process):
    first, tape = await here.start()
    who = Principal.owner(first.owner_id)
    asked = RunRequest(graph_id="echo")
    await runs.create(here.db, who, first.owner_id, first.thread_id, asked)
    await here.write(tape, "token", name="messages")
    await here.write(tape, "step", name="updates")
    await here.finish(first, tape)
    last, tape = await here.claim()
    await here.write(tape, "new token", name="messages")
    await here.finish(last, tape)
    expected = [opening(first), END, opening(last), '"new token"', END]
    for _ in range(2):
        for each in (here, there):
            got = await read(each.feed.follow(who, first.thread_id, brief=True), 5)
            assert [event.data.decode() for event in got] == expected
        await compaction.compact(here.db, first.thread_id, first.run_id)


async def test_a_brief_replay_begins_after_what_was_over_when_the_newest_run_was_made(
    here: Process, there: Process
):
    first, tape = await here.start()
    await here.write(tape, "old")
    await here.finish(first, tape)
    who = Principal.owner(first.owner_id)
    for each in (here, there):
        got = await read(each.feed.follow(who, first.thread_id, brief=True), 3)
        assert [event.data.decode() for event in got] == [opening(first), '"old"', END]
    asked = RunRequest(graph_id="echo")
    await runs.create(here.db, who, first.owner_id, first.thread_id, asked)
    waiting = [each.feed.follow(who, first.thread_id, brief=True) for each in (here, there)]
    coming = [asyncio.create_task(read(events, 3)) for events in waiting]
    last, tape = await here.claim()
    await here.write(tape, "new")
    await here.finish(last, tape)
    for got in await asyncio.gather(*coming):
        assert [event.data.decode() for event in got] == [opening(last), '"new"', END]
    # Who names a place is told all that came after it.
    after = Cursor(first.epoch or 0, 1)
    got = await read(here.feed.follow(who, first.thread_id, brief=True, after=after), 3)
    assert [event.run_id for event in got] == [first.run_id, last.run_id, last.run_id]


async def test_a_reader_says_what_it_wants(here: Process):
    run, tape = await here.start()
    await here.write(tape, "a", name="updates")
    await here.write(tape, "b", name="custom")
    await here.finish(run, tape)
    wanted = [e.name async for e in here.follow(run, want=lambda name, _: name == "custom")]
    assert wanted == ["custom"]


async def test_another_owner_reads_nothing_neither_here_nor_there(here: Process, there: Process):
    run, tape = await here.start()
    await here.write(tape, "secret")
    stranger = Principal.owner(await here.db.owner("acme", "eve"))
    for each in (here, there):
        stream = each.feed.follow(stranger, run.thread_id, run.run_id)
        assert [event async for event in stream] == []
        assert await each.feed.tip(stranger, run.thread_id) == START
    await here.finish(run, tape)


async def test_the_tip_is_where_only_what_comes_is_read(here: Process, there: Process):
    run, tape = await here.start()
    await here.write(tape, "old")
    await tape.caught_up()
    who = Principal.owner(run.owner_id)
    tips = [await each.feed.tip(who, run.thread_id) for each in (here, there)]
    assert tips == [Cursor(1, 2)] * 2
    await here.write(tape, "new")
    await here.finish(run, tape)
    assert await there.texts(run, tips[1]) == ['"new"', END]


async def test_who_shows_a_state_goes_on_after_it_before_the_log_has_it(
    here: Process, there: Process
):
    run, tape = await here.start()
    who, shown = Principal.owner(run.owner_id), str(uuid4())

    async def places() -> list[Cursor]:
        readers = [(here, who), (there, who), (here, Principal.owner(run.owner_id + 1))]
        return [await each.feed.place(by, run.thread_id, run.run_id, shown) for each, by in readers]

    tape.append("values", b"{}", ref=Ref(shown, "", ()))
    assert await places() == [Cursor(1, 2), START, START]
    here.feed.touched(tape)
    await tape.caught_up()
    assert await places() == [Cursor(1, 2), Cursor(1, 2), START]


async def test_what_is_held_back_is_shown_to_nobody_who_is_further_already(here: Process):
    _, tape = await here.start()
    tape.hold()
    for _ in range(5):
        tape.append("custom", b"1")
    assert tape.after(tape.last_n + 2) == []


async def test_events_wait_out_an_outage_of_the_log(
    here: Process, there: Process, monkeypatch: pytest.MonkeyPatch
):
    run, tape = await here.start()
    tried = asyncio.Event()
    monkeypatch.setattr("clew.runtime.flusher.log.warning", lambda *_: tried.set())
    async with here.db.connection() as conn:
        await conn.execute("alter table clew.event rename to away")
    await here.write(tape, "kept")
    await tried.wait()
    async with here.db.connection() as conn:
        await conn.execute("alter table clew.away rename to event")
    await tape.caught_up()
    await here.finish(run, tape)
    assert await there.texts(run) == [opening(run), '"kept"', END]


class Noting(PostgresLog):
    """Notes what it was told to forget."""

    def __init__(self, db: Database) -> None:
        super().__init__(db)
        self.told = asyncio.Event()
        self.forgotten = set[tuple[str, str]]()

    async def forget(self, runs: Iterable[tuple[str, str]]) -> None:
        self.forgotten |= {*runs}
        if self.forgotten:
            self.told.set()


async def test_a_run_that_ended_in_an_outage_of_the_log_is_forgotten_after_it(
    db: Database, dsn: str, monkeypatch: pytest.MonkeyPatch
):
    record = Noting(db)
    tried = asyncio.Event()
    monkeypatch.setattr("clew.runtime.flusher.log.warning", lambda *_: tried.set())
    async with (
        asyncio.timeout(60),
        Notifier(db, dsn) as notifier,
        Follower(db, notifier, Saver(db), record) as feed,
    ):
        worker_id = await leases.enlist(db, "test", timedelta(seconds=30))
        here = Process(db, notifier, feed, worker_id)
        run, tape = await here.start()
        other, going_on = await here.start()
        await here.finish(run, tape)
        async with db.connection() as conn:
            await conn.execute("alter table clew.event rename to away")
        await here.write(going_on, "kept")
        await tried.wait()
        async with db.connection() as conn:
            await conn.execute("alter table clew.away rename to event")
        await record.told.wait()
        assert record.forgotten == {(run.thread_id, run.run_id)}
        await here.finish(other, going_on)


async def test_events_of_a_day_without_a_partition_are_kept_and_read(here: Process, there: Process):
    run, tape = await here.start()
    await here.write(tape, "before")
    await tape.caught_up()
    days = await here.db.fetch(
        SERVICE, "select relname from pg_class where relname ~ '^event_[0-9]+$' and relkind = 'r'"
    )
    assert days
    async with here.db.connection() as conn:
        for day in days:
            # With what is in it: it is the retention of a day that ends in the middle of a run.
            await conn.execute(sql.SQL("drop table clew.{}").format(sql.Identifier(day["relname"])))
    await here.write(tape, "after")
    await tape.caught_up()
    rows = await here.db.fetch(SERVICE, "select tableoid::regclass::text as name from clew.event")
    assert {row["name"] for row in rows} == {"clew.event_default"}
    await here.finish(run, tape)
    after = Cursor(run.epoch or 0, 2)
    assert await there.texts(run, after) == ['"after"', END]
    await compaction.expire(here.db, timedelta(days=7), timedelta(days=7))
    rows = await here.db.fetch(SERVICE, "select tableoid::regclass::text as name from clew.event")
    assert "clew.event_default" not in {row["name"] for row in rows}
    assert await there.texts(run, after) == ['"after"', END]
