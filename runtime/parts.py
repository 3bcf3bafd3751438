"""From what LangGraph streams to the events of a run, in the words of its protocol.

A whole state is not written again where its checkpoint has it: the event then refers to the
checkpoint, which LangGraph tells right after the state. What is in an event is what the graph had
at that moment, down to the object: a state that differs is written out.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from langgraph.types import Interrupt

from clew.runtime import wire
from clew.runtime.events import Ref
from clew.runtime.tape import Tape

Json = dict[str, Any]
Ns = tuple[str, ...]

INTERRUPT = "__interrupt__"
# A session whose state is larger than this is encoded only for those who listen.
SMALL = 32 * 1024
V2_MODES = ("messages", "custom", "tasks", "tools")


def modes(protocol: str, asked: Sequence[str]) -> list[str]:
    """The stream modes to run the graph with. States, updates and checkpoints are always followed:
    what a run leaves behind is read from them."""
    wanted = V2_MODES if protocol == "v2" else asked
    found = {"messages" if mode == "messages-tuple" else mode for mode in wanted} - {"events"}
    return sorted(found | {"values", "updates", "checkpoints"})


class Point:
    """The last checkpoint of a namespace that LangGraph told, with the state it holds."""

    def __init__(self, payload: Json) -> None:
        configurable = payload["config"]["configurable"]
        self.id: str = configurable["checkpoint_id"]
        self.ns: str = configurable.get("checkpoint_ns", "")
        self.values: Any = payload["values"]
        parent = payload.get("parent_config") or {}
        self.parent_id: str | None = (parent.get("configurable") or {}).get("checkpoint_id")
        self.metadata: Json = payload["metadata"]

    def holds(self, state: Any) -> bool:
        """Whether every channel of this state is the very object that the checkpoint holds."""
        if not isinstance(state, Mapping) or not isinstance(self.values, Mapping):
            return False
        held = cast("Mapping[str, Any]", self.values)
        return all(
            key in held and _same(value, held[key])
            for key, value in cast("Mapping[str, Any]", state).items()
        )


class Parts:
    """Takes the parts that a graph streams and writes events; also keeps what the end of the run
    will need to know."""

    checkpoint_first = False

    def __init__(
        self,
        tape: Tape,
        wrote: Callable[[Tape], None],
        asked: Sequence[str],
        *,
        stored: bool,
        edited: bool,
    ) -> None:
        """`stored`: every checkpoint is. `edited`: the run starts by editing the state it finds, so
        that its first state is in no checkpoint."""
        self._tape = tape
        self._wrote = wrote
        self._asked = frozenset(asked)
        self._stored = stored
        self._found: str | None = "" if edited else None
        self._points: dict[Ns, Point] = {}
        self._held: dict[Ns, Json] = {}
        self._small = True
        self.values: Any = None  # the last state of the root
        self.next: Sequence[str] = ()
        self.paused = False
        self.namespaces: dict[str, Ns] = {}  # of interrupts, the innermost

    def take(self, ns: Ns, mode: str, payload: Any) -> None:
        if mode == "values":
            self._release(ns)
            if not ns:
                self.values = payload
            if self._stored:
                self._held[ns] = payload  # its checkpoint is told right after it
            else:
                self.state(ns, payload)
            return
        if mode == "checkpoints":
            point = self._points[ns] = Point(payload)
            if not ns:
                self.next = payload["next"]
            if self.checkpoint_first:
                self.checkpoint(ns, point, payload)
            self._release(ns)
            if not self.checkpoint_first:
                self.checkpoint(ns, point, payload)
            return
        self._release(ns)
        if mode == "updates":
            self._notice(ns, payload)
        getattr(self, mode)(ns, payload)

    def event(self, payload: Any) -> None:
        """What some part of the graph did, where that is followed too."""
        self.write("events", payload)

    def end(self) -> None:
        """Nothing more comes."""
        for ns in list(self._held):
            self._release(ns)

    async def room(self) -> None:
        """Wait while more has been streamed than the log takes."""
        await self._tape.room()

    def _release(self, ns: Ns) -> None:
        if ns in self._held:
            self.state(ns, self._held.pop(ns))

    def _notice(self, ns: Ns, payload: Any) -> None:
        if not isinstance(payload, dict) or INTERRUPT not in payload:
            return
        self.paused = True
        for item in cast("Sequence[Interrupt]", payload[INTERRUPT]):
            if len(ns) >= len(self.namespaces.get(item.id, ())):
                self.namespaces[item.id] = ns

    def ref(self, ns: Ns, state: Any, path: Ns = ()) -> Ref | None:
        point = self._points.get(ns)
        if not self._stored or point is None or not point.holds(state):
            return None
        if not ns and self._found is not None:
            # The first checkpoint told is the one that was found, before it was edited.
            self._found = self._found or point.id
            if self._found == point.id:
                return None
        blanks = {key: _blank(value) for key, value in state.items() if _is_blank(value)}
        return Ref(point.id, point.ns, tuple(state), path, blanks)

    def write(self, name: str, data: Any, ns: Ns = (), node: str | None = None) -> None:
        self._tape.append(name, wire.encode(data), ns=ns, node=node)
        self._wrote(self._tape)

    def refer(self, name: str, ref: Ref, rest: Json, full: Callable[[], Any], ns: Ns) -> None:
        """Write an event whose state is in a checkpoint."""
        data: bytes | None = None
        if self._tape.readers or self._small:
            data = wire.encode(full())
            self._small = len(data) < SMALL
        self._tape.append(name, data, ns=ns, ref=ref, rest=wire.encode(rest) if rest else b"")
        self._wrote(self._tape)

    # What the protocols say of each.

    def state(self, ns: Ns, payload: Any) -> None:
        raise NotImplementedError

    def checkpoint(self, ns: Ns, point: Point, payload: Json) -> None:
        raise NotImplementedError


def _is_blank(value: Any) -> bool:
    return isinstance(value, list | dict | tuple | str | int | float | set | None) and not value


def _blank(value: Any) -> Any:
    return [] if isinstance(value, tuple | set) else value


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    # Some channels make a new list of the same items each time they are read.
    return (
        isinstance(one, list)
        and isinstance(other, list)
        and len(cast("list[Any]", one)) == len(cast("list[Any]", other))
        and all(
            a is b for a, b in zip(cast("list[Any]", one), cast("list[Any]", other), strict=True)
        )
    )


def without(payload: Json, path: Ns) -> Json:
    """The payload less what is at the end of a path."""
    first, *more = path
    if not more:
        return {key: value for key, value in payload.items() if key != first}
    return {**payload, first: without(payload[first], tuple(more))}
