"""`clew sessions ls|show|tree|diff`: what looks and changes nothing."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import cast

from clew.api import operate_sessions as operators
from clew.api import terminal, tree
from clew.checkpointing import history, labels, pins
from clew.checkpointing.diff import Ref
from clew.checkpointing.errors import UnknownThread
from clew.runtime import errors, interrupts, moments, names, retention, storage, wire
from clew.runtime.sessions import Json, Session

_COLOURS = {
    "busy": "cyan",
    "interrupted": "yellow",
    "error": "red",
    "expired": "dim",
    "deleted": "dim",
    "archived": "dim",
}
_HEAD = ("ID", "OWNER", "STATE", "STATUS", "AGENT", "MESSAGES", "SIZE", "UPDATED", "TITLE")


async def ls(options: argparse.Namespace) -> int:
    async with operators.site(options) as site:
        # One more than is shown tells whether there are more.
        most = None if options.all else options.limit + 1
        sought = operators.wanted(options)
        order = {"sort": options.sort, "descending": not options.reverse}
        found = [one async for one in site.every(sought, most=most, **order)]
        more = most is not None and len(found) == most
        found = found[: options.limit] if more else found
        owners = await names.of(site.db, (one.owner_id for one in found))
    if options.json:
        rows = [operators.shown(one, owners.get(one.owner_id)) for one in found]
        terminal.tell({"sessions": rows, "more": more})
    elif not found:
        terminal.say("No sessions.")
    else:
        terminal.table(
            _HEAD,
            [_row(one, owners.get(one.owner_id, "")) for one in found],
            colours=_COLOURS,
            spare=("SIZE", "MESSAGES", "OWNER", "AGENT", "STATUS"),
        )
        if more and sys.stdout.isatty():
            terminal.say(f"… and more: {options.limit} are shown (--limit, --all).")
    return 0


def _row(one: Session, owner: str) -> tuple[object, ...]:
    return (
        one.thread_id,
        owner,
        one.state,
        one.status,
        one.graph_id,
        one.message_count,
        terminal.size(one.bytes),
        one.updated_at,
        one.title or "",
    )


async def show(options: argparse.Namespace) -> int:
    """Everything about one session, whatever state it is in."""
    async with operators.site(options) as site:
        session, who = await site.find(options.session)
        key = session.thread_id
        owner = (await names.of(site.db, [session.owner_id])).get(session.owner_id)
        open_ = await interrupts.inbox(site.db, who, thread_id=key, limit=100)
        taken = await storage.measure(site.db, who, key)
        policy = await retention.get(site.db, who, key)
        async with site.db.transaction(who) as conn:
            try:
                marked = await labels.list_(conn, key)
                pinned = await pins.list_(conn, key)
            except UnknownThread:
                marked, pinned = [], []
    told: Json = operators.shown(session, owner)
    more: Json = {
        "retention": None if policy is None else str(policy),
        "storage": asdict(taken),
        "labels": [asdict(label) for label in marked],
        "pins": [asdict(pin) for pin in pinned],
        "questions": [{"interrupt_id": q.interrupt_id, "value": q.value} for q in open_],
    }
    if options.json:
        terminal.tell({**told, **more})
        return 0
    stored = taken.checkpoints.bytes + taken.values.bytes + taken.writes.bytes
    plain = {name: _said(value) for name, value in told.items() if value not in (None, {}, [])}
    plain["bytes"] = terminal.size(session.bytes)
    plain["idle_after"] = session.idle_after
    plain["storage"] = f"{terminal.size(stored)} in " + terminal.many(
        taken.checkpoints.count, "checkpoint"
    )
    plain["retention"] = "the server's" if policy is None else str(policy)
    for label in marked:
        plain[f"label {label.name}"] = label.checkpoint_id
    for pin in pinned:
        plain[f"pin {pin.checkpoint_id}"] = pin.reason or ""
    for question in open_:
        plain[f"asks {question.interrupt_id}"] = _said(question.value)
    terminal.facts(plain)
    return 0


def _said(value: object) -> object:
    """As people write it: lists with commas, documents as JSON in any language."""
    if isinstance(value, list) and all(isinstance(one, str) for one in cast("list[object]", value)):
        return ", ".join(cast("list[str]", value))
    return wire.encode(value).decode() if isinstance(value, dict | list) else value


async def tree_(options: argparse.Namespace) -> int:
    async with operators.site(options) as site:
        session, who = await site.find(options.session)
        async with site.db.transaction(who) as conn:
            try:
                found = await history.tree(conn, session.thread_id, limit=options.limit + 1)
            except UnknownThread:
                found = history.Tree([], [])
    more = len(found.entries) > options.limit
    found = history.Tree(found.branches, found.entries[: options.limit])
    if options.json:
        branches = [
            {**asdict(one.line), "tip": one.tip, "checkpoints": one.checkpoints,
             "actor": one.actor, "reason": one.reason}
            for one in found.branches
        ]  # fmt: skip
        entries = [asdict(entry) for entry in found.entries]
        terminal.tell({"branches": branches, "checkpoints": entries, "more": more})
        return 0
    for line in tree.draw(found) or ["Nothing ran in this session yet."]:
        terminal.say(line)
    if more:
        terminal.say(f"… and older ones: the newest {options.limit} are shown (--limit).")
    return 0


async def diff(options: argparse.Namespace) -> int:
    if options.a is None and options.with_ is None:
        raise errors.ConfigError(
            "Say from which checkpoint, as `clew sessions tree` shows them, or --with a session."
        )
    async with operators.site(options) as site:
        session, who = await site.find(options.session)
        other, whose = (session, who) if options.with_ is None else await site.find(options.with_)
        a = Ref(session.thread_id, options.a and str(options.a))
        b = Ref(other.thread_id, options.b and str(options.b))
        both = who if who == whose else site.reach
        found = await moments.compare(site.ground, both, a, b)
    if options.json:
        terminal.tell(found)
        return 0
    for side, sign, colour in (("a", "---", "red"), ("b", "+++", "green")):
        at: Json = found[side]
        told = f"{sign} {at['thread_id']} {at['checkpoint_id']} {at['created_at']}"
        terminal.say(terminal.paint(told, colour))
    lines = list(_changes(found))
    for text, colour in lines:
        terminal.say(terminal.paint(terminal.clean(text), colour))
    if not lines:
        terminal.say("No difference.")
    return 0


def _changes(found: Json) -> Iterator[tuple[str, str | None]]:
    """The lines of a difference, each with its colour."""
    for channel, change in found["values"].items():
        if change["op"] in ("added", "removed"):
            yield _one("+" if change["op"] == "added" else "-", channel, change["value"])
            continue
        for item in change.get("removed", ()):
            yield _one("-", f"{channel}[{item['index']}]", item["value"])
        for item in change.get("added", ()):
            yield _one("+", f"{channel}[{item['index']}]", item["value"])
        for item in change.get("changed", ()):
            yield from _sides(f"{channel}[{item['index']}]", item["changes"])
        yield from _sides(channel, change.get("changes", ()))
        if change.get("moved"):
            yield f"~ {channel}: the order", None
    if found["next"]["a"] != found["next"]["b"]:
        yield _one("-", "next", found["next"]["a"])
        yield _one("+", "next", found["next"]["b"])
    for op, sign in (("removed", "-"), ("added", "+")):
        for asked in found["interrupts"][op]:
            yield _one(sign, "question", asked)


def _sides(where: str, changes: Sequence[Json]) -> Iterator[tuple[str, str | None]]:
    for one in changes:
        for name, sign in (("from", "-"), ("to", "+")):
            if name in one:
                yield _one(sign, f"{where}{one['path']}", one[name])


def _one(sign: str, where: str, value: object) -> tuple[str, str | None]:
    return f"{sign} {where}: {wire.encode(value).decode()}", "green" if sign == "+" else "red"
