"""Moves events from the POSIX queue into the spool, each before the next one is received.

Rules:

1. `append` takes the next event only when the last one is in the page cache, so a kill costs one event at
   most.
2. `room` looks before anything is received: for as many events as it returns there is room, in the spool and
   on the disk. One that the disk doesn't take nevertheless is `held`, and goes first later.
3. Events are appended to a segment of the publisher's own, with the writer that services use. What was
   appended can be sent without reading it back, as its place is known.
"""

from __future__ import annotations

import itertools
import os
import sys
from typing import TYPE_CHECKING, Final

from .._words import counted
from ..counting.refusals import RefusalCounts
from ..errors import EventQueueFullError, EventQueueUnavailableError
from ..spool.format import OVERHEAD, Header
from ..spool.writer import FULL_PAUSE, SpoolWriter
from .policy.span import EventRun, Span, join_spans, records_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ..spool.segment import Segment, SpoolFolder

#: Bytes of the disk that are left free: for a segment that is started, the ledger, and what others write.
_MARGIN: Final = 1024 * 1024


class Relay:
    """Appends events to a spool.

    Args:
        directory: The directory of the spool.
        event_format: The `collector.version` that the events are for.
        max_size: Bytes of undelivered events that the spool may hold.
        clock: Gives seconds of the monotonic clock.
        syncs: Whether each event is forced onto the disk before the next one is received.
        free: Returns how many bytes and files the disk has room for; None for files without a limit.

    Attributes:
        free: As given.
        max_size: As given.
        path: The folder of the spool.
        held: An event that was received and couldn't be appended, or None.
        error: Why nothing is appended at the moment; None if events are.
        retry_at: When that is tried again, in seconds of the monotonic clock.
        unsynced: Identities of segments that couldn't be forced onto the disk, for `SpoolSource` to rewrite.
    """

    def __init__(
        self,
        directory: SpoolFolder,
        event_format: str,
        max_size: int,
        *,
        clock: Callable[[], float],
        syncs: bool = False,
        free: Callable[[], tuple[int, int | None]] | None = None,
    ) -> None:
        self.free: Callable[[], tuple[int, int | None]] = free if free is not None else self._look
        self.held: bytes | None = None
        self.error: str | None = None
        self.retry_at: float = float("-inf")
        self.unsynced: list[bytes] = []
        self.path: str = directory.path
        self._writer = SpoolWriter(directory, event_format, max_size, RefusalCounts(), clock)
        self._writer.max_size = sys.maxsize  # `room` keeps the limit; what was received needs a place
        self.max_size: int = max_size
        self._clock = clock
        self._syncs = syncs
        self._budget = 0  # bytes that can be appended for sure
        self._measured_at = float("-inf")

    def room(self, message_size: int) -> int:
        """Return for how many events there is room, whatever their sizes.

        Args:
            message_size: Bytes of the largest event.
        """
        now = self._clock()
        if now < self.retry_at:
            return 0
        largest = OVERHEAD + message_size
        if self._budget < largest or now >= self._measured_at + FULL_PAUSE:
            problem = self._measure(now, largest)
            if problem is not None:
                self._fail(problem)
            elif self.held is None:
                self.error = None
        return self._budget // largest

    def append(self, events: Iterable[bytes]) -> EventRun:
        """Append the event that is held, if any, and events, each before the next one is asked for.

        Returns:
            Those that were appended: all but one that is held now, behind which nothing was asked for.
        """
        waiting = iter(events) if self.held is None else itertools.chain((self.held,), events)
        appended: list[bytes] = []
        spans: list[Span] = []
        segment = self._open_segment()
        start = 0 if segment is None else segment.size
        while True:
            event = next(waiting, None) if segment is None else self._send(segment, waiting, appended)
            spans += _places(segment, start)
            if event is None:
                break
            segment = self._append_elsewhere(event)
            if segment is None:
                break
            start = segment.size - OVERHEAD - len(event)
            appended.append(event)
            if self._syncs:
                self._sync(segment)
        self._budget -= records_size(appended)
        return EventRun(appended, join_spans(spans))

    @property
    def writer(self) -> str:
        """What distinguishes its segments from those of services; see `SpoolWriter.name`."""
        return self._writer.name

    def take_held(self) -> bytes | None:
        """Hand over the event that couldn't be appended."""
        held, self.held = self.held, None
        return held

    def close(self) -> None:
        """Append no more."""
        self._writer.segment = None

    def _open_segment(self) -> Segment | None:
        segment = self._writer.segment
        return segment if segment is not None and segment.check(self._clock()) else None

    def _append_elsewhere(self, event: bytes) -> Segment | None:
        """Append an event to whatever segment takes it, and return that; None if it is held now."""
        try:
            self._writer.append((event,))
        except (EventQueueFullError, EventQueueUnavailableError) as exc:
            self.held = event
            self._fail(str(exc))
            return None
        self.held = self.error = None
        return self._writer.segment

    def _send(self, segment: Segment, events: Iterator[bytes], appended: list[bytes]) -> bytes | None:
        """Append events to a segment; return the one that it doesn't take, or None if there are no more."""
        if not self._syncs:
            return segment.send_each(events, appended)
        for event in events:
            if segment.send_each(iter((event,)), appended) is not None:
                return event
            self._sync(segment)
        return None

    def _sync(self, segment: Segment) -> None:
        try:
            segment.sync()
        except OSError:
            segment.end()  # it is never synced again: the system may have given up what it didn't write
            self.unsynced.append(_identity(segment))

    def _measure(self, now: float, largest: int) -> str | None:
        """Find out how much can be appended for sure; return why that isn't enough, or None if it is."""
        self._measured_at = now
        try:
            used, (space, files) = self._writer.used(), self.free()
        except EventQueueUnavailableError as exc:
            return str(exc)
        except OSError as exc:
            return f"{self.path} can't be used: {exc.strerror}"
        self._budget = max(0, min(self.max_size - used, space - _MARGIN)) if files != 0 else 0
        if self._budget >= largest:
            return None
        # Without numbers that change, since this is logged and shown whenever it changes.
        if self.max_size - used < largest:
            return f"{self.path} is full: spool.max_size is {counted(self.max_size, 'byte')}"
        return f"the disk of {self.path} is full: it has too little room, or can't take another file"

    def _fail(self, problem: str) -> None:
        self.error = problem
        self.retry_at = self._clock() + FULL_PAUSE
        self._budget = 0

    def _look(self) -> tuple[int, int | None]:
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize, status.f_favail if status.f_files else None


def _identity(segment: Segment) -> bytes:
    header = Header.decode(segment.encoder.header)
    if header is None:
        raise AssertionError("a segment begins with its header")
    return header.identity


def _places(segment: Segment | None, start: int) -> list[Span]:
    """Return the place of what was appended to a segment from an offset on."""
    if segment is None or segment.size <= start:
        return []
    return [Span(_identity(segment), start, segment.size)]
