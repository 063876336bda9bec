"""The simulated folder of a publisher's spool, its queue, and the file of its ledger."""

from __future__ import annotations

import errno
import sqlite3
from typing import TYPE_CHECKING, Protocol

from baseplate_events.errors import EventQueueFullError
from baseplate_events.event_publisher.ledger.ledger import Ledger
from baseplate_events.event_publisher.missing_queue import MissingQueue
from baseplate_events.event_publisher.spool_reader.files import FolderVersion

from .files import ReaderFiles, SimulatedDirectory
from .kernel import os_error
from .programs import QuietSegment
from .real_reader import SimulatedFolder

if TYPE_CHECKING:
    import select
    from collections import deque
    from collections.abc import Collection, Generator, Sequence

    from baseplate_events.event_publisher.ledger.rows import Statement
    from baseplate_events.event_publisher.policy.journal import DeadLetter, EnteredBatch

    from .kernel import Process
    from .machine import Machine

#: Seconds between two ticks of the clock that folders get their times from, and after which a time is sure.
_TICK = 0.004
_SURE = 0.02

#: Room on a disk that isn't full.
PLENTY = 1 << 40


class PublisherDirectory(SimulatedDirectory):
    """The directory for the relay of a publisher."""

    def sync(self, fd: int) -> None:
        """Sync a file; see `Segment.sync`."""
        self.begin("sync", fd)
        if "sync" in self.machine.broken:
            raise os_error(errno.EIO)

    def free(self) -> tuple[int, int | None]:
        """Return the free bytes of the disk, and None for unlimited inodes."""
        self.begin("statvfs")
        kernel = self.machine.kernel
        if kernel.folder is None:
            raise os_error(errno.ENOENT)
        room = PLENTY if kernel.capacity is None else kernel.capacity - kernel.stored()
        return max(0, room), None


class SyncedSegment(QuietSegment):
    """A segment that is synced to the simulated disk."""

    def sync(self) -> None:
        directory = self._directory
        assert isinstance(directory, PublisherDirectory)
        directory.sync(self._fd)


class PublisherFolder(SimulatedFolder):
    """The folder for the reader of a publisher; any call may fail.

    Args:
        machine: Where it runs.
        process: The publisher.
        lies: Whether each attempt to lock a file is reported as successful.
        ticks: Whether the folder's time advances in ticks, as in Linux, or with each change.
        punches: Whether holes can be punched.
    """

    def __init__(self, machine: Machine, process: Process, *, lies: bool, ticks: bool, punches: bool) -> None:
        super().__init__(ReaderFiles(machine, process))
        self._lies = lies
        self._ticks = ticks
        self._punches = punches
        self._current = machine.kernel.directory()

    @property
    def punches(self) -> bool | None:
        return self._punches

    def version(self) -> FolderVersion:
        self._step("version")
        folder = self._kernel.folder
        if folder is None:
            return FolderVersion(errno.ENOENT, sure=True)
        if not self._ticks:
            return FolderVersion((id(folder), folder.changes), sure=True)
        tick = folder.changed_at // _TICK
        return FolderVersion((id(folder), tick), sure=self._kernel.now > tick * _TICK + _SURE)

    def names(self) -> list[str]:
        self._step("names")
        self._current = self._kernel.directory()
        return sorted(self._current.names)

    def size_of(self, name: str) -> int:
        if self._current is not self._kernel.folder:
            raise os_error(errno.ENOENT)
        return super().size_of(name)

    def open(self, name: str) -> int:
        if self._current is not self._kernel.folder:
            raise os_error(errno.ENOENT)
        return super().open(name)

    def lock(self, fd: int) -> bool:
        return super().lock(fd) or self._lies

    def delete(self, name: str) -> None:
        if self._current is not self._kernel.folder:
            raise os_error(errno.ENOENT)
        inode = self._current.names.get(name)
        super().delete(name)
        if inode is not None and self._lies:
            inode.orphaned_at = self._kernel.now

    def punch(self, fd: int, start: int, end: int) -> None:
        self._step("punch", (start, end))
        self._kernel.punch(self._process, fd, start, end)

    def sync(self, fd: int) -> None:
        self._step("sync", fd)

    def sync_names(self) -> None:
        self._step("sync names")

    def close(self) -> None:
        self._step("close folder")

    def _step(self, call: str, detail: object = "") -> None:
        option = self._machine.step(self._process, call, detail)
        if option.kind == "fail" or call in self._machine.broken:
            raise os_error(int(option.target) or errno.EIO)


class SimulatedQueue(MissingQueue):
    """The POSIX queue for a publisher.

    Args:
        machine: Where it runs.
        process: The publisher.
        events: Its events.
        capacity: Its capacity in events.

    Attributes:
        last: The event received last.
        awaited: Whether the publisher waits for events.
        refused: Events that couldn't be put back.
        received: All received events.
    """

    def __init__(self, machine: Machine, process: Process, events: deque[bytes], capacity: int) -> None:
        super().__init__("/events-test", None, 0.0)
        self.last: bytes | None = None
        self.awaited = False
        self.refused: list[bytes] = []
        self.received: set[bytes] = set()
        self._machine = machine
        self._process = process
        self._events = events
        self.capacity = capacity
        self.message_size = 100

    @property
    def depth(self) -> int:
        return len(self._events)

    def register(self, poller: select.poll, *, receiving: bool) -> None:
        del poller
        self.awaited = receiving

    def receive(self) -> Generator[bytes]:
        self.found_empty = False
        return self._drain()

    def _drain(self) -> Generator[bytes]:
        while True:
            self._machine.step(self._process, "receive")
            if not self._events:
                break
            self.last = self._events.popleft()
            self.received.add(self.last)
            yield self.last
        self.found_empty = True

    def requeue(self, event: bytes, timeout: float, now: float) -> None:
        del timeout, now
        self._machine.step(self._process, "requeue")
        if len(self._events) >= self.capacity:
            self.refused.append(event)
            raise EventQueueFullError(self.name)
        self._events.appendleft(event)


class LedgerOwner(Protocol):
    """The ledger's interface to the world."""

    def ledger_is_full(self) -> bool:
        """Return whether transactions fail."""
        ...

    def excuse(self, reason: str, *, only_after_faults: bool = False) -> None:
        """Record that all events so far may be delivered again under other keys."""


class SimulatedLedger(Ledger):
    """The real ledger: its process may be killed before and after each transaction, which may fail.

    A kill within a transaction is the same as one before it: SQLite's own tests, and `ledger/test_kill.py`,
    show that.

    Args:
        path: The file, on a real disk.
        machine: Where the publisher runs.
        process: The publisher.
        owner: Knows whether the disk is full, and records what is forgotten.
    """

    def __init__(self, path: str, machine: Machine, process: Process, owner: LedgerOwner) -> None:
        self._machine = machine
        self._process = process
        self._owner = owner
        super().__init__(
            path,
            clock=lambda: machine.now,
            wall_time=lambda: machine.now,
            max_letters_size=1 << 30,
            queue_name="test",
        )

    @property
    def number_unwritten(self) -> int:
        """Consecutive failures: above 0, the file lags behind memory."""
        return self._failures

    def lose_batches(self) -> None:
        """Forget all batches, in memory."""
        self._batches.clear()

    def lose_segments(self) -> None:
        """Forget the settled ranges of all segments."""
        super().forget(list(self._resolved))

    def abandon(self) -> None:
        """Close the file, like the end of the process."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def replace(self, order: tuple[int, int], parts: Sequence[EnteredBatch]) -> None:
        if not parts:
            self._owner.excuse("a batch of an earlier run couldn't be loaded", only_after_faults=True)
        super().replace(order, parts)

    def retain(self, identities: Collection[bytes] | None) -> None:
        before = len(self.unfinished())
        super().retain(identities)
        if len(self.unfinished()) < before:
            self._owner.excuse("segments of a batch are gone", only_after_faults=True)

    def _open(self, patience: float) -> sqlite3.Connection:
        if self._machine.step(self._process, "open ledger").kind == "fail":
            raise sqlite3.OperationalError("unable to open database file")
        del patience  # time stands still
        return super()._open(0.0)

    def _transact(self, statements: Sequence[Statement], letters: Sequence[DeadLetter]) -> int:
        detail = [statement[0].split()[0] for statement in statements]
        if self._machine.step(self._process, "transaction", detail).kind == "fail":
            raise sqlite3.OperationalError("disk I/O error")
        if self._owner.ledger_is_full():
            raise sqlite3.OperationalError("database or disk is full")
        dropped = super()._transact(statements, letters)
        self._machine.step(self._process, "committed")
        return dropped
