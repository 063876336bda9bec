"""Connecting to the collector, and one request at a time on a connection.

A response counts only for the request that caused it:

1. On a connection that was used before, bytes that arrive before the whole next request was handed to the
   system aren't its answer. They are late, for an earlier request, or come from a peer that closes. The
   request goes out again on another connection, which is safe, since this one didn't get all of it.
2. On a new connection such bytes can only be for this request. A collector may refuse by what it has seen so
   far (413 by Content-Length, 401 by the headers) and close with the rest unread, which breaks the sending.
   Then a refusal that has arrived is the answer. A success isn't: the collector can't have stored what it
   hasn't got.
3. A stray response that arrives after the last byte was handed over can't be told from the answer. So that
   there is none, a connection is only kept after exactly one response that leaves no doubt where it ended
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

from .http_response import MAX_HEAD, Answer, MalformedResponseError, ResponseReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .addresses import Address, AddressBook

#: Bytes that are handed to the socket at a time, within `timeout` each. 22 KB/s are enough by default.
_PIECE: Final = 64 * 1024

#: Seconds that connecting to one of several addresses gets at least, however many follow: a lost SYN is sent
#: again after one (RFC 6298, 2).
_LEAST_SHARE: Final = 1.0

#: What some servers say before they close a connection that was idle for too long (RFC 9110, 15.5.9).
_REQUEST_TIMEOUT: Final = 408

#: Seconds that the body of a response may take. The status counts without it: a body is only read to keep the
#: connection, or for its excerpt in the log. So it must not hold up the sender.
BODY_TIME: Final = 1.0

#: What this host lacks; another address wouldn't change it.
OUT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_PORTS: Final = {"http": 80, "https": 443}

# The dot at the end of an absolute name, with or without a port behind it.
_FINAL_DOT = re.compile(r"\.(?=(?::[0-9]*)?$)")


@dataclass(frozen=True, slots=True)
class Route:
    """The way to the collector. An absolute name has its dot for this host's resolver, and for no one else.

    Attributes:
        host: What to connect to: the collector or the proxy before it, without brackets.
        port: Its port.
        authority: The collector as a request names it: `HOST` or `HOST:PORT`.
        name: The collector's name, which its certificate is to be for.
        tunnel: The collector's `HOST:PORT` that the proxy is asked to connect to; None without a proxy.
        secure: Whether TLS is spoken.
    """

    host: str
    port: int
    authority: str
    name: str
    tunnel: str | None
    secure: bool

    @classmethod
    def to(cls, url: str, proxy: str | None) -> Route:
        """Return the way to the collector at a URL, `http://` or `https://`, or to the proxy before it."""
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
    """A kept connection isn't idle, or broke before anything of a response came."""


class TunnelError(ConnectionRefusedError):
    """The proxy doesn't connect to the collector.

    Attributes:
        status: The HTTP status that it answers with.
        reason: Its words for that, perhaps none.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"the proxy doesn't connect: {status} {reason}".rstrip())
        self.status = status
        self.reason = reason


class Budget:
    """The time that an attempt may still take.

    Args:
        timeout: Seconds that one operation may take.
        deadline: Seconds that an attempt may take.
        clock: The monotonic clock, in seconds.
    """

    def __init__(self, timeout: float, deadline: float, clock: Callable[[], float]) -> None:
        self._timeout = timeout
        self._deadline = deadline
        self._clock = clock
        self._ends_at = 0.0

    def start(self) -> None:
        """Begin an attempt."""
        self._ends_at = self._clock() + self._deadline

    def left(self) -> float:
        """Return the seconds that the next operation may take; raise `TimeoutError` if there are none."""
        return min(self._timeout, self._rest())

    def hurry(self) -> None:
        """Leave `BODY_TIME` to the attempt at most: what it is for is known."""
        self._ends_at = min(self._ends_at, self._clock() + BODY_TIME)

    def share(self, parts: int) -> float:
        """Return the seconds that one of several tries may take, so that the others get theirs."""
        return min(self.left(), max(_LEAST_SHARE, self._rest() / parts))

    def is_fair(self, seconds: float) -> bool:
        """Tell whether a try that took so long shows that no answer comes."""
        return seconds >= min(self._timeout, _LEAST_SHARE)

    def now(self) -> float:
        """Return the time on the clock, in seconds."""
        return self._clock()

    def _rest(self) -> float:
        rest = self._ends_at - self._clock()
        if rest <= 0:
            raise TimeoutError(f"no complete response within {self._deadline:g} seconds")
        return rest


class Connection:
    """A connection that is ready for a request. Used by one thread.

    Args:
        connected: The socket.
        address: What it is connected to.
        budget: The time that an attempt may still take.
        detour: Whether other addresses used up some of this attempt before.

    Attributes:
        address: What it is connected to.
        opened_at: When it was made, by the clock of the budget.
        used_at: When its last response came.
        detour: As given.
    """

    def __init__(self, connected: socket.socket, address: Address, budget: Budget, *, detour: bool) -> None:
        self.address = address
        self.opened_at: float = budget.now()
        self.used_at: float = self.opened_at
        self.detour = detour
        self._kept = False  # whether it has carried a request
        self._answered = False  # whether anything came back for the last one
        self._budget = budget
        self._attach(connected)

    def _attach(self, connected: socket.socket) -> None:
        self._socket = connected
        self._tls = connected if isinstance(connected, ssl.SSLSocket) else None
        self._poller = select.poll()
        self._poller.register(connected, select.POLLIN)

    def start_tls(self, context: ssl.SSLContext, host: str) -> ssl.SSLSocket:
        """Speak TLS from here on, to a peer that proves to be this host.

        Returns:
            The socket, to ask what was agreed on.

        Raises:
            OSError: The handshake fails, or the certificate isn't good.
        """
        self._socket.settimeout(self._budget.left())  # bounds the whole handshake
        tls = context.wrap_socket(self._socket, server_hostname=host)
        self._attach(tls)
        return tls

    def open_tunnel(self, authority: str) -> None:
        """Have a proxy connect to the collector; everything that follows goes there.

        Raises:
            TunnelError: The proxy refuses.
            OSError: The connection broke, or the time is up.
            MalformedResponseError: It isn't a proxy.
        """
        self._send(memoryview(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode("latin-1")))
        answer = ResponseReader(self._receive).read(tunnel=True)
        if not answer.success:
            raise TunnelError(answer.response.status, answer.response.reason)
        if answer.rest:
            raise MalformedResponseError("more than its response came from the proxy")

    def exchange(self, head: bytes, body: bytes) -> Answer:
        """Send a request and read the response to it.

        Args:
            head: The request line and the headers, with the empty line that ends them.
            body: The body.

        Raises:
            StaleConnectionError: It was used before, and the request is to be sent on another connection.
            MalformedResponseError: What came isn't a response to this request.
            OSError: The connection broke, or the time is up.
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
            raise StaleConnectionError("the collector had waited for too long")
        if answer.premature and not answer.refusal:
            raise MalformedResponseError("a success came before the request was sent")
        self._kept = True
        return answer

    def close(self) -> None:
        """Close it, whatever is still to come."""
        self._socket.close()

    def _exchange(self, head: bytes, body: bytes) -> Answer:
        early = b""
        try:
            for piece in _pieces(head, body):
                early += self._look(MAX_HEAD - len(early))
                self._send(piece)
        except OSError:
            if self._kept:
                raise
            refusal = self._refusal(early)
            if refusal is None:
                raise
            return refusal
        return ResponseReader(self._receive, early, self._budget.hurry).read()

    def _look(self, most: int) -> bytes:
        """Return what came before the next piece of the request is sent.

        Raises:
            ConnectionResetError: Something did, if only the end, on a connection that was used before.
        """
        arrived = self._arrived(most) if most else None
        if arrived is not None and self._kept:
            raise ConnectionResetError("a kept connection isn't idle")
        return arrived or b""

    def _refusal(self, early: bytes) -> Answer | None:
        """Return the refusal that explains why the request couldn't be sent, if all of its head is here."""
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
            raise BlockingIOError("nothing more has come")
        return data

    def _arrived(self, most: int) -> bytes | None:
        """Return what can be read without waiting: None if nothing can, nothing at the end."""
        if not self._poller.poll(0) and not (self._tls and self._tls.pending()):
            return None
        self._socket.settimeout(0)
        try:
            return self._socket.recv(most)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None  # of TLS, such as a session ticket


def _pieces(head: bytes, body: bytes) -> Iterator[memoryview]:
    """Split a request into what is sent at a time; the head goes with the first of the body."""
    first = max(0, _PIECE - len(head))
    yield memoryview(head + body[:first])
    view = memoryview(body)
    for start in range(first, len(body), _PIECE):
        yield view[start : start + _PIECE]


def dial(host: str, port: int, budget: Budget, book: AddressBook) -> tuple[socket.socket, Address, bool]:
    """Connect to the first address of a host that answers.

    Args:
        host: Its name or address, without brackets.
        port: Its port.
        budget: Bounds all of it but the lookup, which the system's resolver bounds.
        book: Says which addresses to try first, and gets to know those that fail.

    Returns:
        The socket, its address, and whether others failed before.

    Raises:
        OSError: The name isn't found, no address answers, or the time is up.
    """
    try:
        found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
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
            # What got too little time, after others had used it up, may be the one that works.
            if not isinstance(exc, TimeoutError) or place == 0 or budget.is_fair(share):
                book.note_failure(address, budget.now())
            if place == len(entries) - 1:
                raise
    raise OSError("the name has no address")


def _connect(family: int, kind: int, protocol: int, address: Address, seconds: float) -> socket.socket:
    connection = socket.socket(family, kind, protocol)
    try:
        connection.settimeout(seconds)
        connection.connect(address)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        connection.close()
        raise
    return connection
