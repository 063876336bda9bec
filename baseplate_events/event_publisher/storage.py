"""A folder on a disk that belongs to one process: what the spool writes to, and its real form.

Rules:

1. A folder has one user at a time. The lock is on the folder itself, so that nobody can delete it, and ends
   with the process, however that ends.
2. Nobody else gets at the files: they are 0600 in a folder that is 0700 and owned by the user of the process.
3. A folder that may be somebody else's isn't changed but refused: one with another owner, and one that others
   can enter and that isn't empty.
4. Files are named within the open folder, and links aren't followed there, so that nothing outside of it is
   ever read or written, also if the folder is moved meanwhile.
5. A file is mapped only on a file system that writes in place. There, what was written once has its blocks
   for good; elsewhere a full disk could end the process by SIGBUS, in the midst of a copy. (Left is what no
   process with a mapped file is safe from: others that cut it, and a dying disk that can't read it back.)
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import stat
from pathlib import Path
from typing import ClassVar, Final, Protocol

from ..errors import EventError

#: File systems of Linux that write in place, as /proc/self/mountinfo calls them.
_IN_PLACE: Final = frozenset({"ext2", "ext3", "ext4", "tmpfs", "xfs"})

#: Where the field of a line is that names the device; see proc_pid_mountinfo(5).
_DEVICE: Final = 2


class StorageError(EventError):
    """Raised when a folder of the publisher can't take, give or open what it should.

    Attributes:
        path: The file or folder.
        problem: What is wrong, and what to do.
    """

    _what: ClassVar[str] = "Storage"

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"{self._what} {self.path}: {self.problem}"


class SpoolError(StorageError):
    """Raised when the spool can't take, give or open what it should."""

    _what = "Spool"


class Memory(Protocol):
    """A file as memory. What was put there is in the file, also if the process is killed; nothing fails."""

    def seek(self, position: int, /) -> object:
        """Let the next write begin there."""
        ...

    def write(self, data: bytes, /) -> object:
        """Put bytes where the last write ended; they must fit. A kill may leave any part of them."""
        ...

    def read(self, size: int, /) -> bytes:
        """Return so many bytes from where the next write would begin."""
        ...

    def close(self) -> object:
        """End the use of the memory; the file stays as it is."""
        ...


class Disk(Protocol):
    """A folder of files, as the spool uses it. Every method can raise `OSError`."""

    @property
    def maps(self) -> bool:
        """Whether files can be mapped, and nothing can happen to who writes to the memory."""
        ...

    def names(self) -> list[str]:
        """Name the files, in any order."""
        ...

    def read(self, name: str, limit: int, /) -> bytes:
        """Read a whole file; one of more than `limit` bytes is an error (`EFBIG`)."""
        ...

    def create(self, name: str, /) -> int:
        """Make a file that isn't there yet, and open it to write."""
        ...

    def write(self, handle: int, data: bytes, /) -> int:
        """Write at the end of a file; return how many bytes were taken, which may be fewer."""
        ...

    def map(self, handle: int, /) -> Memory:
        """Map a file that is open, and was written to its end; only where the disk `maps`."""
        ...

    def truncate(self, handle: int, size: int, /) -> None:
        """Cut a file that is open to its first `size` bytes."""
        ...

    def cut(self, name: str, size: int, /) -> None:
        """Cut a file that isn't open to its first `size` bytes."""
        ...

    def sync(self, handle: int, /) -> None:
        """Force what was written to a file that is open onto the disk.

        After an error it isn't known what is on the disk, and a later success doesn't mean that it is there:
        the system may have given the bytes up. They have to be written anew, to another file.
        """
        ...

    def sync_names(self) -> None:
        """Force onto the disk which files there are."""
        ...

    def close(self, handle: int, /) -> None:
        """Close a file; it is closed afterwards also if there is an error."""
        ...

    def delete(self, name: str, /) -> None:
        """Delete a file."""
        ...


class Folder:
    """A real folder, made if it isn't there and locked for this object.

    One that is empty is taken into possession: closed to others. A link to a folder is followed.

    Args:
        path: Where it is.

    Raises:
        SpoolError: It can't be made, opened or locked, isn't this user's alone, or somebody else uses it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            _make(Path(path).absolute())
            self._folder: int | None = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as exc:
            raise SpoolError(path, f"can't be used as a folder: {exc.strerror}") from exc
        try:
            self._lock(self._folder)
            self._check(self._folder)
            self._maps: bool = _writes_in_place(os.fstat(self._folder).st_dev)
        except OSError as exc:
            self.release()
            raise SpoolError(path, f"can't be used: {exc.strerror}") from exc
        except SpoolError:
            self.release()
            raise

    def _lock(self, folder: int) -> None:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            problem = "another publisher uses it; give each a folder of its own"
            raise SpoolError(self.path, problem) from exc

    def _check(self, folder: int) -> None:
        status = os.fstat(folder)
        if status.st_uid != os.geteuid():
            raise SpoolError(
                self.path,
                f"belongs to user {status.st_uid}, not to {os.geteuid()}, whom this process runs as; name a "
                "folder of that user, or one in this folder that isn't there yet",
            )
        if not status.st_mode & 0o077:
            return
        # A mistyped path must not shut the whole host out of its /tmp or /var/lib.
        if status.st_mode & stat.S_ISVTX or os.listdir(folder):
            raise SpoolError(
                self.path,
                f"is open to other users (mode {stat.S_IMODE(status.st_mode):04o}) and isn't empty, or is "
                "meant for all; name another folder, or `chmod 0700` this one if nobody else uses it",
            )
        os.fchmod(folder, 0o700)

    @property
    def _open(self) -> int:
        if self._folder is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._folder

    @property
    def maps(self) -> bool:
        """Whether files can be mapped, and nothing can happen to who writes to the memory."""
        return self._maps

    def names(self) -> list[str]:
        """Name the files, in any order."""
        return os.listdir(self._open)  # noqa: PTH208 - a path could be another folder by now

    def read(self, name: str, limit: int, /) -> bytes:
        """Read a whole file; one of more than `limit` bytes is an error (`EFBIG`)."""
        # Without O_NONBLOCK a named pipe would hang the process.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        handle = os.open(name, flags, dir_fd=self._open)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "Not a regular file")
            if status.st_size > limit:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
            with open(handle, "rb", buffering=0, closefd=False) as file:
                return file.read()
        finally:
            os.close(handle)

    def create(self, name: str, /) -> int:
        """Make a file that isn't there yet, and open it to write."""
        return os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600, dir_fd=self._open)

    def write(self, handle: int, data: bytes, /) -> int:
        """Write at the end of a file; return how many bytes were taken, which may be fewer."""
        return os.write(handle, data)

    def map(self, handle: int, /) -> mmap.mmap:
        """Map a file that is open, and was written to its end; only where the disk `maps`."""
        return mmap.mmap(handle, 0)

    def truncate(self, handle: int, size: int, /) -> None:
        """Cut a file that is open to its first `size` bytes."""
        os.ftruncate(handle, size)

    def cut(self, name: str, size: int, /) -> None:
        """Cut a file that isn't open to its first `size` bytes."""
        handle = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=self._open)
        try:
            os.ftruncate(handle, size)
        finally:
            os.close(handle)

    def sync(self, handle: int, /) -> None:
        """Force what was written to a file that is open onto the disk."""
        os.fdatasync(handle)

    def sync_names(self) -> None:
        """Force onto the disk which files there are."""
        os.fsync(self._open)

    def close(self, handle: int, /) -> None:
        """Close a file."""
        os.close(handle)

    def delete(self, name: str, /) -> None:
        """Delete a file."""
        os.unlink(name, dir_fd=self._open)

    def release(self) -> None:
        """Let go of the folder and its lock; nothing else can be called afterwards."""
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None


def _make(path: Path) -> None:
    """Make a folder, and those above it, so that a power cut doesn't take them away again."""
    try:
        path.mkdir(0o700)
    except FileExistsError:
        return
    except FileNotFoundError:
        _make(path.parent)
        path.mkdir(0o700)
    with contextlib.suppress(PermissionError):  # one may be allowed to add to a folder but not to read it
        handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _writes_in_place(device: int) -> bool:
    """Whether a file system is known to write in place; False where that can't be told."""
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = Path("/proc/self/mountinfo").read_bytes().decode(errors="replace")
    except OSError:
        return False
    for line in mounts.splitlines():
        mount, _, system = line.partition(" - ")
        if mount.split(" ")[_DEVICE] == number:
            return system.split(" ")[0] in _IN_PLACE
    return False
