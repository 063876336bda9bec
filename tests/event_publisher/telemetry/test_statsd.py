from __future__ import annotations

import contextlib
import errno
import logging
import math
import socket
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.config.values import InternetEndpoint, UnixEndpoint
from baseplate_events.event_publisher.telemetry import statsd
from baseplate_events.event_publisher.telemetry.statsd import (
    LOG_INTERVAL,
    LOOKUP_INTERVAL,
    LOOKUP_PAUSE,
    DatagramAddress,
    StatsdClient,
)
from baseplate_events.event_publisher.telemetry.statsd_lines import MAX_DATAGRAM_SIZE
from tests.support.clocks import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

_NOWHERE = DatagramAddress(socket.AF_UNIX, "/nowhere/at/all")
_NAMED = InternetEndpoint("statsd.test", 8125)


class Server:
    """A real datagram socket that a client sends to."""

    def __init__(self, sock: socket.socket, endpoint: InternetEndpoint | UnixEndpoint) -> None:
        self.socket = sock
        self.endpoint = endpoint
        self.address = DatagramAddress(sock.family, sock.getsockname())
        sock.settimeout(10)

    def receive(self) -> bytes:
        """Wait for a datagram."""
        return self.socket.recv(65_536)

    def pending(self) -> list[bytes]:
        """Receive the datagrams that have arrived; on one host they have once `sendto` returned.

        The kernel may be late with those of UDP, but keeps their order: what comes last shows their end.
        """
        found: list[bytes] = []
        if self.socket.family != socket.AF_UNIX:
            with socket.socket(self.socket.family, socket.SOCK_DGRAM) as end:
                end.sendto(b"", self.socket.getsockname())
            found += iter(self.receive, b"")
        self.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self.socket.recv(65_536))
        self.socket.settimeout(10)
        return found


@contextlib.contextmanager
def udp_server(family: socket.AddressFamily = socket.AF_INET) -> Generator[Server]:
    """Listen on a free port of the loopback."""
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        yield Server(sock, InternetEndpoint(host, sock.getsockname()[1]))


@contextlib.contextmanager
def unix_server() -> Generator[Server]:
    """Listen on a fresh path."""
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        path = str(Path(directory) / "statsd")
        sock.bind(path)
        yield Server(sock, UnixEndpoint(path))


def refuse(host: str, port: int) -> NoReturn:
    """A resolver that no test may reach."""
    raise AssertionError(f"looked up {host}:{port}")


@pytest.mark.parametrize("serve", [udp_server, lambda: udp_server(socket.AF_INET6), unix_server])
def test_a_server_receives_exactly_what_was_sent(
    serve: Callable[[], contextlib.AbstractContextManager[Server]],
) -> None:
    """What one call sends arrives in one datagram, over UDP on both IP versions and over a Unix socket."""
    with (
        serve() as server,
        contextlib.closing(StatsdClient("app", server.endpoint, resolve=refuse)) as client,
    ):
        client.send(timers={"post": 0.25})
        client.send(counters={"sent": 3, "received": -1}, gauges={"queue.depth": 7}, timers={"post": 1})
        client.send()
        assert server.pending() == [
            b"app.post:250|ms",
            b"app.post:1000|ms\napp.queue.depth:7|g\napp.sent:3|c\napp.received:-1|c",
        ]
        assert client.dropped == 0


@pytest.mark.parametrize(
    ("namespace", "name"),
    [("", b"a.b"), ("x", b"x.a.b"), ("x.y.", b"x.y.a.b"), (".x..y", b"x.y.a.b"), (".", b"a.b")],
)
def test_a_namespace_is_what_names_begin_with(namespace: str, name: bytes) -> None:
    """Empty parts of a namespace are left out."""
    with unix_server() as server, contextlib.closing(StatsdClient(namespace, server.endpoint)) as client:
        client.send(gauges={"a.b": 1})
        assert server.pending() == [name + b":1|g"]


def test_a_report_is_packed_and_keeps_its_order() -> None:
    """Many lines go in few datagrams of at most the size, all from one port."""
    gauges = {f"gauge{number}": number for number in range(200)}
    with udp_server() as server, contextlib.closing(StatsdClient("app", server.endpoint)) as client:
        client.send(gauges=gauges, counters={"total": 3})
        sender = server.socket.recvfrom(0, socket.MSG_PEEK)[1]
        datagrams = server.pending()
        assert MAX_DATAGRAM_SIZE == 1500 - 40 - 8 - 20
        assert all(len(datagram) <= MAX_DATAGRAM_SIZE for datagram in datagrams)
        lines = [line for datagram in datagrams for line in datagram.split(b"\n")]
        assert [b"app.gauge%d:%d|g" % (number, number) for number in range(200)] + [b"app.total:3|c"] == lines
        assert math.ceil((sum(map(len, lines)) + len(lines)) / (MAX_DATAGRAM_SIZE - 20)) >= len(datagrams)
        client.send(counters={"total": 1})
        assert sender == server.socket.recvfrom(0, socket.MSG_PEEK)[1]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_spoils_nothing(number: float) -> None:
    """Only the lines of numbers that can't be written are missing."""
    with unix_server() as server, contextlib.closing(StatsdClient("", server.endpoint)) as client:
        client.send(timers={"t": number}, gauges={"g": number, "h": 1}, counters={"c": number, "d": 2})
        assert server.pending() == [b"h:1|g\nd:2|c"]


def test_without_an_endpoint_nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client without an endpoint accepts everything, drops nothing and opens no socket."""

    def forbidden(*_: object) -> NoReturn:
        raise AssertionError

    monkeypatch.setattr(socket, "socket", forbidden)
    client = StatsdClient("app", None, resolve=refuse)
    client.send(gauges={"a": 1}, counters={"b": 1})
    client.close()
    assert client.dropped == 0


def test_without_an_endpoint_lines_can_be_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Lines of a client without an endpoint are logged at DEBUG if that was asked for."""
    with caplog.at_level(logging.DEBUG, statsd.logger.name):
        StatsdClient("app", None).send(gauges={"a": 1})
        assert caplog.messages == []
        StatsdClient("app", None, log_if_unconfigured=True).send(gauges={"a": 1, "b": 2})
    assert caplog.messages == ["would send metric app.a:1|g", "would send metric app.b:2|g"]
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}


def test_with_an_endpoint_lines_are_sent_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """`log_if_unconfigured` changes nothing if there is an endpoint."""
    with (
        caplog.at_level(logging.DEBUG, statsd.logger.name),
        unix_server() as server,
        contextlib.closing(StatsdClient("", server.endpoint, log_if_unconfigured=True)) as client,
    ):
        client.send(gauges={"a": 1})
        assert server.pending() == [b"a:1|g"]
    assert caplog.messages == []


def test_a_closed_client_sends_again() -> None:
    """A line after `close` opens another socket."""
    with unix_server() as server, contextlib.closing(StatsdClient("", server.endpoint)) as client:
        for number in range(3):
            client.send(gauges={"a": number})
            client.close()
        assert server.pending() == [b"a:0|g", b"a:1|g", b"a:2|g"]


def test_a_closed_client_has_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing frees the socket, whether there is one, none, or one that fails."""
    opened: list[socket.socket] = []

    class Noted(socket.socket):
        def sendto(self, *arguments: object) -> int:
            opened.append(self)
            return super().sendto(*arguments)  # type: ignore[call-overload,no-any-return]

        def close(self) -> None:
            super().close()
            raise OSError(errno.EBADF, "injected")

    with unix_server() as server:
        client = StatsdClient("", server.endpoint)
        client.close()
        monkeypatch.setattr(socket, "socket", Noted)
        client.send(gauges={"a": 1})
        client.close()
        client.close()
    assert [-1] == [sock.fileno() for sock in opened]


# --- failures ---


def count(client: StatsdClient, name: str) -> None:
    """Send one line."""
    client.send(counters={name: 1})


def test_a_unix_socket_that_is_missing_or_full_costs_only_its_lines(caplog: pytest.LogCaptureFixture) -> None:
    """A missing path, a dead peer and a full buffer drop lines without a wait; a new server is found."""
    clock = FakeClock()
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory) / "statsd")
        client = StatsdClient("", UnixEndpoint(path), clock=clock)
        count(client, "missing")
        assert client.dropped == 1
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(path)
            used = client._socket  # pyright: ignore[reportPrivateUsage]
            assert used is not None
            assert used.gettimeout() == 0  # else the loop would hang
            sent = 0
            while client.dropped == 1:
                count(client, "filling")
                sent += 1
            server = Server(sock, UnixEndpoint(path))
            assert [b"filling:1|c"] * (sent - 1) == server.pending()
            count(client, "after")
            assert server.pending() == [b"after:1|c"]
        count(client, "dead")
        assert client.dropped == 3
        Path(path).unlink()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(path)
            count(client, "again")
            assert Server(sock, UnixEndpoint(path)).pending() == [b"again:1|c"]
        assert caplog.messages == [
            f"metrics not sent to {path} ([Errno 2] No such file or directory); 1 line dropped so far"
        ]
        clock.now += LOG_INTERVAL
        client.send(gauges={"gone": 1, "with it": 2})
        count(client, "x" * 300_000)
        assert caplog.messages[1:] == [
            f"metrics not sent to {path} ([Errno 111] Connection refused); 5 lines dropped so far"
        ]
        assert client.dropped == 6
        client.close()


def test_a_closed_udp_port_raises_nothing() -> None:
    """Lines to a port where no one listens vanish, and the next server there receives what follows."""
    with udp_server() as server:
        endpoint = server.endpoint
    client = StatsdClient("", endpoint, resolve=refuse)
    for _ in range(3):
        count(client, "a")
    assert isinstance(endpoint, InternetEndpoint)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((endpoint.host, endpoint.port))
        count(client, "b")
        assert Server(sock, endpoint).receive() == b"b:1|c"
    client.close()


@given(
    st.sampled_from(
        [errno.EAGAIN, errno.EPERM, errno.ENETUNREACH, errno.EMSGSIZE, errno.ENOBUFS, errno.EBADF]
    ),
    st.booleans(),
)
def test_no_error_of_a_socket_comes_through(code: int, opening: bool) -> None:
    """Whatever opening or sending raises, the lines are counted, and a later one is sent."""

    class Failing(socket.socket):
        def sendto(self, *arguments: object) -> int:
            if failing:
                raise OSError(code, "injected")
            return super().sendto(*arguments)  # type: ignore[call-overload,no-any-return]

    def open_socket(family: int, kind: int) -> socket.socket:
        if opening and failing:
            raise OSError(code, "injected")
        return socket_class(family, kind)

    failing = True
    socket_class = Failing
    with udp_server() as server, pytest.MonkeyPatch.context() as patch:
        client = StatsdClient("", server.endpoint, resolve=refuse)
        patch.setattr(socket, "socket", open_socket)
        count(client, "a")
        client.send(gauges={"g": 1, "h": 1})
        assert client.dropped == 3
        failing = False
        count(client, "b")
        assert server.receive() == b"b:1|c"
        assert client.dropped == 3
        client.close()


def test_a_datagram_that_fails_costs_none_of_the_others() -> None:
    """Of a report that needs several datagrams, those that can be sent are."""
    with unix_server() as server, contextlib.closing(StatsdClient("", server.endpoint)) as client:
        client.send(gauges={"a": 1, "x" * 300_000: 2, "b": 3})
        assert server.pending() == [b"a:1|g", b"b:3|g"]
        assert client.dropped == 1


@pytest.mark.parametrize("path", ["/" + "x" * 200, "/nul\0", "/\udc80\ud800"])
def test_an_impossible_path_raises_nothing(path: str) -> None:
    """A path that no socket can have drops lines."""
    client = StatsdClient("", UnixEndpoint(path))
    count(client, "a")
    assert client.dropped == 1
    client.close()


# --- names of hosts ---


def join_lookups() -> None:
    """Wait for the end of all lookups."""
    for thread in threading.enumerate():
        if thread.name == "statsd-resolver":
            thread.join(30)


class ScriptedResolver:
    """Answers when it is allowed to; a lookup is over when its thread has ended."""

    def __init__(self, answer: DatagramAddress | Exception) -> None:
        self.answer = answer
        self.allowed = threading.Event()
        self.threads: list[threading.Thread] = []

    def __call__(self, host: str, port: int, /) -> DatagramAddress:
        assert (host, port) == ("statsd.test", 8125)
        self.threads.append(threading.current_thread())
        assert self.allowed.wait(30)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def wait(self, lookups: int) -> None:
        """Let the lookup answer and wait for its end."""
        self.allowed.set()
        join_lookups()
        assert lookups == len(self.threads)
        assert all(thread.daemon for thread in self.threads)


@pytest.mark.parametrize("move_to", [udp_server, lambda: udp_server(socket.AF_INET6), unix_server])
def test_a_name_is_resolved_in_the_background_and_again(
    move_to: Callable[[], contextlib.AbstractContextManager[Server]], caplog: pytest.LogCaptureFixture
) -> None:
    """A resolver that hangs costs lines and no time; its answer is used for a minute, then replaced."""
    clock = FakeClock()
    with udp_server() as first, move_to() as second:
        resolver = ScriptedResolver(first.address)
        client = StatsdClient("", _NAMED, resolve=resolver, clock=clock)
        for _ in range(3):
            count(client, "early")
            clock.now += LOOKUP_INTERVAL
        assert client.dropped == 3
        assert caplog.messages == []
        resolver.wait(1)
        count(client, "a")
        clock.now += LOOKUP_INTERVAL - 1
        count(client, "b")
        assert [first.receive(), first.receive()] == [b"a:1|c", b"b:1|c"]
        resolver.allowed.clear()
        resolver.answer = second.address
        clock.now += 1
        count(client, "still")
        assert first.receive() == b"still:1|c"
        resolver.wait(2)
        count(client, "moved")
        assert second.receive() == b"moved:1|c"
        resolver.answer = OSError("injected")
        clock.now += LOOKUP_INTERVAL
        count(client, "c")
        resolver.wait(3)
        (message,) = caplog.messages
        assert " statsd.test:8125 (injected)" in message
        count(client, "d")
        assert [second.receive(), second.receive()] == [b"c:1|c", b"d:1|c"]
        assert first.pending() == []
        assert client.dropped == 3
        client.close()


@pytest.mark.parametrize("failure", [OSError("injected"), UnicodeError("injected"), KeyError("injected")])
def test_a_name_that_is_not_found_is_asked_for_again(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """A failed lookup is logged and repeated after a pause, not before, and once it succeeds lines flow."""
    clock = FakeClock()
    resolver = ScriptedResolver(failure)
    client = StatsdClient("", _NAMED, resolve=resolver, clock=clock)
    count(client, "a")
    resolver.wait(1)
    clock.now += LOOKUP_PAUSE - 1
    count(client, "a")
    resolver.wait(1)
    assert len(caplog.messages) == 1
    clock.now += 1
    resolver.allowed.clear()
    with udp_server() as server:
        resolver.answer = server.address
        count(client, "a")
        resolver.wait(2)
        count(client, "b")
        assert server.receive() == b"b:1|c"
    assert client.dropped == 3
    client.close()


def test_an_address_that_fails_is_looked_up_soon() -> None:
    """After an error of sending, the name is asked for again as soon as the pause is over."""
    clock = FakeClock()
    resolver = ScriptedResolver(_NOWHERE)
    client = StatsdClient("", _NAMED, resolve=resolver, clock=clock)
    count(client, "a")
    resolver.wait(1)
    count(client, "a")
    for _ in range(int(LOOKUP_PAUSE)):  # further errors don't put it off
        resolver.wait(1)
        clock.now += 1
        count(client, "a")
    resolver.wait(2)
    client.close()


def test_a_thread_that_cannot_be_started_costs_a_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a thread for the resolver the line is dropped, and one is asked for again after the pause."""
    clock = FakeClock()
    resolver = ScriptedResolver(_NOWHERE)
    client = StatsdClient("", _NAMED, resolve=resolver, clock=clock)

    def exhausted(_: threading.Thread) -> NoReturn:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", exhausted)
        count(client, "a")
    assert client.dropped == 1
    assert ["can't start new thread" in message for message in caplog.messages] == [True]
    count(client, "a")
    resolver.wait(0)
    clock.now += LOOKUP_PAUSE
    count(client, "a")
    resolver.wait(1)
    client.close()


def test_the_caller_resolves_no_name() -> None:
    """A name that the system knows without asking a server goes to the resolver's thread as well."""
    lookups: list[tuple[str, str]] = []

    def resolve(host: str, _port: int) -> DatagramAddress:
        lookups.append((host, threading.current_thread().name))
        return _NOWHERE

    client = StatsdClient("", InternetEndpoint("localhost", 8125), resolve=resolve)
    count(client, "a")
    join_lookups()
    assert lookups == [("localhost", "statsd-resolver")]
    client.close()


@pytest.mark.parametrize("host", ["", "a" * 70, "a..b", "\udc80", "nul\0"])
def test_an_impossible_host_raises_nothing(host: str) -> None:
    """A host that can't be looked up drops lines."""
    client = StatsdClient("", InternetEndpoint(host, 8125), resolve=lambda _host, _port: _NOWHERE)
    count(client, "a")
    join_lookups()
    client.close()


def test_localhost_is_ipv4_first() -> None:
    """The system's resolver gives IPv4 if a name has both, as servers of the field listen there."""
    four = (socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("192.0.2.1", 8125))
    six = (socket.AF_INET6, socket.SOCK_DGRAM, 17, "", ("2001:db8::1", 8125, 0, 0))
    for found in ([four, six], [six, four]):
        with mock.patch.object(socket, "getaddrinfo", return_value=found):
            assert statsd.resolve_host("both.test", 8125) == (socket.AF_INET, ("192.0.2.1", 8125))
    with mock.patch.object(socket, "getaddrinfo", return_value=[six]):
        assert statsd.resolve_host("six.test", 8125).family == socket.AF_INET6
    assert statsd.resolve_host("localhost", 8125) == (socket.AF_INET, ("127.0.0.1", 8125))
