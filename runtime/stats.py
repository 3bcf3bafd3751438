"""How many sessions, in which state, of which agent and owner, how long, how large."""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from psycopg.rows import DictRow

from clew.checkpointing.postgres import Database, Principal
from clew.runtime.sessions import single
from clew.runtime.sql import queries


@dataclass(frozen=True, slots=True)
class Figures:
    sessions: int
    messages: int
    bytes: int
    average_duration: timedelta

    @classmethod
    def of(cls, row: DictRow | None) -> "Figures":
        if row is None:
            return cls(0, 0, 0, timedelta())
        duration = row["duration"] or timedelta()
        return cls(row["sessions"], row["messages"], row["bytes"], duration)


@dataclass(frozen=True, slots=True)
class Stats:
    total: Figures
    by_state: dict[str, int]
    by_agent: dict[str, Figures]  # sessions that have none yet are under ""
    by_owner: dict[str, Figures]  # by name; one entry for whoever is one owner
    by_day: dict[date, int]  # created


async def read(
    db: Database, who: Principal, *, graph_id: str | None = None, days: int = 30
) -> Stats:
    values: dict[str, Any] = {"owner_id": single(who), "graph_id": graph_id, "days": days}
    rows = await db.fetch(who, queries["stats_of_sessions"], values)
    by_day = await db.fetch(who, queries["stats_by_day"], values)
    owners = [row["owner_id"] for row in rows if not row["all_owners"]]
    named = await db.fetch(who, queries["names_of_owners"], {"owner_ids": owners})
    names = {row["owner_id"]: row["name"] for row in named}
    return Stats(
        Figures.of(next((row for row in rows if _total(row)), None)),
        {row["state"]: row["sessions"] for row in rows if not row["all_states"]},
        {row["graph_id"] or "": Figures.of(row) for row in rows if not row["all_agents"]},
        {
            names.get(row["owner_id"], str(row["owner_id"])): Figures.of(row)
            for row in rows
            if not row["all_owners"]
        },
        {row["day"]: row["sessions"] for row in by_day},
    )


def _total(row: DictRow) -> bool:
    return bool(row["all_states"] and row["all_agents"] and row["all_owners"])
