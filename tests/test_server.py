"""The socket that the server listens on."""

import contextlib
import socket

from clew.api import server


def test_what_a_stream_says_waits_for_no_acknowledgement() -> None:
    with (
        contextlib.closing(server.bind("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()),
    ):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
