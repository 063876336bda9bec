"""A statsd client that can't disturb what it measures.

`statsd_lines` formats measurements and packs them into datagrams. This module contains the socket that sends
them, and the thread that resolves the name of the server.

Rules:

1. Nothing here raises, whatever the network and the name servers do.
2. Nothing here waits: the socket doesn't block, and a host name is resolved in a separate thread.
3. Nothing is buffered or resent. A line that can't be sent is dropped and counted (`StatsdClient.dropped`).
   The reason is logged at most once a minute.
4. One thread uses a client, and no process that has one forks: the publisher reports from its main loop, and
   starts no other process. The resolver's thread replaces single values, so there is no lock.
"""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import threading
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from ..._words import Count
from ..config.values import InternetEndpoint, UnixEndpoint
from .statsd_lines import format_lines, pack_lines

if TYPE_CHECKING:
    from ..config.values import Endpoint

logger: logging.Logger = logging.getLogger(__name__)

#: Seconds after which a host name is resolved again: the usual time to live of a service's DNS record.
LOOKUP_INTERVAL: Final = 60.0
#: Seconds between a failure and the next lookup, so that an outage causes no storm of lookups.
LOOKUP_PAUSE: Final = 5.0
#: Seconds between two log lines about dropped lines.
LOG_INTERVAL: Final = 60.0

_NONE: Final[Mapping[str, float]] = MappingProxyType({})

Clock: TypeAlias = Callable[[], float]
SocketAddress: TypeAlias = tuple[str | int | bytes, ...] | str


class DatagramAddress(NamedTuple):
    """The destination of datagrams.

    Attributes:
        family: `socket.AF_INET`, `AF_INET6` or `AF_UNIX`.
        sockaddr: The address for `socket.sendto`.
    """

    family: int
    sockaddr: SocketAddress


#: Finds the address of a host name and port; may wait, and may raise anything.
Resolver: TypeAlias = Callable[[str, int], DatagramAddress]


def resolve_host(host: str, port: int, *, flags: int = 0) -> DatagramAddress:
    """Resolve the address of a host.

    IPv4 is preferred if a name has both: `localhost` is such a name, statsd servers listen on `127.0.0.1`,
    and a datagram sent to `::1` instead would vanish silently.

    Raises:
        OSError: It has none, or the lookup failed.
        UnicodeError: The name can't be a host name.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=flags)
    family, _, _, _, sockaddr = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return DatagramAddress(family, sockaddr)


class StatsdClient:
    """Sends measurements to a statsd server.

    All datagrams go through one socket, since each socket has a port, and so an entry in the tables of every
    NAT on the way. The socket isn't connected: an address that refused one datagram is no reason to lose the
    next, and a Unix path is resolved for each datagram, so a restarted server is found.

    Args:
        namespace: Prefix of all metric names; may be empty.
        endpoint: The server, or None to discard everything; then no socket is opened.
        resolve: Finds the address of a host name. It runs in a daemon thread when the first line is sent,
            again for a line sent a minute or more later, and soon after an error. Lines before its first
            answer are dropped.
        clock: The monotonic clock, in seconds.
        log_if_unconfigured: Without an endpoint, log the lines at level DEBUG.

    Attributes:
        dropped: Lines that couldn't be sent.
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
        self.dropped: int = 0
        self._prefix = "".join(f"{node}." for node in namespace.split(".") if node)
        self._endpoint = endpoint
        self._clock = clock
        self._log_lines = log_if_unconfigured
        self._log_at = -math.inf
        self._socket: socket.socket | None = None
        self._server = None if endpoint is None else _ServerAddress(endpoint, resolve, clock, self._warn)

    def send(
        self,
        *,
        timers: Mapping[str, float] = _NONE,
        gauges: Mapping[str, float] = _NONE,
        counters: Mapping[str, float] = _NONE,
    ) -> None:
        """Send measurements in this order, in as few datagrams as possible.

        Args:
            timers: Durations in seconds.
            gauges: Current values, none negative.
            counters: Increments.
        """
        if self._server is None and not self._log_lines:
            return
        lines = [
            *format_lines(self._prefix, "ms", timers),
            *format_lines(self._prefix, "g", gauges),
            *format_lines(self._prefix, "c", counters),
        ]
        if self._server is None:
            for line in lines:
                logger.debug("would send metric %s", line.decode())
            return
        for datagram in pack_lines(lines):
            try:
                if not self._send(datagram, self._server):
                    self._drop(datagram)
            except Exception as exc:  # noqa: BLE001 - rule 1: measuring must not break what is measured
                self._drop(datagram)
                self._warn(exc)

    def close(self) -> None:
        """Close the socket, if it is open; a later line opens another."""
        used, self._socket = self._socket, None
        if used is not None:
            with contextlib.suppress(OSError):
                used.close()

    def _send(self, datagram: bytes, server: _ServerAddress) -> bool:
        """Send a datagram; False if the address isn't known yet.

        Raises:
            OSError: It wasn't sent. A host name will be looked up again soon.
        """
        address = server.find()
        if address is None:
            return False
        try:
            if self._socket is None or self._socket.family != address.family:
                self.close()
                self._socket = socket.socket(address.family, socket.SOCK_DGRAM)
                self._socket.setblocking(False)
            self._socket.sendto(datagram, address.sockaddr)
        except OSError:
            server.look_up_at = min(server.look_up_at, self._clock() + LOOKUP_PAUSE)
            raise
        return True

    def _drop(self, datagram: bytes) -> None:
        self.dropped += datagram.count(b"\n") + 1

    def _warn(self, reason: Exception) -> None:
        """Log why lines are dropped, unless that was logged recently; any thread may call it."""
        now = self._clock()
        if now < self._log_at:
            return
        self._log_at = now + LOG_INTERVAL
        logger.warning(
            "metrics not sent to %s (%s); %s dropped so far",
            self._endpoint,
            reason,
            Count(self.dropped, "line"),
        )


class _ServerAddress:
    """The address of the server: fixed for a path or an IP address; a name is looked up in the background.

    Attributes:
        look_up_at: When a name is to be looked up, by the clock.
    """

    def __init__(
        self, endpoint: Endpoint, resolve: Resolver, clock: Clock, warn: Callable[[Exception], None]
    ) -> None:
        self._resolve = resolve
        self._clock = clock
        self._warn = warn
        self._address = _fixed_address(endpoint)
        self._named = endpoint if isinstance(endpoint, InternetEndpoint) and self._address is None else None
        self.look_up_at: float = -math.inf
        self._thread: threading.Thread | None = None

    def find(self) -> DatagramAddress | None:
        """Return the address; None if it isn't known yet. Starts a lookup if one is due.

        Raises:
            RuntimeError: No thread could be started for a lookup. The next one is due after a pause.
        """
        if self._named is not None:
            now = self._clock()
            running = self._thread is not None and self._thread.is_alive()
            if now >= self.look_up_at and not running:
                self.look_up_at = now + LOOKUP_PAUSE
                self._thread = threading.Thread(
                    target=self._look_up, args=[self._named], name="statsd-resolver", daemon=True
                )
                self._thread.start()
        return self._address

    def _look_up(self, named: InternetEndpoint) -> None:
        """Resolve the name; runs in a separate thread, one at a time."""
        pause = LOOKUP_PAUSE
        try:
            self._address = self._resolve(named.host, named.port)
            pause = LOOKUP_INTERVAL
        except Exception as exc:  # noqa: BLE001 - whatever a resolver raises, there is no answer
            self._warn(exc)
        self.look_up_at = self._clock() + pause


def _fixed_address(endpoint: Endpoint) -> DatagramAddress | None:
    """Return the address of an endpoint that needs no resolver: a path, or a host that is an IP address."""
    if isinstance(endpoint, UnixEndpoint):
        return DatagramAddress(socket.AF_UNIX, endpoint.path)
    try:
        return resolve_host(endpoint.host, endpoint.port, flags=socket.AI_NUMERICHOST)
    except (OSError, ValueError):
        return None
