"""Notices two publishers on one POSIX queue, each of which would get some of the events.

A queue of Linux is a file of the mqueue file system, and mq_open(3) returns an open file description of it.
So flock(2) works on it: the lock belongs to the queue itself, in whatever IPC namespace that is, and ends
with the publisher, however that ends. Nothing is left behind, and a queue that is removed takes its lock
along. Services never lock, and neither does baseplate.py's publisher, which therefore isn't noticed.
"""

from __future__ import annotations

import fcntl
import os
from typing import Final

from ..errors import EventError

#: Locks of all processes of the PID namespace, see proc_locks(5).
_LOCKS: Final = "/proc/locks"


class QueueInUseError(EventError):
    """Raised when another publisher reads a queue, and `queue.exclusive` is set.

    Attributes:
        name: POSIX name of the queue.
        holder: Process of the other publisher, None if it isn't known.
    """

    def __init__(self, name: str, holder: int | None) -> None:
        super().__init__(name, holder)
        self.name = name
        self.holder = holder

    def __str__(self) -> str:
        return f"{describe_sharing(self.name, self.holder)}, and queue.exclusive is set: stop the other one"


def lock_queue(descriptor: int) -> bool:
    """Lock a queue until its descriptor is closed; return whether no other publisher has it.

    Where queues can't be locked, no other publisher is noticed.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def find_holder(descriptor: int) -> int | None:
    """Return the process that has locked a queue; None if that isn't known, as in another PID namespace."""
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
    """Say that another publisher reads a queue."""
    process = "" if holder is None else f" (process {holder})"
    return f"another publisher{process} reads {name} as well"
