"""Wake-ups by Redis: as those by Postgres, and those take over while Redis is away."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager

import pytest

from clew.checkpointing.postgres import Database
from clew.runtime import errors
from clew.runtime.channels import Channels
from clew.runtime.line import Line
from tests import redises
from tests.redises import Redis


@pytest.fixture
def redis() -> Generator[Redis]:
    with redises.serving() as found:
        yield found


@asynccontextmanager
async def channels(db: Database, dsn: str, redis: Redis) -> AsyncGenerator[Channels]:
    async with Line(redis.url) as line, Channels(db, dsn, line) as found:
        yield found


async def hears(one: Channels, two: Channels, seconds: float = 5.0) -> bool:
    """Whether the one hears the other, sooner or later."""
    with one.listen("topic") as bell:
        async with asyncio.timeout(seconds):
            while True:
                two.publish("topic")
                if await bell.wait(0.2):
                    return True


async def patient(found: Channels) -> None:
    """Once it hears Redis."""
    with found.listen("-") as bell:
        async with asyncio.timeout(5):
            while found.patience < 10:
                await bell.wait(0.05)


async def impatient(found: Channels) -> None:
    with found.listen("any") as bell:
        async with asyncio.timeout(5):
            while found.patience > 1:
                await bell.wait(0.05)


async def test_another_process_hears_it_at_once_and_not_by_postgres(
    db: Database, dsn: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
):
    async def refuse(*_: object) -> None:
        raise AssertionError("this went by Postgres")

    async with channels(db, dsn, redis) as one, channels(db, dsn, redis) as two:
        await patient(one)
        await patient(two)
        monkeypatch.setattr("clew.runtime.notifier.Notifier._send", refuse)
        with two.listen("topic") as bell, two.listen("other") as other:
            # Rung when the line to the topic is there: what was published before it counts.
            assert await bell.wait(5)
            assert await other.wait(5)
            one.publish("topic")
            assert await bell.wait(5)
            assert not await other.wait(0.1)


async def test_a_process_hears_itself_once_and_without_redis(db: Database, dsn: str, redis: Redis):
    async with channels(db, dsn, redis) as one:
        with one.listen("a") as bell:
            one.publish("a")
            assert await bell.wait(0)


async def test_while_redis_is_away_they_go_by_postgres_and_come_back(
    db: Database, dsn: str, redis: Redis
):
    async with channels(db, dsn, redis) as one, channels(db, dsn, redis) as two:
        await patient(one)
        redis.kill()
        await impatient(one)
        assert await hears(one, two)
        redis.start()
        await patient(one)
        await patient(two)
        assert await hears(two, one)


async def test_one_who_waits_when_redis_goes_is_rung(db: Database, dsn: str, redis: Redis):
    async with channels(db, dsn, redis) as one:
        await patient(one)
        with one.listen("a") as bell:
            await bell.wait(5)
            redis.kill()
            assert await bell.wait(5)
            assert one.patience <= 1


async def test_a_frozen_redis_is_noticed(db: Database, dsn: str, redis: Redis):
    async with channels(db, dsn, redis) as one, channels(db, dsn, redis) as two:
        await patient(one)
        with redis.frozen():
            await impatient(one)
            assert await hears(one, two)
        await patient(one)
        assert await hears(one, two)


async def test_a_wrong_password_stops_the_start_and_is_not_shown(redis: Redis):
    redis.kill()
    redis.start("--requirepass", "right")
    with pytest.raises(errors.ConfigError, match="refuses") as raised:
        async with Line(redis.url.replace("//", "//:wrong@")):
            pass
    assert "wrong" not in str(raised.value)


async def test_what_is_no_url_stops_the_start_and_is_not_shown():
    with pytest.raises(errors.ConfigError, match="CLEW_REDIS_URL") as raised:
        Line("redis://:secret@host:notaport/0")
    assert "secret" not in str(raised.value)
