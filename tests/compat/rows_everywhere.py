"""What Clew means to answer otherwise wherever it is asked, and to MCP, A2A and browsers."""

from tests.compat.divergence import GONE, Divergence

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
