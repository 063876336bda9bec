"""The rig of the publisher's benchmarks: a queue, a producer, a collector, publishers, and a stopwatch.

Rules:

1. The publisher has a core to itself. Producers, the collector and the measuring process share another one.
2. The queue is as deep as possible (`deep_queue`), and always full, so that the publisher is the bottleneck.
3. A rate is taken between the arrivals of two batches, over whole rounds of the senders, from when the
   publisher is warm. Work that is incomplete at either end isn't counted.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import secrets
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from benchmarks.deep_queue import deep_queue, stock_queue
from benchmarks.floor import SECRET
from benchmarks.light_collector import Arrival, LightCollector
from benchmarks.producer import MAX_EVENT_SIZE
from tests.support.processes import DEVNULL, PIPE, Process, hear, say, started
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from baseplate_events.transport.posix import MessageQueue

#: Folder from which children import this package and the samples of the tests.
_ROOT: Final = Path(__file__).parents[1]

#: Seconds until something that should come is given up.
PATIENCE: Final = 60.0

#: Seconds from the first batch to when a publisher counts as warm, but no more than it is watched for.
_WARM_UP: Final = 0.4

#: Seconds between two looks at something.
_GLANCE: Final = 0.002


@dataclass(frozen=True)
class Speed:
    """The speed of a publisher.

    Attributes:
        rate: Events a second.
        cpu: Seconds of CPU per million events.
        size: Bytes sent per event.
    """

    rate: float
    cpu: float
    size: float


def speed(arrivals: Sequence[Arrival], cpu: float, cycle: int = 1) -> Speed:
    """Return the speed of a publisher.

    Args:
        arrivals: Its batches in the order of their arrival.
        cpu: Seconds of CPU that all of them took.
        cycle: Batches in flight at the same time. They may arrive in bunches, so that only whole
            rounds of them are counted, if there are any.

    Raises:
        ValueError: There are fewer than two batches.
    """
    counted = (len(arrivals) - 1) // cycle * cycle or len(arrivals) - 1
    if counted < 1:
        raise ValueError("too few batches arrived for a rate")
    batches = arrivals[1 : counted + 1]
    events = sum(batch.events for batch in batches)
    rate = events / (batches[-1].at - arrivals[0].at)
    return Speed(
        rate,
        1e6 * cpu / sum(batch.events for batch in arrivals),
        sum(batch.size for batch in batches) / events,
    )


def warm_up(seconds: float) -> float:
    """Return the seconds of warm-up before this many measured seconds."""
    return min(_WARM_UP, seconds)


@dataclass(frozen=True)
class Producer:
    """A producer that waits for `go`.

    Attributes:
        process: Its process.
    """

    process: Process

    def go(self, count: int = 0) -> None:
        """Have it put so many events, or with 0 as many as it can until it is killed."""
        say(self.process, str(count))

    def stop(self) -> dict[str, int]:
        """Pause a producer that puts as a service does, and return its counts."""
        self.go()
        answer: dict[str, int] = json.loads(hear(self.process))
        return answer


@dataclass(frozen=True)
class Publisher:
    """A publisher that was started.

    Attributes:
        process: Its process.
        log: What it writes to stderr.
    """

    process: Process
    log: Path

    @property
    def cpu(self) -> float:
        """Seconds of CPU that all its threads have taken; the clock is that of clock_getcpuclockid(3)."""
        return time.clock_gettime(~self.process.pid << 3 | 2)

    @property
    def peak_memory(self) -> int:
        """The peak of its resident memory in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s*(\d+) kB", status)
        if found is None:
            raise ProcessLookupError(f"the publisher has ended; it says {self.log.read_text()[-1_000:]!r}")
        return int(found[1]) * 1_024

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Return as soon as a condition holds.

        Raises:
            TimeoutError: It did not hold in time, or the publisher ended first.
        """
        wait_until(
            condition,
            lambda: f"the publisher does not publish; its log ends {self.log.read_text()[-1_000:]!r}",
            process=self.process,
            patience=PATIENCE,
            interval=_GLANCE,
        )

    def watch(self, collector: LightCollector, seconds: float, *, cycle: int = 1) -> Speed:
        """Return its speed over this many seconds and at least two batches, once it is warm."""
        self.wait_for(lambda: len(collector))
        time.sleep(warm_up(seconds))
        start, cpu = len(collector), self.cpu
        time.sleep(seconds)
        self.wait_for(lambda: len(collector) > start + 1)
        return speed(collector.arrivals()[start:], self.cpu - cpu, cycle)


@dataclass
class Rig:
    """A queue, a folder and two cores.

    Attributes:
        name: NAME of the queue `/events-NAME`.
        queue: The queue.
        folder: A folder of its own, on the disk of temporary files.
        inner: The core of the publisher.
        outer: The core of everything else.
    """

    name: str
    queue: MessageQueue
    folder: Path
    inner: int
    outer: int
    _publishers: int = field(default=0, init=False)

    @property
    def note(self) -> str:
        """What a reader must know about the rig."""
        shared = "" if self.inner != self.outer else ", which has only one that all share"
        return (
            f"The publisher is pinned to one core, producers and collector to another of this host{shared}; "
            f"the queue holds {self.queue.max_messages} events of at most {MAX_EVENT_SIZE:,} bytes."
        )

    @contextlib.contextmanager
    def producer(self, *options: str) -> Generator[Producer]:
        """Run a producer; it has made its events."""
        command = ("benchmarks.producer", self.queue.name, *options)
        with self._child(command, self.outer, stdin=PIPE, stdout=PIPE) as process:
            hear(process)
            yield Producer(process)

    @contextlib.contextmanager
    def ours(self, collector: LightCollector, settings: Mapping[str, str]) -> Generator[Publisher]:
        """Run our publisher on an empty queue."""
        with self._publisher("baseplate_events.event_publisher", collector, settings) as publisher:
            yield publisher

    @contextlib.contextmanager
    def original(self, collector: LightCollector) -> Generator[Publisher]:
        """Run baseplate.py's publisher on an empty queue."""
        with self._publisher("baseplate.sidecars.event_publisher", collector, {}) as publisher:
            yield publisher

    @contextlib.contextmanager
    def _publisher(
        self, module: str, collector: LightCollector, settings: Mapping[str, str]
    ) -> Generator[Publisher]:
        while self.queue.get() is not None:
            pass
        self._publishers += 1
        config_file = self.folder / f"{self._publishers}.ini"
        config_file.write_text(config_text(self.name, collector.hostname, self.queue.max_messages, settings))
        log = config_file.with_suffix(".log")
        command = (module, "--queue-name", self.name, str(config_file))
        with log.open("wb") as stderr, self._child(command, self.inner, stderr=stderr) as process:
            yield Publisher(process, log)

    def floor(self, level: int, seconds: float, *options: str, spool: str | None = None) -> Speed:
        """Return the speed of the floor, likewise.

        Args:
            level: Level of gzip.
            seconds: Seconds that count.
            options: Further options of the floor.
            spool: The directory of the spool that events are put into; None for the queue.
        """
        numbers = (str(level), str(warm_up(seconds)), str(seconds))
        command = ("benchmarks.floor", self.queue.name, *numbers, *options)
        into = () if spool is None else ("--spool", spool)
        with self.producer(*into) as producer, self._child(command, self.inner, stdout=PIPE) as process:
            producer.go()
            found = json.loads(hear(process))
        return speed([Arrival(*batch) for batch in found["batches"]], found["cpu"])

    @contextlib.contextmanager
    def _child(
        self,
        arguments: Sequence[str],
        core: int,
        *,
        stdin: int = DEVNULL,
        stdout: int | None = None,
        stderr: IO[bytes] | None = None,
    ) -> Generator[Process]:
        """Run a module on a core, and kill it afterwards."""
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        with started(
            *(sys.executable, "-W", "ignore", "-m", *arguments),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            environ={"PYTHONPATH": path},
        ) as process:
            os.sched_setaffinity(process.pid, {core})  # before it has other threads, which inherit it
            yield process


def config_text(name: str, hostname: str, depth: int, settings: Mapping[str, str]) -> str:
    """Return an INI file that either publisher reads.

    Args:
        name: NAME of the queue `/events-NAME`.
        hostname: Host and port of the collector.
        depth: Events that the queue holds.
        settings: Other values, by key.
    """
    values = {
        "collector.hostname": hostname,
        "collector.scheme": "http",
        "key.name": "BenchmarkKey",
        "key.secret": base64.b64encode(SECRET).decode(),
        "max_queue_size": str(depth),
        "max_event_size": str(MAX_EVENT_SIZE),
        **settings,
    }
    return "\n".join(
        [f"[event-publisher:{name}]", *(f"{key} = {value}" for key, value in values.items()), ""]
    )


@contextlib.contextmanager
def rig(*, deep: bool = True) -> Generator[Rig]:
    """Set up a rig and take it down afterwards.

    Args:
        deep: Whether to make the queue deeper than a stock host allows, where possible.
    """
    name = f"benchmark-{secrets.token_hex(8)}"
    cores = os.sched_getaffinity(0)
    make = deep_queue if deep else stock_queue
    with (
        make(f"/events-{name}", MAX_EVENT_SIZE) as queue,
        tempfile.TemporaryDirectory(prefix="benchmark-") as folder,
    ):
        os.sched_setaffinity(0, {max(cores)})
        try:
            yield Rig(name, queue, Path(folder), min(cores), max(cores))
        finally:
            os.sched_setaffinity(0, cores)
