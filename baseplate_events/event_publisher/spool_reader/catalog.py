"""All segments of a spool: their state, which are open, and which are set aside.

Rules:

1. At most `MAX_OPEN` segments are open, however many there are, and at most a share of RLIMIT_NOFILE.
2. A segment that can't be read is *set aside*: its file stays, and the reader continues with others. If a
   later attempt may succeed, there is one every `RETRY_PAUSE` seconds, together with a regular check.
3. A segment that was deleted by someone else is forgotten, except what was read of it. If it is open, it is
   read to its end, since its writer may not have noticed yet.
"""

from __future__ import annotations

import logging
import math
import resource
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from ...errors import EventQueueUnavailableError
from ...spool import UNKNOWN_FORMAT
from ...spool.format import UnreadableSegmentError
from .files import SegmentName
from .followed_segment import FollowedSegment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .files import FolderVersion, ReaderFolder
    from .findings import OwnFindings

logger: logging.Logger = logging.getLogger(__name__)

#: Most open segments, besides deleted ones; and their share of all descriptors.
MAX_OPEN: Final = 64
_OPEN_SHARE: Final = 4

#: Seconds between attempts to read segments that were set aside.
RETRY_PAUSE: Final = 10.0

#: Seconds for which an unpublished file is left to its writer.
NEW_PAUSE: Final = 1.0

#: Reasons to set a segment aside.
NEWER: Final = "newer"
OTHER_FORMAT: Final = "other_format"
UNREADABLE: Final = "unreadable"
DUPLICATE: Final = "duplicate"
NOT_ACCEPTED: Final = "not_accepted"
REASONS: Final = (NEWER, OTHER_FORMAT, UNREADABLE, DUPLICATE, NOT_ACCEPTED)


class SegmentCatalog:
    """All segments of a spool.

    Args:
        files: The folder.
        event_format: The `collector.version` that events must be for; None for any.
        clock: The monotonic clock, in seconds.
        resolved: Returns the byte ranges of a segment, by its identity, that an earlier run settled.
        findings: Collects what the reader settles itself.

    Attributes:
        by_name: The existing segments.
        by_identity: The same, without copies.
        skipped: Places of events that were handed out, in segments that weren't found yet.
        problem: Why the folder can't be listed, or None.
        only_writer: The only writer whose new segments are read; None for all writers.
    """

    def __init__(
        self,
        files: ReaderFolder,
        event_format: str | None,
        clock: Callable[[], float],
        resolved: Callable[[bytes], Iterable[tuple[int, int]]],
        findings: OwnFindings,
    ) -> None:
        self._files = files
        self._event_format = event_format
        self._clock = clock
        self._resolved = resolved
        self._findings = findings
        self._version: FolderVersion | None = None
        self._open: OrderedDict[FollowedSegment, None] = OrderedDict()
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._share = MAX_OPEN if soft == resource.RLIM_INFINITY else soft // _OPEN_SHARE
        self._new: dict[str, float] = {}  # unpublished files, and when to check them
        self._reported: set[str] = set()
        self._retry_at = math.inf
        self.by_name: dict[str, FollowedSegment] = {}
        self.by_identity: dict[bytes, FollowedSegment] = {}
        self.skipped: dict[bytes, list[tuple[int, int]]] = {}
        self.problem: str | None = None
        self.only_writer: str | None = None

    def changed(self) -> bool:
        """Return whether files appeared or disappeared since they were listed."""
        return self._files.version() != self._version

    @property
    def is_sure(self) -> bool:
        """Whether `changed` is reliable."""
        return self._version is not None and self._version.sure

    def readable(self) -> list[FollowedSegment]:
        """Return the existing segments that aren't set aside."""
        return [segment for segment in self.by_name.values() if not segment.aside]

    def list_files(self) -> tuple[list[FollowedSegment], list[FollowedSegment]]:
        """List the folder; return the new segments, oldest first, and those that are gone."""
        self._version = self._files.version()
        problem = None
        try:
            present = set(self._files.names())
        except (OSError, EventQueueUnavailableError) as exc:
            problem = exc.problem if isinstance(exc, EventQueueUnavailableError) else f"can't be read ({exc})"
            present = set(self.by_name)
            if problem != self.problem:
                logger.error("Spool %s: %s", self._files.path, problem)
        self.problem = problem
        went = [segment for name, segment in self.by_name.items() if name not in present]
        for segment in went:
            self.forget(segment)
        return self._take(sorted(present - self.by_name.keys())), went

    def retry(self) -> list[FollowedSegment]:
        """Return the segments that were set aside and are due for another attempt."""
        if self._clock() < self._retry_at:
            return []
        self._retry_at = math.inf
        back = [segment for segment in self.by_name.values() if segment.aside == UNREADABLE]
        for segment in back:
            segment.aside = ""
        return back

    def use(self, segment: FollowedSegment) -> None:
        """Open a segment, if it isn't open.

        Raises:
            FileNotFoundError: It is gone.
            OSError: It can't be opened.
            UnreadableSegmentError: It can't be read at all, or not by this publisher.
        """
        if segment.fd < 0:
            segment.open(self._files)
            header = segment.header
            wanted = self._event_format
            if header is not None and wanted and header.event_format not in {wanted, UNKNOWN_FORMAT}:
                segment.close(self._files)
                raise _OtherFormatError(
                    f"its events are for collector.version {header.event_format}, "
                    f"but this publisher has {wanted}"
                )
        if segment.gone:
            return
        self._open[segment] = None
        self._open.move_to_end(segment)
        while len(self._open) > min(MAX_OPEN, self._share):
            oldest, _ = self._open.popitem(last=False)
            oldest.close(self._files)

    def release(self, segment: FollowedSegment) -> None:
        """Close a segment."""
        self._open.pop(segment, None)
        segment.close(self._files)

    def set_aside(self, segment: FollowedSegment, problem: OSError | UnreadableSegmentError) -> None:
        """Set a segment aside."""
        self.release(segment)
        if isinstance(problem, _OtherFormatError):
            self._put_aside(segment, OTHER_FORMAT, problem)
        elif isinstance(problem, UnreadableSegmentError) and problem.newer:
            self._put_aside(segment, NEWER, problem)
        else:
            self._put_aside(segment, UNREADABLE, problem)
            self._retry_at = min(self._retry_at, self._clock() + RETRY_PAUSE)

    def forget(self, segment: FollowedSegment) -> None:
        """Forget a segment whose file was deleted; an open one stays open until it is released."""
        segment.gone = True
        segment.gone_at = self._clock()
        self._open.pop(segment, None)
        self.by_name.pop(segment.name, None)
        if self.by_identity.get(segment.identity) is segment:
            del self.by_identity[segment.identity]

    def remove_new(self) -> None:
        """Delete unpublished files of dead writers."""
        now = self._clock()
        for name in [name for name, at in self._new.items() if at <= now]:
            self._new[name] = now + NEW_PAUSE
            try:
                self._remove_new(name)
            except FileNotFoundError:
                del self._new[name]  # published, or deleted
            except OSError:
                continue

    def report_once(
        self, level: int, segment: FollowedSegment, text: str, *values: object, kind: str = ""
    ) -> None:
        """Log an event of a segment, unless it was logged before; `kind` distinguishes equal texts."""
        if text + kind not in self._reported:
            self._reported.add(text + kind)
            logger.log(level, "Spool %s: segment %s %s", self._files.path, segment.name, text % values)

    def _remove_new(self, name: str) -> None:
        fd = self._files.open(name)
        try:
            if self._files.lock(fd):
                self._files.delete(name)
        finally:
            self._files.close_file(fd)

    def _take(self, names: Iterable[str]) -> list[FollowedSegment]:
        """Return the segments of these names, and remember unpublished files."""
        taken: list[FollowedSegment] = []
        for name in names:
            parsed = SegmentName.parse(name)
            if parsed is None:
                continue
            if not parsed.published:
                self._new.setdefault(name, self._clock() + NEW_PAUSE)
                continue
            segment = FollowedSegment(name, parsed, self._resolved(parsed.identity), self._findings)
            for place in self.skipped.pop(parsed.identity, ()):
                segment.skip(*place)
            self.by_name[name] = segment
            if self.by_identity.setdefault(parsed.identity, segment) is not segment:
                self._put_aside(segment, DUPLICATE, "it is a copy of another segment; remove one of them")
            elif self.only_writer not in {None, parsed.writer}:
                problem = "a service wrote it, and queue.transport = posix; it is delivered after a restart"
                self._put_aside(segment, NOT_ACCEPTED, problem)
            taken.append(segment)
        return taken

    def _put_aside(self, segment: FollowedSegment, reason: str, problem: object) -> None:
        segment.aside = reason
        text = "was set aside: %s. Its file stays; further segments of this kind are only counted"
        problem = (isinstance(problem, OSError) and problem.strerror) or problem
        self.report_once(logging.WARNING, segment, text, problem, kind=reason)


class _OtherFormatError(UnreadableSegmentError):
    """A segment has events for another `collector.version`."""
