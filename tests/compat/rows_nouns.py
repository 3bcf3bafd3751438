"""What Clew means to do otherwise with threads, assistants, crons, runs and the store."""

from tests.compat.divergence import GONE, Divergence

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
        step="streaming.resumable/* | streaming.namespaces/*",
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
        step="stopping.one/thread rollback",
    ),
    Divergence("body.cancel_reason", "Why a run was cancelled is told.", official=GONE),
    Divergence(
        "header.location | header.content-location",
        "A run that was rolled back is nowhere.",
        step="stopping.one/cancel rollback",
        clew=GONE,
    ),
    Divergence(
        "body.x | body.wait",
        "Waiting for a cancellation answers with the values that are left.",
        step="stopping.one/cancel *",
        official=GONE,
    ),
    Divergence(
        "body.x | body.__interrupt__*",
        "To join a run that is over answers what waiting for it answered.",
        step="runs.waiting/join *",
        official=GONE,
    ),
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
