"""Posts requests to the event collector over `urllib.request`.

Rules:

1. `post` never raises because of the network, the collector or this host; it returns a `Response` or a
   `Failure`.
2. An attempt ends within `deadline` seconds, however slowly the collector sends: every operation on the
   socket gets the rest of it, and never more than `timeout`. Only the system's resolver limits the lookup of
   a host name.
3. The connection is kept alive between requests for `MAX_AGE`, and through pauses of `MAX_IDLE`, unless
   `http_response` decides against it. A stale connection is replaced, and the request is sent again
   immediately (`http_connection`).
4. No redirect is followed, no proxy or credentials are taken from the environment, and little of a response
   is read (`http_response`).
5. TLS certificates and host names are verified. Nothing is loaded before an attempt needs it.
6. With or without TLS or a proxy, the code is the same. Only connecting differs.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, cast

from .addresses import AddressBook
from .certificates import Certificates, CertificatesError
from .http_connection import OUT_OF_RESOURCES, Budget, Connection, Route, StaleConnectionError, dial
from .http_response import InterruptedResponseError, MalformedResponseError
from .policy.wire import Failure, FailureKind, Reply, Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from .http_response import Answer

#: Seconds for which a connection is used. So a collector whose name has moved gets no more requests at its
#: old address. It is the TTL of the names of the large clouds' load balancers.
MAX_AGE: Final = 60.0

#: Seconds after which an idle connection isn't used any more. A NAT that has forgotten it drops its packets,
#: which costs a timeout. Those of the large clouds forget after 240 and more, and most load balancers close
#: after 60.
MAX_IDLE: Final = 30.0

#: Errors of a connection that the peer closed or that broke; TLS has its own.
_GONE: Final = (
    ConnectionResetError,
    BrokenPipeError,
    InterruptedResponseError,
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
)

_NOT_IN_A_HEADER = re.compile(r"[\r\n\0]")


class NotConnectedError(ConnectionError):
    """The connection ended before a request could be sent, so no request is the cause."""


class _CollectorHandler(urllib.request.BaseHandler):
    """Handles `http` and `https` for `urllib.request` over one connection that is kept alive.

    urllib's own handlers close the connection after each request. This one returns our `Response`.
    """

    def __init__(
        self,
        url: str,
        budget: Budget,
        *,
        ca_file: str | None,
        proxy: str | None,
        addresses: AddressBook,
        certificates: Certificates,
    ) -> None:
        self._route = Route.to(url, proxy)
        self._ca_file = ca_file
        self._budget = budget
        self._addresses = addresses
        self._certificates = certificates
        self._kept: Connection | None = None

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def _post(self, request: urllib.request.Request) -> Response:
        body = cast("bytes", request.data)
        head = self._head(request, len(body))
        kept = self._take_kept()
        if kept is not None:
            try:
                return self._exchange(kept, head, body)
            except StaleConnectionError:
                pass  # the collector may close an idle connection at the moment of its reuse
        return self._exchange(self._connect(), head, body)

    # The base class' dispatcher looks methods up by these names.
    http_open = https_open = _post

    def _head(self, request: urllib.request.Request, length: int) -> bytes:
        # A proxy takes a whole URL, unless there is a tunnel through it.
        proxied = self._route.tunnel is not None and not self._route.secure
        target = f"http://{self._route.authority}{request.selector}" if proxied else request.selector
        lines = [
            f"POST {target} HTTP/1.1",
            f"Host: {self._route.authority}",
            "Accept-Encoding: identity",
            f"Content-Length: {length}",
            # urllib stores header names as `X-signature`.
            *(f"{name.title()}: {value}" for name, value in request.header_items()),
        ]
        if any(map(_NOT_IN_A_HEADER.search, lines)):
            raise ValueError("a header contains a line break")
        return "\r\n".join((*lines, "", "")).encode("latin-1")

    def _take_kept(self) -> Connection | None:
        """Return the kept connection, if it can still be used."""
        kept, self._kept = self._kept, None
        if kept is None:
            return None
        now = self._budget.now()
        if now - kept.opened_at < MAX_AGE and now - kept.used_at < MAX_IDLE:
            return kept
        kept.close()
        return None

    def _connect(self) -> Connection:
        route = self._route
        context = self._certificates.context(self._ca_file) if route.secure else None
        try:
            found, address, detour = dial(route.host, route.port, self._budget, self._addresses)
            connection = Connection(found, address, self._budget, detour=detour)
            if context is not None:
                with self._closing_on_failure(connection):
                    if route.tunnel is not None:
                        connection.open_tunnel(route.tunnel)
                    connection.start_tls(context, route.name)
        except _GONE as exc:
            raise NotConnectedError(f"connection lost before the request was sent: {exc}") from None
        return connection

    def _exchange(self, connection: Connection, head: bytes, body: bytes) -> Response:
        with self._closing_on_failure(connection):
            answer = connection.exchange(head, body)
        self._keep(connection, answer)
        return answer.response

    def _keep(self, connection: Connection, answer: Answer) -> None:
        if not answer.success:
            self._addresses.record_failure(connection.address, self._budget.now())
        if answer.reusable:
            connection.used_at = self._budget.now()
            self._kept = connection
        else:
            connection.close()

    @contextmanager
    def _closing_on_failure(self, connection: Connection) -> Generator[None]:
        """Close a connection that fails, and try another address next time."""
        try:
            yield
        except BaseException as exc:
            connection.close()
            # After a detour the collector got less time than it may take.
            late = isinstance(exc, TimeoutError) and connection.detour
            if not late and not isinstance(exc, StaleConnectionError):
                self._addresses.record_failure(connection.address, self._budget.now())
            raise


class HTTPTransport:
    """A sender's connection to the event collector. For one thread at a time. The constructor does no I/O.

    Args:
        url: Where to post, `http://` or `https://`.
        timeout: Seconds for each connect, send of a piece, or read.
        deadline: Seconds for an attempt in total, however many reads it needs.
        ca_file: PEM file with trusted certificates instead of the system's; for `https`.
        proxy: `http://HOST:PORT` of a proxy; None for no proxy, regardless of the environment.
        clock: The monotonic clock, in seconds.
        addresses: The addresses that failed lately, if shared with others.
        certificates: The trusted certificates, if shared with others.
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
        addresses: AddressBook | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        self._url = url
        self._budget = Budget(timeout, deadline, clock)
        self._handler = _CollectorHandler(
            url,
            self._budget,
            ca_file=ca_file,
            proxy=proxy,
            addresses=addresses or AddressBook(),
            certificates=certificates or Certificates(),
        )
        self._opener = urllib.request.OpenerDirector()
        self._opener.add_handler(self._handler)

    def post(self, request: Request) -> Reply:
        """Post a request and wait for the response, at most until the deadline.

        Returns:
            The response, whatever its status, or why there is none. After anything except a success the
            connection is closed, and the next call opens a new one.
        """
        self._budget.start()
        # The opener has only our handler, so no other scheme can pass.
        outgoing = urllib.request.Request(  # noqa: S310
            self._url, request.body, dict(request.headers), method="POST"
        )
        try:
            return cast("Response", self._opener.open(outgoing))
        except (OSError, MalformedResponseError) as exc:
            return Failure(_failure_kind(exc), str(exc) or type(exc).__name__)

    def close(self) -> None:
        """Close the connection, if there is one; the next `post` opens a new one."""
        self._handler.close()


def _failure_kind(exc: Exception) -> FailureKind:
    match exc:
        case OSError() if exc.errno in OUT_OF_RESOURCES and not isinstance(exc, ssl.SSLError):
            return FailureKind.OUT_OF_RESOURCES  # an SSLError has its own numbers
        case CertificatesError():
            return FailureKind.NO_CERTIFICATES
        case ssl.SSLCertVerificationError():
            return FailureKind.UNTRUSTED
        case socket.gaierror() if exc.errno in (socket.EAI_NONAME, socket.EAI_NODATA):
            return FailureKind.UNKNOWN_NAME
        case TimeoutError():
            return FailureKind.TIMED_OUT
        case MalformedResponseError():
            return FailureKind.MALFORMED
        case _ if isinstance(exc, _GONE):
            return FailureKind.INTERRUPTED
        case _:
            return FailureKind.UNREACHABLE
