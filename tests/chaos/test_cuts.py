"""The connection to the database is cut in the middle of a flush, before or after it was stored:
the writer cannot tell which, and every reader gets every event once, in order, either way."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Literal

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from clew.checkpointing.postgres import SERVICE
from clew.runtime.events import Cursor
from tests.test_feed import END, opening, process

Cut = Literal["asking", "answering"]
FREE = b"Z\0\0\0\5I"  # a server that has done what it was asked, and stored it


class Wire:
    """Between a process and its database, to be cut: what is asked does not get there, or is done
    and the answer does not come back."""

    def __init__(self, dsn: str) -> None:
        self._to = conninfo_to_dict(dsn)
        self._dsn = dsn
        self.cut: Cut | None = None
        self.done = asyncio.Event()
        self._lines = set[asyncio.Task[None]]()

    @contextlib.asynccontextmanager
    async def laid(self) -> AsyncGenerator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            try:
                port = server.sockets[0].getsockname()[1]
                yield make_conninfo(self._dsn, host="127.0.0.1", port=port, sslmode="disable")
            finally:
                await asyncio.gather(*self._lines)  # whoever used them has closed them

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = asyncio.current_task()
        assert line is not None
        self._lines.add(line)
        host, port = str(self._to["host"]), str(self._to.get("port", 5432))
        if host.startswith("/"):
            back, forth = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            back, forth = await asyncio.open_connection(host, int(port))
        flush = asyncio.Event()  # the one to be cut is on its way here
        ways = {
            asyncio.create_task(self._pass(reader, forth, "asking", flush)),
            asyncio.create_task(self._pass(back, writer, "answering", flush)),
        }
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in (writer, forth):
                end.close()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._lines.discard(line)

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        way: Cut,
        flush: asyncio.Event,
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if self.cut and b"insert into clew.event" in data:
                    flush.set()
                if self.cut == way and flush.is_set() and (way == "asking" or FREE in data):
                    self.cut = None
                    self.done.set()
                    return
                writer.write(data)
                await writer.drain()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("cut", ["asking", "answering"])
async def test_a_flush_that_is_cut_off_is_told_once(dsn: str, cut: Cut):
    wire = Wire(dsn)
    async with wire.laid() as through, process(through) as here, process(dsn) as there:
        run, tape = await here.start()
        await here.write(tape, "before")
        await tape.caught_up()
        wire.cut = cut
        await here.write(tape, "cut", "off")
        await wire.done.wait()
        await here.write(tape, "after")
        await tape.caught_up()
        stored = await there.db.fetch(
            SERVICE, "select first_n, last_n from clew.event where first_n <= 3 and last_n >= 3"
        )
        # The control: after an answer that was lost the log has it twice.
        assert len(stored) == (2 if cut == "answering" else 1)
        await here.finish(run, tape)
        expected = [opening(run), '"before"', '"cut"', '"off"', '"after"', END]
        for count in range(len(expected)):
            after = Cursor(run.epoch or 0, count)
            assert await there.texts(run, after) == expected[count:]
            assert await here.texts(run, after) == expected[count:]
