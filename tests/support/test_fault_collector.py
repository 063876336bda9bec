from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from typing import TYPE_CHECKING

import pytest

from tests.support.fault_collector import (
    GARBAGE_STATUS_LINE,
    OK,
    SHORT_BODY,
    Behaviour,
    Drip,
    Drop,
    FaultCollector,
    Hang,
    HugeBody,
    Raw,
    Respond,
    redirect,
    stranger_tls,
    trusted_tls,
)
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Generator


@contextlib.contextmanager
def connected(collector: FaultCollector) -> Generator[http.client.HTTPConnection, None, None]:
    """Yield a client of a collector."""
    connection = http.client.HTTPConnection(*collector.address, timeout=PATIENCE)
    try:
        yield connection
    finally:
        connection.close()


def post(connection: http.client.HTTPConnection, body: bytes = b"[{}]") -> tuple[int, bytes]:
    """Send a request and return the status and the body of the answer."""
    connection.request("POST", "/v2j", body, {"X-Signature": "key=a, mac=b"})
    response = connection.getresponse()
    return response.status, response.read()


def test_requests_are_answered_and_recorded_in_order() -> None:
    """The script is followed over all connections, its last behaviour repeats, requests are kept whole."""
    script = [Respond(503, (("Retry-After", "7"),), b"no"), OK]
    with FaultCollector(script) as collector:
        with connected(collector) as connection:
            assert post(connection, b"1") == (503, b"no")
            assert post(connection, b"2") == (200, b"{}")
        with connected(collector) as connection:
            assert post(connection, b"3" * 1_000_000) == (200, b"{}")
        assert [request.body for request in collector.requests] == [b"1", b"2", b"3" * 1_000_000]
        assert [request.connection for request in collector.requests] == [1, 1, 2]
        first = collector.requests[0]
        assert (first.method, first.target, first.header("x-signature")) == ("POST", "/v2j", "key=a, mac=b")
        assert collector.connections == 2
        assert collector.started == 3


@pytest.mark.parametrize(
    ("behaviour", "error", "recorded"),
    [
        (Drop(), ConnectionError, 0),
        (Drop(reset=True), ConnectionError, 0),
        (Drop(after_reading=True), http.client.RemoteDisconnected, 1),
        (Drop(after_reading=True, reset=True), ConnectionResetError, 1),
        (GARBAGE_STATUS_LINE, http.client.BadStatusLine, 1),
        (SHORT_BODY, http.client.IncompleteRead, 1),
        (Raw(b""), http.client.RemoteDisconnected, 1),
    ],
)
def test_each_fault_is_seen_by_the_client(
    behaviour: Behaviour, error: type[Exception], recorded: int
) -> None:
    """A client meets the fault that the script says, and the collector goes on with the next connection."""
    with FaultCollector([behaviour, OK]) as collector:
        with connected(collector) as connection, pytest.raises(error):
            post(connection)
        assert recorded == len(collector.requests)
        with connected(collector) as connection:
            assert post(connection)[0] == 200


def test_a_redirect_names_its_target() -> None:
    """A redirect carries the URL that it leads to."""
    with (
        FaultCollector([redirect("http://192.0.2.1/", 307)]) as collector,
        connected(collector) as connection,
    ):
        connection.request("POST", "/v2", b"")
        response = connection.getresponse()
        assert (response.status, response.headers["Location"]) == (307, "http://192.0.2.1/")


def test_a_connection_can_go_stale() -> None:
    """An answer that promises nothing may be followed by the end of its connection."""
    with FaultCollector([Respond(close=True)]) as collector, connected(collector) as connection:
        connection.request("POST", "/v2", b"")
        response = connection.getresponse()
        response.read()
        assert response.headers["Connection"] is None
        assert connection.sock.recv(1) == b""


@pytest.mark.parametrize("after_reading", [True, False])
def test_hanging_lasts_until_the_release(after_reading: bool) -> None:
    """A request that hangs gets nothing until it is released, which ends its connection."""
    with FaultCollector([Hang(after_reading=after_reading)]) as collector, connected(collector) as connection:
        connection.request("POST", "/v2", b"")
        collector.wait_for_starts(1)
        if after_reading:
            assert len(collector.wait_for_requests(1)) == 1
        connection.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            connection.sock.recv(1)
        connection.sock.settimeout(PATIENCE)
        collector.release()
        with contextlib.suppress(ConnectionResetError):
            assert connection.sock.recv(1) == b""


def test_closing_ends_all_that_hangs_or_drips() -> None:
    """`close` waits for no client."""
    collector = FaultCollector([Hang(), Hang(after_reading=False), Drip()])
    clients = [socket.create_connection(collector.address, PATIENCE) for _ in range(4)]
    for client in clients[:3]:
        client.sendall(b"POST / HTTP/1.1\r\n\r\n")
    collector.wait_for_starts(3)
    collector.close()
    for client in clients:
        client.close()


def test_dripping_goes_on_until_the_client_leaves() -> None:
    """The answer comes a byte at a time, first what it begins with, then the filler."""
    with FaultCollector([Drip(b"HT", b"x", 0.0)]) as collector:
        with socket.create_connection(collector.address, PATIENCE) as client:
            client.sendall(b"POST / HTTP/1.1\r\n\r\n")
            answer = b""
            while len(answer) < 100:
                answer += client.recv(1)
        assert answer == b"HT" + b"x" * 98


def test_a_huge_body_comes_as_declared() -> None:
    """A body of any size is streamed whole to a client who reads it, and cut for one who doesn't."""
    size = (3 << 20) + 1
    with FaultCollector([HugeBody(size)]) as collector:
        with connected(collector) as connection:
            assert post(connection) == (200, b" " * size)
        with connected(collector) as connection:
            connection.request("POST", "/v2", b"")
            assert len(connection.getresponse().read(10)) == 10


def test_the_script_can_change() -> None:
    """What was left of a script is forgotten for the new one."""
    with FaultCollector([Respond(500)]) as collector, connected(collector) as connection:
        assert post(connection)[0] == 500
        collector.change_script(Respond(404), OK)
        assert [post(connection)[0] for _ in range(3)] == [404, 200, 200]


def test_a_stranger_is_not_trusted() -> None:
    """A client refuses a certificate from an unknown authority, and accepts one from one that it knows."""
    with FaultCollector(ssl_context=stranger_tls()) as collector:
        connection = http.client.HTTPSConnection(*collector.address, timeout=PATIENCE)
        with pytest.raises(ssl.SSLCertVerificationError):
            post(connection)
        connection.close()
        assert (collector.started, collector.connections) == (0, 1)
    context, authority = trusted_tls()
    with FaultCollector(ssl_context=context) as collector:
        trusting = ssl.create_default_context(cadata=authority.decode())
        connection = http.client.HTTPSConnection(*collector.address, timeout=PATIENCE, context=trusting)
        assert post(connection) == (200, b"{}")
        connection.close()


def test_a_client_that_never_shakes_hands_is_ended() -> None:
    """Closing doesn't wait for a client that connected to HTTPS and says nothing."""
    collector = FaultCollector(ssl_context=stranger_tls())
    with socket.create_connection(collector.address, PATIENCE) as client:
        collector.close()
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""


def test_what_goes_wrong_inside_is_raised() -> None:
    """A request that the collector can't read is the test's mistake, and raised where the test sees it."""
    collector = FaultCollector()
    with socket.create_connection(collector.address, PATIENCE) as client:
        client.sendall(b"nonsense\r\n\r\n")
        assert client.recv(1) == b""
    with pytest.raises(ValueError, match="unpack"):
        collector.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "fault-collector"]
