"""No documented field is accepted and ignored: each field of a request of the Agent Server
protocol, and each parameter of its queries, has a test in which it changes something or is
refused, or a reason why there is nothing for it to change."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from clew.api import assistants, crons, schema, store
from tests import routes

HERE = Path(__file__).parent
MODULES = {module.__name__ for module in (assistants, crons, schema, store)}
NESTED = (schema.Checkpoint, schema.Ttl, schema.Command)
TAGS = {"system", "assistants", "threads", "runs", "crons", "store", "protocol v2"}


class Reason(str):
    """Why a field changes nothing."""

    __slots__ = ()


THREADS, RUNS = "sdk/test_threads.py::test_", "sdk/test_runs.py::test_"
ASSISTANTS, CRONS = "sdk/test_assistants.py::test_", "sdk/test_crons.py::test_"
STORE, OPTIONS = "sdk/test_store.py::test_", "sdk/test_options.py::test_"
DIVERGENCES, REFUSALS = "sdk/test_divergences.py::test_", "sdk/test_refusals.py::test_"

_MADE = THREADS + "a_thread_is_made_and_read"
_FOUND = THREADS + "threads_are_found_by_what_they_are_and_hold"
_VALUES = THREADS + "threads_are_found_by_their_values"
_STATE = THREADS + "the_state_is_read_now_and_as_it_was"
_PAGED = THREADS + "the_history_is_paged_and_filtered"
_EDITED = THREADS + "the_state_is_changed_now_and_in_the_past"
_PRUNED = THREADS + "threads_are_pruned_to_their_last_checkpoint_or_deleted"
_WITHIN = THREADS + "the_state_of_a_subgraph_is_read_on_its_own_and_within"
_JOINED = RUNS + "a_stream_is_joined_from_the_start_from_an_event_and_from_now"
_BEGUN = RUNS + "runs_stop_before_and_after_nodes_and_begin_at_checkpoints"
_LISTED = RUNS + "runs_are_listed_newest_first"
_LEFT = OPTIONS + "a_reader_that_leaves_takes_its_run_along_where_that_was_asked"
_MANY = RUNS + "many_runs_are_stopped_at_once"
_COMMAND = OPTIONS + "every_option_of_a_command_is_carried_out"
_A_MADE = ASSISTANTS + "an_assistant_is_made_and_read"
_A_CHANGED = ASSISTANTS + "an_update_is_a_version_and_versions_can_be_gone_back_to"
_A_FOUND = ASSISTANTS + "assistants_are_found_page_by_page_and_counted"
_C_MADE = CRONS + "a_cron_is_made_of_a_schedule_and_a_request"
_C_CHANGED = CRONS + "a_cron_is_changed_and_deleted"
_C_FOUND = CRONS + "crons_are_found_and_counted"
_C_FIRED = OPTIONS + "what_a_cron_is_asked_for_reaches_its_runs"
_C_MORE = OPTIONS + "a_cron_takes_context_and_the_older_word_for_durability"
_KEPT = STORE + "an_item_is_kept_and_read"
_BELOW = STORE + "items_are_found_below_a_namespace"
_SPACES = STORE + "namespaces_are_listed"

SHOWN: dict[str, dict[str, str]] = {
    "ThreadCreate": {
        "thread_id": _MADE,
        "metadata": _MADE,
        "if_exists": _MADE,
        "ttl": _MADE,
        "supersteps": THREADS + "a_thread_is_made_with_a_history_of_its_own",
    },
    "ThreadPatch": {
        "metadata": THREADS + "metadata_is_merged_and_a_life_is_set",
        "ttl": THREADS + "metadata_is_merged_and_a_life_is_set",
    },
    "ThreadSearch": {
        **dict.fromkeys(
            ("ids", "metadata", "status", "limit", "offset", "sort_by", "sort_order"), _FOUND
        ),
        **dict.fromkeys(("select", "extract"), _FOUND),
        "values": _VALUES,
    },
    "ThreadCount": {"metadata": _FOUND, "status": _FOUND, "values": _VALUES},
    "ThreadPrune": {"thread_ids": _PRUNED, "strategy": _PRUNED},
    "StateUpdate": {
        "values": _EDITED,
        "as_node": _EDITED,
        "checkpoint": _EDITED,
        "checkpoint_id": _EDITED,
    },
    "StateQuery": {"checkpoint": _STATE, "select": _STATE, "subgraphs": _WITHIN},
    "HistoryQuery": {
        **dict.fromkeys(("limit", "before", "metadata", "select"), _PAGED),
        "checkpoint": _WITHIN,
    },
    "RunCreate": {
        "assistant_id": REFUSALS + "what_cannot_be_done_on_a_thread_is_refused_in_the_usual_words",
        "input": RUNS + "a_run_streams_and_says_who_it_is",
        "command": RUNS + "a_question_is_told_and_answered",
        "stream_mode": RUNS + "every_stream_mode_streams",
        "stream_subgraphs": RUNS + "subgraphs_stream_under_their_own_names",
        "stream_resumable": DIVERGENCES + "every_event_of_a_run_has_an_id_to_resume_by",
        "on_disconnect": _LEFT,
        "multitask_strategy": RUNS + "two_turns_at_once_are_settled_as_asked",
        "if_not_exists": RUNS + "a_run_is_waited_for",
        "on_completion": RUNS + "a_run_without_a_thread_streams_and_leaves_nothing",
        "config": RUNS + "context_and_durability_reach_the_graph_and_its_history",
        "context": RUNS + "context_and_durability_reach_the_graph_and_its_history",
        "checkpoint": _BEGUN,
        "checkpoint_id": _BEGUN,
        "interrupt_before": _BEGUN,
        "interrupt_after": _BEGUN,
        "metadata": RUNS + "a_run_streams_and_says_who_it_is",
        "webhook": "test_webhooks.py::test_the_end_of_a_run_is_told_with_what_it_left",
        "after_seconds": RUNS + "a_run_begins_later_where_it_is_asked_to",
        "durability": RUNS + "context_and_durability_reach_the_graph_and_its_history",
        "checkpoint_during": OPTIONS + "the_older_word_for_durability_counts",
        "feedback_keys": DIVERGENCES + "what_needs_langsmith_is_refused_by_name",
        "langsmith_tracer": DIVERGENCES + "what_needs_langsmith_is_refused_by_name",
        "strict_resume": RUNS + "a_resume_that_is_strict_needs_a_question_that_waits",
    },
    "CancelMany": {"thread_id": _MANY, "run_ids": _MANY, "status": _MANY},
    "Checkpoint": {
        "thread_id": Reason("the path says which thread; clients repeat it here"),
        "checkpoint_ns": _WITHIN,
        "checkpoint_id": OPTIONS + "a_checkpoint_of_a_subgraph_is_found_by_its_map",
        "checkpoint_map": OPTIONS + "a_checkpoint_of_a_subgraph_is_found_by_its_map",
    },
    "Ttl": {"ttl": _MADE, "strategy": _MADE},
    "Command": {"update": _COMMAND, "resume": _COMMAND, "goto": _COMMAND},
    "assistants.Create": {
        "graph_id": REFUSALS + "a_bad_request_is_refused_in_the_usual_words",
        **dict.fromkeys(
            ("assistant_id", "config", "metadata", "if_exists", "name", "description"), _A_MADE
        ),
        "context": _A_MADE,
    },
    "assistants.Patch": dict.fromkeys(
        ("graph_id", "config", "context", "metadata", "name", "description"), _A_CHANGED
    ),
    "assistants.Count": dict.fromkeys(("metadata", "graph_id", "name"), _A_FOUND),
    "assistants.Search": dict.fromkeys(
        ("metadata", "graph_id", "name", "limit", "offset", "sort_by", "sort_order", "select"),
        _A_FOUND,
    ),
    "assistants.Versions": {
        "metadata": OPTIONS + "versions_are_found_by_their_metadata",
        "limit": _A_CHANGED,
        "offset": _A_CHANGED,
    },
    "assistants.Latest": {"version": _A_CHANGED},
    "crons.Asked": {
        **dict.fromkeys(
            ("input", "config", "interrupt_before", "interrupt_after", "stream_mode"), _C_FIRED
        ),
        **dict.fromkeys(("stream_subgraphs", "durability", "multitask_strategy"), _C_FIRED),
        "metadata": _C_FIRED,
        "context": _C_MORE,
        "checkpoint_during": _C_MORE,
        "stream_resumable": Reason("every run can be resumed by the ids of its events"),
        "webhook": "test_webhooks.py::test_a_cron_s_run_is_told_as_any_other",
        "timezone": _C_MADE,
        "end_time": _C_MADE,
        "enabled": _C_MADE,
    },
    "crons.CreateOnThread": {"schedule": _C_FIRED, "assistant_id": _C_FIRED},
    "crons.Create": {"on_run_completed": _C_MADE},
    "crons.Patch": {
        "schedule": _C_CHANGED,
        "on_run_completed": (
            "test_crons.py::test_the_official_client_makes_finds_changes_and_deletes_crons"
        ),
    },
    "crons.Count": dict.fromkeys(("assistant_id", "thread_id", "metadata"), _C_FOUND),
    "crons.Search": dict.fromkeys(
        ("enabled", "limit", "offset", "sort_by", "sort_order", "select"), _C_FOUND
    ),
    "store.Put": {
        **dict.fromkeys(
            ("namespace", "key", "value"), REFUSALS + "a_bad_request_is_refused_in_the_usual_words"
        ),
        "index": "test_store_routes.py::test_the_official_client_uses_every_route",
        "ttl": _KEPT,
    },
    "store.Delete": dict.fromkeys(
        ("namespace", "key"), "test_store_routes.py::test_bad_requests_say_what_is_wrong"
    ),
    "store.Search": {
        "namespace_prefix": DIVERGENCES + "a_search_of_the_store_needs_no_namespace",
        **dict.fromkeys(("filter", "limit", "offset", "query", "refresh_ttl"), _BELOW),
    },
    "store.Listing": dict.fromkeys(("prefix", "suffix", "max_depth", "limit", "offset"), _SPACES),
}

_OTHERS = "a_run_without_a_thread_can_be_read_and_joined"
PARAMETERS: dict[str, str] = {
    "GET /metrics format": "test_telemetry.py::test_metrics_are_served_as_text_and_as_json",
    "GET /ok check_db": "test_slice.py::test_ok_and_info_answer_without_asking_who_calls",
    "DELETE /assistants/{assistant_id} delete_threads": (
        ASSISTANTS + "an_assistant_goes_and_takes_its_threads_where_asked"
    ),
    "GET /assistants/{name}/graph xray": (
        ASSISTANTS + "a_graph_is_drawn_by_its_name_and_by_its_assistant"
    ),
    "GET /assistants/{assistant_id}/subgraphs recurse": (
        ASSISTANTS + "subgraphs_are_told_with_their_schemas"
    ),
    "GET /assistants/{assistant_id}/subgraphs namespace": (
        ASSISTANTS + "subgraphs_are_told_with_their_schemas"
    ),
    "GET /assistants/{assistant_id}/subgraphs/{namespace} recurse": (
        ASSISTANTS + "subgraphs_are_told_with_their_schemas"
    ),
    "GET /threads/{thread_id} include": _MADE,
    "PATCH /threads/{thread_id} prefer": THREADS + "metadata_is_merged_and_a_life_is_set",
    "GET /threads/{thread_id}/stream stream_mode": (
        THREADS + "the_stream_of_a_thread_may_tell_only_of_runs_or_of_edits"
    ),
    "GET /threads/{thread_id}/stream stream_modes": (
        DIVERGENCES + "the_modes_of_a_thread_s_stream_go_by_either_name"
    ),
    "GET /threads/{thread_id}/stream last-event-id": (
        THREADS + "the_stream_of_a_thread_tells_of_every_run_again"
    ),
    "GET /threads/{thread_id}/state select": _STATE,
    "GET /threads/{thread_id}/state subgraphs": _WITHIN,
    "GET /threads/{thread_id}/state/{checkpoint_id} select": _STATE,
    "GET /threads/{thread_id}/state/{checkpoint_id} subgraphs": (
        OPTIONS + "an_older_state_too_is_read_with_what_is_within"
    ),
    "GET /threads/{thread_id}/history limit": OPTIONS + "history_is_also_had_by_a_get",
    "GET /threads/{thread_id}/history before": OPTIONS + "history_is_also_had_by_a_get",
    **{
        f"GET /threads/{{thread_id}}/runs {name}": _LISTED
        for name in ("limit", "offset", "status", "select")
    },
    "GET /threads/{thread_id}/runs/{run_id}/join cancel_on_disconnect": _LEFT,
    "GET /threads/{thread_id}/runs/{run_id}/stream cancel_on_disconnect": _LEFT,
    **{
        f"{path} namespace": OPTIONS + "a_stream_tells_only_of_the_namespaces_that_were_asked_for"
        for path in (
            *("POST /threads/{thread_id}/runs/stream", "POST /runs/stream"),
            *("GET /threads/{thread_id}/runs/{run_id}/stream", "GET /runs/{run_id}/stream"),
        )
    },
    **{
        f"{path} checkpoint_id": OPTIONS + "who_shows_a_checkpoint_is_told_what_came_after_it"
        for path in ("GET /threads/{thread_id}/runs/{run_id}/stream", "GET /runs/{run_id}/stream")
    },
    "GET /threads/{thread_id}/runs/{run_id}/stream stream_mode": _JOINED,
    "GET /threads/{thread_id}/runs/{run_id}/stream last-event-id": _JOINED,
    "GET /runs/{run_id}/stream stream_mode": DIVERGENCES + _OTHERS,
    "GET /runs/{run_id}/stream cancel_on_disconnect": _LEFT,
    "GET /runs/{run_id}/stream last-event-id": DIVERGENCES + _OTHERS,
    "POST /threads/{thread_id}/runs/{run_id}/cancel wait": (
        RUNS + "a_run_is_stopped_and_its_thread_stays_usable"
    ),
    "POST /threads/{thread_id}/runs/{run_id}/cancel action": (
        RUNS + "a_run_that_is_rolled_back_was_never_there"
    ),
    "POST /threads/{thread_id}/runs/{run_id}/cancel reason": (
        OPTIONS + "a_reason_for_stopping_is_kept"
    ),
    "POST /runs/cancel action": (
        OPTIONS + "many_are_stopped_by_their_status_and_rolled_back_where_asked"
    ),
    "GET /store/items key": REFUSALS + "a_bad_request_is_refused_in_the_usual_words",
    "GET /store/items namespace": REFUSALS + "a_bad_request_is_refused_in_the_usual_words",
    "GET /store/items refresh_ttl": _KEPT,
}
# What a client calls what the wire calls otherwise.
SAID = {
    "thread_ids": r"\.prune\(\[",
    "prefer": "return_minimal",
    "include": "include=",
    "last-event-id": "last_event_id|Last-Event-ID",
    "graph_id": r'graph_id|"GET", "/assistants|_A_',
    "key": "key",
    "namespace": "namespace",
}


def models() -> list[type[BaseModel]]:
    def under(kind: type[BaseModel]) -> list[type[BaseModel]]:
        return [found for leaf in kind.__subclasses__() for found in (leaf, *under(leaf))]

    return [*(kind for kind in under(schema.Body) if kind.__module__ in MODULES), *NESTED]


def name_of(kind: type[BaseModel]) -> str:
    module = kind.__module__.rpartition(".")[2]
    return kind.__name__ if module == "schema" else f"{module}.{kind.__name__}"


def fields() -> list[tuple[str, str]]:
    """Each field of each model, where it is declared."""
    return [
        (name_of(kind), name)
        for kind in models()
        for name in kind.model_fields
        if name in kind.__annotations__
    ]


def parameters() -> list[str]:
    """Each parameter of each query, and each header that counts."""
    found: list[str] = []
    paths: dict[str, Any] = routes.application().openapi()["paths"]
    for path, methods in paths.items():
        for method, operation in methods.items():
            if (operation.get("tags") or ["system"])[0] not in TAGS:
                continue
            found += [
                f"{method.upper()} {path} {parameter['name']}"
                for parameter in operation.get("parameters", ())
                if parameter["in"] in ("query", "header")
            ]
    return found


@cache
def source(test: str) -> str:
    """What a test says, with the table it is run over."""
    file, _, name = test.partition("::")
    text = (HERE / file).read_text()
    whole = re.search(
        rf"^(?:async )?def {name}\(.*?(?=^(?:async )?def |^@|\Z)", text, re.DOTALL | re.MULTILINE
    )
    assert whole is not None, f"there is no test {test}"
    before = text[: whole.start()].rpartition("\n\n\n")[2]
    table = re.search(r"parametrize\(.*?, (\w+)\)", before)
    more = ""
    if table is not None:
        listed = re.search(rf"^{table[1]} = \[.*?^\]", text, re.DOTALL | re.MULTILINE)
        more = listed[0] if listed else ""
    return before + whole[0] + more


def shows(test: str, field: str) -> bool:
    return re.search(SAID.get(field, rf"\b{field}\b"), source(test)) is not None


@pytest.mark.parametrize(("model", "field"), fields())
def test_every_field_of_a_request_is_shown_to_matter(model: str, field: str) -> None:
    test = SHOWN.get(model, {}).get(field)
    assert test, f"{model}.{field} has neither a test nor a reason"
    assert isinstance(test, Reason) or shows(test, field), f"{test} does not speak of {field}"


@pytest.mark.parametrize("parameter", parameters())
def test_every_parameter_of_a_query_is_shown_to_matter(parameter: str) -> None:
    test = PARAMETERS.get(parameter)
    assert test, f"{parameter} has neither a test nor a reason"
    field = parameter.rpartition(" ")[2]
    assert isinstance(test, Reason) or shows(test, field), f"{test} does not speak of {field}"


def test_nothing_is_shown_that_is_not_there() -> None:
    known = set(fields())
    said = {(model, field) for model, table in SHOWN.items() for field in table}
    inherited = {(name_of(kind), name) for kind in models() for name in kind.model_fields}
    assert said <= known | inherited
    assert PARAMETERS.keys() <= set(parameters())
