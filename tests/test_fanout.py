"""Copies of events in Redis: used where they are whole, refused to strangers, and not missed when
they are gone. What holds for every log is in test_feed.py, for both."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
import redis as client

from clew.checkpointing.encryption import Keyring
from clew.checkpointing.postgres import Database, Principal
from clew.checkpointing.sealed import Seals
from clew.runtime import fanout, leases
from clew.runtime.events import START, Cursor, Page, PostgresLog, Row
from clew.runtime.fanout import Fanout
from clew.runtime.line import Line
from clew.runtime.runs import Run
from tests import redises
from tests.redises import Redis
from tests.test_feed import END, Process, opening, process, read


@pytest.fixture(scope="module")
def shared() -> Generator[Redis]:
    with redises.serving() as found:
        yield found


@pytest_asyncio.fixture
async def pair(dsn: str, shared: Redis) -> AsyncIterator[tuple[Process, Process]]:
    async with process(dsn, shared.url) as here, process(dsn, shared.url) as there:
        yield here, there


class Counting:
    """The log itself, and how often it was read."""

    def __init__(self, log: PostgresLog) -> None:
        self._log = log
        self.reads = 0

    async def read(self, *given: Any, **more: Any) -> Page:
        self.reads += 1
        return await self._log.read(*given, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


def copies(redis: Redis, run: Run) -> list[tuple[str, dict[bytes, bytes]]]:
    with client.Redis.from_url(redis.url) as line:
        found: Any = line.xrange(fanout.key(run.thread_id, run.run_id))
    return [(place.decode(), cells) for place, cells in found]


def drop(redis: Redis, run: Run, *places: str) -> None:
    with client.Redis.from_url(redis.url) as line:
        line.xdel(fanout.key(run.thread_id, run.run_id), *places)


async def written(here: Process, count: int = 5) -> tuple[Run, Any]:
    """A run with so many flushes, each of one event."""
    run, tape = await here.start()
    for n in range(count):
        await here.write(tape, f"{n}")
        await tape.caught_up()
    return run, tape


def counted(there: Process, line: Line) -> tuple[Fanout, Counting]:
    record = Counting(PostgresLog(there.db))
    return Fanout(record, line), record  # pyright: ignore[reportArgumentType]


async def test_what_is_in_redis_is_not_read_from_postgres(
    pair: tuple[Process, Process], shared: Redis
):
    here, there = pair
    run, tape = await written(here)
    who = Principal.owner(run.owner_id)
    async with Line(shared.url) as line:
        log, record = counted(there, line)
        after = Cursor(1, 1)
        rows, _ = await log.read(who, run.thread_id, after, run_id=run.run_id, live=run.run_id)
        assert [(row.first_n, row.last_n) for row in rows] == [(n, n) for n in range(2, 7)]
        assert record.reads == 0
        kept = await record.read(who, run.thread_id, after, run_id=run.run_id)
        assert rows == kept.rows
    await here.finish(run, tape)


async def test_the_end_of_a_run_is_told_before_the_next_one_that_runs_here(
    pair: tuple[Process, Process],
):
    """Redis has a flush of the first run that the reader lacks, and not its end."""
    here, there = pair
    run, tape = await here.start()
    stream = there.feed.follow(Principal.owner(run.owner_id), run.thread_id)
    got = await read(stream, 1)
    await here.write(tape, "one")
    await tape.caught_up()
    await here.finish(run, tape)
    second, tape = await there.start(run.thread_id)
    await there.write(tape, "two")
    async with asyncio.timeout(10):
        got += await read(stream, 4)
    expected = [opening(run), '"one"', END, opening(second), '"two"']
    assert [event.data.decode() for event in got] == expected
    await there.finish(second, tape)


@pytest.mark.parametrize("lost", [["1-2"], ["1-4"], ["1-2", "1-3"], ["1-6"]])
async def test_where_a_copy_is_missing_the_log_is_read(
    pair: tuple[Process, Process], shared: Redis, lost: list[str]
):
    here, there = pair
    run, tape = await written(here)
    drop(shared, run, *lost)
    stream = there.follow(run, Cursor(1, 1))
    got = [event.n for event in await read(stream, 5)]
    assert got == [2, 3, 4, 5, 6]
    await here.finish(run, tape)
    assert [event.n async for event in stream] == [7]


async def test_without_looking_for_gaps_events_would_be_missing(
    pair: tuple[Process, Process], shared: Redis, monkeypatch: pytest.MonkeyPatch
):
    """The negative control of the test above."""
    here, there = pair
    run, tape = await written(here)
    drop(shared, run, "1-4")
    whole = Fanout._row  # pyright: ignore[reportPrivateUsage]

    def careless(self: Fanout, *given: Any) -> Row | None:
        row = whole(self, *given)
        # As if every copy began where the one before ended.
        return row and replace(row, first_n=0)

    monkeypatch.setattr(Fanout, "_row", careless)
    got = [event.n for event in await read(there.follow(run, Cursor(1, 1)), 4)]
    assert got == [2, 3, 5, 6]
    await here.finish(run, tape)


async def test_copies_are_refused_to_another_owner(pair: tuple[Process, Process], shared: Redis):
    here, there = pair
    run, tape = await written(here)
    stranger = Principal.owner(await here.db.owner("acme", "eve"))
    async with Line(shared.url) as line:
        log, _ = counted(there, line)
        found = await log.read(stranger, run.thread_id, Cursor(1, 1), live=run.run_id)
        assert found.rows == []
        other = await log.read(
            Principal.owner(run.owner_id), "another", Cursor(1, 1), live=run.run_id
        )
        assert other.rows == []
    await here.finish(run, tape)


async def test_where_encryption_is_on_copies_are_sealed(
    pair: tuple[Process, Process], shared: Redis
):
    here, there = pair
    run, tape = await written(here, 1)
    row = Row(run.thread_id, run.run_id, 1, 3, 3, v2=False, kind=2, codec=0, body=b"a secret")
    key = Seals(Keyring([("k", b"k" * 32)]))
    others = [Seals(Keyring([(name, b"o" * 32)])) for name in ("k", "o")]
    async with Line(shared.url) as line:
        logs = [Fanout(PostgresLog(there.db), line, seals) for seals in (key, *others)]
        await logs[0].append([row])
        assert b"secret" not in copies(shared, run)[-1][1][b"b"]
        who = Principal.owner(run.owner_id)
        (found,), _ = await logs[0].read(who, run.thread_id, Cursor(1, 2), live=run.run_id)
        assert found == row
        # What it cannot open is read from the log.
        for log in logs[1:]:
            page = await log.read(who, run.thread_id, Cursor(1, 2), live=run.run_id)
            assert page.rows == [row]
    here.feed.close(tape, complete=False)


async def test_who_lost_the_epoch_spreads_nothing(pair: tuple[Process, Process], shared: Redis):
    here, there = pair
    run, tape = await written(here, 1)
    assert await leases.release(here.db, run)
    again, new = await there.claim()
    await here.write(tape, "a ghost")
    await here.told.wait()
    here.feed.close(tape, complete=False)
    await there.write(new, "alive")
    await new.caught_up()
    assert [place for place, _ in copies(shared, run)] == ["1-2", "2-2"]
    await there.finish(again, new)
    expected = [opening(run), '"0"', opening(again), '"alive"', END]
    assert await here.texts(run) == await there.texts(run) == expected


async def test_redis_itself_refuses_an_earlier_epoch(pair: tuple[Process, Process], shared: Redis):
    here, _ = pair
    run, tape = await written(here, 1)
    row = Row(run.thread_id, run.run_id, 0, 9, 9, v2=False, kind=0, codec=0, body=b"late")
    async with Line(shared.url) as line:
        held = {(run.thread_id, 0): run.owner_id}
        log, _ = counted(here, line)
        await line.attempt(lambda redis: log._add(redis, [row], held))  # pyright: ignore[reportPrivateUsage]
        assert line.up
    assert [place for place, _ in copies(shared, run)] == ["1-2"]
    await here.finish(run, tape)


async def test_copies_go_when_the_run_is_over_and_expire_otherwise(
    pair: tuple[Process, Process], shared: Redis
):
    here, _ = pair
    run, tape = await written(here, 2)
    with client.Redis.from_url(shared.url) as line:
        left: Any = line.ttl(fanout.key(run.thread_id, run.run_id))
    assert 0 < left <= fanout.SECONDS
    await here.finish(run, tape)
    # The next flush of the process takes them away.
    _, other = await written(here, 1)
    await other.caught_up()
    with here.notifier.listen("nothing") as bell:
        async with asyncio.timeout(10):
            while copies(shared, run):
                await bell.wait(0.01)


async def test_a_flood_does_not_fill_redis(pair: tuple[Process, Process], shared: Redis):
    here, there = pair
    run, tape = await here.start()
    for n in range(6):
        tape.append("custom", b'"' + bytes([97 + n]) * (2 * fanout.LARGEST) + b'"')
        # Text that compresses to nothing would be small.
        tape.append("custom", b'"' + _noise(fanout.LARGEST + 1000) + b'"')
        here.feed.touched(tape)
        await tape.caught_up()
    assert sum(len(cells[b"b"]) for _, cells in copies(shared, run)) <= 6 * fanout.LARGEST
    await here.finish(run, tape)
    assert [event.n async for event in there.follow(run, Cursor(1, 1))] == list(range(2, 15))


def _noise(size: int) -> bytes:
    return secrets.token_hex(size // 2).encode()


@pytest.fixture
def own() -> Generator[Redis]:
    """A Redis to do things to."""
    with redises.serving() as found:
        yield found


@pytest_asyncio.fixture
async def fragile(dsn: str, own: Redis) -> AsyncGenerator[tuple[Process, Process]]:
    async with AsyncExitStack() as stack:
        here = await stack.enter_async_context(process(dsn, own.url))
        there = await stack.enter_async_context(process(dsn, own.url))
        yield here, there


async def test_a_redis_that_dies_and_comes_back_empty_loses_no_event(
    fragile: tuple[Process, Process], own: Redis
):
    here, there = fragile
    run, tape = await here.start()
    stream = there.follow(run)
    got = [await anext(stream)]
    for n in range(30):
        await here.write(tape, f"{n}")
        await tape.caught_up()
        if n == 10:
            own.kill()
        if n == 20:
            own.start()
        got += await read(stream, 1)
    await here.finish(run, tape)
    got += [event async for event in stream]
    assert [event.n for event in got] == list(range(1, 33))


async def test_a_redis_that_answers_no_more_holds_up_no_run(
    fragile: tuple[Process, Process], own: Redis
):
    here, there = fragile
    run, tape = await here.start()
    stream = there.follow(run)
    await anext(stream)
    with own.frozen():
        async with asyncio.timeout(8):
            for n in range(20):
                await here.write(tape, f"{n}")
                await tape.caught_up()
            got = await read(stream, 20)
    await here.finish(run, tape)
    assert [event.n for event in got] == list(range(2, 22))
    assert [event.n async for event in stream] == [22]


async def test_a_redis_that_is_full_is_as_good_as_none(
    fragile: tuple[Process, Process], own: Redis
):
    here, there = fragile
    with client.Redis.from_url(own.url) as line:
        line.config_set("maxmemory", "1")
    run, tape = await written(here, 3)
    await here.finish(run, tape)
    assert await there.texts(run) == [opening(run), '"0"', '"1"', '"2"', END]


async def test_without_redis_at_the_start_everything_goes_by_postgres_until_it_is_there(
    dsn: str, own: Redis, caplog: pytest.LogCaptureFixture
):
    own.kill()
    async with process(dsn, own.url) as here, process(dsn, own.url) as there:
        assert "Redis is not there" in caplog.text
        run, tape = await here.start()
        stream = there.follow(run)
        await here.write(tape, "one")
        assert [event.n for event in await read(stream, 2)] == [1, 2]
        own.start()
        async with asyncio.timeout(10):
            while not copies(own, run):
                await here.write(tape, "more")
                await tape.caught_up()
        await here.finish(run, tape)
        numbers = [event.n async for event in stream]
        assert numbers == list(range(3, tape.last_n + 1))


async def test_a_reader_in_no_run_asks_the_log(db: Database, shared: Redis):
    """A reader that knows no run asks the log at once."""
    async with Line(shared.url) as line:
        log = Fanout(PostgresLog(db), line)
        who = Principal.owner(await db.owner("acme", "ann"))
        assert await log.read(who, "none", START) == ([], False)
        assert await log.tip(who, "none") == START
