"""What a terminal shows: tables whose columns line up in any language, colours where somebody
looks, a bar for what takes long, and a question before anything is removed.

Colours, bars and clipped lines are for terminals: what is piped is plain and whole. NO_COLOR turns
colours off. Control characters in what users wrote are shown, not obeyed.
"""

import os
import shutil
import sys
import time
import unicodedata
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TextIO

from clew.runtime import errors, wire

_CODES = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "blue": 34, "cyan": 36}
# Overrides of the writing direction, by which a text shows one thing and is another.
_TURNS = "\u202a\u202b\u202d\u202e\u2066\u2067\u2068"
_EVERY = 0.1  # seconds between two pictures of a bar
_BAR = 24
_LEAST = 8  # columns of a text that was cut


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def tell(value: object) -> None:
    """As JSON, for programs."""
    sys.stdout.write(wire.encode(value).decode() + "\n")
    sys.stdout.flush()


def paint(text: str, colour: str | None, out: TextIO | None = None) -> str:
    """In colour, where somebody looks and wants it."""
    wanted = (out or sys.stdout).isatty() and not os.environ.get("NO_COLOR")
    if colour is None or not wanted or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m"


def width(text: str) -> int:
    """How many columns it takes: wide characters take two, combining ones none."""
    return sum(map(_width, text))


def clean(text: str) -> str:
    """On one line, and with nothing in it that a terminal would obey."""
    return "".join(
        " " if char in "\n\r\t" else "\N{REPLACEMENT CHARACTER}" if _obeyed(char) else char
        for char in text
    )


def clip(text: str, most: int) -> str:
    if width(text) <= most:
        return text
    kept, taken = "", 0
    for char in text:
        taken += _width(char)
        if taken > most - 1:
            break
        kept += char
    return kept + "…"


def pad(text: str, columns: int, *, right: bool = False) -> str:
    space = " " * (columns - width(text))
    return space + text if right else text + space


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    colours: Mapping[str, str] | None = None,
    spare: Sequence[str] = (),
) -> None:
    """Columns that line up; numbers to the right. On a terminal the last column is cut to fit, and
    where that leaves it no room the `spare` columns go, one by one. `colours` are of cells that say
    just that."""
    held = list(zip(*rows, strict=True)) if rows else [()] * len(head)
    columns = [
        (name, [_cell(value) for value in cells], all(map(_is_number, cells)))
        for name, cells in zip(head, held, strict=True)
    ]
    sizes = {name: max(map(width, (name, *cells))) for name, cells, _ in columns}
    if sys.stdout.isatty():
        room = shutil.get_terminal_size().columns
        for name in spare:
            if sum(sizes.values()) + 2 * len(sizes) <= room - _LEAST + sizes[head[-1]]:
                break
            del sizes[name]
        left = room - sum(sizes[name] + 2 for name in sizes if name != head[-1])
        sizes[head[-1]] = max(_LEAST, min(sizes[head[-1]], left))
    columns = [column for column in columns if column[0] in sizes]

    def line(cells: Sequence[str], colour: str | None = None) -> str:
        shown = [
            paint(pad(clip(cell, sizes[name]), sizes[name], right=number and bool(rows)), told)
            for (name, _, number), cell in zip(columns, cells, strict=True)
            for told in [colour or (colours or {}).get(cell)]
        ]
        return "  ".join(shown).rstrip()

    say(line([name for name, _, _ in columns], "bold"))
    for cells in zip(*(cells for _, cells, _ in columns), strict=True):
        say(line(cells))


def facts(pairs: Mapping[str, object]) -> None:
    """One fact on each line."""
    size = max(map(width, pairs), default=0)
    for name, value in pairs.items():
        say(f"{paint(pad(name, size), 'dim')}  {_cell(value)}".rstrip())


def size(number: int) -> str:
    """Bytes as people say them."""
    value = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def many(number: int, what: str) -> str:
    """So many of what, as people say it."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


class Progress:
    """How far one is, on stderr, if that is a terminal; else nothing."""

    def __init__(self, what: str, total: int | None) -> None:
        self._what, self._total, self._done = what, total, 0
        self._shows = sys.stderr.isatty()
        self._drawn = 0.0

    def to(self, done: int) -> None:
        self._done = done
        now = time.monotonic()
        if self._shows and now - self._drawn >= _EVERY:
            self._drawn = now
            self._draw()

    def on(self, more: int = 1) -> None:
        self.to(self._done + more)

    def _draw(self) -> None:
        if self._total:
            part = min(1.0, self._done / self._total)
            full = round(part * _BAR)
            bar = paint("█" * full, "green", sys.stderr) + "░" * (_BAR - full)
            text = f"{self._what} {bar} {part:4.0%} {self._done}/{self._total}"
        else:
            text = f"{self._what} {self._done}"
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()

    def end(self) -> None:
        if self._shows and self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


@contextmanager
def progress(what: str, total: int | None = None) -> Generator[Progress]:
    bar = Progress(what, total)
    try:
        yield bar
    finally:
        bar.end()


def confirm(question: str, *, yes: bool) -> bool:
    """Whether to go on. Where nobody can be asked, `--yes` must have said it."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise errors.ConfigError("This removes something: say --yes, or --dry-run to see what.")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M")
    return clean(str(value))


def _is_number(value: object) -> bool:
    return value is None or isinstance(value, int | float)


def _width(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _obeyed(char: str) -> bool:
    # Bidirectional overrides and the like may show one thing and be another.
    return (
        unicodedata.category(char) in ("Cc", "Cs") or char in "\u202a\u202b\u202d\u202e\u2066\u2067"
    )
