"""Named SQL: every statement lives in a `.sql` file and is called by its name.

A file holds blocks that start with `-- name: claim_run`. The text is typed `LiteralString`, so
the type checker refuses a query that was put together from strings at run time.
"""

import re
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import LiteralString, cast

_NAME = re.compile(r"^-- name: (\w+)[ \t]*$", re.MULTILINE)


class Queries(Mapping[str, LiteralString]):
    """The statements of one package's `queries/` folder, by name."""

    def __init__(self, package: str) -> None:
        self._texts: dict[str, LiteralString] = {}
        for file in resources.files(package).iterdir():
            if file.name.endswith(".sql"):
                self._read(file.name, file.read_text(encoding="utf-8"))

    def _read(self, file: str, text: str) -> None:
        parts = _NAME.split(text)
        for name, body in zip(parts[1::2], parts[2::2], strict=True):
            if name in self._texts:
                raise ValueError(f"{file}: a query named {name} exists already")
            # The files are part of the package, as literal as the source that names them.
            self._texts[name] = cast("LiteralString", body.strip())

    def __getitem__(self, name: str) -> LiteralString:
        return self._texts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)
