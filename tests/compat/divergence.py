"""One place where Clew means to differ from the official server, and why.

`step` and `path` are shell patterns, several divided by bars: `<scenario>/<label>` and
`body.metadata.x`; `official` and `clew` are regular expressions that the two sides have to match
as JSON.
"""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

from tests.compat.differences import Difference, shown

GONE = r"^.\(absent\)"


@dataclass(frozen=True, slots=True)
class Divergence:
    path: str
    reason: str
    step: str = "*"
    official: str = ""
    clew: str = ""

    def covers(self, found: Difference) -> bool:
        return (
            any(fnmatchcase(found.step, step) for step in self.step.split(" | "))
            and any(fnmatchcase(_flat(found.path), _flat(path)) for path in self.path.split(" | "))
            and re.search(self.official, shown(found.official)) is not None
            and re.search(self.clew, shown(found.clew)) is not None
        )


def _flat(path: str) -> str:
    return re.sub(r"[\[\]]", "'", path)  # lists are no character classes here
