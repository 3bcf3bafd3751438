"""The negative control of tests/fuzz/test_runs_machine.py: rules that are broken on purpose are
found out, each for what it is."""

from typing import Any

import pytest
from psycopg.errors import UniqueViolation

from clew.runtime.sql import queries
from tests.fuzz.ground import TIMEOUT, Ground, play
from tests.fuzz.moves import Moves

STARTED = "it is running, and by the rules pending"


@pytest.mark.timeout(TIMEOUT)
@pytest.mark.parametrize(
    ("broken", "instead", "wrong", "found"),
    [
        (
            "(select from flight where status = 'running' or due_at <= now())",
            "(select where false)",
            (UniqueViolation, AssertionError),
            f"run_running|{STARTED}",
        ),
        (
            "status = 'running' or due_at <= now()",
            "status = 'running'",
            AssertionError,
            STARTED,
        ),
        (
            "when %(strategy)s = 'reject' and",
            "when false and",
            pytest.fail.Exception,
            "DID NOT RAISE Conflict",
        ),
    ],
    ids=["two at once", "out of turn", "never refused"],
)
def test_a_rule_that_is_broken_is_found_out(
    ground: Ground,
    monkeypatch: pytest.MonkeyPatch,
    broken: str,
    instead: str,
    wrong: type[BaseException] | tuple[type[BaseException], ...],
    found: str,
):
    texts: dict[str, str] = vars(queries)["_texts"]
    assert broken in texts["create_run"]
    monkeypatch.setitem(texts, "create_run", texts["create_run"].replace(broken, instead))
    bound: Any = type("Bound", (Moves,), {"ground": ground})
    with pytest.raises(wrong, match=found):
        play(bound, examples=25, steps=30, shrinks=False)
