"""What is different between two checkpoints, of one session or of two of the same owner.

Only what differs is read: a channel with the same version in the same place is equal unseen, and
of two lists only the elements that are not in both are decoded. The result is plain JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from langgraph.checkpoint.serde.base import SerializerProtocol

from clew.checkpointing import jsonable, rows
from clew.checkpointing.errors import UnknownCheckpoint
from clew.checkpointing.manifest import Kind, Layout, Place
from clew.checkpointing.postgres import Connection
from clew.checkpointing.reading import RAW, Reader, Spot, Unseal

Json = dict[str, Any]

_LISTS = (Kind.LIST, Kind.SNAPSHOT)
_INTERNAL = ("__", "branch:", "join:")


@dataclass(frozen=True, slots=True)
class Ref:
    """A checkpoint of a session, its newest one by default."""

    thread_id: str
    checkpoint_id: str | None = None
    lineage_id: int | None = None


async def compare(
    conn: Connection,
    a: Ref,
    b: Ref,
    *,
    serde: SerializerProtocol = RAW,
    unseal: Unseal | None = None,
) -> Json:
    """How to get from `a` to `b`:

    {"a", "b": where each is,
     "values": {channel: {"op": "added" | "removed" | "changed", ...}},
     "next": {"a", "b"}, "interrupts": {"removed", "added"}, "metadata": [changes]}

    A changed list has `added`, `removed` and `changed` elements, each with its index; anything
    else has `changes`: {"path", "op", "from", "to"}, the path a JSON pointer.
    Raises `UnknownThread` and `UnknownCheckpoint`.
    """
    reader_a = await Reader.of(conn, a.thread_id, serde=serde, unseal=unseal)
    reader_b = (
        reader_a
        if a.thread_id == b.thread_id
        else await Reader.of(conn, b.thread_id, serde=serde, unseal=unseal)
    )
    spot_a, spot_b = await _spot(reader_a, a), await _spot(reader_b, b)
    values: dict[str, Json] = {}
    for channel in sorted(spot_a.layout.versions.keys() | spot_b.layout.versions.keys()):
        if channel.startswith(_INTERNAL):
            continue
        found = await _channel(reader_a, spot_a, reader_b, spot_b, channel)
        if found is not None:
            values[channel] = found
    asked_a = [jsonable.render(asked) for asked in await reader_a.interrupts(spot_a)]
    asked_b = [jsonable.render(asked) for asked in await reader_b.interrupts(spot_b)]
    return {
        "a": _where(spot_a),
        "b": _where(spot_b),
        "values": values,
        "next": {
            "a": await next_of(reader_a, spot_a),
            "b": await next_of(reader_b, spot_b),
        },
        "interrupts": {
            "removed": [asked for asked in asked_a if asked not in asked_b],
            "added": [asked for asked in asked_b if asked not in asked_a],
        },
        "metadata": changes(jsonable.render(spot_a.metadata), jsonable.render(spot_b.metadata)),
    }


async def next_of(reader: Reader, spot: Spot) -> list[str]:
    """The nodes that a checkpoint is about to run, as far as its channels tell without the graph.

    A node starts when a channel that leads to it has a version it has not seen.
    """
    layout = spot.layout
    found = {
        node
        for channel in layout.versions
        if (node := _target(layout, channel)) is not None and channel[:5] != "join:"
    }
    joins = [c for c in layout.versions if c.startswith("join:") and _target(layout, c)]
    for channel, seen in (await reader.values(spot, joins)).items():
        sources, node = channel[5:].rsplit(":", 1)
        if set(sources.split("+")) <= {str(name) for name in cast("Any", seen or ())}:
            found.add(node)
    sends = (await reader.values(spot, ["__pregel_tasks"])).get("__pregel_tasks") or []
    return [*sorted(found), *(send.node for send in sends if hasattr(send, "node"))]


def _target(layout: Layout, channel: str) -> str | None:
    """The node that this channel is about to start, if any."""
    if channel == "__start__":
        node = channel
    elif channel.startswith(("branch:to:", "join:")):
        node = channel.rsplit(":", 1)[1]
    else:
        return None
    if layout.places[channel].kind == Kind.ABSENT:
        return None
    seen = layout.versions_seen.get(node, {}).get(channel)
    return node if seen is None or cast("Any", seen) < layout.versions[channel] else None


async def _spot(reader: Reader, ref: Ref) -> Spot:
    spot = await reader.spot(ref.checkpoint_id, lineage_id=ref.lineage_id)
    if spot is None:
        raise UnknownCheckpoint(f"session {ref.thread_id!r} has no checkpoint yet")
    return spot


def _where(spot: Spot) -> Json:
    return {
        "thread_id": spot.thread_id,
        "checkpoint_id": spot.checkpoint_id,
        "lineage_id": spot.lineage_id,
        "created_at": spot.created_at.isoformat(),
    }


async def _channel(
    reader_a: Reader, a: Spot, reader_b: Reader, b: Spot, channel: str
) -> Json | None:
    nothing = Place(Kind.ABSENT)
    place_a = a.layout.places.get(channel, nothing)
    place_b = b.layout.places.get(channel, nothing)
    delta = channel in a.deltas or channel in b.deltas
    same_version = a.layout.versions.get(channel) == b.layout.versions.get(channel)
    # Versions alone do not tell across sessions: an imported one may count from 1.
    if place_a == place_b and (same_version or (not delta and place_a.kind != Kind.ABSENT)):
        return None
    if place_a.kind in _LISTS and place_b.kind in _LISTS:
        return await _stored_lists(reader_a, place_a, place_b)
    had = (await reader_a.values(a, [channel])).get(channel, _MISSING)
    has = (await reader_b.values(b, [channel])).get(channel, _MISSING)
    if had is _MISSING and has is _MISSING:
        return None
    if had is _MISSING:
        return {"op": "added", "value": jsonable.render(has)}
    if has is _MISSING:
        return {"op": "removed", "value": jsonable.render(had)}
    if isinstance(had, list) and isinstance(has, list):
        found = _lists([*enumerate(cast("Any", had))], [*enumerate(cast("Any", has))])
        return found and {**found, "length": [len(cast("Any", had)), len(cast("Any", has))]}
    found = changes(jsonable.render(had), jsonable.render(has))
    return {"op": "changed", "changes": found} if found else None


async def _stored_lists(reader: Reader, a: Place, b: Place) -> Json | None:
    """Two lists in the item log: what both refer to is equal and stays unread."""
    items_a, items_b = rows.items_of(a.ranges), rows.items_of(b.ranges)
    common = set(items_a) & set(items_b)
    left = [(i, item) for i, item in enumerate(items_a) if item not in common]
    right = [(i, item) for i, item in enumerate(items_b) if item not in common]
    ranges = [r for place in (a, b) for r in place.ranges]
    wanted = {item for _, item in [*left, *right]}
    values = await reader.items(
        [
            r._replace(first=number, size=1)
            for r in {(r.lineage_id, r.stream): r for r in ranges}.values()
            for lineage_id, stream, number in wanted
            if (lineage_id, stream) == (r.lineage_id, r.stream)
        ]
    )
    found = _lists(
        [(i, values[item]) for i, item in left], [(i, values[item]) for i, item in right]
    )
    moved = [item for item in items_a if item in common] != [i for i in items_b if i in common]
    if found is None and not moved:
        return None
    found = found or {"op": "changed", "added": [], "removed": [], "changed": []}
    return {**found, **({"moved": True} if moved else {}), "length": [len(items_a), len(items_b)]}


def _lists(a: Sequence[tuple[int, Any]], b: Sequence[tuple[int, Any]]) -> Json | None:
    """Elements with an index, matched by their id, else by being equal."""
    left = [(i, jsonable.identity(value), jsonable.render(value)) for i, value in a]
    right = [(i, jsonable.identity(value), jsonable.render(value)) for i, value in b]
    by_id = {known: (i, value) for i, known, value in left if known}
    changed: list[Json] = []
    added: list[Json] = []
    gone = {i for i, _, _ in left}
    equal: dict[str, list[int]] = {}
    for i, known, value in left:
        if not known:
            equal.setdefault(jsonable.canonical(value), []).append(i)
    for i, known, value in right:
        if known and known in by_id and by_id[known][0] in gone:
            old_index, old = by_id[known]
            gone.discard(old_index)
            found = changes(old, value)
            if found:
                changed.append({"id": known, "index": i, "from_index": old_index, "changes": found})
        elif not known and equal.get(text := jsonable.canonical(value)):
            gone.discard(equal[text].pop(0))
        else:
            added.append({"index": i, "value": value})
    removed = [{"index": i, "value": value} for i, _, value in left if i in gone]
    if not (changed or added or removed):
        return None
    return {"op": "changed", "added": added, "removed": removed, "changed": changed}


def changes(a: Any, b: Any, path: str = "") -> list[Json]:
    """How to get from one JSON value to another, path by path."""
    if isinstance(a, dict) and isinstance(b, dict):
        return _dicts(cast("Json", a), cast("Json", b), path)
    if isinstance(a, list) and isinstance(b, list):
        return _nested(cast("list[Any]", a), cast("list[Any]", b), path)
    # True is not 1 here.
    if type(a) is type(b) and a == b:
        return []
    return [{"path": path, "op": "changed", "from": a, "to": b}]


def _dicts(a: Mapping[str, Any], b: Mapping[str, Any], path: str) -> list[Json]:
    found: list[Json] = []
    for key in [*a, *(key for key in b if key not in a)]:
        where = f"{path}/{key.replace('~', '~0').replace('/', '~1')}"
        if key not in b:
            found.append({"path": where, "op": "removed", "from": a[key]})
        elif key not in a:
            found.append({"path": where, "op": "added", "to": b[key]})
        else:
            found += changes(a[key], b[key], where)
    return found


def _nested(a: list[Any], b: list[Any], path: str) -> list[Json]:
    if len(a) == len(b):
        return [
            c
            for i, (x, y) in enumerate(zip(a, b, strict=True))
            for c in changes(x, y, f"{path}/{i}")
        ]
    found = _lists([*enumerate(a)], [*enumerate(b)])
    if found is None:
        return []
    return [
        *(
            {"path": f"{path}/{r['index']}", "op": "removed", "from": r["value"]}
            for r in found["removed"]
        ),
        *(
            {"path": f"{path}/{r['index']}", "op": "added", "to": r["value"]}
            for r in found["added"]
        ),
        *(
            {**c, "path": f"{path}/{r['index']}{c['path']}"}
            for r in found["changed"]
            for c in r["changes"]
        ),
    ]


class _Missing:
    pass


_MISSING = _Missing()
