"""The docs say what the code does: every route, every error code, every command of the README."""

import re
from pathlib import Path

import pytest

from clew.api import problems
from clew.checkpointing import errors as below
from clew.runtime import errors
from tests import routes

DOCS = Path(__file__).parents[1] / "docs"
README = DOCS.parent / "README.md"


def test_every_route_is_on_the_page_of_routes() -> None:
    expected = routes.described(routes.application())
    assert (DOCS / "api.md").read_text() == expected, "run python -m tests.routes"


def tree(root: type[Exception]) -> list[type[Exception]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in tree(child))]


SENT = [
    kind
    for root in (errors.ClewError, below.CheckpointError)
    for kind in tree(root)
    if not issubclass(kind, errors.StartError)
]


@pytest.mark.parametrize("kind", SENT)
def test_every_error_code_is_on_the_page_of_errors_with_its_status(kind: type[Exception]) -> None:
    code, status = kind.code, problems.STATUS  # pyright: ignore[reportAttributeAccessIssue]
    number = next(status[cls] for cls in kind.__mro__ if cls in status)
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", (DOCS / "errors.md").read_text(), re.MULTILINE)
    assert (code, str(number)) in rows


def test_links_between_pages_lead_somewhere() -> None:
    for page in (README, *DOCS.rglob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+\.md)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} points at {target}"
