"""Several statements in one round trip and one implicit transaction, on the wire protocol itself.

What psycopg's own pipeline does, with one write to the socket instead of one for each statement
and without a cursor for each: a third of the time of a short query was that. Statements are only
prepared on the server where the caller knows that no transaction pooler is in between, and then
from their third time on: most of the server's time for a short statement is planning it.
"""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, LiteralString

from psycopg import AsyncConnection, errors, pq
from psycopg.adapt import PyFormat, Transformer
from psycopg.generators import send
from psycopg.rows import DictRow

from clew.checkpointing import parameters

Params = Mapping[str, Any] | Sequence[Any] | None
Statement = tuple[LiteralString, Params]

Key = tuple[bytes, tuple[int, ...], pq.Format]
PREPARE_AFTER = 2

_PLACE = re.compile(r"%(?:\((\w+)\))?([sbt])|%%")
_FORMAT = {"s": PyFormat.AUTO, "b": PyFormat.BINARY, "t": PyFormat.TEXT}


@dataclass(frozen=True, slots=True)
class Answer:
    """What one statement returned, and how many rows it touched."""

    rows: list[DictRow]
    count: int


@lru_cache(maxsize=1024)
def numbered(query: LiteralString) -> tuple[bytes, tuple[str | int, ...], tuple[PyFormat, ...]]:
    """The statement with `$1` for its parameters, which of them each number stands for, and how
    that one travels."""
    order: dict[str | int, int] = {}
    formats: list[PyFormat] = []

    def number(match: re.Match[str]) -> str:
        if match[0] == "%%":
            return "%"
        key: str | int = match[1] if match[1] is not None else len(order)
        if key not in order:
            order[key] = len(order) + 1
            formats.append(_FORMAT[match[2]])
        return f"${order[key]}"

    text = _PLACE.sub(number, query)
    return text.encode(), tuple(order), tuple(formats)


class Prepared:
    """What one connection has prepared, by text and parameter types."""

    MOST = 300

    def __init__(self) -> None:
        self._times: dict[Key, int] = {}
        self._names: dict[Key, bytes] = {}
        self._made = 0

    def name(self, key: Key) -> bytes | None:
        return self._names.get(key)

    def due(self, key: Key) -> bytes | None:
        """A name to prepare it under, once it has been asked for often enough."""
        if len(self._names) >= self.MOST:
            return None
        self._times[key] = times = self._times.get(key, 0) + 1
        if times <= PREPARE_AFTER:
            return None
        self._made += 1  # never the same name twice: a failed exchange may have left one behind
        return b"clew_%d" % self._made

    def keep(self, names: Mapping[Key, bytes]) -> None:
        self._names.update(names)

    def forget(self) -> None:
        self._times.clear()
        self._names.clear()


@dataclass(frozen=True, slots=True)
class Operation:
    """Statements that are one transaction, after one whose answer nobody reads."""

    statements: Sequence[Statement]
    binary: bool = False
    setup: Statement | None = None

    @property
    def form(self) -> pq.Format:
        return pq.Format.BINARY if self.binary else pq.Format.TEXT


Outcome = list[Answer] | Exception


async def exchange(
    conn: AsyncConnection[Any],
    statements: Sequence[Statement],
    *,
    binary: bool = False,
    prepared: Prepared | None = None,
) -> list[Answer]:
    """Run the statements as one transaction. The first error is raised, and none of them counts."""
    (outcome,) = await batch(conn, [Operation(statements, binary)], prepared)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


async def batch(
    conn: AsyncConnection[Any], operations: Sequence[Operation], prepared: Prepared | None
) -> list[Outcome]:
    """Run operations one after the other, each a transaction of its own: one that fails fails
    alone. Raises only what befalls the connection."""
    outcomes: list[Outcome] = []
    sent: list[tuple[int, list[Message], dict[Key, bytes]]] = []
    for at, operation in enumerate(operations):
        outcomes.append([])
        fresh: dict[Key, bytes] = {}
        try:
            # Before anything is sent: what cannot be dumped leaves the connection as it was.
            messages = _all_messages(conn, operation, prepared, fresh)
        except (errors.Error, ValueError, TypeError) as error:
            outcomes[at] = error
        else:
            sent.append((at, messages, fresh))
    if not sent:
        return outcomes
    try:
        segments = await _talk(conn, [[send for send, _ in messages] for _, messages, _ in sent])
    except BaseException:  # cancelled, too
        # Cut off half-way: what is still to come would be taken for the next one's answer.
        await _leave(conn)
        raise
    for (at, messages, fresh), results in zip(sent, segments, strict=True):
        failed = next((r for r in results if r.status == pq.ExecStatus.FATAL_ERROR), None)
        if failed is None:
            if prepared is not None:
                prepared.keep(fresh)
            kept = [result for result, (_, counts) in zip(results, messages, strict=True) if counts]
            outcomes[at] = [_answer(conn, result) for result in kept]
            continue
        error = errors.error_from_result(failed, encoding=conn.info.encoding)
        outcomes[at] = error
        if prepared is not None and error.sqlstate in _OUTDATED:
            # The tables changed under it, or something discarded it. Nothing has happened yet.
            prepared.forget()
            (outcomes[at],) = await batch(conn, [operations[at]], None)
    return outcomes


# A prepared statement that is not there, and one whose result would have other columns now.
_OUTDATED = ("26000", "0A000")

# What sends it, and whether its result is one that was asked for.
Message = tuple[Callable[[], None], bool]


def _all_messages(
    conn: AsyncConnection[Any],
    operation: Operation,
    prepared: Prepared | None,
    fresh: dict[Key, bytes],
) -> list[Message]:
    setup = [] if operation.setup is None else [operation.setup]
    found: list[Message] = []
    for statement in setup:
        made = _messages(conn, statement, operation.form, prepared, fresh)
        found += [(send, False) for send, _ in made]
    for statement in operation.statements:
        found += _messages(conn, statement, operation.form, prepared, fresh)
    return found


def _messages(
    conn: AsyncConnection[Any],
    statement: Statement,
    form: pq.Format,
    prepared: Prepared | None,
    fresh: dict[Key, bytes],
) -> list[Message]:
    query, params = statement
    text, order, wanted = numbered(query)
    given: Any = params if params is not None else ()
    values = [given[key] for key in order]
    types: Sequence[int] | None = None
    formats: Sequence[pq.Format] | None
    found = parameters.dump(values, wanted)
    if found is None:
        dumping = Transformer(conn)
        dumped = dumping.dump_sequence(values, wanted)
        types, formats = dumping.types, dumping.formats
    else:
        dumped, formats = found
    pgconn = conn.pgconn
    plain: Message = (lambda: pgconn.send_query_params(text, dumped, types, formats, form), True)
    if prepared is None:
        return [plain]
    key = (text, tuple(types or ()), form)
    name = prepared.name(key) or fresh.get(key)
    making: list[Message] = []
    if name is None:
        made = prepared.due(key)
        if made is None:
            return [plain]
        name = fresh[key] = made
        making = [(lambda: pgconn.send_prepare(made, text, types), False)]
    chosen = name
    return [
        *making,
        (lambda: pgconn.send_query_prepared(chosen, dumped, formats, form), True),
    ]


async def _talk(
    conn: AsyncConnection[Any], operations: Sequence[Sequence[Callable[[], None]]]
) -> list[list[Any]]:
    """The results of each operation."""
    pgconn = conn.pgconn
    pgconn.enter_pipeline_mode()
    for messages in operations:
        for message in messages:
            message()
        pgconn.pipeline_sync()
    if pgconn.flush():
        await conn.wait(send(pgconn))  # more than the socket takes at once
    done: list[list[Any]] = []
    results: list[Any] = []
    # One result for each message, then the end of the transaction, which may fail for itself: a
    # constraint that is checked there, a server that goes down.
    while len(done) < len(operations):
        while pgconn.is_busy():
            await _readable(pgconn.socket)
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is None:  # between one message's results and the next one's
            if pgconn.status != pq.ConnStatus.OK:
                raise errors.OperationalError("the connection was lost")
        elif result.status == pq.ExecStatus.PIPELINE_SYNC:
            done.append(results)
            results = []
        else:
            results.append(result)
    pgconn.exit_pipeline_mode()
    return done


async def _readable(socket: int) -> None:
    """psycopg's own wait also looks for whether it may write, and wakes up now and then."""
    loop = asyncio.get_running_loop()
    came: asyncio.Future[None] = loop.create_future()
    loop.add_reader(socket, _wake, came)
    try:
        await came
    finally:
        loop.remove_reader(socket)


def _wake(came: asyncio.Future[None]) -> None:
    if not came.done():
        came.set_result(None)


async def _leave(conn: AsyncConnection[Any]) -> None:
    """Stop what the server is still doing for us, and hang up."""
    try:
        if conn.pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
            await conn.cancel_safe(timeout=2.0)
    except (errors.Error, OSError):
        pass  # it is gone already
    finally:
        await conn.close()


def _answer(conn: AsyncConnection[Any], result: Any) -> Answer:
    count = result.command_tuples or 0
    if result.status != pq.ExecStatus.TUPLES_OK:
        return Answer([], count)
    names = [result.fname(n).decode() for n in range(result.nfields)]
    loading = Transformer(conn)
    loading.set_pgresult(result)

    def row(values: Sequence[Any]) -> DictRow:
        return dict(zip(names, values, strict=True))

    return Answer(loading.load_rows(0, result.ntuples, row), count)
