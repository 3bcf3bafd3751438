"""Where Clew means to differ from the official server, with the reason for each.

`step` and `path` are shell patterns, several divided by bars: `<scenario>/<label>` and
`body.metadata.x`; `official` and `clew` are regular expressions that the two sides have to match
as JSON. A row that no difference falls under has to go: `make compat` fails on it, as it does on a
difference without a row.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from tests.compat.differences import Difference, shown


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


GONE = r"^.\(absent\)"

ERRORS = (
    Divergence(
        "body.type | body.title | body.status | body.code | body.option",
        "Errors are problem+json: the official `detail`, and fields for programs beside it.",
        official=GONE,
    ),
    Divergence("header.content-type", "Errors are problem+json, which is JSON.", clew="problem"),
    Divergence("header.content-type", "A 204 has no body, whatever type it names.", official=GONE),
    Divergence(
        "body.detail",
        "What is wrong with a field is said in one line, not as a JSON Schema trace.",
        official="Failed validating",
    ),
    Divergence(
        "body.detail",
        "What was not found is named, in the same words wherever it is asked for.",
        official="[Nn]ot [Ff]ound|No runs found",
        clew="not found|Not Found",
    ),
    Divergence(
        "body.detail | body.message",
        "Refusals say the same in other words.",
        official="^.(Unknown |No active run|channels contains|No matching runs|Root label"
        "|Cannot specify|Extract path|Thread <.*in-flight|Thread '<fresh>' has no"
        "|Invalid (config|limit|cron|timezone|xray|assistant|webhook|last-event-id|checkpoint ID"
        "|thread ID))",
    ),
    Divergence(
        "status",
        "A query, a path or a filter that is wrong is 422 like every other wrong field.",
        official="^.(400|404|200 )",
        clew="^.422",
    ),
    Divergence(
        "status",
        "What the official server takes and lets fail later is refused with its reason.",
        official="^.200",
        clew="^.422",
    ),
    Divergence(
        "status",
        "A request that crashes the official server is answered or refused.",
        official="^.500",
    ),
    Divergence(
        "header.allow", "Routes name the methods they have; HEAD is not one.", official="HEAD"
    ),
    Divergence("header.allow", "A 405 names what is allowed.", official=GONE),
    Divergence("status", "POST /ok is a known path: 405.", step="system.health/post ok"),
    Divergence(
        "body",
        "Errors of the store are JSON with a `detail`, as all others.",
        step="store.bad/*",
        official="^.Namespace label",
    ),
    Divergence(
        "body.error | body.detail",
        "That a key is missing is told in `detail`.",
        step="store.bad/get no key",
    ),
)

LENIENT = (
    Divergence(
        "status",
        "A cursor may be any of the three shapes that clients send.",
        step="state.reading/history before *",
    ),
    Divergence(
        "status",
        "Null is the same as nothing given.",
        step="runs.options/null modes | threads.crud/patch null | state.reading/no checkpoint"
        " | assistants.drawings/xray 0 | store.bad/get no namespace",
        official="^.422",
        clew="^.200",
    ),
    Divergence(
        "status",
        "An unknown thread is 404 before its body is looked at.",
        step="threads.bad/POST missing*",
        official="^.422",
        clew="^.404",
    ),
    Divergence(
        "status",
        "Values that the graph refuses are 400, whatever their type.",
        step="state.updating/text",
    ),
    Divergence(
        "status",
        "An unknown run is 404, not 200 with an error inside.",
        step="*join* | *stream*",
        official="^.200",
        clew="^.404",
    ),
    Divergence(
        "status",
        "A thread whose first state cannot be made is not made either.",
        step="threads.supersteps/no graph",
    ),
)

OWN = (
    Divergence(
        "*metadata.langgraph_* | *metadata.user_id | *metadata.thread_id | event.*.langgraph_*",
        "Metadata is what the user and the run gave, not the server's own particulars.",
        clew=GONE,
    ),
    Divergence(
        "*metadata.checkpoint_ns | *metadata.checkpoint_map | *metadata.checkpoint_id"
        " | *metadata.a | *metadata.name",
        "A checkpoint's metadata is not filled up with its run's configuration.",
        clew=GONE,
    ),
    Divergence(
        "*configurable.langgraph_* | *configurable.user_id | *configurable.__*"
        " | *configurable.thread_id | *configurable.run_id | *configurable.graph_id"
        " | *configurable.assistant_id | *kwargs.context.thread_id | *kwargs.context.__*",
        "What the server adds to a run's configuration, and who is signed in, does not show.",
        clew=GONE,
    ),
    Divergence(
        "*kwargs.config.configurable | *kwargs.config.metadata*",
        "A run's `kwargs` hold what was asked for and no more.",
        official="__after_seconds__|created_by|graph_id|[Ll]anggraph",
        clew=GONE,
    ),
    Divergence(
        "*kwargs.strict_resume | *kwargs.on_disconnect | *kwargs.on_completion",
        "More of what was asked for is shown.",
        official=GONE,
    ),
    Divergence("*langsmith_session_name", "Clew does not talk to LangSmith.", clew=GONE),
    Divergence(
        "body.version | body.flags.* | body.host.* | body.services.postgres",
        "/info and /ok are of another server.",
        step="system.health/*",
    ),
)

THREADS = (
    Divergence(
        "header.x-pagination-total",
        "The total is one: how many there are, not how far the page reaches.",
        step="*.search/beyond",
    ),
    Divergence(
        "body.values.*",
        "A thread's values are those of its state, with what half a step has written.",
        step="runs.resuming/left thread",
    ),
    Divergence(
        "body.config.* | body[].config.*",
        "A run's settings are its own: they are not left behind on the thread for the next run.",
        clew=GONE,
    ),
    Divergence("body.context | body[].context", "A thread has a context.", official=GONE),
    Divergence("body.ttl", "No TTL is null.", step="threads.crud/read ttl"),
    Divergence(
        "body.values | body[].values",
        "A thread without a state has the values {}, as its state says.",
        official="null",
        clew=r"^\{\}",
    ),
    Divergence(
        "body.values",
        "While a run goes on, values are those of its last step.",
        "state.busy/thread",
    ),
    Divergence("body.values", "A copy shows its values.", step="threads.copy/*", official=GONE),
    Divergence(
        "body.error | body.interrupts | body[].error | body[].interrupts",
        "Every thread has `error` and `interrupts`.",
        official=GONE,
    ),
    Divergence(
        "body.status", "A copy of half a turn waits where that one waits.", "state.busy/copy"
    ),
    Divergence(
        "header.x-pagination-total | body.length",
        "Metadata that contains a list's item contains it, as Postgres has it.",
        step="*.search/deep",
    ),
    Divergence("body[].thread_id", "Ties are ordered by id.", step="threads.search/sort status"),
    Divergence(
        "body.checkpoint.checkpoint_ns",
        "A checkpoint of the root says so: its namespace is empty, not absent.",
        official=GONE,
    ),
)

ASSISTANTS = (
    Divergence(
        "body.graph_id | body.context.*",
        "Going back to a version brings back its graph and context too.",
        step="assistants.crud/*latest",
    ),
    Divergence(
        "*input_schema | *output_schema | *state_schema.*",
        "A state declared as a TypedDict is described as it is: the official server has null for"
        " it, and defaults that it does not have.",
        step="assistants.drawings/*",
    ),
    Divergence(
        "body[].*", "`sort_order` alone is not ignored.", step="assistants.search/order alone"
    ),
)

CRONS = (
    Divergence("*user_id", "Without authentication there is no user: null.", step="crons.*"),
    Divergence(
        "*payload.*",
        "A cron's payload is what its runs get; when it fires stands beside it, once.",
        step="crons.*",
    ),
    Divergence(
        "*next_run_date",
        "A cron that is switched off has no next run.",
        step="crons.*",
        clew="null",
    ),
)

RUNS = (
    Divergence(
        "body.status | body[].status",
        "A free worker begins at once: the answer may say so already.",
        official="pending",
        clew="running",
    ),
    Divergence(
        "header.location",
        "Every answer that makes a run says where to wait for it.",
        official=GONE,
        clew="/join",
    ),
    Divergence(
        "header.location | header.content-location",
        "Stateless runs are named with their thread, so that their streams can be resumed.",
        step="runs.stateless/*",
    ),
    Divergence(
        "header.location",
        "A stream's address keeps its query, so that filters outlive a reconnect.",
        step="streaming.resumable/*",
    ),
    Divergence(
        "body.metadata.graph_id | body[].metadata.graph_id | body.metadata.assistant_id",
        "A run's metadata names its own graph, and a thread's the latest.",
        official="absent|slow",
    ),
    Divergence(
        "body.error.message",
        "Who cancelled is not told by a path.",
        official="requested via POST|on_disconnect=cancel",
    ),
    Divergence(
        "body.error",
        "A run that was rolled back never was.",
        step="runs.cancelling/thread rollback",
    ),
    Divergence("body.cancel_reason", "Why a run was cancelled is told.", official=GONE),
    Divergence(
        "header.location | header.content-location",
        "A run that was rolled back is nowhere.",
        step="runs.cancelling/cancel rollback",
        clew=GONE,
    ),
    Divergence(
        "body.x | body.wait",
        "Waiting for a cancellation answers with the values that are left.",
        step="runs.cancelling/cancel *",
        official=GONE,
    ),
    Divergence(
        "body.x | body.__interrupt__*",
        "To join a run that is over answers what waiting for it answered.",
        step="runs.waiting/join *",
        official=GONE,
    ),
)

STREAMS = (
    Divergence(
        "event.end",
        "Every stream ends with `end`, which spares clients the question whether it did.",
        official=GONE,
    ),
    Divergence("ids", "Every stream can be resumed, asked for or not.", official="false"),
    Divergence(
        "event.*",
        "Events of a run that was not asked to be resumable are kept all the same.",
        step="streaming.joining/late all False",
        official=GONE,
    ),
    Divergence(
        "event.values*",
        "A question is told whatever modes were asked for.",
        step="streaming.asking*/* | streaming.subgraphs/*",
        official=GONE,
        clew="__interrupt__",
    ),
    Divergence(
        "event.values",
        "Each of several modes of a filter counts, not the last alone.",
        step="streaming.resumable/replay two",
        official=GONE,
    ),
    Divergence(
        "event.events.data.*",
        "Ids that a state gives to messages are not written back into events already told.",
        step="streaming.tools/events",
        clew="null",
    ),
    Divergence(
        "event.updates",
        "A question of a subgraph is told at the root once, in its order.",
        step="streaming.combined/parent",
        clew="absent|__interrupt__",
    ),
    Divergence("event.events.data.input.goto", "None or nowhere.", clew=r"\[\]"),
)

PROTOCOL = (
    Divergence(
        "body.meta.applied_through_seq",
        "The sequence is the thread's, so replies say how far they reach.",
    ),
    Divergence(
        "event.lifecycle.params.data.attempt", "Which attempt a run is at is told.", official=GONE
    ),
    Divergence(
        "event.checkpoints | event.updates | event.tasks | event.tools | event.custom",
        "Every channel of the protocol speaks.",
        step="protocol.runs/all *",
        official=GONE,
    ),
    Divergence(
        "event.messages",
        "What a tool answers is a message too, in the tool's namespace.",
        step="protocol.runs/* tools",
        official=GONE,
        clew='"tools:call_1"',
    ),
    Divergence(
        "event.values",
        "The state in which a run, or its subgraph, stops is told as well.",
        step="protocol.runs/* | protocol.filters/* | protocol.answering/*",
        official=GONE,
    ),
    Divergence(
        "event.input.requested | event.input.requested.params.data.*",
        "Each question is told, with `value` beside `payload`, as the Python client reads it.",
        step="protocol.*",
    ),
    Divergence(
        "event.lifecycle | event.lifecycle.*",
        "A subgraph that stops to ask says so, and its events have ids that name the run.",
        step="protocol.runs/* parent | protocol.filters/*",
    ),
    Divergence(
        "event.lifecycle.params.data.error",
        "What went wrong is told in a replay too.",
        step="protocol.runs/replay fails",
        official=GONE,
    ),
    Divergence(
        "event.lifecycle.params.data.graph_name",
        "Runs of the older API do not name their graph.",
        step="protocol.legacy/events",
    ),
    Divergence(
        "event.*",
        "A new subscription hears nothing of runs that were over when the newest was made: to a"
        " hook their end would be the end of the new one.",
        step="protocol.answering/*",
        clew=GONE,
    ),
    Divergence("event.values.params.data.messages[].artifact", "No artifact is none.", clew=GONE),
    Divergence(
        "body.id",
        "A command that is none has no id.",
        step="protocol.commands/*",
        clew="null",
    ),
    Divergence(
        "body.error | body.type | body.result | body.meta | body.message",
        "Over HTTP there are no subscriptions and no trees: such commands are unknown, not"
        " answered with ids that lead nowhere. What is wrong with arguments is `invalid_argument`.",
        step="protocol.commands/*",
        official="absent|success|unknown_error|no_such_run|run_id|applied|subscription_id",
    ),
    Divergence(
        "status",
        "A subscription whose filter is wrong is refused.",
        step="protocol.commands/bad *",
        official="^.200",
        clew="^.400",
    ),
    Divergence("event.messages.params.node", "Messages name their node.", official=GONE),
    Divergence(
        "*messages[].content | *messages[].response_metadata*",
        "A model's content is kept as the model gave it; blocks are for those who read blocks.",
        step="protocol.*",
        official="output_version|v1|text|tool_call",
    ),
    Divergence("*kwargs.stream_mode*", "Lifecycle is no stream mode.", step="protocol.*"),
)

STORE = (
    Divergence(
        "body.items[].*",
        "Found items are ordered by when they were changed, latest first, as in Postgres.",
        step="store.items/search*",
    ),
    Divergence(
        "body.items.length",
        "A query finds the words it names where no embedding is configured.",
        step="store.items/search query",
    ),
    Divergence(
        "body.namespaces*",
        "To look into a namespace does not make it.",
        step="store.bad/namespaces nothing",
    ),
)

OTHER = (
    Divergence(
        "status", "Studio may ask from a private network.", step="system.browsers/private network"
    ),
    Divergence(
        "header.access-control-expose-headers",
        "Browsers may read where a stream goes on.",
        step="system.browsers/*",
    ),
    Divergence("body.result.serverInfo.*", "MCP: the server has its own name.", "system.mcp/*"),
    Divergence(
        "body.result.tools*",
        "MCP: every assistant is a tool with the schema of its input, not chat agents alone; hints"
        " that are guesses are left out.",
        "system.mcp/list",
    ),
    Divergence(
        "body.result.content* | body.result.isError | body.result.structuredContent",
        "MCP: results are JSON, as text and structured; errors say what was wrong.",
        "system.mcp/*",
    ),
    Divergence(
        "body.error | body.jsonrpc | body.id | body",
        "MCP: refusals are JSON-RPC errors, or problems like everywhere.",
        "system.mcp/broken | system.mcp/delete",
    ),
    Divergence(
        "body.* | status",
        "A2A: the card offers both dialects, each under its own version, and says what it takes.",
        "system.a2a/card*",
    ),
    Divergence(
        "*.history | *.artifact* | *.status.message | body.result.task.kind",
        "A2A: a task comes with its answer, in an artifact whose id stays, and without a copy of"
        " the history; the newer dialect has no `kind`.",
        "system.a2a/*",
    ),
    Divergence(
        "header.content-type | event.message | event.message.result.*",
        "A2A: streams of the newer dialect are in its words; text that was not streamed comes as"
        " the artifact alone.",
        "system.a2a/stream*",
    ),
    Divergence(
        "body.error.message | body.error | body.result",
        "A2A: refusals say the same in other words, and files are refused aloud.",
        "system.a2a/*",
    ),
)

TOPICS = {
    "Errors": (*ERRORS, *LENIENT),
    "What the servers say of themselves": OWN,
    "Threads and states": THREADS,
    "Assistants": ASSISTANTS,
    "Crons": CRONS,
    "Runs": RUNS,
    "Streams": STREAMS,
    "Protocol v2": PROTOCOL,
    "The store": STORE,
    "The rest": OTHER,
}
DIVERGENCES = tuple(row for rows in TOPICS.values() for row in rows)


def unexplained(found: Iterable[Difference]) -> list[Difference]:
    return [item for item in found if not any(row.covers(item) for row in DIVERGENCES)]


def outdated(found: Iterable[Difference]) -> list[Divergence]:
    differences = list(found)
    return [row for row in DIVERGENCES if not any(row.covers(item) for item in differences)]
