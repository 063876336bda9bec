"""The reader's access to the files of a spool, and the lock that keeps a second publisher out.

Rules:

1. Files are named within the open folder, links aren't followed, and only regular files are opened, so that
   nothing outside the folder is read, and a pipe doesn't block.
2. The reader uses the folder that is at the path now. If that was replaced, because someone deleted the old
   one, the reader continues in the new one, and locks it as well.
3. A lock is released only by closing the file.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from ...errors import EventQueueUnavailableError
from ...spool.directory import READER_LOCK
from ...spool.file_systems import try_lock
from ...spool.format import NEW_SUFFIX, SEGMENT_SUFFIX
from ...spool.permissions import file_mode
from .hole_punching import punch_hole

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...spool.directory import SpoolDirectory
    from ...spool.open_directory import OpenDirectory

#: Attempts to take the publisher's lock, and seconds between them: services hold it for microseconds.
_LOCK_ATTEMPTS: Final = 20
_LOCK_PAUSE: Final = 0.01

#: How often the folder may be replaced during locking before that is an error.
_OPEN_ATTEMPTS: Final = 10

#: Nanoseconds within which two changes of a folder may get the same time: a few ticks of the kernel's clock.
_TICKS: Final = 20_000_000

#: Why a second publisher of a spool does not start.
TAKEN: Final = (
    "another event publisher is using it; stop that one, or give this one another queue or spool.directory"
)

_NAME: Final = re.compile(
    rf"([0-9]{{20}})-([0-9a-f]{{16}})-([0-9a-f]{{32}})({re.escape(SEGMENT_SUFFIX)}|{re.escape(NEW_SUFFIX)})"
)


class SegmentName(NamedTuple):
    """The parts of a segment's name.

    Attributes:
        created: Nanoseconds since 1970.
        writer: 16 hexadecimal digits.
        identity: 16 bytes.
        published: Whether it is published, so that it may be read.
    """

    created: int
    writer: str
    identity: bytes
    published: bool

    @classmethod
    def parse(cls, name: str) -> SegmentName | None:
        """Return the parts of a name; None if it isn't a segment's."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        return cls(int(match[1]), match[2], bytes.fromhex(match[3]), match[4] == SEGMENT_SUFFIX)


class FolderVersion(NamedTuple):
    """A version of a folder's names, for detecting changes.

    Attributes:
        value: Differs if names changed.
        sure: Whether equal values mean no change. A change just after another may leave the time of the
            folder as it is, so such a value counts as another version later.
    """

    value: object
    sure: bool


class ReaderFolder:
    """The folder of a spool that only this process reads; most methods are one system call or a few.

    Args:
        directory: The spool, prepared.
        sleep: Sleeps for some seconds; used at the start and after the folder was replaced.
        wall_time_ns: The wall clock, in nanoseconds since 1970.

    Raises:
        EventQueueUnavailableError: It can't be used, or another publisher is using it.
        OSError: From each method except the first two and the last two, if it fails.
    """

    def __init__(
        self,
        directory: SpoolDirectory,
        *,
        sleep: Callable[[float], object] = time.sleep,
        wall_time_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._directory = directory
        self._sleep = sleep
        self._wall_time_ns = wall_time_ns
        self._punches: bool | None = None
        self._opened: OpenDirectory | None = None
        self._place: tuple[int, int] = (0, 0)  # device and inode of the folder
        self._lock = -1
        self._follow_path()

    @property
    def path(self) -> str:
        """The path of the folder."""
        return self._directory.path

    @property
    def punches(self) -> bool | None:
        """Whether holes can be punched; None if not tried yet."""
        return self._punches

    def version(self) -> FolderVersion:
        """Return the current version of the names."""
        try:
            status = os.stat(self.path)  # noqa: PTH116 - it is called often
        except OSError as exc:
            return FolderVersion(exc.errno, sure=True)
        changed = status.st_mtime_ns
        sure = not -_TICKS < self._wall_time_ns() - changed < _TICKS
        return FolderVersion((_place(status), changed), sure)

    def names(self) -> list[str]:
        """Return the names in the folder, in any order.

        Raises:
            OSError: It can't be read.
            EventQueueUnavailableError: It can't be used, or another publisher is using it.
        """
        self._follow_path()
        return os.listdir(self._folder)  # noqa: PTH208 - pathlib doesn't take a descriptor

    def size_of(self, name: str) -> int:
        """Return the length of a file; `FileNotFoundError` means that it is gone."""
        return os.stat(name, dir_fd=self._folder, follow_symlinks=False).st_size

    def open(self, name: str) -> int:
        """Open a file, without waiting, and return its descriptor.

        It is opened for writing too if permitted, to punch holes.

        Raises:
            FileNotFoundError: It is gone.
            OSError: It can't be opened, or isn't a regular file.
        """
        flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            fd = os.open(name, flags | os.O_RDWR, dir_fd=self._folder)
        except FileNotFoundError:
            raise
        except OSError:
            fd = os.open(name, flags | os.O_RDONLY, dir_fd=self._folder)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError("not a regular file")  # noqa: TRY301 - to close it
        except BaseException:
            os.close(fd)
            raise
        return fd

    def size(self, fd: int) -> int:
        """Return the length of an open file."""
        return os.fstat(fd).st_size

    def read(self, fd: int, size: int, offset: int) -> bytes:
        """Return up to `size` bytes from an offset on; none only at the end of the file."""
        return os.pread(fd, size, offset)

    def lock(self, fd: int) -> bool:
        """Lock a file exclusively until it is closed; return False if another process has it open."""
        return try_lock(fd, exclusive=True)

    def punch(self, fd: int, start: int, end: int) -> None:
        """Free the space of a part of a file, if possible."""
        if self._punches is not False:
            self._punches = punch_hole(fd, start, end)

    def sync(self, fd: int) -> None:
        """Sync the data of a file to the disk."""
        os.fdatasync(fd)

    def sync_names(self) -> None:
        """Sync the names of all files to the disk."""
        os.fsync(self._folder)

    def delete(self, name: str) -> None:
        """Delete a file."""
        os.unlink(name, dir_fd=self._folder)

    def close_file(self, fd: int) -> None:
        """Close a file."""
        with contextlib.suppress(OSError):  # it is closed anyway, and nothing was written
            os.close(fd)

    def close(self) -> None:
        """Close the folder, and release the publisher's lock."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    @property
    def _folder(self) -> int:
        if self._opened is None:
            raise FileNotFoundError(self.path)
        return self._opened.fileno()

    def _follow_path(self) -> None:
        """Open and lock the folder at the path, unless it is open already."""
        for _ in range(_OPEN_ATTEMPTS):
            if self._opened is not None:
                with contextlib.suppress(FileNotFoundError):
                    if _place(os.lstat(self.path)) == self._place:
                        return
                self.close()
            try:
                self._open_folder()
            except FileNotFoundError:
                continue  # deleted in the meantime; the next round opens another one
            except OSError as exc:
                reason = exc.strerror or str(exc)
                what = f"{READER_LOCK} in it" if exc.filename == READER_LOCK else "it"
                raise EventQueueUnavailableError(self.path, f"{what} can't be opened ({reason})") from exc
        raise EventQueueUnavailableError(self.path, "another process keeps deleting it; find and stop it")

    def _open_folder(self) -> None:
        with contextlib.ExitStack() as stack:
            opened = stack.enter_context(self._directory.open())
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            lock = os.open(READER_LOCK, flags, 0o600, dir_fd=opened.fileno())
            stack.callback(os.close, lock)
            self._share(opened.fileno(), lock)
            for _ in range(_LOCK_ATTEMPTS):
                if try_lock(lock, exclusive=True):
                    break
                self._sleep(_LOCK_PAUSE)
            else:
                raise EventQueueUnavailableError(self.path, TAKEN)
            if not try_lock(
                opened.fileno(), exclusive=True
            ):  # someone has deleted the lock file of the other publisher
                raise EventQueueUnavailableError(self.path, TAKEN)
            self._place = _place(os.fstat(opened.fileno()))
            stack.pop_all()
        self._opened, self._lock = opened, lock

    def _share(self, folder: int, lock: int) -> None:
        """Let members of the folder's group open the lock file, whatever the umask."""
        status = os.fstat(lock)
        if not stat.S_ISREG(status.st_mode):
            problem = f"{READER_LOCK} in it isn't a regular file; remove it"
            raise EventQueueUnavailableError(self.path, problem)
        wanted = file_mode(os.fstat(folder).st_mode)
        if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) != wanted:
            os.fchmod(lock, wanted)


def _place(status: os.stat_result) -> tuple[int, int]:
    """Return the identity of a folder: device and inode."""
    return status.st_dev, status.st_ino
