"""Random histories of turns against a model that has no database: who runs, who waits, who was
stopped, how often each was started, and how the session is left, after every single step.

`CLEW_LONG=1` makes them long; `CLEW_FUZZ_SEED` another history.
"""

from typing import Any

import pytest

from tests.fuzz.ground import TIMEOUT, Ground, play
from tests.fuzz.moves import Moves


@pytest.mark.timeout(TIMEOUT)
def test_turns_follow_their_rules_whoever_moves_next(ground: Ground):
    bound: Any = type("Bound", (Moves,), {"ground": ground})
    play(bound, examples=25, steps=30)
