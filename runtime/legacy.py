"""A run's events in the words of the runs API: one for each stream mode that was asked for."""

from typing import Any

from langchain_core.messages import AIMessageChunk, BaseMessage, message_chunk_to_message

from clew.runtime.parts import INTERRUPT, Json, Ns, Parts, Point, without


class Legacy(Parts):
    _whole: dict[str, AIMessageChunk]

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._whole = {}
        self._told: set[str] = set()

    def state(self, ns: Ns, payload: Any) -> None:
        if "values" not in self._asked:
            return
        rest = state = payload
        if isinstance(payload, dict):
            rest = {INTERRUPT: payload[INTERRUPT]} if INTERRUPT in payload else {}
            state = {key: payload[key] for key in payload if key != INTERRUPT}
        ref = self.ref(ns, state)
        if ref is None:
            self.write("values", payload, ns)
        else:
            self.refer("values", ref, rest, lambda: payload, ns)

    def checkpoint(self, ns: Ns, point: Point, payload: Json) -> None:
        if "checkpoints" in self._asked:
            self._refer_within("checkpoints", _told(payload), ("values",), ns)

    def updates(self, ns: Ns, payload: Any) -> None:
        if "updates" in self._asked:
            self.write("updates", payload, ns)
        elif "values" not in self._asked and isinstance(payload, dict) and payload.get(INTERRUPT):
            # A question is told to everyone.
            self.write("values", payload, ns)

    def custom(self, ns: Ns, payload: Any) -> None:
        self.write("custom", payload, ns)

    def tasks(self, ns: Ns, payload: Json) -> None:
        if "input" in payload:
            self._refer_within("tasks", payload, ("input",), ns)
        else:
            self.write("tasks", payload, ns)

    def debug(self, ns: Ns, payload: Json) -> None:
        inner = {"checkpoint": "values", "task": "input"}.get(payload["type"])
        if payload["type"] == "checkpoint":
            shown = _told(payload["payload"])
            more = {
                "checkpoint": _place(shown["config"]),
                "parent_checkpoint": _place(shown["parent_config"]),
                "tasks": [_task(task) for task in shown["tasks"]],
            }
            payload = {**payload, "payload": {**shown, **more}}
        if inner is None:
            self.write("debug", payload, ns)
        else:
            self._refer_within("debug", payload, ("payload", inner), ns)

    def tools(self, ns: Ns, payload: Json) -> None:
        event = _TOOL_EVENTS.get(payload["event"], payload["event"])
        shown = {"event": event, "toolCallId": payload["tool_call_id"]}
        for ours, theirs in _TOOL_FIELDS.items():
            if ours in payload:
                shown[theirs] = payload[ours]
        self.write("tools", shown, ns)

    def messages(self, ns: Ns, payload: tuple[BaseMessage, Json]) -> None:
        item, metadata = payload
        node = metadata.get("langgraph_node")
        if "messages-tuple" in self._asked:
            self.write("messages", [item, metadata], ns, node)
            return
        key = item.id or ""
        if key not in self._told:
            self._told.add(key)
            self.write("messages/metadata", {key: {"metadata": metadata}}, ns, node)
        if isinstance(item, AIMessageChunk):
            whole = self._whole[key] + item if key in self._whole else item
            self._whole[key] = whole
            self.write("messages/partial", [message_chunk_to_message(whole)], ns, node)
        else:
            self.write("messages/complete", [item], ns, node)

    def _refer_within(self, name: str, payload: Json, path: Ns, ns: Ns) -> None:
        """Write an event that has a state somewhere inside."""
        inner = payload
        for step in path[:-1]:
            inner = inner[step]
        state = inner[path[-1]]
        ref = self.ref(ns, state, path)
        if ref is None:
            self.write(name, payload, ns)
        else:
            self.refer(name, ref, without(payload, path), lambda: payload, ns)


_TOOL_EVENTS = {
    "tool-started": "on_tool_start",
    "tool-output-delta": "on_tool_event",
    "tool-finished": "on_tool_end",
    "tool-error": "on_tool_error",
}
_TOOL_FIELDS = {
    "tool_name": "name",
    "input": "input",
    "delta": "data",
    "output": "output",
    "message": "error",
}


def _task(task: Json) -> Json:
    """A task of a checkpoint, with where its subgraph is in place of that one's config."""
    config = task.get("state")
    if not isinstance(config, dict) or "configurable" not in config:
        return task
    return {**without(task, ("state",)), "checkpoint": _place(config)}


# Of a config, what says where and what; never who asked, or what they gave the graph in confidence.
_OPEN = (
    *("thread_id", "checkpoint_ns", "checkpoint_id", "checkpoint_map"),
    *("run_id", "graph_id", "assistant_id", "user_id"),
)


def _told(checkpoint: Json) -> Json:
    """A checkpoint as it is told, with what of its configs is for everyone."""
    shown = dict(checkpoint)
    for name in ("config", "parent_config"):
        config: Json | None = checkpoint.get(name)
        if config is not None:
            configurable: Json = config["configurable"]
            shown[name] = {
                "configurable": {key: configurable[key] for key in _OPEN if key in configurable}
            }
    return shown


def _place(config: Json | None) -> Json | None:
    if config is None:
        return None
    configurable: Json = config["configurable"]
    keys = ("thread_id", "checkpoint_ns", "checkpoint_id", "checkpoint_map")
    return {key: configurable[key] for key in keys if configurable.get(key) is not None}
