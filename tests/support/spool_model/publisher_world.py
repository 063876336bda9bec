"""Services, producers, publishers and an operator with one spool and one queue; and the invariants.

1. *Nothing is lost.* Every event whose put returned is delivered or becomes a dead letter, with exceptions:
   the last event that a killed publisher had received from the queue, and events in segments that an
   operator deleted. If the disk was filled after room was measured, and the queue is full, a stop may lose
   one event. If locks lie, a kill may lose events written to a deleted segment.
2. *Duplicates have their key.* If an event is delivered in different batches, one of them was split, or there
   is an excuse (`excuse`): the ledger was lost or couldn't be written, or segments couldn't be read or
   synced. In one run of a publisher, each event is handed to the policy once.
3. Only events that were put are delivered, and no refused event.
   After a batch was split, only its parts are sent.
4. *Order.* Without failing calls, a run hands the events of a thread to the policy in their order.
5. The accounting is balanced after each step, and a stop drops nothing.
6. *It ends.* Whatever happened before, the whole spool is delivered while the disk stays as full
   as it is; then the disk has room again. In the end no segment is left, and in the ledger only dead
   letters.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections import deque
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

from baseplate_events.counting.refusals import RefusalCounts
from baseplate_events.event_publisher import relay as relay_module
from baseplate_events.event_publisher.config import settings
from baseplate_events.event_publisher.spool_reader import followed_segment
from baseplate_events.spool import writer as writer_module
from baseplate_events.spool.format import EVENT, NEW_SUFFIX, SEGMENT_SUFFIX, Header, SegmentParser

from ..records import feed
from . import programs
from .collector import Collector, JsonEvents
from .files import SimulatedDirectory
from .machine import KilledError, Violation
from .programs import ModelClock, Program, Service, SmallWriter, WipedCell
from .publisher import PublisherCode, SimulatedPublisher
from .publisher_deeds import Harm, Mood, Publish, Put, Syncs
from .publisher_files import SyncedSegment
from .world import Setting, World

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from baseplate_events.event_publisher.config.settings import PublisherSettings
    from baseplate_events.spool.segment import SpoolFolder

    from .kernel import Inode, Process
    from .publisher_deeds import Deed, Shape
    from .schedules import Strategy

#: Steps of a publisher within which everything has to be delivered in the end.
_MAX_LAST_STEPS = 1500

#: Where files are fast.
_MEMORY = Path("/dev/shm")

#: Seconds for which a deleted segment is still read.
_GONE_PAUSE = 1.0


class PublisherWorld(World):
    """One run.

    Args:
        shape: The programs and settings.
        strategy: Chooses what happens.
        random: The random source.
        code: The code under test.
        mood: The probabilities that the collector fails at first, and that an attempt ends between two steps.
    """

    def __init__(
        self,
        shape: Shape,
        strategy: Strategy,
        random: Random,
        *,
        code: PublisherCode | None = None,
        mood: tuple[float, float] = (0.0, 0.9),
        kinds: str = "g",
    ) -> None:
        super().__init__(Setting((), max_size=shape.max_size, segment_size=shape.segment_size), strategy)
        self.shape = shape
        self.code = code if code is not None else PublisherCode()
        self.random = random
        self.queue: deque[bytes] = deque()
        self.collector = Collector(random, *mood)
        self.limbo: set[bytes] = set()
        self.excused: set[bytes] = set()
        self.excuses: set[str] = set()
        self.split: set[bytes] = set()
        self.producers: set[str] = set()
        self.sent: dict[bytes, set[tuple[bytes, ...]]] = {}
        self.orphans: set[bytes] = set()
        self.copied: set[bytes] = set()
        self.dropped: set[bytes] = set()
        self.letters: list[bytes] = []
        self.harmed = False  # whether anything happened that publishers can't make up for
        self.settings = load_settings(drain=shape.drain)
        self.machine.errors = {**self.machine.errors, **shape.errors}
        events = JsonEvents({}, set(), set(), {})
        events.random, events.kinds = random, kinds
        self.events = events
        self.started: list[SimulatedPublisher] = []
        self._staying: SimulatedPublisher | None = None
        self._locker: sqlite3.Connection | None = None
        self._folder = Path(tempfile.mkdtemp(dir=_MEMORY if _MEMORY.is_dir() else None))
        self.ledger_path = self._folder / "ledger.sqlite"

    def run(self) -> None:
        shape = self.shape
        for number, program in enumerate(shape.programs):
            self._begin(program, f"p{number}")

        def make_writer(
            directory: SpoolFolder,
            event_format: str,
            max_size: int,
            refusals: RefusalCounts,
            clock: Callable[[], float],
        ) -> SmallWriter:
            del event_format
            return SmallWriter(directory, max_size, shape.segment_size, refusals, clock)

        try:
            with (
                patch.object(writer_module, "Segment", SyncedSegment),
                patch.object(writer_module, "time_ns", lambda: int(self.machine.now * 1e9)),
                patch.object(os, "urandom", self.random.randbytes),
                patch.object(relay_module, "SpoolWriter", make_writer),
                patch.object(relay_module, "_MARGIN", 200),
                patch.object(followed_segment, "CHUNK", shape.chunk),
                patch.object(followed_segment, "MIN_HOLE", 128),
                patch.object(followed_segment, "_PAGE", 128),
            ):
                try:
                    self.machine.run()
                    self._finish()
                    self._check_all()
                except Exception as exc:
                    raise Violation(f"{exc!r}\n{self.describe()}") from exc
        finally:
            self._unlock()
            for one in self.started:
                one.abandon()
            shutil.rmtree(self._folder)

    # What publishers report.

    def excuse(self, reason: str, *, only_after_faults: bool = False) -> None:
        """Record that all events so far may be delivered again under other keys."""
        if only_after_faults and not self.is_harmed and not self.excuses:
            raise Violation(reason)
        self.excuses.add(reason)
        self.excused.update(event for events in self.events.tried.values() for event in events)

    @property
    def is_harmed(self) -> bool:
        """Whether any call failed, or anything was deleted."""
        return self.harmed or any("fail" in str(detail) for _, _, detail in self.machine.log)

    @property
    def may_be_lost(self) -> int:
        """How many events a stop may lose: one, if the disk was filled after room was measured."""
        is_hurt = self.is_harmed or any(call == "capacity" for _, call, _ in self.machine.log)
        return int(is_hurt and len(self.queue) == self.shape.capacity)

    def check_order(self, offered: Sequence[bytes], relayed: set[bytes]) -> None:
        """Check the order of events that a publisher handed to its policy.

        Events that an earlier one has relayed are no part of this. Nor are those of services while the time
        of the folder advances in ticks: threads that start segments within one may publish the older one
        later, and that isn't seen.
        """
        if self.is_harmed or self.excuses:
            return
        at = {event: number for number, event in enumerate(offered)}
        for thread, events in self.events.tried.items():
            if thread in self.producers:
                mine = [event for event in events if event in relayed]
            else:
                mine = [] if self.shape.ticks else events
            order = [at[event] for event in mine if event in at]
            if order != sorted(order):
                raise Violation(f"the order of {thread} was changed")

    def check_sent(self, events: tuple[bytes, ...]) -> None:
        """Check a batch that is about to be sent against those that were sent before."""
        for event in events:
            if event not in self.excused:
                for other in self.sent.get(event, ()):
                    if len(other) < len(events) and set(other) <= set(events):
                        raise Violation(f"{events} was sent, and before that a part of it")
            self.sent.setdefault(event, set()).add(events)

    def ledger_is_full(self) -> bool:
        """Return whether transactions fail."""
        kernel = self.machine.kernel
        is_full = kernel.capacity is not None and kernel.stored() >= kernel.capacity
        return is_full and self.random.random() < 0.5

    def note_published(self, inode: Inode) -> None:
        """Do nothing."""

    def note_written(self, inode: Inode) -> None:
        """Record writes to a file that no one reads any more because of lying locks."""
        if inode.orphaned_at is not None:
            processes = [one.process for one in self.started if one.process.alive]
            is_open = any(file.inode is inode for one in processes for file in one.descriptors.values())
            if not is_open or self.machine.now > inode.orphaned_at + 0.9 * _GONE_PAUSE:
                self.note_orphan(inode)

    def note_copies(self) -> None:
        """Record that events may be at two places: a publisher died before the ledger was updated."""
        self.excuse("it was killed after a failed sync, while it wrote events to another segment")
        self.copied.update(self.excused)

    def note_orphan(self, inode: Inode) -> None:
        """Record that the events of a deleted file may be lost."""
        self.orphans.update(events_in(inode))

    # What happens.

    def _begin(self, program: Sequence[Deed], name: str) -> None:
        machine = self.machine
        if isinstance(program[0], Publish):
            self._publish([deed for deed in program if isinstance(deed, Publish)], name)
        elif all(
            isinstance(
                deed, Put | Harm | Mood | Syncs | programs.Sleep | programs.Capacity | programs.Destroy
            )
            for deed in program
        ):
            process = machine.kernel.start(name)

            def operate() -> None:
                for deed in program:
                    machine.step(process, type(deed).__name__.lower(), deed)
                    self._operate(deed, name)

            machine.spawn(name, process, operate)
        else:
            self._start(
                tuple(deed for deed in program if not isinstance(deed, Put | Publish | Harm | Mood | Syncs)),
                name,
            )

    def _start(self, program: Program, name: str) -> None:
        machine = self.machine
        process = machine.kernel.start(name)
        directory = SimulatedDirectory(machine, process, self.note_published, self.note_written)
        clock = ModelClock(machine, process)
        refusals = RefusalCounts(WipedCell(2))
        writer = SmallWriter(directory, self.shape.max_size, self.shape.segment_size, refusals, clock)
        self._spawn(Service(process, directory, clock, refusals, writer), program, name)

    def _exit(self, service: Service) -> None:
        service.writer = None
        self.machine.kernel.exit(service.process)

    def _publish(self, program: Sequence[Publish], name: str) -> None:
        """Start a task that runs a publisher, and another one after each kill."""
        machine = self.machine
        process = machine.kernel.start(name)
        left = list(program)

        def run() -> None:
            one: SimulatedPublisher | None = None
            try:
                while left:
                    one = SimulatedPublisher(self, process_of())
                    one.open()
                    for _ in range(left[0].steps):
                        one.loop()
                    deed = left.pop(0)
                    if deed.ends == "stay" and not left:
                        self._staying = one
                    else:
                        one.stop()
                    one = None
            except KilledError:
                if one is not None:
                    one.die()
                self._publish(left[1:] or [Publish(5)] if self.random.random() < 0.5 else left, f"{name}+")
                raise

        processes = iter([process])

        def process_of() -> Process:
            try:
                return next(processes)
            except StopIteration:
                fresh = machine.kernel.start(name)
                assert machine.current is not None
                machine.current.process = fresh
                return fresh

        machine.spawn(name, process, run)

    def _operate(self, deed: Deed, name: str) -> None:
        machine = self.machine
        kernel = machine.kernel
        match deed:
            case Put(kinds):
                for kind in kinds:
                    self.put(kind, name)
            case Syncs(working):
                self.machine.broken = frozenset() if working else frozenset({"sync", "sync names"})
            case Mood(failing):
                self.collector.failing = failing
            case programs.Sleep(seconds):
                machine.now += seconds
            case programs.Capacity(spare):
                kernel.capacity = None if spare is None else kernel.stored() + spare
            case programs.Destroy():
                self.harmed = True
                names: list[str] = [*(kernel.folder.names if kernel.folder is not None else ()), "ledger"]
                self.random.shuffle(names)
                assert machine.current is not None
                process = machine.current.process
                for file in names:
                    machine.step(process, "destroy", file)
                    if file == "ledger":
                        self._harm("delete")
                    else:
                        kernel.destroy_file(file, machine.steps)
                machine.step(process, "destroy", "all")
                kernel.destroy(machine.steps)
            case Harm(kind):
                self._harm(kind)
            case _:
                raise AssertionError("that is for a service, or for a publisher")

    def put(self, kind: str, name: str) -> None:
        """Put an event into the POSIX queue if there is room."""
        events = self.events
        assert isinstance(events, JsonEvents)
        self.producers.add(name)
        event = f'{{"{kind}":"{name}.{len(events.tried.setdefault(name, []))}"}}'.encode()
        if kind == "i":
            event = event[:-1]
        if len(self.queue) < self.shape.capacity:
            events.tried[name].append(event)
            events.acknowledged.add(event)
            self.queue.append(event)

    def _harm(self, kind: str) -> None:
        path = self.ledger_path
        if kind == "unlock":
            self._unlock()
            return
        if not path.exists():
            return
        if kind == "lock":
            if self._locker is None:
                self._locker = sqlite3.connect(path, isolation_level=None)
                with contextlib.suppress(sqlite3.Error):  # it is damaged
                    self._locker.execute("BEGIN IMMEDIATE")
            return
        self._unlock()
        self.harmed = True
        self.excuse("the ledger was lost")
        self._save_letters()
        if kind == "delete":
            path.unlink()
            path.with_name(path.name + "-journal").unlink(missing_ok=True)
            return
        data = path.read_bytes()
        with path.open("r+b") as file:
            if kind == "empty":
                file.truncate(0)
            elif kind == "cut":
                file.truncate(len(data) // 2)
            else:
                file.write(bytes(len(data)))

    def _unlock(self) -> None:
        if self._locker is not None:
            self._locker.close()
            self._locker = None

    # What comes last.

    def _finish(self) -> None:
        self.collector.failing, self.collector.speed = 0.0, 1.0
        self.machine.broken = frozenset()
        self._unlock()
        one = self._staying
        if one is None or not one.process.alive:
            one = SimulatedPublisher(self, self.machine.kernel.start("last"))
            one.open()
        if self.shape.keeps_full:
            self._until(one, lambda: not one.backlog, "what is in the spool isn't delivered")
        self.machine.kernel.capacity = None
        self._until(one, lambda: one.is_idle, "not all is delivered")
        one.look_at_level()
        one.stop()
        after = SimulatedPublisher(self, self.machine.kernel.start("after"))
        after.open()
        for _ in range(5):
            after.loop()
        if after.accounting.received:
            raise Violation("events are there after all were delivered")
        self._until(after, lambda: not self._segments(), "segments stay")
        after.stop()

    def _until(self, one: SimulatedPublisher, done: Callable[[], bool], problem: str) -> None:
        for number in range(_MAX_LAST_STEPS):
            if number > 3 and done():
                return
            one.loop()
            if number % 7 == 0 and not done():
                self.put("g", "life")  # it goes on, which shows what the collector refuses
        raise Violation(problem)

    def _segments(self) -> list[str]:
        folder = self.machine.kernel.folder
        return [] if folder is None else [n for n in folder.names if n.endswith((NEW_SUFFIX, SEGMENT_SUFFIX))]

    def _save_letters(self) -> None:
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite3.connect(self.ledger_path)) as connection,
        ):
            self.letters += [event for (event,) in connection.execute("SELECT event FROM letters")]

    def describe(self) -> str:
        kernel = self.machine.kernel
        names = kernel.folder.names if kernel.folder is not None else {}
        files = [f"{n}: {len(i.data)} bytes, locked {len(i.locked)} times" for n, i in sorted(names.items())]
        return "\n".join(
            [super().describe(), *files, f"queue {list(self.queue)}, limbo {self.limbo}, {self.excuses}"]
        )

    # What must hold.

    def _check_all(self) -> None:
        self._save_letters()
        self._check_ledger()
        self._check_events()

    def _check_ledger(self) -> None:
        connection = sqlite3.connect(self.ledger_path)
        try:
            for table in ("batches", "segments"):
                count = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
                if count != (0,):
                    raise Violation(f"there are {table} left in the ledger")
        except sqlite3.DatabaseError:
            if not self.harmed:
                raise
        finally:
            connection.close()

    def _check_events(self) -> None:
        events = self.events
        accepted = self.collector.accepted
        tried = {event for mine in events.tried.values() for event in mine}
        if not tried >= accepted.keys() | set(self.letters):
            raise Violation("what was delivered is no event")
        if events.refused & accepted.keys():
            raise Violation(f"events were delivered that were refused: {events.refused & accepted.keys()}")
        missing = events.acknowledged - accepted.keys() - set(self.letters) - self.limbo - self.orphans
        missing -= self.dropped
        if missing:
            missing -= self._destroyed()
        if missing:
            raise Violation(f"events were lost: {sorted(missing)}")
        for event, batches in accepted.items():
            if len(batches) > 1 and event not in self.split | self.excused:
                raise Violation(f"{event!r} was delivered under several keys: {batches}")


@cache
def load_settings(*, drain: bool) -> PublisherSettings:
    """Return settings of a publisher."""
    with tempfile.NamedTemporaryFile("w", suffix=".ini") as file:
        file.write(
            "[event-publisher:test]\ncollector.hostname = collector.test\nkey.name = Test\n"
            f"key.secret = c2VjcmV0\ndead_letters.directory = /unused\nshutdown.drain = {drain}\n"
        )
        file.flush()
        return settings.load_settings(file.name, "test", {})


def events_in(inode: Inode) -> list[bytes]:
    """Return the events in a file."""
    header = Header.decode(bytes(inode.data))
    if header is None:
        return []
    parser = SegmentParser(header, len(header.encode()))
    return [r.payload for r in feed(parser, bytes(inode.data[parser.position :])) if r.kind == EVENT]
