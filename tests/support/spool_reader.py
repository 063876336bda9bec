"""The simplest reader of a real spool that follows the rules, as a reference for tests.

Rules:

1. Only whole records count. A record that isn't complete is pending while a process has its segment open.
2. A segment is deleted only under its exclusive lock, which means that no process has it open, and after it
   was read to its end under that lock. Afterwards it is read once more: there must be nothing.
3. `take` gets events before their segment is deleted. A reader that is killed leaves them for the next one.
4. Only regular files count, and no link is followed. Files that aren't complete are removed once their writer
   is gone.
5. One reader at a time: it holds the exclusive lock of `reader.lock`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from baseplate_events.spool.directory import READER_LOCK
from baseplate_events.spool.format import (
    EVENT,
    MAX_HEADER,
    NEW_SUFFIX,
    REFUSALS,
    SEGMENT_SUFFIX,
    Header,
    SegmentParser,
    UnreadableSegmentError,
)
from tests.support.waiting import wait_until

from .records import Record, feed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

#: Bytes that are read at a time.
_PIECE: Final = 1 << 20

#: As the publisher will open files: without waiting for the other end of a pipe.
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass
class _FollowedFile:
    """A segment that is being read."""

    fd: int
    head: bytes = b""
    parser: SegmentParser | None = None
    end: int = 0  # of the last record


@final
class SpoolFileReader:
    """Reads the spool in a folder, from the start of a `with` block to its end.

    Args:
        folder: The spool, `events-NAME`. It may be missing, or be deleted and recreated.
        take: Gets events in the order of their records; None to collect them in `events`.

    Attributes:
        events: The events so far.
        refusals: Refused events that writers reported, by reason.
        torn: Bytes that are part of no whole record.
        torn_places: Stretches of such bytes.
        deleted: Segments that were read to their end and deleted.
        removed: Files that were never completed, and were removed.
        grown: Bytes that appeared after the last read under the lock. There must be none.
        vanished: Segments that another process deleted before this one could.
        unreadable: Names of segments whose header can't be read; they are left alone.
    """

    def __init__(self, folder: Path, take: Callable[[list[bytes]], object] | None = None) -> None:
        self.events: list[bytes] = []
        self.refusals: Counter[str] = Counter()
        self.torn = 0
        self.torn_places = 0
        self.deleted = 0
        self.removed = 0
        self.grown = 0
        self.vanished = 0
        self.unreadable: set[str] = set()
        self._folder = folder
        self._take = take or self.events.extend
        self._followed: dict[str, _FollowedFile] = {}
        self._lock: int | None = None

    def read(self) -> int:
        """Read all events, delete finished segments, and return how many files are left."""
        names = self._names()
        for name in [name for name in self._followed if name not in names]:
            self._leave(name)
        left = 0
        for name in names:
            if name.endswith(NEW_SUFFIX):
                left += self._remove_unfinished(name)
            elif name not in self.unreadable:
                left += self._follow(name)
        return left

    def drain(self) -> list[bytes]:
        """Read until no file is left, so until no process has one open; return all events."""
        wait_until(lambda: not self.read(), lambda: f"a process still has one of {self._names()} open")
        return self.events

    def __enter__(self) -> SpoolFileReader:
        # A service that looks for a reader has the lock for a moment.
        with contextlib.suppress(FileNotFoundError):
            self._lock = os.open(self._folder / READER_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if self._lock is not None:
            wait_until(self._get_lock, "another reader has the spool")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for followed in self._followed.values():
            os.close(followed.fd)
        self._followed.clear()
        if self._lock is not None:
            os.close(self._lock)

    def _get_lock(self) -> bool:
        assert self._lock is not None
        return _lock_exclusively(self._lock)

    def _names(self) -> list[str]:
        """Name the regular files of a writer, oldest first."""
        try:
            with os.scandir(self._folder) as entries:
                return sorted(
                    entry.name
                    for entry in entries
                    if entry.name.endswith((NEW_SUFFIX, SEGMENT_SUFFIX))
                    and entry.is_file(follow_symlinks=False)
                )
        except FileNotFoundError:
            return []

    def _open(self, name: str) -> int | None:
        """Open a file; None if it is gone or isn't a regular file."""
        try:
            fd = os.open(self._folder / name, _FLAGS)
        except OSError:
            return None
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        return None

    def _remove_unfinished(self, name: str) -> bool:
        """Remove a file that will never be complete, and return whether it, or a segment instead, stays."""
        fd = self._open(name)
        if fd is None:
            return True  # a segment now, or gone
        try:
            if not _lock_exclusively(fd):
                return True
            with contextlib.suppress(FileNotFoundError):  # a segment now
                (self._folder / name).unlink()
                self.removed += 1
                return False
            return True
        finally:
            os.close(fd)

    def _follow(self, name: str) -> bool:
        """Read a segment to its end, and return whether it stays."""
        followed = self._followed.get(name)
        if followed is None:
            fd = self._open(name)
            if fd is None:
                return False
            followed = self._followed[name] = _FollowedFile(fd)
        over = _lock_exclusively(followed.fd)  # before it is read: afterwards no process can append to it
        try:
            self._read(followed)
        except UnreadableSegmentError:
            self.unreadable.add(name)
            os.close(self._followed.pop(name).fd)
            return False
        if not over:
            return True
        self._finish(followed)
        (self._folder / name).unlink()
        self.grown += len(os.read(followed.fd, _PIECE))
        self.deleted += 1
        os.close(self._followed.pop(name).fd)
        return False

    def _leave(self, name: str) -> None:
        """Read the rest of a deleted segment."""
        followed = self._followed.pop(name)
        self._read(followed)
        self._finish(followed)
        self.vanished += 1
        os.close(followed.fd)

    def _read(self, followed: _FollowedFile) -> None:
        while piece := os.read(followed.fd, _PIECE):
            if followed.parser is None:
                followed.head += piece
                header = Header.decode(followed.head[:MAX_HEADER])
                if header is None:
                    continue
                size = followed.end = len(header.encode())
                followed.parser = SegmentParser(header, size)
                piece = followed.head[size:]
            self._note(followed, feed(followed.parser, piece))

    def _finish(self, followed: _FollowedFile) -> None:
        parser = followed.parser
        assert parser is not None, "a segment has no header"
        parser.finish()
        assert not parser.pending
        if parser.position > followed.end:
            self.torn_places += 1
        self.torn += parser.torn

    def _note(self, followed: _FollowedFile, records: list[Record]) -> None:
        events: list[bytes] = []
        for record in records:
            if record.start > followed.end:
                self.torn_places += 1
            followed.end = record.end
            if record.kind == EVENT:
                events.append(record.payload)
            elif record.kind == REFUSALS:
                self.refusals.update(json.loads(record.payload))
        if events:
            self._take(events)


def _lock_exclusively(fd: int) -> bool:
    """Lock a file if no other process has it open; closing it releases the lock."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
