"""Moves events from the POSIX queue into the spool, one at a time.

Rules:

1. `append` receives the next event only after the last one is in the page cache, so a kill loses at most one
   event.
2. `room` checks the spool and the disk before anything is received, and returns for how many events there is
   room. An event that the disk refuses nevertheless is `held`, and goes first later.
3. Events are appended to the publisher's own segment, with the writer that services use. They can be sent
   without reading them back, since their place is known.
"""

from __future__ import annotations

import itertools
import os
import sys
from typing import TYPE_CHECKING, Final

from .._words import counted
from ..counting.refusals import RefusalCounts
from ..errors import EventQueueFullError, EventQueueUnavailableError
from ..spool.format import OVERHEAD
from ..spool.writer import FULL_PAUSE, SpoolWriter
from .policy.span import EventRun, Span, join_spans, spans_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ..spool.segment import Segment, SpoolFolder

#: Bytes of the disk to leave free: for a new segment, the ledger, and other programs.
_MARGIN: Final = 1024 * 1024


class Relay:
    """Appends events to a spool.

    Args:
        directory: The directory of the spool.
        event_format: The `collector.version` that the events are for.
        max_size: Bytes of undelivered events that the spool may hold.
        clock: The monotonic clock, in seconds.
        syncs: Whether each event is synced to the disk before the next one is received.
        free: Returns the free bytes and inodes of the disk; None for unlimited inodes.

    Attributes:
        free: As given.
        max_size: As given.
        path: The folder of the spool.
        held: A received event that couldn't be appended, or None.
        error: Why nothing can be appended at the moment, or None.
        retry_at: When to try again, in monotonic seconds.
        unsynced: Identities of segments that couldn't be synced to the disk; `SpoolSource` rewrites their
            events.
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
        self.free: Callable[[], tuple[int, int | None]] = free if free is not None else self._measure_free
        self.held: bytes | None = None
        self.error: str | None = None
        self.retry_at: float = float("-inf")
        self.unsynced: list[bytes] = []
        self.path: str = directory.path
        self._writer = SpoolWriter(directory, event_format, max_size, RefusalCounts(), clock)
        self._writer.max_size = sys.maxsize  # `room` enforces the limit; a received event needs a place
        self.max_size: int = max_size
        self._clock = clock
        self._syncs = syncs
        self._budget = 0  # bytes that can certainly be appended
        self._measured_at = float("-inf")

    def room(self, message_size: int) -> int:
        """Return for how many events of any size there is room.

        Args:
            message_size: Largest event in bytes.
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

    def append(self, events: Iterable[bytes], most: int = sys.maxsize) -> EventRun:
        """Append the held event, if any, then `events`, each before the next one is taken.

        Args:
            events: Yields them.
            most: Bytes of events to append; the last one may exceed that.

        Returns:
            The appended events: all that were taken, except one that is held now.
        """
        waiting = iter(events) if self.held is None else itertools.chain((self.held,), events)
        appended: list[bytes] = []
        spans: list[Span] = []
        segment = self._open_segment()
        start = 0 if segment is None else segment.size
        while (left := most - spans_size(spans) + OVERHEAD * len(appended)) > 0:
            event = next(waiting, None) if segment is None else self._send(segment, waiting, appended, left)
            if segment is not None and segment.size > start:
                spans.append(Span(segment.encoder.identity, start, segment.size))
            if event is None:
                break
            segment = self._append_elsewhere(event)
            if segment is None:
                break
            start = segment.size
            spans.append(Span(segment.encoder.identity, start - OVERHEAD - len(event), start))
            appended.append(event)
            if self._syncs:
                self._sync(segment)
        self._budget -= spans_size(spans)
        return EventRun(appended, join_spans(spans))

    @property
    def writer(self) -> str:
        """What distinguishes its segments from those of services; see `SpoolWriter.name`."""
        return self._writer.name

    def take_held(self) -> bytes | None:
        """Return and forget the event that couldn't be appended."""
        held, self.held = self.held, None
        return held

    def close(self) -> None:
        """Stop appending."""
        self._writer.segment = None

    def _open_segment(self) -> Segment | None:
        segment = self._writer.segment
        return segment if segment is not None and segment.check(self._clock()) else None

    def _append_elsewhere(self, event: bytes) -> Segment | None:
        """Append an event to another segment, and return that; None if the event is held now."""
        try:
            self._writer.append((event,))
        except (EventQueueFullError, EventQueueUnavailableError) as exc:
            self.held = event
            self._fail(str(exc))
            return None
        self.held = self.error = None
        return self._writer.segment

    def _send(
        self, segment: Segment, events: Iterator[bytes], appended: list[bytes], most: int
    ) -> bytes | None:
        """Append events to a segment; return the one that it refuses, or None; see `Segment.send_each`."""
        if not self._syncs:
            return segment.send_each(events, appended, most)
        while most > 0 and (event := next(events, None)) is not None:
            if segment.send_each(iter((event,)), appended, most) is not None:
                return event
            self._sync(segment)
            most -= len(event)
        return None

    def _sync(self, segment: Segment) -> None:
        try:
            segment.sync()
        except OSError:
            segment.end()  # never sync it again: the kernel may have dropped the pages that it couldn't write
            self.unsynced.append(segment.encoder.identity)

    def _measure(self, now: float, largest: int) -> str | None:
        """Measure how much can certainly be appended; return why that isn't enough, or None."""
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
        # Without changing numbers, since it is logged whenever its text changes.
        if self.max_size - used < largest:
            return f"{self.path} is full: spool.max_size is {counted(self.max_size, 'byte')}"
        return f"the disk of {self.path} is full: too few bytes or inodes are free"

    def _fail(self, problem: str) -> None:
        self.error = problem
        self.retry_at = self._clock() + FULL_PAUSE
        self._budget = 0

    def _measure_free(self) -> tuple[int, int | None]:
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize, status.f_favail if status.f_files else None
