"""The HTTP client of the publisher against a real server that misbehaves in every way."""

from __future__ import annotations

import os
import select
import socket
import ssl
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.http_response import MAX_BODY, MAX_EXCERPT, MAX_HEAD
from baseplate_events.event_publisher.policy.outcome import Misconfigured, TooLarge, classify
from baseplate_events.event_publisher.policy.wire import Failure, FailureKind, Request, Response
from tests.support.fault_collector import (
    GARBAGE_STATUS_LINE,
    SHORT_BODY,
    Behaviour,
    Drip,
    Drop,
    Early,
    FaultCollector,
    Flood,
    Hang,
    HugeBody,
    Raw,
    Respond,
    Tunnel,
    redirect,
    stranger_tls,
    trusted_tls,
)
from tests.support.http_transports import REQUEST, collector_for, kind_of, post_once, serving, status_of
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from baseplate_events.event_publisher.http_transport import HTTPTransport


#: More than the sockets of both sides buffer.
LARGE = Request({}, bytes(30_000_000))

#: An answer as most servers send it.
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture(params=["plain", "TLS", "plain by proxy", "TLS by proxy"])
def serving_by(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Generator[Callable[..., tuple[FaultCollector, HTTPTransport]]]:
    """Yield a factory for a scripted server and a transport to it, with or without TLS and proxy."""
    route: str = request.param
    with ExitStack() as stack:

        def serve(*script: Behaviour) -> tuple[FaultCollector, HTTPTransport]:
            context, ca_file = None, None
            if route.startswith("TLS"):
                context, authority = trusted_tls()
                ca_file = str(tmp_path / "ca.pem")
                (tmp_path / "ca.pem").write_bytes(authority)
            server = stack.enter_context(FaultCollector(script, ssl_context=context))
            proxy = None
            if route == "plain by proxy":
                proxy = server.url  # which takes what a proxy takes
            elif route == "TLS by proxy":
                proxy = stack.enter_context(FaultCollector([Tunnel(server.address)])).url
            collector = stack.enter_context(collector_for(server.url, ca_file=ca_file, proxy=proxy))
            return server, collector

        yield serve


@given(
    status=st.integers(200, 599),
    body=st.binary(max_size=50),
    retry_after=st.one_of(st.none(), st.text(alphabet="0123456789abc ", min_size=1, max_size=9)),
)
def test_every_status_comes_back_as_it_is(status: int, body: bytes, retry_after: str | None) -> None:
    """No status is an error, followed, or turned into another; after a success the connection is kept."""
    headers = (("Retry-After", retry_after),) if retry_after is not None else ()
    if status in {204, 304}:
        body = b""
    with serving(Respond(status, headers, body), Respond(200)) as (server, collector):
        first, second = collector.post(REQUEST), collector.post(REQUEST)
    assert isinstance(first, Response)
    assert (status, body) == (first.status, first.excerpt)
    assert (first.retry_after or "").strip() == (retry_after or "").strip()
    assert isinstance(second, Response)
    assert [request.method for request in server.requests] == ["POST", "POST"]
    assert server.connections == (1 if status < 300 else 2)


@given(body=st.binary(max_size=100_000))
def test_the_request_arrives_as_it_is(body: bytes) -> None:
    """Body and headers arrive byte for byte, and no other header but those that HTTP needs."""
    with serving(Respond()) as (server, collector):
        collector.post(Request(REQUEST.headers, body))
    (request,) = server.requests
    assert (request.method, request.target, request.body) == ("POST", "/v2", body)
    assert dict(REQUEST.headers).items() <= dict(request.headers).items()
    names = {name.lower() for name, _ in request.headers}
    assert names == {"host", "accept-encoding", "content-length", "x-signature", "content-type"}


def test_a_header_with_a_line_break_is_a_mistake_of_ours() -> None:
    """A line break in a header is refused: it would be another header, or another request."""
    with serving() as (server, collector), pytest.raises(ValueError, match="line break"):
        collector.post(Request({"X-Signature": "key=k\r\nX-Other: 1"}, b""))
    assert server.connections == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(status: int) -> None:
    """A redirect comes back as it is; its target never gets the request."""
    with FaultCollector() as elsewhere, serving(redirect(elsewhere.url, status)) as (_, collector):
        reply = collector.post(REQUEST)
        assert isinstance(reply, Response)
        assert reply.status == status
        assert elsewhere.started == 0


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (Drop(), FailureKind.INTERRUPTED),
        (Drop(reset=True), FailureKind.INTERRUPTED),
        (Drop(after_reading=True), FailureKind.INTERRUPTED),
        (Drop(after_reading=True, reset=True), FailureKind.INTERRUPTED),
        (GARBAGE_STATUS_LINE, FailureKind.MALFORMED),
        (Raw(b"HTTP/1.1 twohundred OK\r\n\r\n"), FailureKind.MALFORMED),
        (Raw(b"HTTP/1.1 200"), FailureKind.INTERRUPTED),
        (Raw(b"HTTP/1.1 200 OK\r\nX-A: b\r\n"), FailureKind.INTERRUPTED),
        (Raw(b"HTTP/1.1 103 Early Hints\r\n\r\n"), FailureKind.INTERRUPTED),
        (Flood(b"", b"HTTP/1.1 102 Processing\r\n\r\n"), FailureKind.MALFORMED),
        (Flood(b"HTTP/1.1 200 ", b"x"), FailureKind.MALFORMED),
    ],
)
def test_what_is_no_response_is_a_failure(behaviour: Behaviour, kind: FailureKind) -> None:
    """No answer, or one that isn't HTTP, is a failure, and the next request succeeds."""
    with serving(behaviour, Respond()) as (_, collector):
        reply = collector.post(REQUEST)
        assert isinstance(reply, Failure)
        assert reply.kind is kind
        assert isinstance(collector.post(REQUEST), Response)


def test_a_hanging_collector_times_out() -> None:
    """A collector that takes the request and says nothing costs `timeout` seconds."""
    with FaultCollector([Hang()]) as server:
        reply = post_once(server.url, timeout=0.1)
    assert isinstance(reply, Failure)
    assert reply.kind is FailureKind.TIMED_OUT


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("start", [b"HTTP/1.", b"HTTP/1.1 200 ", b"HTTP/1.1 200 OK\r\nX-Slow: "])
def test_a_dripping_response_ends_at_the_deadline(start: bytes, tls: bool, tmp_path: Path) -> None:
    """A response that comes a byte at a time never passes the timeout of a read, but the deadline of all."""
    context, ca_file = None, None
    if tls:
        context, authority = trusted_tls()
        ca_file = str(tmp_path / "ca.pem")
        (tmp_path / "ca.pem").write_bytes(authority)
    with (
        FaultCollector([Drip(start, b"x")], ssl_context=context) as server,
        collector_for(server.url, deadline=0.3, ca_file=ca_file) as collector,
    ):
        reply = collector.post(REQUEST)
    assert isinstance(reply, Failure)
    assert reply.kind is FailureKind.TIMED_OUT


def test_a_collector_that_doesnt_read_times_out() -> None:
    """A body that doesn't fit into the sockets' buffers isn't sent for ever."""
    with (
        FaultCollector([Hang(after_reading=False)]) as server,
        collector_for(server.url, timeout=0.2) as collector,
    ):
        reply = collector.post(LARGE)
    assert isinstance(reply, Failure)
    assert reply.kind is FailureKind.TIMED_OUT


@pytest.mark.parametrize("behaviour", [SHORT_BODY, Drip(), HugeBody(100_000_000)])
def test_what_follows_the_status_changes_nothing(behaviour: Behaviour) -> None:
    """A 200 whose body breaks off, drips, or has no end is a 200; a new connection takes the next request."""
    with serving(behaviour, Respond()) as (server, collector):
        first, second = collector.post(REQUEST), collector.post(REQUEST)
        assert isinstance(first, Response)
        assert first.status == 200
        assert len(first.excerpt) <= MAX_EXCERPT
        assert isinstance(second, Response)
        assert server.connections == 2


@pytest.mark.parametrize(("size", "connections"), [(MAX_EXCERPT, 1), (MAX_EXCERPT + 1, 2)])
def test_an_excerpt_is_bounded(size: int, connections: int) -> None:
    """A success's body up to the bound is read and the connection kept; a larger one costs the connection."""
    for status in (200, 500):
        with serving(Respond(status, body=b"e" * size), Respond()) as (server, collector):
            reply = collector.post(REQUEST)
            assert isinstance(reply, Response)
            if status == 500 or connections == 1:
                assert reply.excerpt == b"e" * min(size, MAX_EXCERPT)
            collector.post(REQUEST)
            assert server.connections == (connections if status == 200 else 2)


def test_a_connection_that_was_closed_while_idle_is_replaced() -> None:
    """A collector that closes idle connections costs no failure: the request goes out on a new one."""
    with serving(Respond(close=True)) as (server, collector):
        for _ in range(20):
            assert isinstance(collector.post(REQUEST), Response)
        assert len(server.requests) == 20


def test_a_kept_connection_that_breaks_is_retried_at_once() -> None:
    """A kept connection that ends before any answer is replaced, and the request sent again."""
    with serving(Respond(), Drop(after_reading=True), Respond()) as (server, collector):
        assert isinstance(collector.post(REQUEST), Response)
        assert isinstance(collector.post(REQUEST), Response)
        assert [request.connection for request in server.requests] == [1, 1, 2]


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError("reset"),
        BrokenPipeError("broken"),
        ssl.SSLEOFError("end"),
        ssl.SSLZeroReturnError("end"),
        OSError(113, "no route to host"),
    ],
)
@pytest.mark.parametrize("operation", ["send", "recv"])
def test_however_a_kept_connection_breaks_it_is_replaced(
    error: OSError, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ends a kept connection, the request goes out again; for a new connection it's a failure."""
    with serving(Respond()) as (server, collector):
        assert isinstance(collector.post(REQUEST), Response)
        perform: Callable[..., object] = getattr(socket.socket, operation)

        def break_once(connection: socket.socket, *arguments: object) -> object:
            if threading.current_thread() is not threading.main_thread():
                return perform(connection, *arguments)
            monkeypatch.setattr(socket.socket, operation, perform)
            raise error

        monkeypatch.setattr(socket.socket, operation, break_once)
        assert isinstance(collector.post(REQUEST), Response)
        assert server.connections == 2
        collector.close()
        monkeypatch.setattr(socket.socket, operation, break_once)
        assert kind_of(collector.post(REQUEST)) in {FailureKind.INTERRUPTED, FailureKind.UNREACHABLE}


def test_nothing_listens() -> None:
    """A port where nothing listens is a failure to connect."""
    with FaultCollector() as server:
        url = server.url
    reply = post_once(url)
    assert isinstance(reply, Failure)
    assert reply.kind is FailureKind.UNREACHABLE


def test_a_name_that_does_not_exist() -> None:
    """A name that doesn't exist is a failure of its own; `.invalid` never exists (RFC 6761)."""
    reply = post_once("http://collector.invalid")
    assert isinstance(reply, Failure)
    # A machine without a name server can't find out that the name doesn't exist.
    assert reply.kind in {FailureKind.UNKNOWN_NAME, FailureKind.UNREACHABLE}


def test_a_stranger_is_not_trusted() -> None:
    """A certificate of an unknown authority is refused before anything is sent."""
    with FaultCollector(ssl_context=stranger_tls()) as server:
        reply = post_once(server.url)
        assert isinstance(reply, Failure)
        assert reply.kind is FailureKind.UNTRUSTED
        assert server.requests == []


def test_tls_with_a_known_authority_keeps_its_connection(tmp_path: Path) -> None:
    """With the authority's certificate in `ca_file`, TLS works, and the connection is kept."""
    context, authority = trusted_tls()
    (tmp_path / "ca.pem").write_bytes(authority)
    with (
        FaultCollector(ssl_context=context) as server,
        collector_for(server.url, ca_file=str(tmp_path / "ca.pem")) as collector,
    ):
        for _ in range(3):
            assert isinstance(collector.post(REQUEST), Response)
        assert server.connections == 1


def test_another_hosts_certificate_is_not_trusted(tmp_path: Path) -> None:
    """A certificate for another name is refused, though its authority is known."""
    context, authority = trusted_tls("other.example")
    (tmp_path / "ca.pem").write_bytes(authority)
    with FaultCollector(ssl_context=context) as server:
        reply = post_once(server.url, ca_file=str(tmp_path / "ca.pem"))
    assert isinstance(reply, Failure)
    assert reply.kind is FailureKind.UNTRUSTED


def test_the_environment_has_no_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Proxy variables and `.netrc` are not honoured."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login stranger password guess\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    with FaultCollector() as proxy, FaultCollector() as server:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        post_once(server.url)
        assert proxy.started == 0
        assert "authorization" not in {name.lower() for name, _ in server.requests[0].headers}


def test_a_configured_proxy_gets_the_request() -> None:
    """With a proxy configured, an `http` request goes to it, with the whole URL."""
    with (
        FaultCollector() as proxy,
        collector_for("http://collector.invalid:81", proxy=proxy.url) as collector,
    ):
        reply = collector.post(REQUEST)
        assert isinstance(reply, Response)
        assert proxy.requests[0].target == "http://collector.invalid:81/v2"
        assert proxy.requests[0].header("Host") == "collector.invalid:81"


def test_a_proxy_that_refuses_the_tunnel_is_a_failure() -> None:
    """An `https` request through a proxy that refuses is a failure, and nothing is sent to anybody."""
    with (
        FaultCollector([Respond(407)]) as proxy,
        collector_for("https://collector.invalid", proxy=proxy.url) as collector,
    ):
        reply = collector.post(REQUEST)
        assert isinstance(reply, Failure)
        assert proxy.requests[0].method == "CONNECT"


def test_what_answers_a_connect_with_a_page_is_no_proxy() -> None:
    """A web server that says 200 to everything is known by what follows its head."""
    with (
        FaultCollector() as server,
        collector_for("https://collector.invalid", proxy=server.url) as collector,
    ):
        assert kind_of(collector.post(REQUEST)) is FailureKind.MALFORMED


def test_two_collectors_post_at_the_same_time() -> None:
    """Each collector has a connection of its own, so that senders don't wait for one another."""
    with FaultCollector([Hang()]) as server:
        replies: list[object] = []
        threads = [threading.Thread(target=lambda: replies.append(post_once(server.url))) for _ in range(2)]
        for thread in threads:
            thread.start()
        server.wait_for_starts(2)
        assert server.connections == 2
        server.release()
        for thread in threads:
            thread.join()
    assert len(replies) == 2


# --- the response to which request ---


@pytest.mark.parametrize("interim", [100, 102, 103])
@pytest.mark.parametrize("status", [200, 503])
def test_an_interim_response_is_not_the_answer(
    interim: int, status: int, serving_by: Callable[..., tuple[FaultCollector, HTTPTransport]]
) -> None:
    """Each request gets its own final response, also after others of which the first is interim."""
    answer = f"HTTP/1.1 {interim} Wait\r\n\r\nHTTP/1.1 {status} Done\r\nContent-Length: 0\r\n\r\n"
    server, collector = serving_by(Raw(answer.encode(), close=False), Respond(201), Respond(202))
    assert [status, 201, 202] == [status_of(collector.post(REQUEST)) for _ in range(3)]
    assert len(server.requests) == 3


def test_a_connection_with_a_response_too_many_is_not_kept() -> None:
    """A second response to the first request isn't the answer to the second."""
    with serving(Raw(ANSWER + ANSWER, close=False), Respond(503)) as (server, collector):
        assert [200, 503] == [status_of(collector.post(REQUEST)) for _ in range(2)]
        assert server.connections == 2


def note_connections(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the descriptors of all connections that this thread opens; return the list."""
    descriptors: list[int] = []
    connect = socket.socket.connect

    def noting(connection: socket.socket, address: tuple[str, int]) -> None:
        connect(connection, address)
        if threading.current_thread() is threading.main_thread():
            descriptors.append(connection.fileno())

    monkeypatch.setattr(socket.socket, "connect", noting)
    return descriptors


def test_a_connection_sends_without_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last piece of a request doesn't wait for the collector to acknowledge the one before (Nagle)."""
    descriptors = note_connections(monkeypatch)
    with serving() as (_, collector):
        collector.post(REQUEST)
        with socket.socket(fileno=os.dup(descriptors[0])) as same:
            assert same.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_what_follows_a_response_is_found_wherever_it_is(
    serving_by: Callable[..., tuple[FaultCollector, HTTPTransport]],
) -> None:
    """Bytes that TLS has decrypted already can't be seen on the socket, and aren't the next answer either."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 8000\r\nX-Pad: "
    answer = head + b"p" * (8_192 - len(head) - 8_004) + b"\r\n\r\n" + bytes(8_000)
    server, collector = serving_by(Raw(answer + ANSWER, close=False), Respond(503))
    assert [200, 503] == [status_of(collector.post(REQUEST)) for _ in range(2)]
    assert server.connections == 2


def wait_until_readable(descriptor: int) -> None:
    """Wait until something has arrived."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    assert poller.poll(1_000 * PATIENCE)


def test_a_response_that_comes_late_is_not_the_next_answer(
    monkeypatch: pytest.MonkeyPatch, serving_by: Callable[..., tuple[FaultCollector, HTTPTransport]]
) -> None:
    """Bytes on an idle connection are no answer: the next request uses another one."""
    server, collector = serving_by(Raw(ANSWER, close=False, late=ANSWER), Respond(503))
    descriptors = note_connections(monkeypatch)
    assert status_of(collector.post(REQUEST)) == 200
    server.release()
    wait_until_readable(descriptors[0])
    assert status_of(collector.post(REQUEST)) == 503
    assert server.connections == 2


@pytest.mark.parametrize("answer", [ANSWER, ANSWER.replace(b"200", b"400"), b"HTTP/1.1 2"])
@pytest.mark.parametrize("read", [False, True])
def test_a_response_that_comes_while_a_request_is_sent_is_not_its_answer(
    answer: bytes, read: bool, serving_by: Callable[..., tuple[FaultCollector, HTTPTransport]]
) -> None:
    """On a connection that was used before, it may be for an earlier request; this one goes out again."""
    server, collector = serving_by(Respond(), Early(answer, read), Respond(503))
    assert [200, 503] == [status_of(collector.post(request)) for request in (REQUEST, LARGE)]
    assert server.connections == 2


def test_a_success_before_the_request_was_sent_is_none() -> None:
    """A 200 before the request is sent isn't a success."""
    with FaultCollector([Hang()], greeting=ANSWER) as server, collector_for(server.url) as collector:
        assert kind_of(collector.post(LARGE)) is FailureKind.MALFORMED


def test_a_time_out_of_an_idle_connection_is_not_the_answer() -> None:
    """Some servers say 408 when they close an idle connection; it may cross with the next request."""
    with serving(Respond(), Respond(408), Respond()) as (server, collector):
        assert [200, 200] == [status_of(collector.post(REQUEST)) for _ in range(2)]
        assert [request.connection for request in server.requests] == [1, 1, 2]


def test_a_session_ticket_is_not_a_response(tmp_path: Path) -> None:
    """Session tickets right after the handshake cost no connection."""
    context, authority = trusted_tls()
    assert context.num_tickets == 2
    (tmp_path / "ca.pem").write_bytes(authority)
    with (
        FaultCollector(ssl_context=context) as server,
        collector_for(server.url, ca_file=str(tmp_path / "ca.pem")) as collector,
    ):
        assert [200] * 5 == [status_of(collector.post(LARGE if n == 0 else REQUEST)) for n in range(5)]
        assert server.connections == 1


# --- limits and refusals ---


@pytest.mark.parametrize("headers", [b"X-A: b\r\n" * 101, b"X-Long: " + b"x" * 70_000 + b"\r\n"])
@pytest.mark.parametrize("status", [200, 503])
def test_many_or_long_headers_are_no_failure(headers: bytes, status: int) -> None:
    """A success counts, however many headers follow its status."""
    answer = b"HTTP/1.1 %d Done\r\nRetry-After: 7\r\n%sContent-Length: 0\r\n\r\n" % (status, headers)
    with serving(Raw(answer, close=False), Respond()) as (server, collector):
        reply = collector.post(REQUEST)
        assert isinstance(reply, Response)
        assert (reply.status, reply.retry_after) == (status, "7")
        assert isinstance(collector.post(REQUEST), Response)
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlong", 413),
        (b"HTTP/1.1 401 Unauthorized\r\n\r\n", 401),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 413 Too Large\r\n\r\n", 413),
        (b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /\r\n\r\n", 307),
    ],
)
def test_a_refusal_before_the_request_was_sent_counts(
    answer: bytes, status: int, serving_by: Callable[..., tuple[FaultCollector, HTTPTransport]]
) -> None:
    """A server may refuse early and close: sending fails, and the refusal counts."""
    server, collector = serving_by(Early(answer), Respond())
    reply = collector.post(LARGE)
    assert status_of(reply) == status
    assert isinstance(classify(reply), TooLarge if status == 413 else Misconfigured)
    assert status_of(collector.post(REQUEST)) == 200
    assert server.connections == 2


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 413 Too", b"HTTP/1.1 100 Continue\r\n\r\n", ANSWER])
def test_what_explains_no_broken_sending_is_not_used(answer: bytes) -> None:
    """Without a complete refusal it is a broken connection."""
    with serving(Early(answer), Respond()) as (_, collector):
        assert kind_of(collector.post(LARGE)) is FailureKind.INTERRUPTED
        assert status_of(collector.post(REQUEST)) == 200


@pytest.mark.parametrize(
    "flood",
    [
        Flood(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", b"x"),
        Flood(b"HTTP/1.1 413 Large\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", b"x"),
        Flood(b"HTTP/1.1 413 Large\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x"),
        Flood(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X-A: b\r\n"),
        Flood(b"HTTP/1.1 413 Large\r\nContent-Length: -1\r\n\r\n", b"x"),
        Flood(b"HTTP/1.1 413 Large\r\n\r\n", b"x"),
        Flood(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"),
        Flood(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
        Flood(b"HTTP/1.1 103 Hints\r\n", b"X-A: b\r\n"),
        Flood(b"", b"\r\n"),
    ],
)
def test_no_flood_is_read(
    flood: Flood,
    monkeypatch: pytest.MonkeyPatch,
    serving_by: Callable[..., tuple[FaultCollector, HTTPTransport]],
) -> None:
    """Whatever length the peer claims, the bytes that are read of a response are bounded."""
    read = 0

    def counted(receive: Callable[..., bytes | int]) -> Callable[..., bytes | int]:
        def count(connection: socket.socket, *arguments: int) -> bytes | int:
            received = receive(connection, *arguments)
            if threading.current_thread() is threading.main_thread():
                nonlocal read
                read += received if isinstance(received, int) else len(received)
            return received

        return count

    server, collector = serving_by(flood, Respond())
    for kind in (socket.socket, ssl.SSLSocket):
        for operation in ("recv", "recv_into"):
            monkeypatch.setattr(kind, operation, counted(getattr(kind, operation)))
    reply = collector.post(REQUEST)
    assert read <= MAX_HEAD + MAX_BODY + len(b"HTTP/1.1 200 Connection established\r\n\r\n")
    if b"HTTP/1.1 200" in flood.start or b"413" in flood.start:
        assert f" {status_of(reply)} ".encode() in flood.start
    else:
        assert kind_of(reply) is FailureKind.MALFORMED
    assert status_of(collector.post(REQUEST)) == 200
    assert server.connections == 2


@given(
    pieces=st.lists(
        st.one_of(
            st.binary(max_size=20),
            st.sampled_from(
                [ANSWER, b"HTTP/1.1 500 ", b"\r\n", b"Transfer-Encoding: chunked", b"5\r\n", b":"]
            ),
        ),
        max_size=6,
    )
)
def test_no_answer_raises(pieces: list[bytes]) -> None:
    """Whatever bytes come back, there is a reply, and the next request gets its own answer."""
    with serving(Raw(b"".join(pieces)), Respond(202)) as (_, collector):
        assert isinstance(collector.post(REQUEST), Response | Failure)
        assert status_of(collector.post(REQUEST)) == 202
