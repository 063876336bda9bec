"""Writers with a planted mistake, each with a scene that finds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from baseplate_events.counting.refusals import RefusalCounts
from baseplate_events.spool.segment import NotAppendedError

from .files import OpenSimulatedDirectory, SimulatedDirectory
from .kernel import Description, os_error
from .programs import QuietSegment, SmallWriter
from .world import WriterCode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .kernel import Folder


class Mutant(NamedTuple):
    """A writer with a mistake.

    Attributes:
        code: The changed code.
        scene: The scene that finds it.
        preemptions: Bound of the exploration.
        faults: Another one.
        found: A part of the violation.
    """

    code: WriterCode
    scene: str
    preemptions: int
    faults: int
    found: str


class _NoLock(SimulatedDirectory):
    """Doesn't lock."""

    def lock(self, fd: int, /) -> bool:
        del fd
        return True


class _Opened(OpenSimulatedDirectory):
    """Can do something after a rename."""

    def __init__(self, directory: _AfterRename, folder: Folder) -> None:
        super().__init__(directory, folder)
        self._after = directory.after_rename

    def publish(self, name: str, final: str, /) -> None:
        super().publish(name, final)
        self._after()


class _AfterRename(SimulatedDirectory):
    """Does something after a rename."""

    def open(self) -> OpenSimulatedDirectory:
        super().open()
        return _Opened(self, self.machine.kernel.directory())

    def after_rename(self) -> None:
        """Do it."""


class _LocksLate(_AfterRename):
    """Locks after the rename."""

    waiting: int = -1

    def lock(self, fd: int, /) -> bool:
        self.waiting = fd
        return True

    def after_rename(self) -> None:
        super().lock(self.waiting)


class _PublishesEmpty(_AfterRename):
    """Renames before the first write."""

    waiting: tuple[int, bytes] = (-1, b"")

    def write(self, fd: int, data: bytes, /) -> int:
        if data.startswith(b"event-segment "):
            self.waiting = fd, data
            return len(data)
        return super().write(fd, data)

    def after_rename(self) -> None:
        super().write(*self.waiting)


class _ClosesEarly(_AfterRename):
    """Closes the file after the rename, and reopens it for later writes."""

    waiting: int = -1

    def lock(self, fd: int, /) -> bool:
        self.waiting = fd
        return super().lock(fd)

    def after_rename(self) -> None:
        inode = self.process.description(self.waiting).inode
        self.close(self.waiting)
        self.process.descriptors[self.waiting] = Description(inode)


class _Truncates(SimulatedDirectory):
    """Cuts off what a short write left."""

    def write(self, fd: int, data: bytes, /) -> int:
        before = self.status(fd).size
        written = super().write(fd, data)
        if written < len(data):
            self.begin("truncate", fd)
            del self.process.description(fd).inode.data[before:]
            return 0
        return written


class _WritesTheRest(SimulatedDirectory):
    """Continues after a short write."""

    def write(self, fd: int, data: bytes, /) -> int:
        written = super().write(fd, data)
        if written < len(data):
            written += super().write(fd, data[written:])
        return written


class _WritesTwice(SimulatedDirectory):
    """Writes the head and the event in two calls."""

    def write(self, fd: int, data: bytes, /) -> int:
        written = super().write(fd, data[:16])
        return written + super().write(fd, data[16:]) if written == 16 else written


class _OwnOffset(SimulatedDirectory):
    """Writes at its own offset, without O_APPEND."""

    def write(self, fd: int, data: bytes, /) -> int:
        at = self.status(fd).size
        written = super().write(fd, data)
        content = self.process.description(fd).inode.data
        if written:
            new = bytes(content[-written:])
            del content[-written:]
            content[at : at + written] = new
        return written


class _NoQuota(SimulatedDirectory):
    """Doesn't measure the directory."""

    def open(self) -> OpenSimulatedDirectory:
        class Opened(OpenSimulatedDirectory):
            def used(self) -> int:
                return 0

        super().open()
        return Opened(self, self.machine.kernel.directory())


class _NeverCloses(SimulatedDirectory):
    """Leaves descriptors open."""

    def close(self, fd: int, /) -> None:
        """Do nothing."""


class _Unchecked(QuietSegment):
    """Doesn't check whether its file exists."""

    def _is_there(self) -> bool:
        return True


class _GoesOn(QuietSegment):
    """Appends to a file after a short write."""

    def end(self) -> None:
        """Do nothing."""

    def check(self, now: float) -> bool:
        return self._is_there() and now < self._ends_at and self.room(shared=False) > 0


class _CountsTorn(QuietSegment):
    """Counts an incomplete event as written."""

    def append(self, data: bytes) -> int:
        written = super().append(data)
        return len(data) if written and not data.startswith(b"event-segment ") else written


class _SendsTorn(QuietSegment):
    """Does the same in `send`."""

    def send(self, message: bytes) -> None:
        try:
            super().send(message)
        except NotAppendedError:
            if not self.ended:
                raise


class _ClosesShared(SmallWriter):
    """Closes a segment that other threads may be about to write to."""

    def _start(self, messages: Sequence[bytes], refusals: Mapping[str, int]) -> int:
        before = self.segment
        count = super()._start(messages, refusals)
        if before is not None:
            before.discard()
        return count


class _Reuses(SmallWriter):
    """Reopens its last segment, since there is room in it."""

    def append(self, messages: Sequence[bytes]) -> None:
        super().append(messages)
        segment, directory = self.segment, self._directory
        assert isinstance(directory, SimulatedDirectory)
        if segment is None or segment.ended:
            return
        fd = max(directory.process.descriptors)
        inode = directory.process.description(fd).inode
        directory.close(fd)
        directory.begin("open again", fd)
        directory.process.descriptors[fd] = Description(inode)
        if not inode.links or not directory.lock(fd):
            self.segment = None


class _IsReplaced(QuietSegment):
    """Accepts any segment that was started later as its successor, even if it was created earlier."""

    def check(self, now: float) -> bool:
        self.created = 0
        return super().check(now)

    def send(self, message: bytes) -> None:
        self.created = 0
        super().send(message)


class _PutsBackTwice(RefusalCounts):
    """Puts counts back twice."""

    def put_back(self, counts: dict[str, int]) -> None:
        super().put_back(counts)
        super().put_back(counts)


class _ForgetsRefusals(RefusalCounts):
    """Doesn't put counts back."""

    def put_back(self, counts: dict[str, int]) -> None:
        """Do nothing."""


class _FailsOnce(SimulatedDirectory):
    """Writes an event twice."""

    def write(self, fd: int, data: bytes, /) -> int:
        super().write(fd, data)
        if not data.startswith(b"event-segment "):
            raise os_error(5)
        return len(data)


MUTANTS: dict[str, Mutant] = {
    "no lock": Mutant(WriterCode(directory=_NoLock), "one writer", 1, 0, "lost"),
    "lock after rename": Mutant(WriterCode(directory=_LocksLate), "one writer", 1, 0, "lost"),
    "publish before the first record": Mutant(
        WriterCode(directory=_PublishesEmpty), "one writer", 0, 0, "without a record"
    ),
    "close before the last write": Mutant(WriterCode(directory=_ClosesEarly), "one writer", 1, 0, "lost"),
    "reuse of a segment": Mutant(WriterCode(writer=_Reuses), "one writer", 1, 0, "lost"),
    "truncate after a short write": Mutant(
        WriterCode(directory=_Truncates), "children without a reader", 1, 1, "lost"
    ),
    "write the rest after a short write": Mutant(
        WriterCode(directory=_WritesTheRest), "children without a reader", 1, 1, "after a short write"
    ),
    "write in two calls": Mutant(WriterCode(directory=_WritesTwice), "children", 1, 0, "lost"),
    "write without O_APPEND": Mutant(WriterCode(directory=_OwnOffset), "children", 1, 0, "lost"),
    "go on after a short write": Mutant(
        WriterCode(segment=_GoesOn), "one writer", 0, 1, "after a short write"
    ),
    "count a torn record": Mutant(WriterCode(segment=_CountsTorn), "threads", 0, 1, "lost"),
    "count a torn record in send": Mutant(WriterCode(segment=_SendsTorn), "one writer", 0, 1, "lost"),
    "close a segment of other threads": Mutant(
        WriterCode(writer=_ClosesShared), "threads that rotate", 2, 0, "lost"
    ),
    "leave descriptors open": Mutant(WriterCode(directory=_NeverCloses), "one writer", 0, 0, "descriptors"),
    "go on with an older segment": Mutant(
        WriterCode(segment=_IsReplaced), "threads that start at once", 2, 0, "order"
    ),
    "write to a deleted file": Mutant(WriterCode(segment=_Unchecked), "a deleted directory", 1, 0, "lost"),
    "write again what is written": Mutant(WriterCode(directory=_FailsOnce), "one writer", 0, 0, "twice"),
    "no limit": Mutant(WriterCode(directory=_NoQuota), "a full spool", 0, 0, "bytes are in the spool"),
    "give refusals back twice": Mutant(WriterCode(refusals=_PutsBackTwice), "a full disk", 0, 0, "refusals"),
    "forget refusals": Mutant(WriterCode(refusals=_ForgetsRefusals), "a full disk", 0, 0, "refusals"),
}
