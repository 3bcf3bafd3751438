"""The `Auth` object of `langgraph.json`: who calls, by its `authenticate` handler, and what they
may, by its `on` handlers, of which the most specific decides.
"""

import inspect
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, cast

from langgraph_sdk import Auth
from starlette.authentication import AuthenticationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request

from clew.runtime import config, errors, filters
from clew.runtime.sessions import Filter


class User(Mapping[str, Any]):
    """A caller as handlers see one: a mapping that also has the usual attributes."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self._facts = dict(facts)

    def __getitem__(self, key: str) -> Any:
        return self._facts[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_facts"][name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def identity(self) -> str:
        return self._facts["identity"]

    @property
    def display_name(self) -> str:
        return self._facts["display_name"]

    @property
    def is_authenticated(self) -> bool:
        return self._facts["is_authenticated"]

    @property
    def permissions(self) -> list[str]:
        return self._facts["permissions"]


class Handlers:
    """A loaded `Auth` object."""

    def __init__(self, auth: Auth, cache: config.AuthCache | None = None) -> None:
        registered: Any = auth  # handlers are registered in public and read in private
        self._by_action: dict[tuple[str, str], list[Any]] = registered._handlers  # noqa: SLF001 - see above
        self._for_all: list[Any] = registered._global_handlers  # noqa: SLF001 - see above
        self._cache = cache
        self._kept: OrderedDict[tuple[str | None, ...], tuple[float, dict[str, Any]]] = (
            OrderedDict()
        )
        self._authenticate: Any = registered._authenticate_handler  # noqa: SLF001 - see above
        if self._authenticate is None:
            raise errors.ConfigError(
                "the Auth object of langgraph.json has no authenticate handler"
            )
        self._wanted = frozenset(inspect.signature(self._authenticate).parameters)

    async def authenticate(self, connection: HTTPConnection) -> dict[str, Any]:
        """The user dict of a caller; raises what the handler raises, as an HTTP error."""
        key = self._key(connection)
        if key is not None and (kept := self._kept.get(key)) and kept[0] > time.monotonic():
            return dict(kept[1])
        try:
            arguments = await self._arguments(connection)
            if inspect.iscoroutinefunction(self._authenticate):
                found = await self._authenticate(**arguments)
            else:
                found = await run_in_threadpool(self._authenticate, **arguments)
        except Auth.exceptions.HTTPException as error:
            raise HTTPException(
                error.status_code, error.detail, dict(error.headers or {})
            ) from None
        except (AuthenticationError, AssertionError) as error:
            raise HTTPException(403, str(error) or "Forbidden") from None
        user = facts_of(found)
        if key is not None and self._cache is not None:
            self._kept[key] = (time.monotonic() + self._cache.ttl_seconds, dict(user))
            while len(self._kept) > self._cache.max_size:
                self._kept.popitem(last=False)
        return user

    async def authorize(
        self, user: Mapping[str, Any], resource: str, action: str, value: Any
    ) -> Filter | None:
        """What the rows of this action must meet, None for all; Forbidden where it is refused.
        The handler may change `value`, which is why callers read it again afterwards."""
        handler: Any = self._handler(resource, action)
        if handler is None:
            return None
        context = Auth.types.AuthContext(
            permissions=user["permissions"],
            user=cast("Any", User(user)),
            resource=cast("Any", resource),
            action=cast("Any", action),
        )
        try:
            answer = await handler(ctx=context, value=value)
        except Auth.exceptions.HTTPException as error:
            raise HTTPException(
                error.status_code, error.detail, dict(error.headers or {})
            ) from None
        except AssertionError as error:
            raise errors.Forbidden(str(error) or "Forbidden") from None
        if answer is None or answer is True:
            return None
        if isinstance(answer, dict):
            return filters.prepare(cast("dict[str, Any]", answer))
        raise errors.Forbidden("Forbidden")

    def _handler(self, resource: str, action: str) -> Any:
        for key in ((resource, action), (resource, "*"), ("*", action), ("*", "*")):
            if found := self._by_action.get(key):
                return found[-1]
        return self._for_all[-1] if self._for_all else None

    def _key(self, connection: HTTPConnection) -> tuple[str | None, ...] | None:
        if self._cache is None:
            return None
        key = tuple(connection.headers.get(name) for name in self._cache.cache_keys)
        # Callers that send none of the headers have nothing in common.
        return key if any(part is not None for part in key) else None

    async def _arguments(self, connection: HTTPConnection) -> dict[str, Any]:
        offered: dict[str, Any] = {
            "path": connection.url.path,
            "method": connection.scope.get("method"),
            "path_params": dict(connection.path_params),
            "query_params": dict(connection.query_params),
            "headers": dict(connection.headers.raw),
            "authorization": connection.headers.get("authorization"),
            "scope": dict(connection.scope),
            "scopes": [],
            "user": None,
            "request": None,
            "body": None,
        }
        if isinstance(connection, Request):
            offered["request"] = connection
            if "body" in self._wanted and await connection.body():
                try:
                    offered["body"] = await connection.json()
                except ValueError:
                    raise errors.Invalid("Invalid JSON in request body") from None
        return {name: value for name, value in offered.items() if name in self._wanted}


def facts_of(found: Any) -> dict[str, Any]:
    """The user dict, from whatever an authenticate handler may return."""
    if isinstance(found, str):
        facts: dict[str, Any] = {"identity": found}
    elif isinstance(found, Mapping):
        facts = dict(cast("Mapping[str, Any]", found))
    else:
        names = ("identity", "display_name", "is_authenticated", "permissions")
        facts = {name: getattr(found, name) for name in names if hasattr(found, name)}
        for more in ("model_dump", "dict"):
            if callable(getattr(found, more, None)):
                facts = {**getattr(found, more)(), **facts}
                break
    identity = facts.get("identity")
    if not isinstance(identity, str) or not identity:
        raise errors.ClewError("the authenticate handler returned no identity")
    if facts.get("is_authenticated") is False:
        raise errors.Unauthorized("not authenticated")
    return {
        **facts,
        "is_authenticated": True,
        "display_name": facts.get("display_name") or identity,
        "permissions": list(facts.get("permissions") or ()),
    }
