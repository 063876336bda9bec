"""The HTTP server of the collector.

Rules:

1. A batch is counted and answered with 200 after its events were handed on, not before.
2. A client sees the answer to whatever it sent: either its body was read, or what it still sends is read away
   before the connection ends.
3. No connection holds up another, and none outlives `DevCollector.close`.
"""

from __future__ import annotations

import http.server
import json
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

from ..event_publisher.connection_server import ConnectionServer
from .check import MAX_SIZE, RejectedBatch, check_batch, check_head

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from .check import AcceptedBatch

#: Seconds without a byte from a client until its connection is closed; well over the publisher's pauses.
_READ_TIMEOUT: Final = 60.0

#: Seconds to read away what a refused client still sends, so that it sees the answer instead of a reset.
_DRAIN_TIME: Final = 2.0

#: Seconds that `close` waits for unfinished answers; a connection that takes longer is left behind.
_CLOSE_TIME: Final = 10.0

#: Connections that may wait to be accepted.
_BACKLOG: Final = 128


@dataclass(frozen=True, slots=True)
class Counts:
    """What a collector has seen so far.

    Attributes:
        batches: Batches taken.
        events: Events taken.
        rejected: Requests refused, by status.
    """

    batches: int = 0
    events: int = 0
    rejected: Mapping[int, int] = field(default_factory=dict[int, int])


@final
class DevCollector:
    """A running collector: it listens from construction to `close()`, and is a context manager.

    Args:
        keys: Secrets by the names of their keys.
        on_batch: Takes each batch before it is answered with 200; called in the thread of its connection, so
            for several batches at a time. A refusal that it returns is the answer instead, as is 500 if
            it raises an OSError.
        on_rejected: Takes each refusal before it is answered; called like `on_batch`.
        host: Address to listen on.
        port: Port to listen on; 0 for any that is free.
        max_size: Bytes that an uncompressed batch may have.
        ssl_context: With one, the collector speaks HTTPS.

    Raises:
        OSError: It can't listen there.
        RuntimeError: The system allows no further thread.
    """

    def __init__(
        self,
        keys: Mapping[str, bytes],
        on_batch: Callable[[AcceptedBatch], RejectedBatch | None],
        *,
        on_rejected: Callable[[RejectedBatch], None] = lambda _: None,
        host: str = "127.0.0.1",
        port: int = 0,
        max_size: int = MAX_SIZE,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._keys = dict(keys)
        self._on_batch = on_batch
        self._on_rejected = on_rejected
        self.max_size = max_size
        self._scheme = "http" if ssl_context is None else "https"
        self._lock = threading.Lock()
        self._counts = Counts()
        self._server = _Server(self, host, port, ssl_context)
        try:
            self._server.start()
        except BaseException:
            self._server.close()
            raise

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it listens on."""
        return self._server.listening_on

    @property
    def url(self) -> str:
        """Scheme, host and port, such as `http://127.0.0.1:8080`; without a path."""
        host, port = self.address
        return f"{self._scheme}://[{host}]:{port}" if ":" in host else f"{self._scheme}://{host}:{port}"

    @property
    def counts(self) -> Counts:
        """What it has seen so far; batches are counted before they are answered."""
        with self._lock:
            return self._counts

    def receive(
        self, method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes
    ) -> AcceptedBatch | RejectedBatch:
        """Check a request, hand on its events, and count it."""
        checked = check_batch(method, path, headers, body, self._keys, max_size=self.max_size)
        if isinstance(checked, RejectedBatch):
            self.reject(checked)
            return checked
        try:
            refusal = self._on_batch(checked)
        except OSError as exc:
            refusal = RejectedBatch(500, f"can't write the events: {exc.strerror or type(exc).__name__}")
        if refusal is not None:
            self.reject(refusal)
            return refusal
        with self._lock:
            was = self._counts
            self._counts = Counts(was.batches + 1, was.events + len(checked.events), was.rejected)
        return checked

    def reject(self, rejected: RejectedBatch) -> None:
        """Count a refusal and pass it on."""
        with self._lock:
            was = self._counts
            number = was.rejected.get(rejected.status, 0) + 1
            self._counts = Counts(was.batches, was.events, {**was.rejected, rejected.status: number})
        self._on_rejected(rejected)

    def close(self) -> None:
        """Stop listening, finish the requests that are being answered, and end all connections.

        A request that isn't there in full by then is lost, as with any collector that goes away. A second
        call does nothing.
        """
        self._server.close()  # each answer from now on is the last of its connection

    def __enter__(self) -> DevCollector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Server(ConnectionServer):
    """Serves the connections of a collector."""

    thread_name = "dev-collector"
    request_queue_size = _BACKLOG
    ending = socket.SHUT_RD  # wakes the reader, and lets an answer out
    patience = _CLOSE_TIME

    def __init__(
        self, collector: DevCollector, host: str, port: int, ssl_context: ssl.SSLContext | None
    ) -> None:
        super().__init__((host, port))
        self._collector = collector
        name = self.socket.getsockname()
        self.listening_on: tuple[str, int] = (str(name[0]), int(name[1]))
        if ssl_context is not None:
            # The first read shakes hands, in the thread of the connection, so that no client holds up others.
            try:
                self.socket = ssl_context.wrap_socket(
                    self.socket, server_side=True, do_handshake_on_connect=False
                )
            except BaseException:
                self.close()
                raise

    def serve(self, connection: socket.socket, client: object) -> None:
        """Answer the requests of a connection."""
        _Handler(self._collector, self, connection, client)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "dev-collector"
    sys_version = ""
    timeout = _READ_TIMEOUT
    disable_nagle_algorithm = True

    def __init__(
        self, collector: DevCollector, server: _Server, request: socket.socket, client_address: object
    ) -> None:
        self._collector = collector
        self._collector_server = server
        super().__init__(request, client_address, server)

    def _serve(self) -> None:
        headers = self.headers.items()
        length = check_head(self.command, self.path, headers, max_size=self._collector.max_size)
        if isinstance(length, RejectedBatch):
            self._refuse(length)
            return
        checked = self._collector.receive(self.command, self.path, headers, self.rfile.read(length))
        if isinstance(checked, RejectedBatch):
            self._answer(checked.status, checked.reason)
        else:
            self._answer(200, json.dumps({"accepted": len(checked.events)}), "application/json")

    # The base class looks methods up by these names; it answers those that have none with 501.
    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _serve  # noqa: N815

    def _refuse(self, rejected: RejectedBatch) -> None:
        """Answer a request whose body isn't read, and end its connection."""
        self._collector.reject(rejected)
        self.close_connection = True
        self._answer(rejected.status, rejected.reason)
        self.connection.settimeout(_DRAIN_TIME)
        deadline = time.monotonic() + _DRAIN_TIME
        while time.monotonic() < deadline and self.rfile.read1(65_536):
            pass

    def _answer(self, status: int, words: str, media_type: str = "text/plain; charset=utf-8") -> None:
        body = f"{words}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        if status == http.HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "POST")
        if self.close_connection or self._collector_server.closing.is_set():
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what isn't HTTP, without the words of the base class, which repeat those of the client."""
        del message, explain
        self.request_version = self.protocol_version  # or the base class speaks HTTP/0.9, without a head
        self._refuse(RejectedBatch(code, f"not a request that can be read: {http.HTTPStatus(code).phrase}"))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name is the base class's)
        """Log nothing: `on_rejected` reports refusals."""
