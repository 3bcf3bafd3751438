"""Listing and searching one's sessions: filters, text in any language, keyset cursors that stay
exact and fast however far one pages.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from clew.checkpointing.postgres import Database, Principal
from clew.runtime import cursors, documents, errors, words
from clew.runtime.sessions import Filter, Json, Session, State, Status, single
from clew.runtime.sql import queries

Sort = Literal["updated_at", "created_at", "last_active_at"]
LIVING: tuple[State, ...] = ("active", "idle", "archived")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is looked for; None asks nothing. `text` is looked for in titles and messages."""

    states: Sequence[State] = LIVING
    statuses: Sequence[Status] | None = None
    text: str | None = None
    tags_all: Sequence[str] | None = None
    tags_any: Sequence[str] | None = None
    metadata: Json | None = None
    kind: str | None = None
    graph_id: str | None = None
    assistant_id: str | None = None
    parent_thread_id: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    updated_after: datetime | None = None
    updated_before: datetime | None = None

    def conditions(self, allowed: Filter | None) -> Mapping[str, Any]:
        named = {
            "states": list(self.states),
            "statuses": self.statuses and list(self.statuses),
            "tags_all": self.tags_all and list(self.tags_all),
            "tags_any": self.tags_any and list(self.tags_any),
            "metadata": self.metadata or None,
            "kind": self.kind,
            "graph_id": self.graph_id,
            "assistant_id": self.assistant_id,
            "parent_thread_id": self.parent_thread_id,
            "created_after": _instant(self.created_after),
            "created_before": _instant(self.created_before),
            "updated_after": _instant(self.updated_after),
            "updated_before": _instant(self.updated_before),
            "allowed": allowed,
        }
        return {name: value for name, value in named.items() if value is not None}

    @property
    def by_terms(self) -> bool:
        """Whether there is anything that the index of terms can answer."""
        given = (self.tags_all, self.tags_any, self.metadata, self.kind, self.graph_id)
        return any(given) or self.assistant_id is not None or self.text is not None


@dataclass(frozen=True, slots=True)
class Page:
    items: list[Session]
    cursor: str | None  # of the next page; None where this was the last
    total: int | None = None


async def page(
    db: Database,
    who: Principal,
    wanted: Wanted,
    *,
    sort: Sort = "updated_at",
    descending: bool = True,
    limit: int = 20,
    cursor: str | None = None,
    total: bool = False,
    allowed: Filter | None = None,
) -> Page:
    """One page, and where the next one starts. Sessions that change while one pages move in the
    order, but none is shown twice by one that stands still."""
    owner_id = single(who)
    conditions = wanted.conditions(allowed)
    question = [owner_id, conditions, wanted.text, sort, descending]
    after_at = after_id = None
    if cursor is not None:
        after_at, after_id = cursors.read(question, cursor, 2)
        _check_instant(after_at)
    terms = None
    if wanted.text is not None:
        if owner_id is None:
            raise errors.Invalid("text: a search by text is for one owner")
        terms = words.query(owner_id, wanted.text)
        if terms is None:
            return Page([], None, 0 if total else None)
    values: dict[str, Any] = {
        "owner_id": owner_id,
        "words": terms,
        "wanted": documents.document("filter", conditions, scrubbed=False),
        "sort": sort,
        "descending": descending,
        "after_at": after_at,
        "after_id": after_id,
        "limit": limit + 1,
    }
    found = owner_id is not None and wanted.by_terms
    rows = await db.fetch(who, queries["find_sessions" if found else "list_sessions"], values)
    items = [Session.of(row) for row in rows[:limit]]
    number = None
    if total:
        name = "count_found_sessions" if found else "count_listed_sessions"
        [row] = await db.fetch(who, queries[name], values)
        number = row["sessions"]
    following = None
    if len(rows) > limit:
        last = items[-1]
        following = cursors.make(question, getattr(last, sort).isoformat(), last.thread_id)
    return Page(items, following, number)


async def index(db: Database, who: Principal, thread_id: str, texts: Iterable[str]) -> None:
    """Let a session be found by these texts as well: its title, what was said in it."""
    row = await db.one(who, queries["owner_of_session"], {"thread_id": thread_id})
    if row is None:
        return
    terms = words.index(row["owner_id"], texts)
    if terms:
        await db.execute(who, queries["add_words"], {"thread_id": thread_id, "words": terms})


def _instant(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _check_instant(text: str) -> None:
    try:
        datetime.fromisoformat(text)
    except ValueError as error:
        raise errors.Invalid("cursor: this is not a cursor") from error
