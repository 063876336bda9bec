"""Appends events to the spool.

Each process appends to a *segment* that it created, with one `write` per put. A segment starts like this:

    create  NAME.new, exclusively, with a random name
    lock    shared, until the last process that has the segment open closes it
    write   the header and the first records
    rename  to NAME.segment, where readers find it

Rules:

1. When `append` has returned, the events are in the page cache, in whole records of a file that readers read.
   A process may be killed at any moment: what it didn't finish has another name, or is a torn record.
2. Nothing here waits for another process or thread, and no lock guards an append: the kernel serialises
   `write`s. A forked child appends to the segment that it inherited.
3. Readers delete a file only under its exclusive lock. So the lock is taken before readers can find the file.
   A file that was deleted in between can't be renamed; then another one is started.
4. After a short `write`, nothing more is written to the segment. Nothing is ever truncated.
5. The directory is measured when a segment starts, and no segment starts beyond `max_size`. So the spool
   exceeds that by at most a segment, or the largest event, per writer.
6. After a refusal, the next attempt is made after `FULL_PAUSE` or `UNAVAILABLE_PAUSE`. Until then the same
   refusal is repeated. If a segment should end, but no other can be started, the rest of it is used.
7. Events of one thread are in order, by the names of their segments and within each: if threads start
   segments at the same time, all continue with the one that was created last. Its name may become visible
   first. The segment before it ends at that moment.
"""

from __future__ import annotations

import contextlib
import errno
import os
from bisect import bisect_right
from threading import RLock
from time import monotonic, time_ns
from typing import TYPE_CHECKING, NamedTuple

from .._words import counted
from ..counting.forks import OfProcess
from ..errors import TOO_MANY_FILES, EventQueueFullError, EventQueueUnavailableError
from .format import IDENTITY_SIZE, NEW_SUFFIX, OVERHEAD, SEGMENT_SUFFIX, Encoder, Header
from .segment import Segment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..counting.refusals import RefusalCounts
    from .segment import OpenSpoolFolder, SpoolFolder

#: Seconds until the next attempt, after there was no room, and after another problem.
FULL_PAUSE = 0.25
UNAVAILABLE_PAUSE = 1.0

#: A segment has this fraction (1/n) of the spool's size, but at least this many bytes.
SEGMENTS = 256
MIN_SEGMENT_SIZE = 256 * 1024

#: How often a new file may be deleted before that is an error.
_START_ATTEMPTS = 20

#: Errors for lack of space, with the problem and the remedy.
_NO_ROOM = {
    errno.ENOSPC: (
        "no space or no inodes left on the disk; free some, or check that the event publisher is running"
    ),
    errno.EDQUOT: "the disk quota is used up; raise it, or check that the event publisher is running",
    errno.EFBIG: "the limit of file sizes was reached; raise `ulimit -f` (RLIMIT_FSIZE)",
    errno.EROFS: "the file system is read-only; see the kernel's log for the reason, and mount it writable",
}

#: Errors after which another attempt may succeed: the file or directory was deleted; or the program closed a
#: descriptor that it doesn't own.
_TRY_AGAIN = frozenset({errno.ENOENT, errno.EBADF})


class _Pause(NamedTuple):
    """A period in which no segment can be started.

    Attributes:
        until: Time of the clock of the next attempt.
        refuse: Creates the error with the reason.
    """

    until: float
    refuse: Callable[[], EventQueueFullError | EventQueueUnavailableError]


class SpoolWriter:
    """Appends the events of one service to a spool; threads, greenlets and forked children may share it.

    Args:
        directory: The directory of the spool.
        event_format: The `collector.version` that the events are for, or `UNKNOWN_FORMAT`.
        max_size: Bytes of undelivered events beyond which no segment starts, `MIN_SPOOL_SIZE` or more.
        refusals: The refusals to report to the publisher.
        clock: The monotonic clock, in seconds.

    Attributes:
        segment: What is appended to now; None before the first event.
        name: What distinguishes its segments from those of other writers: 16 hexadecimal digits.
        max_size: As given, and may be changed.
    """

    def __init__(
        self,
        directory: SpoolFolder,
        event_format: str,
        max_size: int,
        refusals: RefusalCounts,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._refusals = refusals
        self._directory = directory
        self._event_format = event_format
        self.max_size: int = max_size
        self._segment_size = max(max_size // SEGMENTS, MIN_SEGMENT_SIZE)
        self._clock = clock
        self.name: str = os.urandom(8).hex()
        self._created = 0
        self._pause: _Pause | None = None
        self.segment: Segment | None = None
        # Of two threads that start segments, the newer one must win: see `_start_in`. Reentrant, as a signal
        # handler may put in between; of a process, as a forked child doesn't have the thread that holds it.
        self._replacing = OfProcess(RLock)

    def append(self, messages: Sequence[bytes]) -> None:
        """Append events in order, preceded by a record of unreported refusals, if any.

        Raises:
            EventQueueFullError: There is no room. Its `events_put` is the number of events appended.
            EventQueueUnavailableError: The spool can't be used. `events_put` as above.
        """
        counts = self._refusals.take()
        done = 0
        segment, spare = self._current()
        try:
            while done < len(messages):
                if segment is None:
                    try:
                        done += self._start(messages[done:], counts)
                    except (EventQueueFullError, EventQueueUnavailableError):
                        if spare is None:
                            raise
                        spare.unclaim()
                        segment, spare = spare, None
                        continue
                    counts, spare = {}, None
                    segment = self.segment
                    continue
                head = segment.encoder.encode_refusals(counts) if counts else b""
                data, ends = _compose(segment.encoder, head, messages[done:], segment.room(shared=True))
                if ends:
                    written = segment.append(data)
                    done += bisect_right(ends, written)
                    if written >= len(head):
                        counts = {}
                if segment is self.segment:
                    segment = None
                else:  # another thread has started the next one
                    segment, spare = self._current()
        except (EventQueueFullError, EventQueueUnavailableError) as error:
            error.events_put = done
            segment = spare = None  # a caller that keeps the error must not keep the files open
            raise
        finally:
            if counts:
                self._refusals.put_back(counts)

    def has_reader(self) -> bool | None:
        """Return whether an event publisher reads this spool; None if unknown."""
        try:
            with self._directory.open() as opened:
                return opened.has_reader()
        except (OSError, EventQueueUnavailableError):
            return None

    def used(self) -> int:
        """Return the undelivered bytes in the directory.

        Raises:
            OSError: They are unknown.
            EventQueueUnavailableError: Likewise.
        """
        with self._directory.open() as opened:
            return opened.used()

    def _current(self) -> tuple[Segment | None, Segment | None]:
        """Return the segment to append to, or None if one must be started first.

        Returns:
            The segment, and one with some room left, in case no other can be started.
        """
        while True:
            segment = self.segment
            if segment is None or segment.check(self._clock()):
                return segment, None
            if segment is self.segment:
                break  # otherwise another thread has started the next one
        if segment.ended:
            self.segment = None  # if none can be started, its file is closed anyway, and may be deleted
            return None, None
        if segment.room(shared=True) <= 0:
            return None, None
        if segment.claim():
            return None, segment
        return segment, None  # another thread is starting the next one

    def _start(self, messages: Sequence[bytes], refusals: Mapping[str, int]) -> int:
        """Start a segment with these events; return how many of them are in it, at least 1."""
        pause = self._pause
        if pause is not None and self._clock() < pause.until:
            raise pause.refuse()
        try:
            for _ in range(_START_ATTEMPTS):
                if started := self._try_to_start(messages, refusals):
                    return started
        except EventQueueFullError as error:
            raise self._refuse(FULL_PAUSE, error.problem, full=True) from None
        except EventQueueUnavailableError as error:
            kind, arguments = type(error), error.args
            self._pause = _Pause(self._clock() + UNAVAILABLE_PAUSE, lambda: kind(*arguments))
            raise
        except OSError as exc:
            if exc.errno is None:  # from a signal handler
                raise
            raise self._translate(exc) from exc
        problem = (
            "another process keeps deleting its new files; only the event publisher may delete files there"
        )
        raise self._refuse(UNAVAILABLE_PAUSE, problem)

    def _try_to_start(self, messages: Sequence[bytes], refusals: Mapping[str, int]) -> int:
        """Start a segment; return how many events are in it; 0 if another attempt may succeed."""
        try:
            with self._directory.open() as opened:
                return self._start_in(opened, messages, refusals)
        except OSError as exc:
            if exc.errno in _TRY_AGAIN:
                return 0
            raise

    def _start_in(
        self, opened: OpenSpoolFolder, messages: Sequence[bytes], refusals: Mapping[str, int]
    ) -> int:
        """Start a segment; see `_try_to_start`. It returns 0 if a reader is deleting the file."""
        used = opened.used()
        if used >= self.max_size:
            problem = (
                f"it holds {used:,} of at most {counted(self.max_size, 'byte')}; its event publisher isn't "
                "running, or can't reach the event collector"
            )
            raise EventQueueFullError(self._directory.path, problem=problem)
        identity = os.urandom(IDENTITY_SIZE)
        encoder = Encoder(Header(self._event_format, identity))
        self._created = created = max(self._created + 1, time_ns())
        name = f"{created:020d}-{self.name}-{identity.hex()}"
        fd = opened.create(name + NEW_SUFFIX)
        segment: Segment | None = None
        published = False
        try:
            if not self._directory.lock(fd):
                return 0
            head = encoder.header + (encoder.encode_refusals(refusals) if refusals else b"")
            data, ends = _compose(encoder, head, messages, self._segment_size, at_least_one=True)
            written = self._directory.write(fd, data)
            count = bisect_right(ends, written)
            if not count:
                self._directory.write(fd, data[written:])  # raises the reason
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            segment = Segment(
                self._directory, fd, encoder, created=created, limit=self._segment_size, now=self._clock()
            )
            if written < len(data):
                segment.end()
            opened.publish(name + NEW_SUFFIX, name + SEGMENT_SUFFIX)
            published = True
        finally:
            if not published:  # no other thread has seen it: its space is freed immediately
                with contextlib.suppress(OSError):
                    if segment is None:
                        self._directory.close(fd)
                    else:
                        segment.discard()
                with contextlib.suppress(OSError):
                    opened.remove(name + NEW_SUFFIX)
        with self._replacing.get():
            current = self.segment
            if current is None or current.created < created:  # otherwise another thread was faster
                self.segment = segment
                if current is not None:
                    # A thread that just checked the old segment may still take it for the current one. But
                    # events that it appended there would be delivered before its earlier events in this one.
                    current.end()
        return count

    def _translate(self, exc: OSError) -> EventQueueFullError | EventQueueUnavailableError:
        """Translate an error of the operating system."""
        number = exc.errno or 0
        if number in _NO_ROOM:
            return self._refuse(FULL_PAUSE, _NO_ROOM[number], full=True)
        problem = f"it can't be written ({exc.strerror or type(exc).__name__})"
        return self._refuse(UNAVAILABLE_PAUSE, TOO_MANY_FILES.get(number, problem))

    def _refuse(
        self, seconds: float, problem: str | None, *, full: bool = False
    ) -> EventQueueFullError | EventQueueUnavailableError:
        """Refuse for a while; return the refusal."""
        path = self._directory.path

        def refuse() -> EventQueueFullError | EventQueueUnavailableError:
            if full:
                return EventQueueFullError(path, problem=problem)
            return EventQueueUnavailableError(path, problem or "it can't be used")

        self._pause = _Pause(self._clock() + seconds, refuse)
        return refuse()


def _compose(
    encoder: Encoder, head: bytes, messages: Sequence[bytes], room: int, *, at_least_one: bool = False
) -> tuple[bytes, list[int]]:
    """Return the data to append in one step: a head, and as many events as fit.

    Returns:
        The data, and the end of each event's record in it.
    """
    parts, ends, size = [head], list[int](), len(head)
    for message in messages:
        size += OVERHEAD + len(message)
        if size > room and (ends or not at_least_one):
            break
        parts.append(encoder.encode(message))
        ends.append(size)
    return b"".join(parts), ends
