"""The server's end of an HTTP connection: reads requests, and answers whatever bytes it is given."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import struct
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import ssl

#: Bytes that are asked of a socket at a time.
_CHUNK: Final = 65_536

#: SO_LINGER value that makes `close` send a reset.
_LINGER_NONE: Final = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """A request that was read in full.

    Attributes:
        method: Its method.
        target: What follows the method: the path, or the whole URL for a proxy.
        headers: Names and values, as sent.
        body: The body, as sent.
        connection: Number of the connection that it came on, counted from 1.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    connection: int

    def header(self, name: str) -> str | None:
        """Return the value of a header, its name in any case; None where it wasn't sent."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


class ServerConnection:
    """The server's end of a connection, used by one thread, except `interrupt`."""

    def __init__(self, accepted: socket.socket, number: int) -> None:
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = accepted
        self._lock = threading.Lock()
        self._interrupted = False
        self._number = number
        self._received = bytearray()

    def start_tls(self, context: ssl.SSLContext) -> None:
        # The descriptor moves to another object, so that `interrupt` must come before or after.
        with self._lock:
            if self._interrupted:
                raise ConnectionError("the collector is closing")
            self._socket = wrapped = context.wrap_socket(
                self._socket, server_side=True, do_handshake_on_connect=False
            )
        wrapped.do_handshake()

    def await_request(self) -> bool:
        """Return True when the first byte of a request is there, False when the client left."""
        return bool(self._received) or self._receive(1)

    def read_request(self) -> RecordedRequest:
        while b"\r\n\r\n" not in self._received:
            self._receive_more()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        method, target, _ = line.split(" ")
        pairs = [field.partition(":") for field in fields]
        headers = tuple((name, value.strip()) for name, _, value in pairs)
        found = re.search(r"(?im)^content-length: *([0-9]+)\r?$", head.decode("latin-1"))
        length = int(found[1]) if found else 0
        while len(self._received) < length:
            self._receive_more()
        body = bytes(self._received[:length])
        del self._received[:length]
        return RecordedRequest(method, target, headers, body, self._number)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def relay(self, address: tuple[str, int]) -> None:
        """Pass on what comes from either side to the other, until one of them ends."""
        with socket.create_connection(address) as other:
            self.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            ways = {self._socket: other, other: self._socket}
            while True:
                for source in select.select(list(ways), [], [])[0]:
                    data = source.recv(_CHUNK)
                    if not data:
                        return
                    try:
                        ways[source].sendall(data)
                    except OSError:
                        if source is self._socket:  # what the server said before it hung up is passed on
                            while data := other.recv(_CHUNK):
                                self.send(data)
                        raise

    def reset(self) -> None:
        """Make `close` send a reset, whatever was read."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)

    def interrupt(self) -> None:
        """Wake the thread of this connection: what it reads or sends from now on ends at once."""
        with self._lock, contextlib.suppress(OSError):
            self._interrupted = True
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()

    def _receive(self, most: int) -> bool:
        data = self._socket.recv(most)
        self._received += data
        return bool(data)

    def _receive_more(self) -> None:
        if not self._receive(_CHUNK):
            raise ConnectionError("the client left in the middle of a request")
