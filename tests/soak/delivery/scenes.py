"""What a publisher must do with writers that are stopped, write nothing, or are of a later release.

Each scene returns its figures, and raises if something doesn't hold.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import statistics
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from baseplate_events import EventQueue
from baseplate_events.event_publisher.spool_reader.followed_segment import MIN_HOLE
from baseplate_events.events import SPOOL_VARIABLE
from baseplate_events.spool.format import VERSION
from baseplate_events.transport.posix import unlink_queue
from tests.soak.delivery.collector import Collector
from tests.soak.spool.oracle import make_event
from tests.support.commands import IMPORTING
from tests.support.processes import PIPE, Process, hear, say, started
from tests.support.publishers import publisher_process
from tests.support.spools_written import segment_name

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from tests.support.publishers import PublisherProcess

#: Idle writers, and the events that each puts before it idles: some hundred KiB.
IDLE_WRITERS: Final = 64
_IDLE_EVENTS: Final = 600

#: Bytes that a delivered segment may keep on the disk: the first and the last page, and what is too small
#: for a hole.
_KEPT: Final = 2 * 4_096 + MIN_HOLE


@dataclass(frozen=True)
class Place:
    """A spool and a collector.

    Attributes:
        folder: A folder of its own; the directory of the spool is in it.
        name: NAME of the queue.
        collector: The collector.
    """

    folder: Path
    name: str
    collector: Collector

    @property
    def directory(self) -> Path:
        """What services and publisher share."""
        return self.folder / "spools"

    @property
    def spool(self) -> Path:
        """The folder of the segments."""
        return self.directory / f"events-{self.name}"

    def publisher(self) -> contextlib.AbstractContextManager[PublisherProcess]:
        """Run a publisher that reads the spool only."""
        return publisher_process(
            self.folder,
            self.name,
            self.collector.url,
            spool__directory=str(self.directory),
            queue__transport="spool",
        )

    def queue(self) -> EventQueue[bytes]:
        """Open the queue as a service does; it is a writer of its own."""
        return EventQueue(self.name, bytes, spool_directory=self.directory, strict_size=True)

    @contextlib.contextmanager
    def writer(self, lane: int) -> Generator[Writer]:
        """Run a service in a process of its own."""
        words = ("tests.soak.delivery.writer", self.name, str(lane))
        environ = {**IMPORTING, SPOOL_VARIABLE: str(self.directory)}
        with started(sys.executable, "-m", *words, stdin=PIPE, stdout=PIPE, environ=environ) as process:
            yield Writer(process)


@dataclass(frozen=True)
class Writer:
    """A service that does what it reads; see `tests.soak.delivery.writer`."""

    process: Process

    def do(self, words: str) -> None:
        """Send it a request, and wait until that is done."""
        say(self.process, words)
        assert hear(self.process) == "done"


@contextlib.contextmanager
def place() -> Generator[Place]:
    """Make a spool and a collector."""
    with (
        tempfile.TemporaryDirectory(prefix="scene-") as path,
        contextlib.closing(Collector()) as collector,
    ):
        made = Place(Path(path), f"scene-{secrets.token_hex(8)}", collector)
        made.directory.mkdir()
        try:
            yield made
        finally:
            unlink_queue(f"/events-{made.name}")


def stopped_writer(events: int) -> dict[str, float]:
    """A writer that is stopped in the middle of a write delays its own segment, and nothing else."""
    with place() as made, made.writer(1) as stopped, made.writer(2) as busy, made.publisher() as publisher:
        stopped.do("put 10")
        stopped.do("tear")
        stopped.process.send_signal(signal.SIGSTOP)
        busy.do(f"put {events}")
        publisher.wait_for(lambda: made.collector.count(2) == events)
        publisher.wait_for(lambda: made.collector.count(1) == 10)
        stopped.process.send_signal(signal.SIGCONT)
        stopped.do("finish")
        stopped.do("put 10")
        publisher.wait_for(lambda: made.collector.count(1) == 21)
        assert publisher.stop() == 0
        _check(made)
    return {"delivered_beside": events}


def idle_writers(events: int, rounds: int) -> dict[str, float]:
    """The space of 64 idle writers is freed, and a busy one beside them isn't slowed down.

    Args:
        events: Events of the busy one, in each round.
        rounds: How often it puts, with and without the others.
    """
    with contextlib.ExitStack() as stack:
        alone, beside = (stack.enter_context(place()) for _ in range(2))
        publishers = {made.name: stack.enter_context(made.publisher()) for made in (alone, beside)}
        for lane in range(IDLE_WRITERS):
            queue = stack.enter_context(contextlib.closing(beside.queue()))
            for number in range(_IDLE_EVENTS):
                queue.put(make_event(lane, number))
        idle = list(beside.spool.glob("*.segment"))
        assert len(idle) == IDLE_WRITERS
        before = _bytes_on_disk(idle)
        lanes = range(IDLE_WRITERS)
        everything = IDLE_WRITERS * _IDLE_EVENTS
        publisher = publishers[beside.name]
        publisher.wait_for(lambda: sum(map(beside.collector.count, lanes)) == everything)
        publisher.wait_for(lambda: _bytes_on_disk(idle) <= IDLE_WRITERS * _KEPT)
        kept = _bytes_on_disk(idle)
        seconds: dict[str, list[float]] = {alone.name: [], beside.name: []}
        for lane in range(IDLE_WRITERS, IDLE_WRITERS + rounds):
            for made in (alone, beside):
                seconds[made.name].append(_deliver(made, publishers[made.name], lane, events))
        assert all(path.exists() for path in idle), "a segment was deleted that its writer has open"
        for publisher in publishers.values():
            assert publisher.stop() == 0
        _check(beside)
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    return {
        "bytes_before": before,
        "bytes_kept": kept,
        "times_the_seconds_alone": round(medians[beside.name] / medians[alone.name], 2),
    }


def newer_format(events: int) -> dict[str, float]:
    """A segment of a later format is left in place and reported, and all others are delivered."""
    with place() as made, contextlib.closing(made.queue()) as queue:
        identity = os.urandom(16)
        line = b"event-segment %d 2j %b compressed " % (VERSION + 1, identity.hex().encode())
        data = b"%b%08x\n" % (line, zlib.crc32(line)) + bytes(range(256)) * 8
        newer = made.spool / segment_name(identity)
        newer.write_bytes(data)
        for half in range(2):
            with made.publisher() as publisher:
                publisher.wait_for_log(f"its format version is {VERSION + 1}")
                for number in range(events):
                    queue.put(make_event(half, number))
                publisher.wait_for(partial(_has_all, made, half, events))
                assert newer.name in publisher.log
                assert publisher.stop() == 0
            assert newer.read_bytes() == data
        _check(made)
    return {"delivered_beside": 2 * events}


def _deliver(made: Place, publisher: PublisherProcess, lane: int, events: int) -> float:
    """Put events, and return the seconds until all were delivered."""
    with contextlib.closing(made.queue()) as queue:
        began = time.monotonic()
        for number in range(events):
            queue.put(make_event(lane, number))
        publisher.wait_for(lambda: made.collector.count(lane) == events)
        return time.monotonic() - began


def _has_all(made: Place, lane: int, events: int) -> bool:
    return made.collector.count(lane) == events


def _bytes_on_disk(paths: list[Path]) -> int:
    return sum(path.stat().st_blocks * 512 for path in paths)


def _check(made: Place) -> None:
    deliveries = made.collector.deliveries
    assert (deliveries.foreign, deliveries.duplicates) == (0, 0)


#: The scenes by name, at full scale.
SCENES: Final[dict[str, Callable[[], dict[str, float]]]] = {
    "stopped-writer": lambda: stopped_writer(200_000),
    "idle-writers": lambda: idle_writers(20_000, 5),
    "newer-format": lambda: newer_format(20_000),
}
