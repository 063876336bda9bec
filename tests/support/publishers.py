"""Event publishers for tests: their configuration, and real processes of them."""

from __future__ import annotations

import base64
import json
import os
import random
import signal
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from baseplate_events import EventQueue
from baseplate_events.dev_collector import AcceptedBatch, check_batch
from baseplate_events.event_publisher.config.settings import load_settings
from baseplate_events.event_publisher.policy.accounting import Accounting, DropReason
from baseplate_events.event_publisher.publisher import EventPublisher
from baseplate_events.transport.posix import MessageQueue
from tests.support.processes import Process, started
from tests.support.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from tests.support.fault_collector import FaultCollector
    from tests.support.server_connection import RecordedRequest

KEY_NAME: Final = "TestKey"
SECRET: Final = b"a secret of the tests"

#: A queue that a stock Linux allows beside others: 10 events of 1 KiB.
MAX_MESSAGES: Final = 10
MAX_MESSAGE_SIZE: Final = 1_024


def config_text(queue_name: str, url: str, **overrides: str) -> str:
    """Return an INI file for a publisher that is quick to flush and to retry.

    Args:
        queue_name: NAME of the queue `/events-NAME`.
        url: Scheme, host and port of the collector.
        overrides: Values of other keys; `__` in a name stands for the dot. The directory of a spool is made.
    """
    if "spool__directory" in overrides:
        Path(overrides["spool__directory"]).mkdir(mode=0o700, exist_ok=True)
    scheme, _, hostname = url.partition("://")
    values = {
        "collector.hostname": hostname,
        "collector.scheme": scheme,
        "collector.version": "2j",
        "key.name": KEY_NAME,
        "key.secret": base64.b64encode(SECRET).decode(),
        "max_queue_size": str(MAX_MESSAGES),
        "max_event_size": str(MAX_MESSAGE_SIZE),
        "batch.max_age": "20 milliseconds",
        "delivery.concurrency": "1",  # so that events arrive in their order
        "retry.base": "10 milliseconds",
        "retry.cap": "50 milliseconds",
        **{name.replace("__", "."): value for name, value in overrides.items()},
    }
    lines = [f"{name} = {value}" for name, value in values.items()]
    return "\n".join([f"[event-publisher:{queue_name}]", *lines, ""])


@contextmanager
def small_queue(
    name: str, *, max_messages: int = MAX_MESSAGES, max_message_size: int = MAX_MESSAGE_SIZE
) -> Generator[MessageQueue]:
    """Create the queue `/events-NAME`, small enough for a stock Linux, and remove it afterwards."""
    with MessageQueue(
        f"/events-{name}", max_messages=max_messages, max_message_size=max_message_size
    ) as queue:
        try:
            yield queue
        finally:
            queue.unlink()


def put_into_spool(directory: Path, name: str, events: Iterable[bytes]) -> None:
    """Put events into a spool as a service that then ends; create the directory if needed."""
    directory.mkdir(mode=0o700, exist_ok=True)
    with EventQueue(name, bytes, spool_directory=str(directory)) as queue:
        for event in events:
            queue.put(event)


def spooled_files(directory: Path, name: str) -> list[Path]:
    """Return the segments of a spool."""
    return sorted((directory / f"events-{name}").glob("*.segment"))


@dataclass(frozen=True)
class PublisherProcess:
    """A publisher in a process of its own."""

    process: Process
    log_file: Path
    config_file: Path

    def stop(self, *, twice: bool = False) -> int:
        """Send SIGTERM as soon as it publishes, and return the exit status."""
        self.wait_until_it_publishes()
        self.process.send_signal(signal.SIGTERM)
        if twice:
            self.wait_for_log("stopping")  # two signals at once are one
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def wait_until_it_publishes(self) -> None:
        """Return as soon as it has started.

        Raises:
            TimeoutError: It didn't.
        """
        self.wait_for_log("publishing events")

    def wait_until_it_fails(self) -> None:
        """Return as soon as it has failed to deliver.

        Raises:
            TimeoutError: It didn't.
        """
        self.wait_for_log("can't deliver")

    def wait_for_log(self, words: str) -> None:
        """Return as soon as it has written these words to stderr.

        Raises:
            TimeoutError: It didn't.
        """
        self.wait_for(lambda: words in self.log)

    def wait_for(self, condition: Callable[[], object], *, patience: float = PATIENCE) -> None:
        """Return as soon as a condition holds.

        Raises:
            TimeoutError: It did not hold in time, or the publisher ended first.
        """
        wait_until(
            condition, lambda: f"the log ends {self.log[-1_000:]!r}", process=self.process, patience=patience
        )

    @property
    def log(self) -> str:
        """What it has written to stderr so far."""
        return self.log_file.read_text()


@contextmanager
def publisher_process(
    folder: Path, queue_name: str, url: str, **overrides: str
) -> Generator[PublisherProcess]:
    """Run a publisher for a queue, and kill it at the end if it still runs."""
    config_file = folder / f"{queue_name}.ini"
    config_file.write_text(config_text(queue_name, url, **overrides))
    log_file = folder / f"{queue_name}.log"
    command = (sys.executable, "-m", "baseplate_events.event_publisher", "--queue-name", queue_name)
    with log_file.open("wb") as log, started(*command, config_file, stderr=log) as process:
        yield PublisherProcess(process, log_file, config_file)


def fates(**counts: int) -> str:
    """Return what the last line of a publisher's log says of its events.

    Args:
        counts: The fields of `Accounting`, and reasons of drops.
    """
    accounting = Accounting()
    for name, count in counts.items():
        if hasattr(accounting, name):
            setattr(accounting, name, count)
        else:
            accounting.dropped[DropReason(name)] = count
    assert accounting.balanced, accounting
    return str(accounting)


def make_events(count: int, pad: int = 50) -> list[bytes]:
    """Return distinct JSON events of different sizes."""
    return [json.dumps({"id": number, "pad": "x" * (number % pad)}).encode() for number in range(count)]


def events_of(request: RecordedRequest) -> list[bytes]:
    """Return the events of a request, after checking all that a collector checks."""
    checked = check_batch(request.method, request.target, request.headers, request.body, {KEY_NAME: SECRET})
    assert isinstance(checked, AcceptedBatch), checked
    return list(checked.events)


def put_all(queue: MessageQueue, events: Iterable[bytes]) -> None:
    """Put events as fast as there is room."""
    for event in events:
        queue.put(event, timeout=PATIENCE)


def arrived(server: FaultCollector) -> list[bytes]:
    """Return the events of the server's requests, whatever it answered, each once."""
    events = [event for request in server.requests for event in events_of(request)]
    return list(dict.fromkeys(events))


class Arrivals:
    """The events that a development collector accepted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: list[bytes] = []

    def add(self, batch: AcceptedBatch) -> None:
        """Accept a batch; passed to the collector."""
        with self._lock:
            self._events.extend(batch.events)

    @property
    def events(self) -> list[bytes]:
        """The events so far."""
        with self._lock:
            return list(self._events)


def make_publisher(folder: Path, name: str, url: str, **overrides: str) -> EventPublisher:
    """Make a publisher that isn't running yet."""
    config_file = folder / f"{name}.ini"
    config_file.write_text(config_text(name, url, **overrides))
    return EventPublisher(partial(load_settings, config_file, name, os.environ), random.Random(0))


def drain_and_end(folder: Path, name: str, url: str, **overrides: str) -> EventPublisher:
    """Run a publisher that is stopped as soon as it starts."""
    publisher = make_publisher(folder, name, url, **overrides)
    publisher.stop()
    publisher.run()
    return publisher


@contextmanager
def publishing(folder: Path, name: str, url: str, **overrides: str) -> Generator[EventPublisher]:
    """Run a publisher in a thread of this process, and stop it at the end."""
    publisher = make_publisher(folder, name, url, **overrides)
    thread = threading.Thread(target=publisher.run)
    thread.start()
    try:
        yield publisher
    finally:
        publisher.stop()
        thread.join(PATIENCE)
        assert not thread.is_alive()
