"""No test of the graphs depends on the keys of whoever runs it."""

from collections.abc import Generator

import pytest

from tests.agents.fake_openai import Endpoint, serve


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE", "ANALYST_DATASETS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def endpoint(offline: None, monkeypatch: pytest.MonkeyPatch) -> Generator[Endpoint]:
    """An OpenAI-compatible server over HTTP, which the graphs then use."""
    with serve() as served:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-tests")
        monkeypatch.setenv("OPENAI_BASE_URL", served.url)
        yield served
