"""A single process with its own directory, in which only the test acts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from baseplate_events.counting.refusals import RefusalCounts
from baseplate_events.spool.format import Encoder, Header, SegmentParser
from baseplate_events.spool.segment import Segment
from baseplate_events.spool.writer import SpoolWriter

from ..records import feed
from .files import SimulatedDirectory
from .machine import Machine
from .schedules import Replay

if TYPE_CHECKING:
    from .kernel import Inode

HEADER = Header("2", bytes(range(16)))


class Alone:
    """A process that puts events.

    Attributes:
        now: What its clock says.
        machine: What it runs on.
        kernel: That machine's.
        process: The kernel's process.
        directory: Of its spool; errors can be planned.
        refusals: Its refusal counts.
    """

    def __init__(self) -> None:
        self.now = 100.0
        self.machine = Machine(Replay({}))
        self.kernel = self.machine.kernel
        self.process = self.kernel.start("service")
        self.directory = SimulatedDirectory(self.machine, self.process, lambda _: None, lambda _: None)
        self.refusals = RefusalCounts()

    def writer(self, max_size: int = 2**20) -> SpoolWriter:
        """Return a writer."""
        return SpoolWriter(self.directory, "2", max_size, self.refusals, lambda: self.now)

    def segment(self, limit: int = 1000) -> Segment:
        """Return an empty segment, with a name."""
        fd = self.kernel.create(self.process, self.kernel.directory(), "1.segment")
        encoder = Encoder(HEADER)
        self.kernel.write(self.process, fd, encoder.header)
        return Segment(self.directory, fd, encoder, created=1, limit=limit, now=self.now)

    @property
    def names(self) -> list[str]:
        """What is in the directory."""
        return sorted(self.kernel.directory().names)

    def files(self) -> list[Inode]:
        """Return the files in the directory, in the order of their names."""
        return [self.kernel.directory().names[name] for name in self.names]

    def records(self) -> list[tuple[bytes, bytes]]:
        """Return kind and payload of all records in the directory, in order."""
        return [record for inode in self.files() for record in records_of(inode)]


def records_of(inode: Inode) -> list[tuple[bytes, bytes]]:
    """Return kind and payload of all records of a file, in order."""
    header = Header.decode(bytes(inode.data))
    assert header is not None
    start = len(header.encode())
    parser = SegmentParser(header, start)
    return [(record.kind, record.payload) for record in feed(parser, bytes(inode.data[start:]))]
