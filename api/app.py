"""Builds everything, in the one order that works, and takes it down again in reverse.

This is the only place that makes parts; the rest of the code is handed them.
"""

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph_sdk import Auth
from starlette.types import ASGIApp

from clew.api import custom, face
from clew.api.auth import Gate
from clew.api.deps import Parts
from clew.checkpointing import isolation, migrate
from clew.checkpointing.encryption import Keyring
from clew.checkpointing.keys import Vault
from clew.checkpointing.postgres import Database
from clew.checkpointing.saver import Saver
from clew.checkpointing.sealed import Seals
from clew.runtime import assistants as registry
from clew.runtime import (
    embedded,
    errors,
    graphs,
    imports,
    retention,
    rowkeys,
    runs,
    scribe,
    sources,
    sweeper,
    targets,
    titles,
    upkeep,
)
from clew.runtime.cache import Cache
from clew.runtime.config import Config, Http, webhook_headers
from clew.runtime.events import EventLog, PostgresLog
from clew.runtime.feed import Follower
from clew.runtime.firing import Crons
from clew.runtime.notifier import Notifier
from clew.runtime.payloads import Payloads
from clew.runtime.posting import Poster
from clew.runtime.settings import Settings
from clew.runtime.store import Store
from clew.runtime.telemetry import Telemetry
from clew.runtime.webhooks import Webhooks
from clew.runtime.worker import Worker

MIGRATIONS = ("clew.checkpointing.migrations", "clew.runtime.migrations")


@dataclass(frozen=True, slots=True)
class Serving:
    """What to serve, and the word that it is to end."""

    app: ASGIApp
    leaving: asyncio.Event


@asynccontextmanager
async def running(settings: Settings, config: Config) -> AsyncGenerator[Serving]:
    """The application, with its runs under way; leaving it means all of it has stopped."""
    async with AsyncExitStack() as stack:
        parts = await _build(stack, settings, config)
        gate = await stack.enter_async_context(
            Gate.open(
                settings, parts.db, handlers(config), config.auth.cache if config.auth else None
            )
        )
        app = face.application(parts, gate)
        own = custom.load(config)
        served: ASGIApp = app
        if own is not None:
            http = config.http or Http()
            guarded = http.enable_custom_route_auth
            served = await custom.around(stack, own, app, gate, guarded=guarded)
        # While connections are still being closed, runs are handed over already.
        handing_over = asyncio.create_task(_hand_over(parts))
        try:
            yield Serving(served, parts.leaving)
            parts.leaving.set()
            await handing_over
        finally:
            handing_over.cancel()
            await asyncio.wait([handing_over])


async def _hand_over(parts: Parts) -> None:
    await parts.leaving.wait()
    await parts.worker.drain(parts.settings.drain_grace)


@asynccontextmanager
async def working(settings: Settings, config: Config) -> AsyncGenerator[asyncio.Event]:
    """Runs without an API; yields an event that is set when the process is told to stop."""
    async with AsyncExitStack() as stack:
        parts = await _build(stack, settings, config)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, parts.leaving.set)
        yield parts.leaving
        await parts.worker.drain(settings.drain_grace)


async def _build(stack: AsyncExitStack, settings: Settings, config: Config) -> Parts:
    # Graphs first: a fault in a user's file is told before anything else is started.
    loaded = await graphs.load(config)
    if settings.database_url is None:
        server = await stack.enter_async_context(embedded.serve(config.root))
        dsn = server.dsn
    else:
        dsn = settings.database_url.get_secret_value()
    direct = settings.direct_url.get_secret_value() if settings.direct_url else dsn
    await migrate.apply(dsn, *MIGRATIONS)
    keys = [(key.id, key.key.get_secret_value()) for key in settings.encryption_keys]
    keyring = Keyring(keys) if keys else None
    seals = Seals(keyring) if keyring else None
    db = await stack.enter_async_context(
        Database.open(dsn, max_size=settings.pool_size, seals=seals)
    )
    await isolation.prove(db)
    await rowkeys.demand(db, keyring.names if keyring else ())
    await registry.register(db, {name: loaded.describe(name) for name in loaded.ids()})
    vault = Vault(keyring) if keyring else None
    saver = Saver(db, vault=vault, serde=serde(config))
    telemetry = Telemetry(loaded.ids(), capacity=settings.concurrency)
    telemetry.watch(sources.Pool(db.pool))
    log, wakeups = await _carriers(stack, settings, db, direct, telemetry, seals)
    notifier = await stack.enter_async_context(wakeups)
    # A session that hears its own notifications is one: nothing pools transactions in between.
    db.prepares = notifier.direct and direct == dsn
    feed = await stack.enter_async_context(Follower(db, notifier, saver, log, telemetry))
    store = await stack.enter_async_context(Store.open(db, config.store, config.folders, keyring))
    cache = Cache(db, telemetry, keyring=keyring)
    worker = await stack.enter_async_context(
        Worker(
            db,
            loaded,
            saver,
            notifier,
            feed,
            settings,
            store=store,
            cache=cache,
            telemetry=telemetry,
        )
    )
    parts = Parts(
        settings,
        config,
        db,
        loaded,
        saver,
        store,
        feed,
        worker,
        asyncio.Event(),
        telemetry,
    )
    await _keep_house(stack, parts, notifier)
    return parts


async def _carriers(
    stack: AsyncExitStack,
    settings: Settings,
    db: Database,
    direct: str,
    telemetry: Telemetry,
    seals: Seals | None,
) -> tuple[EventLog, Notifier]:
    """What events and wake-ups travel by."""
    if settings.redis_url is None:
        return PostgresLog(db), Notifier(db, direct, telemetry)
    try:
        from clew.runtime import channels, fanout, line  # noqa: PLC0415 - their package is an extra
    except ModuleNotFoundError:
        raise errors.ConfigError(
            "CLEW_REDIS_URL needs the Redis client: pip install 'clew[redis]'."
        ) from None
    redis = await stack.enter_async_context(line.Line(settings.redis_url.get_secret_value()))
    telemetry.watch(sources.Redis(redis))
    log = fanout.Fanout(PostgresLog(db), redis, seals)
    return log, channels.Channels(db, direct, redis, telemetry)


async def _keep_house(stack: AsyncExitStack, parts: Parts, notifier: Notifier) -> None:
    """What goes on by itself: what has expired goes, what is due begins, what was said is read."""
    db, settings, config = parts.db, parts.settings, parts.config
    stock = config.checkpointer.ttl if config.checkpointer else None
    rules = sweeper.Rules(
        settings.undo_window,
        settings.event_retention,
        (stock and stock.sweep_limit) or sweeper.DEFAULT_LIMIT,
    )
    interval = (stock and stock.sweep_interval_minutes) or settings.sweep_interval

    async def thin(thread_id: str) -> None:
        await retention.thin(db, thread_id)

    await stack.enter_async_context(sweeper.running(db, rules, interval=interval, thin=thin))
    await stack.enter_async_context(
        retention.running(db, interval=interval, default=settings.retention)
    )
    items = config.store.ttl if config.store else None
    often = (items and items.sweep_interval_minutes) or settings.sweep_interval
    if parts.store is not None:
        await stack.enter_async_context(upkeep.running(parts.store, interval=often))
    if not settings.encryption_keys:
        await stack.enter_async_context(scribe.running(db, titles.writer(settings)))
    if settings.role == "api":
        return
    if settings.crons:
        crons = Crons(
            db,
            parts.graphs,
            notifier,
            parts.telemetry,
            interval=settings.cron_interval,
            limits=runs.Limits(per_owner=settings.max_runs),
        )
        await stack.enter_async_context(crons)
    poster = None
    if not (config.http and config.http.disable_webhooks):
        poster = await stack.enter_async_context(
            Poster.open(
                targets.of(config),
                headers=webhook_headers(config),
                secret=settings.webhook_secret,
            )
        )
    fields = config.webhooks.allowed_fields if config.webhooks else None
    payloads = Payloads(db, parts.graphs, parts.saver, parts.store, fields)
    await stack.enter_async_context(Webhooks(db, notifier, payloads, poster, parts.telemetry))


def serde(config: Config) -> SerializerProtocol | None:
    """What checkpoints may bring back, where langgraph.json allows more than graphs declare."""
    chosen = config.checkpointer.serde if config.checkpointer else None
    if chosen is None:
        return None
    more: Any = chosen.allowed_msgpack_modules
    return JsonPlusSerializer(
        allowed_json_modules=chosen.allowed_json_modules, allowed_msgpack_modules=more
    )


def handlers(config: Config) -> Auth | None:
    """The `Auth` object that langgraph.json names."""
    if config.auth is None:
        return None
    _, found = imports.load(config.auth.path, config.folders)
    if not isinstance(found, Auth):
        raise errors.ConfigError(f"auth.path: {config.auth.path} is not a langgraph_sdk.Auth")
    return found
