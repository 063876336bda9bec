"""The parts of the survival runs: a real collector, a real producer, and real publishers on one queue.

Rules:

1. The collector notes a batch before it answers: what is noted was delivered, whether or not the answer
   arrives.
2. Nothing outlives its context: processes are killed, threads joined, queues unlinked, folders deleted.
3. Every wait is bounded.
"""

from __future__ import annotations

import contextlib
import http.server
import socket
import socketserver
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from baseplate_events import EventQueue
from baseplate_events.dev_collector import AcceptedBatch, RejectedBatch, check_batch, check_head
from baseplate_events.errors import EventQueueFullError
from baseplate_events.event_publisher.ledger.file import SPOOL_NAME
from baseplate_events.transport.posix import MessageQueue
from tests.soak.survival.receipts import Receipts, make_event, numbers_of
from tests.support.ledgers import letters_in
from tests.support.publishers import KEY_NAME, MAX_MESSAGE_SIZE, MAX_MESSAGES, SECRET, publisher_process
from tests.support.queues import drain
from tests.support.spools_written import read_whole_events
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from baseplate_events.event_publisher.ledger.letters import Letter
    from tests.support.publishers import PublisherProcess

#: Seconds that a producer waits for room before it checks whether it must stop.
_PUT_TIMEOUT: Final = 0.2

#: Longest wait in seconds for the end of an outage, or of anything else that takes long.
LONG_PATIENCE: Final = 120.0


class Collector:
    """An event collector that notes what it takes. It can be stopped, and made to fail or refuse.

    It checks what the development collector checks, and notes the headers too. Its port stays the same when
    it goes down and up again.

    Args:
        receipts: Where it notes what it takes.

    Attributes:
        keys: Secrets by the names of their keys; can be changed at any time.
        crash_on: Bytes that make it answer 500 to a batch that contains them, or none.
        busy_every: With n, every n-th batch is answered with 503; 0 for none.
        rejected: Requests that it refused, by status.
    """

    def __init__(self, receipts: Receipts) -> None:
        self.receipts = receipts
        self.keys: dict[str, bytes] = {KEY_NAME: SECRET}
        self.crash_on: bytes | None = None
        self.busy_every = 0
        self.rejected: dict[int, int] = {}
        self._batches = 0
        self._lock = threading.Lock()
        # Bound, but not listening: keeps the port while the server is down, so that connections are refused.
        self._place = socket.socket()
        _share_port(self._place)
        self._place.bind(("127.0.0.1", 0))
        self._server: _Server | None = None
        self.start()

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        return "http://{}:{}".format(*self._place.getsockname())

    def start(self) -> None:
        """Listen, if it isn't listening yet."""
        if self._server is None:
            self._server = _Server(self, self._place.getsockname())

    def stop(self) -> None:
        """Refuse connections, and cut open ones off."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def close(self) -> None:
        """End for good."""
        self.stop()
        self._place.close()

    @property
    def delivered(self) -> int:
        """How many different events it has taken."""
        with self._lock:
            return len(self.receipts.delivered)

    def receive(self, method: str, path: str, headers: list[tuple[str, str]], body: bytes) -> tuple[int, str]:
        """Check a request and note it; return the status and the words to answer with."""
        checked = check_batch(method, path, headers, body, self.keys)
        with self._lock:
            self._batches += 1
            if isinstance(checked, AcceptedBatch):
                crash = self.crash_on
                if crash is not None and any(crash in event for event in checked.events):
                    checked = RejectedBatch(500, "fell over an event")
                elif self.busy_every and self._batches % self.busy_every == 0:
                    checked = RejectedBatch(503, "busy")
            if isinstance(checked, RejectedBatch):
                self.rejected[checked.status] = self.rejected.get(checked.status, 0) + 1
                return checked.status, checked.reason
            key = next((value for name, value in headers if name.lower() == "idempotency-key"), None)
            self.receipts.take(key, checked.events)
            return 200, "taken"


def _share_port(bound: socket.socket) -> None:
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, collector: Collector, address: tuple[str, int]) -> None:
        self._connections: set[socket.socket] = set()
        self._changed = threading.Condition()
        super().__init__(
            address, lambda request, client, server: _Handler(collector, request, client, server)
        )
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def server_bind(self) -> None:
        _share_port(self.socket)
        super().server_bind()

    def stop(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()
        with self._changed:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._changed.wait_for(lambda: not self._connections, PATIENCE)

    def get_request(self) -> tuple[socket.socket, object]:
        connection, client = super().get_request()
        with self._changed:
            self._connections.add(connection)
        return connection, client

    def close_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        super().close_request(request)
        with self._changed:
            self._connections.difference_update({request})
            self._changed.notify_all()

    def handle_error(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        """Ignore a client that was killed."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE
    disable_nagle_algorithm = True

    def __init__(self, collector: Collector, request: socket.socket, client: object, server: object) -> None:
        self._collector = collector
        super().__init__(request, client, server)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    def do_POST(self) -> None:
        headers = self.headers.items()
        length = check_head(self.command, self.path, headers)
        if isinstance(length, RejectedBatch):
            self.close_connection = True
            self._answer(length.status, length.reason)
            return
        body = self.rfile.read(length)
        if len(body) == length:  # else the publisher was killed in the middle
            self._answer(*self._collector.receive(self.command, self.path, headers, body))

    def _answer(self, status: int, words: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(words)))
        self.end_headers()
        self.wfile.write(words.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
        """Log nothing."""


class Producer:
    """Puts numbered events from a thread of its own until `stop`, or until `count` were put.

    Args:
        queue_name: NAME of the queue `/events-NAME`.
        rate: Events a second at most, never more than one at a time after a pause; None for as fast as there
            is room.
        timeout: Seconds that an event waits for room before it is refused, as a request of a service sees it;
            None if it is tried again until there is room.
        count: Events to put, or None for no end.
        start: Number of the first event.
    """

    def __init__(
        self,
        queue_name: str,
        *,
        rate: float | None = None,
        timeout: float | None = None,
        count: int | None = None,
        start: int = 0,
    ) -> None:
        self._rate = rate
        self._patient = timeout is None
        self._start = start
        self._end = None if count is None else start + count
        self._stopping = threading.Event()
        self._next = start
        self._refused: set[int] = set()
        self._failure: Exception | None = None
        self._queue = EventQueue[bytes](
            queue_name,
            bytes,
            max_queue_size=MAX_MESSAGES,
            max_event_size=MAX_MESSAGE_SIZE,
            put_timeout=_PUT_TIMEOUT if timeout is None else timeout,
        )
        self._thread = threading.Thread(target=self._run, name="producer", daemon=True)
        self._thread.start()

    @property
    def numbered(self) -> int:
        """Number of the event that comes next; those before it were put or refused."""
        return self._next

    @property
    def refused(self) -> int:
        """How many events found the queue full and were not put."""
        return len(self._refused)

    @property
    def put(self) -> set[int]:
        """Numbers of the events whose put has returned."""
        return set(range(self._start, self._next)) - self._refused

    def finish(self, patience: float = LONG_PATIENCE) -> None:
        """Wait until it has put all of its `count` events.

        Raises:
            TimeoutError: It took too long.
        """
        self._thread.join(patience)
        self.stop()
        if self._end is not None and self._next < self._end:
            raise TimeoutError(f"the producer came to event {self._next} of {self._end}")

    def stop(self) -> None:
        """Stop. The event that is being put is still put if there is room in time.

        Raises:
            Exception: What went wrong in its thread.
        """
        self._stopping.set()
        self._thread.join()
        self._queue.close()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            self._put_all()
        except Exception as exc:  # noqa: BLE001  it is raised where it is seen
            self._failure = exc

    def _put_all(self) -> None:
        due_at = time.monotonic()
        while not self._stopping.is_set() and self._next != self._end:
            if self._rate is not None:
                now = time.monotonic()
                if due_at > now:
                    self._stopping.wait(due_at - now)
                # No burst makes up for a pause: bursts of requests aren't measured here.
                due_at = max(due_at, now) + 1 / self._rate
            try:
                self._queue.put(make_event(self._next))
            except EventQueueFullError:
                if self._patient:
                    continue
                self._refused.add(self._next)
            self._next += 1


@dataclass
class Rig:
    """A queue, a collector and a folder, for one publisher at a time.

    Attributes:
        folder: A folder of its own.
        name: NAME of the queue `/events-NAME`.
        queue: The queue; 10 events of 1 KiB, which a stock Linux allows.
        collector: The collector.
        settings: Settings of the next publishers; `__` in a name stands for the dot.
        failures: What went wrong, in words.
    """

    folder: Path
    name: str
    queue: MessageQueue
    collector: Collector
    settings: dict[str, str]
    failures: list[str] = field(default_factory=list[str])

    @property
    def spool(self) -> Path:
        """Folder of the spool, where there is one."""
        return Path(self.settings.get("spool__directory", self.folder / "no-spool"), f"events-{self.name}")

    @contextlib.contextmanager
    def publisher(self, *, wait: bool = True) -> Generator[PublisherProcess]:
        """Run a publisher, by default wait until it publishes; it is killed at the end if it still runs."""
        with publisher_process(self.folder, self.name, self.collector.url, **self.settings) as publisher:
            if wait:
                publisher.wait_until_it_publishes()
            yield publisher

    @contextlib.contextmanager
    def producer(
        self,
        *,
        rate: float | None = None,
        timeout: float | None = None,
        count: int | None = None,
        start: int = 0,
    ) -> Generator[Producer]:
        """Run a producer; see `Producer`."""
        producer = Producer(self.name, rate=rate, timeout=timeout, count=count, start=start)
        try:
            yield producer
        finally:
            producer.stop()

    def check(self, holds: bool, problem: str) -> None:
        """Note a problem unless something holds."""
        if not holds:
            self.failures.append(problem)

    def follow_queue(self) -> None:
        """Open the queue that currently has the name."""
        if self.queue.removed:
            self.queue.close()
            self.queue = _open_queue(self.name)

    def spooled(self) -> set[int]:
        """Return the numbers of the events that are in the spool and nowhere else."""
        events = numbers_of(
            event for path in self.spool.glob("*.segment") for event in read_whole_events(path)
        )
        if not events <= self.collector.receipts.delivered:
            events -= numbers_of(letter.event for letter in self.letters())
        return events - self.collector.receipts.delivered

    def settle(self, publisher: PublisherProcess) -> None:
        """Let a publisher empty queue and spool, and stop it."""
        self.wait_for(lambda: not self.queue.current_messages and not self.spooled(), publisher)
        self.check(publisher.stop() == 0, f"a publisher ended with {publisher.process.returncode}")

    def wait_for(
        self, condition: Callable[[], object], publisher: PublisherProcess, patience: float = LONG_PATIENCE
    ) -> None:
        """Wait until a condition holds; note a problem if that takes too long or the publisher ends."""
        try:
            publisher.wait_for(condition, patience=patience)
        except TimeoutError as exc:
            self.failures.append(str(exc))

    def letters(self) -> list[Letter]:
        """Read the dead letters."""
        return letters_in(self.spool) if (self.spool / SPOOL_NAME).exists() else []

    def left(self) -> set[int]:
        """Return the numbers of the events that are still in the queue, or in the spool; empty the queue."""
        return numbers_of(drain(self.queue)) | self.spooled()

    def audit(self, put: set[int]) -> tuple[set[int], dict[str, int]]:
        """Compare what was put with what became of it; publisher and producer must have ended.

        Returns:
            The numbers of the events that were lost, and the figures.
        """
        receipts = self.collector.receipts
        dead = [letter.event for letter in self.letters()]
        left = self.left()
        lost = put - receipts.delivered - numbers_of(dead) - left
        strays = len(receipts.delivered - put) + receipts.foreign
        self.check(strays == 0, f"{strays} events arrived that no one put")
        self.check(receipts.unexplained == 0, f"{receipts.unexplained} duplicates are not explained")
        self.check(not left, f"{len(left)} events were left behind")
        figures = {
            "put": len(put),
            "delivered": len(receipts.delivered),
            "dead_letters": len(dead),
            "lost": len(lost),
            "duplicates": receipts.duplicates,
            "unexplained": receipts.unexplained,
        }
        return lost, figures


@contextlib.contextmanager
def rig(*, spool: bool = True, **settings: str) -> Generator[Rig]:
    """Set up a rig, and take it down afterwards.

    Args:
        spool: Whether publishers get a spool, and with it dead letters, in the rig's folder.
        settings: Settings of the publishers; `__` in a name stands for the dot.
    """
    name = f"survival-{uuid.uuid4().hex}"
    with (
        tempfile.TemporaryDirectory(prefix="survival-") as folder,
        contextlib.closing(Collector(Receipts())) as collector,
    ):
        if spool:
            directory = Path(folder, "spool")
            directory.mkdir()
            settings = {"spool__directory": str(directory), **settings}
        made = Rig(Path(folder), name, _open_queue(name), collector, settings)
        try:
            yield made
        finally:
            made.queue.unlink()  # the queue that currently has the name
            made.queue.close()


def _open_queue(name: str) -> MessageQueue:
    return MessageQueue(f"/events-{name}", max_messages=MAX_MESSAGES, max_message_size=MAX_MESSAGE_SIZE)
