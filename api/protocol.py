"""Protocol v2 as clients read it: an envelope around what the log keeps, and what they ask to see.

`seq` grows over the whole thread, `event_id` stays the same however often an event is read. The
ids of what the server itself says name the run, since clients read it from there. Runs that were
started the older way are shown too, as far as the newer words reach.
"""

import json
from dataclasses import dataclass
from typing import Any

from clew.runtime import errors, wire
from clew.runtime.events import Event

CHANNELS = (
    "values",
    "updates",
    "messages",
    "tools",
    "lifecycle",
    "input",
    "checkpoints",
    "tasks",
    "custom",
)
# What a run that was started the older way still says in the newer words.
_LEGACY = {"metadata": "lifecycle", "end": "lifecycle", "values": "values", "updates": "updates"}


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a client asked to see of a thread."""

    channels: frozenset[str]
    named: frozenset[str]  # of custom events
    prefixes: tuple[tuple[str, ...], ...]
    depth: int | None

    def wants(self, name: str, ns: tuple[str, ...]) -> bool:
        """Whether an event may be shown, judged before anything is rendered."""
        channel = name.split(".", maxsplit=1)[0]
        if channel not in self.channels and _LEGACY.get(name) not in self.channels:
            return channel == "custom" and bool(self.named) and self.reaches(ns)
        return self.reaches(ns)

    def reaches(self, ns: tuple[str, ...]) -> bool:
        if not self.prefixes:
            return True
        return any(
            len(ns) >= len(prefix)
            and all(_same(a, b) for a, b in zip(prefix, ns, strict=False))
            and (self.depth is None or len(ns) - len(prefix) <= self.depth)
            for prefix in self.prefixes
        )


def _same(prefix: str, segment: str) -> bool:
    return segment == prefix or (":" not in prefix and segment.split(":", maxsplit=1)[0] == prefix)


def subscription(params: dict[str, Any]) -> Subscription:
    """Raises BadRequest with the texts that the official server uses."""
    channels = params.get("channels")
    if not isinstance(channels, list) or not channels:
        raise errors.BadRequest("channels is required and must be a non-empty array")
    plain = {channel for channel in channels if channel in CHANNELS}
    named = {str(c).removeprefix("custom:") for c in channels if str(c).startswith("custom:")}
    unknown = [str(c) for c in channels if c not in plain and not str(c).startswith("custom:")]
    if unknown:
        raise errors.BadRequest(
            f"channels contains unsupported entries: {', '.join(unknown)}. "
            f"Allowed: {', '.join(CHANNELS)}"
        )
    namespaces = params.get("namespaces") or []
    if not isinstance(namespaces, list) or not all(isinstance(ns, list) for ns in namespaces):
        raise errors.BadRequest("namespaces must be an array of arrays of strings")
    depth = params.get("depth")
    if depth is not None and (not isinstance(depth, int) or depth < 0):
        raise errors.BadRequest("depth must be a non-negative integer")
    prefixes = tuple(tuple(str(part) for part in ns) for ns in namespaces)
    return Subscription(frozenset(plain), frozenset(named), prefixes, depth)


class Reader:
    """Renders the events of one subscription, in order."""

    def __init__(self, wanted: Subscription) -> None:
        self._wanted = wanted
        self._failed: dict[str, str] = {}  # what ended a run of the older kind, until it is told

    def render(self, event: Event, seq: int | None = None) -> tuple[str, bytes] | None:
        """The method and the envelope; None where the newer words have nothing to say. `seq`: of
        the connection, where it is not the thread's."""
        method, data, node = event.name, event.data, event.node
        if event.protocol != "v2":
            translated = self._translate(event)
            if translated is None:
                return None
            method, data, node = translated
        if method == "custom" and not self._takes(data):
            return None
        if method == "checkpoints" and not event.past:
            data = _unnumbered(data)
        return method, envelope(event, method, data, node, seq)

    def _takes(self, data: bytes) -> bool:
        """Whether it is a custom event that was asked for, by its name or as all of them."""
        if "custom" in self._wanted.channels:
            return True
        return json.loads(data).get("name") in self._wanted.named

    def _translate(self, event: Event) -> tuple[str, bytes, str | None] | None:
        if event.name == "error":
            self._failed[event.run_id] = json.loads(event.data).get("message", "")
            return None
        if event.name == "metadata":
            return "lifecycle", b'{"event":"running"}', None
        if event.name == "end":
            told = json.loads(event.data)
            data: dict[str, Any] = {"event": told.get("outcome", "completed")}
            if event.run_id in self._failed:
                data["error"] = self._failed.pop(event.run_id)
            return "lifecycle", wire.encode(data), None
        if event.name == "updates":
            written = json.loads(event.data)
            node = next(iter(written), None)
            if node is None or node == "__interrupt__":
                return None
            return "updates", wire.encode(written[node]), node
        return ("values", event.data, None) if event.name == "values" else None


def _unnumbered(data: bytes) -> bytes:
    """A checkpoint without its step. Clients take a lower step than they have seen for a replay of
    the past, and would go on showing what was before a fork: so only what is past has its step."""
    shown = json.loads(data)
    shown.pop("step", None)
    return wire.encode(shown)


def envelope(
    event: Event, method: str, data: bytes, node: str | None, seq: int | None = None
) -> bytes:
    number = event.seq if seq is None else seq
    head = {"type": "event", "event_id": event_id(event, method, data), "seq": number}
    params: dict[str, object] = {"namespace": list(event.ns), "timestamp": event.at}
    if node is not None:
        params["node"] = node
    # The data is JSON already: it is put in place, not parsed and written again.
    outer = wire.encode({**head, "method": method})[:-1]
    return outer + b',"params":' + wire.encode(params)[:-1] + b',"data":' + data + b"}}"


def event_id(event: Event, method: str, data: bytes) -> str:
    kind = _SYNTHESIZED.get(method)
    if kind is None:
        return event.id
    short, key = kind
    return f"synth:{event.run_id}:{short}|{'|'.join(event.ns)}|{json.loads(data).get(key, '')}"


_SYNTHESIZED = {
    "lifecycle": ("lc", "event"),
    "input.requested": ("input", "interrupt_id"),
    "input.answered": ("answered", "interrupt_ids"),
    "checkpoints": ("checkpoint", "id"),
}


def raw(event: Event) -> bytes:
    """An event of a v2 run as the older streams show it."""
    return envelope(event, event.name, event.data, event.node)
