"""inotify(7) through the C library.

Closing an instance can take seconds on a busy host, since the kernel waits until no processor uses a watch of
any instance. Removing a watch doesn't wait. So instances are kept, and their watches changed.
"""

from __future__ import annotations

import contextlib
import os
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Events of files and folders, and flags for watches (<sys/inotify.h>).
IN_MODIFY: Final = 0x2
IN_ATTRIB: Final = 0x4
IN_MOVED_TO: Final = 0x80
IN_DELETE: Final = 0x200
IN_MOVE_SELF: Final = 0x800
IN_ONLYDIR: Final = 0x0100_0000
IN_ONESHOT: Final = 0x8000_0000

#: The watch is gone; it has no more events.
IN_IGNORED: Final = 0x8000

#: The watch descriptor of IN_Q_OVERFLOW, which means that events were lost; also stands for no watch.
NO_WATCH: Final = -1

#: `struct inotify_event`: watch descriptor, mask, cookie, and the length of the name that follows.
_EVENT: Final = struct.Struct("iIII")

#: Bytes read at a time: over a hundred events without names, or a dozen with the longest names.
_BUFFER: Final = 4_096


class InotifyEvent(NamedTuple):
    """An event of a watched file or folder.

    Attributes:
        watch: The watch descriptor, or `NO_WATCH`.
        mask: What happened.
    """

    watch: int
    mask: int


class Inotify:
    """An instance of inotify.

    Raises:
        OSError: inotify isn't available, or no instance is left (fs.inotify.max_user_instances).
    """

    def __init__(self) -> None:
        # Imported late: Debian's libffi keeps a file open, which must not get a standard stream's number.
        try:
            import ctypes  # noqa: PLC0415
        except ImportError as exc:  # a Python built without libffi
            raise OSError(f"this Python has no ctypes ({exc})") from exc

        self._last_errno = ctypes.get_errno
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            add, self._remove = libc.inotify_add_watch, libc.inotify_rm_watch
            make = libc.inotify_init1
        except AttributeError as exc:
            raise OSError("the C library has no inotify") from exc
        add.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
        self._add = add
        self._fd: int = make(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise self._last_error()

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._fd

    def add(self, path: bytes, mask: int) -> int:
        """Watch a path, and return the watch descriptor.

        Raises:
            OSError: It can't be watched (fs.inotify.max_user_watches).
        """
        watch: int = self._add(self._fd, path, mask)
        if watch < 0:
            raise self._last_error()
        return watch

    def remove(self, watch: int) -> None:
        """Remove a watch, which may be gone already. Its events may still arrive."""
        self._remove(self._fd, watch)

    def read(self) -> Iterator[InotifyEvent]:
        """Yield the events since the last call; afterwards the descriptor isn't readable."""
        with contextlib.suppress(BlockingIOError):
            while True:
                data, at = os.read(self._fd, _BUFFER), 0
                while at < len(data):
                    watch, mask, _, size = _EVENT.unpack_from(data, at)
                    at += _EVENT.size + size
                    yield InotifyEvent(watch, mask)

    def close(self) -> None:
        """Stop watching; no other method may be called afterwards."""
        os.close(self._fd)

    def _last_error(self) -> OSError:
        number = self._last_errno()
        return OSError(number, os.strerror(number))
