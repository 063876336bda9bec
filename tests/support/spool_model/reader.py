"""A reference reader that follows the rules of deletion, and delivers immediately.

1. It reads the newest file first and delivers the oldest first; if other files appeared
   in the meantime, it reads all again before it delivers. So of two events that one thread appended to two
   files, the first is delivered first, also if the older file was published later.
2. A file is deleted if it could be locked exclusively, and after that had no more than was delivered. The
   open descriptor is read once more before it is closed.
3. A file that isn't published is deleted if it can be locked exclusively.
4. What was delivered is remembered by the segments' identities, also when the reader is killed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from baseplate_events.spool.format import NEW_SUFFIX, SEGMENT_SUFFIX, Header, SegmentParser

from ..records import Record, feed
from .machine import Violation

if TYPE_CHECKING:
    from collections.abc import Callable

    from .files import ReaderFiles


class Reader(Protocol):
    """The model's interface to a reader."""

    def look(self) -> None:
        """Deliver all events so far, and delete what can be deleted."""


class ModelLedger:
    """The state that survives a reader: delivered records, and the position in each segment.

    Attributes:
        records: All records that were delivered.
        positions: Offset after the last one, by the identity of the segment.
        ranges: Settled ranges by segment identity, for the publisher's reader.
    """

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.positions: dict[bytes, int] = {}
        self.ranges: dict[bytes, list[tuple[int, int]]] = {}


#: Makes a reader of the files that survives being killed by a ledger.
if TYPE_CHECKING:
    MakeReader = Callable[[ReaderFiles, ModelLedger], Reader]


class _FollowedSegment(NamedTuple):
    fd: int
    header: Header
    parser: SegmentParser


class ReferenceReader:
    """Reads the segments of all writers."""

    def __init__(self, files: ReaderFiles, ledger: ModelLedger) -> None:
        self._files = files
        self._ledger = ledger
        self._followed: dict[str, _FollowedSegment] = {}

    def look(self) -> None:
        """See `Reader`."""
        data: dict[str, bytes] = {}
        while self._find(clean=not data) or not data:
            for name in sorted(self._followed, reverse=True):
                one = self._followed[name]
                known = data.get(name, b"")
                data[name] = known + self._files.read(
                    one.fd, one.parser.position + one.parser.pending + len(known)
                )
            if not data:
                return
        for name in sorted(self._followed):
            one = self._followed[name]
            self._deliver(one, feed(one.parser, data[name]))
        for name in sorted(self._followed):
            self._try_to_delete(name)

    def _find(self, *, clean: bool) -> bool:
        """Find segments, and return whether there are new ones."""
        before = len(self._followed)
        for name in self._files.names():
            if name.endswith(NEW_SUFFIX) and clean:
                self._clean(name)
            elif name.endswith(SEGMENT_SUFFIX) and name not in self._followed:
                self._follow(name)
        return len(self._followed) > before

    def _clean(self, name: str) -> None:
        fd = self._files.open(name)
        if fd is not None:
            if self._files.lock(fd):
                self._files.delete(name)
            self._files.close(fd)

    def _follow(self, name: str) -> None:
        fd = self._files.open(name)
        if fd is not None:
            header = Header.decode(self._files.read(fd, 0))
            if header is None:
                raise Violation(f"{name} has no header")
            start = self._ledger.positions.get(header.identity, len(header.encode()))
            self._followed[name] = _FollowedSegment(fd, header, SegmentParser(header, start))

    def _deliver(self, one: _FollowedSegment, records: list[Record]) -> None:
        for record in records:
            self._ledger.records.append(record)
            self._ledger.positions[one.header.identity] = record.end

    def _try_to_delete(self, name: str) -> None:
        one = self._followed[name]
        if not self._files.lock(one.fd):
            return
        parser = one.parser
        end = parser.position + parser.pending
        if self._files.read(one.fd, end):
            return  # the next look delivers it, after what may be in older files
        self._files.delete(name)
        if self._files.read(one.fd, end):
            raise Violation(f"{name} grew after it was deleted")
        del self._followed[name]
        self._files.close(one.fd)
