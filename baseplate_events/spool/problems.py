"""Why the folder of a spool can't be used, and what to do: the texts of errors.

Each function returns the `problem` of an error, which names the folder.
"""

from __future__ import annotations

import errno
import os
import re
import stat

from ..errors import TOO_MANY_FILES

#: Paths that a shell needs no quotes for.
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+=,-]+")


def unusable(path: str, exc: OSError) -> str:
    """Return why a folder can't be opened or created.

    Args:
        path: The folder.
        exc: The error of the system, except `PermissionError`.
    """
    number = exc.errno
    if number == errno.ENOENT and not os.path.isdir(_above(path)):  # noqa: PTH112 - pathlib takes long to import
        return (
            f"the directory {_above(path)} doesn't exist; create it, or mount the volume that services and "
            "publisher share"
        )
    if number in {errno.ENOTDIR, errno.ELOOP}:
        return not_a_folder(path)
    if number == errno.EROFS:
        return (
            "its file system is mounted read-only; mount it for writing (Kubernetes: without readOnly in "
            "volumeMounts)"
        )
    return TOO_MANY_FILES.get(number or 0, f"it can't be used ({exc.strerror})")


def not_a_folder(path: str) -> str:
    """Return what is in the place of a folder, or of the directory above it."""
    if os.path.islink(path):  # noqa: PTH114 - as above
        return (
            "it is a symbolic link, which isn't followed; remove it, and use the directory that it points to "
            "instead"
        )
    if os.path.lexists(path):
        return "it isn't a directory; move that file away"
    return f"{_above(path)} isn't a directory; name the directory that services and publisher share"


def denied(directory: str, *, absent: bool) -> str:
    """Return that this process may not use a directory.

    Args:
        directory: The directory that services and publisher share.
        absent: Whether the folder doesn't exist and would have to be created.
    """
    if absent:
        return (
            f"this process of user {os.geteuid()} may not create it in {directory}{_whose(directory)}; run "
            f"`chown {os.geteuid()} {quoted(directory)}`, or `chgrp` and `chmod g+rwx` for a group of that "
            "user (Kubernetes: fsGroup)"
        )
    return (
        f"this process of user {os.geteuid()} may not reach {directory}{_whose(directory)}; run `chmod o+x` "
        "for it and the folders above it, or run the process as another user (Kubernetes: runAsUser)"
    )


def closed(path: str, mode: int, wanted: int) -> str:
    """Return that this process may not use a folder, although it should be able to."""
    return (
        f"this process of user {os.geteuid()} may not use it (mode {mode:04o}); run "
        f"`chmod {wanted:04o} {quoted(path)}`, and check for attributes (lsattr) and security modules"
    )


def mode_stays(mode: int, wanted: int, file_system: str | None) -> str:
    """Return that the file system doesn't change permissions."""
    return (
        f"its mode can't be changed from {mode:04o} to {wanted:04o} on a file system of type "
        f"{file_system or 'unknown'}; use a directory of a local disk"
    )


def unsuitable(file_system: str | None, why: str = "its locks don't hold between hosts") -> str:
    """Return that a file system can't hold a spool."""
    return (
        f"its file system is of type {file_system or 'unknown'} and can't hold a spool: {why}; use a "
        "directory of a local disk (ext4, XFS, Btrfs) or a tmpfs (Kubernetes: an emptyDir)"
    )


def quoted(path: str) -> str:
    """Return a path, quoted for a shell if needed."""
    if _PLAIN.fullmatch(path) is not None:
        return path
    return "'" + path.replace("'", "'\\''") + "'"


def _above(path: str) -> str:
    return os.path.dirname(path)  # noqa: PTH120 - as above


def _whose(directory: str) -> str:
    """Return the owner of a directory, in words; "" if unknown."""
    try:
        status = os.stat(directory)  # noqa: PTH116 - as above
    except OSError:
        return ""
    return f" (of user {status.st_uid}, group {status.st_gid}, mode {stat.S_IMODE(status.st_mode):04o})"
