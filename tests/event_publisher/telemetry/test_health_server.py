from __future__ import annotations

import contextlib
import http.client
import os
import resource
import select
import socket
import stat
import threading
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.config.values import Endpoint, InternetEndpoint, UnixEndpoint
from baseplate_events.event_publisher.connection_server import ConnectionServer
from baseplate_events.event_publisher.policy.accounting import Accounting
from baseplate_events.event_publisher.telemetry import health_server
from baseplate_events.event_publisher.telemetry.health_pages import MAX_HEAD
from baseplate_events.event_publisher.telemetry.health_server import (
    MAX_CONNECTIONS,
    HealthError,
    HealthServer,
)
from baseplate_events.event_publisher.telemetry.snapshot import Snapshot
from tests.support.examples import examples
from tests.support.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

_LOOPBACK = InternetEndpoint("127.0.0.1", 0)


def snapshot(disk_error: str | None = None) -> Snapshot:
    """What a publisher is doing that is alive now."""
    return Snapshot("v2", "1.0", 0.0, time.monotonic(), Accounting(), 0, 10, disk_error=disk_error)


@contextlib.contextmanager
def serving(
    endpoint: Endpoint = _LOOPBACK, read_snapshot: Callable[[], Snapshot] = snapshot
) -> Generator[HealthServer]:
    """Serve for the time of a block."""
    server = HealthServer(endpoint, read_snapshot)
    server.start()
    try:
        yield server
    finally:
        server.close()


def connect(server: HealthServer) -> socket.socket:
    """Connect to a server."""
    endpoint = server.endpoint
    if isinstance(endpoint, UnixEndpoint):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.connect(endpoint.path)
    else:
        client = socket.create_connection((endpoint.host, endpoint.port))
    client.settimeout(PATIENCE)
    return client


def read_all(client: socket.socket) -> bytes:
    """Read until the server closes."""
    return b"".join(iter(lambda: client.recv(65_536), b""))


def ask(server: HealthServer, path: str = "/readyz") -> bytes:
    """Return the whole answer to a request."""
    with connect(server) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return read_all(client)


@pytest.fixture(scope="module")
def server() -> Generator[HealthServer]:
    """A server for tests that leave it as it is."""
    with serving() as running:
        yield running


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1"])
def test_pages_over_loopback(host: str) -> None:
    """Python's own HTTP client gets every page, over IPv4 and IPv6."""
    with serving(InternetEndpoint(host, 0)) as server:
        assert isinstance(server.endpoint, InternetEndpoint)
        for path, status in {"/healthz": 200, "/readyz": 200, "/metrics": 200, "/": 404}.items():
            client = http.client.HTTPConnection(host, server.endpoint.port, timeout=PATIENCE)
            with contextlib.closing(client):
                client.request("GET", path)
                response = client.getresponse()
                assert status == response.status
                assert response.read().endswith(b"\n")


@pytest.mark.parametrize(
    ("bound", "asked"),
    [
        ("0.0.0.0", ["127.0.0.1", "127.9.9.9"]),
        ("::", ["::1", "127.0.0.1"]),
        ("::ffff:127.0.0.1", ["127.0.0.1"]),
    ],
)
def test_pages_over_every_address(bound: str, asked: list[str]) -> None:
    """`0.0.0.0` is every IPv4 address of the host, and `[::]` every address, whatever the default is."""
    with serving(InternetEndpoint(bound, 0)) as server:
        assert isinstance(server.endpoint, InternetEndpoint)
        for host in asked:
            client = http.client.HTTPConnection(host, server.endpoint.port, timeout=PATIENCE)
            with contextlib.closing(client):
                client.request("GET", "/healthz")
                assert client.getresponse().status == 200


def test_a_publisher_in_a_network_is_scraped_by_its_address_alone() -> None:
    """If others than this host get through, a name that isn't listed is still answered with 421."""
    with serving(InternetEndpoint("0.0.0.0", 0)) as server:
        assert isinstance(server.endpoint, InternetEndpoint)
        for host, status in {
            "10.1.2.3:9102": 200,
            "[fd00::7]:9102": 200,
            "rebound.example:9102": 421,
        }.items():
            client = http.client.HTTPConnection("127.0.0.1", server.endpoint.port, timeout=PATIENCE)
            with contextlib.closing(client):
                client.request("GET", "/metrics", headers={"Host": host})
                assert client.getresponse().status == status


def test_readiness_is_that_of_the_last_snapshot() -> None:
    """Each answer is made from what the publisher was last seen doing."""
    seen = [snapshot("the disk is full"), snapshot()]
    with serving(read_snapshot=lambda: seen.pop(0)) as server:
        assert b"503 Service Unavailable\r\n" in ask(server)
        assert b"200 OK\r\n" in ask(server)


@examples(20)
@given(st.lists(st.integers(1, 20), max_size=4), st.booleans())
def test_a_request_in_pieces_is_one_request(server: HealthServer, cuts: list[int], half_closed: bool) -> None:
    """However a request is cut, and whether or not the client still could send, the answer is the same."""
    request = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connect(server) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for size in cuts:
            client.sendall(request[:size])
            request = request[size:]
        client.sendall(request)
        if half_closed:
            client.shutdown(socket.SHUT_WR)
        assert read_all(client).endswith(b"\r\n\r\nready\n")


@examples(20)
@given(st.binary(max_size=200))
def test_no_client_harms_the_server(server: HealthServer, junk: bytes) -> None:
    """Whatever a client sends before it leaves, the next one is answered."""
    with connect(server) as client:
        client.sendall(junk)
    assert ask(server).endswith(b"ready\n")


def test_a_head_has_a_bound(server: HealthServer) -> None:
    """A head without an end is answered with 431 once it is too long, though the client goes on sending."""
    with connect(server) as client:
        client.sendall(b"GET /readyz HTTP/1.1\r\nX: " + b"x" * (MAX_HEAD + 10_000))
        assert read_all(client).startswith(b"HTTP/1.1 431 ")


def test_a_connection_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends nothing, or doesn't end, is closed after the deadline."""
    with serving() as server:
        with monkeypatch.context() as patch, contextlib.ExitStack() as clients:
            patch.setattr(health_server, "DEADLINE", 0.05)
            silent, answered = (clients.enter_context(connect(server)) for _ in range(2))
            assert read_all(silent) == b""
            answered.sendall(b"GET /readyz HTTP/1.1\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                read_all(answered)
                wait_until(lambda: not answered.send(b"x"), "it is still open", interval=0.001)
        assert ask(server).endswith(b"ready\n")


def test_silent_clients_keep_no_one_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """With more connections than there may be, the oldest are closed, and a request is answered at once."""
    monkeypatch.setattr(health_server, "DEADLINE", 4 * PATIENCE)
    with serving() as server, contextlib.ExitStack() as clients:
        silent = [clients.enter_context(connect(server)) for _ in range(MAX_CONNECTIONS + 3)]
        assert ask(server).endswith(b"ready\n")
        # All but the newest were closed, in the order in which they came.
        assert [read_all(client) for client in silent[:4]] == [b""] * 4
        assert select.select(silent[4:], [], [], 0)[0] == []


def test_a_page_that_fails_is_not_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After a bug in a page the server goes on, and logs the type of the error, not its text."""
    monkeypatch.setattr(health_server, "_ACCEPT_PAUSE", 0.01)
    seen: list[Snapshot] = []

    def read_snapshot() -> Snapshot:
        if seen:
            return seen[0]
        seen.append(snapshot())
        raise KeyError("private")

    with serving(read_snapshot=read_snapshot) as server:
        with contextlib.suppress(ConnectionError):
            assert ask(server) == b""
        assert ask(server).endswith(b"ready\n")
    assert "KeyError" in caplog.text
    assert "private" not in caplog.text


def test_accepting_goes_on_after_it_failed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a free descriptor the server waits for one; the client waits too, and is answered."""
    monkeypatch.setattr(health_server, "_ACCEPT_PAUSE", 0.2)
    with serving() as server, socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        assert isinstance(server.endpoint, InternetEndpoint)
        client.settimeout(PATIENCE)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
        try:
            client.connect((server.endpoint.host, server.endpoint.port))
            client.sendall(b"GET /readyz HTTP/1.1\r\n\r\n")
            wait_until(lambda: "Too many open files" in caplog.text, "it accepts", interval=0.02)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert read_all(client).endswith(b"ready\n")
    assert 0 < caplog.text.count("can't accept connections: Too many open files") < 10


# --- where it listens ---


def test_a_unix_socket_is_its_owners(tmp_path: Path) -> None:
    """A socket's file can be opened by its owner alone, whatever the umask, and goes with the server."""
    path = tmp_path / "health.sock"
    umask = os.umask(0)
    try:
        server = HealthServer(UnixEndpoint(str(path)), snapshot)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    server.start()
    assert ask(server).endswith(b"ready\n")
    server.close()
    server.close()
    assert not path.exists()


def test_a_socket_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    """The socket file of a dead server is replaced; that of a listening one isn't."""
    path = tmp_path / "health.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    with serving(UnixEndpoint(str(path))) as server:
        with pytest.raises(HealthError, match="Address already in use; stop the process that listens there"):
            HealthServer(UnixEndpoint(str(path)), snapshot)
        assert ask(server).endswith(b"ready\n")


def test_only_sockets_are_replaced(tmp_path: Path) -> None:
    """A file that isn't a socket stays as it is, and is an error."""
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(HealthError, match="Address already in use"):
        HealthServer(UnixEndpoint(str(path)), snapshot)
    assert path.read_text() == "data"


def test_the_socket_of_a_successor_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server removes its file while it still listens, so never that of another one that follows it."""
    endpoint = UnixEndpoint(str(tmp_path / "health.sock"))
    first = HealthServer(endpoint, snapshot)
    close = ConnectionServer.close
    with contextlib.ExitStack() as stack:

        def follow(server: ConnectionServer) -> None:
            monkeypatch.setattr(ConnectionServer, "close", close)
            stack.enter_context(serving(endpoint))
            close(server)

        monkeypatch.setattr(ConnectionServer, "close", follow)
        first.close()
        first.close()
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as client:
            client.connect(endpoint.path)


def test_a_place_to_listen_that_cannot_be_is_reported_with_a_remedy(tmp_path: Path) -> None:
    """A missing folder, a port that is taken and an address that isn't there each have their advice."""
    missing = UnixEndpoint(str(tmp_path / "nowhere" / "health.sock"))
    with pytest.raises(HealthError, match="create the folder") as caught:
        HealthServer(missing, snapshot)
    assert missing.path == caught.value.address
    with serving() as server, pytest.raises(HealthError, match="choose another port"):
        HealthServer(server.endpoint, snapshot)
    with pytest.raises(HealthError, match=r"choose 127\.0\.0\.1"):
        HealthServer(InternetEndpoint("192.0.2.1", 0), snapshot)
    with pytest.raises(HealthError, match=r"choose .*\[::\] for all"):
        HealthServer(InternetEndpoint("fe80::1", 0), snapshot)


def test_closing_ends_connections_and_the_thread() -> None:
    """After `close` no thread is left, open connections have ended, and nothing listens."""
    before = {*threading.enumerate()}
    with serving() as server:
        client = connect(server)
        endpoint = server.endpoint
    with client, contextlib.suppress(ConnectionError):
        assert read_all(client) == b""
    assert {*threading.enumerate()} <= before  # those of other tests may end meanwhile
    assert isinstance(endpoint, InternetEndpoint)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((endpoint.host, endpoint.port))


def test_a_server_that_was_never_started_can_be_closed() -> None:
    """Between construction and `start` a server can be closed as well."""
    HealthServer(_LOOPBACK, snapshot).close()


def test_a_server_that_cannot_start_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit of threads, the error names the limit, and the server can be closed."""

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    server = HealthServer(_LOOPBACK, snapshot)
    with pytest.raises(HealthError) as caught:
        server.start()
    assert str(server.endpoint) == caught.value.address
    assert "TasksMax=" in caught.value.problem
    server.close()
