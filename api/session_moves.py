"""`clew sessions restore|undo|fork|prune|erase`: what moves sessions, and what removes."""

import argparse
from dataclasses import asdict

from clew.api import operate_sessions as operators
from clew.api import terminal
from clew.api.operate_sessions import Site
from clew.api.rewinding import shown
from clew.checkpointing import labels
from clew.checkpointing.policy import Policy
from clew.checkpointing.postgres import Principal
from clew.checkpointing.retention import Pruned
from clew.runtime import erasure, errors, forks, retention, rewind, settings
from clew.runtime.rewind import Moved
from clew.runtime.sessions import Fields


async def restore(options: argparse.Namespace) -> int:
    async with operators.site(options) as site:
        session, who = await site.find(options.session)
        to = await _named(site, who, session.thread_id, options)
        if to is None:
            raise errors.ConfigError("Say where to: a checkpoint, or --label.")
        moved = await rewind.restore(
            site.ground,
            who,
            session.thread_id,
            to,
            operators.why(options),
            lineage_id=options.line,
        )
    return _moved(options, moved, f"Restored to {to}; `clew sessions undo` takes it back.")


async def undo(options: argparse.Namespace) -> int:
    async with operators.site(options) as site:
        session, who = await site.find(options.session)
        why = operators.why(options)
        moved = await rewind.undo(site.ground, who, session.thread_id, why)
    return _moved(options, moved, f"Back at {moved.standing.checkpoint_id}.")


async def fork(options: argparse.Namespace) -> int:
    given: Fields = {}
    if options.title is not None:
        given["title"] = options.title
    async with operators.site(options) as site:
        session, who = await site.find(options.session)
        moved = await forks.fork(
            site.ground,
            who,
            session.thread_id,
            operators.why(options),
            checkpoint_id=await _named(site, who, session.thread_id, options),
            lineage_id=options.line,
            scope=options.scope,
            target_id=options.id and str(options.id),
            **given,
        )
    return _moved(options, moved, f"Forked: {moved.session.thread_id}")


async def prune(options: argparse.Namespace) -> int:
    """Of one session, or of all that the filters find. Without `--yes` it is asked for, after
    saying what would go."""
    if (options.session is None) != options.every:
        raise errors.ConfigError("Name a session, or say --every for all that the filters find.")
    policy = None if options.policy is None else retention.parse(options.policy)
    async with operators.site(options) as site:
        if options.session is not None:
            keys = [(await site.find(options.session))[0]]
        else:
            keys = [one async for one in site.every(operators.wanted(options))]
        targets = [(one.thread_id, Principal.owner(one.owner_id)) for one in keys]
        alone = options.session is not None
        if options.dry_run or not options.yes:
            would, busy = await _prune(site, options, targets, policy, alone=alone, dry_run=True)
            if options.dry_run:
                return _pruned(options, would, busy, "would go")
            _pruned(argparse.Namespace(json=False), would, busy, "would go")
            if not any(one.bytes or one.checkpoints for one in would):
                return 0
            if not terminal.confirm("Remove this?", yes=False):
                terminal.say("Nothing was removed.")
                return 1
        gone, busy = await _prune(site, options, targets, policy, alone=alone, dry_run=False)
    return _pruned(options, gone, busy, "removed")


async def _prune(
    site: Site,
    options: argparse.Namespace,
    targets: list[tuple[str, Principal]],
    policy: Policy | None,
    *,
    alone: bool,
    dry_run: bool,
) -> tuple[list[Pruned], list[str]]:
    """Session by session; where there are many, one at work is left for another time."""
    default = settings.load().retention
    gone: list[Pruned] = []
    busy: list[str] = []
    with terminal.progress("Pruning", len(targets)) as bar:
        for thread_id, who in targets:
            try:
                one = await retention.prune(
                    site.db,
                    who,
                    thread_id,
                    operators.why(options),
                    chosen=policy,
                    default=default,
                    dry_run=dry_run,
                    vault=site.ground.vault,
                )
            except errors.NotFound:  # it went meanwhile
                if alone:
                    raise
            except errors.Conflict:
                if alone:
                    raise
                busy.append(thread_id)
            else:
                gone.append(one)
            bar.on()
    return gone, busy


def _pruned(options: argparse.Namespace, gone: list[Pruned], busy: list[str], what: str) -> int:
    touched = [one for one in gone if one.bytes or one.checkpoints]
    checkpoints = sum(one.checkpoints for one in gone)
    stored = sum(one.bytes for one in gone)
    told = {
        "dry_run": what != "removed",
        "sessions": [asdict(one) for one in touched],
        "checkpoints": checkpoints,
        "bytes": stored,
        "busy": busy,
    }
    if options.json:
        terminal.tell(told)
        return 0
    if touched:
        rows = [
            (one.thread_id, one.checkpoints, one.writes, terminal.size(one.bytes))
            for one in touched
        ]
        terminal.table(("ID", "CHECKPOINTS", "WRITES", "SIZE"), rows)
    left = f"; {len(busy)} at work were left alone" if busy else ""
    number = terminal.many(checkpoints, "checkpoint")
    terminal.say(
        f"{len(touched)} of {len(gone) + len(busy)} sessions: {number}, "
        f"{terminal.size(stored)} {what}{left}."
    )
    return 0


async def erase(options: argparse.Namespace) -> int:
    """Everything of one owner, for good."""
    if options.owner is None:
        raise errors.ConfigError("Say whose: --owner.")
    async with operators.site(options) as site:
        assert site.owner is not None
        name = f"{site.tenant}/{site.owner}"
        if options.dry_run or not options.yes:
            would = await erasure.survey(site.db, site.tenant, site.owner)
            if options.dry_run and options.json:
                terminal.tell({"dry_run": True, "owner": name, "rows": would})
                return 0
            terminal.table(("TABLE", "ROWS"), list(would.items()))
            if options.dry_run:
                terminal.say(f"This is what there is of {name}; nothing was removed.")
                return 0
            question = f"Remove all of this for good? There is no way back for {name}."
            if not terminal.confirm(question, yes=False):
                terminal.say("Nothing was removed.")
                return 1
        with terminal.progress("Erasing sessions") as bar:
            receipt = await erasure.erase(
                site.db, site.tenant, site.owner, actor=operators.ACTOR, progress=bar.to
            )
    told = {name: value for name, value in asdict(receipt).items() if name != "actor"}
    removed = sum(receipt.removed.values())
    text = f"Erased {name}: {removed} rows, receipt {receipt.receipt_id}."
    return operators.said(options, told, text)


def _moved(options: argparse.Namespace, moved: Moved, text: str) -> int:
    session, told = moved.session, shown(moved)
    then = moved.standing.next
    after = f" Next: {', '.join(then)}." if then else ""
    more = f"\n{session.message_count} messages, {session.status}.{after}"
    return operators.said(options, told, text + more)


async def _named(
    site: Site, who: Principal, thread_id: str, options: argparse.Namespace
) -> str | None:
    """The checkpoint that an argument or a label names."""
    if options.checkpoint is not None and options.label is not None:
        raise errors.ConfigError("--label names a checkpoint as the argument does: give one.")
    if options.label is None:
        return options.checkpoint and str(options.checkpoint)
    async with site.db.transaction(who) as conn:
        return (await labels.get(conn, thread_id, options.label)).checkpoint_id
