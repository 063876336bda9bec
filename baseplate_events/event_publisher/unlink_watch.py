"""Tells at once when a queue was removed: a watch of inotify(7) on the queue itself.

Asking again and again would cost an idle publisher a wake-up each time, and would find a queue that was made
and removed again in between too late.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import Final

#: What is watched for: a change of the queue's attributes, as its number of links is one (IN_ATTRIB of
#: <sys/inotify.h>). A change of its permissions tells as well, so whoever is told has to look.
_IN_ATTRIB: Final = 0x4

#: Bytes read at a time. Several changes that weren't read yet are one.
_BUFFER: Final = 4_096


class UnlinkWatch:
    """A descriptor that becomes readable when a queue was removed, or changed otherwise.

    Args:
        queue: The descriptor of the queue. The watch lives as long as the queue does, also without it.

    Raises:
        OSError: This system has no such watches, or none left (fs.inotify.max_user_instances).
    """

    def __init__(self, queue: int) -> None:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            make, add = libc.inotify_init1, libc.inotify_add_watch
        except AttributeError as exc:
            raise OSError("the C library has no inotify") from exc
        self._fd: int = make(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise _last_error()
        # By its descriptor: the file system of queues is mounted nowhere on many hosts.
        if add(self._fd, b"/proc/self/fd/%d" % queue, _IN_ATTRIB) < 0:
            error = _last_error()
            self.close()
            raise error

    def fileno(self) -> int:
        """Give the descriptor to poll."""
        return self._fd

    def clear(self) -> None:
        """Be unreadable until the next change."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, _BUFFER)

    def close(self) -> None:
        """Stop watching; nothing else can be called afterwards."""
        os.close(self._fd)


def watch_unlink(queue: int) -> UnlinkWatch | None:
    """Watch a queue by its descriptor, or give None where that can't be done."""
    try:
        return UnlinkWatch(queue)
    except OSError:
        return None


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
