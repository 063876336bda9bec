"""The server that the health endpoint and the dev collector are built on: bounds, failures and its end."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.connection_server import ConnectionServer
from tests.support.examples import examples
from tests.support.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


class EchoServer(ConnectionServer):
    """Sends back what it receives, until the client ends; `!` is a mistake in this class.

    Attributes:
        open: Connections that are being served.
        most: The most that were at once.
    """

    thread_name = "echo"

    def __init__(self, address: tuple[str, int] | str, limit: int | None = None) -> None:
        self.limit = limit
        self.open: set[socket.socket] = set()
        self.most = 0
        super().__init__(address)

    def serve(self, connection: socket.socket, client: object) -> None:
        """Send back what comes."""
        del client
        self.open.add(connection)
        self.most = max(self.most, len(self.open))
        try:
            while data := connection.recv(10):
                if data == b"!":
                    raise ZeroDivisionError
                connection.sendall(data)
        finally:
            self.open.discard(connection)


@contextlib.contextmanager
def serving(
    limit: int | None = None, address: tuple[str, int] | str = ("127.0.0.1", 0)
) -> Generator[EchoServer]:
    """Serve for the time of a block, after which no thread is left."""
    before = {*threading.enumerate()}
    server = EchoServer(address, limit)
    server.start()
    try:
        yield server
    finally:
        server.close()
        server.close()
    assert {*threading.enumerate()} <= before


def connect(server: EchoServer) -> socket.socket:
    """Connect to a server."""
    client = socket.socket(server.address_family)
    client.settimeout(PATIENCE)
    client.connect(server.socket.getsockname())
    return client


def answers(client: socket.socket) -> bool:
    """Return whether a client is served."""
    with contextlib.suppress(OSError):
        client.sendall(b"x")
        return client.recv(10) == b"x"
    return False


@examples(10)
@given(st.integers(1, 4), st.integers(0, 8), st.sets(st.integers(0, 7)))
def test_the_oldest_makes_place(limit: int, count: int, leaving: set[int]) -> None:
    """However many connect and leave: the newest are served, and no more than the limit at once."""
    with serving(limit) as server, contextlib.ExitStack() as stack:
        clients: list[socket.socket] = []
        for number in range(count):
            client = stack.enter_context(connect(server))
            assert answers(client)
            if number in leaving:
                client.close()
                wait_until(lambda: len(server.open) < limit, "a connection that was left is still served")
            else:
                clients.append(client)
        assert server.most <= limit
        kept = clients[-limit:] if not leaving else []
        assert all(map(answers, kept))
        wait_until(lambda: len(server.open) <= limit, "too many are served")


def test_without_a_limit_all_are_served() -> None:
    """As many as come."""
    with serving() as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(20)]
        assert all(map(answers, clients))
        assert server.most == 20


def test_a_connection_that_fails_is_alone(capfd: pytest.CaptureFixture[str]) -> None:
    """A mistake ends its connection and is reported; a client that leaves isn't worth a word."""
    with serving() as server, connect(server) as other:
        with connect(server) as client:
            client.sendall(b"!")
            assert client.recv(10) == b""
        with connect(server) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # resets
            assert answers(client)
        assert answers(other)
    assert capfd.readouterr().err.count("Exception occurred") == 1


def test_without_threads_connections_are_closed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """At the limit of threads, a client sees the end of its connection, and the server goes on."""
    start = threading.Thread.start

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with serving() as server:
        monkeypatch.setattr(threading.Thread, "start", fail)
        with connect(server) as client:
            assert client.recv(10) == b""
        monkeypatch.setattr(threading.Thread, "start", start)
        with connect(server) as client:
            assert answers(client)
    assert "can't start new thread" in capfd.readouterr().err


def test_a_server_that_cannot_start_can_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a thread for it, the server doesn't start, and closing it doesn't wait for that thread."""

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    server = EchoServer(("127.0.0.1", 0))
    with pytest.raises(RuntimeError, match="can't start new thread"):
        server.start()
    server.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        server.socket.getsockname()


def test_closing_ends_what_is_served(tmp_path: Path) -> None:
    """Clients that send nothing see the end, over every kind of socket."""
    for address in (("127.0.0.1", 0), ("::1", 0), str(tmp_path / "socket")):
        with serving(address=address) as server:
            client = connect(server)
            assert answers(client)
        with client:
            assert client.recv(10) == b""


def test_a_server_that_was_never_started_can_be_closed() -> None:
    """Then it doesn't listen any more."""
    server = EchoServer(("127.0.0.1", 0))
    address = server.socket.getsockname()
    server.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
