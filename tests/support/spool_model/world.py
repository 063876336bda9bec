"""Processes, a reader and an operator with one directory; and the invariants.

1. Every event that was acknowledged is delivered, once, in the order of the thread that put it; except in
   files that an operator deleted.
2. Besides these, only events whose process was killed during the put are delivered. No refused event is.
3. The reported refusals are those that were counted, except those of killed processes.
4. A published file has a whole record. In the end no file is left, and no descriptor open.
5. The files never exceed the limit by more than a segment or the largest event per thread.
6. After a short write, a process doesn't write to that file any more. A call ends after a bounded number
   of steps.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from unittest.mock import patch

from baseplate_events.counting.refusals import RefusalCounts
from baseplate_events.spool import writer as writer_module
from baseplate_events.spool.format import EVENT, MAX_HEADER, OVERHEAD, REFUSALS, Header, SegmentParser

from ..records import feed
from . import programs
from .files import ReaderFiles, SimulatedDirectory
from .machine import Machine, Violation
from .programs import Events, ModelClock, Program, QuietSegment, Service, SmallWriter, WipedCell
from .reader import ModelLedger, ReferenceReader
from .schedules import Exhaustive, Replay

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from baseplate_events.spool.segment import Segment

    from .kernel import Inode
    from .reader import MakeReader
    from .schedules import Strategy

#: Looks of a reader after which an idle directory is empty.
_LAST_LOOKS = 3

#: Bytes that a record of refusals may take here.
_REFUSALS_SIZE = 80


@dataclass(frozen=True)
class WriterCode:
    """The code under test: the real one, or parts of it with a planted mistake."""

    writer: type[SmallWriter] = SmallWriter
    segment: type[Segment] = QuietSegment
    refusals: type[RefusalCounts] = RefusalCounts
    directory: type[SimulatedDirectory] = SimulatedDirectory


@dataclass(frozen=True)
class Setting:
    """The setting of a run.

    Attributes:
        programs: What the processes do. A program with `Look` is the reader's.
        max_size: Bytes that the spool holds.
        segment_size: Bytes at which a segment ends.
        code: The code under test.
        reader: Creates the reader.
        quiet: Calls that commute with those of others: when all schedules are tried, none is interrupted.
    """

    programs: tuple[Program, ...]
    max_size: int = 100_000
    segment_size: int = 150
    code: WriterCode = field(default_factory=WriterCode)
    reader: MakeReader = ReferenceReader
    quiet: frozenset[str] = frozenset({"open", "used", "status", "clock"})


class World:
    """One run.

    Args:
        setting: The setting.
        strategy: Chooses what happens.
    """

    def __init__(self, setting: Setting, strategy: Strategy) -> None:
        self._setting = setting
        self.machine = Machine(strategy)
        self.ledger = ModelLedger()
        self.events = Events({}, set(), set(), {})
        self._services: list[Service] = []
        self._threads = 0
        self._largest = setting.segment_size

    def run(self) -> None:
        """Run everything, and check it.

        Raises:
            Violation: Something doesn't hold; the message has the schedule.
        """
        for number, program in enumerate(self._setting.programs):
            self._start(program, f"p{number}")
        with patch.object(writer_module, "Segment", self._setting.code.segment):
            try:
                self.machine.run()
                self._look_again()
                self._check()
            except Exception as exc:
                raise Violation(
                    f"{exc!r} with the schedule {self.machine.schedule}\n{self.describe()}"
                ) from exc

    def describe(self) -> str:
        """Return what happened, a line for each step."""
        return "\n".join(f"{name:>8}  {call}  {detail!r}" for name, call, detail in self.machine.log)

    def _start(self, program: Program, name: str) -> None:
        process = self.machine.kernel.start(name)
        machine = self.machine
        if any(isinstance(operation, programs.Look) for operation in program):
            reader = self._setting.reader(ReaderFiles(machine, process), self.ledger)

            def read() -> None:
                for operation in program:
                    assert isinstance(operation, programs.Look)
                    for _ in range(operation.times):
                        reader.look()
                machine.kernel.exit(process)

            machine.spawn(name, process, read)
            return
        code = self._setting.code
        directory = code.directory(machine, process, self._check_published, self._check_written)
        clock = ModelClock(machine, process)
        refusals = code.refusals(WipedCell(2))
        writer = code.writer(directory, self._setting.max_size, self._setting.segment_size, refusals, clock)
        service = Service(process, directory, clock, refusals, writer)
        self._spawn(service, program, name)

    def _spawn(self, service: Service, program: Program, name: str) -> None:
        if service not in self._services:
            self._services.append(service)
        service.tasks += 1
        self._threads += 1
        self.machine.spawn(name, service.process, lambda: self._run(service, program, name))

    def _run(self, service: Service, program: Program, name: str) -> None:
        machine = self.machine
        for operation in program:
            match operation:
                case programs.Append(sizes):
                    self._measured(service, sizes, name)
                case programs.Send():
                    self._largest = max(
                        self._largest, operation.size + OVERHEAD + MAX_HEADER + _REFUSALS_SIZE
                    )
                    programs.send(service, name, operation, self.events)
                case programs.Handle(trusted):
                    self._handle_signals(service, name, trusted=trusted)
                case programs.Sleep(seconds):
                    machine.step(service.process, "sleep", seconds)
                    machine.now += seconds
                case programs.Thread(other):
                    service.number += 1
                    self._spawn(service, other, f"{name}.{service.number}")
                case programs.Fork(other):
                    machine.step(service.process, "fork")
                    service.number += 1
                    child = f"{name}.{service.number}"
                    self._spawn(
                        service.forked(machine.kernel.fork(service.process, child), machine), other, child
                    )
                case programs.Capacity(spare):
                    machine.step(service.process, "capacity", spare)
                    machine.kernel.capacity = None if spare is None else machine.kernel.stored() + spare
                case programs.Destroy():
                    folder = machine.kernel.folder
                    for file in list(folder.names) if folder is not None else ():
                        machine.step(service.process, "destroy", file)
                        machine.kernel.destroy_file(file, machine.steps)
                    machine.step(service.process, "destroy", "all")
                    machine.kernel.destroy(machine.steps)
                case programs.Look():
                    raise AssertionError("only a reader looks")
        service.tasks -= 1
        if not service.tasks:
            self._exit(service)

    def _handle_signals(self, service: Service, name: str, *, trusted: bool) -> None:
        operation = programs.Send(trusted=trusted)
        self._threads += 1
        self.machine.handlers[service.process] = lambda: programs.send(
            service, f"{name}.signal", operation, self.events
        )

    def _measured(self, service: Service, sizes: Sequence[int], name: str) -> None:
        """Append, and check that it takes a bounded number of steps."""
        self._largest = max(self._largest, max(sizes) + OVERHEAD + MAX_HEADER + _REFUSALS_SIZE)
        current = self.machine.current
        assert current is not None
        before = current.steps
        programs.append(service, name, sizes, self.events)
        if current.steps - before > 30 + 30 * len(sizes):
            raise Violation(f"append took {current.steps - before} steps")

    def _exit(self, service: Service) -> None:
        """End a process whose threads have ended: all that is left are its writer's descriptors."""
        service.writer = None
        left = set(service.process.descriptors)
        if service.alone and left:
            raise Violation(f"{service.process.name} leaves descriptors open: {left}")
        if left - service.process.inherited:
            raise Violation(f"{service.process.name} leaves descriptors open: {left}")
        self.machine.kernel.exit(service.process)

    def _look_again(self) -> None:
        """Let a new reader poll, when nothing else runs."""
        process = self.machine.kernel.start("last")
        reader = self._setting.reader(ReaderFiles(self.machine, process), self.ledger)
        for _ in range(_LAST_LOOKS):
            reader.look()
        if process.descriptors:
            raise Violation("the reader leaves descriptors open")

    def _check_published(self, inode: Inode) -> None:
        header = Header.decode(bytes(inode.data))
        if header is None or not feed(
            SegmentParser(header, size := len(header.encode())), bytes(inode.data[size:])
        ):
            raise Violation("a segment without a record was published")

    def _check_written(self, inode: Inode) -> None:
        del inode
        folder = self.machine.kernel.folder
        used = 0 if folder is None else self.machine.kernel.used(folder)
        if used > self._setting.max_size + self._threads * self._largest:
            raise Violation(f"{used} bytes are in the spool")

    def _check(self) -> None:
        folder = self.machine.kernel.folder
        if folder is not None and folder.names:
            raise Violation(f"files are left: {sorted(folder.names)}")
        self._check_events()
        self._check_refusals()

    def _check_events(self) -> None:
        delivered = [record.payload for record in self.ledger.records if record.kind == EVENT]
        at = {event: index for index, event in enumerate(delivered)}
        if len(at) < len(delivered):
            raise Violation("an event was delivered twice")
        tried = {event for events in self.events.tried.values() for event in events}
        if not tried >= at.keys():
            raise Violation("what was delivered is no event")
        if self.events.refused & at.keys():
            raise Violation(f"events were delivered that were refused: {self.events.refused & at.keys()}")
        missing = self.events.acknowledged - at.keys()
        if missing:
            missing -= self._destroyed()
        if missing:
            raise Violation(f"events were lost: {sorted(missing)}")
        for thread, events in self.events.tried.items():
            order = [at[event] for event in events if event in at]
            if order != sorted(order):
                raise Violation(f"the order of {thread} was changed")

    def _destroyed(self) -> set[bytes]:
        """Return the events that may be lost, because an operator deleted their file since the put began.

        A file is trusted for less than a millisecond, so events sent without a check count too.
        """
        found: set[bytes] = set()
        for inode in self.machine.kernel.inodes:
            header = Header.decode(bytes(inode.data))
            if inode.destroyed is not None and header is not None:
                parser = SegmentParser(header, len(header.encode()))
                records = feed(parser, bytes(inode.data[parser.position :]))
                found.update(
                    record.payload
                    for record in records
                    if record.kind == EVENT and self.events.began.get(record.payload, 0) <= inode.destroyed
                )
        return found

    def _check_refusals(self) -> None:
        reported: Counter[str] = Counter()
        for record in self.ledger.records:
            if record.kind == REFUSALS:
                reported.update(json.loads(record.payload))
        counted: Counter[str] = Counter()
        unsure: Counter[str] = Counter()  # of those that were killed, it may be all or nothing
        for service in self._services:
            totals = Counter(service.refusals.totals)
            (unsure if service.process.killed else counted).update(totals)
            if not service.process.killed:
                counted.subtract(service.refusals.take())
        if any(inode.destroyed is not None for inode in self.machine.kernel.inodes):
            counted, unsure = Counter(), unsure + counted
        for reason in {*reported, *counted, *unsure}:
            if not counted[reason] <= reported[reason] <= counted[reason] + unsure[reason]:
                raise Violation(f"{reported[reason]} refusals were reported of {counted[reason]}")


def explore(setting: Setting, strategy: Exhaustive, *, most: int = 1_000_000) -> int:
    """Run all schedules within the strategy's bounds; return how many there were.

    Raises:
        Violation: Something doesn't hold.
    """
    strategy.quiet = setting.quiet
    while strategy.runs < most and strategy.begin():
        World(setting, strategy).run()
    return strategy.runs


def replay(setting: Setting, schedule: Mapping[int, int]) -> str:
    """Run one schedule, and return what happened, a line for each step."""
    world = World(setting, Replay(schedule))
    world.run()
    return world.describe()
