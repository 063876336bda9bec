"""Connects to the collector, and sends one request at a time on a connection.

A response counts only for the request that caused it:

1. On a reused connection, bytes that arrive before the whole next request was handed to the system aren't its
   answer. They are a late answer to an earlier request, or come from a peer that closes. The request is sent
   again on another connection, which is safe, since this one didn't get all of it.
2. On a new connection such bytes can only belong to this request. A collector may refuse early (413 by
   Content-Length, 401 by the headers) and close without reading the rest, so that sending fails. A refusal
   that has arrived is then the answer. A success isn't: the collector can't have stored what it hasn't
   received.
3. A stray response that arrives after the last byte was handed over can't be distinguished from the answer.
   To prevent that, a connection is kept only after exactly one response whose end is certain
   (`http_response`).
"""

from __future__ import annotations

import errno
import re
import select
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from .config.values import format_span
from .http_response import MAX_HEAD, Answer, MalformedResponseError, ResponseReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .addresses import Address, AddressBook

#: Bytes sent to the socket at a time, each within `timeout`. With the default, 22 KB/s are enough.
_PIECE: Final = 64 * 1024

#: Fewest seconds for connecting to one of several addresses, however many follow: a lost SYN is sent
#: again after one (RFC 6298, 2).
_LEAST_SHARE: Final = 1.0

#: Some servers send this before they close a connection that was idle for too long (RFC 9110, 15.5.9).
_REQUEST_TIMEOUT: Final = 408

#: Seconds for reading the body of a response. The status counts without it: the body is read only to keep the
#: connection, or for an excerpt in the log. So it must not delay the sender.
BODY_TIME: Final = 1.0

#: Errors of this host; another address wouldn't help.
OUT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_PORTS: Final = {"http": 80, "https": 443}

# The final dot of an absolute name, with or without a port after it.
_FINAL_DOT = re.compile(r"\.(?=(?::[0-9]*)?$)")


@dataclass(frozen=True, slots=True)
class Route:
    """The route to the collector. Only this host's resolver gets the final dot of an absolute name.

    Attributes:
        host: The host to connect to: the collector or the proxy, without brackets.
        port: Its port.
        authority: The collector in a request: `HOST` or `HOST:PORT`.
        name: The collector's name, which its certificate must match.
        tunnel: The collector's `HOST:PORT` for the proxy's CONNECT; None without a proxy.
        secure: Whether to use TLS.
    """

    host: str
    port: int
    authority: str
    name: str
    tunnel: str | None
    secure: bool

    @classmethod
    def to(cls, url: str, proxy: str | None) -> Route:
        """Return the route to the collector at a URL, `http://` or `https://`, possibly through a proxy."""
        parts = urlsplit(url)
        peer = urlsplit(proxy) if proxy is not None else parts
        authority = _FINAL_DOT.sub("", parts.netloc)
        target = authority if parts.port else f"{authority}:{_PORTS[parts.scheme]}"
        return cls(
            host=peer.hostname or "",
            port=peer.port or _PORTS[peer.scheme],
            authority=authority,
            name=(parts.hostname or "").removesuffix("."),
            tunnel=None if proxy is None else target,
            secure=parts.scheme == "https",
        )


class StaleConnectionError(ConnectionError):
    """A reused connection isn't idle, or broke before any byte of a response arrived."""


class TunnelError(ConnectionRefusedError):
    """The proxy refuses to connect to the collector.

    Attributes:
        status: The HTTP status of its answer.
        reason: Its reason phrase, which may be empty.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"the proxy refuses to connect: {status} {reason}".rstrip())
        self.status = status
        self.reason = reason


class Budget:
    """The time left for an attempt.

    Args:
        timeout: Seconds for one operation.
        deadline: Seconds for the whole attempt.
        clock: The monotonic clock, in seconds.
    """

    def __init__(self, timeout: float, deadline: float, clock: Callable[[], float]) -> None:
        self._timeout = timeout
        self._deadline = deadline
        self._clock = clock
        self._ends_at = 0.0

    def start(self) -> None:
        """Start an attempt."""
        self._ends_at = self._clock() + self._deadline

    def left(self) -> float:
        """Return the seconds for the next operation; raise `TimeoutError` if none are left."""
        return min(self._timeout, self._rest())

    def limit_to_body(self) -> None:
        """Limit the attempt to another `BODY_TIME`: its result is known."""
        self._ends_at = min(self._ends_at, self._clock() + BODY_TIME)

    def share(self, parts: int) -> float:
        """Return the seconds for one of several tries, so that the others get their share."""
        return min(self.left(), max(_LEAST_SHARE, self._rest() / parts))

    def is_fair(self, seconds: float) -> bool:
        """Return whether a try of this length shows that there is no answer."""
        return seconds >= min(self._timeout, _LEAST_SHARE)

    def now(self) -> float:
        """Return the time on the clock, in seconds."""
        return self._clock()

    def _rest(self) -> float:
        rest = self._ends_at - self._clock()
        if rest <= 0:
            raise TimeoutError(f"no complete response within {format_span(self._deadline)}")
        return rest


class Connection:
    """A connection that is ready for a request. Used by one thread.

    Args:
        connected: The socket.
        address: The address it is connected to.
        budget: The time left for the attempt.
        detour: Whether other addresses used up some of this attempt's time.

    Attributes:
        address: The address it is connected to.
        opened_at: When it was opened, by the clock of the budget.
        used_at: When its last response arrived.
        detour: As given.
    """

    def __init__(self, connected: socket.socket, address: Address, budget: Budget, *, detour: bool) -> None:
        self.address = address
        self.opened_at: float = budget.now()
        self.used_at: float = self.opened_at
        self.detour = detour
        self._kept = False  # whether it has carried a request before
        self._answered = False  # whether any byte of an answer to the last one arrived
        self._budget = budget
        self._attach(connected)

    def _attach(self, connected: socket.socket) -> None:
        self._socket = connected
        self._tls = connected if isinstance(connected, ssl.SSLSocket) else None
        self._poller = select.poll()
        self._poller.register(connected, select.POLLIN)

    def start_tls(self, context: ssl.SSLContext, host: str) -> ssl.SSLSocket:
        """Start TLS, with a peer that proves to be this host.

        Returns:
            The socket, for its TLS version and certificate.

        Raises:
            OSError: The handshake failed, or the certificate isn't valid.
        """
        self._socket.settimeout(self._budget.left())  # bounds the whole handshake
        tls = context.wrap_socket(self._socket, server_hostname=host)
        self._attach(tls)
        return tls

    def open_tunnel(self, authority: str) -> None:
        """Ask a proxy to connect to the collector; everything sent afterwards goes there.

        Raises:
            TunnelError: The proxy refuses.
            OSError: The connection broke, or the time ran out.
            MalformedResponseError: The peer isn't a proxy.
        """
        self._send(memoryview(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode("latin-1")))
        answer = ResponseReader(self._receive).read(tunnel=True)
        if not answer.success:
            raise TunnelError(answer.response.status, answer.response.reason)
        if answer.rest:
            raise MalformedResponseError("the proxy sent more than its response")

    def exchange(self, head: bytes, body: bytes) -> Answer:
        """Send a request and read its response.

        Args:
            head: The request line and the headers, with the empty line that ends them.
            body: The body.

        Raises:
            StaleConnectionError: It was used before; send the request on another connection.
            MalformedResponseError: The peer sent something other than a response to this request.
            OSError: The connection broke, or the time ran out.
        """
        self._answered = False
        try:
            answer = self._exchange(head, body)
        except TimeoutError:
            raise
        except OSError as exc:
            if self._kept and not self._answered:
                raise StaleConnectionError(str(exc)) from None
            raise
        if self._kept and answer.response.status == _REQUEST_TIMEOUT:
            raise StaleConnectionError("the collector closed an idle connection")
        if answer.premature and not answer.refusal:
            raise MalformedResponseError("a success arrived before the request was sent")
        self._kept = True
        return answer

    def close(self) -> None:
        """Close it, even in the middle of a response."""
        self._socket.close()

    def _exchange(self, head: bytes, body: bytes) -> Answer:
        early = b""
        try:
            for piece in _pieces(head, body):
                early += self._receive_early(MAX_HEAD - len(early))
                self._send(piece)
        except OSError:
            if self._kept:
                raise
            refusal = self._refusal(early)
            if refusal is None:
                raise
            return refusal
        return ResponseReader(self._receive, early, self._budget.limit_to_body).read()

    def _receive_early(self, most: int) -> bytes:
        """Return the bytes that arrived before the next piece of the request is sent.

        Raises:
            ConnectionResetError: Bytes or the end arrived on a connection that was used before.
        """
        arrived = self._arrived(most) if most else None
        if arrived is not None and self._kept:
            raise ConnectionResetError("a kept connection isn't idle")
        return arrived or b""

    def _refusal(self, early: bytes) -> Answer | None:
        """Return the refusal that explains why the request couldn't be sent, if its head is complete."""
        try:
            answer = ResponseReader(self._receive_arrived, early).read()
        except OSError:
            return None
        return answer if answer.refusal else None

    def _send(self, piece: memoryview) -> None:
        while piece:
            self._socket.settimeout(self._budget.left())
            piece = piece[self._socket.send(piece) :]

    def _receive(self, most: int) -> bytes:
        self._socket.settimeout(self._budget.left())
        data = self._socket.recv(most)
        self._answered = self._answered or bool(data)
        return data

    def _receive_arrived(self, most: int) -> bytes:
        data = self._arrived(most)
        if data is None:
            raise BlockingIOError("nothing more has arrived")
        return data

    def _arrived(self, most: int) -> bytes | None:
        """Return the bytes readable without waiting: None if there are none, b"" at the end."""
        if not self._poller.poll(0) and not (self._tls and self._tls.pending()):
            return None
        self._socket.settimeout(0)
        try:
            return self._socket.recv(most)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None  # a TLS record, such as a session ticket


def _pieces(head: bytes, body: bytes) -> Iterator[memoryview]:
    """Split a request into the pieces to send; the head goes with the first piece of the body."""
    first = max(0, _PIECE - len(head))
    yield memoryview(head + body[:first])
    view = memoryview(body)
    for start in range(first, len(body), _PIECE):
        yield view[start : start + _PIECE]


def dial(host: str, port: int, budget: Budget, book: AddressBook) -> tuple[socket.socket, Address, bool]:
    """Connect to the first address of a host that accepts.

    Args:
        host: Its name or address, without brackets.
        port: Its port.
        budget: Limits everything except the lookup, which the system's resolver limits.
        book: Orders the addresses, and records those that fail.

    Returns:
        The socket, its address, and whether other addresses failed before.

    Raises:
        OSError: The name wasn't found, no address accepted, or the time ran out.
    """
    try:
        # As bytes: a str loads the tables of IDNA, and the configuration allows only ASCII names.
        found = socket.getaddrinfo(host.encode("ascii"), port, 0, socket.SOCK_STREAM)
    except UnicodeError:
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from None
    entries = book.order(found, budget.now())
    for place, (family, kind, protocol, _, address) in enumerate(entries):
        share = budget.share(len(entries) - place)
        try:
            return _connect(family, kind, protocol, address, share), address, place > 0
        except OSError as exc:
            if exc.errno in OUT_OF_RESOURCES:
                raise
            # An address that got too little time, because others used it up, may be fine.
            if not isinstance(exc, TimeoutError) or place == 0 or budget.is_fair(share):
                book.record_failure(address, budget.now())
            if place == len(entries) - 1:
                raise
    raise OSError("the name has no address")


def _connect(family: int, kind: int, protocol: int, address: Address, seconds: float) -> socket.socket:
    connection = socket.socket(family, kind, protocol)
    try:
        connection.settimeout(seconds)
        connection.connect(address)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        connection.close()
        raise
    return connection
