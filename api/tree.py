"""A session's lines as a tree: each line's checkpoints from the oldest on, and below a checkpoint
the lines that begin there."""

from collections import defaultdict
from collections.abc import Sequence

from clew.api.terminal import clean, many, paint
from clew.checkpointing.history import Branch, Entry, Tree


def draw(found: Tree) -> list[str]:
    own = {branch.line.lineage_id: branch for branch in found.branches}
    held: defaultdict[int, list[Entry]] = defaultdict(list)
    for entry in reversed(found.entries):
        held[entry.lineage_id].append(entry)
    on = {entry.checkpoint_id: entry.lineage_id for entry in found.entries}
    below: defaultdict[str | None, list[int]] = defaultdict(list)
    # What a fork has from its parent, and whatever begins nowhere that is shown, is at the root.
    roots = [lineage_id for lineage_id in held if lineage_id not in own]
    for lineage_id, branch in own.items():
        at = branch.line.fork_id
        if at is not None and at in on and on[at] != lineage_id:
            below[at].append(lineage_id)
        else:
            roots.append(lineage_id)
    lines: list[str] = []
    for lineage_id in sorted(roots):
        _line(lines, lineage_id, "", own, held, below)
    return lines


def _line(
    lines: list[str],
    lineage_id: int,
    margin: str,
    own: dict[int, Branch],
    held: dict[int, list[Entry]],
    below: dict[str | None, list[int]],
) -> None:
    lines.append(margin + _title(lineage_id, own.get(lineage_id)))
    entries: Sequence[Entry] = held.get(lineage_id, ())
    for n, entry in enumerate(entries):
        last = n == len(entries) - 1
        lines.append(f"{margin}{'└─' if last else '├─'} {_entry(entry)}")
        for child in below.get(entry.checkpoint_id, ()):
            rest = "   " if last else "│  "
            _line(lines, child, f"{margin}{rest}", own, held, below)


def _title(lineage_id: int, branch: Branch | None) -> str:
    if branch is None:
        return paint(f"line {lineage_id}, of the session that this one was forked from", "dim")
    told = [f"line {lineage_id}"]
    if branch.line.is_head:
        told.append(paint("head", "green"))
    told.append(many(branch.checkpoints, "checkpoint"))
    if branch.actor:
        told.append(f"by {clean(branch.actor)}")
    if branch.reason:
        told.append(f"“{clean(branch.reason)}”")
    return paint(told[0], "bold") + "".join(f" · {one}" for one in told[1:])


def _entry(entry: Entry) -> str:
    step = "-" if entry.step is None else entry.step
    moment = entry.created_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    marks = [paint(f"[{clean(label)}]", "yellow") for label in entry.labels]
    if entry.pinned:
        marks.append(paint("pinned", "yellow"))
    if entry.interrupted:
        marks.append(paint("asked", "cyan"))
    if entry.failed:
        marks.append(paint("failed", "red"))
    told = f"{entry.checkpoint_id}  step {step:>3}  {entry.source or '-':<6}  {moment}"
    return "  ".join([told, *marks])
