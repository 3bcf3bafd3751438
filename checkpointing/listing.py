"""Several checkpoints at once: which rows a listing means, and their values fetched together."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.messages import BaseMessage
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.serde.base import SerializerProtocol
from psycopg.types.json import Jsonb

from clew.checkpointing import codec, metadata, path, rows, text
from clew.checkpointing.containment import contains
from clew.checkpointing.errors import UnknownBody
from clew.checkpointing.manifest import Kind, Range
from clew.checkpointing.path import Asked, Fetch, Line, Seen
from clew.checkpointing.rows import Item, Row, Write
from clew.checkpointing.sql import Queries

_SQL = Queries("clew.checkpointing.queries")
_PAGE = 50
# What is read once and given to several checkpoints must be what nobody changes in place.
_SHARED = (BaseMessage, str, int, float, bool, bytes, type(None))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a listing is asked for, in LangGraph's words."""

    ns: str | None = None
    checkpoint_id: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    before_id: str | None = None
    limit: int | None = None

    def after(self, checkpoint_id: str) -> Wanted:
        """What is left of it once this one was shown."""
        left = None if self.limit is None else self.limit - 1
        return replace(self, before_id=checkpoint_id, limit=left)

    def matches(self, row: Row) -> bool:
        if self.checkpoint_id is not None and row["checkpoint_id"] != self.checkpoint_id:
            return False
        if not self.metadata:
            return True
        return contains(metadata.join(row), self.metadata)


async def pages(fetch: Fetch, lines: Sequence[Line], wanted: Wanted) -> AsyncGenerator[list[Seen]]:
    """What is visible and wanted, newest first."""
    page: list[Seen] = []
    left = wanted.limit
    if left is not None and left <= 0:
        return
    async for seen in _matching(fetch, lines, wanted):
        page.append(seen)
        if left is not None:
            left -= 1
            if left == 0:
                break
        if len(page) == _PAGE:
            yield page
            page = []
    if page:
        yield page


async def _matching(fetch: Fetch, lines: Sequence[Line], wanted: Wanted) -> AsyncGenerator[Seen]:
    before_id = wanted.before_id
    seq: int | None = None
    after: Seen | None = None
    if before_id is not None:
        # A listing goes on after a row that it has shown; any other id is a time.
        placed = await path.seq_of(fetch, [lines[0].lineage_id], before_id, wanted.ns)
        if placed is not None:
            seq = placed[1]
        else:
            after = await path.find(fetch, lines, wanted.ns or "", before_id)
    if after is None:
        asked = _asked(wanted)
        asked = replace(asked, before=seq, before_id=before_id if seq is None else None)
        size = _PAGE if wanted.limit is None else min(_PAGE, wanted.limit)
        async for row in path.own(fetch, lines[0], asked, page=size):
            if "parents" not in wanted.metadata or wanted.matches(row):
                yield Seen(row)
    if lines[0].parent_id is None:
        return
    timed = before_id if seq is None and after is None else None
    async for seen in path.older(fetch, lines, wanted.ns, after):
        if (timed is None or seen.row["checkpoint_id"] < timed) and wanted.matches(seen.row):
            yield seen


def _asked(wanted: Wanted) -> Asked:
    rest = {k: v for k, v in wanted.metadata.items() if k != "parents"}
    source = rest.pop("source") if isinstance(rest.get("source"), str) else None
    step = rest.get("step")
    if type(step) is float and step.is_integer():
        step = int(step)
    if type(step) is int and abs(step) < 1 << 31:  # as `metadata.split` has it
        del rest["step"]
    else:
        step = None
    run_id = rest.pop("run_id") if isinstance(rest.get("run_id"), str) else None
    return Asked(
        ns=wanted.ns,
        checkpoint_id=wanted.checkpoint_id,
        source=source,
        step=step,
        run_id=metadata.run_column(run_id) if run_id is not None else None,
        rest=Jsonb(text.replace(rest, text.escape)) if rest else None,
    )


async def load(
    fetch: Fetch, serde: SerializerProtocol, thread_id: str, seen: Sequence[Seen]
) -> list[CheckpointTuple]:
    """These rows with their values; what several of them hold is fetched and decoded once."""
    layouts = [rows.layout_of(s.row) for s in seen]
    bodies = await items(
        fetch, (r for layout in layouts for place in layout.places.values() for r in place.ranges)
    )
    writes = await _writes(fetch, seen)
    shared: dict[Item, Any] = {}

    def part(where: Item) -> Any:
        if where in shared:
            return shared[where]
        if where not in bodies:
            raise UnknownBody("a checkpoint refers to a value that is not there")
        value = codec.load(serde, bodies[where])
        if isinstance(value, _SHARED):
            shared[where] = value
        return value

    found: list[CheckpointTuple] = []
    for s, layout in zip(seen, layouts, strict=True):
        values = {
            channel: rows.value_of(place, [part(where) for where in rows.items_of(place.ranges)])
            for channel, place in layout.places.items()
            if place.kind != Kind.ABSENT
        }
        key = (s.row["lineage_id"], s.row["checkpoint_id"], s.row["ns"])
        found.append(
            rows.make(thread_id, s.row, layout, values, rows.writes_of(serde, writes.get(key, ())))
        )
    return found


async def items(fetch: Fetch, ranges: Iterable[Range]) -> dict[Item, bytes]:
    """The bodies of the union of these ranges."""
    spans: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for r in ranges:
        spans.setdefault((r.lineage_id, r.stream), []).append((r.first, r.first + r.size))
    wanted: list[tuple[int, int, int, int]] = []
    for (lineage_id, stream), some in spans.items():
        end = -1
        for first, last in sorted(some):
            start = max(first, end)
            if start < last:
                wanted.append((lineage_id, stream, start, last - start))
            end = max(end, last)
    if not wanted:
        return {}
    lineages, streams, firsts, sizes = (list(column) for column in zip(*wanted, strict=True))
    found = await fetch(
        _SQL["load_items"],
        {"lineages": lineages, "streams": streams, "firsts": firsts, "sizes": sizes},
    )
    return {(row["lineage_id"], row["stream"], row["number"]): row["body"] for row in found}


async def _writes(fetch: Fetch, seen: Sequence[Seen]) -> dict[tuple[int, str, str], list[Write]]:
    found: dict[tuple[int, str, str], list[Write]] = {}
    for row in await fetch(_SQL["load_writes"], path.rows_until(seen)):
        key = (row["lineage_id"], row["checkpoint_id"], row["ns"])
        found.setdefault(key, []).append(
            Write(
                row["task_id"], row["slot"], row["channel"], text.unescape(row["path"]),
                row["body"],
            )
        )  # fmt: skip
    return found
