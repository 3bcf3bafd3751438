"""Figures as Markdown tables, each section between markers, so that one can be made anew alone."""

import os
import platform
import re
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

FILE = Path(__file__).parents[2] / "docs" / "benchmarks.md"

_HEAD = """# Benchmarks

Figures as measured, misses included. Ratios are taken side by side in one run on one machine;
absolute numbers are of that machine, which was small (two shared cores, Postgres on the same
cores). Row security and fencing are on throughout. `make bench` makes all of this again;
`python -m tests.bench NAME` one section.
"""


@dataclass
class Table:
    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])

    def row(self, *cells: object) -> None:
        self.rows.append(tuple(str(cell) for cell in cells))
        print(" | ".join(self.rows[-1]), flush=True)

    def text(self) -> str:
        lines = [f"### {self.title}", "", f"| {' | '.join(self.columns)} |"]
        lines.append("|" + "---|" * len(self.columns))
        lines += [f"| {' | '.join(row)} |" for row in self.rows]
        return "\n".join(lines)


@dataclass
class Section:
    name: str
    title: str
    parts: list[str] = field(default_factory=list[str])

    def add(self, part: Table | str) -> None:
        self.parts.append(part.text() if isinstance(part, Table) else part)

    def text(self) -> str:
        made = f"`python -m tests.bench {self.name}`, {machine()}"
        return "\n\n".join([f"## {self.title}", made, *self.parts])


def machine() -> str:
    parts = (f"{name} {version(name)}" for name in ("langgraph", "langgraph-checkpoint-postgres"))
    cores = f"{os.cpu_count()} cores {platform.machine()}"
    return f"Python {platform.python_version()}, {', '.join(parts)}, {cores}"


def write(section: Section) -> None:
    """Put the section into docs/benchmarks.md in place of its last measurement."""
    begin, end = f"<!-- {section.name} -->", f"<!-- /{section.name} -->"
    text = FILE.read_text() if FILE.exists() else _HEAD
    block = f"{begin}\n{section.text()}\n{end}"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if pattern.search(text):
        text = pattern.sub(lambda _: block, text)
    else:
        text = text.rstrip() + "\n\n" + block + "\n"
    FILE.write_text(text)
