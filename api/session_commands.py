"""The words of `clew sessions`: its commands and their options."""

import argparse
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args
from uuid import UUID

from clew.api import session_files, session_look, session_moves
from clew.api.operate_sessions import Command
from clew.runtime.search import Sort
from clew.runtime.sessions import State, Status

Parser = argparse.ArgumentParser


def _common(sub: Parser) -> None:
    sub.add_argument("--tenant", help="only of this tenant (with --owner: default)")
    sub.add_argument("--owner", help="only of this owner")
    sub.add_argument("--json", action="store_true", help="the outcome as JSON")
    sub.add_argument(
        "--config", type=Path, metavar="FILE", help="langgraph.json, for graphs of one's own kind"
    )


def _session(sub: Parser) -> None:
    sub.add_argument("session", type=UUID, metavar="ID", help="the session")


def _maybe_session(sub: Parser) -> None:
    sub.add_argument("session", type=UUID, nargs="?", metavar="ID", help="the session")
    sub.add_argument("--every", action="store_true", help="all sessions that the filters find")


def _checkpoint(sub: Parser) -> None:
    sub.add_argument("checkpoint", type=UUID, nargs="?", metavar="CHECKPOINT", help="where to")
    sub.add_argument("--label", help="the checkpoint of that name")
    sub.add_argument("--line", type=int, help="the line, where a checkpoint is on several")


def _reason(sub: Parser) -> None:
    sub.add_argument("--reason", help="for the audit log")


def _filters(sub: Parser) -> None:
    sub.add_argument("--state", action="append", choices=get_args(State), help="may be repeated")
    sub.add_argument("--status", action="append", choices=get_args(Status), help="may be repeated")
    sub.add_argument("--tag", action="append", help="all of them must be there")
    sub.add_argument("--kind")
    sub.add_argument("--graph", metavar="AGENT", help="of this agent")
    sub.add_argument("--text", help="said in it or in its title; needs --owner")
    sub.add_argument("--before", type=_instant, metavar="WHEN", help="last updated before")
    sub.add_argument("--after", type=_instant, metavar="WHEN", help="last updated after")


def _listing(sub: Parser) -> None:
    sub.add_argument("--limit", type=_count, default=50, help="how many (50)")
    sub.add_argument("--all", action="store_true", help="however many there are")
    sub.add_argument("--sort", choices=get_args(Sort), default="updated_at")
    sub.add_argument("--reverse", action="store_true", help="the oldest first")


def _tree(sub: Parser) -> None:
    sub.add_argument("--limit", type=_count, default=1000, help="how many checkpoints (1000)")


def _diff(sub: Parser) -> None:
    sub.add_argument("a", type=UUID, nargs="?", metavar="A", help="from (the newest)")
    sub.add_argument("b", type=UUID, nargs="?", metavar="B", help="to (the newest)")
    sub.add_argument("--with", type=UUID, dest="with_", metavar="ID", help="B is in this session")


def _fork(sub: Parser) -> None:
    sub.add_argument("--title", help="of the new session")
    sub.add_argument("--id", type=UUID, help="of the new session")
    sub.add_argument("--scope", choices=("path", "all"), default="path", help="all: every branch")


def _prune(sub: Parser) -> None:
    sub.add_argument("--policy", help="such as 'keep_last 5'; else each session's own")
    _removes(sub)


def _removes(sub: Parser) -> None:
    sub.add_argument("--dry-run", action="store_true", help="say what would go, remove nothing")
    sub.add_argument("--yes", action="store_true", help="do not ask")


def _export(sub: Parser) -> None:
    sub.add_argument("--to", type=Path, metavar="PATH", help="file (- for stdout), or a folder")
    sub.add_argument("--scope", choices=("all", "path"), default="all", help="path: to the head")


def _import(sub: Parser) -> None:
    sub.add_argument("files", type=Path, nargs="+", metavar="FILE")
    sub.add_argument("--id", type=UUID, help="of the new session")


def _instant(text: str) -> datetime:
    """An ISO instant; without a zone it is UTC."""
    when = datetime.fromisoformat(text)
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


# What they are called, what they do, and what they are told besides what all are.
_COMMANDS: tuple[tuple[str, Command, str, tuple[Callable[[Parser], None], ...]], ...] = (
    ("ls", session_look.ls, "List sessions.", (_filters, _listing)),
    ("show", session_look.show, "Show all about one session.", (_session,)),
    ("tree", session_look.tree_, "Draw a session's lines and checkpoints.", (_session, _tree)),
    ("diff", session_look.diff, "How to get from one checkpoint to another.", (_session, _diff)),
    (
        "restore",
        session_moves.restore,
        "Put a session back to a checkpoint; nothing is deleted.",
        (_session, _checkpoint, _reason),
    ),
    ("undo", session_moves.undo, "Go back to what the last restore left.", (_session, _reason)),
    (
        "fork",
        session_moves.fork,
        "Begin a session of the same owner at a checkpoint of this one.",
        (_session, _checkpoint, _fork, _reason),
    ),
    (
        "prune",
        session_moves.prune,
        "Remove what retention does not keep.",
        (_maybe_session, _filters, _prune, _reason),
    ),
    (
        "export",
        session_files.export,
        "Write sessions to files, lossless.",
        (_maybe_session, _filters, _export),
    ),
    ("import", session_files.import_, "Make sessions of such files.", (_import, _reason)),
    ("erase", session_moves.erase, "Remove everything of an owner, for good.", (_removes,)),
)


def add_arguments(sub: Parser) -> None:
    commands = sub.add_subparsers(required=True, metavar="command")
    for name, run, about, told in _COMMANDS:
        one = commands.add_parser(name, help=about, description=about)
        one.set_defaults(command=run)
        for add in (*told, _common):
            add(one)
