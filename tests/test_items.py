"""The item log: what is stored twice, what is not, and when a list stops being a log."""

import secrets
from collections.abc import Callable
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from clew.checkpointing import codec, items, manifest, prints
from clew.checkpointing.errors import Unserializable
from clew.checkpointing.items import New
from clew.checkpointing.manifest import Kind, Layout, Place, Range
from clew.checkpointing.postgres import SERVICE, Principal
from clew.checkpointing.tracks import Memory, Track

SERDE = JsonPlusSerializer()
LONG = secrets.token_hex(200)  # incompressible, as large as a short message


class Log:
    """A channel as the saver writes it, and as it would be read back."""

    def __init__(self) -> None:
        self.track = Track(0, 0, 1)
        self.stored: dict[int, bytes] = {}
        self.version = 0
        self.place = Place(Kind.ABSENT)

    def put(self, value: list[Any]) -> int:
        """How many items that took."""
        self.version += 1
        new = New()
        self.place = items.store(SERDE, self.track, new, "", "c", str(self.version), value)
        for number, body in zip(new.numbers, new.bodies, strict=True):
            assert number not in self.stored
            self.stored[number] = body
        for (_, channel), last in new.learnt:
            self.track.learn("", channel, last)
        return len(new.bodies)

    def get(self) -> list[Any]:
        parts = [
            codec.load(SERDE, self.stored[r.first + i])
            for r in self.place.ranges
            for i in range(r.size)
        ]
        return parts[0] if self.place.kind == Kind.VALUE else parts


def test_an_appended_list_is_stored_once() -> None:
    log = Log()
    messages = [HumanMessage(f"{n} {LONG}") for n in range(50)]
    written = [log.put(messages[:n]) for n in range(1, 51)]
    assert sum(written) == 50
    assert len(log.place.ranges) == 1
    assert log.get() == messages


def test_a_message_edited_in_place_is_stored_again_and_no_other() -> None:
    log = Log()
    messages = [HumanMessage(f"{n} {LONG}") for n in range(20)]
    log.put(messages)
    messages[7].content = "edited"
    messages[9].additional_kwargs["deep"] = {"er": [1]}
    assert log.put(messages) == 2
    assert log.get() == messages


@pytest.mark.parametrize("at", [0, 31, 32, 63, 64, 98, 99])
def test_an_edit_deep_in_an_old_message_is_noticed_wherever_it_is(at: int) -> None:
    log = Log()
    messages = [
        AIMessage(f"{n} {LONG}", additional_kwargs={"a": {"b": [{"c": True}]}}) for n in range(99)
    ]
    log.put(messages)
    messages.append(AIMessage("new", additional_kwargs={"a": {"b": [{"c": True}]}}))
    assert log.put(messages) == 1
    messages[at].additional_kwargs["a"]["b"][0]["c"] = (
        1  # equal to what was there, and not the same
    )
    assert log.put(messages) == 1
    assert log.get()[at].additional_kwargs["a"]["b"][0]["c"] is not True
    assert log.put(messages) == 0


def test_elements_that_only_the_serializer_understands_are_stored_once() -> None:
    log = Log()
    elements: list[Any] = [{"flag": Flag.ON, "n": n} for n in range(70)]
    assert log.put(elements) == 70
    elements[40]["n"] = "edited"
    elements.append({"at": float("nan")})
    assert log.put(elements) == 2
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(Unserializable):
        log.put([*elements, loop])


def test_a_list_cut_at_its_front_stores_nothing() -> None:
    log = Log()
    messages = [AIMessage(f"{n} {LONG}") for n in range(20)]
    log.put(messages)
    assert log.put(messages[5:]) == 0
    assert log.put(messages[5:9] + messages[12:]) == 0
    assert len(log.place.ranges) == 2


def test_an_edit_among_short_messages_stores_that_one_only() -> None:
    log = Log()
    messages = [HumanMessage(f"number {n}") for n in range(100)]
    log.put(messages)
    messages[40] = HumanMessage("changed")
    assert log.put(messages) == 1
    messages.insert(70, HumanMessage("between"))
    assert log.put(messages) == 1
    assert log.get() == messages


def test_a_list_rewritten_each_time_is_kept_in_one_piece() -> None:
    log = Log()
    for turn in range(10):
        written = log.put([f"{turn} {n} {LONG}" for n in range(20)])
        assert written == (20 if turn == 0 else 1)
    assert log.place.kind == Kind.VALUE
    settled = log.get()
    log.put([*settled, "appended"])
    assert log.place.kind == Kind.LIST


def test_a_list_in_many_fragments_is_stored_again_in_one() -> None:
    log = Log()
    messages = [HumanMessage(f"{n} {LONG}") for n in range(200)]
    log.put(messages)
    for n in range(0, 200, 2):
        messages[n] = HumanMessage(f"new {n} {LONG}")
        log.put(messages)
        assert len(log.place.ranges) <= 64
        assert log.get() == messages


def test_short_repeated_elements_do_not_fragment_a_list() -> None:
    log = Log()
    value: list[Any] = []
    for n in range(300):
        value.append(n % 3)
        log.put(value)
    assert log.get() == value
    assert len(log.place.ranges) <= 3


def test_a_short_list_takes_one_item_and_an_empty_one_none() -> None:
    log = Log()
    assert log.put([]) == 0
    assert log.place == Place(Kind.LIST)
    assert log.get() == []
    assert log.put(["a", "b"]) == 1
    assert log.get() == ["a", "b"]


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["append", "insert", "remove", "replace", "swap", "clear", "double"]),
        st.integers(0, 30),
        st.one_of(st.integers(0, 3), st.sampled_from(["a", LONG, LONG + "x"])),
    ),
    max_size=40,
)


@given(EDITS)
def test_whatever_is_done_to_a_list_reads_back(edits: Any) -> None:
    log = Log()
    value: list[Any] = []
    for what, n, element in edits:
        at = n % (len(value) + 1)
        match what:
            case "append":
                value.append(element)
            case "insert":
                value.insert(at, element)
            case "remove" if value:
                del value[at % len(value)]
            case "replace" if value:
                value[at % len(value)] = {"in": [element]}
            case "swap":
                value.reverse()
            case "clear":
                value.clear()
            case _:
                value.extend(value[: at or 1])
                del value[60:]
        log.put(value)
        assert log.get() == value


def test_equal_looking_values_have_different_marks() -> None:
    values = [1, 1.0, True, "1", b"1", [1], (1,), {"1": 1}, {1: 1}, None, "", [], "\ud800", "?"]
    values += [HumanMessage("1"), AIMessage("1"), HumanMessage("1", id="1")]
    assert len({prints.of(SERDE, value) for value in values}) == len(values)


def test_what_a_message_is_made_of_has_another_mark_than_the_message() -> None:
    message = HumanMessage("1")
    parts = ("HumanMessage", message.__dict__, message.__pydantic_extra__)
    assert prints.of(SERDE, parts) != prints.of(SERDE, message)


class Flag(bytes, Enum):
    """Has a buffer, as an array has, and is more than the bytes in it."""

    ON = LONG.encode()


@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: {"in": {"it": v}}, lambda v: (1, [v])])
def test_what_has_a_buffer_is_not_taken_for_its_bytes(wrap: Callable[[Any], Any]) -> None:
    looks = [Flag.ON, bytes(Flag.ON), bytearray(Flag.ON)]
    values = [wrap(look) for look in looks]
    values += [HumanMessage("", additional_kwargs={"in": wrap(look)}) for look in looks[:2]]
    assert len({prints.of(SERDE, value) for value in values}) == len(values)


def test_an_edit_of_type_alone_is_stored() -> None:
    log = Log()
    elements = [{"n": n, "flag": bytes(Flag.ON)} for n in range(5)]
    log.put(elements)
    assert log.put([{**elements[0], "flag": Flag.ON}, *elements[1:]]) == 1


def test_what_was_read_is_not_stored_again_by_another_process() -> None:
    log = Log()
    messages = [HumanMessage(f"{n} {LONG}") for n in range(10)]
    log.put(messages)
    other = Log()
    other.track.lineage_id, other.stored = 5, dict(log.stored)
    layout = Layout({"c": "10"}, {"c": _absolute(log.place, 5)}, {}, 4, None, None, {})
    bodies = [log.stored[r.first + i] for r in log.place.ranges for i in range(r.size)]
    items.learn(SERDE, other.track, "", layout, {"c": log.get()}, bodies)
    assert other.put([*log.get(), HumanMessage("one more " + LONG)]) == 1
    assert other.place.ranges == (log.place.ranges[0]._replace(size=11),)


def _absolute(place: Place, lineage_id: int) -> Place:
    return place._replace(ranges=tuple(Range(lineage_id, *r[1:]) for r in place.ranges))


def test_a_layout_reads_back_with_its_ranges_made_absolute() -> None:
    layout = Layout(
        versions={"a": "1".zfill(32) + "." + "2".zfill(16), "b\x00\ud800": 3, "c": "own", "d": 1.5},
        places={
            "a": Place(Kind.LIST, (Range(0, 7, 1 << 40, 3), Range(9, (1 << 31) - 1, 2, 1))),
            "b\x00\ud800": Place(Kind.NULL),
            "c": Place(Kind.VALUE, (Range(0, 8, 5, 1),)),
            "d": Place(Kind.ABSENT),
        },
        versions_seen={"node": {"a": "own", "gone": 2}, "\ud800": {}},
        v=4,
        ts="some time",
        updated=["a"],
        rest={"more": [1]},
    )
    state, ranges = manifest.encode(layout)
    back = manifest.decode(state, ranges, 4)
    layout.places["a"] = Place(Kind.LIST, (Range(4, 7, 1 << 40, 3), Range(9, (1 << 31) - 1, 2, 1)))
    layout.places["c"] = Place(Kind.VALUE, (Range(4, 8, 5, 1),))
    assert back == layout


def test_memory_is_bounded_and_begins_anew_on_another_lineage() -> None:
    memory = Memory(limit=1000)
    track = memory.track(SERVICE, "t", 1, 0, 5)
    assert memory.track(SERVICE, "t", 1, 0, 9) is track
    assert memory.track(SERVICE, "t", 2, 0, 9) is not track
    assert memory.track(SERVICE, "t", 2, 1, 9) is not memory.get(SERVICE, "u")
    for n in range(3000):
        memory.track(SERVICE, f"s{n}", 1, 0, 1)
    assert memory.get(SERVICE, "t") is None
    assert memory.get(SERVICE, "s2999") is not None


def test_what_another_principal_finds_is_not_what_the_owner_knows() -> None:
    memory = Memory()
    mine = memory.track(Principal.owner(1), "t", 7, 0, 5)
    assert memory.track(Principal.owner(2), "t", 0, 0, 0) is not mine
    assert memory.get(Principal.owner(1), "t") is mine


def test_a_session_that_is_written_all_along_stays_remembered() -> None:
    memory = Memory(limit=50)
    memory.track(SERVICE, "hot", 1, 0, 1)
    for n in range(3000):
        assert memory.get(SERVICE, "hot")
        memory.track(SERVICE, f"s{n}", 1, 0, 1)


def _call(memory: Memory, n: int, ns: str) -> None:
    """One put: of a session that has been written to `n` times."""
    track = memory.get(SERVICE, "t") or memory.track(SERVICE, "t", 1, 0, 1)
    values = {"out": [f"{n}"], "todo": [f"{n} {LONG}"] * 2}
    made: Any = {
        **empty_checkpoint(),
        "channel_values": values,
        "channel_versions": dict.fromkeys(values, str(n)),
    }
    new = New()
    places = items.place_all(SERDE, track, new, ns, made, made["channel_versions"])
    items.landed(track, ns, made, places, new)


def test_calls_of_subgraphs_are_forgotten_when_the_root_moved_on() -> None:
    memory = Memory()
    for n in range(300):
        _call(memory, n, f"child:{n}")
        _call(memory, n, "")
    track = memory.get(SERVICE, "t")
    assert track is not None
    assert {ns for ns, _ in track.last} == {"", "child:299"}


def test_one_session_is_bounded_too_and_never_numbers_twice() -> None:
    memory = Memory(limit=1000)
    taken: set[tuple[int, int]] = set()
    for n in range(3000):
        _call(memory, n, f"child:{n}")
        track = memory.get(SERVICE, "t")
        assert track is not None
        number = track.take(5)
        assert (5, number) not in taken
        taken.add((5, number))
    track = memory.track(SERVICE, "t", 1, 0, 1)
    for _ in range(256):  # it is weighed now and then
        memory.get(SERVICE, "t")
    assert track.weight <= 1000


def test_processes_that_never_met_choose_different_numbers() -> None:
    early, late = Track(1, 0, 100), Track(1, 0, 101)
    taken = {early.take(7) for _ in range(1000)}
    assert taken.isdisjoint({late.take(7) for _ in range(1000)})
    early.renew(100)
    assert early.take(7) not in taken
