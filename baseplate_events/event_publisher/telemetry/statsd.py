"""A statsd client that can't get in the way of what it measures.

What goes over the wire is in `statsd_lines`; this room owns the socket, the clock and the names of hosts.

Rules:

1. Nothing here raises, whatever it is called with and whatever the network does.
2. Nothing here waits: the socket doesn't block, and names are resolved by a thread of their own.
3. What can't be sent is dropped, counted in lines (`Client.dropped`) and logged at most once a minute.
4. Telemetry that was lost is gone: nothing is kept to be sent again.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from ..config.values import InternetEndpoint, UnixEndpoint
from .statsd_lines import format_line, format_metric, format_number, format_rate, pack_lines

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from ..config.values import Endpoint
    from .statsd_lines import Tags

logger: logging.Logger = logging.getLogger(__name__)

#: Seconds after which a host name is resolved anew: the usual time to live of a service's DNS record.
LOOKUP_INTERVAL: Final = 60.0
#: Seconds from a failure to the next time that a name is resolved, so that an outage isn't met with a storm.
LOOKUP_PAUSE: Final = 5.0
#: Seconds between two log lines about dropped measurements.
LOG_INTERVAL: Final = 60.0

Clock: TypeAlias = Callable[[], float]
SocketAddress: TypeAlias = tuple[str | int | bytes, ...] | str

# Errors that say nothing against the socket or the address: no room just now, or a line that is too long.
_HARMLESS = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.EMSGSIZE})


class _Sink(Protocol):
    """Where the lines of a metric go."""

    def put(self, line: bytes | None) -> None:
        """Take a line; None is one that couldn't be written, which is counted."""

    def count(self, metric: bytes | None, delta: float, rate: str) -> None:
        """Take a change of a counter."""


class StatsdCounter:
    """Counts events. Made by `Client.counter` or `StatsdBatch.counter`."""

    def __init__(self, sink: _Sink, metric: bytes | None) -> None:
        self._sink = sink
        self._metric = metric

    def increment(self, delta: float = 1, sample_rate: float = 1.0) -> None:
        """Add to the counter.

        Args:
            delta: What to add.
            sample_rate: The share of events that the caller reports, above 0 and at most 1. It is told to
                the server, which scales by it; to report only that share is the caller's part.
        """
        self._sink.count(self._metric, delta, format_rate(sample_rate))

    def decrement(self, delta: float = 1, sample_rate: float = 1.0) -> None:
        """Subtract from the counter; see `increment`."""
        try:
            delta = -delta
        except Exception:  # noqa: BLE001 - not a number, which `increment` counts as such
            delta = math.nan
        self.increment(delta, sample_rate)


class Timer:
    """Measures how long something takes, once or many times; one thread at a time. Also a context manager."""

    def __init__(self, sink: _Sink, metric: bytes | None, clock: Clock) -> None:
        self._sink = sink
        self._metric = metric
        self._clock = clock
        self._started: float | None = None
        self._sample_rate = 1.0

    def send(self, elapsed: float, sample_rate: float = 1.0) -> None:
        """Report a time that was measured elsewhere.

        Args:
            elapsed: Seconds; the line says milliseconds.
            sample_rate: See `StatsdCounter.increment`.
        """
        number = format_number(elapsed, shift=3)
        self._sink.put(format_line(self._metric, number, "ms", format_rate(sample_rate)))

    def start(self, sample_rate: float = 1.0) -> None:
        """Start to measure, anew if it was started before."""
        self._started = self._clock()
        self._sample_rate = sample_rate

    def stop(self) -> None:
        """Report the time since `start`; without one it reports nothing."""
        started, self._started = self._started, None
        if started is not None:
            self.send(self._clock() - started, self._sample_rate)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class StatsdGauge:
    """Holds a value. Made by `Client.gauge` or `StatsdBatch.gauge`."""

    def __init__(self, sink: _Sink, metric: bytes | None) -> None:
        self._sink = sink
        self._metric = metric

    def replace(self, new_value: float) -> None:
        """Set the value, whatever it was before."""
        number = format_number(new_value)
        line = format_line(self._metric, number, "g")
        zero = format_line(self._metric, "0", "g")
        if line is not None and zero is not None and number is not None and number.startswith("-"):
            # One piece: if only the second line arrived it would be a decrement.
            line = zero + b"\n" + line
        self._sink.put(line)

    def increment(self, delta: float = 1) -> None:
        """Change the value by `delta`; the server's value is unknown after it restarts."""
        number = format_number(delta)
        if number is not None and not number.startswith("-"):
            number = f"+{number}"
        self._sink.put(format_line(self._metric, number, "g"))

    def decrement(self, delta: float = 1) -> None:
        """Change the value by minus `delta`; see `increment`."""
        number = format_number(delta)
        if number is not None:
            number = f"+{number[1:]}" if number.startswith("-") else f"-{number}"
        self._sink.put(format_line(self._metric, number, "g"))


class Histogram:
    """Collects samples into a distribution, where the server has the type `h`."""

    def __init__(self, sink: _Sink, metric: bytes | None) -> None:
        self._sink = sink
        self._metric = metric

    def add_sample(self, value: float) -> None:
        """Add a sample, in whatever unit the histogram has."""
        self._sink.put(format_line(self._metric, format_number(value), "h"))


class _Metrics:
    """Makes metrics under a namespace; what `Client` and `StatsdBatch` share."""

    def __init__(self, sink: _Sink, namespace: str, clock: Clock) -> None:
        self._sink = sink
        self._namespace = namespace
        self._clock = clock

    def counter(self, name: str, tags: Tags | None = None) -> StatsdCounter:
        """Give the counter of that name."""
        return StatsdCounter(self._sink, format_metric(self._namespace, name, tags))

    def timer(self, name: str, tags: Tags | None = None) -> Timer:
        """Give a timer of that name."""
        return Timer(self._sink, format_metric(self._namespace, name, tags), self._clock)

    def gauge(self, name: str, tags: Tags | None = None) -> StatsdGauge:
        """Give the gauge of that name."""
        return StatsdGauge(self._sink, format_metric(self._namespace, name, tags))

    def histogram(self, name: str, tags: Tags | None = None) -> Histogram:
        """Give the histogram of that name."""
        return Histogram(self._sink, format_metric(self._namespace, name, tags))


@dataclass(frozen=True, slots=True)
class Address:
    """Where datagrams go.

    Attributes:
        family: `socket.AF_INET`, `AF_INET6` or `AF_UNIX`.
        sockaddr: The address as `socket.sendto` takes it.
    """

    family: int
    sockaddr: SocketAddress


class Resolver(Protocol):
    """Finds the address of a host name; may wait, and raise what it likes."""

    def __call__(self, host: str, port: int, /) -> Address:
        """Resolve `host`."""
        ...


def resolve_host(host: str, port: int, *, flags: int = 0) -> Address:
    """Ask the system for the address of a host.

    IPv4 comes first where a name has both: `localhost` is such a name, statsd servers listen on
    `127.0.0.1`, and a datagram sent to `::1` instead would vanish without a sign.

    Raises:
        OSError: It has none, or the system can't tell.
        UnicodeError: It can't be a host name.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=flags)
    family, _, _, _, sockaddr = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return Address(family, sockaddr)


class Client(_Metrics):
    """Sends measurements to a statsd server; threads and forked workers may share it.

    Args:
        namespace: What the name of every metric begins with; may be empty.
        endpoint: The server, or None to discard everything; then no socket is opened.
        resolve: Finds the address of a host name. It runs in a daemon thread when the first line is sent,
            then for a line that is sent a minute or more after it, and soon after an error. Lines before
            its first answer are dropped.
        clock: Seconds that never run back, for timers and for pauses.
        log_if_unconfigured: Without an endpoint, log the lines at level DEBUG.
    """

    def __init__(
        self,
        namespace: str,
        endpoint: Endpoint | None,
        *,
        resolve: Resolver = resolve_host,
        clock: Clock = time.monotonic,
        log_if_unconfigured: bool = False,
    ) -> None:
        self._wire = _Wire(endpoint, resolve, clock, log_if_unconfigured=log_if_unconfigured)
        super().__init__(self._wire, namespace, clock)

    @property
    def dropped(self) -> int:
        """Lines that couldn't be written or sent since the client was made."""
        return self._wire.dropped

    def batch(self) -> StatsdBatch:
        """Give a client that gathers lines and sends them, few datagrams at once, when its block ends."""
        return StatsdBatch(self._wire, self._namespace, self._clock)

    def close(self) -> None:
        """Close the socket; a later line opens another."""
        self._wire.close()


class StatsdBatch(_Metrics):
    """Gathers measurements; made by `Client.batch` and used by one thread.

    The changes of a counter become one line for each sample rate. A failed block sends what it gathered too.
    """

    def __init__(self, wire: _Wire, namespace: str, clock: Clock) -> None:
        self._buffer = _Buffer(wire)
        super().__init__(self._buffer, namespace, clock)

    def flush(self) -> None:
        """Send what was gathered, in its order, counters last; the batch is empty and usable after it."""
        self._buffer.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()


class _Buffer:
    """The sink of a batch."""

    def __init__(self, wire: _Wire) -> None:
        self._wire = wire
        self._lines: list[bytes] = []
        self._counters: dict[tuple[bytes, str], float] = {}

    def put(self, line: bytes | None) -> None:
        """Keep a line."""
        if line is None:
            self._wire.put(None)
        else:
            self._lines.append(line)

    def count(self, metric: bytes | None, delta: float, rate: str) -> None:
        """Add to the counter's sum; a delta that can't be written must not spoil it."""
        if metric is None or format_number(delta) is None:
            self._wire.put(None)
            return
        key = (metric, rate)
        try:
            self._counters[key] = self._counters.get(key, 0) + delta
        except Exception:  # noqa: BLE001 - numbers that can't be added, such as an int too large for a float
            self._wire.put(None)

    def flush(self) -> None:
        """Send everything."""
        lines, self._lines = self._lines, []
        counters, self._counters = self._counters, {}
        for (metric, rate), total in counters.items():
            line = format_line(metric, format_number(total), "c", rate)
            if line is None:
                self._wire.put(None)
            else:
                lines.append(line)
        for datagram in pack_lines(lines):
            self._wire.put(datagram)


class _Wire:
    """Owns the socket and the name of the server.

    The socket isn't connected: an address that refused one datagram isn't the reason to lose the next, and
    a Unix path is looked up each time, so a server that restarted is found.
    """

    def __init__(
        self, endpoint: Endpoint | None, resolve: Resolver, clock: Clock, *, log_if_unconfigured: bool
    ) -> None:
        self._endpoint = endpoint
        self._resolve = resolve
        self._clock = clock
        self._log_lines = endpoint is None and log_if_unconfigured
        self._address = _fixed_address(endpoint)
        self._named = endpoint if isinstance(endpoint, InternetEndpoint) and self._address is None else None
        self._lookup_at = -math.inf
        self._log_at = -math.inf
        self._dropped = 0
        self._begin()

    def _begin(self) -> None:
        """Take possession for this process: a lock or thread that a fork copied is nobody's here."""
        self._lock = threading.RLock()  # reentrant, as a signal handler may count something too
        self._socket: socket.socket | None = None
        self._looking = False
        self._pid = os.getpid()

    def _own_lock(self) -> threading.RLock:
        if self._pid != os.getpid():
            inherited = self._socket
            self._begin()
            if inherited is not None:
                inherited.close()
        return self._lock

    @property
    def dropped(self) -> int:
        return self._dropped

    def put(self, line: bytes | None) -> None:
        """Send a line, or lines joined by newlines, as one datagram."""
        if self._endpoint is None:
            if self._log_lines and line is not None:
                for part in line.split(b"\n"):
                    logger.debug("would send metric %s", part.decode("ascii"))
            return
        try:
            with self._own_lock():
                if line is None or not self._send(line):
                    self._drop(line)
        except Exception as exc:  # noqa: BLE001 - rule 1: measuring must not break what is measured
            self._drop(line)
            self._warn(exc)

    def count(self, metric: bytes | None, delta: float, rate: str) -> None:
        """Send a change of a counter."""
        self.put(format_line(metric, format_number(delta), "c", rate))

    def close(self) -> None:
        """Close the socket, if one is open."""
        with self._own_lock():
            used, self._socket = self._socket, None
            if used is not None:
                with contextlib.suppress(OSError):
                    used.close()

    def _drop(self, line: bytes | None) -> None:
        with self._lock:
            self._dropped += 1 if line is None else line.count(b"\n") + 1

    def _send(self, datagram: bytes) -> bool:
        """Send a datagram; False where the address isn't known yet.

        Raises:
            OSError: It wasn't sent. What was found out before is forgotten, unless it can't be the reason.
        """
        if self._named is not None:
            self._look_up_if_due(self._named)
        address = self._address
        if address is None:
            return False
        try:
            if self._socket is None or self._socket.family != address.family:
                self.close()
                self._socket = socket.socket(address.family, socket.SOCK_DGRAM)
                self._socket.setblocking(False)
            self._socket.sendto(datagram, address.sockaddr)
        except OSError as exc:
            if exc.errno not in _HARMLESS:
                self._lookup_at = min(self._lookup_at, self._clock() + LOOKUP_PAUSE)
                self.close()
            raise
        return True

    def _look_up_if_due(self, named: InternetEndpoint) -> None:
        now = self._clock()
        if self._looking or now < self._lookup_at:
            return
        self._looking = True
        self._lookup_at = now + LOOKUP_PAUSE  # stands if the thread can't be started
        try:
            thread = threading.Thread(target=self._look_up, args=[named], name="statsd-resolver", daemon=True)
            thread.start()
        except RuntimeError:
            self._looking = False
            raise

    def _look_up(self, named: InternetEndpoint) -> None:
        """Resolve the name; runs in a thread of its own, and only one does at a time."""
        pause = LOOKUP_PAUSE
        try:
            self._address = self._resolve(named.host, named.port)
            pause = LOOKUP_INTERVAL
        except Exception as exc:  # noqa: BLE001 - whatever a resolver raises, there is no answer
            self._warn(exc)
        finally:
            with self._lock:
                self._lookup_at = self._clock() + pause
                self._looking = False

    def _warn(self, reason: Exception) -> None:
        now = self._clock()
        if now < self._log_at:
            return
        self._log_at = now + LOG_INTERVAL
        logger.warning(
            "metrics don't reach %s (%s); %d lines dropped so far", self._endpoint, reason, self._dropped
        )


def _fixed_address(endpoint: Endpoint | None) -> Address | None:
    """Give the address of an endpoint that needs no resolver: a path, or a host that is an IP address."""
    if endpoint is None:
        return None
    if isinstance(endpoint, UnixEndpoint):
        return Address(socket.AF_UNIX, endpoint.path)
    try:
        return resolve_host(endpoint.host, endpoint.port, flags=socket.AI_NUMERICHOST)
    except (OSError, ValueError, OverflowError):
        return None
