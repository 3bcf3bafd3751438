"""What other sessions see of this one's lines: nothing of that may go or change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from psycopg.rows import DictRow

Root = tuple[int, UUID]  # a lineage, and a checkpoint of the root graph in it


@dataclass(frozen=True, slots=True)
class Sight:
    roots: set[Root]
    copied: dict[int, int]  # a lineage, and up to when a copied session sees all of it
    forked: dict[int, int]  # a lineage, and when it was last forked


def look(
    thread_id: str,
    parents: Mapping[int, int | None],
    roots: Mapping[int, Sequence[DictRow]],
    family: Sequence[DictRow],
) -> Sight:
    """`parents` are the session's own lines, `family` all that was forked off them."""
    foreign = _foreign(thread_id, family)
    copied = _copied(parents, family, foreign)
    forked: dict[int, int] = {}
    seen = {
        (lineage_id, row["checkpoint_id"])
        for lineage_id, bound in copied.items()
        for row in roots[lineage_id]
        if row["seq"] <= bound
    }
    above = {
        (lineage_id, row["checkpoint_id"]): row["parent_id"]
        for lineage_id, rows in roots.items()
        for row in rows
    }
    # A line of ours that others see through is in the family itself, beneath another of ours.
    for line in family:
        at = line["parent_id"]
        if line["lineage_id"] in foreign and at in parents:
            forked[at] = max(line["moment"], forked.get(at, 0))
            _climb(parents, above, at, line["fork_parent"], seen)
    return Sight(seen, copied, forked)


def _foreign(thread_id: str, family: Sequence[DictRow]) -> set[int]:
    """Lineages that another session is on, or has beneath its own."""
    foreign: set[int] = set()
    # Children first: a child is always younger.
    for line in sorted(family, key=lambda f: f["lineage_id"], reverse=True):
        if line["thread_id"] != thread_id or line["lineage_id"] in foreign:
            foreign |= {line["lineage_id"], line["parent_id"]}
    return foreign


def _copied(
    parents: Mapping[int, int | None], family: Sequence[DictRow], foreign: set[int]
) -> dict[int, int]:
    bounds: dict[int, int] = {}
    for line in family:
        if line["scope"] != "all" or line["lineage_id"] not in foreign:
            continue
        at: int | None = line["parent_id"]
        while at is not None and at in parents:
            bounds[at] = max(line["moment"], bounds.get(at, 0))
            at = parents[at]
    return bounds


def _climb(
    parents: Mapping[int, int | None],
    above: Mapping[Root, UUID | None],
    lineage_id: int,
    checkpoint_id: UUID | None,
    seen: set[Root],
) -> None:
    """Add the way back from a checkpoint, through our lines as far as it goes."""
    at: int | None = lineage_id
    while checkpoint_id is not None and at is not None:
        if (at, checkpoint_id) not in above:
            at = parents.get(at)
            continue
        seen.add((at, checkpoint_id))
        checkpoint_id = above[at, checkpoint_id]
