"""A server with a thread for each connection: what the health endpoint and the dev collector are built on.

Rules:

1. At most `limit` connections are open. Another one takes the place of the oldest, so clients that send
   nothing can't keep others out.
2. An error ends the connection that it is in, and nothing else.
3. `close` leaves no thread behind, and a server that wasn't started can be closed too.
"""

from __future__ import annotations

import contextlib
import os
import socket
import socketserver
import stat
import sys
import threading
import time
from typing import TYPE_CHECKING, Final, TypeAlias, cast

if TYPE_CHECKING:
    #: A connection, as the base class has it for streams and datagrams.
    Request: TypeAlias = socket.socket | tuple[bytes, socket.socket]

#: Seconds between two checks for `close` on systems where ending a listener doesn't wake its thread. Linux
#: does wake it.
_POLL_INTERVAL: Final = 0.5

#: Permissions of a Unix socket.
_OWNER_ONLY: Final = stat.S_IRUSR | stat.S_IWUSR


class ConnectionServer(socketserver.ThreadingTCPServer):
    """Listens from construction on, and serves between `start` and `close`.

    Not `http.server.HTTPServer`, whose bind asks DNS for the name of the host.

    Args:
        address: Host and port, or the path of a Unix socket, which only this user may open. `::` includes
            IPv4.

    Raises:
        OSError: It can't listen there.

    Attributes:
        thread_name: Name of the thread that accepts connections.
        closing: Set once `close` has been called.
        limit: The number of connections that may be open; None for any number.
        interval: Seconds between accepting two connections, which bounds the time that clients cost.
        ending: What `close` shuts down of a connection: `SHUT_RD` lets an answer out.
        patience: Seconds that `close` waits for connections to end.
    """

    address_family: int = socket.AF_INET
    allow_reuse_address: bool = True
    thread_name: str
    limit: int | None = None
    interval: float = 0.0
    ending: int = socket.SHUT_RDWR
    patience: float = 5.0

    def __init__(self, address: tuple[str, int] | str) -> None:
        if isinstance(address, str):
            self.address_family = socket.AF_UNIX
        elif ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.closing: threading.Event = threading.Event()
        self._acceptor: threading.Thread | None = None
        self._connections: dict[socket.socket, threading.Thread] = {}  # oldest first; some may have ended
        super().__init__(cast("tuple[str, int]", address), socketserver.BaseRequestHandler)

    def server_bind(self) -> None:
        """Bind the listener."""
        if self.address_family == socket.AF_UNIX:
            os.fchmod(self.socket.fileno(), _OWNER_ONLY)  # so that its file has this mode from the beginning
        elif self.address_family == socket.AF_INET6:
            # Whatever net.ipv6.bindv6only says, so that [::] is the same everywhere.
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def start(self) -> None:
        """Serve from now on, in daemon threads.

        Raises:
            RuntimeError: The system allows no further thread. It can still be closed.
        """
        acceptor = threading.Thread(
            target=self.serve_forever, args=(_POLL_INTERVAL,), name=self.thread_name, daemon=True
        )
        acceptor.start()
        self._acceptor = acceptor  # only now: `close` waits for it

    def serve(self, connection: socket.socket, client: object) -> None:
        """Serve a connection, in a thread of its own; it is closed afterwards.

        Args:
            connection: The connection.
            client: The address of its client.
        """
        raise NotImplementedError

    def finish_request(self, request: Request, client_address: object) -> None:
        """Serve a connection; called by the base class."""
        self.serve(cast("socket.socket", request), client_address)

    def process_request(self, request: Request, client_address: object) -> None:
        """Start the thread of a connection, and end the oldest if there are too many."""
        alive = [
            (connection, thread) for connection, thread in self._connections.items() if thread.is_alive()
        ]
        if self.limit is not None:
            for connection, oldest in alive[: max(len(alive) + 1 - self.limit, 0)]:
                _shut_down(connection, socket.SHUT_RDWR)
                oldest.join(self.patience)
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), daemon=True
        )
        thread.start()
        self._connections = dict([*alive, (cast("socket.socket", request), thread)])
        self.closing.wait(self.interval)

    def handle_error(self, request: Request, client_address: object) -> None:
        """Report what went wrong in a connection, unless its client left or was too slow."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def close(self) -> None:
        """Stop listening, end all connections, and wait for their threads. A second call does nothing."""
        if self.closing.is_set():
            return
        self.closing.set()
        if self._acceptor is not None:
            _shut_down(self.socket, socket.SHUT_RDWR)  # wakes its thread
            self.shutdown()
            self._acceptor.join()
        self.server_close()
        for connection in self._connections:
            _shut_down(connection, self.ending)
        give_up_at = time.monotonic() + self.patience
        for thread in self._connections.values():
            thread.join(max(0.0, give_up_at - time.monotonic()))


def _shut_down(connection: socket.socket, how: int) -> None:
    with contextlib.suppress(OSError):  # it is closed already
        # An SSLSocket's own method would end encryption.
        socket.socket.shutdown(connection, how)
