"""Forks: those that Python knows of, and those that it doesn't."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


@contextlib.contextmanager
def library_fork() -> Generator[Callable[[], int]]:
    """Give the fork of the C library, of which Python learns nothing, as it learns nothing of uWSGI's.

    A thread passes Python's lock on only where it waits for the system. Otherwise a child might find the lock
    just being passed on, to a thread that it doesn't have, and no program in Python can go on then.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(1_000.0)
    try:
        yield ctypes.PyDLL(None).fork
    finally:
        sys.setswitchinterval(before)


@contextlib.contextmanager
def python_fork() -> Generator[Callable[[], int]]:
    """Give the fork of Python, which warns of threads from 3.12 on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield os.fork


#: Both, by who forks.
FORKS = {"python": python_fork, "library": library_fork}


def in_child(check: Callable[[], bool], fork: Callable[[], int] = os.fork) -> bool:
    """Return whether something holds in a forked child."""
    pid = fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if check() else 2
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1] == 0
