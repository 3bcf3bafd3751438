"""Every error Clew raises on purpose, as one tree. Each class has a stable `code` that callers may
match on and a message of one sentence that is safe to show to whoever asked. What a class means in
HTTP is decided in `api/problems.py` alone, by walking up this tree.

    ClewError                    internal
    ├── Invalid                  invalid               the request is wrong as it stands
    │   ├── BadRequest           bad_request           its parts do not go together
    │   └── Unsupported          unsupported           a known option that Clew does not support
    ├── Unauthorized             unauthorized          who is asking is not known
    ├── Forbidden                forbidden             known, and not allowed
    ├── NotFound                 not_found             absent, or not visible to who asks
    ├── Conflict                 conflict              the state of things refuses it now
    │   └── Stale                stale                 it changed since the caller read it
    ├── Gone                     gone                  was there; deleted or expired
    ├── TooLarge                 too_large             over a limit of size
    ├── Limited                  limited               over a limit of rate or number
    ├── Unavailable              unavailable           not now; try again
    ├── DatabaseError            database              Postgres refused, and it is our fault
    └── StartError               start                 what keeps a process from serving
        ├── ConfigError          config                settings or langgraph.json: every fault
        ├── LoadError            load                  a user's file or module cannot be imported
        │   └── GraphError       graph                 a graph that cannot be loaded or built
        ├── EmbeddedError        embedded              the embedded Postgres cannot run
        ├── SchemaMismatch       schema_mismatch       the schema is not of this release
        └── RoleError            role                  the isolation proof failed
"""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from difflib import get_close_matches
from typing import ClassVar


class ClewError(Exception):
    """`facts` are further members for the caller, such as the two states of a refused move."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, **facts: object) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts


class Invalid(ClewError):
    code = "invalid"


class BadRequest(Invalid):
    code = "bad_request"


class Unsupported(Invalid):
    """`option` is the full name of what was asked for, as the caller wrote it."""

    code = "unsupported"

    def __init__(self, message: str, *, option: str, **facts: object) -> None:
        super().__init__(message, option=option, **facts)
        self.option = option


class Unauthorized(ClewError):
    code = "unauthorized"


class Forbidden(ClewError):
    code = "forbidden"


class NotFound(ClewError):
    code = "not_found"


class Conflict(ClewError):
    code = "conflict"


class Stale(Conflict):
    code = "stale"


class Gone(ClewError):
    code = "gone"


class TooLarge(ClewError):
    code = "too_large"


class Limited(ClewError):
    """`retry_after` is None where waiting does not help, such as a full quota of sessions."""

    code = "limited"

    def __init__(
        self, message: str, *, retry_after: timedelta | None = None, **facts: object
    ) -> None:
        super().__init__(message, **facts)
        self.retry_after = retry_after


class Unavailable(ClewError):
    code = "unavailable"

    def __init__(
        self, message: str, *, retry_after: timedelta | None = None, **facts: object
    ) -> None:
        super().__init__(message, **facts)
        self.retry_after = retry_after


class DatabaseError(ClewError):
    code = "database"


class StartError(ClewError):
    code = "start"


class ConfigError(StartError):
    """`faults` has one sentence for each thing that is wrong, so that one pass mends them all."""

    code = "config"

    def __init__(self, message: str, faults: Sequence[str] = ()) -> None:
        super().__init__("\n  - ".join((message, *faults)))
        self.faults = tuple(faults)


class LoadError(StartError):
    code = "load"


class GraphError(LoadError):
    code = "graph"


class EmbeddedError(StartError):
    code = "embedded"


class SchemaMismatch(StartError):
    code = "schema_mismatch"


class RoleError(StartError):
    code = "role"


def suggest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence that refused `name`: what was probably meant, or nothing."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.7)
    return f" Did you mean {close[0]}?" if close else ""
