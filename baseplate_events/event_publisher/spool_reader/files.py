"""The files of a spool as its reader touches them, and the lock that keeps a second publisher out.

Rules:

1. Files are named within the open folder, links aren't followed, and only regular files are opened, so that
   nothing outside of the folder is read, and a pipe keeps no one waiting.
2. The folder is the one that is at the path now. If that is another one, because someone has deleted it, the
   reader goes on there, and locks it as well.
3. A lock is released by closing the file only.
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

#: How often the publisher's lock is tried, and seconds between: services have it for microseconds.
_LOCK_ATTEMPTS: Final = 20
_LOCK_PAUSE: Final = 0.01

#: How often the folder may be replaced while it is locked before that is an error.
_OPEN_ATTEMPTS: Final = 10

#: Nanoseconds within which two changes of a folder may get the same time: some ticks of the kernel's clock.
_TICKS: Final = 20_000_000

_TAKEN: Final = (
    "another event publisher reads it; stop that one, or give this one another queue or spool.directory"
)

_NAME: Final = re.compile(
    rf"([0-9]{{20}})-([0-9a-f]{{16}})-([0-9a-f]{{32}})({re.escape(SEGMENT_SUFFIX)}|{re.escape(NEW_SUFFIX)})"
)


class SegmentName(NamedTuple):
    """What the name of a segment says.

    Attributes:
        created: Nanoseconds since 1970.
        writer: 16 hexadecimal digits.
        identity: 16 bytes.
        published: Whether it may be read.
    """

    created: int
    writer: str
    identity: bytes
    published: bool

    @classmethod
    def parse(cls, name: str) -> SegmentName | None:
        """Return what a name says, or None if it is no segment's."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        return cls(int(match[1]), match[2], bytes.fromhex(match[3]), match[4] == SEGMENT_SUFFIX)


class FolderVersion(NamedTuple):
    """What tells whether names in a folder came, went or changed.

    Attributes:
        value: Another one, if they did.
        sure: Whether they haven't, as long as the value stays. A change just after another may leave the time
            of the folder as it is. So what was seen then counts as another version later.
    """

    value: object
    sure: bool


class ReaderFolder:
    """The folder of a spool that this process alone reads; most methods are a system call, or a few.

    Args:
        directory: The spool, prepared.
        sleep: Waits for some seconds, at the start and after the folder was replaced.
        wall_time_ns: Gives nanoseconds since 1970.

    Raises:
        EventQueueUnavailableError: It can't be used, or another publisher reads it.
        OSError: From each method but the first two and the last two, if what it is for failed.
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
        """The folder."""
        return self._directory.path

    @property
    def punches(self) -> bool | None:
        """Whether holes can be punched; None if that wasn't tried yet."""
        return self._punches

    def version(self) -> FolderVersion:
        """Return a value that is another one after names came, went or changed."""
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
            EventQueueUnavailableError: It can't be used, or another publisher reads it.
        """
        self._follow_path()
        return os.listdir(self._folder)  # noqa: PTH208 - pathlib doesn't take a descriptor

    def size_of(self, name: str) -> int:
        """Return the length of a file; `FileNotFoundError` says that it is gone."""
        return os.stat(name, dir_fd=self._folder, follow_symlinks=False).st_size

    def open(self, name: str) -> int:
        """Open a file, without waiting, and return its descriptor.

        It is opened for writing as well if that is permitted, to punch holes.

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
        """Lock a file exclusively until it is closed; return whether no one else has it open."""
        return try_lock(fd, exclusive=True)

    def punch(self, fd: int, start: int, end: int) -> None:
        """Give the space of a part of a file back, if that can be done here."""
        if self._punches is not False:
            self._punches = punch_hole(fd, start, end)

    def sync(self, fd: int) -> None:
        """Have the disk keep the data of a file."""
        os.fdatasync(fd)

    def sync_names(self) -> None:
        """Have the disk keep the names of all files."""
        os.fsync(self._folder)

    def delete(self, name: str) -> None:
        """Delete a file."""
        os.unlink(name, dir_fd=self._folder)

    def close_file(self, fd: int) -> None:
        """Close a file."""
        with contextlib.suppress(OSError):  # closed it is; nothing was written
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
        """Open and lock the folder that is at the path, unless that was done."""
        for _ in range(_OPEN_ATTEMPTS):
            if self._opened is not None:
                with contextlib.suppress(FileNotFoundError):
                    if _place(os.lstat(self.path)) == self._place:
                        return
                self.close()
            try:
                self._open_folder()
            except FileNotFoundError:
                continue  # deleted meanwhile; the next round opens another one
            except OSError as exc:
                reason = exc.strerror or str(exc)
                what = f"{READER_LOCK} in it" if exc.filename == READER_LOCK else "it"
                raise EventQueueUnavailableError(self.path, f"{what} can't be opened ({reason})") from exc
        raise EventQueueUnavailableError(self.path, "it is deleted again and again; find out what does so")

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
                raise EventQueueUnavailableError(self.path, _TAKEN)
            if not try_lock(opened.fileno(), exclusive=True):  # someone has deleted the other one's file
                raise EventQueueUnavailableError(self.path, _TAKEN)
            self._place = _place(os.fstat(opened.fileno()))
            stack.pop_all()
        self._opened, self._lock = opened, lock

    def _share(self, folder: int, lock: int) -> None:
        """Let members of the folder's group open the lock, whatever the umask."""
        status = os.fstat(lock)
        if not stat.S_ISREG(status.st_mode):
            problem = f"{READER_LOCK} in it isn't a regular file; remove that"
            raise EventQueueUnavailableError(self.path, problem)
        wanted = file_mode(os.fstat(folder).st_mode)
        if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) != wanted:
            os.fchmod(lock, wanted)


def _place(status: os.stat_result) -> tuple[int, int]:
    """Return what identifies a folder."""
    return status.st_dev, status.st_ino
