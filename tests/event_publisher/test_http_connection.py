"""The connections of the HTTP client: how long they are kept, where they go, and lack of resources."""

from __future__ import annotations

import gc
import resource
import socket
import sys
import time
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from baseplate_events.event_publisher.addresses import AddressBook
from baseplate_events.event_publisher.http_connection import BODY_TIME, Budget, dial
from baseplate_events.event_publisher.http_transport import MAX_AGE, MAX_IDLE, HTTPTransport
from baseplate_events.event_publisher.policy.outcome import Accepted, Misconfigured, classify
from baseplate_events.event_publisher.policy.wire import Failure, FailureKind, Request, Response
from tests.support.clocks import FakeClock
from tests.support.failing_steps import failing
from tests.support.fault_collector import (
    OK,
    Behaviour,
    Drip,
    Drop,
    FaultCollector,
    Hang,
    Raw,
    Respond,
    Tunnel,
    stranger_tls,
    trusted_tls,
)
from tests.support.http_transports import (
    REQUEST,
    collector_for,
    kind_of,
    post_once,
    resolve_to,
    serving,
    status_of,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Generator, Sequence
    from pathlib import Path


# --- connections that are kept ---


@pytest.mark.parametrize("status", [301, 400, 401, 404, 413, 429, 500, 503])
def test_only_a_success_keeps_its_connection(status: int) -> None:
    """A refusal closes the connection, since its address may be an old one of the collector."""
    with serving(Respond(), Respond(status), Respond()) as (server, collector):
        assert [200, status, 200] == [status_of(collector.post(REQUEST)) for _ in range(3)]
        assert [request.connection for request in server.requests] == [1, 1, 2]


@pytest.mark.parametrize(
    ("steps", "connections"),
    [
        ([MAX_IDLE - 1.0], 1),
        ([MAX_IDLE], 2),
        ([1.0] * int(MAX_AGE - 1.0), 1),
        ([1.0] * int(MAX_AGE), 2),
    ],
)
def test_a_connection_is_kept_for_a_limited_time(steps: Sequence[float], connections: int) -> None:
    """An idle connection is replaced: a NAT may have forgotten it, or the name may have moved."""
    clock = FakeClock()
    with (
        FaultCollector() as server,
        closing(HTTPTransport(f"{server.url}/v2", timeout=20.0, deadline=20.0, clock=clock)) as collector,
    ):
        collector.post(REQUEST)
        for step in steps:
            clock.now += step
            assert status_of(collector.post(REQUEST)) == 200
        assert server.connections == connections


class TickingClock(FakeClock):
    """A clock that goes on by itself whenever it is read."""

    def __call__(self) -> float:
        self.now += 0.05
        return self.now


def test_a_body_doesnt_hold_up_the_sender() -> None:
    """The status is what counts; only a moment is spent on a body, to keep the connection."""
    clock = TickingClock()
    with (
        FaultCollector([Drip()]) as server,
        closing(HTTPTransport(f"{server.url}/v2", timeout=20.0, deadline=20.0, clock=clock)) as collector,
    ):
        before = clock.now
        assert status_of(collector.post(REQUEST)) == 200
        assert BODY_TIME < clock.now - before < 10 * BODY_TIME


# --- addresses ---


def order_of(book: AddressBook, *addresses: tuple[str, int]) -> list[object]:
    """Return addresses in the order in which they would be tried now."""
    return [entry[-1] for entry in book.order([(0, 0, 0, "", each) for each in addresses], time.monotonic())]


@contextmanager
def dropping() -> Generator[tuple[str, int]]:
    """Yield an address where packets are dropped: a listener whose backlog is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as stack:
        host, port = listener.getsockname()
        for _ in range(8):
            connection = stack.enter_context(socket.socket())
            connection.setblocking(False)
            connection.connect_ex((host, port))
        yield host, port


def test_addresses_that_drop_packets_only_delay_delivery(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attempt begins where the last one ended, and all senders share what it finds out."""
    book = AddressBook()
    with ExitStack() as stack:
        server = stack.enter_context(FaultCollector())
        silent = [stack.enter_context(dropping()) for _ in range(4)]
        resolve_to(monkeypatch, [*silent, server.address])
        collector = stack.enter_context(
            collector_for("http://events.test", timeout=0.3, deadline=0.75, addresses=book)
        )
        replies = [collector.post(REQUEST) for _ in range(4)]
        assert any(isinstance(reply, Response) for reply in replies), replies
        assert status_of(replies[-1]) == 200
        another = stack.enter_context(collector_for("http://events.test", addresses=book))
        assert status_of(another.post(REQUEST)) == 200


@pytest.mark.parametrize(
    "behaviour", [Hang(), Drop(), Drop(reset=True), Respond(503), Respond(404), Raw(b"x")]
)
def test_the_next_attempt_goes_to_another_address(
    behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However an attempt fails at an address, the next one begins at another."""
    with (
        FaultCollector([behaviour]) as bad,
        FaultCollector() as good,
        collector_for("http://events.test", timeout=1.0) as collector,
    ):
        resolve_to(monkeypatch, [bad.address, good.address])
        first = collector.post(REQUEST)
        assert not isinstance(classify(first), Accepted)
        assert [200] * 3 == [status_of(collector.post(REQUEST)) for _ in range(3)]
        assert (bad.connections, good.connections) == (1, 1)


def test_a_connection_that_ended_while_idle_speaks_not_against_its_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A closed idle connection is no failure of its address."""
    with (
        FaultCollector([Respond(close=True)]) as first,
        FaultCollector() as second,
        collector_for("http://events.test") as collector,
    ):
        resolve_to(monkeypatch, [first.address, second.address])
        assert [200] * 5 == [status_of(collector.post(REQUEST)) for _ in range(5)]
        assert (first.connections, second.connections) == (5, 0)


def test_an_address_with_a_strange_certificate_is_left_for_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A handshake that fails is a failure of its address."""
    context, authority = trusted_tls("events.test")
    (tmp_path / "ca.pem").write_bytes(authority)
    with (
        FaultCollector(ssl_context=stranger_tls("events.test")) as bad,
        FaultCollector(ssl_context=context) as good,
        collector_for("https://events.test", ca_file=str(tmp_path / "ca.pem")) as collector,
    ):
        resolve_to(monkeypatch, [bad.address, good.address])
        assert kind_of(collector.post(REQUEST)) is FailureKind.UNTRUSTED
        assert status_of(collector.post(REQUEST)) == 200


def test_an_address_that_had_too_little_time_is_tried_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """If others used up the time, a collector that is slow but works gets all of it the next time."""
    book = AddressBook()
    with (
        dropping() as silent,
        FaultCollector([Hang(), Respond()]) as slow,
        collector_for("http://events.test", timeout=0.2, deadline=0.3, addresses=book) as collector,
    ):
        resolve_to(monkeypatch, [silent, slow.address])
        assert kind_of(collector.post(REQUEST)) is FailureKind.TIMED_OUT
        assert [slow.address, silent] == order_of(book, silent, slow.address)


def test_two_addresses_that_drop_packets_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that got too little time to connect gets all of it the next time."""
    book = AddressBook()
    with (
        dropping() as first,
        dropping() as second,
        collector_for("http://events.test", timeout=0.2, deadline=0.3, addresses=book) as collector,
    ):
        resolve_to(monkeypatch, [first, second])
        assert kind_of(collector.post(REQUEST)) is FailureKind.TIMED_OUT
        assert [second, first] == order_of(book, first, second)


def test_a_reset_before_the_request_is_sent_is_no_hang_up() -> None:
    """A peer that ends the connection in the handshake hasn't seen a batch, which can't be the reason."""
    with FaultCollector([Drop(reset=True)]) as server:
        reply = post_once(server.url.replace("http:", "https:"))
    assert kind_of(reply) is FailureKind.UNREACHABLE


# --- names ---


@pytest.mark.parametrize(("port", "authority"), [(":43681", "[::1]:43681"), ("", "[::1]:443")])
def test_a_tunnel_to_an_ipv6_address_has_brackets(port: str, authority: str) -> None:
    """`CONNECT` and its `Host` name the address in brackets, and the port."""
    with (
        FaultCollector([Respond(407)]) as proxy,
        collector_for(f"https://[::1]{port}", proxy=proxy.url) as collector,
    ):
        reply = collector.post(REQUEST)
        assert isinstance(reply, Failure)
        assert "407" in reply.detail
        (request,) = proxy.requests
        assert ("CONNECT", authority, authority) == (request.method, request.target, request.header("Host"))


@pytest.mark.parametrize("secure", [False, True])
def test_an_ipv6_collector(secure: bool, tmp_path: Path) -> None:
    """An IPv6 address works directly, through a proxy, and as a proxy's."""
    context, authority = trusted_tls("::1")
    (tmp_path / "ca.pem").write_bytes(authority)
    ca_file = str(tmp_path / "ca.pem")
    listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    with FaultCollector(listener=listener, ssl_context=context if secure else None) as server:
        host = server.url.partition("://")[2]
        with FaultCollector([Tunnel(server.address)]) as tunnel:
            for proxy in (None, tunnel.url if secure else f"http://{host}"):
                with collector_for(server.url, ca_file=ca_file, proxy=proxy) as collector:
                    assert status_of(collector.post(REQUEST)) == 200
        assert {host} == {request.header("Host") for request in server.requests}


@pytest.mark.parametrize("port", ["", ":8443"])
@pytest.mark.parametrize("secure", [False, True])
def test_the_dot_of_an_absolute_name_is_for_the_resolver(
    port: str, secure: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A final dot is used for the lookup only; `Host`, SNI and the certificate are without it."""
    context, authority = trusted_tls("events.example.com")
    (tmp_path / "ca.pem").write_bytes(authority)
    asked: list[str | None] = []

    def note(_: ssl.SSLObject, name: str | None, __: ssl.SSLContext) -> None:
        asked.append(name)

    context.sni_callback = note
    scheme = "https" if secure else "http"
    with (
        FaultCollector(ssl_context=context if secure else None) as server,
        collector_for(f"{scheme}://events.example.com.{port}", ca_file=str(tmp_path / "ca.pem")) as collector,
    ):
        names = resolve_to(monkeypatch, [server.address])
        assert status_of(collector.post(REQUEST)) == 200
        assert server.requests[0].header("Host") == f"events.example.com{port}"
        assert asked == ["events.example.com"] * secure
        assert names == ["events.example.com."]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_gets_an_absolute_name_without_its_dot(scheme: str) -> None:
    """A name that the proxy looks up isn't resolved on this host."""
    with (
        FaultCollector([Respond(407)]) as proxy,
        collector_for(f"{scheme}://events.example.com.:81", proxy=proxy.url) as collector,
    ):
        collector.post(REQUEST)
        (request,) = proxy.requests
        target = "events.example.com:81" if scheme == "https" else "http://events.example.com:81/v2"
        assert (request.target, request.header("Host")) == (target, "events.example.com:81")


# --- this host ---


def test_certificates_are_loaded_by_the_attempt_that_needs_them(tmp_path: Path) -> None:
    """A file that is missing or bad is a failure of the attempt, with its remedy; a good one is used."""
    context, authority = trusted_tls()
    ca_file = tmp_path / "ca.pem"
    with (
        FaultCollector(ssl_context=context) as server,
        collector_for(server.url, ca_file=str(ca_file)) as collector,
    ):
        for _ in range(2):
            reply = collector.post(REQUEST)
            assert kind_of(reply) is FailureKind.NO_CERTIFICATES
            outcome = classify(reply)
            assert isinstance(outcome, Misconfigured)
            assert str(ca_file) in outcome.reason
            assert "collector.ca_file" in outcome.remedy
            ca_file.write_bytes(b"no certificate")
        ca_file.write_bytes(authority)
        assert status_of(collector.post(REQUEST)) == 200


@pytest.mark.parametrize("system", [False, True])
def test_changed_certificates_are_used_by_the_next_connection(
    system: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An authority can be replaced without a restart or a signal, also among the system's."""
    ca_file = tmp_path / "ca.pem"
    if system:
        monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    with collector_for("https://127.0.0.1", ca_file=None if system else str(ca_file)) as collector:
        for _ in range(3):
            context, authority = trusted_tls()
            (tmp_path / "new.pem").write_bytes(authority)
            (tmp_path / "new.pem").rename(ca_file)
            with FaultCollector(ssl_context=context) as server:
                resolve_to(monkeypatch, [server.address])
                assert status_of(collector.post(REQUEST)) == 200


@pytest.mark.parametrize("route", ["plain", "TLS", "TLS with the system's certificates"])
def test_a_host_without_descriptors_is_a_failure_with_its_remedy(
    route: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Too many open files is an outcome of its own, and over when there are descriptors again."""
    book = AddressBook()
    context, authority = trusted_tls()
    ca_file: str | None = str(tmp_path / "ca.pem")
    (tmp_path / "ca.pem").write_bytes(authority)
    if route.endswith("certificates"):
        monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
        ca_file = None
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    address = listener.getsockname()
    scheme = "http" if route == "plain" else "https"
    url = f"{scheme}://127.0.0.1:{address[1]}"
    with collector_for(url, ca_file=ca_file, addresses=book) as collector:
        # The collector comes later: it couldn't accept anything now.
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))  # standard input is open
        try:
            reply = collector.post(REQUEST)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert kind_of(reply) is FailureKind.OUT_OF_RESOURCES
        outcome = classify(reply)
        assert isinstance(outcome, Misconfigured)
        assert "LimitNOFILE" in outcome.remedy
        assert [address, ("", 0)] == order_of(book, address, ("", 0))
        with FaultCollector(ssl_context=None if route == "plain" else context, listener=listener):
            assert status_of(collector.post(REQUEST)) == 200


@pytest.mark.parametrize("behaviour", [Drop(after_reading=True, reset=True), Drop(), Raw(b"x"), None])
def test_a_failure_keeps_no_request_alive(behaviour: Behaviour | None) -> None:
    """The body of a failed request is freed immediately, not by garbage collection."""
    with FaultCollector([behaviour or OK]) as server:
        url = server.url
        if behaviour is None:
            server.close()
        body = bytes(100_000)
        request = Request({}, body)
        with collector_for(url) as collector:
            gc.disable()
            try:
                before = sys.getrefcount(body)
                assert isinstance(collector.post(request), Failure)
                assert sys.getrefcount(body) == before
            finally:
                gc.enable()


def test_a_connection_that_is_interrupted_is_closed() -> None:
    """Whatever ends an attempt to connect, its socket is closed."""
    budget = Budget(1.0, 1.0, time.monotonic)
    budget.start()
    with failing(socket.socket, "connect"):
        dial("127.0.0.1", 9, budget, AddressBook())
