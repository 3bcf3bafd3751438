"""A Postgres that is a millisecond away: a proxy in its own process that holds each answer back."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

from psycopg import conninfo


@contextlib.asynccontextmanager
async def away(dsn: str, seconds: float) -> AsyncGenerator[str]:
    """A DSN of the same database whose every answer takes this much longer."""
    given = conninfo.conninfo_to_dict(dsn)
    host, port = str(given.get("host", "127.0.0.1")), str(given.get("port", 5432))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, host, port, str(seconds), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        listening = (await process.stdout.readline()).decode().strip()
        yield conninfo.make_conninfo(dsn, host="127.0.0.1", port=listening, requirepeer="")
    finally:
        process.terminate()
        await process.wait()


async def _serve(host: str, port: str, seconds: float) -> None:
    loop = asyncio.get_running_loop()

    async def pump(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                if delay:
                    loop.call_later(delay, writer.write, data)
                else:
                    writer.write(data)
            await asyncio.sleep(delay)
        writer.close()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if host.startswith("/"):
            there = asyncio.open_unix_connection(str(Path(host) / f".s.PGSQL.{port}"))
        else:
            there = asyncio.open_connection(host, int(port))
        answers, questions = await there
        await asyncio.gather(pump(reader, questions, 0.0), pump(answers, writer, seconds))

    server = await asyncio.start_server(meet, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], sys.argv[2], float(sys.argv[3])))
