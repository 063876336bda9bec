"""Takes turns between writers: decides which segment of a spool is read next.

Rules:

1. A writer's events come in the order in which they were written: its oldest segment first, and the next one
   only when nothing is left in those before. While a process has an earlier segment open, it may grow. So
   before events of a later segment are handed out, the reader checks that the earlier ones haven't grown, and
   that none has appeared.
2. Writers take turns, starting with the one whose next segment is the oldest. In its turn, a writer yields
   the whole records in the next bytes of its segment (`CHUNK`).
3. A writer that was stopped within a record, and an unreadable segment, delay no other writer.
4. Segments that were read to their end, and may grow, are polled when there is nothing else to read, and
   otherwise every `CHECK_PAUSE` seconds, or less often if there are so many that polling takes long. Those
   that can't grow any more aren't followed any more.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import deque
from typing import TYPE_CHECKING, Final, TypeVar

from ...spool.format import UnreadableSegmentError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .catalog import SegmentCatalog
    from .files import ReaderFolder
    from .followed_segment import FollowedSegment
    from .watch import SpoolWatch

#: Seconds between two polls of segments that were read to their end, while others are read.
CHECK_PAUSE: Final = 0.01

#: Polls take at most this fraction (1/n) of the time while there is something else to do.
_CHECK_SHARE: Final = 50

#: Seconds between two checks whether any process still has a segment open.
LOCK_PAUSE: Final = 1.0

#: Seconds for which an open segment is still read after its deletion.
GONE_PAUSE: Final = 1.0


_Result = TypeVar("_Result")


class _Writer:
    """The followed segments of one writer, oldest first."""

    __slots__ = ("queued", "segments")

    def __init__(self) -> None:
        self.segments: list[FollowedSegment] = []
        self.queued = False


class WriterTurns:
    """Finds the next segment to read.

    Args:
        files: The folder.
        catalog: All segments.
        watch: Gets the result of each poll.
        clock: The monotonic clock, in seconds.
        ended: Called with each segment that seems to be settled up to its end.

    Attributes:
        locks_work: Whether a lock proves that no other process has a segment open.
        listed_at: Time of the clock when the folder was last listed.
    """

    def __init__(
        self,
        files: ReaderFolder,
        catalog: SegmentCatalog,
        watch: SpoolWatch,
        clock: Callable[[], float],
        ended: Callable[[FollowedSegment], object],
    ) -> None:
        self._files = files
        self._catalog = catalog
        self._watch = watch
        self._clock = clock
        self._ended = ended
        self._writers: dict[str, _Writer] = {}
        self._turns: deque[_Writer] = deque()
        self._looked_at = -math.inf
        self._look_at = -math.inf
        self.listed_at: float = -math.inf
        self.locks_work: bool = True

    def next_segment(self) -> FollowedSegment | None:
        """Return a segment with ready events, of the writer whose turn it is; None if there is none."""
        while self._turns or self.poll():
            if self._clock() >= self._look_at:
                self.poll()
            writer = self._turns.popleft()
            segment = self._find_ready(writer)
            if segment is not None:
                self._turns.append(writer)
                return segment
            writer.queued = False
        return None

    def poll(self, *, always: bool = False) -> bool:
        """Poll for something new; return whether any writer may have events.

        Args:
            always: List the folder even if its time hasn't changed.
        """
        self._looked_at = self._clock()
        came = (always or self._catalog.changed()) and self.list_files()
        for segment in self._catalog.retry():
            self.follow(segment)
        waiting = [writer for writer in self._writers.values() if not writer.queued]
        # A list, not a generator: each segment must be checked, to find those that are gone.
        grown = [writer for writer in waiting if any([*map(self._has_more, list(writer.segments))])]
        for writer in sorted(grown, key=lambda writer: writer.segments[0].name if writer.segments else ""):
            self._queue(writer)
        self._watch.record_poll(found=came or bool(grown))
        now = self._clock()
        self._look_at = now + max(CHECK_PAUSE, (now - self._looked_at) * _CHECK_SHARE)
        return bool(self._turns)

    def list_files(self) -> bool:
        """List the folder; return whether there are new segments."""
        self.listed_at = self._clock()
        came, went = self._catalog.list_files()
        for segment in went:
            self._lose(segment)
        for segment in came:
            writer = self._writers.setdefault(segment.writer, _Writer())
            insort(writer.segments, segment, key=lambda segment: segment.name)
            self._queue(writer)
        return bool(came)

    def measure(self) -> None:
        """Update the sizes of all segments."""
        if self._catalog.changed():
            self.list_files()
        for segment in self._catalog.readable():
            if not segment.locked:
                self.guard(segment, self._has_grown, opened=False)

    def follow(self, segment: FollowedSegment) -> None:
        """Read a segment soon, since it may contain more than known."""
        segment.locked = False
        self._queue(self._writers[segment.writer])

    def drop(self, segment: FollowedSegment) -> None:
        """Close and forget a segment that is gone."""
        self._catalog.release(segment)
        writer = self._writers[segment.writer]
        writer.segments.remove(segment)
        if not writer.segments:
            del self._writers[segment.writer]

    def is_last(self, segment: FollowedSegment) -> bool:
        """Return whether a segment is its writer's latest."""
        return self._writers[segment.writer].segments[-1] is segment

    def guard(
        self, segment: FollowedSegment, action: Callable[[FollowedSegment], _Result], *, opened: bool = True
    ) -> _Result | None:
        """Do something with a segment. Set it aside if it can't be read, and forget it if it is gone.

        Args:
            segment: The segment.
            action: What to do.
            opened: Whether the segment has to be open for it.

        Returns:
            The result of the action; None if it failed.
        """
        try:
            if opened:
                self._catalog.use(segment)
            return action(segment)
        except FileNotFoundError:
            self._catalog.forget(segment)
            self._lose(segment)
        except (OSError, UnreadableSegmentError) as exc:
            self._catalog.set_aside(segment, exc)
            if segment.gone:
                self.drop(segment)
        return None

    def distrust_locks(self) -> None:
        """Check all segments again, since locks don't show who has them open."""
        self.locks_work = False
        for segment in self._catalog.readable():
            self.follow(segment)

    def close(self) -> None:
        """Close all segments."""
        for writer in self._writers.values():
            for segment in writer.segments:
                self._catalog.release(segment)

    def _find_ready(self, writer: _Writer) -> FollowedSegment | None:
        """Return a writer's oldest segment with an event, which is then ready; see rule 1."""
        while True:
            segments = list(writer.segments)
            segment = next((one for one in segments if self.guard(one, self._fetch, opened=False)), None)
            if segment is None:
                return None
            if self._catalog.changed():
                self.list_files()
            earlier = writer.segments[: writer.segments.index(segment)]
            if not any([*map(self._has_more, earlier)]):
                return segment

    def _fetch(self, segment: FollowedSegment) -> bool:
        """Return whether a segment has a ready event; drop it if it will never have another."""
        if segment.ready:
            return True
        if not segment.readable:
            return False
        if segment.gone and segment.fd < 0:
            self.drop(segment)
            return False
        now = self._clock()
        to_lock = (
            self.locks_work and not segment.gone and now >= segment.lock_at and not self.is_last(segment)
        )
        if segment.fd < 0 and segment.seen and not to_lock and not self._has_grown(segment):
            return False
        self._catalog.use(segment)
        if segment.fetch(self._files) or (to_lock and self._end(segment, now)):
            return True
        if segment.gone:
            if now >= segment.gone_at + GONE_PAUSE:
                self.drop(segment)
        elif segment.done:
            self._ended(segment)
        return False

    def _end(self, segment: FollowedSegment, now: float) -> bool:
        """Return whether a segment that was read to its end has grown; record if no process has it open."""
        segment.lock_at = now + LOCK_PAUSE
        if self._files.lock(segment.fd):
            if segment.fetch(self._files):
                return True
            segment.locked = True
        return False

    def _has_grown(self, segment: FollowedSegment) -> bool:
        segment.update_size(self._files)
        return segment.grown

    def _has_more(self, segment: FollowedSegment) -> bool:
        return segment.ready or (
            segment.readable
            and (
                (segment.gone and self._looked_at >= segment.gone_at + GONE_PAUSE)
                or self.guard(segment, self._has_grown, opened=False) is True
            )
        )

    def _queue(self, writer: _Writer) -> None:
        if not writer.queued:
            writer.queued = True
            self._turns.append(writer)

    def _lose(self, segment: FollowedSegment) -> None:
        """Follow a deleted segment only if there may be more to read."""
        if segment.fd < 0 and not segment.ready:
            self.drop(segment)
        else:
            self.follow(segment)
