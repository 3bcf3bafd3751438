"""What was said in a session, a page at a time and from either end, without loading the rest.

The head's messages by default; with scope `all`, everything ever said on the path to the head, with
what was since removed, edited or summarised away marked as such.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from langchain_core.messages import BaseMessage
from pydantic_core import from_json

from clew.checkpointing import path, rows
from clew.checkpointing.errors import UnknownThread
from clew.checkpointing.keys import Vault
from clew.checkpointing.manifest import Kind, Place, Range
from clew.checkpointing.path import Asked
from clew.checkpointing.postgres import Connection, Database, Principal
from clew.checkpointing.reading import Reader, Spot
from clew.checkpointing.rows import Item
from clew.runtime import cursors, errors, wire
from clew.runtime.sessions import Json

Scope = Literal["head", "all"]
CHANNEL = "messages"


@dataclass(frozen=True, slots=True)
class Message:
    index: int  # from the beginning
    message: Json  # as the protocol shows it
    removed: bool  # no longer in the state


@dataclass(frozen=True, slots=True)
class Page:
    items: list[Message]
    cursor: str | None
    total: int


async def page(
    db: Database,
    who: Principal,
    thread_id: str,
    *,
    scope: Scope = "head",
    checkpoint_id: str | None = None,
    newest_first: bool = False,
    limit: int = 50,
    cursor: str | None = None,
    vault: Vault | None = None,
) -> Page:
    """One page, at the head or as it was at `checkpoint_id`. New messages come at the end, so a
    cursor stays where it is while the session goes on."""
    question = [thread_id, scope, checkpoint_id, newest_first]
    async with db.transaction(who) as conn:
        try:
            unseal = await vault.unsealer(conn, who, thread_id) if vault else None
            reader = await Reader.of(conn, thread_id, unseal=unseal)
        except UnknownThread:  # nothing has run yet
            return Page([], None, 0)
        spot = await reader.spot(checkpoint_id)
        if spot is None:
            return Page([], None, 0)
        if not by_item(spot):
            found = (await reader.values(spot, [CHANNEL])).get(CHANNEL)
            whole = list(found) if isinstance(found, list | tuple) else []
            chosen = _slice(len(whole), question, newest_first, limit, cursor)
            items = [Message(n, shown(whole[n]), removed=False) for n in chosen]
            return _page(items, chosen, len(whole), question, newest_first)
        present = items_of(spot)
        said = present if scope == "head" else await _ever(conn, spot, present)
        if len(said) != len(present):
            values = await reader.items([_range(item) for item in said])
            told = _told(said, values, set(present))
            chosen = _slice(len(told), question, newest_first, limit, cursor)
            items = [Message(n, told[n][0], removed=not told[n][1]) for n in chosen]
            return _page(items, chosen, len(told), question, newest_first)
        chosen = _slice(len(present), question, newest_first, limit, cursor)
        values = await reader.items([_range(present[n]) for n in chosen])
    items = [Message(n, shown(values[present[n]]), removed=False) for n in chosen]
    return _page(items, chosen, len(present), question, newest_first)


def _told(
    said: Sequence[Item], values: Mapping[Item, Any], here: set[Item]
) -> list[tuple[Json, bool]]:
    """Each message once, with whether it is in the state, an edited one beside what it was before.
    A list that was rewritten holds old messages as new items, so what they say is what counts."""
    placed: dict[object, int] = {}
    found: dict[bytes, tuple[int, int, Json, bool]] = {}
    for n, item in enumerate(said):
        written = wire.encode(values[item])
        first, _, message, present = found.get(written) or (n, n, from_json(written), False)
        name = message.get("id") if isinstance(message, dict) else None
        found[written] = (
            placed.setdefault(name or written, first), first, message, present or item in here
        )  # fmt: skip
    order = sorted(found.values(), key=lambda entry: entry[:2])
    return [(shown(message), present) for _, _, message, present in order]


def items_of(spot: Spot) -> list[Item]:
    """Where the messages of a checkpoint lie, in order."""
    return _items(spot.layout.places.get(CHANNEL))


def shown(value: Any) -> Json:
    """A message as the protocol shows it."""
    if isinstance(value, BaseMessage | dict):
        return from_json(wire.encode(value))
    return {"type": "unknown", "content": from_json(wire.encode(value))}


def text_of(value: Any) -> str:
    """What a message says in words, whatever else it holds."""
    if isinstance(value, BaseMessage):
        return value.text
    content: Any = value.get("content") if isinstance(value, dict) else value
    if isinstance(content, list):
        parts: list[Any] = content
        return " ".join(p["text"] for p in parts if isinstance(p, dict) and "text" in p)
    return content if isinstance(content, str) else ""


async def _ever(conn: Connection, spot: Spot, present: Sequence[Item]) -> list[Item]:
    """All items on the path, each at the place where it first stood."""
    fetch = path.through(conn)
    lines = await path.chain(fetch, spot.lineage_id)
    past = [_of_row(row) async for row in path.own(fetch, lines[0], Asked(ns=""))]
    past += [_of_row(seen.row) async for seen in path.older(fetch, lines, "")]
    ever: dict[Item, None] = {}
    for items in reversed(past):
        ever.update(dict.fromkeys(items))
    ever.update(dict.fromkeys(present))
    return list(ever)


def by_item(spot: Spot) -> bool:
    """Whether the messages lie one by one. A channel that keeps differences, or that was rewritten
    as a whole, has to be read as a whole."""
    place = spot.layout.places.get(CHANNEL)
    one_by_one = place is None or place.kind in (Kind.LIST, Kind.ABSENT, Kind.NULL)
    return CHANNEL not in spot.deltas and one_by_one


def _of_row(row: rows.Row) -> list[Item]:
    return _items(rows.layout_of(row).places.get(CHANNEL))


def _items(place: Place | None) -> list[Item]:
    if place is None or place.kind not in (Kind.LIST, Kind.SNAPSHOT):
        return []
    return rows.items_of(place.ranges)


def _range(item: Item) -> Range:
    lineage_id, stream, number = item
    return Range(lineage_id, stream, number, 1)


def _slice(
    length: int, question: object, newest_first: bool, limit: int, cursor: str | None
) -> list[int]:
    order = range(length - 1, -1, -1) if newest_first else range(length)
    if cursor is None:
        return list(order[:limit])
    [after] = cursors.read(question, cursor, 1)
    if not after.isdecimal():
        raise errors.Invalid("cursor: this is not a cursor")
    start = int(after)
    left = range(start - 1, -1, -1) if newest_first else range(start + 1, length)
    return [n for n in left[:limit] if n < length]


def _page(
    items: list[Message],
    chosen: Sequence[int],
    total: int,
    question: object,
    newest_first: bool,
) -> Page:
    if not chosen or chosen[-1] == (0 if newest_first else total - 1):
        return Page(items, None, total)
    return Page(items, cursors.make(question, str(chosen[-1])), total)
