"""What a process tells of itself: numbers under fixed names, a span for each run, and the ids that
every log line carries.

Each `Telemetry` has a registry of its own, so two servers in one process never share a number. No
label takes a value that a caller can choose. docs/metrics.md lists every metric.
"""

import time
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

import psycopg
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.registry import Collector

from clew.checkpointing.errors import DatabaseUnreachable
from clew.checkpointing.postgres import SERVICE, Database
from clew.runtime.runs import Run, Status
from clew.runtime.sql import queries

PREFIX = "clew"
QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LONG = (0.005, 0.02, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
FRESH = 1.0  # seconds for which one look at the queue serves every scrape
OTHER = "other"  # in place of whatever has no name of its own

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
Outcome = Literal["sent", "again", "given_up"]

_W3C = TraceContextTextMapPropagator()
_asked: ContextVar[Mapping[str, str] | None] = ContextVar("asked", default=None)
_about: ContextVar[Mapping[str, str] | None] = ContextVar("about", default=None)


def about() -> Mapping[str, str]:
    """The ids of what is in progress here, for log lines."""
    ids = _about.get() or {}
    span = trace.get_current_span().get_span_context()
    return {**ids, "trace_id": format(span.trace_id, "032x")} if span.is_valid else ids


@contextmanager
def saying(**ids: str) -> Generator[None]:
    """Every log line within carries these ids, in addition to those around it."""
    token = _about.set({**(_about.get() or {}), **ids})
    try:
        yield
    finally:
        _about.reset(token)


@contextmanager
def asked(headers: Mapping[str, str]) -> Generator[None]:
    """Around a request: what its caller said of the trace that it belongs to."""
    said = {name: headers[name] for name in _W3C.fields if name in headers}
    token = _asked.set(said)
    try:
        yield
    finally:
        _asked.reset(token)


def carrier() -> dict[str, str]:
    """The trace that a request belongs to, for its run to join: that of the span around it where
    the server is instrumented, else what the caller sent."""
    found: dict[str, str] = {}
    if trace.get_current_span().get_span_context().is_valid:
        _W3C.inject(found)
        return found
    return dict(_asked.get() or {})


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits and runs in all processes together."""

    pending: int = 0
    running: int = 0
    oldest_pending_seconds: float = 0.0
    webhooks_pending: int = 0
    dead_rows: Mapping[str, int] | None = None


class Telemetry:
    """`graphs` are the names that may stand in labels; `capacity` is how many runs this process
    takes on. Without a tracer, whichever the process has set up is used."""

    def __init__(
        self, graphs: Collection[str] = (), *, capacity: int = 0, tracer: Tracer | None = None
    ) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self.capacity = capacity
        self.running = 0
        self.requests = self.request_errors = 0
        self.queue = Queue()
        self._graphs = frozenset(graphs)
        self._tracer = tracer or trace.get_tracer("clew")
        self._looked_at = float("-inf")
        self._runs = self._counter("runs", "Runs that ended here.", "graph", "status")
        self._run_seconds = self._histogram(
            "run_duration_seconds", "From a run's start here to its end.", LONG, "graph"
        )
        self._run_queue = self._histogram(
            "run_queue_seconds", "From when a run was due to its start.", LONG
        )
        self._first_event = self._histogram(
            "first_event_seconds", "From a run's start to the first event of its graph.", LONG
        )
        self._running = self._gauge("runs_running", "Runs in progress here.")
        self._capacity = self._gauge("runs_capacity", "Runs that may be in progress here.")
        self._capacity.set(capacity)
        self._pending = self._gauge("runs_pending", "Runs that are due and wait, anywhere.")
        self._oldest = self._gauge("oldest_pending_seconds", "How long the first of them waits.")
        self._lease_lost = self._counter(
            "lease_lost", "Times that this worker was declared dead while it lived."
        )
        self._fence = self._counter(
            "fence_rejections", "Writes refused because the session had gone to another worker."
        )
        self._takeovers = self._counter(
            "takeovers", "Runs taken from a worker that died.", "reason"
        )
        self._flush_seconds = self._histogram(
            "event_flush_seconds", "How long writing one batch of events took.", QUICK
        )
        self._flush_batch = self._histogram(
            "event_flush_batch", "Events in one batch that was written.", SIZES
        )
        self._sse_clients = self._gauge("sse_clients", "Open event streams.")
        self._sse_resumes = self._counter(
            "sse_resumes", "Streams that were taken up again by an event id.", "outcome"
        )
        self._gaps = self._counter("notify_gaps", "Times that the connection for wake-ups broke.")
        self._crons = self._counter("cron_fires", "Fire times of crons.", "outcome")
        self._webhooks = self._counter("webhooks", "Attempts to deliver a webhook.", "outcome")
        self._webhook_seconds = self._histogram(
            "webhook_seconds", "How long the receiver of a webhook took.", QUICK
        )
        self._webhooks_pending = self._gauge(
            "webhooks_pending", "Webhooks that are still to be delivered, by any process."
        )
        self._cache = self._counter("cache_lookups", "Results of nodes looked up.", "outcome")
        self._db_up = self._gauge("db_up", "Whether the database answered the last look at it.")
        self._dead_rows = self._gauge(
            "db_dead_rows", "Dead rows of the tables that change most.", "table"
        )
        self._requests = self._counter(
            "http_requests", "Requests answered.", "method", "route", "status"
        )
        self._request_seconds = self._histogram(
            "http_request_seconds", "To the first byte of the answer.", QUICK, "method", "route"
        )

    def watch(self, *sources: Collector) -> None:
        """Show their state at each scrape."""
        for source in sources:
            self.registry.register(source)

    # A run.

    @contextmanager
    def run(self, run: Run) -> Generator["Turn"]:
        """Around one attempt of a run, in the task that executes it."""
        turn = Turn(self, run)
        if run.started_at is not None:
            waited = (run.started_at - run.due_at).total_seconds()
            self._run_queue.observe(max(0.0, waited))
        self.running += 1
        self._running.set(self.running)
        context = _W3C.extract(run.kwargs.get("trace") or {})
        turn.span = self._tracer.start_span(
            f"invoke_agent {run.graph_id}",
            context,
            SpanKind.INTERNAL,
            {
                "gen_ai.operation.name": "invoke_agent",
                "gen_ai.agent.name": run.graph_id,
                "gen_ai.conversation.id": run.thread_id,
                "clew.run_id": run.run_id,
                "clew.attempt": run.attempt,
            },
        )
        ids = {"run_id": run.run_id, "thread_id": run.thread_id}
        try:
            with (
                saying(**ids),
                trace.use_span(turn.span, record_exception=False, set_status_on_exception=False),
            ):
                yield turn
        finally:
            self.running -= 1
            self._running.set(self.running)
            turn.span.end()

    def ended(self, run: Run, status: Status, seconds: float) -> None:
        graph = self._graph(run.graph_id)
        self._runs.labels(graph, status).inc()
        self._run_seconds.labels(graph).observe(seconds)

    def began_to_stream(self, seconds: float) -> None:
        self._first_event.observe(seconds)

    # Workers.

    def lost_lease(self) -> None:
        self._lease_lost.inc()

    def refused_by_fence(self) -> None:
        self._fence.inc()

    def took_over(self, reason: Literal["dead", "lease"], runs: int = 1) -> None:
        """`dead`: its connection was gone; `lease`: it said nothing for too long."""
        self._takeovers.labels(reason).inc(runs)

    # Events.

    def flushed(self, seconds: float, events: int) -> None:
        self._flush_seconds.observe(seconds)
        self._flush_batch.observe(events)

    @contextmanager
    def streaming(self) -> Generator[None]:
        """Around an open event stream."""
        self._sse_clients.inc()
        try:
            yield
        finally:
            self._sse_clients.dec()

    def resumed(self, outcome: Literal["hit", "expired"]) -> None:
        """`expired`: what came after the id is not in the log any more."""
        self._sse_resumes.labels(outcome).inc()

    def missed_wakeups(self) -> None:
        self._gaps.inc()

    # Crons, webhooks, the cache of nodes.

    def fired(self, outcome: Literal["started", "refused", "failed"]) -> None:
        self._crons.labels(outcome).inc()

    def delivered(self, outcome: Outcome, seconds: float) -> None:
        self._webhooks.labels(outcome).inc()
        self._webhook_seconds.observe(seconds)

    def looked_up(self, *, hits: int, misses: int) -> None:
        self._cache.labels("hit").inc(hits)
        self._cache.labels("miss").inc(misses)

    # Requests.

    def answered(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """`route` is the pattern that matched, never the path that was asked for."""
        method = method if method in METHODS else OTHER
        route = route or OTHER
        self._requests.labels(method, route, str(status)).inc()
        self._request_seconds.labels(method, route).observe(seconds)
        self.requests += 1
        self.request_errors += status >= 500

    # Scrapes.

    async def look(self, db: Database) -> Queue:
        """What only the database knows. Scrapes may be many and come from anyone: one look serves
        all of the next second."""
        moment = time.monotonic()
        if moment - self._looked_at < FRESH:
            return self.queue
        self._looked_at = moment
        try:
            row = await db.one(SERVICE, queries["look_at_queue"])
        except (psycopg.Error, DatabaseUnreachable):
            # What this process knows by itself is wanted most just then.
            self._db_up.set(0)
            return self.queue
        assert row is not None
        self._db_up.set(1)
        self.queue = Queue(**row)
        self._pending.set(self.queue.pending)
        self._oldest.set(self.queue.oldest_pending_seconds)
        self._webhooks_pending.set(self.queue.webhooks_pending)
        for table, dead in (self.queue.dead_rows or {}).items():
            self._dead_rows.labels(table).set(dead)
        return self.queue

    def text(self) -> bytes:
        """Everything, in Prometheus's text format."""
        return generate_latest(self.registry)

    def _graph(self, graph_id: str) -> str:
        return graph_id if graph_id in self._graphs else OTHER

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(name, about, labels, namespace=PREFIX, registry=self.registry)

    def _gauge(self, name: str, about: str, *labels: str) -> Gauge:
        return Gauge(name, about, labels, namespace=PREFIX, registry=self.registry)

    def _histogram(
        self, name: str, about: str, buckets: Collection[float], *labels: str
    ) -> Histogram:
        return Histogram(
            name, about, labels, namespace=PREFIX, registry=self.registry, buckets=tuple(buckets)
        )


class Turn:
    """One attempt of a run. One that is handed over ends without `end`: the run goes on."""

    span: Span

    def __init__(self, telemetry: Telemetry, run: Run) -> None:
        self._telemetry = telemetry
        self._run = run
        self._streams = False
        self._began = time.monotonic()

    def event(self) -> None:
        """The graph said something; only the first time counts."""
        if not self._streams:
            self._streams = True
            self._telemetry.began_to_stream(self._seconds())
            self.span.add_event("first event")

    def end(self, status: Status, error: Mapping[str, Any] | None = None) -> None:
        """The run is over, as committed. The span tells the class of an error and not its text,
        which may hold what users said."""
        self._telemetry.ended(self._run, status, self._seconds())
        self.span.set_attribute("clew.status", status)
        if status in ("error", "timeout"):
            kind = str((error or {}).get("error") or status)
            self.span.set_attribute("error.type", kind)
            self.span.set_status(StatusCode.ERROR, kind)

    def _seconds(self) -> float:
        return time.monotonic() - self._began
