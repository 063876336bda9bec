"""The spool: events on disk from the moment they leave the queue until the collector has them.

Layout of the folder, which belongs to one publisher at a time:

    segment-0000000042    the events of one batch

Segments are numbered in the order in which they were opened; `segment_format` tells what is in them.

Rules:

1. A segment is written once, closed with its batch, and deleted when every event of it has found its fate.
2. A frame that is torn or damaged, and whatever follows it in its segment, is cut off and counted, never
   delivered.
3. A failing disk is a `SpoolError` and nothing else. No event lands behind what a failed write left: that is
   cut off at once, or the file is given up and its events are written anew to another one.
4. What can't be deleted counts in `size` and is tried again; after a restart its events come again.
5. Reading takes the memory of one segment, however many there are and whatever their bytes say.

What is lost, beside the one event that was received from the queue and whose `append` hadn't returned yet:

    fsync   if the process crashes   if the power or the system fails
    event   nothing                  nothing that `append` returned for
    batch   nothing                  the events of the open segment, which is closed when its batch is full,
                                     or due and ready to be sent; and those of a segment that a crash of the
                                     process left open, until the system has written it
    never   nothing                  what the system hasn't written yet: on Linux by default the last 30 to
                                     35 seconds (vm.dirty_expire_centisecs, vm.dirty_writeback_centisecs);
                                     in any order, so that an older segment may be lost and a newer one not

A power cut also empties the queue, which is in memory, and may bring back segments that were deleted shortly
before. All of it holds as far as the disk keeps what it confirmed.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import itertools
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .disk import Disk, Folder, SpoolError
from .segment_format import FRAME_SIZE, SegmentFormat

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Disk", "Folder", "Segment", "Spool", "SpoolError", "Sync"]

#: Bytes that a file may have to be read as a segment: 64 MiB are the largest batch, and as much again is more
#: than its frames take. Bounds the memory that a file that isn't ours can cost.
_SEGMENT_LIMIT: Final = 128 * 1024 * 1024

#: Ten digits, more if need be, but no zeros before more than ten: each number has one name.
_NAME: Final = re.compile(r"segment-([0-9]{10}|[1-9][0-9]{10,})")


class Sync(enum.Enum):
    """When what was written is forced onto the disk."""

    NEVER = "never"
    BATCH = "batch"
    EVENT = "event"


@dataclass(frozen=True, slots=True)
class Segment:
    """A closed segment.

    Attributes:
        number: Its number; smaller ones are older.
        count: Events in it, at least one.
        events_size: Bytes of these events, without frames.
        size: Bytes of the file.
    """

    number: int
    count: int
    events_size: int
    size: int


class Spool:
    """Segments of events on a disk. Used by one thread.

    Args:
        disk: Where the segments are.
        path: What the disk is called in errors.
        version: Format of the events, `collector.version`.
        max_size: Bytes that all files together may take. While a file that was given up is replaced there may
            be one segment more.
        sync: When what was written is forced onto the disk.

    Attributes:
        cut: Segments that did not end with a whole frame, each counted once, but by every publisher that
            finds it.
    """

    def __init__(self, disk: Disk, path: str, *, version: str, max_size: int, sync: Sync) -> None:
        self._disk = disk
        self._path = path
        self._format = SegmentFormat(version)
        self._room = max_size - len(self._format.header) - FRAME_SIZE
        self._forces_events = sync is Sync.EVENT
        self._forces_segments = sync is Sync.BATCH  # with EVENT there is nothing left to force then
        self.cut: int = 0
        self._next = 0
        # Sizes of files that aren't open, by number: `given_up` are not trusted and go when the events of the
        # open segment are elsewhere, `undeleted` could not be deleted yet.
        self._closed: dict[int, int] = {}
        self._given_up: dict[int, int] = {}
        self._undeleted: dict[int, int] = {}
        self._closed_size = 0
        # The open segment. If it has events but no handle, its file was given up.
        self._events: list[bytes] = []
        self._number = 0
        self._handle: int | None = None
        self._open_size = 0
        self._damaged: set[int] = set()

    @property
    def size(self) -> int:
        """Bytes of all files, the open one and those that couldn't be deleted included."""
        return self._closed_size + self._open_size

    def has_room(self, event_size: int) -> bool:
        """Whether an event of that size could be appended to a new segment without exceeding `max_size`.

        If not, files that couldn't be deleted are tried again first.
        """
        room = self._room - event_size
        if self._closed_size + self._open_size > room and self._undeleted:
            self._delete_again()
        return self._closed_size + self._open_size <= room

    def recover(self) -> list[Segment]:
        """Find the segments that an earlier publisher left behind, oldest first.

        Those without a whole event are deleted. To be called once, before anything is appended; it reads all
        of the spool.

        Raises:
            SpoolError: A segment can't be read, is of another version or format, or isn't one at all; its
                `path` is that file's. Nothing changed, neither on the disk nor here.
        """
        try:
            names = self._disk.names()
        except OSError as exc:
            raise self._failure("can't be read", exc) from exc
        numbers = sorted({int(match[1]) for match in map(_NAME.fullmatch, names) if match})
        segments: list[Segment] = []
        empty: dict[int, int] = {}
        cut = 0
        for number in numbers:
            data = self._read(number)
            count = events_size = end = 0
            for start, end in self._format.spans(data):
                count += 1
                events_size += end - start
            if count:
                segments.append(Segment(number, count, events_size, len(data)))
            elif (problem := self._format.refusal(data)) is None:
                empty[number] = len(data)
            else:
                raise SpoolError(self._path_of(number), problem)
            cut += not count or end < len(data)
        self.cut += cut
        self._next = numbers[-1] + 1 if numbers else 0
        self._closed = {segment.number: segment.size for segment in segments}
        self._closed_size = sum(self._closed.values()) + sum(empty.values())
        for number, size in empty.items():
            self._delete(number, size)
        return segments

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
        handle, before = self._handle, self._open_size
        try:
            if handle is None:
                self._write_anew([*self._events, event])
            else:
                frame = self._format.frame(event)
                size = before + len(frame)
                self._open_size = before + self._disk.write(handle, frame)
                if self._open_size < size:
                    self._write(handle, frame[self._open_size - before :])
                if self._forces_events:
                    self._disk.sync(handle)
        except OSError as exc:
            if handle is not None:
                self._take_back(handle, before, len(event))
            raise self._failure("can't be written", exc) from exc
        self._events.append(event)

    def close_segment(self) -> Segment | None:
        """Close the open segment, so that its batch can be sent; None if no event is in it.

        Raises:
            SpoolError: The disk is full or fails. The segment stays open. Its file isn't trusted any more,
                since after a failed fsync a second one may succeed with nothing on the disk. Its events are
                in that file and in memory, and the next call of this method or of `append` writes them anew.
        """
        if not self._events:
            return None
        try:
            self._finish(self._write_anew(self._events) if self._handle is None else self._handle)
        except OSError as exc:
            raise self._failure("can't be written", exc) from exc
        events_size = sum(map(len, self._events))
        segment = Segment(self._number, len(self._events), events_size, self._open_size)
        self._closed[segment.number] = segment.size
        self._closed_size += segment.size
        self._open_size = 0
        self._events = []
        return segment

    def load(self, segment: Segment) -> tuple[bytes, ...]:
        """Read the events of a closed segment.

        Returns:
            Those that are whole, in order: all `segment.count` of them, or fewer, even none, if the file was
            damaged or deleted meanwhile, which `cut` counts.

        Raises:
            SpoolError: The file can't be read; nothing changed.
        """
        try:
            data = self._disk.read(_name(segment.number), _SEGMENT_LIMIT)
        except FileNotFoundError:
            data = b""
        except OSError as exc:
            raise self._failure("can't be read", exc, segment.number) from exc
        spans = itertools.islice(self._format.spans(data), segment.count)
        events = tuple(data[start:end] for start, end in spans)
        if len(events) < segment.count and segment.number not in self._damaged:
            self._damaged.add(segment.number)
            self.cut += 1
        return events

    def release(self, number: int) -> None:
        """Delete a closed segment whose every event has found its fate; one that is gone is no error.

        If the disk doesn't let it be deleted it goes on counting in `size`, is tried again by later calls and
        by `has_room`, and after a restart its events come again.
        """
        size = self._closed.pop(number, None)
        if size is None:
            return
        self._damaged.discard(number)
        if self._delete(number, size) and self._undeleted:
            self._delete_again()

    def close(self) -> None:
        """Close the open segment, as `close_segment` does; its events are recovered by the next publisher.

        Never raises: if the disk fails, as much is recovered as it has taken.
        """
        with contextlib.suppress(SpoolError):
            self.close_segment()

    def _write_anew(self, events: Sequence[bytes]) -> int:
        """Write events to a new file, which is the open segment's then; delete those that were given up."""
        self._number = self._next
        self._next += 1
        handle = self._disk.create(_name(self._number))
        try:
            self._write(handle, self._format.header + b"".join(map(self._format.frame, events)))
            if self._forces_events:
                self._force(handle)
        except OSError:
            with contextlib.suppress(OSError):
                self._disk.close(handle)
            self._closed_size += self._open_size
            self._delete(self._number, self._open_size)
            self._open_size = 0
            raise
        self._handle = handle
        given_up, self._given_up = self._given_up, {}
        for number, size in given_up.items():
            self._delete(number, size)
        return handle

    def _finish(self, handle: int) -> None:
        """Bring the open file to its end."""
        try:
            if self._forces_segments:
                self._force(handle)
            self._handle = None
            self._disk.close(handle)
        except OSError:
            self._give_up()
            raise

    def _force(self, handle: int) -> None:
        self._disk.sync(handle)
        self._disk.sync_names()

    def _write(self, handle: int, data: bytes) -> None:
        """Write all of the data to the open file; `_open_size` counts what was taken, after a failure too."""
        while data:  # a disk that is nearly full takes a part, and the next call says why
            taken = self._disk.write(handle, data)
            if not taken:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._open_size += taken
            data = data[taken:]

    def _take_back(self, handle: int, size: int, event_size: int) -> None:
        """Cut an event that failed off the open file, or give the file up."""
        written = self._open_size == size + FRAME_SIZE + event_size
        try:
            self._disk.truncate(handle, size)
            self._open_size = size
        except OSError:
            self._give_up()
        if written:  # and not forced onto the disk
            self._give_up()

    def _give_up(self) -> None:
        """Stop trusting the open file; it stays until its events are elsewhere."""
        if self._handle is not None:
            with contextlib.suppress(OSError):
                self._disk.close(self._handle)
            self._handle = None
        if self._open_size:
            self._given_up[self._number] = self._open_size
            self._closed_size += self._open_size
            self._open_size = 0

    def _delete(self, number: int, size: int) -> bool:
        """Delete a file whose size is in `_closed_size`, or note that it couldn't be; tell which."""
        try:
            self._disk.delete(_name(number))
        except FileNotFoundError:
            pass
        except OSError:
            self._undeleted[number] = size
            return False
        self._closed_size -= size
        return True

    def _delete_again(self) -> None:
        """Try to delete what couldn't be, until it fails again."""
        for number, size in list(self._undeleted.items()):
            if not self._delete(number, size):
                break
            del self._undeleted[number]

    def _read(self, number: int) -> bytes:
        try:
            return self._disk.read(_name(number), _SEGMENT_LIMIT)
        except OSError as exc:
            raise self._failure("can't be read", exc, number) from exc

    def _failure(self, problem: str, exc: OSError, number: int | None = None) -> SpoolError:
        path = self._path if number is None else self._path_of(number)
        return SpoolError(path, f"{problem}: {exc.strerror or type(exc).__name__}")

    def _path_of(self, number: int) -> str:
        return f"{self._path}/{_name(number)}"


def _name(number: int) -> str:
    return f"segment-{number:010d}"
