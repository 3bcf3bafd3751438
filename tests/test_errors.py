"""The error tree: what its docstring draws is what the classes are."""

import inspect
import re
from datetime import timedelta

from clew.runtime import errors


def tree() -> dict[str, type[errors.ClewError]]:
    return {
        name: kind
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.ClewError)
    }


def drawn() -> dict[str, tuple[str, str | None]]:
    """Name -> (code, parent), read back from the drawing by its indentation."""
    found: dict[str, tuple[str, str | None]] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"(?P<lead>[ │├└─]*)(?P<name>[A-Z]\w+)\s{2,}(?P<code>[a-z_]+)", line)
        if match is None:
            continue
        depth = len(match["lead"])
        while path and path[-1][0] >= depth:
            path.pop()
        found[match["name"]] = (match["code"], path[-1][1] if path else None)
        path.append((depth, match["name"]))
    return found


def test_the_docstring_draws_every_class_with_its_code_and_parent() -> None:
    actual = {
        name: (kind.code, None if kind is errors.ClewError else kind.__mro__[1].__name__)
        for name, kind in tree().items()
    }
    assert drawn() == actual


def test_codes_are_unique_snake_case_words() -> None:
    codes = [kind.code for kind in tree().values()]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes)


def test_an_error_is_its_sentence_and_carries_facts() -> None:
    error = errors.Conflict("An archived session takes no turns.", state="archived", move="run")
    assert str(error) == "An archived session takes no turns."
    assert error.facts == {"state": "archived", "move": "run"}


def test_an_unsupported_option_is_named() -> None:
    error = errors.Unsupported("feedback_keys is not supported.", option="feedback_keys")
    assert isinstance(error, errors.Invalid)
    assert error.option == error.facts["option"] == "feedback_keys"


def test_a_limit_says_when_to_come_back() -> None:
    assert errors.Limited("Slow down.", retry_after=timedelta(seconds=3)).retry_after == timedelta(
        seconds=3
    )
    assert errors.Limited("Too many sessions.").retry_after is None


def test_a_config_error_lists_all_its_faults() -> None:
    error = errors.ConfigError("Two faults:", ["port: too high", "host: empty"])
    assert error.faults == ("port: too high", "host: empty")
    assert str(error).splitlines() == ["Two faults:", "  - port: too high", "  - host: empty"]
