"""Access to the files of a spool, for services and their publisher.

A spool is the folder `events-NAME` in a directory that services and their publisher share.

Rules:

1. The shared directory must exist when the queue is opened; only `events-NAME` is created. If the directory
   is missing, its volume may not be mounted, and events written in its place would reach no publisher. If it
   is deleted later, it is recreated.
2. `events-NAME` is opened without following a link, and all files are named within the open folder, so that
   nothing outside of it is ever read or written. Its owner, group and mode are checked (`permissions`); those
   of the directory above it are the administrator's choice.
3. A shared folder appears with its final permissions: it is created under another name and renamed.
   Otherwise a process of another user could find it in the moment before it is opened to the group. Two
   processes that do so at once may replace each other's folder while it is empty: then `create` raises
   `FileNotFoundError`.
4. Files have the mode that was asked for, whatever the umask.
5. `SpoolDirectory` holds no descriptor, so there is nothing that a forked process could share or lose.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

from .._log import WARNING, log
from ..errors import (
    EventQueuePermissionError,
    EventQueueUnavailableError,
    EventQueueUnsupportedError,
)
from . import problems
from .file_systems import (
    Suitability,
    UnsuitableError,
    can_lock,
    file_system_of,
    judge_file_system,
    probe,
    try_lock,
)
from .open_directory import READER_LOCK, OpenDirectory
from .permissions import PRIVATE, SHARED, DirectoryAccess, Fault
from .segment import FileStatus

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["READER_LOCK", "FileStatus", "OpenDirectory", "SpoolDirectory"]

#: Errors of a disk that accepts no data at the moment. Writers treat them as a full queue.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})

#: Errors that are left to the writer.
_PASSED_ON = _FULL | {errno.EBADF}

#: How often the folder may appear and disappear between two system calls before that is an error.
_ATTEMPTS = 10

#: Paths and file systems that this process has warned about.
_warned: set[tuple[str, str]] = set()


class SpoolDirectory:
    """The place of a queue's spool, and the access to its files.

    Args:
        directory: The directory that services and their publisher share, an absolute path.
        queue_name: NAME, as in `events-NAME`.
        mode: Permission bits of files: 0600 if all processes run as one user, or 0660 if they share a group.

    Raises:
        ValueError: An argument is invalid.

    Attributes:
        path: The folder `events-NAME`.
        file_system: The type of its file system after `prepare`; None if unknown.
    """

    __slots__ = ("_counts_blocks", "_directory", "_directory_mode", "_mode", "file_system", "path")

    def __init__(self, directory: str, queue_name: str, *, mode: int) -> None:
        if not os.path.isabs(directory) or "\0" in directory:  # noqa: PTH117 - pathlib takes long to import
            raise ValueError(f"the directory of a spool must be an absolute path, not {directory!r}")
        if not queue_name or "/" in queue_name or "\0" in queue_name:
            raise ValueError(
                f"the name of a queue must be 1 or more characters without a slash, not {queue_name!r}"
            )
        if mode not in {PRIVATE, SHARED}:
            raise ValueError(
                "the mode of a spool must be 0o600, if services and publisher run as the same user, or "
                f"0o660, if they share a group, not {mode:#o}"
            )
        self.path: str = os.path.join(directory, f"events-{queue_name}")  # noqa: PTH118 - as above
        try:
            os.fsencode(self.path)
        except UnicodeEncodeError as exc:
            raise ValueError(f"a file can't have the name {self.path!r}; check its characters") from exc
        self.file_system: str | None = None
        self._directory = directory
        self._directory_mode: int | None = None  # its permission bits when it was last prepared
        self._mode = mode
        self._counts_blocks = True

    def prepare(self) -> None:
        """Check that the spool can be used here, and create its folder if it doesn't exist.

        A full disk isn't an error here; each put reports it.

        Raises:
            EventQueueUnsupportedError: This operating system can't lock files.
            EventQueuePermissionError: The permissions keep this process out, or let another user read its
                events.
            EventQueueUnavailableError: The directory doesn't exist, is on an unsuitable file system, or
                can't be used for another reason.
        """
        if not can_lock():
            problem = "this operating system has no file locks (flock); run on Linux, or in a Linux container"
            raise EventQueueUnsupportedError(self.path, problem)
        self._directory_mode = self._check_directory()
        self.file_system = file_system_of(self.path)
        self._counts_blocks = self.file_system != "zfs"  # its st_blocks lags by seconds
        suitability = judge_file_system(self.file_system)
        if suitability is Suitability.UNSUITABLE:
            raise EventQueueUnavailableError(self.path, problems.unsuitable(self.file_system))
        try:
            descriptor = self._open_folder()
            try:
                if os.fstatvfs(descriptor).f_flag & os.ST_RDONLY:
                    raise OSError(errno.EROFS, os.strerror(errno.EROFS))
                if suitability is Suitability.UNPROVEN:
                    self._probe(descriptor)
            finally:
                os.close(descriptor)
        except OSError as exc:
            if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
                return  # each put reports it, until there is room
            raise self._unusable(exc) from exc

    def open(self) -> OpenDirectory:
        """Open the folder, and recreate it if it was deleted.

        The directory above it is recreated too, if it existed when the spool was prepared.

        Raises:
            OSError: The folder couldn't be created, because the disk is full, over quota or read-only; or
                (EBADF) the program closed a descriptor that it doesn't own, and another attempt may succeed.
            EventQueuePermissionError: The permissions keep this process out, or let another user read its
                events.
            EventQueueUnavailableError: The folder can't be opened for another reason.
        """
        try:
            descriptor = self._open_folder()
        except OSError as exc:
            if exc.errno in _PASSED_ON:
                raise
            raise self._unusable(exc) from exc
        try:
            return OpenDirectory(descriptor, mode=self._mode, counts_blocks=self._counts_blocks)
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(descriptor)
            raise

    def lock(self, fd: int) -> bool:
        """Lock a file opened by `create` against deletion by the publisher, without waiting.

        The lock ends when the last process that has the file open closes it.

        Returns:
            False if the publisher has locked the file.

        Raises:
            OSError: The file can't be locked.
        """
        return try_lock(fd, exclusive=False)

    @property
    def write(self) -> Callable[[int, bytes], int]:
        """Append to a file opened by `create`, in one step; return how many bytes were written.

        It is `os.write` itself, since each put calls it. It raises `OSError` if nothing was written.
        """
        return os.write

    def status(self, fd: int) -> FileStatus:
        """Return the status of an open file.

        Raises:
            OSError: It isn't open.
        """
        status = os.fstat(fd)
        return FileStatus(status.st_dev, status.st_ino, status.st_nlink, status.st_size)

    def close(self, fd: int) -> None:
        """Close a file opened by `create`.

        Raises:
            OSError: It isn't open, or some data didn't reach the disk; afterwards it is closed.
        """
        os.close(fd)

    def _check_directory(self) -> int:
        """Return the permission bits of the directory above the folder."""
        try:
            status = os.stat(self._directory)  # noqa: PTH116 - as above
        except OSError as exc:
            raise self._unusable(exc) from exc
        if not stat.S_ISDIR(status.st_mode):
            raise EventQueueUnavailableError(self.path, problems.not_a_folder(self.path))
        return stat.S_IMODE(status.st_mode)

    def _open_folder(self) -> int:
        """Return a descriptor of the folder, which is checked, and created if needed.

        Raises:
            OSError: It can't be opened or created.
            EventQueueUnavailableError: It must not be used.
        """
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        for _ in range(_ATTEMPTS):
            try:
                descriptor = os.open(self.path, flags)
            except FileNotFoundError:
                self._make_folder()
                continue
            try:
                self._check_folder(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            return descriptor
        raise EventQueueUnavailableError(self.path, "another process keeps deleting it; find and stop it")

    def _make_folder(self) -> None:
        """Create the folder, unless another process does so at the same time."""
        if self._mode == PRIVATE:
            self._make(self.path)
            return
        # Of fixed length, so that it isn't too long for any NAME.
        temporary = os.path.join(self._directory, f".events-{os.urandom(16).hex()}")  # noqa: PTH118 - as above
        self._make(temporary)
        try:
            descriptor = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                self._check_folder(descriptor)
            finally:
                os.close(descriptor)
            os.rename(temporary, self.path)  # noqa: PTH104 - as above
        except BaseException as exc:
            with contextlib.suppress(OSError):
                os.rmdir(temporary)  # noqa: PTH106 - as above
            # Another process has created the folder, which has files already or can't be replaced.
            if not isinstance(exc, OSError) or not os.path.lexists(self.path):
                raise

    def _make(self, path: str) -> None:
        """Create a folder in the directory, and recreate the directory if it was deleted since `prepare`."""
        for _ in range(_ATTEMPTS):
            try:
                _mkdir(path)
            except FileNotFoundError:
                if self._directory_mode is None:
                    raise
            else:
                return
            with contextlib.suppress(FileNotFoundError):  # it was immediately deleted again
                if _mkdir(self._directory, self._directory_mode):
                    os.chmod(self._directory, self._directory_mode)  # noqa: PTH101 - as above
        _mkdir(path)

    def _check_folder(self, descriptor: int) -> None:
        """Set the permissions that the folder must have, or refuse it."""
        mode, wanted = self._judge(descriptor)
        if mode == wanted:
            return
        os.fchmod(descriptor, wanted)
        mode, wanted = self._judge(descriptor)  # not all file systems obey
        if mode != wanted:
            raise EventQueuePermissionError(self.path, problems.mode_stays(mode, wanted, self.file_system))

    def _judge(self, descriptor: int) -> tuple[int, int]:
        """Return the current and the required permission bits of the folder.

        Raises:
            EventQueuePermissionError: It must not be used.
        """
        access = DirectoryAccess.here(os.fstat(descriptor), self._mode)
        wanted = access.judge()
        if isinstance(wanted, Fault):
            raise EventQueuePermissionError(self.path, access.explain(wanted, self.path))
        return access.mode, wanted

    def _probe(self, descriptor: int) -> None:
        """Probe the file system; log a warning even if it passes."""
        finding = "it passed all checks that one process can make"
        try:
            self._counts_blocks = probe(descriptor)
        except UnsuitableError as exc:
            raise EventQueueUnavailableError(
                self.path, problems.unsuitable(self.file_system, str(exc))
            ) from exc
        except OSError as exc:
            if exc.errno not in _FULL:
                raise
            finding = f"it couldn't be checked ({exc.strerror})"
        kind = self.file_system
        if kind is not None and (self.path, kind) not in _warned:
            _warned.add((self.path, kind))
            log(
                __name__,
                WARNING,
                "Event queue %s is on a file system of type %s: %s. It must not be shared between hosts or "
                "virtual machines. To be safe, use a directory of a local disk, such as ext4 or XFS",
                self.path,
                kind,
                finding,
            )

    def _unusable(self, exc: OSError) -> EventQueueUnavailableError:
        """Return the error for a folder that can't be opened or made."""
        denied = isinstance(exc, PermissionError)
        try:
            access = DirectoryAccess.here(os.lstat(self.path), self._mode)
        except OSError as hidden:
            if denied:
                problem = problems.denied(self._directory, absent=isinstance(hidden, FileNotFoundError))
                return EventQueuePermissionError(self.path, problem)
            return EventQueueUnavailableError(self.path, problems.unusable(self.path, exc))
        judged = access.judge()
        if isinstance(judged, Fault):
            kind = EventQueueUnavailableError if judged is Fault.KIND else EventQueuePermissionError
            return kind(self.path, access.explain(judged, self.path))
        if denied:
            return EventQueuePermissionError(self.path, problems.closed(self.path, access.mode, judged))
        return EventQueueUnavailableError(self.path, problems.unusable(self.path, exc))


def _mkdir(path: str, mode: int = 0o700) -> bool:
    """Create a folder, with a mode that the umask may reduce; return False if it existed."""
    try:
        os.mkdir(path, mode)  # noqa: PTH102 - pathlib takes long to import
    except FileExistsError:
        return False
    return True
