"""One segment of a spool, as followed by its reader: how far it was read, and which bytes are settled.

Rules:

1. A byte is *settled* when nothing is left to do about it: the bytes of an event when it has reached its
   fate, all others (header, reports of refusals, kinds of later releases, torn bytes) when they were read. A
   segment may be deleted when all its bytes are settled.
2. Bytes that an earlier run of the publisher settled, and events that were loaded or skipped by their places,
   are passed over. Between those, the same parser finds the records.
3. A file that ends within its header has no records; all of it is torn once its writers are gone.
4. A damaged header is rebuilt, if that is possible (`lost_header`), and counts as torn. Then no space is
   freed before the segment is deleted, so that a later run finds the same header. If there are only zeros,
   they are torn.
5. While the file is closed, only the header that was rebuilt, the offset of the last record read and byte
   ranges are kept.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import partial
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Final

from ...spool.format import (
    EVENT,
    MAX_HEADER,
    OVERHEAD,
    REFUSALS,
    Header,
    RecordRun,
    SegmentParser,
    UnreadableSegmentError,
)
from ..policy.byte_ranges import ByteRanges
from ..policy.span import EventRun, Span, join_spans
from .lost_header import LostHeader

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .files import ReaderFolder, SegmentName
    from .findings import OwnFindings

#: Bytes read at a time. A writer's turn is the whole records in them.
CHUNK: Final = 256 * 1024

#: Space is freed in pieces of at least this many bytes, aligned to `_PAGE`.
MIN_HOLE: Final = 64 * 1024

#: In how many steps the space of a large segment is freed, since each costs some 50 microseconds.
_HOLES: Final = 16
_PAGE: Final = 4096


class FollowedSegment:
    """A segment.

    Args:
        name: The name of its file.
        parsed: The parsed name.
        settled: Byte ranges that an earlier run settled.
        findings: Collects what the reader settles itself.

    Attributes:
        name: The name of its file.
        created: Nanoseconds since 1970.
        writer: Its writer.
        identity: 16 bytes.
        size: The size of its file when last checked; 0 before.
        seen: Offset up to which it was read, or needn't be read.
        position: Offset up to which everything is settled, passed over, handed out, or ready.
        settled: The settled byte ranges.
        synced: Size up to which a sync was tried.
        sync_failed: Whether a sync failed. It isn't synced again: after a failed write, the kernel may report
            the next sync as successful.
        aside: Why it was set aside; empty if it isn't.
        locked: Whether it was locked exclusively: no process has it open, and none will.
        gone: Whether its file was deleted.
        gone_at: When the deletion was noticed.
        lock_at: When to check again whether any process has it open.
        fd: Its descriptor; -1 while it is closed.
        header: Its header; None while the file is closed or the header incomplete.
    """

    __slots__ = (
        *("_findings", "_lost", "_over", "_parser", "_punched", "_ready", "_torn_to", "aside", "created"),
        *("fd", "gone", "gone_at", "header", "identity", "lock_at", "locked", "name", "position"),
        *("seen", "settled", "size", "sync_failed", "synced", "writer"),
    )

    def __init__(
        self,
        name: str,
        parsed: SegmentName,
        settled: Iterable[tuple[int, int]],
        findings: OwnFindings,
    ) -> None:
        self.name: str = name
        self.created: int = parsed.created
        self.writer: str = parsed.writer
        self.identity: bytes = parsed.identity
        self.size: int = 0
        self.seen: int = 0
        self.position: int = 0
        self.settled: ByteRanges = ByteRanges(settled)
        self.synced: int = 0
        self.sync_failed: bool = False
        self.aside: str = ""
        self.locked: bool = False
        self.gone: bool = False
        self.gone_at: float = 0.0
        self.lock_at: float = 0.0
        self.fd: int = -1
        self.header: Header | None = None
        self._over = ByteRanges(self.settled.pairs())  # ranges to pass over
        self._ready: list[RecordRun] = []
        self._findings = findings
        self._lost: LostHeader | None = None
        self._parser: SegmentParser | None = None
        self._punched = _PAGE  # the header stays
        self._torn_to = -1

    @property
    def ready(self) -> bool:
        """Whether there are events that were read but not handed out."""
        return bool(self._ready)

    @property
    def readable(self) -> bool:
        """Whether there may be something to read."""
        return not self.locked and not self.aside

    @property
    def unsettled(self) -> int:
        """Bytes that aren't settled."""
        return max(0, self.size - self.settled.total)

    @property
    def grown(self) -> bool:
        """Whether it has bytes that weren't read yet."""
        return self.size > self.seen

    @property
    def done(self) -> bool:
        """Whether everything found in it is settled; a pending record may follow."""
        return not self._ready and not self.grown and self.settled.prefix >= self.position

    def open(self, files: ReaderFolder) -> None:
        """Open it, and read its header if it is complete.

        Raises:
            FileNotFoundError: It is gone.
            OSError: It can't be read.
            UnreadableSegmentError: It isn't a segment, or its name doesn't match.
        """
        self.fd = files.open(self.name)
        try:
            self._read_header(files)
        except BaseException:
            self.close(files)
            raise

    def close(self, files: ReaderFolder) -> None:
        """Close it; it may be reopened."""
        fd, self.fd = self.fd, -1
        self.header = self._parser = None
        if fd >= 0:
            files.close_file(fd)

    def update_size(self, files: ReaderFolder) -> None:
        """Update the size of the file.

        Raises:
            FileNotFoundError: It was deleted, and isn't open.
            OSError: The size is unknown.
        """
        self.size = files.size(self.fd) if self.fd >= 0 else files.size_of(self.name)

    def fetch(self, files: ReaderFolder) -> bool:
        """Read more, unless events are ready; return whether any are. The file must be open.

        Raises:
            OSError: It can't be read.
            UnreadableSegmentError: It isn't a segment.
        """
        while not self._ready:
            parser = self._parser or self._begin(files)
            if parser is None:
                return False
            at = parser.position + parser.pending
            bound = self._over.next_start(parser.position)
            if bound is not None and at >= bound:
                parser.finish()
                self._advance((), bound)
                self._parser = None
                continue
            data = files.read(self.fd, CHUNK if bound is None else min(CHUNK, bound - at), at)
            if not data:
                return False
            self._record_seen(at + len(data))
            self._advance(parser.feed_runs(data), parser.position)
        return True

    def take(self, max_events: int, max_bytes: int, *, at_least_one: bool = True) -> RecordRun | None:
        """Return some of the ready events; None if the next one is too large.

        Args:
            max_events: Most events to return.
            max_bytes: Most bytes of payloads to return.
            at_least_one: Whether the first event may be larger.
        """
        kind, payloads, start, end = run = self._ready[0]
        if len(payloads) <= max_events and end - start - len(payloads) * OVERHEAD <= max_bytes:
            return self._ready.pop(0)
        sizes = list(accumulate(map(len, islice(payloads, max_events))))
        count = bisect_right(sizes, max_bytes) or int(at_least_one)
        if not count:
            return None
        if count == len(payloads):
            return self._ready.pop(0)
        middle = start + sizes[count - 1] + count * OVERHEAD
        self._ready[0] = run._replace(payloads=payloads[count:], start=middle)
        return RecordRun(kind, payloads[:count], start, middle)

    def finish(self) -> None:
        """Settle the pending bytes as torn. The segment must be locked and read to its end."""
        self._parser = None
        self._advance((), max(self.position, self.seen))

    def load(self, files: ReaderFolder, start: int, end: int) -> EventRun:
        """Return the whole events between two offsets, and their places. The file must be open.

        Raises:
            OSError: It can't be read.
        """
        self.update_size(files)
        events: list[bytes] = []
        spans: list[Span] = []
        if self.header is None or start < 0:
            return EventRun(events, ())
        parser = SegmentParser(self.header, start)
        at, end = start, min(end, self.size)
        while at < end and (data := files.read(self.fd, end - at, at)):
            at += len(data)
            for run in parser.feed_runs(data):
                if run.kind == EVENT:
                    events += run.payloads
                    spans.append(Span(self.identity, run.start, run.end))
        return EventRun(events, join_spans(spans))

    def skip(self, start: int, end: int) -> None:
        """Pass over the events at this place, unless they were handed out."""
        self._parser = None
        if start == self.position:
            self.position = end
            self._record_seen(end)
            return
        if self._ready and start < self.position:  # read the ready events again, without those
            self.position = self.seen = self._ready[0].start
            self._ready.clear()
            for pair in self.settled.pairs():
                self._over.add(*pair)
        self._over.add(start, end)

    def handed_out(self) -> list[tuple[int, int]]:
        """Return the places of events that were handed out and aren't settled; none must be ready."""
        handed_out = ByteRanges([(0, self.position), *self._over.pairs()])
        return [place for pair in handed_out.pairs() for place in self.settled.gaps(*pair)]

    def punch(self, files: ReaderFolder) -> None:
        """Free the space of settled bytes, if that is worthwhile and possible. The file must be open.

        Raises:
            OSError: It failed for this file.
        """
        end = self._hole_end
        start, self._punched = self._punched, end
        files.punch(self.fd, start, end)

    @property
    def punchable(self) -> bool:
        """Whether there is space to free."""
        return self._lost is None and self._hole_end - self._punched >= max(MIN_HOLE, self.size // _HOLES)

    @property
    def _hole_end(self) -> int:
        return min(self.settled.prefix, self.size) // _PAGE * _PAGE

    def _begin(self, files: ReaderFolder) -> SegmentParser | None:
        """Return a parser that continues where the last one ended; None if there is no header."""
        if self.header is None:
            end = self._read_header(files)
            if self.header is None:
                self._record_seen(end)
                if self._lost is not None:
                    for gap in self.settled.gaps(self.position, end):
                        self._tear(*gap)
                    self.position = end
                return None
        if not self.position:
            self.position = len(self.header.encode())
            settle = self._own if self._lost is None else self._tear
            for gap in self.settled.gaps(0, self.position):
                settle(*gap)
        self.position = self._over.end_at(self.position)
        self._record_seen(self.position)
        self._parser = SegmentParser(self.header, self.position)
        return self._parser

    def _read_header(self, files: ReaderFolder) -> int:
        """Read the header if it is complete, or find out what it was if it is damaged.

        Returns:
            The offset up to which the file has nothing to deliver; 0 if the header is known.
        """
        data = files.read(self.fd, MAX_HEADER, 0)
        try:
            self.header = Header.decode(data)
        except UnreadableSegmentError as exc:
            if exc.newer:
                raise
            lost = self._lost = self._lost or LostHeader()
            size = files.size(self.fd)
            lost.search(self.identity, partial(files.read, self.fd), size, self._over)
            self.header = lost.header
            if lost.header is None and not lost.only_zeros:
                raise
            return 0 if lost.header is not None else size
        if self.header is None:
            return len(data)
        if self.header.identity != self.identity:
            raise UnreadableSegmentError("the identity in its header differs from that in its name")
        return 0

    def _record_seen(self, end: int) -> None:
        self.seen = max(self.seen, end)
        self.size = max(self.size, end)

    def _advance(self, runs: Iterable[RecordRun], position: int) -> None:
        """Accept records, and settle the torn bytes before, between and after them."""
        at = self.position
        for run in runs:
            if run.start > at:
                self._tear(at, run.start)
            at = run.end
            if run.kind != EVENT:
                self._own(run.start, at)
                if run.kind == REFUSALS:
                    self._findings.count_refusals(run.payloads[0])
                continue
            self._ready.append(run)
        if position > at:
            self._tear(at, position)
        self.position = position

    def _own(self, start: int, end: int) -> None:
        self.settled.add(start, end)
        self._findings.settle(self.identity, start, end)

    def _tear(self, start: int, end: int) -> None:
        self._own(start, end)
        self._findings.torn_bytes += end - start
        self._findings.torn_gaps += start != self._torn_to
        self._torn_to = end
