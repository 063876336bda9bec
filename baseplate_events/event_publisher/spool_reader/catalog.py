"""All segments of a spool that its reader knows: what they are, which are open, and which are set aside.

Rules:

1. At most `MAX_OPEN` segments are open, however many there are, and a part of what RLIMIT_NOFILE allows.
2. A segment that can't be read is *set aside*: it stays where it is, and others go on. If a later attempt may
   find it readable, there is one every `RETRY_PAUSE` seconds, with a look that is made anyway.
3. A segment that was deleted by someone else is forgotten, except what was read of it. If it is open, it is
   read to its end, as its writer may not know yet.
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

#: Segments that are open at most, besides those that were deleted; and their share of all descriptors.
MAX_OPEN: Final = 64
_OPEN_SHARE: Final = 4

#: Seconds until segments that couldn't be read are tried again.
RETRY_PAUSE: Final = 10.0

#: Seconds for which a file that isn't published yet is left to its writer.
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
        clock: Gives seconds that never step back.
        resolved: Returns the byte ranges of a segment that an earlier run has settled, by its identity.
        findings: What segments settle by themselves.

    Attributes:
        by_name: Segments that are there.
        by_identity: The same, without copies.
        skipped: Places of events that were handed out, in segments that couldn't be found yet.
        problem: Why the folder can't be listed; None if it can.
        only_writer: Whose segments are read alone from now on; None: all writers'.
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
        self._new: dict[str, float] = {}  # unpublished files, and when to look at them
        self._reported: set[str] = set()
        self._retry_at = math.inf
        self.by_name: dict[str, FollowedSegment] = {}
        self.by_identity: dict[bytes, FollowedSegment] = {}
        self.skipped: dict[bytes, list[tuple[int, int]]] = {}
        self.problem: str | None = None
        self.only_writer: str | None = None

    def changed(self) -> bool:
        """Return whether files came or went since they were listed."""
        return self._files.version() != self._version

    @property
    def is_sure(self) -> bool:
        """Whether nothing can have come or gone unless `changed` says so."""
        return self._version is not None and self._version.sure

    def readable(self) -> list[FollowedSegment]:
        """Return the segments that are there and not set aside."""
        return [segment for segment in self.by_name.values() if not segment.aside]

    def list_files(self) -> tuple[list[FollowedSegment], list[FollowedSegment]]:
        """List the folder; return the segments that came, oldest first, and those that went."""
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
        """Return the segments that were set aside and are to be tried again now."""
        if self._clock() < self._retry_at:
            return []
        self._retry_at = math.inf
        back = [segment for segment in self.by_name.values() if segment.aside == UNREADABLE]
        for segment in back:
            segment.aside = ""
        return back

    def use(self, segment: FollowedSegment) -> None:
        """Open a segment, unless it is open.

        Raises:
            FileNotFoundError: It is gone.
            OSError: It can't be opened.
            UnreadableSegmentError: It can't be read, or not by this publisher.
        """
        if segment.fd < 0:
            segment.open(self._files)
            header = segment.header
            wanted = self._event_format
            if header is not None and wanted and header.event_format not in {wanted, UNKNOWN_FORMAT}:
                segment.close(self._files)
                raise _OtherFormatError(
                    f"its events are for collector.version {header.event_format}, "
                    f"and this publisher has {wanted}"
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
        """Forget a segment whose file was deleted; if it is open, it stays so until it is released."""
        segment.gone = True
        segment.gone_at = self._clock()
        self._open.pop(segment, None)
        self.by_name.pop(segment.name, None)
        if self.by_identity.get(segment.identity) is segment:
            del self.by_identity[segment.identity]

    def remove_new(self) -> None:
        """Delete files that were never published, whose writers are dead."""
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
        """Log what happened to a segment, unless the same was logged; `kind` distinguishes equal texts."""
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
        """Return the segments that have these names, and note the files that may become some."""
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
                self._put_aside(segment, DUPLICATE, "it is a copy of another segment; remove one")
            elif self.only_writer not in {None, parsed.writer}:
                problem = "a service wrote it, and queue.transport = posix; it is delivered after a restart"
                self._put_aside(segment, NOT_ACCEPTED, problem)
            taken.append(segment)
        return taken

    def _put_aside(self, segment: FollowedSegment, reason: str, problem: object) -> None:
        segment.aside = reason
        text = "was set aside: %s. Its file stays; more such segments are only counted"
        problem = (isinstance(problem, OSError) and problem.strerror) or problem
        self.report_once(logging.WARNING, segment, text, problem, kind=reason)


class _OtherFormatError(UnreadableSegmentError):
    """A segment has events for another version of the collector."""
