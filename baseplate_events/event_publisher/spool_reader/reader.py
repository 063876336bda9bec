"""Reads the events of all writers of a spool, and deletes segments when all their events are done.

    list     the folder, when its time has changed: new and deleted segments (`catalog`)
    read     the next bytes of a writer's oldest segment, writers in turn (`turns`)
    resolve  events have reached their fate: delivered, dead-lettered, or dropped with a reason
    tidy     delete segments that are settled entirely, and punch holes into others

Rules:

1. In a run of the publisher, each whole record is handed out once: by `read`, `load` or `take_rest`, or by
   someone who reported that to `skip`.
2. *Deletion.* A segment is deleted if it is settled entirely, its exclusive lock was obtained, and it was
   read to its end after that. After the deletion, the open file is read once more. If it has grown, locks
   don't work on this file system. The appended events are delivered, and from then on only sealed segments
   are deleted: those whose writers have started a later one.
3. *Bounded.* The folder is listed only when it has changed. A closed segment takes a few hundred bytes.
4. Only `sync` waits. One thread uses it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import sys
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from ...spool.format import OVERHEAD
from ..policy.span import EventRun, Span, join_spans
from .catalog import SegmentCatalog
from .findings import OwnFindings
from .followed_segment import FollowedSegment
from .turns import LOCK_PAUSE, WriterTurns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from .files import ReaderFolder
    from .watch import SpoolWatch


#: Seconds between two rounds of punching holes. Most segments of a busy writer are deleted in the meantime,
#: and a hole in pages that aren't on the disk yet takes a millisecond.
PUNCH_PAUSE: Final = 1.0

#: Seconds added per segment to the time between two attempts to delete an open one.
_LOCK_COST: Final = 1e-3

_UNDELETABLE: Final = (
    "was delivered but can't be deleted (%s). The deletion is retried; after a restart, only the ledger "
    "keeps its events from being delivered twice"
)
_NO_LOCKS: Final = (
    "grew after its lock was obtained and it was deleted, so file locks don't work on this file system. The "
    "appended events are delivered. From now on, a segment is deleted only after its writer has started "
    "another one. Use a directory of a local disk, such as ext4 or XFS"
)


class SpoolReaderStatus(NamedTuple):
    """The state of a reader.

    Attributes:
        segments: Segments that aren't set aside.
        backlog: Unsettled bytes in them.
        oldest: When the oldest unsettled one was created, in seconds since 1970; None if there is none.
        aside: Segments that were set aside, by reason.
        torn_bytes: Bytes that are part of no whole record, found in this run.
        torn_gaps: Runs of such bytes.
        refusals: Events that services refused, by reason, as reported in this run.
        locks_work: Whether file locks work, as far as known.
        punches_holes: Whether space is freed before a segment is deleted; None if not known yet.
        watch_problem: Why the spool is polled more often; None if inotify announces changes.
        problem: Why the folder can't be listed, or None.
    """

    segments: int
    backlog: int
    oldest: float | None
    aside: Mapping[str, int]
    torn_bytes: int
    torn_gaps: int
    refusals: Mapping[str, int]
    locks_work: bool
    punches_holes: bool | None
    watch_problem: str | None
    problem: str | None


class SpoolReader:
    """Reads a spool.

    Args:
        files: Its folder. The reader closes it.
        watch: Wakes the waiting publisher. The reader closes it.
        event_format: The `collector.version` that events must be for; segments for another version are set
            aside. None for any, as in commands.
        clock: The monotonic clock, in seconds.
        resolved: Returns the byte ranges of a segment, by its identity, that an earlier run settled.
        only_writer: If given, new segments of other writers are set aside instead of read.
    """

    def __init__(
        self,
        files: ReaderFolder,
        watch: SpoolWatch,
        *,
        event_format: str | None,
        clock: Callable[[], float],
        resolved: Callable[[bytes], Iterable[tuple[int, int]]],
        only_writer: str | None = None,
    ) -> None:
        self._files = files
        self._watch = watch
        self._clock = clock
        self._findings = OwnFindings()
        self._catalog = SegmentCatalog(files, event_format, clock, resolved, self._findings)
        self._turns = WriterTurns(files, self._catalog, watch, clock, self._record_end)
        self._current: FollowedSegment | None = None
        self._done: dict[FollowedSegment, None] = {}  # that seem to be settled entirely
        self._held: dict[FollowedSegment, None] = {}  # likewise, but they couldn't be deleted a moment ago
        self._retry_at = -math.inf  # to delete those
        self._punchable: set[FollowedSegment] = set()
        self._punch_at = float("-inf")  # when to punch holes again
        self._turns.list_files()
        self._catalog.only_writer = only_writer

    def read(self, max_events: int, max_bytes: int) -> EventRun:
        """Return the next events; none if there are none. Never waits.

        Args:
            max_events: Most events to return.
            max_bytes: Most bytes of payloads; one event is always returned if there is one.
        """
        events: list[bytes] = []
        spans: list[Span] = []
        room = max_bytes
        while len(events) < max_events:
            segment = self._current
            if segment is None or not segment.ready:
                segment = self._current = self._turns.next_segment()
                if segment is None:
                    break
            run = segment.take(max_events - len(events), room, at_least_one=not events)
            if run is None:
                break
            events += run.payloads
            spans.append(Span(segment.identity, run.start, run.end))
            room -= run.end - run.start - OVERHEAD * len(run.payloads)
        return EventRun(events, join_spans(spans))

    def load(self, spans: Sequence[Span]) -> list[bytes] | None:
        """Return the payloads of events by their places; `read` then doesn't return them.

        Returns:
            The payloads in the order of the places; None if any place doesn't consist of events
            that can be read.
        """
        run = self.load_whole(spans)
        if run is None or run.spans != join_spans(spans):
            return None
        self.skip(spans)
        return run.events

    def load_whole(self, spans: Sequence[Span]) -> EventRun | None:
        """Return the events of places that were handed out, as far as they are still whole.

        Returns:
            The events and their places, in the order of the places: fewer if a segment was deleted or is
            damaged. None if a segment can't be read now.
        """
        events: list[bytes] = []
        found: list[Span] = []
        for identity, start, end in spans:
            segment = self._find(identity)
            run = segment and self._turns.guard(
                segment, partial(FollowedSegment.load, files=self._files, start=start, end=end)
            )
            if run:
                events += run.events
                found += run.spans
            elif self._catalog.problem is not None or (segment is not None and not segment.gone):
                return None
        return EventRun(events, join_spans(found))

    def skip(self, spans: Iterable[Span]) -> None:
        """Record that the events at these places were handed out by other means; `read` doesn't return them.

        For their writer, before the next `read`.
        """
        for identity, start, end in spans:
            skipped = self._catalog.skipped.get(identity)
            segment = self._find(identity) if skipped is None else None
            if segment is not None:
                segment.skip(start, end)
            else:
                self._catalog.skipped.setdefault(identity, []).append((start, end))

    def notice(self, identity: bytes) -> None:
        """Find a segment that was just started, which the time of the folder may not show yet."""
        self._find(identity)

    def take_rest(self, identity: bytes) -> EventRun:
        """Return all events of a segment that weren't handed out yet and can be read now."""
        segment = self._find(identity)
        events: list[bytes] = []
        spans: list[Span] = []
        while segment is not None and self._turns.guard(
            segment, partial(FollowedSegment.fetch, files=self._files)
        ):
            while segment.ready and (run := segment.take(sys.maxsize, sys.maxsize)):
                events += run.payloads
                spans.append(Span(identity, run.start, run.end))
        return EventRun(events, join_spans(spans))

    def handed_out(self, identity: bytes) -> tuple[Span, ...]:
        """Return where a segment's unsettled events that were handed out are; call after `take_rest`."""
        segment = self._catalog.by_identity.get(identity)
        places = [] if segment is None else segment.handed_out()
        return tuple(Span(identity, start, end) for start, end in places)

    def sync(self) -> list[bytes]:
        """Sync all unsettled bytes of the spool to the disk. Waits for the disk.

        Returns:
            The identities of segments that couldn't be synced. They are never synced again.
        """
        self._turns.measure()
        segments = [
            segment
            for segment in self._catalog.readable()
            if segment.unsettled and segment.size > segment.synced and not segment.sync_failed
        ]
        new = [segment for segment in segments if not segment.synced]
        for segment in segments:
            self._turns.guard(segment, self._sync)
        if new:
            try:
                self._files.sync_names()
            except OSError:
                for segment in new:
                    segment.sync_failed = True
        return [segment.identity for segment in segments if segment.sync_failed]

    def resolve(self, spans: Iterable[Span]) -> None:
        """Record that events have reached their fate. Events of deleted segments are ignored."""
        for identity, start, end in spans:
            segment = self._catalog.by_identity.get(identity)
            if segment is None:
                continue
            segment.settled.add(start, end)
            if segment.done:
                self._record_end(segment)
            elif segment.punchable:
                self._punchable.add(segment)

    def take_settled(self) -> list[Span]:
        """Return the places that the reader settled itself since the last call, for the ledger.

        These are headers, reports of refusals and torn bytes. If they are in the ledger, a later run neither
        counts nor reads them again.
        """
        return [span for span in self._findings.take_settled() if span.identity in self._catalog.by_identity]

    def tidy(self, *, at_once: bool = False) -> list[bytes]:
        """Delete the segments that can be deleted, and free space in the others.

        Args:
            at_once: Also retry segments that couldn't be deleted a moment ago.

        Returns:
            The identities of the deleted segments.
        """
        now = self._clock()
        if at_once or now >= self._retry_at:
            self._retry_at = now + max(LOCK_PAUSE, len(self._held) * _LOCK_COST)
            self._done.update(self._held)
            self._held.clear()
        deleted: list[bytes] = []
        while self._done:
            segment, _ = self._done.popitem()
            if segment.gone or segment.aside or not segment.done:
                continue
            if (self._turns.locks_work or not self._turns.is_last(segment)) and self._turns.guard(
                segment, self._delete
            ):
                deleted.append(segment.identity)
            elif segment.done:
                self._held[segment] = None
                if segment.punchable:
                    self._punchable.add(segment)
        if self._punchable and now >= self._punch_at:
            self._punch_at = now + PUNCH_PAUSE
            while self._punchable and self._files.punches is not False:
                segment = self._punchable.pop()
                if not segment.gone and not segment.aside:
                    self._turns.guard(segment, self._punch)
            self._punchable.clear()
        self._catalog.remove_new()
        return deleted

    @property
    def wait_descriptor(self) -> int | None:
        """The descriptor to poll for input after `wait_time` returned a number above 0, or None."""
        return self._watch.descriptor

    def wait_time(self, max_pause: float) -> float:
        """Prepare to wait, after `read` returned nothing.

        Args:
            max_pause: Seconds that an event may wait while inotify isn't trusted (`batch.max_age`).

        Returns:
            Seconds after which to call `read` again, unless `wait_descriptor` is readable before; 0 if there
            may be something to read now.
        """
        pause = max_pause
        for _ in range(2):
            news = self._watch.arm()
            pause = self._watch.pause(max_pause)
            always = (news and not self._catalog.is_sure) or self._clock() >= self._turns.listed_at + pause
            if (self._current is not None and self._current.ready) or self._turns.poll(always=always):
                return 0.0
            if self._watch.armed or self._watch.problem is not None:
                break  # otherwise something was announced, or the poll has recreated the folder
        return pause

    def status(self) -> SpoolReaderStatus:
        """Return the state of the spool, with the current sizes of all segments."""
        self._turns.measure()
        catalog = self._catalog
        known = catalog.readable()
        oldest = min((segment.created for segment in known if segment.unsettled), default=None)
        return SpoolReaderStatus(
            segments=len(known),
            backlog=sum(segment.unsettled for segment in known),
            oldest=None if oldest is None else oldest / 1e9,
            aside=Counter(segment.aside for segment in catalog.by_name.values() if segment.aside),
            torn_bytes=self._findings.torn_bytes,
            torn_gaps=self._findings.torn_gaps,
            refusals=dict(self._findings.refusals),
            locks_work=self._turns.locks_work,
            punches_holes=self._files.punches,
            watch_problem=self._watch.problem,
            problem=catalog.problem,
        )

    def identities(self) -> frozenset[bytes] | None:
        """Return the identities of all existing segments; None if the folder can't be listed."""
        return frozenset(self._catalog.by_identity) if self._catalog.problem is None else None

    def close(self) -> None:
        """Close everything."""
        self._turns.close()
        self._watch.close()
        self._files.close()

    def _record_end(self, segment: FollowedSegment) -> None:
        """Try to delete a segment soon, since it seems to be settled entirely."""
        if segment not in self._held:
            self._done[segment] = None

    def _delete(self, segment: FollowedSegment) -> bool:
        """Delete a segment if that is safe, and return whether it was deleted; see rule 2."""
        if not self._files.lock(segment.fd):
            return False
        if segment.fetch(self._files):
            self._turns.follow(segment)
            return False
        if not segment.done:  # events were handed out but aren't settled
            return False
        seen = segment.seen
        try:
            self._files.delete(segment.name)
        except FileNotFoundError:
            pass  # deleted by someone else
        except OSError as exc:
            self._catalog.report_once(logging.ERROR, segment, _UNDELETABLE, exc.strerror or exc)
            return False
        self._catalog.forget(segment)
        if segment.fetch(self._files) or segment.seen > seen:
            self._catalog.report_once(logging.ERROR, segment, _NO_LOCKS)
            self._turns.distrust_locks()
            self._turns.follow(segment)
        else:
            segment.finish()
            self._turns.drop(segment)
        return True

    def _punch(self, segment: FollowedSegment) -> None:
        with contextlib.suppress(OSError):  # for example, it isn't open for writing
            segment.punch(self._files)

    def _sync(self, segment: FollowedSegment) -> None:
        segment.synced = segment.size
        try:
            self._files.sync(segment.fd)
        except OSError:
            segment.sync_failed = True

    def _find(self, identity: bytes) -> FollowedSegment | None:
        """Return an existing segment, even if it was just created."""
        if identity not in self._catalog.by_identity:  # see `notice`
            self._turns.list_files()
        return self._catalog.by_identity.get(identity)
