"""A collector that keeps up with producers at full load: it checks no signature and no limits."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import threading
from typing import TYPE_CHECKING

from tests.soak.delivery.deliveries import Deliveries

if TYPE_CHECKING:
    import socket
    import socketserver


class Collector:
    """Takes every batch, from construction to `close`.

    Attributes:
        deliveries: What arrived. Hold `lock` to read it.
        lock: Guards `deliveries`.
    """

    def __init__(self) -> None:
        self.deliveries = Deliveries()
        self.lock = threading.Lock()

        def handle(connection: socket.socket, client: object, server: socketserver.BaseServer) -> _Handler:
            return _Handler(self, connection, client, server)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handle)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def count(self, lane: int) -> int:
        """Return how many different events of a lane have arrived."""
        with self.lock:
            return self.deliveries.count(lane)

    def close(self) -> None:
        """Stop the collector."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    """Notes a batch before it answers: what isn't noted was not delivered."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(
        self, collector: Collector, connection: socket.socket, client: object, server: socketserver.BaseServer
    ) -> None:
        self._collector = collector
        super().__init__(connection, client, server)

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the publisher was killed
            super().handle()

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:  # the publisher was killed
            self.close_connection = True
            return
        with self._collector.lock:
            self._collector.deliveries.take(self.headers["Idempotency-Key"], gzip.decompress(body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Log nothing."""
