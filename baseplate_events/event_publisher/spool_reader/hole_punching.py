"""Gives the space of a part of a file back to the file system: fallocate(2) by way of the C library."""

from __future__ import annotations

import errno
import os
from typing import Final

#: <linux/falloc.h>: take the blocks away, and leave the size of the file as it is.
_KEEP_SIZE: Final = 0x1
_PUNCH_HOLE: Final = 0x2

#: Errors that say that it can't be done on this file system, kernel or C library.
_UNSUPPORTED: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENODEV, errno.EOPNOTSUPP, errno.ENOTTY})


def punch_hole(fd: int, start: int, end: int) -> bool:
    """Make a hole of the bytes of a file from `start` to `end`, which read as zeros from then on.

    Returns:
        Whether that can be done here.

    Raises:
        OSError: It can't be done for this file.
    """
    # Not at the start; see `inotify`.
    import ctypes  # noqa: PLC0415

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
