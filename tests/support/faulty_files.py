"""The folder of a spool whose calls can be counted, can fail, and can lie about locks."""

from __future__ import annotations

import errno
import os
from collections import Counter
from typing import TYPE_CHECKING

from baseplate_events.event_publisher.spool_reader.files import ReaderFolder

if TYPE_CHECKING:
    from collections.abc import Callable

    from baseplate_events.event_publisher.spool_reader.files import FolderVersion


class FaultyFiles(ReaderFolder):
    """A folder that passes calls on to another one.

    Args:
        files: The other one.

    Attributes:
        calls: How often each method was called.
        broken: By method: files for which it fails, by name, and the error.
        before: By method: what to do once, before its next call.
        after: By method: what to do once, after its next call.
        synced: Up to which size files were synced, by name.
        named: Files whose names were synced.
        stopped: The version to report for the folder; None for the real one.
        lock_lies: Whether each attempt to lock a file is reported as successful.
    """

    def __init__(self, files: ReaderFolder) -> None:
        self._files = files
        self._names: dict[int, str] = {}
        self.calls: Counter[str] = Counter()
        self.broken: dict[str, dict[str, int]] = {}
        self.before: dict[str, Callable[[], object]] = {}
        self.after: dict[str, Callable[[], object]] = {}
        self.synced: dict[str, int] = {}
        self.named: set[str] = set()
        self.stopped: FolderVersion | None = None
        self.lock_lies = False

    @property
    def path(self) -> str:
        return self._files.path

    @property
    def punches(self) -> bool | None:
        return self._files.punches

    def version(self) -> FolderVersion:
        self._begin("version")
        return self.stopped or self._files.version()

    def names(self) -> list[str]:
        self._begin("names", "")
        return self._files.names()

    def size_of(self, name: str) -> int:
        self._begin("size_of", name)
        return self._files.size_of(name)

    def open(self, name: str) -> int:
        self._begin("open", name)
        fd = self._files.open(name)
        self._names[fd] = name
        return fd

    def size(self, fd: int) -> int:
        self._begin("size", self._names[fd])
        return self._files.size(fd)

    def read(self, fd: int, size: int, offset: int) -> bytes:
        self._begin("read", self._names[fd])
        data = self._files.read(fd, size, offset)
        self._end("read")
        return data

    def lock(self, fd: int) -> bool:
        self._begin("lock", self._names[fd])
        return self.lock_lies or self._files.lock(fd)

    def punch(self, fd: int, start: int, end: int) -> None:
        self._begin("punch", self._names[fd])
        self._files.punch(fd, start, end)

    def sync(self, fd: int) -> None:
        self._begin("sync", self._names[fd])
        self._files.sync(fd)
        self.synced[self._names[fd]] = self._files.size(fd)

    def sync_names(self) -> None:
        self._begin("sync_names")
        self._files.sync_names()
        self.named |= set(self._files.names())

    def delete(self, name: str) -> None:
        self._begin("delete", name)
        self._files.delete(name)
        self._end("delete")

    def close_file(self, fd: int) -> None:
        del self._names[fd]
        self._files.close_file(fd)

    def close(self) -> None:
        self._files.close()

    @property
    def open_now(self) -> int:
        """How many files are open."""
        return len(self._names)

    def _begin(self, call: str, name: str = "") -> None:
        self.calls[call] += 1
        action = self.before.pop(call, None)
        if action is not None:
            action()
        number = self.broken.get(call, {}).get(name)
        if number:
            raise OSError(number, os.strerror(number))

    def _end(self, call: str) -> None:
        action = self.after.pop(call, None)
        if action is not None:
            action()


EIO = errno.EIO
