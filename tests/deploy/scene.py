"""The scene of alerts: publishers, collectors and services of a queue that Prometheus scrapes."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import itertools
import json
import socket
import sys
import threading
from typing import TYPE_CHECKING, Final

from baseplate_events import EventQueue
from baseplate_events.errors import EventError
from baseplate_events.transport.posix import MessageQueue
from tests.deploy.prometheus import free_port
from tests.support.disks import mounted
from tests.support.processes import Process, started
from tests.support.publishers import MAX_MESSAGE_SIZE, MAX_MESSAGES, config_text
from tests.support.queues import fresh_event_name
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from pathlib import Path

    from tests.deploy.prometheus import Prometheus

#: Text for which a collector refuses the batch that contains it.
POISON: Final = b"poison"

#: Seconds between two events of a service.
PAUSE: Final = 0.05


class Collector:
    """A collector whose answers can be changed, on a free port of loopback.

    Attributes:
        status: The status of its answers.
        refuses_poison: Whether it answers 400 to a batch that holds `POISON`.
        delay: Seconds until it answers.
        requests: How many requests it has read.
    """

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.refuses_poison = False
        self.delay = 0.0
        self.requests = 0
        self._closing = threading.Event()
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = collector._answer(gzip.decompress(body))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class calls it so
                """Log nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url: Final = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def _answer(self, batch: bytes) -> int:
        self.requests += 1
        status = self.status
        if status == http.HTTPStatus.OK and self.refuses_poison and POISON in batch:
            status = http.HTTPStatus.BAD_REQUEST
        self._closing.wait(self.delay)
        return status

    def close(self) -> None:
        """Stop answering."""
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Producer:
    """A service that puts events until it is stopped, whether they are accepted or not.

    Args:
        put: Puts an event.
        events: The events to put.
        pause: Seconds between two events.
    """

    def __init__(
        self, put: Callable[[bytes], object], events: Iterable[bytes], *, pause: float = PAUSE
    ) -> None:
        self._put = put
        self._events = events
        self._pause = pause
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for event in self._events:
            with contextlib.suppress(EventError):
                self._put(event)
            if self._stopping.wait(self._pause):
                return

    def stop(self) -> None:
        """Stop putting."""
        self._stopping.set()
        self._thread.join()


class Publisher:
    """A publisher that can be killed and started again; Prometheus scrapes it from its first start on."""

    def __init__(self, command: list[str], log: Path, port: int) -> None:
        self._command = command
        self._log = log
        self.port: Final = port
        self._running = contextlib.ExitStack()
        self.process = self._start()

    def _start(self) -> Process:
        with self._log.open("ab") as log:
            return self._running.enter_context(started(*self._command, stderr=log))

    def kill(self) -> None:
        """Kill it."""
        self._running.close()

    def start(self) -> None:
        """Start it again."""
        self.process = self._start()

    def wait_until_it_answers(self) -> None:
        """Wait until its health endpoint listens."""

        def answers() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        wait_until(answers, self._log.read_text, process=self.process)


class Scene:
    """The scene of one fault.

    Args:
        folder: An empty folder.
        prometheus: The server that scrapes the publishers.
        stack: Closed at the end.

    Attributes:
        name: NAME of a queue of its own.
        folder: As given.
        spool: The directory of the spool.
        prometheus: As given.
        stack: As given.
        ports: Those of its publishers.
        expected: The alerts that should fire.
        fired: The alerts that have fired, with their annotations.
    """

    def __init__(
        self, folder: Path, prometheus: Prometheus, stack: contextlib.ExitStack, expected: frozenset[str]
    ) -> None:
        self.name: str = stack.enter_context(fresh_event_name())
        self.folder: Path = folder
        self.spool: Path = folder / "spool"
        self.prometheus: Prometheus = prometheus
        self.stack: contextlib.ExitStack = stack
        self.ports: set[int] = set()
        self.expected: frozenset[str] = expected
        self.fired: dict[str, list[str]] = {}
        self._numbers = itertools.count()

    @property
    def wants_more(self) -> bool:
        """Whether an expected alert hasn't fired yet."""
        return not self.expected <= self.fired.keys()

    def collector(self, status: int = 200) -> Collector:
        """Start a collector."""
        collector = Collector(status)
        self.stack.callback(collector.close)
        return collector

    def publisher(
        self,
        collector: Collector,
        *,
        prefix: Iterable[str] = (),
        options: Iterable[str] = (),
        log: Path | None = None,
        scraped: bool = True,
        **overrides: str,
    ) -> Publisher:
        """Start a publisher of the queue.

        Args:
            collector: The collector that it delivers to.
            prefix: A command that starts it.
            options: Further arguments of its command line.
            log: The file of its log.
            scraped: Whether Prometheus finds it as on a host.
            overrides: Values of its configuration, as for `config_text`.
        """
        port, number = free_port(), next(self._numbers)
        self.ports.add(port)
        config_file = self.folder / f"{number}.ini"
        config_file.write_text(
            config_text(self.name, collector.url, health__bind=f"127.0.0.1:{port}", **overrides)
        )
        words = ["-m", "baseplate_events.event_publisher", "--queue-name", self.name, str(config_file)]
        command = [*prefix, sys.executable, *words, *options]
        publisher = Publisher(command, log or self.folder / f"{number}.log", port)
        self.stack.callback(publisher.kill)
        if scraped:
            self.prometheus.add_host(port)
        return publisher

    def service(self, *, max_event_size: int = MAX_MESSAGE_SIZE) -> EventQueue[bytes]:
        """Open the spool as a service does."""
        self.spool.mkdir(mode=0o700, exist_ok=True)
        queue = EventQueue(self.name, bytes, spool_directory=self.spool, max_event_size=max_event_size)
        self.stack.callback(queue.close)
        return queue

    def queue(self) -> MessageQueue:
        """Open the POSIX queue as a service does; create it if it doesn't exist."""
        posix_name = f"/events-{self.name}"
        queue = MessageQueue(
            posix_name, max_messages=MAX_MESSAGES, max_message_size=MAX_MESSAGE_SIZE, read=False
        )
        self.stack.callback(queue.close)
        return queue

    def produce(
        self, put: Callable[[bytes], object], events: Iterable[bytes] | None = None, *, pause: float = PAUSE
    ) -> Producer:
        """Have a service put events."""
        producer = Producer(put, numbered() if events is None else events, pause=pause)
        self.stack.callback(producer.stop)
        return producer

    def disk(self, *arguments: str | Path) -> Path:
        """Mount a disk, and return where it is."""
        path = self.folder / "disk"
        self.stack.enter_context(mounted(path, *arguments))
        return path


def numbered(*, size: int = 0) -> Generator[bytes]:
    """Yield good events, as many as requested."""
    for number in itertools.count():
        yield json.dumps({"id": number, "pad": "x" * size}).encode()
