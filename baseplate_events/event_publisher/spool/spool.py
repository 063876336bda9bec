"""The spool: events on disk from the moment they leave the queue until the collector has them.

Layout of the folder, which belongs to one publisher at a time:

    segment-0000000042    the events of one batch
    journal-0000000041    likewise, or nothing yet; see `journal`

Segments are numbered in the order in which they were opened; `segment_format` tells what is in them. A
journal says itself which segment it holds.

Rules:

1. A segment is written once, closed with its batch, and deleted when every event of it has found its fate.
2. A frame that is torn or damaged, and whatever follows it in its segment, is cut off and counted, never
   delivered.
3. A failing disk is a `SpoolError` and nothing else. No event lands behind what a failed write left: that is
   cut off at once, or the file is given up and its events are written anew to another one.
4. What can't be deleted counts in `size` and is tried again; after a restart its events come again.
5. Reading takes the memory of one segment, however many there are and whatever their bytes say.
6. The events of the open segment are in a journal, which is the segment's file when that is closed, and is
   emptied when all are delivered. When the few journals are in use, a segment gets a file of its own: it is
   written at once, with what is in the journal, and forced onto the disk if the journal may be there by then.
   If the disk doesn't take it, the journal stays the segment's file. Journals that are empty are deleted when
   room is short, in the spool or on the disk.
7. An event that doesn't fit into the journal sends those before it to such a file, where the others follow
   one by one. So do all of them where files can't be mapped (see `disk`), where each event is forced onto the
   disk, which takes a hundred times longer than the write, and in a small spool.

What is lost, beside the one event that was received from the queue and whose `append` hadn't returned yet:

    fsync   if the process crashes   if the power or the system fails
    event   nothing                  nothing that `append` returned for
    batch   nothing                  the events of the open segment, which is closed when its batch is full,
                                     or due and ready to be sent; and those of a segment that a crash of the
                                     process left open, until the system has written it
    never   nothing                  what the system hasn't written yet: on Linux by default the last 30 to
                                     40 seconds (vm.dirty_expire_centisecs, vm.dirty_writeback_centisecs, and
                                     as much again if a segment gets a file of its own), and longer where the
                                     file system writes its own records later: XFS has lost 56 seconds. It is
                                     written in any order, so that an older segment, or the rest of one, may
                                     be lost and a newer one not

A power cut also empties the queue, which is in memory, and may bring back segments that were deleted shortly
before, so that delivered events are sent again. All of it holds as far as the disk keeps what it confirmed.
"""

from __future__ import annotations

import contextlib
import itertools
import time
import zlib
from typing import TYPE_CHECKING, Final

from ..config.settings import Sync
from ..policy.store import StoredBatch
from ..storage import Disk, SpoolError
from .mapped_segment import Journal
from .recovery import look_into, sort_out
from .segment_files import Files, journal_name, number_of, segment_name
from .segment_format import FRAME_SIZE, LINE_LIMIT, SegmentFormat, frame, pack_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .recovery import Leftover

#: Bytes that a file may have to be read as a segment: 64 MiB are the largest batch, and as much again is more
#: than its frames take. Bounds the memory that a file that isn't ours can cost.
_SEGMENT_LIMIT: Final = 128 * 1024 * 1024

#: Bytes of a journal: room for a batch of the default size with as many frames as it may have, 512,000 +
#: 8 * 10,000, and then some.
JOURNAL_SIZE: Final[int] = 640 * 1024

#: Journals at most, the open segment's included. With a collector that answers at once, and any number of
#: senders, no more were seen in use.
JOURNALS: Final[int] = 4

#: A spool that has room for fewer journals than this does without.
_SHARE: Final = 4 * JOURNALS

#: Seconds after which what is in a journal may have got onto the disk: the period in which Linux writes back
#: (vm.dirty_writeback_centisecs).
WRITTEN_BACK: Final[float] = 5.0


class Spool:
    """Segments of events on a disk. Used by one thread.

    Args:
        disk: Where the segments are.
        path: What the disk is called in errors.
        version: Format of the events, `collector.version`.
        max_size: Bytes that all files together may take. While a file that was given up is replaced there may
            be one segment more.
        sync: When what was written is forced onto the disk.
        journal_size: Bytes of a journal.
        clock: Gives seconds that never go back.

    Attributes:
        cut: Segments that did not end with a whole frame, each counted once, but by every publisher that
            finds it.
    """

    def __init__(
        self,
        disk: Disk,
        path: str,
        *,
        version: str,
        max_size: int,
        sync: Sync,
        journal_size: int = JOURNAL_SIZE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._disk = disk
        self._path = path
        self._clock = clock
        self._format = SegmentFormat(version)
        self._files = Files(disk)
        self._room = max_size - len(self._format.header) - FRAME_SIZE
        self._forces_events = sync is Sync.EVENT
        self._forces_segments = sync is Sync.BATCH  # with EVENT there is nothing left to force then
        self._journal_size = journal_size
        self._has_journals = disk.maps and not self._forces_events and max_size >= _SHARE * journal_size
        self.cut: int = 0
        self._next = 0
        self._closed: dict[int, str] = {}  # the files of closed segments
        self._given_up: list[str] = []  # not trusted; they go when the open segment's events are elsewhere
        self._damaged: set[int] = set()
        # Journals that are empty, and those that are the files of closed segments.
        self._empty: list[Journal] = []
        self._used: dict[int, Journal] = {}
        # The open segment. Its events are in a journal or, if there is a handle, in a file of its own. If
        # there is neither, that was given up.
        self._number = 0
        self._events: list[bytes] = []
        self._journal: Journal | None = None
        self._handle: int | None = None
        # What `append` needs of the journal. Nothing is `spare` if the next event can't simply follow there.
        # `reserve` are the bytes of a file that its events may be moved to.
        self._spare = 0
        self._reserve = 0
        self._seed = 0
        self._put: Callable[[bytes], object] = bytes
        self._opened_at = 0.0
        self._fails = False  # the last event wasn't taken

    @property
    def size(self) -> int:
        """Bytes of all files, journals and those that couldn't be deleted included."""
        return self._files.size

    def has_room(self, event_size: int) -> bool:
        """Whether an event of that size could be appended to a new segment without exceeding `max_size`.

        If not, files that couldn't be deleted are tried again first, and journals that are empty are deleted.
        """
        if self._files.size + self._reserve + event_size <= self._room:
            return True
        self._files.delete_again()
        if self._files.size + self._reserve + event_size > self._room:
            self._delete_journals()
        return self._files.size + self._reserve + event_size <= self._room

    def recover(self, progress: Callable[[int, int], None] = lambda _done, _total: None) -> list[StoredBatch]:
        """Find the segments that an earlier publisher left behind, oldest first.

        Files without a whole event are deleted. To be called once, before anything is appended; it reads all
        of the spool.

        Args:
            progress: Told after each file how many were read, of how many.

        Raises:
            SpoolError: A segment can't be read, is of another version or format, or isn't one at all; its
                `path` is that file's. Nothing changed, neither on the disk nor here.
        """
        try:
            names = sorted(self._disk.names())
        except OSError as exc:
            raise self._failure("can't be read", exc) from exc
        numbers = {name: number for name in names if (number := number_of(name)) is not None}
        leftovers: list[Leftover] = []
        for name, number in numbers.items():
            leftovers.append(self._look_into(name, number))
            progress(len(leftovers), len(numbers))
        needed, useless = sort_out(leftovers)
        # What is less in one file than in another isn't lost.
        self.cut += sum(leftover.torn for leftover in needed)
        self.cut += sum(leftover.torn for leftover in useless if not leftover.count)
        self._next = max([*numbers.values(), *(leftover.number for leftover in needed)], default=-1) + 1
        for leftover in leftovers:
            self._files.set_size(leftover.name, leftover.size)
        for leftover in useless:
            self._files.delete(leftover.name)
        return [self._adopt(leftover) for leftover in needed]

    def _look_into(self, name: str, number: int) -> Leftover:
        try:
            data = self._disk.read(name, _SEGMENT_LIMIT)
        except OSError as exc:
            raise self._failure("can't be read", exc, name) from exc
        leftover = look_into(name, number, data, self._format)
        if leftover.problem is not None:
            raise SpoolError(f"{self._path}/{name}", leftover.problem)
        return leftover

    def _adopt(self, leftover: Leftover) -> StoredBatch:
        """Make a file that was found a closed segment."""
        self._closed[leftover.number] = leftover.name
        size = leftover.size
        if leftover.name != segment_name(leftover.number):  # a journal; what is free in it only takes room
            self._files.cut(leftover.name, leftover.end)
            size = leftover.end
        return StoredBatch(leftover.number, leftover.count, leftover.events_size, size)

    def append(self, event: bytes) -> None:
        """Write an event to the open segment, opening one if need be.

        Args:
            event: At most 16 MiB, as a queue bounds it. A segment may have 128 MiB.

        Raises:
            SpoolError: The disk is full or fails. The event isn't in the spool, except for a copy that
                couldn't be cut off and may turn up in a recovery. The events before it are there as before.
                If their file isn't to be trusted any more, the next call of this method or of
                `close_segment` writes them anew; until then they are in memory and in that file.
        """
        length = len(event)
        spare = self._spare - FRAME_SIZE - length
        if spare >= 0:
            self._put(pack_frame(length, zlib.crc32(event, self._seed)) + event)
            self._spare = spare
            self._events.append(event)
            return
        try:
            self._append_slowly(event)
        except OSError as exc:
            self._fails = True
            self._delete_journals()
            raise self._failure("can't be written", exc) from exc
        self._fails = False
        self._events.append(event)

    def _append_slowly(self, event: bytes) -> None:
        """Write an event that can't simply follow in the journal."""
        handle = self._handle
        if self._journal is not None:
            handle = self._handle = self._move(self._journal)
        elif handle is None:
            if not self._begin_journal(event):
                self._handle = self._write_anew([*self._events, event])
            return
        name = segment_name(self._number)
        before = self._files.size_of(name)
        try:
            self._files.write(name, handle, frame(event, self._seed))
            if self._forces_events:
                self._disk.sync(handle)
        except OSError:
            written = self._files.size_of(name) == before + FRAME_SIZE + len(event)
            try:
                self._files.truncate(name, handle, before)
            except OSError:
                self._give_up()
            if written:  # and not forced onto the disk
                self._give_up()
            raise

    def close_segment(self) -> StoredBatch | None:
        """Close the open segment, so that its batch can be sent; None if no event is in it.

        Raises:
            SpoolError: The disk is full or fails. The segment stays open. Its file isn't trusted any more,
                since after a failed fsync a second one may succeed with nothing on the disk. Its events are
                in that file and in memory, and the next call of this method or of `append` writes them anew.
        """
        if not self._events:
            return None
        try:
            size = self._close_file() if self._journal is None else self._close_journal(self._journal)
        except OSError as exc:
            raise self._failure("can't be written", exc) from exc
        segment = StoredBatch(self._number, len(self._events), sum(map(len, self._events)), size)
        self._events = []
        return segment

    def load(self, segment: StoredBatch) -> tuple[bytes, ...]:
        """Read the events of a closed segment.

        Returns:
            Those that are whole, in order: all `segment.count` of them, or fewer, even none, if the file was
            damaged or deleted meanwhile, which `cut` counts.

        Raises:
            SpoolError: The file can't be read; nothing changed.
        """
        name = self._closed[segment.number]
        try:
            data = self._disk.read(name, _SEGMENT_LIMIT)
        except FileNotFoundError:
            data = b""
        except OSError as exc:
            raise self._failure("can't be read", exc, name) from exc
        spans = itertools.islice(self._format.spans(data, segment.number), segment.count)
        events = tuple(data[start:end] for start, end in spans)
        if len(events) < segment.count and segment.number not in self._damaged:
            self._damaged.add(segment.number)
            self.cut += 1
        return events

    def release(self, number: int) -> None:
        """Let go of a closed segment whose every event has found its fate; one that is gone is no error.

        If the disk doesn't let its file be deleted it goes on counting in `size`, is tried again by later
        calls and by `has_room`, and after a restart its events come again.
        """
        name = self._closed.pop(number, None)
        if name is None:
            return
        self._damaged.discard(number)
        journal = self._used.pop(number, None)
        if journal is not None and not self._fails:
            journal.empty()
            self._empty.append(journal)
            return
        if journal is not None:  # the disk may need its room
            journal.close()
        if self._files.delete(name):
            self._files.delete_again()

    def close(self) -> None:
        """Close the open segment, as `close_segment` does; its events are recovered by the next publisher.

        Nothing else is called afterwards. Never raises: if the disk fails, as much is recovered as it has
        taken.
        """
        with contextlib.suppress(SpoolError):
            self.close_segment()
        for journal in self._used.values():
            journal.close()
            self._files.cut(journal.name, journal.end)
        self._used.clear()
        self._delete_journals()

    def _begin_journal(self, event: bytes) -> bool:
        """Open a segment in a journal, with its first event; tell whether that could be done."""
        size = self._journal_size
        # A file that its events may be moved to needs as much room again.
        if self._events or not self._has_journals or self._files.size + 2 * size > self._room:
            return False
        line = self._format.line(self._next + 1)
        if len(line) > LINE_LIMIT or len(line) + FRAME_SIZE + len(event) > size:
            return False
        journal = self._empty.pop() if self._empty else self._make_journal()
        if journal is None:
            return False
        self._number = self._next
        self._next += 1
        journal.begin(self._format.line(self._number), event)
        self._journal = journal
        self._opened_at = self._clock()
        self._reserve = journal.size
        self._spare, self._seed, self._put = journal.size - journal.end, journal.seed, journal.memory.write
        return True

    def _make_journal(self) -> Journal | None:
        """Make a journal, if there is room for it."""
        size = self._journal_size
        if len(self._used) >= JOURNALS or self._files.size + 3 * size > self._room:
            return None
        name = journal_name(self._next)
        self._next += 1
        try:
            handle = self._files.create(name, bytes(size))
        except OSError:
            return None
        try:
            return Journal(self._disk, name, handle, size)
        except OSError:
            self._files.discard(name, handle)
            return None

    def _delete_journals(self) -> None:
        """Give back the room of the journals that are empty."""
        for journal in self._empty:
            journal.close()
            self._files.delete(journal.name)
        self._empty.clear()

    def _move(self, journal: Journal) -> int:
        """Write what is in the journal to a file of the segment's own, and empty it; return the handle."""
        journal.end = journal.size - self._spare
        is_old = self._clock() - self._opened_at >= WRITTEN_BACK
        content = journal.content()
        handle = self._files.create(
            segment_name(self._number), content, force=is_old and not self._forces_segments
        )
        self._leave_journal()
        journal.empty()
        self._empty.append(journal)
        return handle

    def _leave_journal(self) -> None:
        self._journal = None
        self._spare = self._reserve = 0

    def _close_journal(self, journal: Journal) -> int:
        """Close the open segment, which is in a journal; return its size."""
        if len(self._used) + 1 >= JOURNALS:  # the next segment needs it
            with contextlib.suppress(OSError):  # a disk that is full needs no room for what is there
                self._handle = self._move(journal)
        if self._handle is not None:
            return self._close_file()
        journal.end = journal.size - self._spare
        self._leave_journal()
        if self._forces_segments:
            try:
                journal.force()
            except OSError:
                journal.close()
                self._given_up.append(journal.name)
                raise
        self._used[self._number] = journal
        self._closed[self._number] = journal.name
        return journal.end

    def _write_anew(self, events: Sequence[bytes]) -> int:
        """Write events to a new file, which is the open segment's then; delete those that were given up."""
        self._number = self._next
        self._next += 1
        self._seed = self._format.seed
        data = self._format.header + b"".join(map(self._format.frame, events))
        handle = self._files.create(segment_name(self._number), data, force=self._forces_events)
        given_up, self._given_up = self._given_up, []
        for name in given_up:
            self._files.delete(name)
        return handle

    def _close_file(self) -> int:
        """Close the open segment, which is in a file of its own or is written to one; return its size."""
        if self._handle is None:
            self._handle = self._write_anew(self._events)
        handle, name = self._handle, segment_name(self._number)
        try:
            if self._forces_segments:
                self._files.force(handle)
            self._handle = None
            self._disk.close(handle)
        except OSError:
            self._give_up()
            raise
        self._closed[self._number] = name
        return self._files.size_of(name)

    def _give_up(self) -> None:
        """Stop trusting the open file; it stays until its events are elsewhere."""
        if self._handle is not None:
            with contextlib.suppress(OSError):
                self._disk.close(self._handle)
            self._handle = None
        name = segment_name(self._number)
        if name not in self._given_up:
            self._given_up.append(name)

    def _failure(self, problem: str, exc: OSError, name: str | None = None) -> SpoolError:
        path = self._path if name is None else f"{self._path}/{name}"
        return SpoolError(path, f"{problem}: {exc.strerror or type(exc).__name__}")
