"""Serves the pages of `health_pages`: one thread, few connections, nothing to wait for.

Rules:

1. It reads the last snapshot and asks the publisher for nothing, so no client can delay delivery.
2. `MAX_CONNECTIONS` are open at a time. Another takes the place of the oldest, so that clients that send
   nothing can't keep others out.
3. A connection lives `DEADLINE` seconds at most, whatever its client sends or reads.
4. Connections are accepted `ACCEPT_INTERVAL` seconds apart, which bounds the time that clients can cost.
5. It listens on the address that the operator chose, or on a Unix socket that only the publisher's user can
   open. A socket file without a listener was left by a crash, and is replaced. `[::]` takes IPv4 too.
6. What a web page asks through a browser that reaches the address isn't answered; see `host_check`. No
   browser gets at a Unix socket, where any host may be named.
7. Rules 1 to 4 hold for any client. Where others than this host get through, they can keep scrapers out, but
   neither disturb delivery nor take more than a bounded amount of time, memory and descriptors.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import selectors
import socket
import stat
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ...errors import EventError
from ..config.values import InternetEndpoint
from .health_pages import MAX_HEAD, answer, head_length

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ..config.values import Endpoint
    from .snapshot import Snapshot

logger: logging.Logger = logging.getLogger(__name__)

#: Connections open at a time: a scraper, a few probes, and an operator or two.
MAX_CONNECTIONS: Final = 8

#: Seconds that a connection lives: half of what Prometheus waits for by default.
DEADLINE: Final = 5.0

#: Seconds between two connections. An answer takes half a millisecond, so a flood costs 1 % of a core.
ACCEPT_INTERVAL: Final = 0.05

#: Seconds until accepting is tried again after it failed, as it does without free descriptors.
_ACCEPT_PAUSE: Final = 1.0

#: Bytes read away after an answer, so that a client that still sends sees the answer instead of a reset.
_LEFTOVER: Final = 65_536

#: Connections that may wait to be accepted.
_BACKLOG: Final = 32

#: Permissions of a Unix socket.
_OWNER_ONLY: Final = 0o600

#: Seconds that `close` waits for the thread, which at most finishes an answer.
_JOIN_TIME: Final = 5.0


class HealthError(EventError):
    """Raised when the health endpoint can't listen where it should.

    Attributes:
        address: Where, as `health.bind` has it.
        problem: What is wrong and how to mend it.
    """

    def __init__(self, address: str, problem: str) -> None:
        super().__init__(address, problem)
        self.address = address
        self.problem = problem

    def __str__(self) -> str:
        return f"health.bind {self.address}: {self.problem}"


@dataclass(slots=True, eq=False)
class _ClientConnection:
    """A client.

    Attributes:
        socket: Doesn't block.
        give_up_at: When it is closed at the latest, by the monotonic clock.
        head: What it sent so far.
        response: What it is still to be sent; None while its request isn't there.
        leftover: Bytes that may still be read away.
    """

    socket: socket.socket
    give_up_at: float
    head: bytes = b""
    response: memoryview | None = None
    leftover: int = _LEFTOVER


class HealthServer:
    """Listens from construction on, and answers between `start` and `close`.

    Args:
        endpoint: Where to listen, an address or a Unix socket; port 0 is any that is free.
        read_snapshot: Gives the last snapshot; called in the server's thread.
        hosts: Names that requests may use for this host, in lower case, besides `localhost`.

    Attributes:
        endpoint: Where it listens, with the port that it got.

    Raises:
        HealthError: It can't listen there.
    """

    def __init__(
        self, endpoint: Endpoint, read_snapshot: Callable[[], Snapshot], hosts: Collection[str] = ()
    ) -> None:
        self._read_snapshot = read_snapshot
        self._hosts = hosts if isinstance(endpoint, InternetEndpoint) else None
        self._file: tuple[str, os.stat_result] | None = None
        self._connections: list[_ClientConnection] = []  # oldest first
        self._accept_at = float("-inf")
        try:
            self._listener: socket.socket = _listen(endpoint)
        except OSError as exc:
            raise HealthError(str(endpoint), _remedy(exc)) from exc
        self._listener.setblocking(False)
        self.endpoint: Endpoint
        if isinstance(endpoint, InternetEndpoint):
            self.endpoint = InternetEndpoint(endpoint.host, int(self._listener.getsockname()[1]))
        else:
            self.endpoint = endpoint
            self._file = endpoint.path, Path(endpoint.path).lstat()
        self._closing = threading.Event()
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_writer, False)
        self._selector: selectors.BaseSelector = selectors.DefaultSelector()
        self._selector.register(self._wake_reader, selectors.EVENT_READ)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Answer from now on, in a daemon thread."""
        self._thread = threading.Thread(target=self._serve, name="health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End all connections, stop listening and remove a socket's file. A second call does nothing."""
        if self._closing.is_set():
            return
        self._closing.set()
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_writer, b"!")
        if self._thread is not None:
            self._thread.join(_JOIN_TIME)
            if self._thread.is_alive():
                return  # what it uses can't be closed under it
        for connection in list(self._connections):
            self._end(connection)
        self._selector.close()
        self._listener.close()
        os.close(self._wake_reader)
        os.close(self._wake_writer)
        if self._file is not None:
            path, made = self._file
            with contextlib.suppress(OSError):
                if os.path.samestat(made, Path(path).lstat()):  # another publisher may have put its own there
                    Path(path).unlink()

    def _serve(self) -> None:
        while not self._closing.is_set():
            try:
                self._turn()
            except Exception as exc:  # noqa: BLE001  a page that can't be had must not end the thread
                logger.error("the health endpoint failed: %s", type(exc).__name__)
                for connection in list(self._connections):
                    self._end(connection)
                self._accept_at = time.monotonic() + _ACCEPT_PAUSE

    def _turn(self) -> None:
        """Wait until there is something to do, and do it."""
        now = time.monotonic()
        self._watch_listener(wanted=now >= self._accept_at)
        times = [connection.give_up_at for connection in self._connections]
        times += [self._accept_at] if now < self._accept_at else []
        timeout = max(0.0, min(times) - now) if times else None
        for key, _ in self._selector.select(timeout):
            if isinstance(key.data, _ClientConnection):
                if key.data in self._connections:
                    self._advance(key.data)
            elif key.fileobj is self._listener:
                self._accept(time.monotonic())
        now = time.monotonic()
        for connection in list(self._connections):
            if now >= connection.give_up_at:
                self._end(connection)

    def _watch_listener(self, *, wanted: bool) -> None:
        watched = self._listener in self._selector.get_map()
        if wanted and not watched:
            self._selector.register(self._listener, selectors.EVENT_READ)
        elif watched and not wanted:
            self._selector.unregister(self._listener)

    def _accept(self, now: float) -> None:
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # it left before
        except OSError as exc:
            logger.warning("the health endpoint can't accept connections: %s", exc.strerror)
            self._accept_at = now + _ACCEPT_PAUSE
            return
        self._accept_at = now + ACCEPT_INTERVAL
        if len(self._connections) >= MAX_CONNECTIONS:
            self._end(self._connections[0])
        client.setblocking(False)
        connection = _ClientConnection(client, now + DEADLINE)
        self._selector.register(client, selectors.EVENT_READ, connection)
        self._connections.append(connection)

    def _advance(self, connection: _ClientConnection) -> None:
        """Read or write what can be without waiting."""
        try:
            if connection.response is None:
                self._read(connection)
            elif connection.response:
                self._write(connection)
            else:
                self._read_away(connection)
        except BlockingIOError:
            pass
        except OSError:
            self._end(connection)  # the client left

    def _read(self, connection: _ClientConnection) -> None:
        data = connection.socket.recv(MAX_HEAD + 1 - len(connection.head))
        connection.head += data
        length = head_length(connection.head)
        if length is None and data and len(connection.head) <= MAX_HEAD:
            return
        # What isn't a whole head is answered as such.
        head = connection.head if length is None else connection.head[:length]
        response = answer(head, self._read_snapshot(), time.monotonic(), hosts=self._hosts)
        connection.response = memoryview(response)
        self._selector.modify(connection.socket, selectors.EVENT_WRITE, connection)
        self._write(connection)

    def _write(self, connection: _ClientConnection) -> None:
        response = connection.response or memoryview(b"")
        connection.response = response[connection.socket.send(response) :]
        if not connection.response:
            connection.socket.shutdown(socket.SHUT_WR)
            self._selector.modify(connection.socket, selectors.EVENT_READ, connection)

    def _read_away(self, connection: _ClientConnection) -> None:
        data = connection.socket.recv(_LEFTOVER)
        connection.leftover -= len(data)
        if not data or connection.leftover <= 0:
            self._end(connection)

    def _end(self, connection: _ClientConnection) -> None:
        self._connections.remove(connection)
        self._selector.unregister(connection.socket)
        connection.socket.close()


def _listen(endpoint: Endpoint) -> socket.socket:
    """Make a socket that listens, or raise an OSError."""
    if isinstance(endpoint, InternetEndpoint):
        family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
        return _bound(family, (endpoint.host, endpoint.port))
    try:
        return _bound(socket.AF_UNIX, endpoint.path)
    except OSError as exc:
        if exc.errno != errno.EADDRINUSE or not _was_left_behind(endpoint.path):
            raise
    Path(endpoint.path).unlink()
    return _bound(socket.AF_UNIX, endpoint.path)


def _bound(family: int, address: tuple[str, int] | str) -> socket.socket:
    with contextlib.ExitStack() as undo:
        listener = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
        if family == socket.AF_UNIX:
            os.fchmod(listener.fileno(), _OWNER_ONLY)  # so that its file has this mode from the beginning
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Whatever net.ipv6.bindv6only says, so that [::] is the same everywhere.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(address)
        listener.listen(_BACKLOG)
        undo.pop_all()
        return listener


def _was_left_behind(path: str) -> bool:
    """Tell whether a path is a socket that nobody listens on."""
    if not stat.S_ISSOCK(Path(path).lstat().st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(path) == errno.ECONNREFUSED


def _remedy(exc: OSError) -> str:
    said = exc.strerror or str(exc)
    match exc.errno:
        case errno.EADDRINUSE:
            return f"{said}; stop who listens there, or choose another port or path"
        case errno.ENOENT | errno.ENOTDIR:
            return f"{said}; make the folder of the socket first (systemd: RuntimeDirectory=)"
        case errno.EACCES | errno.EPERM:
            return f"{said}; choose a port above 1023, or a folder that the publisher's user can write to"
        case errno.EADDRNOTAVAIL:
            return f"{said}; this host has no such address: choose 127.0.0.1, or 0.0.0.0 for all"
        case errno.EAFNOSUPPORT:
            return f"{said}; this host has no IPv6: choose an IPv4 address, such as 0.0.0.0 for all"
        case errno.EINVAL:
            return f"{said}; an address of one link (fe80::) can't be used: choose another, or [::] for all"
        case _:
            return said
