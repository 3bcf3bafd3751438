"""A run's events in the words of protocol v2: lifecycles, content blocks, tools, checkpoints."""

from functools import partial
from typing import Any, cast

from langchain_core.messages import AIMessageChunk, BaseMessage

from clew.runtime import blocks
from clew.runtime.parts import INTERRUPT, Json, Ns, Parts, Point, without


class V2(Parts):
    checkpoint_first = True

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._growing: dict[tuple[Ns, str | None], blocks.Growing] = {}
        self._open: dict[Ns, str] = {}  # subgraphs under way, with the task that each runs in
        self._seen: set[Ns] = set()
        self._causes: dict[str, str] = {}  # tool calls by the task that runs them

    def end(self) -> None:
        super().end()
        for key in list(self._growing):
            self._finish(key)

    def close(self, event: str) -> None:
        """How subgraphs ended whose end nobody told."""
        for ns in list(self._open):
            del self._open[ns]
            self.write("lifecycle", {"event": event, "namespace": ns}, ns)

    def state(self, ns: Ns, payload: Any) -> None:
        state = payload
        if isinstance(payload, dict) and INTERRUPT in payload:
            state = {key: payload[key] for key in payload if key != INTERRUPT}
        ref = self.ref(ns, state)
        if ref is None:
            self.write("values", blocks.plain(state), ns)
        else:
            self.refer("values", ref, {}, lambda: blocks.plain(state), ns)

    def checkpoint(self, ns: Ns, point: Point, payload: Json) -> None:
        if not self._stored:
            return
        shown: Json = {
            "id": point.id,
            "step": point.metadata.get("step"),
            "source": point.metadata.get("source"),
        }
        if point.parent_id:
            shown["parent_id"] = point.parent_id
        self.write("checkpoints", shown, ns)

    def updates(self, ns: Ns, payload: Any) -> None:
        if isinstance(payload, dict) and INTERRUPT in payload:
            return
        for node, values in cast("Json", payload).items():
            self.write("updates", {"node": node, "values": blocks.plain(values)}, ns, node)

    def custom(self, ns: Ns, payload: Any) -> None:
        # What names itself can be subscribed to by its name.
        name = cast("Json", payload).get("name") if isinstance(payload, dict) else None
        named = {"name": name} if isinstance(name, str) and name else {}
        self.write("custom", {**named, "payload": payload}, ns)

    def tasks(self, ns: Ns, payload: Json) -> None:
        if "input" in payload:
            self._began(ns, payload)
            ref = self.ref(ns, payload["input"], ("input",))
            rest = without(payload, ("input",))
            if ref is None:
                self.write("tasks", {**rest, "input": blocks.plain(payload["input"])}, ns)
            else:
                self.refer("tasks", ref, rest, partial(_given, rest, payload), ns)
            return
        self.write("tasks", blocks.plain(payload), ns)
        status = "interrupted" if payload.get("interrupts") else "completed"
        if payload.get("error"):
            status = "failed"
        for inner, task in list(self._open.items()):
            if inner[:-1] == ns and task == payload["id"]:
                del self._open[inner]
                self.write("lifecycle", {"event": status, "namespace": inner}, inner)

    def tools(self, ns: Ns, payload: Json) -> None:
        output = payload.get("output")
        self.write("tools", blocks.plain(payload), ns)
        if payload["event"] == "tool-finished" and isinstance(output, BaseMessage):
            inner = (*ns, f"tools:{payload['tool_call_id']}")
            for event in blocks.whole(output):
                self.write("messages", event, inner)

    def messages(self, ns: Ns, payload: tuple[BaseMessage, Json]) -> None:
        item, metadata = payload
        node: str | None = metadata.get("langgraph_node")
        key = (ns, node)
        growing = self._growing.get(key)
        if growing is not None and growing.id != item.id:
            self._finish(key)
            growing = None
        if not isinstance(item, AIMessageChunk):
            if item.type != "tool":  # tool results are told with their calls
                for event in blocks.whole(item):
                    self.write("messages", event, ns, node)
            return
        if growing is None:
            growing = self._growing[key] = blocks.Growing(item)
            self.write("messages", growing.start(item), ns, node)
        for event in growing.add(item):
            self.write("messages", event, ns, node)
        if item.chunk_position == "last":
            self._finish(key)

    def _finish(self, key: tuple[Ns, str | None]) -> None:
        for event in self._growing.pop(key).finish():
            self.write("messages", event, *key)

    def _began(self, ns: Ns, payload: Json) -> None:
        call = _call_of(payload["input"])
        if call is not None:
            self._causes[payload["id"]] = call
        if not ns or ns in self._seen:
            return
        self._seen.add(ns)
        name, _, task = ns[-1].partition(":")
        if not task:
            return
        agent = (payload.get("metadata") or {}).get("lc_agent_name")
        shown: Json = {
            "event": "started",
            "namespace": ns,
            "graph_name": agent or name,
            "trigger_call_id": task,
        }
        if agent and task in self._causes:
            shown["cause"] = {"type": "toolCall", "tool_call_id": self._causes[task]}
        self._open[ns] = task
        self.write("lifecycle", shown, ns)


def _given(rest: Json, payload: Json) -> Json:
    return {**rest, "input": blocks.plain(payload["input"])}


def _call_of(given: Any) -> str | None:
    """The tool call that a task was made for."""
    if isinstance(given, dict):
        call = cast("Json", given).get("tool_call")
        return cast("Json", call).get("id") if isinstance(call, dict) else None
    if isinstance(given, list):
        for item in cast("list[Any]", given):
            if isinstance(item, dict) and isinstance(cast("Json", item).get("id"), str):
                return cast("Json", item)["id"]
    return None
