"""The programs of simulated processes, with the real code of the writer."""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from baseplate_events.counting.forks import OfProcess
from baseplate_events.errors import EventQueueFullError, EventQueueUnavailableError
from baseplate_events.spool.segment import Segment
from baseplate_events.spool.writer import SpoolWriter

from .files import SimulatedDirectory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from baseplate_events.counting.refusals import RefusalCounts
    from baseplate_events.spool.segment import SpoolFolder

    from .kernel import Process
    from .machine import Machine


@dataclass(frozen=True)
class Append:
    """`SpoolWriter.append` of events of these sizes."""

    sizes: tuple[int, ...] = (20,)


@dataclass(frozen=True)
class Send:
    """`Segment.send` of an event, as `EventQueue.put` does it; `trusted`: without a check of the file."""

    size: int = 20
    trusted: bool = True


@dataclass(frozen=True)
class Sleep:
    """Let time pass for all."""

    seconds: float


@dataclass(frozen=True)
class Thread:
    """Start a thread of the same process."""

    program: Program


@dataclass(frozen=True)
class Fork:
    """Fork a child."""

    program: Program


@dataclass(frozen=True)
class Capacity:
    """Set the disk's capacity to what is stored plus so many bytes; None for unlimited."""

    spare: int | None


@dataclass(frozen=True)
class Destroy:
    """Delete the directory, file by file."""


@dataclass(frozen=True)
class Look:
    """Let the reader poll, so many times."""

    times: int = 1


@dataclass(frozen=True)
class Handle:
    """Handle signals from now on by putting an event, like `Send`."""

    trusted: bool = False


Operation: TypeAlias = Append | Handle | Send | Sleep | Thread | Fork | Capacity | Destroy | Look
Program: TypeAlias = tuple[Operation, ...]


class SmallWriter(SpoolWriter):
    """A writer with small segments."""

    def __init__(
        self,
        directory: SpoolFolder,
        max_size: int,
        segment_size: int,
        refusals: RefusalCounts,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(directory, "2", max_size, refusals, clock)
        self._segment_size = segment_size


class QuietSegment(Segment):
    """A segment that is finalized in one step."""

    def __del__(self) -> None:
        directory = getattr(self, "_directory", None)
        if isinstance(directory, SimulatedDirectory):
            directory.machine.quiet = True
            try:
                super().__del__()
            finally:
                directory.machine.quiet = False


class ModelClock:
    """The clock of one process: reading it is a step."""

    def __init__(self, machine: Machine, process: Process) -> None:
        self._machine = machine
        self._process = process

    def __call__(self) -> float:
        """Return the time."""
        if self._process.alive:
            self._machine.step(self._process, "clock")
        return self._machine.now


class WipedCell(bytearray):
    """A byte that a forked child finds cleared."""

    def __deepcopy__(self, memo: dict[int, object]) -> WipedCell:
        """Return the child's."""
        return WipedCell(len(self))


@dataclass(eq=False)
class Service:
    """A process that puts events.

    Attributes:
        process: The kernel's process.
        directory: Its view of the directory.
        clock: Its clock.
        refusals: What it counted.
        writer: Its writer; None once it ended.
        tasks: Threads of it that haven't ended.
        alone: Whether it and its ancestors had only one thread when they were forked.
        number: How many threads and children it started.
    """

    process: Process
    directory: SimulatedDirectory
    clock: ModelClock
    refusals: RefusalCounts
    writer: SpoolWriter | None
    tasks: int = 0
    alone: bool = True
    number: int = 0

    def forked(self, process: Process, machine: Machine) -> Service:
        """Return the child: a copy of the memory, and the descriptors of `process`, which it shares."""
        mine = self.directory
        directory = type(mine)(machine, process, mine.published, mine.written)
        clock = ModelClock(machine, process)
        memo: dict[int, object] = {id(mine): directory, id(self.clock): clock}
        counts = vars(self.refusals)["_refusals"].held.value
        lock = memo[id(counts.lock)] = threading.Lock()
        if counts.lock.locked():
            lock.acquire()
        for count in (*counts.counted.values(), *counts.returned.values()):
            memo[id(count._lock)] = threading.RLock()  # free: no step is within it
        refusals = copy.deepcopy(self.refusals, memo)
        memo[id(self.refusals)] = refusals
        if self.writer is not None:
            replacing = vars(self.writer)["_replacing"]
            memo[id(replacing)] = OfProcess(threading.RLock)  # a child has a lock of its own
        writer = copy.deepcopy(self.writer, memo)
        return Service(process, directory, clock, refusals, writer, alone=self.alone and self.tasks == 1)


@dataclass
class Events:
    """The results of all puts, in the order of each thread.

    Attributes:
        tried: All, by thread.
        acknowledged: Events for which `append` or `send` returned.
        refused: Those that it refused.
        began: When each was put; events sent without a check of the file are missing.
    """

    tried: dict[str, list[bytes]]
    acknowledged: set[bytes]
    refused: set[bytes]
    began: dict[bytes, int]

    def make(self, thread: str, sizes: Sequence[int]) -> list[bytes]:
        """Return new events."""
        mine = self.tried.setdefault(thread, [])
        made: list[bytes] = []
        for size in sizes:
            event = f"{thread}.{len(mine)}:".encode()
            event += b"x" * (size - len(event))
            mine.append(event)
            made.append(event)
        return made


def append(service: Service, thread: str, sizes: Sequence[int], events: Events) -> None:
    """Do what `Append` says."""
    machine = service.directory.machine
    messages = events.make(thread, sizes)
    machine.begin()
    events.began.update(dict.fromkeys(messages, machine.steps))
    _append(service, messages, events)
    machine.end()


def send(service: Service, thread: str, operation: Send, events: Events) -> None:
    """Do what `Send` says."""
    machine = service.directory.machine
    messages = events.make(thread, [operation.size])
    machine.begin()
    assert service.writer is not None
    segment = service.writer.segment
    if segment is not None and (
        operation.trusted or (not service.refusals.unreported and segment.check(service.clock()))
    ):
        try:
            segment.send(messages[0])
        except Exception as exc:
            if not segment.refused(exc):
                raise
        else:
            events.acknowledged.update(messages)
            machine.end()
            return
    del segment
    _append(service, messages, events)
    machine.end()


def _append(service: Service, messages: list[bytes], events: Events) -> None:
    assert service.writer is not None
    try:
        service.writer.append(messages)
    except (EventQueueFullError, EventQueueUnavailableError) as error:
        done = error.events_put
        reason = "full" if isinstance(error, EventQueueFullError) else "unavailable"
        service.refusals.count(reason, len(messages) - done)
        events.refused.update(messages[done:])
    else:
        done = len(messages)
    events.acknowledged.update(messages[:done])
