"""Notices at once when a queue was removed: a watch of inotify(7) on the queue itself.

Asking again and again would cost an idle publisher a wake-up each time, and would find a queue that was made
and removed again in between too late.

Rules:

1. There is one instance of inotify for as long as the publisher runs; when another queue is followed, its
   watch is changed. To close an instance can take seconds on a busy host, since the kernel waits until no
   processor uses a watch of whatever instance any more; to remove a watch doesn't wait.
2. An event counts only if it is about the queue that is watched now: events of the queue before it, and the
   one that says that its watch was removed (IN_IGNORED), may come later.
3. An event says that something changed, maybe only the permissions, so whoever is notified has to look. A
   queue may have been removed before it was watched, so whoever starts a watch has to look too.
"""

from __future__ import annotations

import contextlib
import os
import struct
from typing import Final

#: What is watched for: a change of the queue's attributes, as its number of links is one (<sys/inotify.h>).
_IN_ATTRIB: Final = 0x4

#: The watch is gone; others don't come any more.
_IN_IGNORED: Final = 0x8000

#: The watch descriptor of IN_Q_OVERFLOW, which says that events were lost.
_NO_WATCH: Final = -1

#: `struct inotify_event`: watch descriptor, mask, cookie, and the length of a name, which only folders have.
_EVENT: Final = struct.Struct("iIII")

#: Bytes read at a time: some hundred events.
_BUFFER: Final = 4_096


class UnlinkWatch:
    """A descriptor that becomes readable when the queue that it watches was removed, or changed otherwise.

    Raises:
        OSError: This system has no such watches, or none left (fs.inotify.max_user_instances).
    """

    def __init__(self) -> None:
        # Not at the start: Debian's libffi keeps a file open, which must not get a standard stream's number.
        import ctypes  # noqa: PLC0415

        self._last_errno = ctypes.get_errno
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            self._add, self._remove = libc.inotify_add_watch, libc.inotify_rm_watch
            make = libc.inotify_init1
        except AttributeError as exc:
            raise OSError("the C library has no inotify") from exc
        self._watch = _NO_WATCH
        self._fd: int = make(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise self._last_error()

    @property
    def watching(self) -> bool:
        """Whether a queue is watched."""
        return self._watch != _NO_WATCH

    def fileno(self) -> int:
        """Give the descriptor to poll."""
        return self._fd

    def watch(self, queue: int) -> None:
        """Watch a queue by its descriptor, and no longer the one before. See rule 3.

        Raises:
            OSError: It can't be watched (fs.inotify.max_user_watches); no queue is watched now.
        """
        before, self._watch = self._watch, _NO_WATCH
        # By its descriptor: the file system of queues is mounted nowhere on many hosts.
        watch: int = self._add(self._fd, b"/proc/self/fd/%d" % queue, _IN_ATTRIB)
        error = self._last_error() if watch < 0 else None
        if before not in {_NO_WATCH, watch}:
            self._remove(self._fd, before)
        self.clear()  # of what was about the queue before
        if error is not None:
            raise error
        self._watch = watch

    def clear(self) -> bool:
        """Be unreadable until the next change; tell whether the queue that is watched has changed."""
        changed = False
        with contextlib.suppress(BlockingIOError):
            while True:
                for watch, mask, _, _ in _EVENT.iter_unpack(os.read(self._fd, _BUFFER)):
                    changed |= watch in {self._watch, _NO_WATCH}
                    if watch == self._watch and mask & _IN_IGNORED:
                        self._watch = _NO_WATCH
        return changed

    def close(self) -> None:
        """Stop watching; nothing else can be called afterwards."""
        os.close(self._fd)

    def _last_error(self) -> OSError:
        number = self._last_errno()
        return OSError(number, os.strerror(number))
