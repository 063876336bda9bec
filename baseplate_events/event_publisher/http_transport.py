"""Posts requests to the event collector over `urllib.request`.

Rules:

1. `post` never raises for what the network or the collector does; it returns a `Response` or a `Failure`.
2. An attempt ends within `deadline` seconds, however slowly the collector drips: every operation on the
   socket gets what is left of it, and never more than `timeout`. Looking up a host name is bounded by the
   system's resolver only.
3. The connection is kept alive between requests. One that the collector closed while it was idle is replaced,
   and the request sent again at once if the connection broke before a byte of the response came.
4. No redirect is followed, no proxy and no credentials are taken from the environment, and no more than
   `MAX_EXCERPT` bytes of a response are read.
5. TLS certificates and host names are verified.
"""

from __future__ import annotations

import http.client
import select
import socket
import ssl
import time
import urllib.request
from typing import TYPE_CHECKING, Final, cast

from .policy.wire import Failure, FailureKind, Reply, Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import ReadableBuffer, WriteableBuffer

#: What a connection raises that the collector has closed, or that broke; TLS has errors of its own for it.
_GONE: Final = (
    ConnectionResetError,
    BrokenPipeError,
    http.client.RemoteDisconnected,
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
)

#: Bytes of a response's body that are read at most. Enough for an error text; a larger body costs the
#: connection.
MAX_EXCERPT: Final = 8 * 1024


class _Budget:
    """The time that an attempt may still take."""

    def __init__(self, timeout: float, deadline: float, clock: Callable[[], float]) -> None:
        self._timeout = timeout
        self._deadline = deadline
        self._clock = clock
        self._ends_at = 0.0

    def start(self) -> None:
        self._ends_at = self._clock() + self._deadline

    def left(self) -> float:
        """Return the seconds that the next operation may take; raise `TimeoutError` if there are none."""
        left = self._ends_at - self._clock()
        if left <= 0:
            raise TimeoutError(f"no complete response within {self._deadline:g} seconds")
        return min(self._timeout, left)


class _PlainSocket(socket.socket):
    """A socket whose every operation keeps to the budget of the attempt."""

    budget: _Budget

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        self.settimeout(self.budget.left())
        return super().recv_into(buffer, nbytes, flags)

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        self.settimeout(self.budget.left())  # bounds the whole call, not each part of it
        super().sendall(data, flags)


class _TLSSocket(ssl.SSLSocket):
    """The same under TLS, where `sendall` is made of many `send`s."""

    budget: _Budget

    def recv_into(self, buffer: WriteableBuffer, nbytes: int | None = None, flags: int = 0) -> int:
        self.settimeout(self.budget.left())
        return super().recv_into(buffer, nbytes, flags)

    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        self.settimeout(self.budget.left())
        return super().send(data, flags)


def _dial(host: str, port: int, budget: _Budget) -> _PlainSocket:
    """Connect to the first address of `host` that answers, all of them within the budget."""
    failure: OSError = OSError("the name has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM):
        connection = _PlainSocket(family, kind, protocol)
        try:
            connection.budget = budget
            connection.settimeout(budget.left())
            connection.connect(address)
            connection.settimeout(budget.left())  # what a TLS handshake may take
        except OSError as exc:
            connection.close()
            failure = exc
        else:
            return connection
    raise failure


class _PlainConnection(http.client.HTTPConnection):
    """A connection to an `http` collector or a proxy."""

    def __init__(self, host: str, budget: _Budget) -> None:
        super().__init__(host)
        self._budget = budget
        # http.client calls this to connect, and has no public way to ask for a deadline over several
        # addresses.
        self._create_connection = self._dial

    def _dial(self, address: tuple[str, int], *_: object) -> _PlainSocket:
        return _dial(*address, self._budget)


class _TLSConnection(http.client.HTTPSConnection):
    """A connection to an `https` collector, directly or through a proxy's tunnel."""

    def __init__(self, host: str, budget: _Budget, context: ssl.SSLContext) -> None:
        super().__init__(host, context=context)
        self._budget = budget
        self._create_connection = self._dial

    def _dial(self, address: tuple[str, int], *_: object) -> _PlainSocket:
        return _dial(*address, self._budget)

    def connect(self) -> None:
        super().connect()
        cast("_TLSSocket", self.sock).budget = self._budget


class _KeepAliveHandler(urllib.request.BaseHandler):
    """Handles `http` and `https` for `urllib.request` over one connection that is kept.

    urllib's own handlers close the connection after each request.
    """

    def __init__(self, budget: _Budget, context: ssl.SSLContext | None, proxy: str | None) -> None:
        self._budget = budget
        self._context = context
        self._proxy = proxy.removeprefix("http://") if proxy else None
        self._connection: http.client.HTTPConnection | None = None

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        selector = request.full_url if self._proxy else request.selector
        return self._send(request, selector)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self._send(request, request.selector)

    def _send(self, request: urllib.request.Request, selector: str) -> http.client.HTTPResponse:
        kept = self._connection
        if kept is not None and not _is_idle(kept):
            self.close()
            kept = None
        connection = kept or self._connect(request)
        try:
            return _exchange(connection, request, selector)
        except _GONE:
            # The collector may close an idle connection at the moment when we use it; a new one can't be
            # idle.
            if kept is None:
                raise
            self.close()
            return _exchange(self._connect(request), request, selector)

    def _connect(self, request: urllib.request.Request) -> http.client.HTTPConnection:
        host = self._proxy or request.host
        if self._context is None:
            connection: http.client.HTTPConnection = _PlainConnection(host, self._budget)
        else:
            connection = _TLSConnection(host, self._budget, self._context)
            if self._proxy:
                connection.set_tunnel(request.host)
        self._connection = connection
        return connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _exchange(
    connection: http.client.HTTPConnection, request: urllib.request.Request, selector: str
) -> http.client.HTTPResponse:
    # urllib stores header names as `X-signature`.
    headers = {name.title(): value for name, value in request.header_items()}
    connection.request("POST", selector, request.data, headers)
    return connection.getresponse()


def _is_idle(connection: http.client.HTTPConnection) -> bool:
    """Whether a kept connection can take a request: open, and with nothing to read, not even its end."""
    if connection.sock is None:
        return False
    poller = select.poll()
    poller.register(connection.sock, select.POLLIN)
    return not poller.poll(0)


class HTTPTransport:
    """The event collector, as one sender sees it. Used by one thread at a time.

    Args:
        url: Where to post, `http://` or `https://`.
        timeout: Seconds that connecting, sending, or waiting for more of the response may take each.
        deadline: Seconds that an attempt may take in all, however many reads it needs.
        ca_file: PEM file with the certificates to trust instead of the system's; for `https`.
        proxy: `http://HOST:PORT` of a proxy to go through. None: none, whatever the environment says.
        clock: The monotonic clock, in seconds.

    Raises:
        OSError: `ca_file` can't be read or has no certificate in it.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float,
        deadline: float,
        ca_file: str | None = None,
        proxy: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._budget = _Budget(timeout, deadline, clock)
        context = None
        if url.startswith("https:"):
            context = ssl.create_default_context(cafile=ca_file)
            context.sslsocket_class = _TLSSocket
            context.set_alpn_protocols(["http/1.1"])
        self._handler = _KeepAliveHandler(self._budget, context, proxy)
        self._opener = urllib.request.OpenerDirector()
        self._opener.add_handler(self._handler)

    def post(self, request: Request) -> Reply:
        """Post a request and wait for the response or for the end of the deadline.

        Returns:
            The response, whatever its status, or why there is none. After a failure the connection is closed
            and the next call makes a new one.
        """
        self._budget.start()
        # The opener has no handler but ours, so no other scheme can pass.
        outgoing = urllib.request.Request(  # noqa: S310
            self._url, request.body, dict(request.headers), method="POST"
        )
        try:
            response: http.client.HTTPResponse = self._opener.open(outgoing)
        except (OSError, http.client.HTTPException, ValueError) as exc:
            self.close()
            return Failure(_failure_kind(exc), _detail(exc))
        return self._read(response)

    def close(self) -> None:
        """Close the connection, if there is one; the next `post` makes a new one."""
        self._handler.close()

    def _read(self, response: http.client.HTTPResponse) -> Response:
        excerpt = b""
        try:
            excerpt = response.read(MAX_EXCERPT)
            # Only a response that was read to its end leaves the connection ready for the next request.
            complete = response.isclosed() or not response.read(1)
        except (OSError, http.client.HTTPException, ValueError):
            complete = False  # the status has been said; what follows it changes nothing
        if not complete:
            self.close()
        response.close()
        return Response(
            status=response.status,
            reason=response.reason,
            retry_after=response.getheader("Retry-After"),
            date=response.getheader("Date"),
            excerpt=excerpt,
        )


def _failure_kind(exc: Exception) -> FailureKind:
    match exc:
        case ssl.SSLCertVerificationError():
            return FailureKind.UNTRUSTED
        case socket.gaierror() if exc.errno in (socket.EAI_NONAME, socket.EAI_NODATA):
            return FailureKind.UNKNOWN_NAME
        case TimeoutError():
            return FailureKind.TIMED_OUT
        case http.client.IncompleteRead():
            return FailureKind.INTERRUPTED
        case _ if isinstance(exc, _GONE):
            return FailureKind.INTERRUPTED
        case http.client.HTTPException() | ValueError():
            return FailureKind.MALFORMED
        case _:
            return FailureKind.UNREACHABLE


def _detail(exc: Exception) -> str:
    if isinstance(exc, http.client.HTTPException | ValueError) and not isinstance(exc, OSError):
        return type(exc).__name__  # its text would quote what the collector sent
    return str(exc) or type(exc).__name__
