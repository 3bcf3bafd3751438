"""How a route is described once and called both ways.

A face declares its routes as methods without a body: the path, what may be given, what comes back.

    @call("GET", "/sessions/{thread_id}")
    def get(self, thread_id: Key) -> Call[Session]: ...

On a face whose wire is asynchronous `get(...)` is an awaitable `Session`, on a synchronous one a
`Session`, and type checkers know which. Arguments that the path names go there; the rest is the
query of a GET or DELETE and else the JSON body, by the same names; only what was given is sent.
"""

import inspect
import json
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, cast, overload
from urllib.parse import quote

from langgraph_sdk.schema import StreamPart

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")

_QUERY = ("GET", "DELETE")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request as a value; `T` is what its answer is."""

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict[str, Any])
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    file: Path | None = None  # to be sent, or to be written


class AsyncWire(Protocol):
    """What carries calls out and returns their answers as awaitables."""

    async def one(self, call: Call[T]) -> T: ...
    def events(self, call: Call[Any], *, endless: bool) -> AsyncIterator[StreamPart]: ...
    async def save(self, call: Call[Any]) -> Path: ...


class SyncWire(Protocol):
    """The same for those who wait."""

    def one(self, call: Call[T]) -> T: ...
    def events(self, call: Call[Any], *, endless: bool) -> Iterator[StreamPart]: ...
    def save(self, call: Call[Any]) -> Path: ...


class AsyncFace:
    def __init__(self, wire: AsyncWire) -> None:
        self.wire = wire


class SyncFace:
    def __init__(self, wire: SyncWire) -> None:
        self.wire = wire


class Route(Generic[P]):
    """What all kinds of routes have: a place in the OpenAPI document, and a way to their call."""

    def __init__(
        self,
        method: str,
        path: str,
        described: Callable[..., Any],
        query: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
        fixed: Mapping[str, Any] | None = None,
        named: Mapping[str, str] | None = None,
    ) -> None:
        self.method, self.path, self.described = method, path, described
        self._query, self._headers = query, headers or {}
        self.fixed, self._named = fixed or {}, named or {}
        self._signature = inspect.signature(described)
        self.__doc__ = described.__doc__

    @property
    def name(self) -> str:
        return self.described.__name__

    def make(self, *args: P.args, **kwargs: P.kwargs) -> Call[Any]:
        given = self._signature.bind(None, *args, **kwargs).arguments
        given.pop("self")
        given |= given.pop("fields", {})
        path, query, headers = self.path, dict[str, Any](), dict[str, str]()
        body: dict[str, Any] = dict(self.fixed)
        file = given.pop("file", None)
        for name, value in given.items():
            plain = name.removesuffix("_")
            slot = f"{{{self._named.get(name, name)}}}"
            if slot in path:
                path = path.replace(slot, quote(str(value), safe=""))
            elif name in self._headers:
                if value is not None:
                    headers[self._headers[name]] = str(value)
            elif self.method in _QUERY or name in self._query:
                if value is not None:
                    query[plain] = _shown(value)
            else:
                body[plain] = value
        sent = None if self.method in _QUERY or (file and not body) else body
        return Call(self.method, path, query, sent, headers, None if file is None else Path(file))

    def _bound(self, face: Any, carry: Callable[[Call[Any]], Any]) -> Any:
        def bound(*args: Any, **kwargs: Any) -> Any:
            return carry(self.make(*args, **kwargs))

        bound.__name__, bound.__doc__ = self.name, self.__doc__
        return bound


class Single(Route[P], Generic[P, T]):
    """A route with one answer."""

    @overload
    def __get__(
        self, face: AsyncFace, kind: type | None = None
    ) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __get__(self, face: SyncFace, kind: type | None = None) -> Callable[P, T]: ...
    @overload
    def __get__(self, face: None, kind: type) -> "Single[P, T]": ...
    def __get__(self, face: Any, kind: Any = None) -> Any:
        return self if face is None else self._bound(face, face.wire.one)


class Streaming(Route[P]):
    """A route that answers with server-sent events; a cut stream is taken up where it was. An
    `endless` one has no end of its own."""

    endless = False

    @overload
    def __get__(
        self, face: AsyncFace, kind: type | None = None
    ) -> Callable[P, AsyncIterator[StreamPart]]: ...
    @overload
    def __get__(
        self, face: SyncFace, kind: type | None = None
    ) -> Callable[P, Iterator[StreamPart]]: ...
    @overload
    def __get__(self, face: None, kind: type) -> "Streaming[P]": ...
    def __get__(self, face: Any, kind: Any = None) -> Any:
        if face is None:
            return self
        return self._bound(face, lambda call: face.wire.events(call, endless=self.endless))


class Download(Route[P]):
    """A route whose answer is a file: it is written to `file`, whole or not at all."""

    @overload
    def __get__(
        self, face: AsyncFace, kind: type | None = None
    ) -> Callable[P, Coroutine[Any, Any, Path]]: ...
    @overload
    def __get__(self, face: SyncFace, kind: type | None = None) -> Callable[P, Path]: ...
    @overload
    def __get__(self, face: None, kind: type) -> "Download[P]": ...
    def __get__(self, face: Any, kind: Any = None) -> Any:
        return self if face is None else self._bound(face, face.wire.save)


class Every(Generic[P, T, U]):
    """All items of a paged route, page after page, fetched as they are asked for."""

    def __init__(
        self,
        pages: Single[P, T],
        items: Callable[[T], Sequence[U]],
        following: Callable[[T], object],
        to: str,
    ) -> None:
        self._pages, self._items, self._following, self._to = pages, items, following, to

    @overload
    def __get__(
        self, face: AsyncFace, kind: type | None = None
    ) -> Callable[P, AsyncIterator[U]]: ...
    @overload
    def __get__(self, face: SyncFace, kind: type | None = None) -> Callable[P, Iterator[U]]: ...
    def __get__(self, face: Any, kind: Any = None) -> Any:
        one = self._pages.__get__(face, kind)
        walk = self._later if isinstance(face, AsyncFace) else self._now
        return lambda *args, **kwargs: walk(one, args, kwargs)

    async def _later(
        self, one: Callable[..., Awaitable[T]], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> AsyncIterator[U]:
        asked = dict(kwargs)
        while True:
            page = await one(*args, **asked)
            for item in self._items(page):
                yield item
            if (place := self._following(page)) is None:
                return
            asked[self._to] = place

    def _now(
        self, one: Callable[..., T], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Iterator[U]:
        asked = dict(kwargs)
        while True:
            page = one(*args, **asked)
            yield from self._items(page)
            if (place := self._following(page)) is None:
                return
            asked[self._to] = place


def call(
    method: str,
    path: str,
    *,
    query: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
    fixed: Mapping[str, Any] | None = None,
    named: Mapping[str, str] | None = None,
) -> Callable[[Callable[Concatenate[Any, P], Call[T]]], Single[P, T]]:
    """`query` are arguments that go there though there is a body, `headers` those that are headers,
    `fixed` is what the body always says, `named` are arguments that the path calls otherwise."""

    def made(described: Callable[Concatenate[Any, P], Call[T]]) -> Single[P, T]:
        return Single(method, path, described, query, headers, fixed, named)

    return made


def stream(
    method: str,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    fixed: Mapping[str, Any] | None = None,
    endless: bool = False,
) -> Callable[[Callable[Concatenate[Any, P], Call[StreamPart]]], Streaming[P]]:
    def made(described: Callable[Concatenate[Any, P], Call[StreamPart]]) -> Streaming[P]:
        route = Streaming[P](method, path, described, (), headers, fixed)
        route.endless = endless
        return route

    return made


def download(
    method: str, path: str
) -> Callable[[Callable[Concatenate[Any, P], Call[Path]]], Download[P]]:
    def made(described: Callable[Concatenate[Any, P], Call[Path]]) -> Download[P]:
        return Download(method, path, described)

    return made


def routes(face: type) -> list[Route[Any]]:
    """Every route that a face declares, in order."""
    found: list[Route[Any]] = []
    for kind in reversed(face.__mro__):
        values = cast("Mapping[str, Any]", vars(kind)).values()
        found += [value for value in values if isinstance(value, Route)]
    return found


def _shown(value: object) -> Any:
    """A value as a query has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_shown(item) for item in cast("Sequence[object]", value)]
    return str(value)
