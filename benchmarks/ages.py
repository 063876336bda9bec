"""The age of events at their arrival: events with a time stamp, and a collector that reads it.

Rules:

1. A stamp is the time of the monotonic clock, which Linux has once for all processes.
2. A request has arrived when its last byte was read. Its contents are inspected later, after the measurement:
   meanwhile the collector uses as little CPU as it can.
"""

from __future__ import annotations

import contextlib
import gzip
import http.server
import multiprocessing
import re
import socketserver
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks.varied_events import make_events
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    import socket
    from collections.abc import Generator
    from multiprocessing.connection import Connection

#: What an event begins with: its stamp in nanoseconds.
_STAMP: Final = re.compile(rb'\{"at":(\d+),')


def event_bodies(count: int) -> list[bytes]:
    """Return the contents of events, without their stamps: distinct rich events, as JSON."""
    return [b'"event":%b}' % event for event in make_events(count)]


def stamped(body: bytes, nanoseconds: int) -> bytes:
    """Return the event of this body that is due at this time."""
    return b'{"at":%d,%b' % (nanoseconds, body)


class CollectorProcess:
    """A collector that runs; see `collector_process`.

    Attributes:
        url: Scheme, host and port.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.url: str = pipe.recv()

    def ages(self, start: int) -> list[float]:
        """Return the seconds from stamp to arrival of all events from the `start`th on, in their order."""
        self._pipe.send(start)
        found: list[int] = self._pipe.recv()
        return [nanoseconds / 1e9 for nanoseconds in found]


@contextlib.contextmanager
def collector_process() -> Generator[CollectorProcess]:
    """Run a collector in a process of its own; it accepts all requests."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_collect, args=(there,), daemon=True)
    process.start()
    there.close()
    try:
        yield CollectorProcess(here)
    finally:
        here.close()  # which ends it
        process.join(PATIENCE)
        if process.is_alive():
            process.kill()


def _collect(pipe: Connection) -> None:
    """Collect until the other end of the pipe is closed; answer each request on it with ages."""
    requests: list[tuple[int, bytes]] = []
    ages: list[int] = []
    read = 0
    with _Server(("127.0.0.1", 0), partial(_Handler, requests)) as server, contextlib.suppress(EOFError):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        pipe.send("http://{}:{}".format(*server.server_address))
        while True:
            start: int = pipe.recv()
            for at, body in requests[read:]:
                ages += [at - int(stamp) for stamp in _STAMP.findall(gzip.decompress(body))]
                read += 1
            pipe.send(ages[start:])


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False


class _Handler(http.server.BaseHTTPRequestHandler):
    """Notes when each request arrived, in nanoseconds of the monotonic clock, and its body."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(
        self,
        requests: list[tuple[int, bytes]],
        connection: socket.socket,
        client_address: object,
        server: socketserver.BaseServer,
    ) -> None:
        self._requests = requests
        super().__init__(connection, client_address, server)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._requests.append((time.monotonic_ns(), body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Log nothing."""
