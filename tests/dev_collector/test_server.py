from __future__ import annotations

import contextlib
import errno
import http.client
import os
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from baseplate_events.dev_collector import MAX_SIZE, AcceptedBatch, Counts, DevCollector, RejectedBatch
from tests.support.failing_steps import failing
from tests.support.fault_collector import trusted_tls
from tests.support.signed_requests import KEYS, MARKER, SAMPLE, SignedRequest, batch_of, post, sealed
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Generator


class Sink:
    """Keeps the batches that a collector passes on."""

    def __init__(self) -> None:
        self.batches: list[tuple[bytes, ...]] = []
        self.rejected: list[RejectedBatch] = []

    def on_batch(self, batch: AcceptedBatch) -> None:
        self.batches.append(batch.events)


@pytest.fixture
def sink() -> Sink:
    """Return a sink that keeps all."""
    return Sink()


@pytest.fixture
def collector(sink: Sink) -> Generator[DevCollector, None, None]:
    """Yield a running collector."""
    with DevCollector(KEYS, sink.on_batch, on_rejected=sink.rejected.append) as running:
        yield running


@contextlib.contextmanager
def connected(collector: DevCollector) -> Generator[http.client.HTTPConnection, None, None]:
    """Yield a client of a collector; it connects with its first request."""
    connection = http.client.HTTPConnection(*collector.address, timeout=PATIENCE)
    try:
        yield connection
    finally:
        connection.close()


def test_a_connection_carries_batch_after_batch(collector: DevCollector, sink: Sink) -> None:
    """Connections are kept alive, also over refusals for signature, size and content."""
    with connected(collector) as connection:
        connection.connect()
        own_end = connection.sock.getsockname()
        for number in range(5):
            request = sealed("/v2", batch_of([b'{"id":%d}' % number], "/v2"))
            assert post(connection, request) == (200, '{"accepted": 1}\n')
            assert post(connection, request.with_header("X-Signature"))[0] == 401
            assert post(connection, sealed("/v2j", b"[1]"))[0] == 400
            assert post(connection, sealed("/v2j", b" " * (MAX_SIZE + 1)))[0] == 413
        assert own_end == connection.sock.getsockname()
    assert [(b'{"id":%d}' % number,) for number in range(5)] == sink.batches
    assert Counts(5, 5, {401: 5, 400: 5, 413: 5}) == collector.counts
    assert [rejected.status for rejected in sink.rejected] == [401, 400, 413] * 5


def test_clients_are_served_at_the_same_time(collector: DevCollector, sink: Sink) -> None:
    """Each event of many clients is handed on once, in whole batches, each before its answer."""
    rounds = 20

    def client(number: int) -> None:
        with connected(collector) as connection:
            for turn in range(rounds):
                events = [b'{"client":%d,"turn":%d,"place":%d}' % (number, turn, place) for place in range(3)]
                assert post(connection, sealed("/v2j", batch_of(events, "/v2j"))) == (
                    200,
                    '{"accepted": 3}\n',
                )
                assert tuple(events) in sink.batches

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(client, range(8)))
    assert len(set(sink.batches)) == len(sink.batches) == 8 * rounds
    assert Counts(8 * rounds, 3 * 8 * rounds, {}) == collector.counts


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (replace(SAMPLE, path="/events"), 404),
        (replace(SAMPLE, method="PUT"), 405),
        (replace(SAMPLE, method="BREW"), 501),
        (SAMPLE.with_header("Content-Type", "text/plain"), 415),
        (SAMPLE.with_header("Content-Length", "x"), 400),
        (replace(SAMPLE, body=b"x" * (8 << 20)), 413),
    ],
)
def test_a_client_sees_why_it_is_refused(
    collector: DevCollector, request_: SignedRequest, status: int
) -> None:
    """The answer arrives though the body was not read, also when the client sends all of it first."""
    with connected(collector) as connection:
        found, reason = post(connection, request_)
        assert status == found
        assert reason.strip()
        assert connection.sock is None, "the collector says that it ends the connection"
        # The next request needs a new connection, and gets it.
        assert post(connection, SAMPLE) == (200, '{"accepted": 2}\n')
    assert Counts(1, 2, {status: 1}) == collector.counts


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"POST /v2 HTTP/1.1\r\n\r\n", 411),
        (b"POST /v2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n", 411),
        (b"GET /v2 HTTP/1.1\r\n\r\n", 405),
        (b"HEAD / HTTP/1.0\r\n\r\n", 404),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"what " + MARKER.encode() + b" ever it is\r\n\r\n", 400),
        (b"POST /v2 HTTP/9.0\r\n\r\n", 505),
        (b"POST /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"POST /v2 HTTP/1.1\r\n" + b"A: b\r\n" * 500 + b"\r\n", 431),
    ],
)
def test_any_bytes_get_an_answer(collector: DevCollector, data: bytes, status: int) -> None:
    """An invalid request gets a reason, and its connection is closed."""
    with socket.create_connection(collector.address, PATIENCE) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := client.recv(65_536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"Content-Length: " in head
    assert b"Connection: close" in head
    assert (b"\r\nAllow: POST\r\n" in head) == (status == 405)
    assert data.startswith(b"HEAD") == (body == b"")
    assert MARKER.encode() not in answer
    assert {status: 1} == collector.counts.rejected


def test_a_client_that_waits_for_leave_gets_it(collector: DevCollector) -> None:
    """`Expect: 100-continue` is answered before the body is there."""
    headers = "".join(f"{name}: {value}\r\n" for name, value in SAMPLE.headers)
    head = f"POST /v2 HTTP/1.1\r\n{headers}Content-Length: {len(SAMPLE.body)}\r\nExpect: 100-continue\r\n\r\n"
    with socket.create_connection(collector.address, PATIENCE) as client:
        client.sendall(head.encode())
        assert client.recv(65_536).startswith(b"HTTP/1.1 100 ")
        client.sendall(SAMPLE.body)
        assert client.recv(65_536).startswith(b"HTTP/1.1 200 ")


def test_clients_that_leave_harm_no_one(collector: DevCollector, capfd: pytest.CaptureFixture[str]) -> None:
    """A client may leave at any point of its request; the others are served and nothing is printed."""
    headers = "".join(f"{name}: {value}\r\n" for name, value in SAMPLE.headers)
    whole = f"POST /v2 HTTP/1.1\r\n{headers}Content-Length: {len(SAMPLE.body)}\r\n\r\n".encode() + SAMPLE.body
    for end in range(0, len(whole), 7):
        with socket.create_connection(collector.address, PATIENCE) as client:
            client.sendall(whole[:end])
            if end % 2:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    with connected(collector) as connection:
        assert post(connection, SAMPLE) == (200, '{"accepted": 2}\n')
    collector.close()
    assert collector.counts.batches == 1
    assert capfd.readouterr() == ("", "")


def test_a_sink_that_fails_refuses_the_batch() -> None:
    """Events that couldn't be handed on are not acknowledged, and count as refused."""

    def full(_: AcceptedBatch) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), MARKER)

    with DevCollector(KEYS, full) as collector, connected(collector) as connection:
        assert post(connection, SAMPLE) == (500, "can't write the events: No space left on device\n")
        assert Counts(0, 0, {500: 1}) == collector.counts


def test_a_bug_of_the_sink_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    """An error that isn't the system's ends the connection and is printed with its traceback."""

    def broken(_: AcceptedBatch) -> None:
        raise ZeroDivisionError

    with DevCollector(KEYS, broken) as collector, connected(collector) as connection:
        with pytest.raises(http.client.RemoteDisconnected):
            post(connection, SAMPLE)
        assert collector.counts.batches == 0
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_closing_ends_idle_connections_and_refuses_new_ones(collector: DevCollector) -> None:
    """After `close` nothing is accepted any more, on no connection; closing again does nothing."""
    with connected(collector) as connection:
        assert post(connection, SAMPLE)[0] == 200
        collector.close()
        with pytest.raises(ConnectionError):
            post(connection, SAMPLE)
        connection.close()
        with pytest.raises(ConnectionRefusedError):
            post(connection, SAMPLE)
    collector.close()
    assert collector.counts.batches == 1


def test_closing_waits_for_an_answer_under_way() -> None:
    """A batch that is being handed on when the collector closes is answered, then its connection ended."""
    handing_on, go_on = threading.Event(), threading.Event()

    def slow(_: AcceptedBatch) -> None:
        handing_on.set()
        assert go_on.wait(PATIENCE)

    collector = DevCollector(KEYS, slow)
    with ThreadPoolExecutor(2) as pool, connected(collector) as connection:
        answer = pool.submit(post, connection, SAMPLE)
        assert handing_on.wait(PATIENCE)
        closed = pool.submit(collector.close)
        while is_open(collector):
            assert not closed.done()
        assert not closed.done()
        go_on.set()
        assert answer.result(PATIENCE) == (200, '{"accepted": 2}\n')
        closed.result(PATIENCE)
        assert connection.sock is None
    assert collector.counts.batches == 1


def is_open(collector: DevCollector) -> bool:
    """Return whether a collector, or the system for it, takes new connections."""
    with socket.socket() as probe:
        return probe.connect_ex(collector.address) == 0


def test_it_speaks_tls(sink: Sink) -> None:
    """With a context it serves HTTPS to clients who trust its authority, and survives those who don't."""
    context, authority = trusted_tls()
    client = ssl.create_default_context(cadata=authority.decode())
    with DevCollector(KEYS, sink.on_batch, ssl_context=context) as collector:
        assert collector.url.startswith("https://127.0.0.1:")
        with socket.create_connection(collector.address, PATIENCE):  # sends nothing, and delays no one
            stranger = http.client.HTTPSConnection(*collector.address, timeout=PATIENCE)
            with pytest.raises(ssl.SSLCertVerificationError):
                post(stranger, SAMPLE)
            stranger.close()
            connection = http.client.HTTPSConnection(*collector.address, timeout=PATIENCE, context=client)
            for _ in range(2):
                assert post(connection, SAMPLE) == (200, '{"accepted": 2}\n')
            collector.close()
            connection.close()
    assert len(sink.batches) == 2


def test_it_listens_on_ipv6(sink: Sink) -> None:
    """An address of IPv6 works, and is written in brackets in the URL."""
    try:
        collector = DevCollector(KEYS, sink.on_batch, host="::1")
    except OSError:
        pytest.skip("this host has no IPv6")
    with collector, connected(collector) as connection:
        assert urlsplit(collector.url).port == collector.address[1]
        assert urlsplit(collector.url).hostname == "::1"
        assert post(connection, SAMPLE)[0] == 200


def test_a_collector_that_cannot_start_leaves_nothing_open(sink: Sink) -> None:
    """Neither without a thread for it, nor with a context that can't be used, does it go on listening."""
    context, _ = trusted_tls()
    with failing(threading.Thread, "start"):
        DevCollector(KEYS, sink.on_batch)
    with failing(ssl.SSLContext, "wrap_socket"):
        DevCollector(KEYS, sink.on_batch, ssl_context=context)
