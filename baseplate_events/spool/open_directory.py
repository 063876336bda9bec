"""The open folder of a spool: its files are accessed relative to it, even if it is moved."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, final

from .file_systems import try_lock, unlock
from .format import NEW_SUFFIX, SEGMENT_SUFFIX

if TYPE_CHECKING:
    from types import TracebackType

#: The publisher of a spool holds the exclusive lock of this file while it runs.
READER_LOCK = "reader.lock"

#: Bytes of a block that `st_blocks` counts, on any file system (inode(7)).
_BLOCK = 512


@final
class OpenDirectory:
    """The folder of a spool, open. A context manager that closes it.

    Args:
        descriptor: Its open descriptor, which this object closes.
        mode: Permission bits of new files.
        counts_blocks: Whether the file system reports the blocks of a file.
    """

    __slots__ = ("_counts_blocks", "_descriptor", "_inode", "_mode")

    def __init__(self, descriptor: int, *, mode: int, counts_blocks: bool) -> None:
        self._descriptor = descriptor
        self._inode = _inode(descriptor)
        self._mode = mode
        self._counts_blocks = counts_blocks

    def fileno(self) -> int:
        """Return its descriptor, which this object still owns."""
        return self._descriptor

    def used(self) -> int:
        """Return the bytes of all segments, without the holes of delivered events.

        Raises:
            OSError: The folder can't be read.
        """
        total = 0
        with os.scandir(self._descriptor) as entries:
            for entry in entries:
                if not entry.name.endswith((SEGMENT_SUFFIX, NEW_SUFFIX)):
                    continue  # a file of the publisher, such as its ledger
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # deleted in the meantime
                if stat.S_ISREG(status.st_mode):
                    size = status.st_size
                    total += min(size, status.st_blocks * _BLOCK) if self._counts_blocks else size
        return total

    def create(self, name: str) -> int:
        """Create a file, opened for appending.

        Returns:
            Its descriptor, for the methods of `SpoolDirectory`.

        Raises:
            OSError: It couldn't be created, or existed before. `FileNotFoundError` means that the folder was
                deleted: reopen it.
        """
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, self._mode, dir_fd=self._descriptor)
        try:
            os.fchmod(descriptor, self._mode)
        except BaseException:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                self.remove(name)
            raise
        return descriptor

    def publish(self, name: str, final: str) -> None:
        """Rename a file.

        Raises:
            OSError: It couldn't be renamed, and still has its old name.
        """
        os.rename(name, final, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def remove(self, name: str) -> None:
        """Delete a file.

        Raises:
            OSError: It couldn't be deleted.
        """
        os.unlink(name, dir_fd=self._descriptor)

    def has_reader(self) -> bool | None:
        """Return whether a publisher reads this spool, or None if unknown.

        This takes a shared lock of the publisher's file for a moment. So a publisher that starts must try
        more than once.
        """
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(READER_LOCK, flags, dir_fd=self._descriptor)
        except FileNotFoundError:
            return False
        except OSError:
            return None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            if not try_lock(descriptor, exclusive=False):
                return True
            unlock(descriptor)  # a process forked at this moment must not keep it
        except OSError:
            return None
        else:
            return False
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Close the folder; files opened through it stay open."""
        descriptor, self._descriptor = self._descriptor, -1
        with contextlib.suppress(
            OSError
        ):  # the program closed our descriptor; the number isn't ours any more
            if descriptor >= 0 and _inode(descriptor) == self._inode:
                os.close(descriptor)

    def __enter__(self) -> OpenDirectory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _inode(descriptor: int) -> tuple[int, int]:
    """Return the identity of an open file."""
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino
