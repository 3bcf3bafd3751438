"""What Clew means to stream otherwise, in both generations of the protocol."""

from tests.compat.divergence import GONE, Divergence

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
        step="streaming.combined/parent | streaming.namespaces/shown *",
        clew="absent|__interrupt__",
    ),
    Divergence(
        "event.*",
        "The namespaces, and the checkpoint that is shown already, count where the query of a"
        " stream has them.",
        step="streaming.namespaces/*",
        clew=GONE,
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
        step="protocol.runs/* tools | sockets.turns/* tools",
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
        step="protocol.* | sockets.*",
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
        step="protocol.commands/* | sockets.commands/*",
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
        step="protocol.* | sockets.*",
        official="output_version|v1|text|tool_call",
    ),
    Divergence("*kwargs.stream_mode*", "Lifecycle is no stream mode.", step="protocol.*"),
)

SOCKETS = (
    Divergence(
        "body.result.subscription_id",
        "A subscription is named after the command that made it.",
        step="sockets.*/subscribe*",
    ),
    Divergence(
        "body.meta",
        "What is answered about a subscription does not say how far the thread is: its events do.",
        step="sockets.*subscribe*",
        clew=GONE,
    ),
    Divergence(
        "body.type | body.error | body.message | body.result | body.meta",
        "A question is known by its id: the namespace beside it is not compared.",
        step="sockets.elsewhere/respond",
    ),
    Divergence(
        "body.type | body.error | body.message | body.result | body.meta",
        "Trees of agents are not told: `agent.getTree` is no command here.",
        step="sockets.*/tree",
    ),
    Divergence(
        "body.message",
        "Refusals of subscriptions say the same in other words.",
        step="sockets.commands/* channel*",
    ),
    Divergence(
        "body.error",
        "What is wrong with arguments is `invalid_argument`.",
        step="sockets.commands/unknown graph",
        official="unknown_error",
    ),
)

WEBHOOKS = (
    Divergence(
        "body.error",
        "A run that was cancelled has not failed: its status says what it was.",
        step="webhooks.ends/told cancelled",
        clew=GONE,
    ),
    Divergence(
        "body.values",
        "The values that a stateless run left are told as well.",
        step="webhooks.ends/told stateless",
        official="null",
    ),
)
