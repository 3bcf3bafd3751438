"""The official Python clients, both of them, behind one script; and which test shows what.

A test that uses the fixture `official` runs twice: with the async client, and with the sync client
in threads. `@shows(method, endpoint)` says what it is a proof of, and the fixture holds it to that:
a test that never called the method, or whose call never reached the endpoint, fails.
"""

import asyncio
import importlib
import inspect
import pkgutil
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeVar

import httpx
from langgraph_sdk import get_client, get_sync_client
from langgraph_sdk.client import LangGraphClient, SyncLangGraphClient

Kind = Literal["async", "sync"]
KINDS: tuple[Kind, ...] = ("async", "sync")
PARTS = ("assistants", "threads", "runs", "crons", "store")
_STREAMS = {"runs.stream", "runs.join_stream", "threads.join_stream"}

Test = TypeVar("Test", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Claim:
    method: str  # as in `threads.create`
    endpoint: str  # as in `POST /threads`, as docs/api.md writes it


def shows(method: str, *endpoints: str) -> Callable[[Test], Test]:
    """This test is a proof that the method works, by way of these endpoints."""

    def mark(test: Test) -> Test:
        held: list[Claim] = getattr(test, "claims", [])
        held += [Claim(method, endpoint) for endpoint in endpoints]
        test.__dict__["claims"] = held
        return test

    return mark


class Official:
    """An official client whose every method is awaited, and every stream iterated, alike."""

    def __init__(self, kind: Kind, url: str) -> None:
        self.kind: Kind = kind
        self.url = url
        self.client: Any = get_client(url=url) if kind == "async" else get_sync_client(url=url)
        self.reached: defaultdict[str, set[str]] = defaultdict(set)
        http: httpx.Client | httpx.AsyncClient = self.client.http.client
        http.event_hooks = {"request": [self._heard_async if kind == "async" else self._heard]}
        self.assistants: Any = Part(self, "assistants")
        self.threads: Any = Part(self, "threads")
        self.runs: Any = Part(self, "runs")
        self.crons: Any = Part(self, "crons")
        self.store: Any = Part(self, "store")

    def _heard(self, request: httpx.Request) -> None:
        path = request.url.path
        self.reached[_UNDER_WAY.get()].add(f"{request.method} {template(request.method, path)}")

    async def _heard_async(self, request: httpx.Request) -> None:
        self._heard(request)

    async def aclose(self) -> None:
        if self.kind == "async":
            await self.client.aclose()
        else:
            self.client.close()


class Part:
    """One of the five parts of a client."""

    def __init__(self, official: Official, name: str) -> None:
        self._official, self._name = official, name

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = f"{self._name}.{name}"
        bound: Callable[..., Any] = getattr(getattr(self._official.client, self._name), name)
        work = _streamed if method in _STREAMS else _awaited

        def call(*given: Any, **named: Any) -> Any:
            return work(self._official.kind, method, lambda: bound(*given, **named))

        return call


# Only a thread's stream makes requests of its own accord, in tasks and threads of its own.
_UNDER_WAY: ContextVar[str] = ContextVar("method", default="threads.stream")


async def _awaited(kind: Kind, method: str, call: Callable[[], Any]) -> Any:
    _UNDER_WAY.set(method)
    return await (call() if kind == "async" else asyncio.to_thread(call))


async def _streamed(kind: Kind, method: str, call: Callable[[], Any]) -> AsyncIterator[Any]:
    _UNDER_WAY.set(method)
    if kind == "async":
        stream = call()
        if inspect.isawaitable(stream):
            stream = await stream
        async for part in stream:
            yield part
        return
    parts: Iterator[Any] = await asyncio.to_thread(call)
    try:
        while (part := await asyncio.to_thread(next, parts, None)) is not None:
            yield part
    finally:
        await asyncio.to_thread(parts.close)  # type: ignore[attr-defined]


def public(of: object) -> set[str]:
    return {name for name in dir(of) if not name.startswith("_")}


def methods(kind: Kind) -> set[str]:
    """Every public method of a client, as `part.method`."""
    client: LangGraphClient | SyncLangGraphClient = (
        get_client(url="http://nowhere")
        if kind == "async"
        else get_sync_client(url="http://nowhere")
    )
    return {f"{part}.{name}" for part in PARTS for name in public(type(getattr(client, part)))}


def claims() -> Iterator[tuple[str, str, Claim]]:
    """All that tests claim: the file, the test, the claim."""
    import tests.sdk

    for module in sorted(found.name for found in pkgutil.iter_modules(tests.sdk.__path__)):
        if module.startswith("test_"):
            loaded = importlib.import_module(f"tests.sdk.{module}")
            for name, test in vars(loaded).items():
                for claim in getattr(test, "claims", ()) if name.startswith("test_") else ():
                    yield module, name, claim


def template(method: str, path: str) -> str:
    """The route that answers a path, as docs/api.md writes it."""
    for pattern, route, allowed in _routes():
        if method in allowed and pattern.fullmatch(path):
            return route
    return path


@cache
def _routes() -> list[tuple[re.Pattern[str], str, set[str]]]:
    from tests import routes

    paths: dict[str, dict[str, Any]] = routes.application().openapi()["paths"]
    # Where a word and a name both fit, the word is meant.
    ordered = sorted(paths, key=lambda route: route.count("{"))
    return [
        (
            re.compile(re.sub(r"\{[^}]+\}", "[^/]+", route)),
            route,
            {method.upper() for method in paths[route]},
        )
        for route in ordered
    ]
