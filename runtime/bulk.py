"""Many sessions in one call: item by item, each with its outcome; or all of an owner or agent."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from clew.checkpointing.postgres import Database, Principal
from clew.runtime import errors, sessions
from clew.runtime.sessions import Filter, single
from clew.runtime.sql import queries

T = TypeVar("T")
R = TypeVar("R")

MOST = 1000  # items of one call
AT_ONCE = 8


async def each(items: Sequence[T], work: Callable[[T], Awaitable[R]]) -> list[R | errors.ClewError]:
    """Do this for every item, a few at once. What fails is in the place of its result, and keeps no
    other item from being done."""
    if len(items) > MOST:
        raise errors.TooLarge(f"at most {MOST} items in one call", limit=MOST)
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(item: T) -> R | errors.ClewError:
        async with gate:
            try:
                return await work(item)
            except errors.ClewError as error:
                return error

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(item)) for item in items]
    return [task.result() for task in tasks]


@dataclass(frozen=True, slots=True)
class Deleted:
    deleted: int
    busy: list[str]  # at work, and so left alone


async def delete(
    db: Database,
    who: Principal,
    *,
    actor: str,
    owner_id: int | None = None,
    graph_id: str | None = None,
    allowed: Filter | None = None,
) -> Deleted:
    """Delete all living sessions of an owner, of an agent, or of both, within what the principal
    may see. They can be brought back one by one as long as any deletion can."""
    if owner_id is None and graph_id is None:
        raise errors.Invalid("say whose sessions, or of which agent")
    values = {
        "owner_id": single(who) if owner_id is None else owner_id,
        "graph_id": graph_id,
        "actor": actor,
        "allowed": sessions.demand(allowed),
    }
    [row] = await db.fetch(who, queries["delete_sessions_where"], values)
    return Deleted(row["deleted"], list(row["busy"]))
