"""Inspects a spool without changing it: its folder, its segments, and its reader.

Creates and corrects nothing, and holds a lock only for a moment. So it is safe to use beside services and
their publisher.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from ...errors import EventQueuePermissionError, EventQueueUnavailableError
from ...event_publisher.ledger.file import SPOOL_NAME
from ...event_publisher.policy.byte_ranges import ByteRanges
from ...event_publisher.spool_reader.files import SegmentName
from ...event_publisher.spool_reader.findings import OwnFindings
from ...event_publisher.spool_reader.lost_header import LostHeader
from ...spool import problems
from ...spool.file_systems import Suitability, file_system_of, judge_file_system
from ...spool.format import (
    MAX_HEADER,
    REFUSALS,
    Header,
    SegmentParser,
    UnreadableSegmentError,
)
from ...spool.open_directory import READER_LOCK, OpenDirectory
from ...spool.permissions import PRIVATE, SHARED, file_mode
from .info import group_name, user_name

if TYPE_CHECKING:
    from collections.abc import Generator

#: Bytes of a segment read at a time.
_PIECE: Final = 1 << 20

#: Leading digits in the name of a segment: when it was created, in nanoseconds since 1970.
_CREATED_DIGITS: Final = 20

#: How a file is opened: links aren't followed, and a pipe keeps no one waiting.
FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class SpoolInfo:
    """The state of a spool's folder at one moment.

    Attributes:
        path: Where it is.
        file_system: The type of its file system; None if unknown.
        uid: Its owner.
        gid: Its group.
        mode: Its permission bits.
        backlog: Undelivered bytes, as writers count them.
        segments: The names of its segments, oldest first.
        unfinished: The names of segments that are being started, or were when their service was killed.
        ledgers: The names of the publisher's ledger, and of its companion files.
        others: The names of all other files.
        has_reader: Whether a publisher reads it; None if unknown.
        free_bytes: Bytes that this user may still write to the file system.
        free_inodes: Files that this user may still create there; None if they aren't limited.
    """

    path: str
    file_system: str | None
    uid: int
    gid: int
    mode: int
    backlog: int
    segments: list[str]
    unfinished: list[str]
    ledgers: list[str]
    others: list[str]
    has_reader: bool | None
    free_bytes: int
    free_inodes: int | None

    @property
    def suitability(self) -> Suitability:
        """Whether its file system is fit for a spool."""
        return judge_file_system(self.file_system)

    @property
    def file_mode(self) -> int:
        """The mode that services and publisher are set to: whether a group shares the spool."""
        return file_mode(self.mode)

    @property
    def users(self) -> str:
        """Who may use it, in words; root may in any case."""
        if self.file_mode == SHARED:
            return f"user {user_name(self.uid)} and group {group_name(self.gid)}"
        return f"user {user_name(self.uid)}"

    def oldest_age(self, now: float) -> float | None:
        """Return the age of the oldest segment in seconds; None if there are no segments."""
        created = [int(name[:_CREATED_DIGITS]) / 1e9 for name in self.segments]
        return max(0.0, now - min(created)) if created else None


@dataclass(slots=True)
class SpoolContents:
    """The contents of the segments of a spool.

    Attributes:
        formats: The number of segments by the `collector.version` that their events are for.
        unreadable: The reasons why segments can't be read, by name.
        findings: Its `refusals` are those in the services' remaining reports.
    """

    formats: Counter[str] = field(default_factory=Counter[str])
    unreadable: dict[str, str] = field(default_factory=dict[str, str])
    findings: OwnFindings = field(default_factory=OwnFindings)


@contextlib.contextmanager
def open_spool(path: str) -> Generator[int | None]:
    """Open the folder of a spool, and yield its descriptor; None if it doesn't exist.

    Raises:
        EventQueuePermissionError: It belongs to another user, and this process may not open it.
        EventQueueUnavailableError: It can't be opened for another reason.
    """
    descriptor = None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError as exc:
        if not os.path.isdir(os.path.dirname(path)):  # noqa: PTH112, PTH120 - strings throughout
            raise EventQueueUnavailableError(path, problems.unusable(path, exc)) from exc
    except PermissionError as exc:
        raise EventQueuePermissionError(path, _describe_closed(path)) from exc
    except OSError as exc:
        raise EventQueueUnavailableError(path, problems.unusable(path, exc)) from exc
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def inspect_spool(path: str) -> SpoolInfo | None:
    """Inspect the spool at a path; None if it doesn't exist.

    Raises:
        EventQueueUnavailableError: It can't be inspected; the subclass says why.
    """
    with open_spool(path) as folder:
        return None if folder is None else inspect_folder(path, folder)


def inspect_folder(path: str, folder: int) -> SpoolInfo:
    """Inspect the open folder of a spool.

    Raises:
        EventQueueUnavailableError: It can't be read.
    """
    kind = file_system_of(path)
    try:
        names = sorted(os.listdir(folder))
        counts = _counts_blocks(kind, folder, names)
        with OpenDirectory(os.dup(folder), mode=PRIVATE, counts_blocks=counts) as opened:
            backlog, has_reader = opened.used(), opened.has_reader()
        status, room = os.fstat(folder), os.fstatvfs(folder)
    except OSError as exc:
        raise EventQueueUnavailableError(path, problems.unusable(path, exc)) from exc
    parsed = {name: SegmentName.parse(name) for name in names}
    segments = [name for name, parts in parsed.items() if parts is not None and parts.published]
    unfinished = [name for name, parts in parsed.items() if parts is not None and not parts.published]
    ledgers = [name for name in names if name.startswith(SPOOL_NAME)]
    return SpoolInfo(
        path=path,
        file_system=kind,
        uid=status.st_uid,
        gid=status.st_gid,
        mode=stat.S_IMODE(status.st_mode),
        backlog=backlog,
        segments=segments,
        unfinished=unfinished,
        ledgers=ledgers,
        others=[name for name in names if name not in {*segments, *unfinished, *ledgers, READER_LOCK}],
        has_reader=has_reader,
        free_bytes=room.f_bavail * room.f_frsize,
        free_inodes=room.f_favail if room.f_files else None,
    )


def read_contents(info: SpoolInfo, folder: int) -> SpoolContents:
    """Read all segments of the open folder of a spool."""
    contents = SpoolContents()
    for name in info.segments:
        try:
            _read_segment(folder, name, contents)
        except FileNotFoundError:
            continue  # delivered and deleted in the meantime
        except UnreadableSegmentError as exc:
            contents.unreadable[name] = str(exc)
        except OSError as exc:
            contents.unreadable[name] = exc.strerror or str(exc)
    return contents


def read_header(descriptor: int, name: str) -> Header | None:
    """Return the header of a segment, also if it is damaged but known; None if there is nothing to deliver.

    Raises:
        OSError: It can't be read.
        UnreadableSegmentError: It isn't a segment that this release can read.
    """
    status, parsed = os.fstat(descriptor), SegmentName.parse(name)
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableSegmentError("it isn't a regular file")
    try:
        header = Header.decode(os.pread(descriptor, MAX_HEADER, 0))
    except UnreadableSegmentError as exc:
        lost = LostHeader()
        if parsed is not None and not exc.newer:
            lost.search(parsed.identity, partial(os.pread, descriptor), status.st_size, ByteRanges())
        if lost.header is None and not lost.only_zeros:
            raise
        return lost.header
    if header is not None and parsed is not None and header.identity != parsed.identity:
        raise UnreadableSegmentError("the identity in its header differs from that in its name")
    return header


def _read_segment(folder: int, name: str, contents: SpoolContents) -> None:
    """Add a segment to the contents."""
    descriptor = os.open(name, FLAGS, dir_fd=folder)
    try:
        header = read_header(descriptor, name)
        if header is None:
            raise UnreadableSegmentError("it has no header")
        contents.formats[header.event_format] += 1
        at = len(header.encode())
        parser = SegmentParser(header, at)
        while data := os.pread(descriptor, _PIECE, at):
            at += len(data)
            for run in parser.feed_runs(data):
                if run.kind == REFUSALS:
                    for payload in run.payloads:
                        contents.findings.count_refusals(payload)
    finally:
        os.close(descriptor)


def _counts_blocks(kind: str | None, folder: int, names: list[str]) -> bool:
    """Return whether the file system reports the blocks of a file; writers find out by a probe."""
    if judge_file_system(kind) is Suitability.SUITABLE:
        return kind != "zfs"
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            if os.stat(name, dir_fd=folder, follow_symlinks=False).st_blocks:
                return True
    return False


def _describe_closed(path: str) -> str:
    """Describe a folder that this process may not read, with its owner."""
    whose = ""
    with contextlib.suppress(OSError):
        status = os.lstat(path)
        mode = stat.S_IMODE(status.st_mode)
        whose = (
            f"; it belongs to {user_name(status.st_uid)}, group {group_name(status.st_gid)}, mode {mode:04o}"
        )
    return (
        f"this process of user {os.geteuid()} may not read it{whose}; run the command as its owner, or "
        "as a member of its group if its mode is 2770"
    )
