"""A Redis of its own for a test, to be restarted, frozen and lost."""

import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager

import pytest


class Redis:
    """It keeps nothing on disk: what is lost is lost."""

    def __init__(self, program: str, port: int, folder: str) -> None:
        self.url = f"redis://127.0.0.1:{port}/0"
        self._command = [program, "--port", str(port), "--bind", "127.0.0.1"]
        self._command += ["--save", "", "--appendonly", "no", "--dir", folder]
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        self._process = subprocess.Popen([*self._command, *options], stdout=subprocess.DEVNULL)
        for left in reversed(range(200)):
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
            except OSError:
                if not left:
                    raise
                select.select([], [], [], 0.05)
            else:
                return

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextmanager
    def frozen(self) -> Generator[None]:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)


@contextmanager
def serving(*options: str) -> Generator[Redis]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("needs redis-server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        found = Redis(program, port, folder)
        found.start(*options)
        try:
            yield found
        finally:
            found.kill()
