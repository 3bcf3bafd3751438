"""What random histories are played on: a database and a loop, shared by all of them, and the
questions about it that every machine asks."""

import asyncio
import os
from collections.abc import Coroutine
from typing import Any, TypeVar

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    run_state_machine_as_test,  # pyright: ignore[reportUnknownVariableType] - untyped upstream
)

from clew.checkpointing.postgres import Database, Principal

T = TypeVar("T")

LONG = "CLEW_LONG" in os.environ
TIMEOUT = 4 * 3600 if LONG else 600  # seconds, for all histories of one machine

SESSIONS = st.integers(0, 1)
STRATEGIES = st.sampled_from(["reject", "enqueue", "interrupt", "rollback"])
ACTIONS = st.sampled_from(["interrupt", "rollback"])
WORKERS = st.integers(0, 1)

ROWS = """
select run_id::text, thread_id, status, attempt, crashes, cancel, rest, mends, epoch, (
    select count(*) from clew.event e where e.run_id = r.run_id and e.first_n = 1) as openings
from clew.run r
"""
SESSION_ROWS = "select thread_id, status from clew.session"
DIE = """
update clew.worker set
    heartbeat_at = now() - interval '5 seconds', lease_until = now() - interval '1 second'
where worker_id = %(worker_id)s
"""
CLEAR = """
delete from clew.session
"""


class Ground:
    """A database and a loop, shared by all histories; each begins with nothing."""

    def __init__(self, runner: asyncio.Runner, dsn: str, db: Database, owner_id: int) -> None:
        self.runner = runner
        self.dsn = dsn
        self.db = db
        self.owner_id = owner_id
        self.who = Principal.owner(owner_id)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)


def play(
    machine: type[RuleBasedStateMachine], *, examples: int, steps: int, shrinks: bool = LONG
) -> None:
    chosen = settings(
        max_examples=examples * (20 if LONG else 1),
        stateful_step_count=steps * (2 if LONG else 1),
        derandomize="CLEW_FUZZ_SEED" not in os.environ,
        deadline=None,
        # Else a history that fails is shown as it was: to look for a shorter one takes minutes.
        phases=list(Phase) if shrinks else [Phase.generate],
        report_multiple_bugs=False,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    if seed := os.environ.get("CLEW_FUZZ_SEED"):
        machine = hypothesis.seed(int(seed))(machine)
    run_state_machine_as_test(machine, settings=chosen)
