"""The line to Redis as an operator sees it: what the metrics and `clew doctor` say of it."""

import json
from pathlib import Path

import pytest

from clew.runtime import checkup, sources
from clew.runtime.line import Line
from clew.runtime.telemetry import Telemetry
from tests import redises
from tests.test_cli import run

GRAPHS = Path(__file__).parent / "project" / "graphs.py"


def shown(subject: Telemetry) -> dict[str, float]:
    return {
        sample.name: sample.value
        for family in subject.registry.collect()
        for sample in family.samples
        if sample.name.startswith("clew_redis")
    }


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is slow is this machine, and not Redis."""
    monkeypatch.setattr("clew.runtime.line.ANSWER_SECONDS", 30)


@pytest.mark.usefixtures("patient")
async def test_the_metrics_tell_whether_redis_is_there_and_how_often_it_was_lost() -> None:
    subject = Telemetry()
    assert shown(subject) == {}
    with redises.serving() as redis:
        async with Line(redis.url) as line:
            subject.watch(sources.Redis(line))
            await line.risen.wait()
            lost = line.losses  # more than none where this machine stood still for long
            assert shown(subject) == {"clew_redis_up": 1, "clew_redis_losses_total": lost}
            redis.kill()
            await line.fallen.wait()
            assert shown(subject) == {"clew_redis_up": 0, "clew_redis_losses_total": lost + 1}
            redis.start()
            await line.risen.wait()
            assert shown(subject)["clew_redis_up"] == 1


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("options", "login", "good", "told"),
    [
        ((), "", True, "takes what is written"),
        (("--requirepass", "right"), ":right@", True, "takes what is written"),
        (("--requirepass", "right"), ":wrong@", False, "refuses the user or password"),
        (("--replicaof", "127.0.0.1", "1"), "", False, "read only replica"),
        (("--maxmemory", "1"), "", False, "maxmemory"),
    ],
)
async def test_the_doctor_finds_out_whether_redis_is_of_use(
    options: tuple[str, ...], login: str, told: str, *, good: bool
) -> None:
    with redises.serving(*options) as redis:
        found = await checkup.examine_redis(redis.url.replace("://", f"://{login}"))
        assert (found.what, found.good) == ("redis", good), found
        assert told in found.told
        assert "wrong" not in found.told
        redis.kill()
        gone = await checkup.examine_redis(redis.url)
    assert not gone.good
    assert "CLEW_REDIS_URL" in gone.advice


async def test_without_its_client_redis_is_refused_with_the_way_out(
    dsn: str, tmp_path: Path
) -> None:
    (tmp_path / "redis.py").write_text("raise ModuleNotFoundError(\"No module named 'redis'\")\n")
    config = {"dependencies": ["."], "graphs": {"echo": f"{GRAPHS}:echo"}}
    (tmp_path / "langgraph.json").write_text(json.dumps(config))
    bare = {"PYTHONPATH": str(tmp_path), "CLEW_REDIS_URL": "redis://127.0.0.1:1"}
    code, said = await run("serve", "--port", "0", cwd=tmp_path, DATABASE_URL=dsn, **bare)
    assert code == 2, said
    assert "clew: CLEW_REDIS_URL needs the Redis client: pip install 'clew[redis]'." in said
    code, said = await run("doctor", cwd=tmp_path, DATABASE_URL="", POSTGRES_URI="", **bare)
    assert code == 1, said
    assert "FAIL redis: no Redis client" in said
    assert "pip install 'clew[redis]'" in said
