"""How single values of `langgraph.json` are written, and the check that what they name is there.
The validation context's `path` is the file; names are relative to its folder."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import metadata
from io import StringIO
from pathlib import Path
from typing import Annotated

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from packaging.requirements import InvalidRequirement, Requirement
from pydantic import AfterValidator, BeforeValidator, ValidationInfo


@dataclass(frozen=True, slots=True)
class Env:
    values: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    file: Path | None = None


def root(info: ValidationInfo) -> Path:
    return info.context["path"].parent if info.context else Path()


def reference(value: str, info: ValidationInfo) -> str:
    """`./file.py:name` or `package.module:name`."""
    place, _, name = value.rpartition(":")
    if re.search(r"\.[cm]?[jt]sx?$", place):
        raise ValueError("is JavaScript, which Clew does not run")
    if not place or not name.isidentifier():
        raise ValueError("must be written ./file.py:name or package.module:name")
    if place.endswith(".py") or "/" in place:
        if not (root(info) / place).is_file():
            raise ValueError(f"names a file that does not exist: {root(info) / place}")
    elif not all(part.isidentifier() for part in place.split(".")):
        raise ValueError("must be written ./file.py:name or package.module:name")
    return value


def embedding(value: str, info: ValidationInfo) -> str:
    return reference(value, info) if value.startswith(".") else value


def dependency(value: str, info: ValidationInfo) -> str:
    """Folders must exist; packages must be installed already, since Clew installs nothing."""
    if value.startswith((".", "/")):
        if not (root(info) / value).is_dir():
            raise ValueError(f"{value} is not a folder")
        return value
    if "://" in value.partition("@")[0]:
        return value  # a bare URL does not say which package it is
    try:
        wanted = Requirement(value)
    except InvalidRequirement:
        raise ValueError(f"{value} is neither a folder (./name) nor a package for pip") from None
    if wanted.marker is not None and not wanted.marker.evaluate():
        return value
    advice = f'Run: pip install "{value}"'
    try:
        installed = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        raise ValueError(f"{value} is not installed here. {advice}") from None
    if not wanted.specifier.contains(installed, prereleases=True):
        raise ValueError(f"{value} is wanted and {installed} is installed. {advice}")
    return value


def environment(value: object, info: ValidationInfo) -> Env:
    if isinstance(value, dict):
        entries: dict[object, object] = value
        wrong = [str(name) for name, text in entries.items() if not isinstance(text, str)]
        if wrong:
            raise ValueError(f"must hold only text; put quotes around {', '.join(wrong)}")
        return Env({str(name): str(text) for name, text in entries.items()})
    if not isinstance(value, str):
        # pydantic collects only ValueErrors.
        raise ValueError("must be the path of a .env file or an object of names and texts")  # noqa: TRY004
    path = root(info) / value
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"names a file that cannot be read: {path}: {unreadable(error)}") from None
    broken = [str(line.original.line) for line in parse_stream(StringIO(text)) if line.error]
    if broken:
        raise ValueError(f"names a file with faults: {path} line {', '.join(broken)}")
    found = dotenv_values(stream=StringIO(text), interpolate=True)
    return Env({name: text for name, text in found.items() if text is not None}, path)


def minutes(value: object) -> object:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return value
    try:
        found = timedelta(minutes=value)
    except (OverflowError, ValueError):
        found = timedelta()
    if found <= timedelta():
        raise ValueError("must be a number of minutes above 0")
    return found


def named_modules(value: object) -> object:
    if value is True:
        raise ValueError("cannot be true: stored bytes could then make any class; name the classes")
    if not isinstance(value, list):
        return value
    entries: list[object] = value
    return tuple(tuple(entry) if isinstance(entry, list) else entry for entry in entries)


def refused(why: str) -> BeforeValidator:
    def refuse(value: object) -> object:
        if value:
            raise ValueError(why)
        return value

    return BeforeValidator(refuse)


def spec(value: object) -> object:
    return {"path": value} if isinstance(value, str) else value


def prefix(value: str) -> str:
    if not re.fullmatch(r"(/[^/?#\s]+)+/?", value):
        raise ValueError("must be a path that starts with /")
    return value.rstrip("/")


def unreadable(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else "it is not UTF-8"


Reference = Annotated[str, AfterValidator(reference)]
Minutes = Annotated[timedelta, BeforeValidator(minutes)]
Texts = tuple[str, ...]
Modules = tuple[tuple[str, ...], ...]
Dependency = Annotated[str, AfterValidator(dependency)]
Environment = Annotated[Env, BeforeValidator(environment)]
Embedding = Annotated[str, AfterValidator(embedding)]
Prefix = Annotated[str, AfterValidator(prefix)]
AllowedModules = Annotated[Modules | None, BeforeValidator(named_modules)]
