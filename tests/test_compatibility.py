"""docs/compatibility.md: its table is what the tests hold, and each divergence names its test."""

import re

import pytest

from tests import compatibility
from tests.sdk import official

PAGE = compatibility.FILE.read_text()
DIVERGENCES = PAGE.partition("## Where Clew differs")[2]


def test_the_table_is_what_the_tests_hold() -> None:
    assert compatibility.page() == PAGE, "run python -m tests.compatibility"


def test_no_method_is_without_a_row_and_no_row_is_empty() -> None:
    rows = compatibility.table().splitlines()[2:]
    named = {row.split("`")[1] for row in rows}
    assert named == official.methods("async") == official.methods("sync")
    assert all(cell.strip() for row in rows for cell in row.strip("|").split("|"))


@pytest.mark.usefixtures("javascript")
def test_the_javascript_client_has_the_same_methods() -> None:
    found: set[str] = set()
    for part in official.PARTS:
        text = (compatibility.JS / part / "index.d.ts").read_text()
        names = re.findall(r"^  (?:async )?([a-z]\w+)(?:<[^(]*>)?\(", text, re.MULTILINE)
        found |= {f"{part}.{name}" for name in names if name != "constructor"}
    python = {compatibility.camel(method) for method in official.methods("async")}
    assert found - compatibility.JS_ALONE == python


def divergences() -> list[tuple[str, str]]:
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", DIVERGENCES, re.MULTILINE)
    return [(ours, by) for _theirs, ours, by in rows if not set(by) <= {"-"} and by != "shown by"]


def test_there_are_divergences() -> None:
    assert len(divergences()) > 30


@pytest.mark.parametrize(("ours", "by"), divergences())
def test_each_divergence_names_a_test_that_is_there(ours: str, by: str) -> None:
    names = re.findall(r"`([\w/]+\.py)::(\w+)`", by)
    assert names, f"nothing shows: {ours}"
    for file, name in names:
        text = (compatibility.HERE / file).read_text()
        assert re.search(rf"^(?:async )?def {name}\(", text, re.MULTILINE), f"{file}::{name}"
