"""A queue as deep as the host allows, and deeper where this process may arrange for that.

A stock Linux allows queues of 10 events, and 819,200 bytes to all queues of a user together. With 10 events
publisher and producer wait for each other all the time, which no host that was set up for events sees. So a
process with the privilege enters an IPC namespace of its own, and raises the first of
the two limits there. The second stays as it is: root makes the queue as a user without other queues, and any
other user takes half of the bytes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Final

from baseplate_events.transport.descriptor import load
from baseplate_events.transport.limits import QueueSize, read_limits
from baseplate_events.transport.posix import MessageQueue

if TYPE_CHECKING:
    from collections.abc import Generator

    from baseplate_events.transport.descriptor import PosixQueue

#: The flag of unshare(2) and setns(2) for an IPC namespace (CLONE_NEWIPC of sched.h).
_NEW_IPC: Final = 0x0800_0000

_NAMESPACE: Final = "/proc/self/ns/ipc"
_MSG_MAX: Final = Path("/proc/sys/fs/mqueue/msg_max")

#: Events of the deepest queue, baseplate.py's default.
_DEEPEST: Final = 10_000

#: Bounds of the ids of users who have no queues: above those that systems give to people and services.
_FIRST_USER: Final = 100_000
_USERS: Final = 1_000_000_000


@contextlib.contextmanager
def deep_queue(name: str, message_size: int) -> Generator[MessageQueue]:
    """Make the queue of this POSIX name, for this process and its children, and remove it afterwards."""
    with _own_namespace(), _making(name, message_size) as queue:
        yield queue


@contextlib.contextmanager
def stock_queue(name: str, message_size: int) -> Generator[MessageQueue]:
    """Make the queue of this POSIX name within the limits as they are, and remove it afterwards."""
    with _making(name, message_size) as queue:
        yield queue


def depth_within(msg_max: int, rlimit: int | None, message_size: int) -> int:
    """Return the depth of the deepest queue for a message size within the limits of the host, at least 1."""
    charged = QueueSize(1, message_size).bytes_charged
    return max(1, min(_DEEPEST, msg_max, _DEEPEST if rlimit is None else rlimit // charged))


def bare_queue(name: str, *, read: bool) -> tuple[PosixQueue, type[Exception]]:
    """Open a queue that exists, with `posix_ipc` alone.

    Args:
        name: Its POSIX name.
        read: Open it to receive; else to send.

    Returns:
        The queue, which never waits, and the exception that says that one would have to.
    """
    ipc, problem = load()
    if ipc is None:
        raise OSError(problem)
    queue = ipc.MessageQueue(name, ipc.O_NONBLOCK, mode=0, max_messages=1, max_message_size=1, read=read)
    return queue, ipc.BusyError


@contextlib.contextmanager
def _making(name: str, message_size: int) -> Generator[MessageQueue]:
    limits = read_limits()
    with _other_user() as alone:
        rlimit = limits.rlimit if limits.rlimit is None or alone else limits.rlimit // 2
        depth = depth_within(limits.msg_max, rlimit, message_size)
        queue = MessageQueue(name, max_messages=depth, max_message_size=message_size)
    with queue:
        try:
            yield queue
        finally:
            queue.unlink()


@contextlib.contextmanager
def _own_namespace() -> Generator[None]:
    """Enter an IPC namespace of its own, for deep queues; change nothing where that isn't allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(_NAMESPACE).open("rb") as before:
        if libc.unshare(_NEW_IPC):
            yield
            return
        try:
            with contextlib.suppress(OSError):
                _MSG_MAX.write_text(str(_DEEPEST))
            yield
        finally:
            if libc.setns(before.fileno(), _NEW_IPC):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), _NAMESPACE)


@contextlib.contextmanager
def _other_user() -> Generator[bool]:
    """Charge new queues to a user without other queues, if allowed; return whether that worked."""
    before = os.getuid()
    user = _FIRST_USER + secrets.randbelow(_USERS)
    try:
        os.setresuid(user, -1, -1)  # queues are charged to the real user id
    except PermissionError:
        yield False
        return
    try:
        yield True
    finally:
        os.setresuid(before, -1, -1)
