"""Events for readers in other processes, out of Redis instead of Postgres.

Postgres keeps every event, as without Redis: a flush is written there first, under the fence, and
only what it took is then also added to a Redis Stream of its run, under the same ids. So Redis
never has what the log has not; losing it, or part of it, costs time and nothing else. A reader is
served from Redis as long as what is there follows its place without a gap, and from the log
otherwise: at the start, from one epoch to the next, at the end, and past anything that Redis lacks.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from redis.asyncio import Redis

from clew.checkpointing.errors import EncryptionError
from clew.checkpointing.postgres import Principal
from clew.checkpointing.sealed import Seals
from clew.runtime.events import PAGE, Cursor, EventLog, Page, Row
from clew.runtime.line import Line

# For how many flushes and how long Redis keeps what nobody adds to; the log has it all the same.
FLUSHES = 500
SECONDS = 120
# Larger flushes are read from the log: they would fill a memory that many share.
LARGEST = 64 * 1024
AT_ONCE = 16


class Fanout:
    """An `EventLog` in front of another one, which keeps what this one spreads."""

    def __init__(self, record: EventLog, line: Line, seals: Seals | None = None) -> None:
        """`seals`: where encryption is on, copies are sealed as the rows are."""
        self._record = record
        self._line = line
        self._seals = seals

    async def append(self, rows: Sequence[Row]) -> Mapping[tuple[str, int], int]:
        held = await self._record.append(rows)
        spread = [
            row for row in rows if (row.thread_id, row.epoch) in held and len(row.body) <= LARGEST
        ]
        if spread:
            await self._line.attempt(lambda redis: self._add(redis, spread, held))
        return held

    async def read(
        self,
        who: Principal,
        thread_id: str,
        after: Cursor,
        *,
        run_id: str | None = None,
        brief_but: str | None = None,
        live: str | None = None,
        limit: int = PAGE,
    ) -> Page:
        if live is not None and brief_but is None:
            page = await self._spread(who, thread_id, live, after)
            if page.rows:
                return page
        return await self._record.read(
            who, thread_id, after, run_id=run_id, brief_but=brief_but, live=live, limit=limit
        )

    async def tip(self, who: Principal, thread_id: str) -> Cursor:
        return await self._record.tip(who, thread_id)

    async def forget(self, runs: Iterable[tuple[str, str]]) -> None:
        await self._record.forget(runs)
        keys = [key(thread_id, run_id) for thread_id, run_id in runs]
        if keys:
            await self._line.attempt(lambda redis: redis.unlink(*keys))

    async def _spread(self, who: Principal, thread_id: str, run_id: str, after: Cursor) -> Page:
        """What follows in this epoch, as far as nothing is missing."""
        first, last = f"({after.id}", str(after.epoch)
        name = key(thread_id, run_id)
        found = await self._line.attempt(
            lambda redis: redis.xrange(name, first, last, count=AT_ONCE)
        )
        rows: list[Row] = []
        reached = after.n
        for place, cells in found or ():
            row = self._row(thread_id, run_id, place, cells, who)
            # Who may not read it is told by the log, in its own way.
            if row is None or row.first_n > reached + 1:
                break
            rows.append(row)
            reached = row.last_n
        return Page(rows, len(found or ()) == AT_ONCE)

    def _row(
        self, thread_id: str, run_id: str, place: Any, cells: Any, who: Principal
    ) -> Row | None:
        if not who.owner_from <= int(cells[b"o"]) <= who.owner_to:
            return None
        epoch, last_n = place.split(b"-")
        body: bytes = cells[b"b"]
        if self._seals is not None:
            try:
                body = self._seals.open(body)
            except EncryptionError:
                return None
        return Row(
            thread_id,
            run_id,
            int(epoch),
            int(cells[b"f"]),
            int(last_n),
            cells[b"v"] == b"1",
            int(cells[b"k"]),
            int(cells[b"c"]),
            body,
        )

    async def _add(
        self, redis: Redis, rows: Sequence[Row], owners: Mapping[tuple[str, int], int]
    ) -> list[Any]:
        """Ids that are not above the newest one are refused, so nothing comes twice or too late."""
        pipe = redis.pipeline(transaction=False)
        for row in rows:
            name = key(row.thread_id, row.run_id)
            cells: dict[Any, Any] = {
                "o": owners[row.thread_id, row.epoch],
                "f": row.first_n,
                "v": int(row.v2),
                "k": row.kind,
                "c": row.codec,
                "b": self._seals.seal(row.body) if self._seals is not None else row.body,
            }
            place = f"{row.epoch}-{row.last_n}"
            pipe.xadd(name, cells, id=place, maxlen=FLUSHES, approximate=True)
            pipe.expire(name, SECONDS)
        answers: list[Any] = await pipe.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, Exception) and "equal or smaller" not in str(answer):
                raise answer  # full, or read-only: as good as away
        return answers


def key(thread_id: str, run_id: str) -> str:
    # Not the session alone: another one may have its id after it is deleted.
    return f"clew:e:{thread_id}:{run_id}"
