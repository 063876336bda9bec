"""A collector that does the least work possible, so that it never is the bottleneck.

It reads a request, records its time and beginning, waits, and answers; or it resets the connection, if
that is asked for. It neither decompresses nor checks: requests are inspected after the
measurement.
"""

from __future__ import annotations

import contextlib
import random
import re
import socket
import struct
import threading
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import ssl

#: Bytes of a request's body that are kept: more than gzip takes to say how it encodes, and the first words.
_KEPT: Final = 4_096

#: How a body of version 2 begins, and bytes of it that hold the number.
_COUNT: Final = re.compile(rb'\{"1":\{"lst":\["rec",(\d+),')
_BEGINNING: Final = 64

#: A window of 32 KiB in the format of gzip, for zlib.
GZIP: Final = 31

_ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"
_LENGTH: Final = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")

#: SO_LINGER value that makes `close` send a reset.
_LINGER_NONE: Final = struct.pack("ii", 1, 0)

#: Bytes that are read at a time; several batches.
_READ: Final = 1 << 18


@dataclass(frozen=True)
class Arrival:
    """A batch that was received.

    Attributes:
        at: Time of arrival, in seconds of the monotonic clock.
        events: Events in it.
        size: Bytes of it, compressed.
    """

    at: float
    events: int
    size: int


def count_events(body: bytes) -> int:
    """Return the number of events in a compressed body of version 2; its beginning is enough.

    Raises:
        ValueError: It is not such a body.
    """
    try:
        found = _COUNT.match(zlib.decompressobj(GZIP).decompress(body, _BEGINNING))
    except zlib.error:
        found = None
    if found is None:
        raise ValueError("the request holds no batch of version 2")
    return int(found[1])


class LightCollector:
    """Accepts all requests, from construction to `close`.

    Args:
        latency: Seconds from the end of a request to its answer.
        resets: Share of the requests that aren't answered: their connection is reset instead.
        ssl_context: Where given, it speaks HTTPS.
    """

    def __init__(
        self, latency: float = 0.0, *, resets: float = 0.0, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self._latency = latency
        self._resets = resets
        self._ssl_context = ssl_context
        self._chance = random.Random(0)
        self._requests: list[tuple[float, int, bytes]] = []
        self._arrivals: list[Arrival] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def hostname(self) -> str:
        """Host and port."""
        return "{}:{}".format(*self._listener.getsockname())

    def __len__(self) -> int:
        """Number of requests received."""
        return len(self._requests)

    def arrivals(self) -> list[Arrival]:
        """Return the batches received. Each request is parsed once, at the first call after its arrival."""
        for at, size, body in self._requests[len(self._arrivals) :]:
            self._arrivals.append(Arrival(at, count_events(body), size))
        return list(self._arrivals)

    def close(self) -> None:
        """End all connections."""
        for connection in (self._listener, *self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it was closed
            while True:
                connection, _ = self._listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the publisher was killed, or this was closed
            if self._ssl_context is not None:
                connection = self._ssl_context.wrap_socket(connection, server_side=True)
            with connection:
                while self._take(connection):
                    if self._latency:
                        time.sleep(self._latency)
                    if self._chance.random() < self._resets:
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
                        return
                    connection.sendall(_ANSWER)

    def _take(self, connection: socket.socket) -> bool:
        """Read and record a request; return whether there was one."""
        head, end, body = b"", b"", b""
        while not end:
            data = connection.recv(_READ)
            if not data:
                return False
            head, end, body = (head + data).partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        size = int(length[1]) if length is not None else 0
        left = size - len(body)
        while left > 0:
            data = connection.recv(min(left, _READ))
            if not data:
                return False
            left -= len(data)
            if len(body) < _KEPT:
                body += data
        self._requests.append((time.monotonic(), size, body[:_KEPT]))
        return True
