"""The HTTP client of the publisher against a real server that misbehaves in every way."""

from __future__ import annotations

import http.client
import ssl
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.http_transport import MAX_EXCERPT, HTTPTransport
from baseplate_events.event_publisher.policy.wire import Failure, FailureKind, Reply, Request, Response
from tests.support.fault_collector import (
    GARBAGE_STATUS_LINE,
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

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

REQUEST = Request({"X-Signature": "key=k, mac=00", "Content-Type": "application/json"}, b"compressed")


@contextmanager
def collector_for(
    url: str,
    *,
    timeout: float = 20.0,
    deadline: float = 20.0,
    ca_file: str | None = None,
    proxy: str | None = None,
) -> Generator[HTTPTransport]:
    """Give a collector for a server's URL; it waits long enough that nothing times out by accident."""
    collector = HTTPTransport(f"{url}/v2", timeout=timeout, deadline=deadline, ca_file=ca_file, proxy=proxy)
    with closing(collector):
        yield collector


@contextmanager
def serving(*script: Behaviour) -> Generator[tuple[FaultCollector, HTTPTransport]]:
    """Run a server with this script, and a collector that posts to it."""
    with FaultCollector(script) as server, collector_for(server.url) as collector:
        yield server, collector


def post_once(url: str, *, timeout: float = 20.0, ca_file: str | None = None) -> Reply:
    """Post one request over a collector of its own."""
    with collector_for(url, timeout=timeout, ca_file=ca_file) as collector:
        return collector.post(REQUEST)


@given(
    status=st.integers(200, 599),
    body=st.binary(max_size=50),
    retry_after=st.one_of(st.none(), st.text(alphabet="0123456789abc ", min_size=1, max_size=9)),
)
def test_every_status_comes_back_as_it_is(status: int, body: bytes, retry_after: str | None) -> None:
    """No status is an error, followed, or turned into another, and the connection is kept."""
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
    assert server.connections == 1


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


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(status: int) -> None:
    """A redirect comes back as it is; where it points to never hears of the request."""
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
        (Raw(b"HTTP/1.1 200 OK\r\n" + b"x" * 100_000), FailureKind.MALFORMED),
        (Raw(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 1_000 + b"\r\n"), FailureKind.MALFORMED),
    ],
)
def test_what_is_no_response_is_a_failure(behaviour: Behaviour, kind: FailureKind) -> None:
    """No answer, or one that isn't HTTP, is a failure, and the next request gets through."""
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
@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nX-Slow: "])
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
        reply = collector.post(Request({}, bytes(50_000_000)))
    assert isinstance(reply, Failure)
    assert reply.kind is FailureKind.TIMED_OUT


@pytest.mark.parametrize("behaviour", [SHORT_BODY, Drip(), HugeBody(100_000_000)])
def test_what_follows_the_status_changes_nothing(behaviour: Behaviour) -> None:
    """A 200 whose body breaks off, drips, or has no end is a 200; a new connection takes the next request."""
    with (
        FaultCollector([behaviour, Respond()]) as server,
        collector_for(server.url, deadline=0.5) as collector,
    ):
        first, second = collector.post(REQUEST), collector.post(REQUEST)
        assert isinstance(first, Response)
        assert first.status == 200
        assert len(first.excerpt) <= MAX_EXCERPT
        assert isinstance(second, Response)
        assert server.connections == 2


@pytest.mark.parametrize(("size", "connections"), [(MAX_EXCERPT, 1), (MAX_EXCERPT + 1, 2)])
def test_an_excerpt_is_bounded(size: int, connections: int) -> None:
    """A body up to the bound is read and the connection kept; a larger one costs the connection."""
    with serving(Respond(500, body=b"e" * size), Respond()) as (server, collector):
        reply = collector.post(REQUEST)
        assert isinstance(reply, Response)
        assert reply.excerpt == b"e" * min(size, MAX_EXCERPT)
        collector.post(REQUEST)
        assert server.connections == connections


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
        ConnectionResetError,
        BrokenPipeError,
        http.client.RemoteDisconnected,
        ssl.SSLEOFError,
        ssl.SSLZeroReturnError,
    ],
)
def test_however_a_kept_connection_ends_it_is_replaced(
    error: type[OSError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever tells that a kept connection is gone, the request goes out again; a new one's is a failure."""
    with serving(Respond()) as (server, collector):
        assert isinstance(collector.post(REQUEST), Response)
        send = http.client.HTTPConnection.request

        def break_once(*_args: object, **_kwargs: object) -> None:
            monkeypatch.setattr(http.client.HTTPConnection, "request", send)
            raise error("gone")

        monkeypatch.setattr(http.client.HTTPConnection, "request", break_once)
        assert isinstance(collector.post(REQUEST), Response)
        assert [request.connection for request in server.requests] == [1, 2]
        collector.close()
        monkeypatch.setattr(http.client.HTTPConnection, "request", break_once)
        reply = collector.post(REQUEST)
        assert isinstance(reply, Failure)
        assert reply.kind is FailureKind.INTERRUPTED


def test_nobody_listens() -> None:
    """A port where nothing listens is a failure to connect."""
    with FaultCollector() as server:
        url = server.url
    reply = post_once(url)
    assert isinstance(reply, Failure)
    assert reply.kind is FailureKind.UNREACHABLE


def test_a_name_that_does_not_exist() -> None:
    """A name that doesn't exist is told apart; `.invalid` never does (RFC 6761)."""
    reply = post_once("http://collector.invalid")
    assert isinstance(reply, Failure)
    # A machine without a name server can't tell that the name doesn't exist.
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
