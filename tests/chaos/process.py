"""A worker in a process of its own, to be killed. `python -m tests.chaos.process DSN [options]`.

Graphs are those of the tests; a node of `deadly` kills the process the first time it is reached.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from types import ModuleType
from typing import Any

import psycopg

from clew.checkpointing.postgres import Database
from clew.checkpointing.saver import Saver
from clew.runtime import entry
from clew.runtime.feed import Follower
from clew.runtime.graphs import Graphs, Registered
from clew.runtime.notifier import Notifier
from clew.runtime.settings import Settings
from clew.runtime.sql import queries
from clew.runtime.worker import Worker
from tests.turns import BUILDERS, deadly


def killer(dsn: str, victim: str) -> Callable[[str], None]:
    """Kills this process in one node, the first time that any process gets there. What was put
    before is on its way by then; a crash does not wait for it."""

    def before(name: str) -> None:
        if name == victim and first_time(dsn):
            os.kill(os.getpid(), signal.SIGKILL)

    return before


def first_time(dsn: str) -> bool:
    with psycopg.connect(dsn, autocommit=True) as conn:
        row = conn.execute(
            "insert into public.death values (1) on conflict do nothing returning 1"
        ).fetchone()
    return row is not None


def skew(seconds: float) -> None:
    """From now on every clock of this process that tells the time of day is wrong by so much."""
    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() + seconds
    time.time_ns = lambda: now_ns() + int(seconds * 1e9)

    class Skewed(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Skewed":
            return super().now(tz) + timedelta(seconds=seconds)

    for name, module in list(sys.modules.items()):
        if name.startswith("clew.") and getattr(module, "datetime", None) is datetime:
            module.datetime = Skewed  # pyright: ignore[reportAttributeAccessIssue]


def trust_own_clock(seconds: float) -> None:
    """The negative control: leases by the clock of the one who takes them."""
    texts: dict[str, str] = vars(queries)["_texts"]
    for name in ("enlist_worker", "renew_lease"):
        texts[name] = texts[name].replace("now()", f"(now() + interval '{int(seconds)} s')")


class Unfenced(Saver):
    """The negative control: whoever writes may write."""

    def bind(self, **given: Any) -> Saver:
        return super().bind(**{**given, "fence": None})


async def anew(*_: object) -> bool:
    """The negative control: whoever starts a run again starts it from its beginning."""
    return False


async def serve(options: argparse.Namespace) -> None:
    module = ModuleType("process")
    builders = {**BUILDERS, "deadly": deadly(killer(options.dsn, options.victim))}
    graphs = Graphs(
        {
            name: Registered(name, None, builder.compile(), module)
            for name, builder in builders.items()
        }
    )
    settings = Settings.model_validate(
        {
            "heartbeat": options.heartbeat,
            "lease": options.lease,
            "concurrency": options.concurrency,
            "max_attempts": 100,  # the longer a run takes, the more often it is struck
        }
    )
    if options.skew:
        skew(options.skew)
    if options.own_clock:
        trust_own_clock(options.skew)
    if options.forgetful:
        entry.reenter = anew
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    # Who writes, for tests that ask the database.
    own = f"{options.dsn} options='-c chaos.process={os.getpid()}'"
    async with Database.open(own, max_size=8) as db:
        saver = Unfenced(db) if options.unfenced else Saver(db)
        async with (
            Notifier(db, options.direct or options.dsn) as notifier,
            Follower(db, notifier, saver) as feed,
            Worker(db, graphs, saver, notifier, feed, settings) as worker,
        ):
            print(worker.worker_id, flush=True)
            await stop.wait()
            await worker.drain(settings.drain_grace)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("dsn")
    parser.add_argument("--direct")
    parser.add_argument("--unfenced", action="store_true")
    parser.add_argument("--forgetful", action="store_true")
    parser.add_argument("--skew", type=float, default=0.0)
    parser.add_argument("--own-clock", action="store_true")
    parser.add_argument("--victim", default="")
    parser.add_argument("--heartbeat", default="0.3")
    parser.add_argument("--lease", default="3")
    parser.add_argument("--concurrency", default="8")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
