"""Random lives of an owner's sessions on the real database, against a model that one can read:
moves, runs, expiry, limits, reuse, sweeps and final deletions, with time that goes on by shifting
what the rows say of it.

A short version is part of the suite. `CLEW_LONG` makes it long, `CLEW_FUZZ_EXAMPLES` says how many
lives, `CLEW_FUZZ_SEED` which ones.
"""

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import hypothesis
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from clew.checkpointing.postgres import Database, Principal
from clew.runtime import errors, lifecycle, limits, search, sessions, sweeper
from clew.runtime.lifecycle import Move
from clew.runtime.limits import Limit
from clew.runtime.sessions import Fields, Ttl

LONG = "CLEW_LONG" in os.environ
EXAMPLES = int(os.environ.get("CLEW_FUZZ_EXAMPLES") or (1000 if LONG else 20))
SEED = int(os.environ.get("CLEW_FUZZ_SEED", "1"))
EVERY = ("active", "idle", "archived", "expired", "deleted")
UNDO = 60  # minutes

Now = tuple[int, int]  # minutes of the model's clock, then the order of what happens in one


@dataclass
class Life:
    """What the model knows of one session."""

    thread_id: str
    kind: str | None
    active_at: Now
    idle_after: int
    ttl: int | None
    sliding: bool
    strategy: str
    expires_at: int | None
    status: str = "idle"
    archived: bool = False
    deleted_at: int | None = None
    version: int = 1

    def state(self, clock: int) -> str:
        if self.deleted_at is not None:
            return "deleted"
        due = self.expires_at is not None and self.expires_at <= clock
        if due and self.strategy == "delete" and self.status != "busy":
            return "expired"
        if self.archived:
            return "archived"
        if self.active_at[0] + self.idle_after <= clock and self.status != "busy":
            return "idle"
        return "active"

    def term(self, start: int) -> None:
        self.expires_at = None if self.ttl is None else start + self.ttl


@dataclass
class Model:
    clock: int = 0
    ticks: int = 0
    lives: dict[str, Life] = field(default_factory=dict[str, Life])

    def now(self) -> Now:
        self.ticks += 1
        return self.clock, self.ticks

    def states(self) -> dict[str, str]:
        return {key: life.state(self.clock) for key, life in self.lives.items()}

    def living(self) -> list[Life]:
        """The least recently active first."""
        found = [x for x in self.lives.values() if x.state(self.clock) in ("active", "idle")]
        return sorted(found, key=lambda life: life.active_at)

    def active(self, life: Life) -> None:
        """Something that counts as activity happened."""
        life.active_at = self.now()
        if life.ttl is not None and life.sliding:
            life.term(self.clock)

    def refusal(self, life: Life, move: Move) -> type[errors.ClewError] | None:
        state, wanted = life.state(self.clock), lifecycle.MOVES[move]
        busy = life.status == "busy" and not wanted.busy
        over = move == "undelete" and life.deleted_at is not None
        over = over and life.deleted_at is not None and life.deleted_at + UNDO <= self.clock
        if state in wanted.sources and not busy and not over:
            return None
        if state == "expired" or over:
            return errors.Gone
        if state in wanted.sources:
            return errors.Conflict
        return errors.NotFound if state == "deleted" else errors.Conflict

    def move(self, life: Life, move: Move, ttl: int | None) -> None:
        match move:
            case "archive":
                life.archived = True
            case "unarchive":
                life.archived = False
                self.active(life)
            case "delete":
                life.deleted_at = self.clock
            case "undelete":
                life.deleted_at = None
                self.active(life)
            case "touch":
                life.ttl = ttl if ttl is not None else life.ttl
                self.active(life)
                life.term(self.clock)
        life.version += move != "touch"


def in_minutes(policy: Ttl) -> int | None:
    return None if policy.ttl is None else int(policy.ttl.total_seconds() // 60)


minutes = st.sampled_from([5, 20, 45, 90])
policies = st.one_of(
    st.none(),
    st.builds(
        lambda ttl, sliding, strategy: Ttl(timedelta(minutes=ttl), sliding, strategy),
        minutes,
        st.booleans(),
        st.sampled_from(["delete", "keep_latest"]),
    ),
)
picks = st.integers(0, 30)


class Lives(RuleBasedStateMachine):
    """`runner` and `db` are the test's."""

    runner: asyncio.Runner
    db: Database
    born = 0

    def __init__(self) -> None:
        super().__init__()
        Lives.born += 1
        self.owner_id = self.do(self.db.owner("default", f"owner {Lives.born}"))
        self.who = Principal.owner(self.owner_id)
        self.model = Model()

    def do(self, work: Any) -> Any:
        return self.runner.run(work)

    def refused(self, work: Any, expected: type[errors.ClewError] | None) -> Any:
        if expected is None:
            return self.do(work)
        with pytest.raises(expected) as caught:
            self.do(work)
        assert type(caught.value) is expected
        return None

    def pick(self, number: int) -> Life:
        lives = list(self.model.lives.values())
        return lives[number % len(lives)]

    @rule(
        most=st.sampled_from([None, 1, 2, 3, 5]),
        policy=st.sampled_from(["reject", "archive_oldest", "delete_oldest"]),
        reuse=st.booleans(),
        kind=st.sampled_from([None, "chat"]),
        ttl=policies,
        idle_after=minutes,
    )
    def create(
        self, most: int | None, policy: Any, reuse: bool, kind: str | None, ttl: Ttl | None,
        idle_after: int,
    ) -> None:  # fmt: skip
        model = self.model
        given: Fields = {"kind": kind, "ttl": ttl, "idle_after": timedelta(minutes=idle_after)}
        work = limits.create(
            self.db, self.who, self.owner_id, Limit(most, policy),
            reuse="latest" if reuse else None, **given,
        )  # fmt: skip
        living = model.living()
        latest = [x for x in living if kind is None or x.kind == kind][-1:] if reuse else []
        if latest:
            made = self.do(work)
            assert (made.session.thread_id, made.new) == (latest[0].thread_id, False)
            return
        over = max(0, len(living) + 1 - most) if most is not None else 0
        evicted = [x for x in living if x.status != "busy"][:over] if policy != "reject" else []
        if most is not None and len(living) - len(evicted) >= most:
            self.refused(work, errors.Limited)
            return
        made = self.do(work)
        assert made.new
        for life in evicted:
            model.move(life, "archive" if policy == "archive_oldest" else "delete", None)
        chosen = ttl or Ttl(None)
        life = Life(
            made.session.thread_id, kind, model.now(), idle_after,
            in_minutes(chosen),
            chosen.sliding, chosen.strategy, None,
        )  # fmt: skip
        life.term(model.clock)
        model.lives[life.thread_id] = life

    @precondition(lambda self: self.model.lives)
    @rule(number=picks, raising=st.booleans())
    def create_again(self, number: int, raising: bool) -> None:
        life = self.pick(number)
        ended = life.state(self.model.clock) in ("expired", "deleted")
        self.refused(
            limits.create(
                self.db, self.who, self.owner_id, Limit(1, "delete_oldest"),
                thread_id=life.thread_id, if_exists="raise" if raising else "do_nothing",
            ),
            errors.Conflict if raising or ended else None,
        )  # fmt: skip

    @precondition(lambda self: self.model.lives)
    @rule(
        number=picks,
        move=st.sampled_from(list(lifecycle.MOVES)),
        ttl=st.one_of(st.none(), minutes),
    )
    def move(self, number: int, move: Move, ttl: int | None) -> None:
        life = self.pick(number)
        given = timedelta(minutes=ttl) if ttl is not None and move == "touch" else None
        refusal = self.model.refusal(life, move)
        moved = self.refused(
            lifecycle.move(
                self.db, self.who, life.thread_id, move, actor="model", ttl=given,
                undo_window=timedelta(minutes=UNDO),
            ),
            refusal,
        )  # fmt: skip
        if refusal is None:
            self.model.move(life, move, ttl)
            assert moved.state == life.state(self.model.clock)

    @precondition(lambda self: self.model.lives)
    @rule(number=picks, stale=st.booleans(), ttl=policies, setting=st.booleans())
    def patch(self, number: int, stale: bool, ttl: Ttl | None, setting: bool) -> None:
        life = self.pick(number)
        state = life.state(self.model.clock)
        refusal: type[errors.ClewError] | None = None
        if state in ("expired", "deleted"):
            refusal = errors.Gone if state == "expired" else errors.NotFound
        elif stale:
            refusal = errors.Stale
        elif state == "archived":
            refusal = errors.Conflict
        chosen = ttl or Ttl(None)
        self.refused(
            sessions.patch(
                self.db, self.who, life.thread_id, {"title": "new"},
                version=life.version + stale, ttl=chosen if setting else None,
            ),
            refusal,
        )  # fmt: skip
        if refusal is None:
            life.version += 1
            if setting:
                life.ttl = in_minutes(chosen)
                life.sliding, life.strategy = chosen.sliding, chosen.strategy
                self.model.active(life)
                life.term(self.model.clock)

    @precondition(lambda self: self.model.lives)
    @rule(number=picks, status=st.sampled_from(["busy", "idle", "interrupted", "error"]))
    def run(self, number: int, status: str) -> None:
        """What runs do to a session: it is busy, and then it is not."""
        life = self.pick(number)
        going = life.status == "busy"
        if going == (status == "busy") or life.state(self.model.clock) not in ("active", "idle"):
            return
        self.sql(
            "update clew.session set status = %(status)s, last_active_at = now() "
            "where thread_id = %(thread_id)s",
            {"status": status, "thread_id": life.thread_id},
        )
        life.status = status
        self.model.active(life)

    @rule(passed=st.sampled_from([1, 10, 30, 60, 120]))
    def time(self, passed: int) -> None:
        """Everything that the rows say of time was that much longer ago."""

        async def shift() -> None:
            async with self.db.connection() as conn, conn.transaction():
                await conn.execute("set local session_replication_role = replica")  # no triggers
                await conn.execute(
                    "update clew.session set last_active_at = last_active_at - d.ago, "
                    "expires_at = expires_at - d.ago, deleted_at = deleted_at - d.ago, "
                    "archived_at = archived_at - d.ago, updated_at = updated_at - d.ago "
                    "from (select %(ago)s::interval as ago) d where owner_id = %(owner_id)s",
                    {"ago": timedelta(minutes=passed), "owner_id": self.owner_id},
                )

        self.do(shift())
        self.model.clock += passed

    @rule()
    def sweep(self) -> None:
        async def thin(thread_id: str) -> None: ...

        rules = sweeper.Rules(undo_window=timedelta(minutes=UNDO), limit=1000)
        self.do(sweeper.sweep(self.db, rules, thin))
        clock = self.model.clock
        for key, life in list(self.model.lives.items()):
            over = life.deleted_at is not None and life.deleted_at + UNDO <= clock
            if over or life.state(clock) == "expired":
                del self.model.lives[key]
            elif (
                life.expires_at is not None and life.expires_at <= clock
                and life.status != "busy" and life.deleted_at is None
            ):  # fmt: skip
                life.expires_at = None  # it lives on, thinned

    @precondition(lambda self: self.model.lives)
    @rule(number=picks)
    def delete_for_good(self, number: int) -> None:
        life = self.pick(number)
        self.do(sessions.delete(self.db, self.who, life.thread_id, actor="a"))
        del self.model.lives[life.thread_id]

    @invariant()
    def the_database_says_the_same(self) -> None:
        wanted = search.Wanted(states=EVERY)
        page = self.do(search.page(self.db, self.who, wanted, limit=1000, total=True))
        assert {x.thread_id: x.state for x in page.items} == self.model.states()
        assert page.total == len(self.model.lives)
        assert {x.thread_id: x.version for x in page.items} == {
            key: life.version for key, life in self.model.lives.items()
        }
        listed = [x for x in page.items if x.state in ("active", "idle", "archived")]
        assert self.do(sessions.count(self.db, self.who)) == len(listed)

    def sql(self, statement: Any, values: dict[str, Any]) -> None:
        self.do(self.db.execute(self.who, statement, values))


@pytest.fixture
def ground(dsn: str) -> Iterator[type[Lives]]:
    with asyncio.Runner() as runner:
        opening = Database.open(dsn)
        Lives.db = runner.run(opening.__aenter__())
        Lives.runner = runner
        yield Lives
        runner.run(opening.__aexit__(None, None, None))


@pytest.mark.timeout(3600 if LONG else 600)
def test_row_5_8_9_10_41_whatever_happens_the_database_is_in_the_state_of_the_model(
    ground: type[Lives],
) -> None:
    phases = [Phase.generate, Phase.shrink] if LONG else [Phase.generate]
    run_state_machine_as_test(
        hypothesis.seed(SEED)(ground),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=60 if LONG else 30,
            deadline=None,
            database=None,
            phases=phases,
        ),
    )
