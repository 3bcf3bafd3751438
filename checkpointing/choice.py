"""Which of a session's checkpoints stay: a decision about rows, made without reading a value.

Whatever stays must still say what it said: the state of a checkpoint needs the subgraph rows that
it shows, a DeltaChannel the rows back to its last snapshot, and a fork the cut at its fork point.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import DictRow

from clew.checkpointing import manifest, sight, text
from clew.checkpointing.manifest import Kind
from clew.checkpointing.policy import Policy

Key = tuple[int, str, int]  # lineage, namespace, seq: a row


@dataclass(slots=True)
class Session:
    """What there is: a session's own lineages, their rows by seq, and what was forked off."""

    thread_id: str
    head_id: int
    now: datetime
    lineages: Sequence[DictRow]
    rows: Sequence[DictRow]
    family: Sequence[DictRow]
    marked: Collection[UUID]  # pinned or labelled
    before_model: Collection[Key] = ()  # rows whose child has a new message of a model


@dataclass(slots=True)
class Plan:
    """What goes."""

    rows: list[DictRow] = field(default_factory=list[DictRow])
    relink: list[tuple[DictRow, UUID | None, int]] = field(
        default_factory=list[tuple[DictRow, UUID | None, int]]
    )
    # of rows that stay: after which moment, and whether all writes or the ordinary ones
    writes: list[tuple[DictRow, int, bool]] = field(default_factory=list[tuple[DictRow, int, bool]])
    lines: list[int] = field(default_factory=list[int])  # lineages of which nothing stays

    def __bool__(self) -> bool:
        return bool(self.rows or self.writes or self.lines)


def decide(session: Session, policy: Policy) -> Plan:
    """What goes under a policy. `keep_runs` needs `before_model` to be filled in."""
    if policy.kind == "keep_all":
        return Plan()
    return _Choice(session, policy).plan()


def without(session: Session, checkpoints: Collection[UUID]) -> tuple[Plan, set[UUID]]:
    """The plan that removes these root checkpoints and nothing else, and which of them have to
    stay: a line's first or newest, a fork point, or what another session or a DeltaChannel needs.
    """
    choice = _Choice(session, Policy("keep_all"), doomed=checkpoints)
    plan = choice.plan()
    return plan, {key[0] for key in choice.refused}


def key(row: Mapping[str, Any]) -> Key:
    return (row["lineage_id"], row["ns"], row["seq"])


class _Choice:
    """One decision. `kept` grows until everything that stays has what it needs."""

    def __init__(
        self, session: Session, policy: Policy, *, doomed: Collection[UUID] | None = None
    ) -> None:
        self.session = session
        self.policy = policy
        self.doomed = doomed
        self.refused: set[tuple[UUID, int]] = set()
        self.kept: set[Key] = set()
        self.whole: set[Key] = set()  # roots that keep all their writes and subgraph rows
        self.parents = {line["lineage_id"]: line["parent_id"] for line in session.lineages}
        self.rows = {
            (row["lineage_id"], row["ns"], row["checkpoint_id"]): row for row in session.rows
        }
        self.roots: dict[int, list[DictRow]] = {line: [] for line in self.parents}
        self.under: list[DictRow] = []
        for row in session.rows:
            (self.under if row["ns"] else self.roots[row["lineage_id"]]).append(row)
        self.cuts: dict[tuple[int, UUID], int] = {}
        self.followed: set[tuple[int, UUID]] = set()
        for row in session.rows:
            if not row["ns"] and row["parent_id"] is not None:
                # The run that went on first says up to when a checkpoint was the newest.
                self.cuts.setdefault((row["lineage_id"], row["parent_id"]), row["entry"])

    def plan(self) -> Plan:
        lines = self._dead_lines()
        self._hold()
        if self.doomed is None:
            self._apply()
        else:
            self._doom(self.doomed)
        for row in reversed(self.session.rows):  # what one needs may need more itself
            if not row["ns"] and key(row) in self.kept:
                self._needs(row)
        self._subgraphs()
        plan = Plan(lines=[*lines])
        plan.rows = [
            row
            for row in self.session.rows
            if key(row) not in self.kept or row["lineage_id"] in lines
        ]
        self._relink(plan)
        if plan.rows or self.policy.kind == "keep_runs":
            self._writes(plan)
        return plan

    # -- what stays whatever the policy

    def _hold(self) -> None:
        forked = {(f["parent_id"], i) for f in self.session.family for i in _fork_points(f)}
        seen = sight.look(self.session.thread_id, self.parents, self.roots, self.session.family)
        for lineage_id, rows in self.roots.items():
            for row in rows:
                at = (lineage_id, row["checkpoint_id"])
                if row is rows[-1] or at in forked:
                    self._keep(row, whole=True)
                elif row is rows[0] and (self.parents[lineage_id] or self._opens()):
                    self._keep(row, whole=False)
                elif at in seen.roots or row["checkpoint_id"] in self.session.marked:
                    self._keep(row, whole=True)
        for row in self.under:
            lineage_id, root = row["lineage_id"], (row["lineage_id"], row["root_id"])
            # A stateful subgraph's history goes back through every call, on the path or not.
            bound = (seen.copied if ":" in row["ns"] else seen.forked).get(lineage_id, -1)
            if root in seen.roots or root in forked or row["seq"] <= bound:
                self.kept.add(key(row))

    def _opens(self) -> bool:
        """Whether the very first checkpoint stays: there, a client edits the first message."""
        return self.doomed is None and self.policy.kind == "keep_runs"

    def _keep(self, row: DictRow, *, whole: bool) -> None:
        self.kept.add(key(row))
        if whole:
            self.whole.add(key(row))

    # -- what the policy says

    def _apply(self) -> None:
        policy, session = self.policy, self.session
        every = sorted(
            (row for rows in self.roots.values() for row in rows), key=lambda row: row["seq"]
        )
        young = session.now - policy.untouched
        for row in every:
            if row["created_at"] > young:
                self._keep(row, whole=True)
        if policy.kind == "keep_last":
            for row in every[-policy.count :]:
                self._keep(row, whole=True)
        if policy.kind == "keep_runs":
            last: dict[tuple[int, Any], DictRow] = {}
            for row in every:
                last[row["lineage_id"], row["run_id"] or row["entry"]] = row
                if row["asked"] or row["failed"]:
                    self._keep(row, whole=True)
                elif key(row) in session.before_model:
                    self._keep(row, whole=False)
            for row in last.values():
                self._keep(row, whole=False)

    def _doom(self, doomed: Collection[UUID]) -> None:
        """Everything stays but these."""
        for rows in self.roots.values():
            for row in rows:
                if row["checkpoint_id"] not in doomed:
                    self._keep(row, whole=True)
                elif key(row) in self.kept:
                    self.refused.add((row["checkpoint_id"], row["lineage_id"]))

    def _dead_lines(self) -> set[int]:
        """Under `ttl`, abandoned lines that are too old, have no marks and no forks."""
        if self.policy.kind != "ttl":
            return set()
        old = self.session.now - self.policy.untouched
        dead: set[int] = set()
        used = {f["parent_id"] for f in self.session.family}
        for line in sorted(self.session.lineages, key=lambda f: f["lineage_id"], reverse=True):
            lineage_id = line["lineage_id"]
            children = {
                f["lineage_id"] for f in self.session.family if f["parent_id"] == lineage_id
            }
            if lineage_id == self.session.head_id or (lineage_id in used and children - dead):
                continue
            rows = self.roots[lineage_id]
            if rows and all(
                row["created_at"] <= old and row["checkpoint_id"] not in self.session.marked
                for row in rows
            ):
                dead.add(lineage_id)
        return dead

    # -- what all of that needs

    def _needs(self, row: DictRow) -> None:
        """Keep the rows from which a DeltaChannel's value at this one is put together."""
        missing = _deltas(row)
        lineage_id: int | None = row["lineage_id"]
        above = row["parent_id"]
        while missing and above is not None and lineage_id is not None:
            found = self.rows.get((lineage_id, row["ns"], above))
            if found is None:
                lineage_id = self.parents.get(lineage_id)
                continue
            self._keep(found, whole=True)
            if self.doomed and found["checkpoint_id"] in self.doomed:
                self.refused.add((found["checkpoint_id"], lineage_id))
            missing -= _stored(found)
            above = found["parent_id"]

    def _subgraphs(self) -> None:
        kept = {
            (lineage_id, row["checkpoint_id"]): row
            for lineage_id, rows in self.roots.items()
            for row in rows
            if key(row) in self.kept
        }
        logs: dict[tuple[int, str, UUID | None], list[DictRow]] = defaultdict(list)
        known = {(i, row["checkpoint_id"]) for i, rows in self.roots.items() for row in rows}
        for row in self.under:
            root = (row["lineage_id"], row["root_id"])
            stable = ":" not in row["ns"]
            whole = root in kept and key(kept[root]) in self.whole
            lost = root not in known and not stable  # its root is not there, or not yet
            if whole or lost or ((row["asked"] or row["failed"]) and root in kept):
                self.kept.add(key(row))
            if root in kept or stable:
                logs[row["lineage_id"], row["ns"], None if stable else row["root_id"]].append(row)
        for (lineage_id, ns, root_id), rows in logs.items():
            self.kept.add(key(rows[-1]))
            if root_id is not None or ":" in ns:
                bounds = [self.cuts.get((lineage_id, root_id))] if root_id else []
            else:
                # One namespace for all calls: a state shows what it held then.
                roots = [row for (at, _), row in kept.items() if at == lineage_id]
                bounds = [row["seq"] for row in roots]
                bounds += [self.cuts.get((lineage_id, row["checkpoint_id"])) for row in roots]
            self.kept |= {key(row) for row in _newest_until(rows, bounds)}
        self._nested()

    def _nested(self) -> None:
        """Subgraph rows name the checkpoints of the graphs that they run in."""
        for row in [row for row in self.under if key(row) in self.kept]:
            for ns, checkpoint_id in (row["parents"] or {}).items():
                above = self.rows.get((row["lineage_id"], ns, UUID(checkpoint_id)))
                if above is not None:
                    self.kept.add(key(above))
        for row in reversed(self.under):
            if key(row) in self.kept:
                self._needs(row)

    def _relink(self, plan: Plan) -> None:
        """Close the gaps. The first child of a checkpoint goes on saying when it was left."""
        first: set[tuple[int, UUID]] = set()
        for row in self.session.rows:
            if key(row) not in self.kept or row["lineage_id"] in plan.lines:
                continue
            above, entry = row["parent_id"], row["entry"]
            while above is not None:
                found = self.rows.get((row["lineage_id"], row["ns"], above))
                if found is None or key(found) in self.kept:
                    break
                above = found["parent_id"]
            if above is not None and not row["ns"]:
                at = (row["lineage_id"], above)
                if at not in first:
                    entry = min(entry, self.cuts.get(at, entry))
                first.add(at)
            if above != row["parent_id"] or entry != row["entry"]:
                plan.relink.append((row, above, entry))
        self.followed = first

    def _writes(self, plan: Plan) -> None:
        for lineage_id, rows in self.roots.items():
            for row in rows:
                at = (lineage_id, row["checkpoint_id"])
                if key(row) not in self.kept or lineage_id in plan.lines or not row["writes"]:
                    continue
                if at not in self.cuts:
                    continue
                if at not in self.followed:
                    # All that came after it is gone: it is as it was when it was the newest.
                    plan.writes.append((row, self.cuts[at], True))
                elif (
                    self.policy.kind == "keep_runs"
                    and row["ordinary"]
                    and key(row) not in self.whole
                    and not row["has_seeds"]
                    and not row["counters"]
                ):
                    # What its tasks wrote then is in the checkpoint that followed.
                    plan.writes.append((row, self.cuts[at], False))


def _fork_points(line: Mapping[str, Any]) -> Iterable[UUID]:
    return (i for i in (line["fork_id"], line["fork_parent"]) if i is not None)


def _deltas(row: DictRow) -> set[str]:
    """The DeltaChannels whose value is not stored with this row."""
    if not row["counters"]:
        return set()
    layout = manifest.decode(row["state"], row["ranges"], row["lineage_id"])
    return {
        channel
        for channel in map(text.unescape, row["counters"])
        if channel in layout.versions and layout.places[channel].kind == Kind.ABSENT
    }


def _stored(row: DictRow) -> set[str]:
    layout = manifest.decode(row["state"], row["ranges"], row["lineage_id"])
    return {channel for channel, place in layout.places.items() if place.kind != Kind.ABSENT}


def _newest_until(rows: Sequence[DictRow], bounds: Iterable[int | None]) -> list[DictRow]:
    """Of rows by seq, the newest up to each bound."""
    found: list[DictRow] = []
    at = 0
    for bound in sorted(b for b in bounds if b is not None):
        while at < len(rows) and rows[at]["seq"] <= bound:
            at += 1
        if at:
            found.append(rows[at - 1])
    return found
