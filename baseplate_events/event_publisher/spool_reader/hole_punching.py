"""Frees the space of a part of a file: fallocate(2) through the C library."""

from __future__ import annotations

import errno
import os
from typing import Final

#: <linux/falloc.h>: keep the size of the file.
_KEEP_SIZE: Final = 0x1
_PUNCH_HOLE: Final = 0x2

#: Errors that mean that the file system, kernel or C library doesn't support it.
_UNSUPPORTED: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENODEV, errno.EOPNOTSUPP, errno.ENOTTY})


def punch_hole(fd: int, start: int, end: int) -> bool:
    """Punch a hole into a file from `start` to `end`; its bytes then read as zeros.

    Returns:
        Whether it is supported here.

    Raises:
        OSError: It failed for this file.
    """
    # Imported late; see `inotify`.
    try:
        import ctypes  # noqa: PLC0415
    except ImportError:  # a Python built without libffi
        return False

    libc = ctypes.CDLL(None, use_errno=True)
    fallocate = getattr(libc, "fallocate64", None) or getattr(libc, "fallocate", None)
    if fallocate is None:
        return False
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, start, end - start) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number))
