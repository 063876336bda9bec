"""Real POSIX queues for tests: random names, tiny sizes, nothing left behind."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import resource
import secrets
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import pytest

from baseplate_events.transport.posix import TRUST, MessageQueue, unlink_queue

if TYPE_CHECKING:
    from collections.abc import Generator

#: A size that the stock limits allow many times over.
FEW = 4
SMALL = 32

#: What stands before NAME in the POSIX name of an event queue.
EVENTS = "/events-"

#: Modules of Python that the package loads when it needs them.
_LOADED_LATE = (
    *("ctypes", "difflib", "dis", "fcntl", "grp", "logging", "pickle", "pwd", "resource", "shlex", "ssl"),
    *("termios", "tty"),
)

#: A user without privileges, and without files.
OTHER_UID = 65_534

#: Marks a test that only root can run; `tests/conftest.py` checks it.
needs_root = pytest.mark.needs_root


@contextlib.contextmanager
def fresh_name(prefix: str = "/test-") -> Generator[str]:
    """Yield the POSIX name of a queue that doesn't exist, and remove the queue in the end if it does."""
    name = f"{prefix}{os.getpid()}-{secrets.token_hex(8)}"
    try:
        yield name
    finally:
        unlink_queue(name)


@contextlib.contextmanager
def fresh_event_name() -> Generator[str]:
    """Yield the NAME of an event queue that doesn't exist, and remove the queue in the end if it does."""
    with fresh_name(f"{EVENTS}test-") as posix_name:
        yield posix_name.removeprefix(EVENTS)


def producer(name: str, max_messages: int = FEW, max_message_size: int = SMALL) -> MessageQueue:
    """Open or make a small queue as a producer does."""
    return MessageQueue(name, max_messages=max_messages, max_message_size=max_message_size, read=False)


def reader(name: str, max_messages: int = FEW, max_message_size: int = SMALL) -> MessageQueue:
    """Open or make a small queue as the publisher does."""
    return MessageQueue(name, max_messages=max_messages, max_message_size=max_message_size)


def drain(queue: MessageQueue) -> list[bytes]:
    """Take everything out of a queue."""
    return list(iter(queue.get, None))


def open_files() -> set[str]:
    """Return the open descriptors of this process; some may close later, as others' garbage is collected."""
    # That of the listing itself is gone when it is looked at.
    return {entry.name for entry in Path("/proc/self/fd").iterdir() if entry.exists()}


def lasting_files() -> set[str]:
    """Return the open descriptors of this process, without those that garbage had open: none closes later."""
    gc.collect()
    return open_files()


def outlast_trust() -> None:
    """Let the time pass during which a producer trusts that its queue exists, on its own clock."""
    until = monotonic() + TRUST
    while monotonic() <= until:
        pass


@contextlib.contextmanager
def as_user(uid: int) -> Generator[None]:
    """Be another user for a while, without the privileges of root.

    The user may be unable to read the files of this Python, so what the package loads late is loaded before.
    """
    for name in _LOADED_LATE:
        importlib.import_module(name)
    os.setresuid(uid, uid, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@contextlib.contextmanager
def unprivileged(path: Path) -> Generator[None]:
    """Run as a user without privileges who can reach this path."""
    with contextlib.ExitStack() as stack:
        if os.geteuid() == 0:
            for folder in [path, *path.parents]:
                mode = folder.stat().st_mode
                if not mode & 0o001:
                    folder.chmod(mode | 0o711)
                    stack.callback(folder.chmod, mode)
            stack.enter_context(as_user(OTHER_UID))
        yield


@contextlib.contextmanager
def bytes_of_queues(limit: int) -> Generator[None]:
    """Run as a separate user whose queues may use `limit` bytes in total."""
    soft, hard = resource.getrlimit(resource.RLIMIT_MSGQUEUE)
    with as_user(100_000 + secrets.randbelow(1_000_000_000)):
        resource.setrlimit(resource.RLIMIT_MSGQUEUE, (limit, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_MSGQUEUE, (soft, hard))


def event_of(size: int) -> bytes:
    """Make an event of this size: 2 bytes or more, or none at all."""
    return b"{%b}" % (b"e" * (size - 2)) if size else b""
