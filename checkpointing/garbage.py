"""What may be deleted, and what must stay: another session may still see it.

Nothing that a living fork reaches is ever removed, and nothing that nobody reaches is kept: rows
go by name, items by not being referred to. All of it in the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from uuid import UUID

from clew.checkpointing import manifest, path, text
from clew.checkpointing.errors import DeltaInUse, UnknownThread
from clew.checkpointing.manifest import Kind
from clew.checkpointing.path import Fetch
from clew.checkpointing.postgres import Connection
from clew.checkpointing.rows import Row
from clew.checkpointing.sql import Queries

_SQL = Queries("clew.checkpointing.queries")

Key = tuple[str, str]  # a namespace and a checkpoint id, as stored


async def drop(conn: Connection, lineage_id: int, doomed: Collection[Key]) -> int:
    """Delete these rows of a living line, but for what its forks see; how many went.

    Those that stay are linked past those that went, and what a deleted run had written to a
    checkpoint that stays goes too. Raises `DeltaInUse` where one that stays would lose its value.
    """
    fetch = path.through(conn)
    held = await fetch(_SQL["hold_lineage_alone"], {"lineage_id": lineage_id})
    if not held:
        return 0
    threads = [held[0]["thread_id"]] if held[0]["thread_id"] else []
    await conn.execute(_SQL["bump_sweep"], {"lineages": [lineage_id], "threads": threads})
    rows = await fetch(_SQL["skeletons"], {"lineage_id": lineage_id})
    seen = await needed(fetch, lineage_id, rows)
    gone = {_key(row): row for row in rows if _key(row) in doomed and _key(row) not in seen}
    left = [row for row in rows if _key(row) not in gone]
    _keep_deltas(left, gone)
    if not gone:
        return 0
    await _unwrite(conn, lineage_id, left, gone)
    await _remove(conn, lineage_id, left, gone)
    await conn.execute(_SQL["sweep_items"], {"lineage_id": lineage_id})
    return len(gone)


async def keep_latest(conn: Connection, thread_id: str) -> int:
    """Delete all but the newest checkpoint of each namespace; how many went.

    A subgraph's call goes with the checkpoint that it was made from. Where a DeltaChannel is in
    play, what its value is made of stays.
    """
    fetch = path.through(conn)
    try:
        line = await _hold(conn, fetch, thread_id)
    except UnknownThread:
        return 0
    rows = await fetch(_SQL["skeletons"], {"lineage_id": line})
    newest = {row["ns"]: row for row in rows}
    root = newest.get("")
    kept = [
        row
        for ns, row in newest.items()
        if not (":" in ns and row["root_id"] and root and row["root_id"] != root["checkpoint_id"])
    ]
    stay, beyond = _with_deltas(kept, rows)
    keys = {_key(row) for row in stay}
    # Held, so that no fork is under way that would go back through what is forgotten here.
    lines = await fetch(_SQL["lock_lineages"], {"thread_id": text.escape(thread_id)})
    own = [row["lineage_id"] for row in reversed(lines)]
    if len(keys) == len(kept) and not beyond:  # nothing of it is made of what lies further back
        await conn.execute(_SQL["forget_past"], {"lineages": own})
    count = await drop(conn, line, {_key(row) for row in rows} - keys)
    # The lines that restores left; the newest first, for children go before their parents.
    for other in own:
        if other != line:
            rows = await fetch(_SQL["skeletons"], {"lineage_id": other})
            count += await drop(conn, other, {_key(row) for row in rows})
            if not await fetch(_SQL["children"], {"lineage_id": other}):
                await conn.execute(_SQL["drop_lineage"], {"lineage_id": other})
    await conn.execute(_SQL["forget_sources"], {"lineages": own})
    return count


async def delete_runs(conn: Connection, run_ids: Collection[UUID]) -> int:
    """Delete what these runs put, and what they wrote to checkpoints that stay."""
    fetch = path.through(conn)
    count = 0
    if not run_ids:
        return 0
    runs = {"run_ids": list(run_ids)}
    lines = await fetch(_SQL["lineages_of_runs"], runs)
    # Heads, then lineages, as everyone who deletes. What was forked or restored meanwhile is later.
    threads = sorted({line["thread_id"] for line in lines if line["thread_id"]})
    await fetch(_SQL["hold_heads"], {"threads": threads})
    for line in await fetch(_SQL["hold_lineages_of_runs"], {**runs, "threads": threads}):
        rows = await fetch(_SQL["skeletons"], {"lineage_id": line["lineage_id"]})
        doomed = {_key(row) for row in rows if row["run_id"] in run_ids}
        count += await drop(conn, line["lineage_id"], doomed)
    return count


async def trim(conn: Connection, lineage_id: int) -> None:
    """Cut a dead lineage down to what its living children reach; remove it when it has none."""
    fetch = path.through(conn)
    # First of all: a fork that is under way shows among the children only once we have this.
    held = await fetch(_SQL["hold_lineage_alone"], {"lineage_id": lineage_id})
    if not held:
        return
    children = await fetch(_SQL["children"], {"lineage_id": lineage_id})
    if not children:
        await conn.execute(_SQL["drop_lineage"], {"lineage_id": lineage_id})
        if held[0]["parent_id"]:
            await _trim_if_dead(conn, fetch, held[0]["parent_id"])
        return
    rows = await fetch(_SQL["skeletons"], {"lineage_id": lineage_id})
    seen = await needed(fetch, lineage_id, rows)
    gone = {_key(row): row for row in rows if _key(row) not in seen}
    await _remove(conn, lineage_id, [row for row in rows if _key(row) in seen], gone)
    until = max(child["moment"] or 0 for child in children)
    await conn.execute(_SQL["drop_unseen_writes"], {"lineage_id": lineage_id, "until": until})
    await conn.execute(_SQL["stray_writes"], {"lineage_id": lineage_id})
    await conn.execute(_SQL["sweep_items"], {"lineage_id": lineage_id})


async def collect(conn: Connection, *, limit: int = 100) -> int:
    """Remove dead lineages that nobody refers to."""
    dead = await path.through(conn)(_SQL["dead_lineages"], {"limit": limit})
    for row in dead:
        await trim(conn, row["lineage_id"])
    return len(dead)


async def needed(fetch: Fetch, lineage_id: int, rows: Iterable[Row]) -> set[Key]:
    """What the children of a lineage see of it."""
    rows = list(rows)
    roots = {row["checkpoint_id"]: row for row in rows if not row["ns"]}
    keys: set[Key] = set()
    for child in await fetch(_SQL["children"], {"lineage_id": lineage_id}):
        moment: int = child["moment"] or 0
        if child["scope"] == "all":
            keys |= {_key(row) for row in rows if row["seq"] <= moment}
            continue
        seen = {child["fork_id"]}
        at = child["fork_parent"]
        while at in roots and at not in seen:
            seen.add(at)
            at = roots[at]["parent_id"]
        for row in rows:
            if not row["ns"]:
                wanted = row["checkpoint_id"] in seen
            else:
                # A stateful subgraph's rows go back through every call, on the path or not.
                wanted = row["seq"] <= moment and (
                    row["root_id"] in seen or row["root_id"] is None or ":" not in row["ns"]
                )
            if wanted:
                keys.add(_key(row))
    return keys


async def _trim_if_dead(conn: Connection, fetch: Fetch, lineage_id: int) -> None:
    held = await fetch(_SQL["hold_lineage_alone"], {"lineage_id": lineage_id})
    if held and held[0]["thread_id"] is None:
        await trim(conn, lineage_id)


async def _hold(conn: Connection, fetch: Fetch, thread_id: str) -> int:
    found = await fetch(_SQL["hold_head"], {"thread_id": text.escape(thread_id)})
    if not found:
        raise UnknownThread(f"there is no session {thread_id}")
    return found[0]["lineage_id"]


async def _remove(
    conn: Connection, lineage_id: int, left: Iterable[Row], gone: Mapping[Key, Row]
) -> None:
    if not gone:
        return
    moved: list[tuple[str, str, str | None]] = []
    for row in left:
        parent = row["parent_id"]
        while parent is not None and (row["ns"], parent) in gone:
            parent = gone[row["ns"], parent]["parent_id"]
        if parent != row["parent_id"]:
            moved.append((row["ns"], row["checkpoint_id"], parent))
    await conn.execute(
        _SQL["drop_rows"],
        {
            "lineage_id": lineage_id,
            "nss": [ns for ns, _ in gone],
            "ids": [checkpoint_id for _, checkpoint_id in gone],
        },
    )
    if moved:
        nss, ids, parents = (list(column) for column in zip(*moved, strict=True))
        await conn.execute(
            _SQL["relink"],
            {"lineage_id": lineage_id, "nss": nss, "ids": ids, "parents": parents},
        )


async def _unwrite(
    conn: Connection, lineage_id: int, left: Iterable[Row], gone: Mapping[Key, Row]
) -> None:
    """Take back what was written to a checkpoint by runs all of whose children go."""
    staying = {(row["ns"], row["parent_id"]) for row in left}
    cuts: dict[Key, int] = {}
    for (ns, _), row in gone.items():
        parent = row["parent_id"]
        if parent is None or (ns, parent) in gone or (ns, parent) in staying or not row["entry"]:
            continue
        cuts[ns, parent] = min(row["entry"], cuts.get((ns, parent), row["entry"]))
    if cuts:
        await conn.execute(
            _SQL["drop_late_writes"],
            {
                "lineage_id": lineage_id,
                "nss": [ns for ns, _ in cuts],
                "ids": [checkpoint_id for _, checkpoint_id in cuts],
                "cuts": list(cuts.values()),
            },
        )


def _keep_deltas(left: Sequence[Row], gone: Mapping[Key, Row]) -> None:
    """Raise if the value of a channel that stays is made of rows that go."""
    stay, _ = _with_deltas(left, [*left, *gone.values()])
    for row in stay:
        if _key(row) in gone:
            raise DeltaInUse(
                f"checkpoint {row['checkpoint_id']} holds what later values are made of"
            )


def _with_deltas(kept: Iterable[Row], rows: Iterable[Row]) -> tuple[list[Row], bool]:
    """These rows, and the ancestors that the values of their DeltaChannels are made of.

    Also whether such a value is made of rows beyond all these: its line began at another's.
    """
    known = {_key(row): row for row in rows}
    found = {_key(row): row for row in kept}
    todo = [*found.values()]
    beyond = False
    while todo:
        at = todo.pop()
        missing = _missing(at)
        while missing and at["parent_id"] is not None:
            above = known.get((at["ns"], at["parent_id"]))
            if above is None:
                beyond = True
                break
            at = above
            if _key(at) not in found:
                # It stays visible, so what it is made of stays as well.
                found[_key(at)] = at
                todo.append(at)
            layout = manifest.decode(at["state"], at["ranges"], 0)
            missing -= {c for c, place in layout.places.items() if place.kind != Kind.ABSENT}
    return [*found.values()], beyond


def _missing(row: Row) -> set[str]:
    """The DeltaChannels of a row that are not stored with it."""
    counted = {text.unescape(channel) for channel in row["counters"] or ()}
    if not counted:
        return counted
    layout = manifest.decode(row["state"], row["ranges"], 0)
    return {c for c in counted if c in layout.places and layout.places[c].kind == Kind.ABSENT}


def _key(row: Row) -> Key:
    return row["ns"], row["checkpoint_id"]
