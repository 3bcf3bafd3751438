"""What is told of the process: every metric is documented, none has a label that callers choose,
and a run's span and log lines carry its ids."""

import asyncio
import json
import logging
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.responses import StreamingResponse
from opentelemetry import trace
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
)
from prometheus_client.parser import text_string_to_metric_families
from pydantic_core import from_json

from clew.api import logs, metrics
from clew.api.deps import parts
from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.checkpointing.saver import Saver
from clew.runtime import config, graphs, leases, runs, sessions, sources, telemetry
from clew.runtime.feed import Follower
from clew.runtime.line import Line
from clew.runtime.notifier import Notifier
from clew.runtime.requests import RunRequest
from clew.runtime.runs import Run
from clew.runtime.settings import Settings
from clew.runtime.telemetry import Telemetry
from clew.runtime.worker import Worker
from tests.serving import serve

PROJECT = Path(__file__).parent / "project" / "langgraph.json"
DOCS = Path(__file__).parents[1] / "docs" / "metrics.md"
TRACE_ID, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = {"traceparent": f"00-{TRACE_ID}-{CALLER}-01"}


def read(subject: Telemetry) -> dict[str, float]:
    """Samples, by name and labels."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(subject.text().decode()):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


class Kept(NonRecordingSpan):
    """A span that keeps what it was told."""

    def __init__(self, name: str, parent: SpanContext, attributes: Mapping[str, Any]) -> None:
        flags = TraceFlags(TraceFlags.SAMPLED)
        super().__init__(SpanContext(parent.trace_id or 99, 77, is_remote=False, trace_flags=flags))
        self.name, self.parent, self.attributes = name, parent, dict(attributes)
        self.events: list[str] = []
        self.status: Any = None
        self.over = False

    def set_attribute(self, key: str, value: Any) -> None:
        self.attributes[key] = value

    def add_event(self, name: str, attributes: Any = None, timestamp: int | None = None) -> None:
        self.events.append(name)

    def set_status(self, status: Any, description: str | None = None) -> None:
        self.status = status

    def end(self, end_time: int | None = None) -> None:
        self.over = True


class Recorder(Tracer):
    """What an exporter would be given."""

    def __init__(self) -> None:
        self.spans: list[Kept] = []

    def start_span(
        self,
        name: str,
        context: Any = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Any = None,
        *_more: Any,
        **_named: Any,
    ) -> Span:
        parent = trace.get_current_span(context).get_span_context()
        self.spans.append(Kept(name, parent, attributes or {}))
        return self.spans[-1]

    def start_as_current_span(self, *more: Any, **named: Any) -> AbstractContextManager[Span]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return trace.use_span(self.start_span(*more, **named), end_on_exit=True)


async def running(db: Database, graph_id: str = "echo", **asked: Any) -> Run:
    owner_id = await db.owner("acme", "ann")
    who = Principal.owner(owner_id)
    session = await sessions.create(db, who, owner_id)
    worker_id = await leases.enlist(db, "one", timedelta(seconds=30))
    request = RunRequest(graph_id=graph_id, **asked)
    return await runs.create(db, who, owner_id, session.thread_id, request, worker_id=worker_id)


async def test_every_metric_is_in_the_docs_and_the_docs_name_no_other(db: Database) -> None:
    subject = Telemetry(["echo"])
    subject.watch(sources.Pool(db.pool), sources.Redis(Line("redis://127.0.0.1:1")))
    shown = {
        (family.name, family.type, family.documentation) for family in subject.registry.collect()
    }
    rows = re.findall(r"^\| `(\w+)`[^|]*\| (\w+) \| ([^|]*) \|", DOCS.read_text(), re.MULTILINE)
    documented = {(name.removesuffix("_total"), kind, about.strip()) for name, kind, about in rows}
    assert documented == shown
    assert len(rows) == len(documented)


async def test_a_run_is_counted_by_its_graph_and_how_it_ended(db: Database) -> None:
    subject = Telemetry(["echo"], capacity=3)
    run = await running(db)
    with subject.run(run) as turn:
        assert read(subject)["clew_runs_running"] == 1
        turn.event()
        turn.event()
        turn.end("success")
    samples = read(subject)
    assert samples["clew_runs_total{graph=echo,status=success}"] == 1
    assert samples["clew_runs_running"] == 0
    assert samples["clew_runs_capacity"] == 3
    assert samples["clew_run_queue_seconds_count"] == 1
    assert samples["clew_run_duration_seconds_count{graph=echo}"] == 1
    assert samples["clew_first_event_seconds_count"] == 1


async def test_an_attempt_that_is_handed_over_is_no_end(db: Database) -> None:
    subject = Telemetry(["echo"])
    with subject.run(await running(db)):
        pass
    samples = read(subject)
    assert samples["clew_runs_running"] == 0
    assert not [name for name in samples if name.startswith("clew_runs_total")]


async def test_no_label_takes_what_a_caller_sends(db: Database) -> None:
    subject = Telemetry(["echo"])
    run = await running(db)
    for number in range(50):
        subject.ended(replace(run, graph_id=f"made-up-{number}"), "success", 0.1)
        subject.answered(f"VERB{number}", None, 404, 0.1)
    samples = read(subject)
    assert samples["clew_runs_total{graph=other,status=success}"] == 50
    assert samples["clew_http_requests_total{method=other,route=other,status=404}"] == 50
    assert "made-up" not in subject.text().decode()


def test_two_servers_in_one_process_share_no_number() -> None:
    one, two = Telemetry(), Telemetry()
    one.lost_lease()
    assert read(one)["clew_lease_lost_total"] == 1
    assert read(two)["clew_lease_lost_total"] == 0


async def test_a_run_joins_the_trace_of_its_request(db: Database) -> None:
    recorder = Recorder()
    run = await running(db, trace=PARENT)
    with Telemetry(tracer=recorder).run(run) as turn:
        turn.event()
        assert trace.get_current_span() is recorder.spans[0]
        # What the graph starts inherits it.
        inside = await asyncio.create_task(current())
        turn.end("error", {"error": "ValueError", "message": "the user's own words"})
    (span,) = recorder.spans
    assert inside == TRACE_ID
    assert format(span.parent.trace_id, "032x") == TRACE_ID
    assert format(span.parent.span_id, "016x") == CALLER
    assert span.name == "invoke_agent echo"
    assert span.attributes["gen_ai.conversation.id"] == run.thread_id
    assert span.attributes["clew.run_id"] == run.run_id
    assert span.attributes["error.type"] == "ValueError"
    assert span.status is StatusCode.ERROR
    assert span.events == ["first event"]
    assert span.over
    assert "words" not in repr(span.attributes)


async def current() -> str:
    return format(trace.get_current_span().get_span_context().trace_id, "032x")


def test_the_trace_of_a_request_is_that_of_the_span_around_it_or_else_the_caller_s() -> None:
    with telemetry.asked({**PARENT, "x-other": "no"}):
        assert telemetry.carrier() == PARENT
    assert telemetry.carrier() == {}
    recorder = Recorder()
    with recorder.start_as_current_span("request"), telemetry.asked(PARENT):
        taken = telemetry.carrier()
    assert taken["traceparent"].split("-")[2] == format(77, "016x")


SAID = {"messages": [{"role": "user", "content": "hello"}]}
TEXT = {"messageId": "1", "role": "user", "parts": [{"kind": "text", "text": "hello"}]}
RPC = {"jsonrpc": "2.0", "id": 1}
ASKED = {"assistant_id": "echo", "input": SAID}
ENTRANCES: dict[str, tuple[str, Any]] = {
    "run": ("/threads/{}/runs", ASKED),
    "stateless": ("/runs", {**ASKED, "on_completion": "keep"}),
    "batch": ("/runs/batch", [{**ASKED, "on_completion": "keep"}]),
    "v2": ("/threads/{}/commands", {"id": 1, "method": "run.start", "params": ASKED}),
    "a2a": ("/a2a/echo", {**RPC, "method": "message/send", "params": {"message": TEXT}}),
    "mcp": ("/mcp", {**RPC, "method": "tools/call", "params": {"name": "echo", "arguments": SAID}}),
}


@pytest.mark.parametrize("entrance", ENTRANCES)
async def test_a_run_keeps_the_trace_of_its_caller_however_it_was_asked_for(
    dsn: str, entrance: str
) -> None:
    path, body = ENTRANCES[entrance]
    accept = {"accept": "application/json, text/event-stream"}
    async with (
        serve(dsn) as url,
        httpx.AsyncClient(base_url=url, headers=accept, timeout=60) as http,
    ):
        thread_id = (await http.post("/threads", json={})).json()["thread_id"]
        answer = await http.post(path.format(thread_id), json=body, headers=PARENT)
        assert answer.status_code == 200, answer.text
    async with Database.open(dsn) as opened:
        rows = await opened.fetch(SERVICE, "select request from clew.run")
    assert [from_json(row["request"]).get("trace") for row in rows] == [PARENT]


async def test_log_lines_within_a_run_carry_its_ids(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    run = await running(db, trace=PARENT)
    caplog.handler.setFormatter(logs.Json())
    caplog.set_level(logging.INFO)
    log = logging.getLogger("clew.test")
    with Telemetry(tracer=Recorder()).run(run), telemetry.saying(more="说"):
        log.info("within")
    log.info("after")
    within, after = [json.loads(line) for line in caplog.text.splitlines()]
    assert within["run_id"] == run.run_id
    assert within["thread_id"] == run.thread_id
    assert within["trace_id"] == TRACE_ID
    assert within["more"] == "说"
    assert not {"run_id", "thread_id", "trace_id", "more"} & set(after)


def served(db: Database, subject: Telemetry) -> httpx.AsyncClient:
    """The route and the middleware, on an application with one more route."""
    more = APIRouter(prefix="/things")

    @more.get("/{thing}")
    async def thing(thing: str) -> str:  # pyright: ignore[reportUnusedFunction]
        if thing == "bad":
            raise RuntimeError(thing)
        return thing

    @more.get("")
    async def stream() -> StreamingResponse:  # pyright: ignore[reportUnusedFunction]
        async def open_streams() -> AsyncGenerator[str]:
            yield str(read(subject)["clew_sse_clients"])

        return StreamingResponse(open_streams(), media_type="text/event-stream")

    app = FastAPI()
    app.include_router(metrics.routes)
    app.include_router(more)
    app.add_middleware(metrics.Counted, telemetry=subject)
    app.dependency_overrides[parts] = lambda: cast("Any", SimpleNamespace(db=db, telemetry=subject))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://clew")


async def test_metrics_are_served_as_text_and_as_json(db: Database) -> None:
    subject = Telemetry(["echo"], capacity=6)
    subject.watch(sources.Pool(db.pool))
    owner_id = await db.owner("acme", "ann")
    who = Principal.owner(owner_id)
    session = await sessions.create(db, who, owner_id)
    for _ in range(2):
        await runs.create(db, who, owner_id, session.thread_id, RunRequest(graph_id="echo"))
    async with served(db, subject) as client:
        text = await client.get("/metrics")
        shown = (await client.get("/metrics", params={"format": "json"})).json()
    assert text.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "clew_runs_pending 2.0" in text.text
    assert "clew_db_up 1.0" in text.text
    assert 'clew_db_dead_rows{table="run"}' in text.text
    assert shown["queue"]["n_pending"] == 2
    assert shown["queue"]["n_running"] == 0
    assert shown["queue"]["pending_runs_wait_time_max_secs"] >= 0
    assert shown["workers"] == {"max": 6, "active": 0, "available": 6}
    assert shown["api"]["n_requests"] == 1


async def test_requests_are_counted_by_the_pattern_of_their_route(db: Database) -> None:
    subject = Telemetry()
    async with served(db, subject) as client:
        for path in ("/things/a", "/things/b", "/things/bad", "/nowhere/c"):
            await client.get(path)
    samples = read(subject)
    assert samples["clew_http_requests_total{method=GET,route=/things/{thing},status=200}"] == 2
    assert samples["clew_http_requests_total{method=GET,route=/things/{thing},status=500}"] == 1
    assert samples["clew_http_requests_total{method=GET,route=other,status=404}"] == 1
    assert subject.requests == 4
    assert subject.request_errors == 1


async def test_open_event_streams_are_counted_until_they_end(db: Database) -> None:
    subject = Telemetry()
    async with served(db, subject) as client:
        assert (await client.get("/things")).text == "1.0"
    assert read(subject)["clew_sse_clients"] == 0


async def test_a_worker_tells_of_its_runs_and_of_the_events_it_writes(
    db: Database, dsn: str
) -> None:
    loaded = await graphs.load(config.read(PROJECT))
    owner_id = await db.owner("acme", "ann")
    who = Principal.owner(owner_id)
    recorder = Recorder()
    subject = Telemetry(loaded.ids(), tracer=recorder)
    saver = Saver(db)
    settings = Settings.model_validate({"database_url": "postgresql://unused"})
    async with (
        Notifier(db, dsn) as wakeups,
        Follower(db, wakeups, saver, telemetry=subject) as feed,
        Worker(db, loaded, saver, wakeups, feed, settings, telemetry=subject) as worker,
    ):
        for graph_id in ("steps", "fails"):
            session = await sessions.create(db, who, owner_id)
            request = RunRequest(graph_id=graph_id, input={"x": ["in"]}, trace=PARENT)
            run = await worker.submit(who, owner_id, session.thread_id, request)
            async for _ in feed.follow(who, run.thread_id, run.run_id):
                pass
        await worker.drain(timedelta(seconds=20))
    samples = read(subject)
    assert samples["clew_runs_total{graph=steps,status=success}"] == 1
    assert samples["clew_runs_total{graph=fails,status=error}"] == 1
    assert samples["clew_first_event_seconds_count"] == 2
    assert samples["clew_runs_running"] == 0
    assert [span.name for span in recorder.spans] == ["invoke_agent steps", "invoke_agent fails"]
    assert all(format(span.parent.trace_id, "032x") == TRACE_ID for span in recorder.spans)


async def test_a_takeover_is_counted_with_its_reason(db: Database) -> None:
    subject = Telemetry()
    run = await running(db)
    await db.execute(
        SERVICE,
        "update clew.worker set heartbeat_at = now() - interval '1 hour', "
        "lease_until = now() - interval '1 hour' where worker_id = %s",
        [run.worker_id],
    )
    other = await leases.enlist(db, "two", timedelta(seconds=30))
    assert await leases.reap(db, other, subject) == [run.run_id]
    assert read(subject)["clew_takeovers_total{reason=lease}"] == 1


async def test_metrics_outlive_the_database(dsn: str) -> None:
    async with Database.open(dsn, max_size=2) as db:
        subject = Telemetry()
        await db.pool.close()
        async with served(db, subject) as client:
            answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert "clew_db_up 0.0" in answer.text
