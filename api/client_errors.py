"""What the server refuses, as exceptions: one class for each `code` that a client can act on.

    Problem                        langgraph_sdk's APIStatusError, with `code`, `detail`, `facts`
    ├── Invalid (422)              BadRequest (400), Unsupported, InvalidId, BundleError
    ├── Unauthorized (401), Forbidden (403)
    ├── NotFound (404)             UnknownThread, UnknownCheckpoint, UnknownLabel
    ├── Conflict (409)             Stale (412), ThreadExists, FenceLost, NothingToUndo, DeltaInUse,
    │                              CheckpointInUse, LabelTaken
    ├── Gone (410), TooLarge (413), Limited (429)
    └── ServerFault (5xx)          Unavailable (503), DatabaseUnreachable

A code that this release does not know is an error of its status: a new 404 is a `NotFound`.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, ClassVar, cast

import httpx
from langgraph_sdk.errors import APIStatusError

_BY_CODE: dict[str, type["Problem"]] = {}
_PLAIN = {"type", "title", "status", "code", "detail"}


class Problem(APIStatusError):
    """An answer that is an error. `facts` are its members beyond the usual ones, such as the two
    states of a refused move."""

    known: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        if "known" in vars(cls):
            _BY_CODE[cls.known] = cls

    def __init__(self, response: httpx.Response, body: object) -> None:
        told = cast("Mapping[str, Any]", body) if isinstance(body, dict) else {}
        self.detail = str(told.get("detail") or f"{response.status_code} {response.reason_phrase}")
        super().__init__(self.detail, response=response, body=body)
        self.facts = {name: value for name, value in told.items() if name not in _PLAIN}

    @property
    def retry_after(self) -> timedelta | None:
        """How long to wait, where that helps."""
        told = self.response.headers.get("retry-after", "")
        return timedelta(seconds=int(told)) if told.isdecimal() else None


class Invalid(Problem):
    known = "invalid"


class BadRequest(Invalid):
    known = "bad_request"


class Unsupported(Invalid):
    known = "unsupported"


class InvalidId(Invalid):
    known = "invalid_id"


class BundleError(Invalid):
    known = "bundle_error"


class BundleTruncated(BundleError):
    known = "bundle_truncated"


class BundleEdited(BundleError):
    known = "bundle_edited"


class BundleUnsupported(BundleError):
    known = "bundle_unsupported"


class Unauthorized(Problem):
    known = "unauthorized"


class Forbidden(Problem):
    known = "forbidden"


class NotFound(Problem):
    known = "not_found"


class UnknownThread(NotFound):
    known = "unknown_thread"


class UnknownCheckpoint(NotFound):
    known = "unknown_checkpoint"


class UnknownLabel(NotFound):
    known = "unknown_label"


class Conflict(Problem):
    known = "conflict"


class Stale(Conflict):
    known = "stale"


class ThreadExists(Conflict):
    known = "thread_exists"


class FenceLost(Conflict):
    known = "fence_lost"


class NothingToUndo(Conflict):
    known = "nothing_to_undo"


class DeltaInUse(Conflict):
    known = "delta_in_use"


class CheckpointInUse(Conflict):
    known = "checkpoint_in_use"


class LabelTaken(Conflict):
    known = "label_taken"


class Gone(Problem):
    known = "gone"


class TooLarge(Problem):
    known = "too_large"


class Limited(Problem):
    known = "limited"


class ServerFault(Problem):
    known = "internal"


class Unavailable(ServerFault):
    known = "unavailable"


class DatabaseUnreachable(Unavailable):
    known = "database_unreachable"


_BY_STATUS: Mapping[int, type[Problem]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    412: Stale,
    413: TooLarge,
    422: Invalid,
    429: Limited,
    503: Unavailable,
}


def of(status: int, code: object) -> type[Problem]:
    """The class of an error: by its code, or else by its status."""
    if isinstance(code, str) and code in _BY_CODE:
        return _BY_CODE[code]
    return _BY_STATUS.get(status, ServerFault if status >= 500 else Problem)


def read(response: httpx.Response) -> Problem:
    """The error that a response is whose body was read."""
    try:
        body: Any = response.json()
    except ValueError:
        body = response.text
    code = cast("Mapping[str, Any]", body).get("code") if isinstance(body, dict) else None
    return of(response.status_code, code)(response, body)
