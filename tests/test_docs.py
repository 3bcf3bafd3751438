"""The docs say what the code does: every route, every error code, every command of the README."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from clew.api import cli, problems
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


def test_the_page_of_errors_has_no_code_that_is_never_sent() -> None:
    codes = set(
        re.findall(r"^\| `(\w+)` \| \d+ \|", (DOCS / "errors.md").read_text(), re.MULTILINE)
    )
    refused = "method_not_allowed"  # by the router, without an error of ours
    assert codes == {refused, *(kind.code for kind in SENT)}  # pyright: ignore[reportAttributeAccessIssue]


def test_the_page_of_commands_has_every_command_and_no_option_that_is_none() -> None:
    page = (DOCS / "commands.md").read_text()
    named = set(re.findall(r"`([^`\n]+)`", page))
    options: set[str] = set()
    for words, parser in commands(cli.parser()):
        options |= {text for action in parser._actions for text in action.option_strings}
        last = words[-1]
        assert any(re.match(rf"(clew .*)?{last}\b", text) for text in named), f"{words} is missing"
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page)) <= options


def commands(
    parser: argparse.ArgumentParser, *words: str
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """Every command with its parser, those of commands too."""
    if words:
        yield words, parser
    for action in parser._actions:
        inner: object = action.choices if action.nargs == argparse.PARSER else {}
        for name, sub in cast("dict[str, argparse.ArgumentParser]", inner).items():
            yield from commands(sub, *words, name)


def links(page: Path) -> list[tuple[Path, str]]:
    """The pages that this one points at, and the headings."""
    found = re.findall(r"\]\(([^)#:]*\.md)?(?:#([\w-]+))?\)", page.read_text())
    return [
        ((page.parent / target).resolve() if target else page, heading)
        for target, heading in found
        if target or heading
    ]


def test_links_between_pages_lead_somewhere() -> None:
    for page in (README, *DOCS.rglob("*.md")):
        for target, heading in links(page):
            assert target.exists(), f"{page.name} points at {target}"
            titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
            assert heading in {"", *anchors}, f"{page.name} points at {target.name}#{heading}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    ahead = [README.resolve()]
    while ahead:
        page = ahead.pop()
        if page not in reached:
            reached.add(page)
            ahead += [target for target, _ in links(page)]
    assert {page.resolve() for page in DOCS.rglob("*.md")} <= reached
