"""`make chaos` runs everything, for as long as it takes; otherwise a short version of each runs."""

import os

import pytest


@pytest.fixture
def long() -> bool:
    return bool(os.environ.get("CLEW_LONG"))
