"""The files of the spool: made whole or not at all, counted by their bytes, and deleted in the end."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ..storage import Disk

#: A number has ten digits, more if need be, but no zeros before more than ten: it has one name.
_NAME: Final = re.compile(r"(segment|journal)-([0-9]{10}|[1-9][0-9]{10,})")


def segment_name(number: int) -> str:
    """Name the file of a segment."""
    return f"segment-{number:010d}"


def journal_name(number: int) -> str:
    """Name a journal; its number is just one that no other file has."""
    return f"journal-{number:010d}"


def number_of(name: str) -> int | None:
    """Tell the number in the name of a segment or journal; None for other names."""
    match = _NAME.fullmatch(name)
    return int(match[2]) if match is not None else None


class Files:
    """Files on a disk, and how many bytes each takes.

    Args:
        disk: Where they are.

    Attributes:
        size: Bytes of all of them, those that couldn't be deleted included.
    """

    def __init__(self, disk: Disk) -> None:
        self.size: int = 0
        self._disk = disk
        self._sizes: dict[str, int] = {}
        self._undeleted: set[str] = set()

    def size_of(self, name: str) -> int:
        """Tell the bytes of a file; 0 if there is none."""
        return self._sizes.get(name, 0)

    def set_size(self, name: str, size: int) -> None:
        """Note the bytes of a file."""
        self.size += size - self._sizes.get(name, 0)
        self._sizes[name] = size

    def create(self, name: str, data: bytes, *, force: bool = False) -> int:
        """Make a file with these bytes and leave it open, to go on at its end.

        Args:
            name: Its name.
            data: What is in it.
            force: Whether it is forced onto the disk.

        Returns:
            Its handle.

        Raises:
            OSError: The disk is full or fails. There is no such file, or it couldn't be deleted yet.
        """
        handle = self._disk.create(name)
        self.set_size(name, 0)
        try:
            self.write(name, handle, data)
            if force:
                self.force(handle)
        except OSError:
            self.discard(name, handle)
            raise
        return handle

    def write(self, name: str, handle: int, data: bytes) -> None:
        """Write all of the data at the end of a file that is open.

        Raises:
            OSError: The disk is full or fails. A part may have been written, and counts.
        """
        while data:  # a disk that is nearly full takes a part, and the next call says why
            taken = self._disk.write(handle, data)
            if not taken:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.set_size(name, self._sizes[name] + taken)
            data = data[taken:]

    def truncate(self, name: str, handle: int, size: int) -> None:
        """Cut a file that is open to its first `size` bytes, or raise an `OSError`."""
        self._disk.truncate(handle, size)
        self.set_size(name, size)

    def cut(self, name: str, size: int) -> None:
        """Cut a file that isn't open to its first `size` bytes, if the disk lets it."""
        with contextlib.suppress(OSError):
            self._disk.cut(name, size)
            self.set_size(name, size)

    def force(self, handle: int) -> None:
        """Force a file and its name onto the disk, or raise an `OSError`."""
        self._disk.sync(handle)
        self._disk.sync_names()

    def discard(self, name: str, handle: int) -> None:
        """Close and delete a file that is open."""
        with contextlib.suppress(OSError):
            self._disk.close(handle)
        self.delete(name)

    def delete(self, name: str) -> bool:
        """Delete a file; tell whether it is gone. If not, it counts on, until `delete_again` has it."""
        try:
            self._disk.delete(name)
        except FileNotFoundError:
            pass
        except OSError:
            self._undeleted.add(name)
            return False
        self._undeleted.discard(name)
        self.size -= self._sizes.pop(name)
        return True

    def delete_again(self) -> None:
        """Try to delete what couldn't be, until it fails again."""
        for name in sorted(self._undeleted):
            if not self.delete(name):
                break
