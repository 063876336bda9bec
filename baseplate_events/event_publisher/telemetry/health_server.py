"""Serves the pages of `health_pages`, so that no client can disturb delivery.

Rules:

1. It reads the last snapshot and asks the publisher for nothing, so no client can delay delivery.
2. `MAX_CONNECTIONS` are open at a time. Another takes the place of the oldest, so clients that send nothing
   can't keep others out.
3. A connection lives `DEADLINE` seconds at most, whatever its client sends or reads.
4. Connections are accepted `ACCEPT_INTERVAL` seconds apart, which bounds the time that clients can cost. The
   last of a full backlog is accepted after 1.6 s.
5. It listens on the address that the operator chose, or on a Unix socket that only the publisher's user can
   open. A socket file without a listener was left by a crash, and is replaced. `[::]` includes IPv4.
6. What a web page asks through a browser that reaches the address isn't answered; see `host_check`. No
   browser reaches a Unix socket, where any host may be named.
7. Rules 1 to 4 hold for any client. If clients on other hosts get through, they can keep scrapers out. But
   they can't disturb delivery, and take only a bounded amount of time, memory and descriptors.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import stat
import sys
import time
from typing import TYPE_CHECKING, Final

from ...errors import EventError
from ..config.values import InternetEndpoint, UnixEndpoint
from ..connection_server import ConnectionServer
from .health_pages import MAX_HEAD, answer, head_length

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from ..config.values import Endpoint
    from ..connection_server import Request
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
_MAX_UNREAD: Final = 65_536

#: What to do if the endpoint can't listen, by error number.
_REMEDIES: Final[Mapping[int | None, str]] = {
    errno.EADDRINUSE: "stop the process that listens there, or choose another port or path",
    **dict.fromkeys(
        (errno.ENOENT, errno.ENOTDIR),
        "create the folder of the socket first (systemd: RuntimeDirectory=)",
    ),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM),
        "choose a port above 1023, or a folder that the publisher's user can write to",
    ),
    errno.EADDRNOTAVAIL: "this host has no such address: choose 127.0.0.1, or 0.0.0.0 for all",
    errno.EAFNOSUPPORT: "this host has no IPv6: choose an IPv4 address, such as 0.0.0.0 for all",
    errno.EINVAL: ("an address of one link (fe80::) can't be used: choose another, or [::] for all"),
}

#: Connections that may wait to be accepted.
_BACKLOG: Final = 32


class HealthError(EventError):
    """Raised when the health endpoint can't listen where it should.

    Attributes:
        address: The address, as in `health.bind`.
        problem: What is wrong and how to fix it.
    """

    def __init__(self, address: str, problem: str) -> None:
        super().__init__(address, problem)
        self.address = address
        self.problem = problem

    def __str__(self) -> str:
        return f"health.bind {self.address}: {self.problem}"


class HealthServer(ConnectionServer):
    """Listens from construction on, and answers between `start` and `close`.

    Args:
        endpoint: Where to listen, an address or a Unix socket; port 0 is any that is free.
        read_snapshot: Gives the last snapshot; called in several threads.
        hosts: Names that requests may use for this host, in lower case, besides `localhost`.

    Attributes:
        endpoint: Where it listens, with the port that it got.

    Raises:
        HealthError: It can't listen there.
    """

    thread_name: str = "health"
    request_queue_size: int = _BACKLOG
    limit: int | None = MAX_CONNECTIONS
    interval: float = ACCEPT_INTERVAL

    def __init__(
        self, endpoint: Endpoint, read_snapshot: Callable[[], Snapshot], hosts: Collection[str] = ()
    ) -> None:
        self._read_snapshot = read_snapshot
        self._hosts = hosts if isinstance(endpoint, InternetEndpoint) else None
        self.endpoint: Endpoint = endpoint
        try:
            if isinstance(endpoint, InternetEndpoint):
                super().__init__((endpoint.host, endpoint.port))
                self.endpoint = InternetEndpoint(endpoint.host, int(self.socket.getsockname()[1]))
            else:
                _remove_if_left_behind(endpoint.path)
                super().__init__(endpoint.path)
        except OSError as exc:
            raise HealthError(str(endpoint), _remedy(exc)) from exc

    def start(self) -> None:
        """Answer from now on.

        Raises:
            HealthError: The system allows no further thread.
        """
        try:
            super().start()
        except RuntimeError as exc:
            problem = f"no thread for it ({exc}); raise the process limit (ulimit -u, TasksMax=)"
            raise HealthError(str(self.endpoint), problem) from exc

    def close(self) -> None:
        """Remove a socket's file, end all connections and stop listening. A second call does nothing."""
        if isinstance(self.endpoint, UnixEndpoint) and not self.closing.is_set():
            # While it still listens, as another publisher may put its own file there as soon as it doesn't.
            with contextlib.suppress(OSError):
                os.unlink(self.endpoint.path)  # noqa: PTH108 - pathlib takes a third of a megabyte
        super().close()

    def get_request(self) -> tuple[socket.socket, object]:
        """Accept a connection; wait before the next attempt if that failed."""
        try:
            return super().get_request()
        except ConnectionAbortedError:
            raise  # the client left before
        except OSError as exc:
            if not self.closing.is_set():
                logger.warning("the health endpoint can't accept connections: %s", exc.strerror)
                self.closing.wait(_ACCEPT_PAUSE)
            raise

    def handle_error(self, request: Request, client_address: object) -> None:
        """Log that a page failed; a client that left or was too slow is no failure."""
        del request, client_address
        kind = sys.exc_info()[0]
        if kind is not None and not issubclass(kind, OSError):
            logger.error("the health endpoint failed: %s", kind.__name__)

    def serve(self, connection: socket.socket, client: object) -> None:
        """Answer one request, before the deadline."""
        del client
        give_up_at = time.monotonic() + DEADLINE

        def hurry() -> socket.socket:
            connection.settimeout(max(give_up_at - time.monotonic(), 0.001))
            return connection

        head = b""
        while (length := head_length(head)) is None and len(head) <= MAX_HEAD:
            if not (data := hurry().recv(MAX_HEAD + 1 - len(head))):
                break  # what isn't a whole head is answered as such
            head += data
        response = answer(head[:length], self._read_snapshot(), time.monotonic(), hosts=self._hosts)
        hurry().sendall(response)
        connection.shutdown(socket.SHUT_WR)
        left = _MAX_UNREAD
        while left > 0 and (data := hurry().recv(left)):
            left -= len(data)


def _remove_if_left_behind(path: str) -> None:
    """Remove the socket that a publisher left when it was killed, if no one listens on it."""
    with contextlib.suppress(FileNotFoundError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        if stat.S_ISSOCK(os.lstat(path).st_mode) and probe.connect_ex(path) == errno.ECONNREFUSED:
            os.unlink(path)  # noqa: PTH108 - as above


def _remedy(exc: OSError) -> str:
    said, remedy = exc.strerror or str(exc), _REMEDIES.get(exc.errno)
    return said if remedy is None else f"{said}; {remedy}"
