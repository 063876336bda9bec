from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import socket
import tempfile
import threading
from collections import Counter as Tally
from decimal import Decimal
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
    Address,
    Client,
    StatsdBatch,
)
from baseplate_events.event_publisher.telemetry.statsd_lines import MAX_DATAGRAM_SIZE
from tests.support.clocks import Clock
from tests.support.statsd import Rude, parse_line
from tests.support.strategies import metric_tags, unwritable_numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping


class Server:
    """A real datagram socket that a client sends to."""

    def __init__(self, sock: socket.socket, endpoint: InternetEndpoint | UnixEndpoint) -> None:
        self.socket = sock
        self.endpoint = endpoint
        sock.settimeout(10)

    def receive(self) -> bytes:
        """Wait for a datagram."""
        return self.socket.recv(65_536)

    def pending(self) -> list[bytes]:
        """Take the datagrams that are there; on one host they are there once `sendto` returned."""
        found: list[bytes] = []
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
    """Each kind of metric arrives as its line, over UDP on both IP versions and over a Unix socket."""
    with serve() as server:
        clock = Clock()
        client = Client("app.", server.endpoint, resolve=refuse, clock=clock)
        client.counter("sent", {"queue": "v2"}).increment(3, sample_rate=0.5)
        client.counter("sent").decrement()
        with client.timer("post"):
            clock.now += 0.25
        client.gauge("depth").replace(7)
        client.gauge("depth").replace(-7.5)
        client.gauge("depth").increment(2)
        client.gauge("depth").decrement(2)
        client.gauge("depth").increment(-2)
        client.gauge("depth").decrement(-2)
        client.histogram("size").add_sample(1_000_000)
        expected = [
            b"app.sent,queue=v2:3|c|@0.5",
            b"app.sent:-1|c",
            b"app.post:250|ms",
            b"app.depth:7|g",
            b"app.depth:0|g\napp.depth:-7.5|g",
            b"app.depth:+2|g",
            b"app.depth:-2|g",
            b"app.depth:-2|g",
            b"app.depth:+2|g",
            b"app.size:1000000|h",
        ]
        assert expected == [server.receive() for _ in expected]
        assert server.pending() == []
        assert client.dropped == 0
        client.close()


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.floats(0, 1e6))
def test_a_timer_reports_milliseconds(started: int, ticks: int, elapsed: float) -> None:
    """A timer reports seconds as milliseconds to the digit, once for each start."""
    clock = Clock()
    with collected(clock) as (client, lines):
        timer = client.timer("t")
        timer.stop()
        timer.send(elapsed)
        clock.now = started / 2**20
        timer.start(sample_rate=0.5)
        clock.now = (started + ticks) / 2**20
        timer.stop()
        timer.stop()
        direct, measured = (parse_line(line) for line in lines())
    assert Decimal(repr(elapsed)).scaleb(3) == Decimal(direct.number)
    assert Decimal(repr(ticks / 2**20)).scaleb(3) == Decimal(measured.number)
    assert (direct.rate, measured.rate) == (1.0, 0.5)


@contextlib.contextmanager
def collected(clock: Clock | None = None) -> Generator[tuple[Client, CollectedLines]]:
    """A client whose lines are logged instead of sent."""
    handler = CollectedLines()
    statsd.logger.addHandler(handler)
    previous = statsd.logger.level
    statsd.logger.setLevel(logging.DEBUG)
    try:
        yield Client("", None, clock=clock or Clock(), log_if_unconfigured=True), handler
    finally:
        statsd.logger.removeHandler(handler)
        statsd.logger.setLevel(previous)


class CollectedLines(logging.Handler):
    """Keeps the lines that an unconfigured client logs."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[bytes] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage().removeprefix("would send metric ").encode())

    def __call__(self) -> list[bytes]:
        lines, self._lines = self._lines, []
        return lines


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), metric_tags, st.integers(-9, 9), st.sampled_from([1.0, 0.5])),
        max_size=20,
    )
)
def test_a_batch_sums_counters(changes: list[tuple[str, dict[str, str], int, float]]) -> None:
    """A batch sends one line for each name, tags and rate of a counter, with the sum of its changes."""
    expected: Tally[tuple[str, tuple[tuple[str, str], ...], float]] = Tally()
    with collected() as (client, lines):
        with client.batch() as batch:
            for name, tags, delta, rate in changes:
                batch.counter(name, tags).increment(delta, sample_rate=rate)
                expected[name, tuple(tags.items()), rate] += delta
        parsed = [parse_line(line) for line in lines()]
    assert dict(expected) == {(line.name, line.tags, line.rate): int(line.number) for line in parsed}
    assert len(expected) == len(parsed)


def test_a_batch_packs_datagrams_and_keeps_the_order() -> None:
    """A batch sends few datagrams of at most the size, lines in their order, and is empty after it."""
    with udp_server() as server:
        client = Client("app", server.endpoint, resolve=refuse)
        batch = client.batch()
        batch.counter("total").increment()
        for number in range(200):
            batch.gauge(f"gauge{number}").replace(number)
        batch.counter("total").increment(2)
        batch.flush()
        datagrams = server.pending()
        batch.flush()
        assert server.pending() == []
        assert all(len(datagram) <= MAX_DATAGRAM_SIZE for datagram in datagrams)
        lines = [line for datagram in datagrams for line in datagram.split(b"\n")]
        assert [b"app.gauge%d:%d|g" % (number, number) for number in range(200)] + [b"app.total:3|c"] == lines
        assert math.ceil((sum(map(len, lines)) + len(lines)) / (MAX_DATAGRAM_SIZE - 20)) >= len(datagrams)
        client.close()


@given(unwritable_numbers)
def test_what_cannot_be_written_is_counted_and_spoils_nothing(number: float) -> None:
    """A number that can't be written is dropped and counted, by itself, in a batch too."""
    with udp_server() as server:
        client = Client("", server.endpoint, resolve=refuse)
        client.gauge("g").replace(number)
        client.gauge("g").increment(number)
        client.gauge("g").decrement(number)
        client.timer("t").send(number)
        client.histogram("h").add_sample(number)
        client.counter("c").decrement(number)
        client.counter("").increment()
        with client.batch() as batch:
            batch.counter("c").increment(number)
            batch.counter("c").increment(2)
            batch.gauge("g").replace(number)
            batch.counter("large").increment(1e308)
            batch.counter("large").increment(1e308)
            batch.counter("mixed").increment(10**308)
            batch.counter("mixed").increment(10**308)
            batch.counter("mixed").increment(0.5)
        assert client.dropped == 12
        assert [parse_line(line).name for line in b"\n".join(server.pending()).split(b"\n")] == ["c"]
        client.close()


def fail(batch: StatsdBatch) -> NoReturn:
    """Measure something, then fail."""
    batch.gauge("b").replace(1)
    raise ZeroDivisionError


def test_a_batch_is_sent_though_its_block_fails() -> None:
    """A block that raises sends what it gathered, and its exception goes on."""
    with collected() as (client, lines):
        with pytest.raises(ZeroDivisionError), client.batch() as batch:
            fail(batch)
        assert lines() == [b"b:1|g"]


def test_rude_values_do_not_raise() -> None:
    """Values of wrong types are dropped and counted by every metric."""
    with udp_server() as server:
        name: str = Rude()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
        client = Client(name, server.endpoint, resolve=refuse)
        rude: float = Rude()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
        with client.batch() as batch:
            for metrics in (client, batch):
                metrics.counter("c").increment(rude)
                metrics.counter("c").decrement(rude)
                metrics.gauge("g").replace(rude)
                metrics.timer("t").send(rude)
                metrics.histogram("h").add_sample(rude)
                metrics.counter("c").increment(1, sample_rate=rude)
        assert client.dropped == 10
        assert server.pending() == [b"_.c:1|c", b"_.c:1|c"]
        client.close()


def test_without_an_endpoint_nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client without an endpoint takes everything, drops nothing and makes no socket."""

    def forbidden(*_: object) -> NoReturn:
        raise AssertionError

    monkeypatch.setattr(socket, "socket", forbidden)
    client = Client("app", None, resolve=refuse)
    with client.batch() as batch:
        batch.gauge("a").replace(1)
    client.counter("a").increment()
    client.close()
    assert client.dropped == 0


def test_without_an_endpoint_lines_can_be_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Lines of a client without an endpoint go to the log at DEBUG if it was asked for."""
    with caplog.at_level(logging.DEBUG, statsd.logger.name):
        Client("app", None).gauge("a").replace(-1)
        assert caplog.messages == []
        Client("app", None, log_if_unconfigured=True).gauge("a").replace(-1)
    assert caplog.messages == ["would send metric app.a:0|g", "would send metric app.a:-1|g"]
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}


# --- failures ---


def test_a_unix_socket_that_is_missing_or_full_costs_only_its_lines(caplog: pytest.LogCaptureFixture) -> None:
    """A missing path, a dead peer and a full buffer drop lines without a wait; a new server is found."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory) / "statsd")
        client = Client("", UnixEndpoint(path), clock=clock)
        client.counter("missing").increment()
        assert client.dropped == 1
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(path)
            sent = 0
            while client.dropped == 1:
                client.counter("filling").increment()
                sent += 1
            used = client._wire._socket  # pyright: ignore[reportPrivateUsage]
            assert used is not None
            assert used.gettimeout() == 0
            server = Server(sock, UnixEndpoint(path))
            assert [b"filling:1|c"] * (sent - 1) == server.pending()
            client.counter("after").increment()
            assert server.pending() == [b"after:1|c"]
        client.counter("dead").increment()
        assert client.dropped == 3
        Path(path).unlink()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(path)
            client.counter("again").increment()
            assert Server(sock, UnixEndpoint(path)).pending() == [b"again:1|c"]
        client.close()
        assert len(caplog.messages) == 1
        clock.now += LOG_INTERVAL
        client.counter("gone").decrement()
        client.counter("x" * 300_000).decrement()
        assert len(caplog.messages) == 2
        assert client.dropped == 5
        client.close()


def test_a_closed_udp_port_raises_nothing() -> None:
    """Lines to a port where nobody listens vanish, and the next server there receives what follows."""
    with udp_server() as server:
        endpoint = server.endpoint
    client = Client("", endpoint, resolve=refuse)
    for _ in range(3):
        client.counter("a").increment()
    assert isinstance(endpoint, InternetEndpoint)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((endpoint.host, endpoint.port))
        client.counter("b").increment()
        assert Server(sock, endpoint).receive() == b"b:1|c"
    client.close()


@given(
    st.sampled_from(
        [errno.EAGAIN, errno.EPERM, errno.ENETUNREACH, errno.EMSGSIZE, errno.ENOBUFS, errno.EBADF]
    ),
    st.booleans(),
)
def test_no_error_of_a_socket_comes_through(code: int, opening: bool) -> None:
    """Whatever opening or sending raises, the line is counted and a later one is sent."""

    class Failing(socket.socket):
        def sendto(self, *_: object) -> NoReturn:
            raise OSError(code, "injected")

    def unopened(*_: object) -> NoReturn:
        raise OSError(code, "injected")

    with udp_server() as server, pytest.MonkeyPatch.context() as patch:
        client = Client("", server.endpoint, resolve=refuse)
        patch.setattr(socket, "socket", unopened if opening else Failing)
        client.counter("a").increment()
        with client.batch() as batch:
            batch.gauge("g").replace(-1)
        assert client.dropped == 3
        patch.undo()
        client.close()
        client.counter("b").increment()
        assert server.receive() == b"b:1|c"
        client.close()


@pytest.mark.parametrize("path", ["/" + "x" * 200, "/nul\0", "/\udc80\ud800"])
def test_an_impossible_path_raises_nothing(path: str) -> None:
    """A path that no socket can have drops lines."""
    client = Client("", UnixEndpoint(path))
    client.counter("a").increment()
    assert client.dropped == 1
    client.close()


def nowhere(host: str, port: int) -> Address:
    """A resolver whose address nobody listens at."""
    assert (host, port) != ("", 0)
    return Address(socket.AF_UNIX, "/nowhere/at/all")


class ScriptedResolver:
    """Answers when it is told to; a lookup is over when its thread has ended."""

    def __init__(self, answer: Address | Exception) -> None:
        self.answer = answer
        self.allowed = threading.Event()
        self.threads: list[threading.Thread] = []

    def __call__(self, host: str, port: int, /) -> Address:
        assert (host, port) == ("statsd.test", 8125)
        self.threads.append(threading.current_thread())
        assert self.allowed.wait(30)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def wait(self, lookups: int) -> None:
        """Let the lookup answer and wait for its end."""
        self.allowed.set()
        for thread in threading.enumerate():
            if thread.name == "statsd-resolver":
                thread.join(30)
        assert lookups == len(self.threads)


def test_a_name_is_resolved_in_the_background_and_again() -> None:
    """A resolver that hangs costs lines and no time; its answer is used for a minute, then asked for anew."""
    clock = Clock()
    with udp_server() as first, udp_server() as second:
        addresses = [
            Address(socket.AF_INET, (server.endpoint.host, server.endpoint.port))
            for server in (first, second)
            if isinstance(server.endpoint, InternetEndpoint)
        ]
        resolver = ScriptedResolver(addresses[0])
        client = Client("", InternetEndpoint("statsd.test", 8125), resolve=resolver, clock=clock)
        for _ in range(3):
            client.counter("early").increment()
            clock.now += LOOKUP_INTERVAL
        assert client.dropped == 3
        resolver.wait(1)
        client.counter("a").increment()
        clock.now += LOOKUP_INTERVAL - 1
        client.counter("b").increment()
        assert [first.receive(), first.receive()] == [b"a:1|c", b"b:1|c"]
        resolver.allowed.clear()
        resolver.answer = addresses[1]
        clock.now += 1
        client.counter("still").increment()
        assert first.receive() == b"still:1|c"
        resolver.wait(2)
        client.counter("moved").increment()
        assert second.receive() == b"moved:1|c"
        resolver.answer = OSError("injected")
        clock.now += LOOKUP_INTERVAL
        client.counter("c").increment()
        resolver.wait(3)
        client.counter("d").increment()
        assert [second.receive(), second.receive()] == [b"c:1|c", b"d:1|c"]
        assert first.pending() == []
        assert client.dropped == 3
        client.close()


@pytest.mark.parametrize("failure", [OSError("injected"), UnicodeError("injected"), KeyError("injected")])
def test_a_name_that_is_not_found_is_asked_for_again(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """A failed lookup is logged and repeated after a pause, not before, and once it succeeds lines flow."""
    clock = Clock()
    resolver = ScriptedResolver(failure)
    client = Client("", InternetEndpoint("statsd.test", 8125), resolve=resolver, clock=clock)
    client.counter("a").increment()
    resolver.wait(1)
    client.counter("a").increment()
    resolver.wait(1)
    assert len(caplog.messages) == 1
    clock.now += LOOKUP_PAUSE
    resolver.allowed.clear()
    with udp_server() as server:
        assert isinstance(server.endpoint, InternetEndpoint)
        resolver.answer = Address(socket.AF_INET, (server.endpoint.host, server.endpoint.port))
        client.counter("a").increment()
        resolver.wait(2)
        client.counter("b").increment()
        assert server.receive() == b"b:1|c"
    assert client.dropped == 3
    client.close()


def test_an_address_that_fails_is_looked_up_soon() -> None:
    """After an error of sending the name is asked for again as soon as the pause is over."""
    clock = Clock()
    resolver = ScriptedResolver(Address(socket.AF_UNIX, "/nowhere/at/all"))
    client = Client("", InternetEndpoint("statsd.test", 8125), resolve=resolver, clock=clock)
    client.counter("a").increment()
    resolver.wait(1)
    client.counter("a").increment()
    resolver.wait(1)
    clock.now += LOOKUP_PAUSE
    client.counter("a").increment()
    resolver.wait(2)
    client.close()


def test_a_thread_that_cannot_be_started_costs_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a thread for the resolver the line is dropped, and one is asked for again after the pause."""
    clock = Clock()
    resolver = ScriptedResolver(Address(socket.AF_UNIX, "/nowhere/at/all"))
    client = Client("", InternetEndpoint("statsd.test", 8125), resolve=resolver, clock=clock)

    def exhausted(_: threading.Thread) -> NoReturn:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", exhausted)
        client.counter("a").increment()
    assert client.dropped == 1
    clock.now += LOOKUP_PAUSE
    client.counter("a").increment()
    resolver.wait(1)
    client.close()


@pytest.mark.parametrize("host", ["", "a" * 70, "a..b", "\udc80", "nul\0"])
def test_an_impossible_host_raises_nothing(host: str) -> None:
    """A host that can't be looked up drops lines; the system's resolver is asked in the background."""
    client = Client("", InternetEndpoint(host, 8125), resolve=nowhere)
    client.counter("a").increment()
    for thread in threading.enumerate():
        if thread.name == "statsd-resolver":
            thread.join(30)
    client.close()


def test_localhost_is_ipv4_first() -> None:
    """The system's resolver gives IPv4 where a name has both, as servers of the field listen there."""
    four = (socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("192.0.2.1", 8125))
    six = (socket.AF_INET6, socket.SOCK_DGRAM, 17, "", ("2001:db8::1", 8125, 0, 0))
    for found in ([four, six], [six, four]):
        with mock.patch.object(socket, "getaddrinfo", return_value=found):
            assert statsd.resolve_host("both.test", 8125) == Address(socket.AF_INET, ("192.0.2.1", 8125))
    with mock.patch.object(socket, "getaddrinfo", return_value=[six]):
        assert statsd.resolve_host("six.test", 8125).family == socket.AF_INET6
    assert statsd.resolve_host("localhost", 8125) == Address(socket.AF_INET, ("127.0.0.1", 8125))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_worker_sends_though_a_thread_held_the_client() -> None:
    """A child whose parent was in the middle of a send has a lock and a socket of its own."""
    with udp_server() as server:
        client = Client("", server.endpoint, resolve=refuse)
        client.counter("before").increment()
        held, release = threading.Event(), threading.Event()

        def hold() -> None:
            with client._wire._lock:  # pyright: ignore[reportPrivateUsage]
                held.set()
                release.wait(30)

        holder = threading.Thread(target=hold)
        holder.start()
        assert held.wait(30)
        child = os.fork()
        if child == 0:
            try:
                client.counter("child").increment()
                client.close()
            finally:
                os._exit(0)
        try:
            assert [server.receive(), server.receive()] == [b"before:1|c", b"child:1|c"]
        finally:
            release.set()
            holder.join(30)
            os.waitpid(child, 0)
        client.counter("parent").increment()
        assert server.receive() == b"parent:1|c"
        client.close()


def test_threads_share_a_client() -> None:
    """Lines of many threads arrive whole and are all counted, sent or dropped."""
    with unix_server() as server:
        client = Client("", server.endpoint)
        received: Tally[bytes] = Tally()

        def send(number: int) -> None:
            for _ in range(200):
                client.counter(f"thread{number}").increment()

        threads = [threading.Thread(target=send, args=[number]) for number in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            received.update(server.pending())
        received.update(server.pending())
        assert set(received) <= {b"thread%d:1|c" % number for number in range(4)}
        assert received.total() + client.dropped == 800
        client.close()


def test_the_framework_reports_gauges_through_a_batch() -> None:
    """A batch serves where a framework reports `batch.gauge(name).replace(value)`."""

    def report(values: Mapping[str, float], client: Client) -> None:
        with client.batch() as batch:
            for name, value in values.items():
                batch.gauge(name).replace(value)

    with collected() as (client, lines):
        report({"a": 1, "b": 2.5}, client)
        assert lines() == [b"a:1|g", b"b:2.5|g"]
