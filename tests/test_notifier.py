"""Wake-ups: here at once, elsewhere soon, and never relied upon."""

import asyncio
import os
import select
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import AsyncConnection, conninfo

from clew.checkpointing.postgres import Database
from clew.runtime.notifier import LOCK_CLASS, Notifier


async def test_a_bell_here_rings_before_anything_is_sent(db: Database, dsn: str):
    async with Notifier(db, dsn) as notifier:
        with notifier.listen("a") as bell, notifier.listen("b") as other:
            notifier.publish("a")
            assert await bell.wait(0)
            assert not await other.wait(0)


async def test_another_process_hears_it(db: Database, dsn: str):
    async with Notifier(db, dsn) as one, Notifier(db, dsn) as two:
        assert one.direct
        with two.listen("topic") as bell:
            one.publish("topic", *(f"other-{n}" * 20 for n in range(200)))
            assert await bell.wait(5)


async def test_the_lock_lives_as_long_as_the_process(db: Database, dsn: str):
    free = "select pg_try_advisory_lock(%s, %s) as free, pg_advisory_unlock(%s, %s)"
    async with await AsyncConnection.connect(dsn, autocommit=True) as conn:
        async with Notifier(db, dsn) as notifier:
            key = [LOCK_CLASS, notifier.lock_key] * 2
            row = await (await conn.execute(free, key)).fetchone()
            assert row is not None
            assert row[0] is False
        # The server lets go when it has seen the line close, which is a moment later.
        wait = "select pg_advisory_lock(%s, %s)"
        async with asyncio.timeout(10):
            await conn.execute(wait, key[:2])


async def test_after_a_cut_it_connects_again_rings_everyone_and_has_its_lock(
    db: Database, dsn: str, caplog: pytest.LogCaptureFixture
):
    async with Notifier(db, dsn) as notifier:
        with notifier.listen("a") as bell:
            async with db.connection() as conn:
                await conn.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity "
                    "where application_name = 'clew-listen' and datname = current_database()"
                )
            assert await bell.wait(5)
            assert notifier.direct
        assert "broke" in caplog.text


@pytest.fixture
def pooled(dsn: str) -> Iterator[str]:
    """The same database behind a PgBouncer in transaction mode."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("needs pgbouncer")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    given = conninfo.conninfo_to_dict(dsn)
    if os.getuid() == 0 and "requirepeer" in given:
        pytest.skip("the embedded server lets in root alone, and pgbouncer refuses to be root")
    target = " ".join(
        f"{key}={given[key]}" for key in ("host", "port", "user", "password") if given.get(key)
    )
    # Not under pytest's own folder, which the user that PgBouncer insists on may not enter.
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    (folder / "users.txt").write_text(f'"{given["user"]}" ""\n')
    config = folder / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n{given['dbname']} = {target}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nunix_socket_dir =\nauth_type = trust\n"
        f"auth_file = {folder}/users.txt\npool_mode = transaction\n"
    )
    user = "postgres" if os.getuid() == 0 else None  # it refuses to run as root
    address = f"host=127.0.0.1 port={port} user={given['user']} dbname={given['dbname']}"
    process = subprocess.Popen([program, "-q", str(config)], user=user, stderr=subprocess.DEVNULL)
    try:
        for left in reversed(range(100)):
            try:
                psycopg.connect(address, connect_timeout=1).close()
                break
            except psycopg.OperationalError:
                if not left:
                    raise
                select.select([], [], [], 0.05)
        yield address
    finally:
        # Whatever happened: a failure here must not become a wait without end.
        process.kill()
        process.wait()
        shutil.rmtree(folder)


async def test_behind_a_pooler_it_says_so_and_looks_more_often(
    pooled: str, caplog: pytest.LogCaptureFixture
):
    async with Database.open(pooled) as db, Notifier(db, pooled) as notifier:
        assert not notifier.direct
        assert notifier.patience <= 1
        assert "CLEW_DIRECT_URL" in caplog.text
        with notifier.listen("a") as bell:
            notifier.publish("a")
            assert await bell.wait(0.5)


async def test_a_direct_line_past_the_pooler_works(pooled: str, dsn: str):
    async with Database.open(pooled) as db, Notifier(db, dsn) as one, Notifier(db, dsn) as two:
        assert one.direct
        with two.listen("a") as bell:
            one.publish("a")
            assert await bell.wait(5)
