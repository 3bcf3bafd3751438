"""Whose expiry a session gets."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from clew.runtime import errors, expiry
from clew.runtime.assistants import Assistant
from clew.runtime.config import Checkpointer, Config, GraphSpec, ThreadTTL
from clew.runtime.sessions import Ttl
from clew.runtime.settings import Settings

HOUR = timedelta(hours=1)


def configured(ttl: ThreadTTL | None) -> Config:
    graphs = {"g": GraphSpec.model_construct(path="./g.py:graph")}
    return Config.model_construct(graphs=graphs, checkpointer=Checkpointer(ttl=ttl))


def assistant(**metadata: Any) -> Assistant:
    now = datetime.now(UTC)
    return Assistant("a", 1, "g", "A", None, {}, {}, metadata, 1, now, now)


def test_the_agent_comes_before_langgraph_json_and_that_before_the_settings() -> None:
    settings = Settings(session_ttl=timedelta(days=1), session_expiry="fixed")
    stock = configured(ThreadTTL(strategy="keep_latest", default_ttl=HOUR))
    own = assistant(session_ttl={"ttl": 5, "sliding": True})
    assert expiry.policy(settings, stock, own) == Ttl(timedelta(minutes=5))
    assert expiry.policy(settings, stock, assistant()) == Ttl(HOUR, False, "keep_latest")
    assert expiry.policy(settings, configured(None)) == Ttl(timedelta(days=1), False)
    assert expiry.policy(Settings(), configured(None)) == Ttl(None)


def test_the_ways_to_write_it() -> None:
    settings = Settings()
    assert expiry.parse(None, settings) == Ttl(None)
    assert expiry.parse(1.5, settings) == Ttl(timedelta(seconds=90))
    written = {"ttl": 60, "strategy": "keep_latest", "sliding": False, "waiting": 120}
    assert expiry.parse(written, settings) == Ttl(HOUR, False, "keep_latest", 2 * HOUR)


@pytest.mark.parametrize(
    "given",
    ["60", True, [], {"ttl": "x"}, {"ttl": -1}, {"ttl": float("nan")}, {"minutes": 1},
     {"strategy": "drop"}, {"sliding": 1}, {"ttl": 1e300}],
)  # fmt: skip
def test_anything_else_is_refused(given: Any) -> None:
    with pytest.raises(errors.Invalid):
        expiry.parse(given, Settings())
