"""Detects two publishers on one POSIX queue, each of which would get some of the events.

A queue of Linux is a file of the mqueue file system, and mq_open(3) returns an open file description of it.
So locks work on it: they belong to the queue itself, in whatever IPC namespace that is, and end with the
publisher, however that ends. Nothing is left behind, and a queue that is removed takes its locks along.

Each publisher takes two, and neither waits. Only the first gets the exclusive flock(2), by which /proc/locks
names its process. All get a shared lock by fcntl(2), so that each can ask whether another one has that.
Services never lock, and neither does baseplate.py's publisher, which therefore isn't noticed.
"""

from __future__ import annotations

import fcntl
import os
import struct
from typing import Final

from ..errors import EventError

#: struct flock: type, whence, start, length, process. A lock of the first byte of the file.
_LOCK: Final = struct.Struct("hhqqi4x")

#: Locks of all processes of the PID namespace, see proc_locks(5).
_LOCKS: Final = "/proc/locks"


class QueueInUseError(EventError):
    """Raised when another publisher reads a queue, and `queue.exclusive` is set.

    Attributes:
        name: POSIX name of the queue.
        holder: PID of the other publisher; None if unknown.
    """

    def __init__(self, name: str, holder: int | None) -> None:
        super().__init__(name, holder)
        self.name = name
        self.holder = holder

    def __str__(self) -> str:
        return f"{describe_sharing(self.name, self.holder)}, and queue.exclusive is set: stop the other one"


def lock_queue(descriptor: int, *, exclusive: bool = False) -> bool:
    """Lock a queue until its descriptor is closed, also again; return whether no other publisher has.

    If queues can't be locked, no other publisher is noticed.

    Args:
        descriptor: The queue.
        exclusive: Whether to take no lock if another publisher was first.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        is_first = False
    except OSError:
        return True
    else:
        is_first = True
    if exclusive and not is_first:
        return False
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _LOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 1, 0))
        found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0))
    except OSError:
        return is_first
    kind: int = _LOCK.unpack(found)[0]
    return is_first and kind == fcntl.F_UNLCK


def find_holder(descriptor: int) -> int | None:
    """Return the PID that has locked a queue; None if unknown, for example in another PID namespace."""
    try:
        status = os.fstat(descriptor)
        with open(_LOCKS, encoding="utf-8") as file:  # noqa: PTH123 - a special file
            lines = [line.split() for line in file]
    except OSError:
        return None
    # 1: FLOCK  ADVISORY  WRITE 1234 00:12:5678 0 EOF
    queue = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for _, kind, _, _, process, place, *_ in (line for line in lines if len(line) == 8):  # noqa: PLR2004
        if kind == "FLOCK" and place == queue and int(process) > 0:
            return int(process)
    return None


def describe_sharing(name: str, holder: int | None) -> str:
    """Return the message that another publisher reads a queue."""
    process = "" if holder is None else f" (process {holder})"
    return f"another publisher{process} also reads {name}"
