"""Looks at this process, the limits of the host, and the queue. Changes nothing."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
from typing import TYPE_CHECKING

from ..errors import EventQueueUnavailableError
from ..posix_queue import load
from ..queue_facts import look_at_queue, user_name
from ..queue_limits import queues_of_user, read_limits
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

    from ..queue_limits import HostLimits, QueueSize
    from .checks import Check


def check_process() -> Iterator[Check]:
    """Look at who and what this process is, which the rest depends on."""
    yield ok("process", f"Python {platform.python_version()}, as user {user_name(os.geteuid())}")
    ipc, why_not = load()
    if ipc is None:
        yield problem("posix_ipc", why_not, "`pip install posix_ipc`, on Linux")
    else:
        yield ok("posix_ipc", _version("posix_ipc"))
    try:
        importlib.import_module("thrift")
    except ImportError as exc:
        yield warning(
            "thrift",
            f"it can't be imported ({exc}), so services here can't send Thrift events",
            "`pip install thrift`",
        )
    else:
        yield ok("thrift", _version("thrift"))


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
        facts = None if name is None else look_at_queue(name)
    except EventQueueUnavailableError as exc:
        yield from _check_limits(name, wanted)
        yield problem(
            "queue", str(exc), "run services, publisher and doctor as the same user, or as said above"
        )
        return
    if facts is None:
        limits = yield from _check_limits(name, wanted)
        yield judge_absence(name, wanted, limits)
    else:
        if not facts.size.covers(wanted):
            yield from _check_limits(name, wanted)
        yield judge_queue_size(facts, wanted)
        yield judge_queue_depth(facts)
        yield ok("queue owner", f"user {user_name(facts.uid)}")
        yield judge_queue_access(facts, mode)


def _check_limits(name: str | None, wanted: QueueSize) -> Generator[Check, None, HostLimits]:
    limits = read_limits()
    yield judge_sysctls(wanted, limits)
    yield judge_rlimit(wanted, limits, queues_of_user(other_than=name or ""))
    return limits
