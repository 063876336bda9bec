"""Decides which file systems are fit for a spool.

A spool needs three things of its file system: that `flock` of one process holds for all others, that
`O_APPEND` appends in one step, and that a file keeps its inode number when it is renamed. Local disks and
memory have them. Network file systems don't have them between hosts, whatever they do on one host, so
they are refused. All others are probed (`probe`): FUSE, and file systems that share folders with a virtual
machine.

The type of a file system is its name in /proc/self/mountinfo; see proc_pid_mountinfo(5).
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

#: Local file systems of Linux.
_LOCAL = frozenset(
    ("bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "tmpfs", "xfs", "zfs")
)

#: Network and cluster file systems. With the prefix `fuse.` they are the same in user space.
_REMOTE = frozenset(
    (
        *("acfs", "afs", "beegfs", "ceph", "ceph-fuse", "cifs", "coda", "davfs", "gcsfuse", "glusterfs"),
        *(
            "gpfs",
            "juicefs",
            "lustre",
            "mfs",
            "moosefs",
            "ncpfs",
            "nfs",
            "nfs4",
            "orangefs",
            "panfs",
            "pvfs2",
        ),
        *("quobyte", "rclone", "s3fs", "smb3", "smbfs", "sshfs", "wekafs"),
    )
)

#: Fields of a line of mountinfo before the optional ones; the fifth is the mount point.
_FIXED_FIELDS = 6
_MOUNT_POINT = 4

_ESCAPE = re.compile(rb"\\([0-7]{3})")

#: Errors of file systems for unsupported operations.
_UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})

_MOUNTINFO = "/proc/self/mountinfo"


def _load() -> ModuleType | None:
    """Import `fcntl` early: a service that gives up its privileges may be unable to later."""
    try:
        import fcntl  # noqa: PLC0415 - Windows and WebAssembly have none
    except ImportError:
        return None
    return fcntl


_fcntl = _load()


class Suitability(enum.Enum):
    """Whether a file system is fit for a spool."""

    SUITABLE = enum.auto()
    UNSUITABLE = enum.auto()
    UNPROVEN = enum.auto()
    """Only `probe` can find out."""


class UnsuitableError(Exception):
    """Raised if a file system lacks what a spool needs; the message follows "it can't hold a spool: "."""


def judge_file_system(kind: str | None) -> Suitability:
    """Return whether a file system of this type is fit for a spool; None is an unknown type."""
    if kind in _LOCAL:
        return Suitability.SUITABLE
    if kind is not None and kind.removeprefix("fuse.") in _REMOTE:
        return Suitability.UNSUITABLE
    return Suitability.UNPROVEN


def find_file_system(mountinfo: bytes, path: bytes) -> str | None:
    """Return the type of the file system that a path is on.

    Pure. The longest mount point that contains the path counts, and of equal ones the last, which covers the
    others.

    Args:
        mountinfo: The content of /proc/self/mountinfo. Malformed lines are skipped.
        path: Absolute, without symbolic links. It needn't exist.

    Returns:
        The type, such as `ext4` or `fuse.sshfs`; None if no mount point contains the path.
    """
    longest, found = b"", None
    for line in mountinfo.split(b"\n"):
        fields = line.split(b" ")
        try:
            separator = fields.index(b"-", _FIXED_FIELDS)
            kind = _unescape(fields[separator + 1])
        except (ValueError, IndexError):
            continue
        point = _unescape(fields[_MOUNT_POINT])
        if len(point) >= len(longest) and (path + b"/").startswith(point.rstrip(b"/") + b"/"):
            longest, found = point, os.fsdecode(kind)
    return found


def file_system_of(path: str) -> str | None:
    """Return the type of the file system that a path is on, now and for this process.

    Args:
        path: Absolute. It needn't exist; symbolic links in it are followed.

    Returns:
        The type; None if this system has no mountinfo, or the path isn't found there.
    """
    resolved = os.fsencode(os.path.realpath(path))  # this also triggers an automounter
    try:
        with open(_MOUNTINFO, "rb") as file:  # noqa: PTH123 - pathlib takes long to import
            mountinfo = file.read()
    except OSError:
        return None
    return find_file_system(mountinfo, resolved)


def probe(directory: int) -> bool:
    """Test whether the file system of a directory provides what a spool needs; leaves no file behind.

    Args:
        directory: Its open descriptor.

    Returns:
        Whether the file system reports the blocks of a file.

    Raises:
        UnsuitableError: A test failed.
        OSError: The tests can't be made.
    """
    name = f"probe-{os.urandom(16).hex()}"
    final = f"{name}-renamed"
    handles: list[int] = []
    try:
        # As the file is open in two writers and a reader.
        for use in (os.O_WRONLY | os.O_CREAT | os.O_EXCL, os.O_WRONLY, os.O_RDONLY):
            flags = use | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            handles.append(os.open(name, flags, 0o600, dir_fd=directory))
        writer, other, reader = handles
        _probe_appending(writer, other, reader)
        counts_blocks = os.fstat(writer).st_blocks > 0
        _probe_renaming(directory, name, final, writer)
        _probe_locking(writer, reader, handles)
    except OSError as exc:
        if exc.errno not in _UNSUPPORTED:
            raise
        raise UnsuitableError(f"files can't be appended to, renamed and locked ({exc.strerror})") from exc
    finally:
        for each in (name, final):
            with contextlib.suppress(OSError):
                os.unlink(each, dir_fd=directory)
        for handle in handles:
            os.close(handle)
    return counts_blocks


def _probe_appending(writer: int, other: int, reader: int) -> None:
    pieces = [bytes([letter]) * 1_024 for letter in b"abcd"]
    for handle, piece in zip((writer, other, other, writer), pieces, strict=True):
        os.write(handle, piece)
    expected = b"".join(pieces)
    if os.pread(reader, len(expected) + 1, 0) != expected:
        raise UnsuitableError("writers that append to one file overwrite each other's data")


def _probe_renaming(directory: int, name: str, final: str, writer: int) -> None:
    before = os.fstat(writer)
    os.rename(name, final, src_dir_fd=directory, dst_dir_fd=directory)
    named = os.stat(final, dir_fd=directory, follow_symlinks=False)
    if not before.st_ino == os.fstat(writer).st_ino == named.st_ino:
        raise UnsuitableError("a file gets another inode number when it is renamed")


def _probe_locking(writer: int, reader: int, handles: list[int]) -> None:
    """Lock a file as a writer does, and check that closing the file releases the lock."""
    if not try_lock(writer, exclusive=False) or try_lock(reader, exclusive=True):
        raise UnsuitableError("a lock doesn't keep out another process (flock)")
    handles.remove(writer)
    os.close(writer)
    if not try_lock(reader, exclusive=True):
        raise UnsuitableError("a lock isn't released when its file is closed (flock)")


def can_lock() -> bool:
    """Return whether this operating system has `flock`."""
    return _fcntl is not None


def try_lock(handle: int, *, exclusive: bool) -> bool:
    """Lock an open file against other open files, without waiting.

    The lock belongs to the open file, which forked processes share, and ends when the last of them closes it.

    Returns:
        False if another lock is in the way.

    Raises:
        OSError: The file can't be locked at all.
    """
    fcntl = _require_fcntl()
    try:
        fcntl.flock(handle, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(handle: int) -> None:
    """Release the lock of an open file, also for all processes that share it."""
    fcntl = _require_fcntl()
    fcntl.flock(handle, fcntl.LOCK_UN)


def _require_fcntl() -> ModuleType:
    if _fcntl is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    return _fcntl


def _unescape(field: bytes) -> bytes:
    """Return the unescaped field of mountinfo."""
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), field)
