"""Looks at this process, the limits of the host, and the queue. Changes nothing."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import platform
import shlex
import sys
from typing import TYPE_CHECKING, Final

from ...errors import EventQueuePermissionError, EventQueueUnavailableError
from ...transport.descriptor import load
from ...transport.limits import queue_status, queues_of_user, read_limits
from ..queue.info import inspect_queue, user_name
from .checks import (
    judge_absence,
    judge_queue_access,
    judge_queue_depth,
    judge_queue_size,
    judge_rlimit,
    judge_sysctls,
    ok,
    problem,
    warning,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from ...transport.limits import HostLimits, QueueSize
    from .checks import Check


#: What to do about a queue that can't be opened for a reason that nobody thought of.
_NO_QUEUES: Final = "see that this kernel has POSIX message queues, and lets this process use them"


def check_process() -> Iterator[Check]:
    """Look at who and what this process is, which the rest depends on."""
    yield ok("process", f"Python {platform.python_version()}, as user {user_name(os.geteuid())}")
    ipc, why_not = load()
    if ipc is None:
        yield problem("posix_ipc", why_not.partition("; ")[0], f"{_install('posix_ipc')}, on Linux")
    else:
        yield ok("posix_ipc", _version("posix_ipc"))
    try:
        importlib.import_module("thrift")
    except ImportError as exc:
        yield warning(
            "thrift",
            f"it can't be imported ({exc}), so services here can't send Thrift events",
            _install("thrift"),
        )
    else:
        yield ok("thrift", _version("thrift"))


def _install(distribution: str) -> str:
    return f"`{shlex.quote(sys.executable)} -m pip install {distribution}`"


def _version(distribution: str) -> str:
    try:
        return f"version {importlib.metadata.version(distribution)}"
    except importlib.metadata.PackageNotFoundError:
        return "version unknown"


def check_queue(name: str | None, wanted: QueueSize, mode: int) -> Iterator[Check]:
    """Look at the limits of the host, and at a queue.

    Args:
        name: The POSIX name of the queue, or None to look at the limits alone.
        wanted: The size that it should have.
        mode: The permission bits that it should have.
    """
    try:
        info = None if name is None else inspect_queue(name)
    except EventQueueUnavailableError as exc:
        yield from _check_limits(name, wanted)
        found, _, remedy = exc.problem.partition("; ")
        if isinstance(exc, EventQueuePermissionError):
            remedy = _let_in(exc.name)
        yield problem("queue", f"{name}: {found}", remedy or _NO_QUEUES)
        return
    if info is None:
        limits, neighbours = yield from _check_limits(name, wanted)
        yield judge_absence(name, wanted, limits, sum(neighbours.values()))
    else:
        if not info.size.covers(wanted):
            yield from _check_limits(name, wanted)
        yield judge_queue_size(info, wanted)
        yield judge_queue_depth(info)
        yield ok("queue owner", f"user {user_name(info.uid)}")
        yield judge_queue_access(info, mode)


def _let_in(name: str) -> str:
    """Tell how a user is let in to a queue of another one."""
    path = shlex.quote(f"/dev/mqueue{name}")
    where = ""
    if queue_status(name) is None:
        where = ", after `mkdir -p /dev/mqueue && mount -t mqueue none /dev/mqueue`"
    return (
        "run services, publisher and doctor as the same user; or give them a common group, set queue.mode to "
        f"0660, and as root: `chgrp GROUP {path} && chmod 0660 {path}`{where}"
    )


def _check_limits(
    name: str | None, wanted: QueueSize
) -> Generator[Check, None, tuple[HostLimits, dict[str, int]]]:
    """Look at the limits, and give them with what other queues of this user are charged."""
    limits = read_limits()
    neighbours = {other: _charge(other) for other in queues_of_user(other_than=name or "")}
    yield judge_sysctls(wanted, limits)
    yield judge_rlimit(wanted, limits, neighbours)
    return limits, neighbours


def _charge(name: str) -> int:
    """Give the bytes that a queue is charged; 0 where they can't be known."""
    with contextlib.suppress(EventQueueUnavailableError):
        info = inspect_queue(name)
        if info is not None:
            return info.size.bytes_charged
    return 0
