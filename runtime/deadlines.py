"""Questions that nobody answered in time: they get the answer that was set for the case, in a run
like any other, or are given up. Any number of processes may look; each question is dealt with once.
"""

import dataclasses
import logging
from collections.abc import Collection, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any

from psycopg.rows import DictRow
from pydantic_core import from_json

from clew.checkpointing.errors import EncryptionError, UnknownKey
from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.checkpointing.sealed import apart, closed
from clew.runtime import errors, runs
from clew.runtime.requests import RunRequest
from clew.runtime.sql import queries

log = logging.getLogger(__name__)

LIMIT = 100


async def meet(db: Database) -> bool:
    """Deal with what is due; whether runs wait to be claimed because of it."""
    with apart():
        values = {"limit": LIMIT, "opens": db.opens}
        due = await db.fetch(SERVICE, queries["overdue_interrupts"], values)
    waits = False
    for thread_id, group in groupby(due, key=lambda row: row["thread_id"]):
        asked = list(group)
        answers: dict[str, Any] = {}
        for row in asked:
            # Without an answer that can be read, it is given up.
            if row["on_deadline"] is not None and closed(row["on_deadline"]) is None:
                with suppress(ValueError):
                    answers[row["interrupt_id"]] = from_json(row["on_deadline"])
        await _give_up(db, thread_id, {row["interrupt_id"] for row in asked} - answers.keys())
        if answers:
            try:
                waits = await _answer(db, thread_id, asked, answers) or waits
            except UnknownKey as error:
                log.error("session %s is not answered: %s", thread_id, error)  # noqa: TRY400 - known
            except (EncryptionError, TypeError, ValueError, OverflowError) as error:
                # As a question without an answer: it would be found again and again.
                log.error("session %s is not answered: %s", thread_id, type(error).__name__)  # noqa: TRY400 - it may quote
                await _give_up(db, thread_id, answers)
    return waits


async def _give_up(db: Database, thread_id: str, interrupt_ids: Collection[str]) -> None:
    if interrupt_ids:
        key = {"thread_id": thread_id, "interrupt_ids": list(interrupt_ids)}
        await db.execute(SERVICE, queries["give_up_interrupts"], key)


async def _answer(
    db: Database, thread_id: str, asked: Sequence[DictRow], answers: dict[str, Any]
) -> bool:
    """Answer as the asking run's own caller would: its graph, its settings, its owner."""
    first = asked[0]
    owner_id: int = first["owner_id"]
    try:
        asker = await runs.get(db, SERVICE, thread_id, str(first["run_id"]))
        request = asker.request()
    except errors.NotFound:
        request = RunRequest(graph_id=first["graph_id"], assistant_id=_text(first["assistant_id"]))
    # One key for one asking: however many processes find it, one run answers.
    moment = max(row["created_at"] for row in asked)
    key = f"deadline {thread_id} {' '.join(sorted(answers))} {moment.isoformat()}"
    answer = dataclasses.replace(
        request,
        input=None,
        command={"resume": answers},
        checkpoint=None,
        strict_resume=True,
        multitask_strategy="reject",
        metadata={**request.metadata, "answered_by": "deadline"},
        idempotency_key=key,
    )
    try:
        await runs.create(db, Principal.owner(owner_id), owner_id, thread_id, answer)
    except (errors.Conflict, errors.NotFound, errors.Gone, errors.Limited):
        return False  # somebody was quicker, or the session is not open any more
    return True


def _text(value: object) -> str | None:
    return None if value is None else str(value)
