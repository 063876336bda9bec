"""Checks this process, the limits of the host, and the queue. Changes nothing."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import platform
import shlex
import stat
import sys
from typing import TYPE_CHECKING, Final

from ...errors import EventQueuePermissionError, EventQueueUnavailableError
from ...event_publisher.access import QueueAccess
from ...transport.descriptor import load
from ...transport.limits import queue_status, queues_of_user, read_limits
from ..queue.info import MOUNT_COMMAND, inspect_queue, user_name
from .checks import (
    expected_size,
    judge_absence,
    judge_queue_access,
    judge_queue_depth,
    judge_queue_owner,
    judge_queue_size,
    judge_rlimit,
    judge_sysctls,
)
from .findings import Code, ok, problem, skipped, warning
from .memory import judge_memory, read_memory_limit

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from ...transport.limits import HostLimits, QueueSize
    from .findings import Check


#: The permission bits that the owner of a queue always has.
_OWNER: Final = 0o600

#: The remedy for a queue that can't be opened for an unexpected reason.
_NO_QUEUES: Final = "check that this kernel has POSIX message queues, and that this process may use them"


def check_process(*, needs_queue: bool = True) -> Iterator[Check]:
    """Check the user, Python and libraries of this process, on which the rest depends.

    Args:
        needs_queue: Whether the publisher uses a POSIX queue.
    """
    python, user = platform.python_version(), user_name(os.geteuid())
    yield ok(
        Code.PROCESS_IDENTIFIED,
        "process",
        f"Python {python}, as user {user}",
        fields={"python": python, "user": user},
    )
    ipc, why_not = load()
    if ipc is None and not needs_queue:
        found = f"{why_not.partition('; ')[0]}; a spool doesn't need it"
        yield ok(Code.POSIX_IPC_UNNEEDED, "posix_ipc", found)
    elif ipc is None:
        install = _install("posix_ipc")
        yield problem(
            Code.POSIX_IPC_UNUSABLE,
            "posix_ipc",
            why_not.partition("; ")[0],
            f"`{install}`, on Linux",
            commands=(install,),
        )
    else:
        found, fields = _version("posix_ipc")
        yield ok(Code.POSIX_IPC_PRESENT, "posix_ipc", found, fields=fields)
    try:
        importlib.import_module("thrift")
    except ImportError as exc:
        install = _install("thrift")
        yield warning(
            Code.THRIFT_MISSING,
            "thrift",
            f"import failed ({exc}), so services here can't send Thrift events",
            f"`{install}`",
            commands=(install,),
        )
    else:
        found, fields = _version("thrift")
        yield ok(Code.THRIFT_PRESENT, "thrift", found, fields=fields)


def _install(distribution: str) -> str:
    return f"{shlex.quote(sys.executable)} -m pip install {distribution}"


def _version(distribution: str) -> tuple[str, dict[str, str | None]]:
    """Return the version of a package, in words and as a field."""
    try:
        version = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "version unknown", {"version": None}
    return f"version {version}", {"version": version}


def check_queue(
    name: str | None, wanted: QueueSize, mode: int | None, *, transport: str | None = None
) -> Iterator[Check]:
    """Check the limits of the host, and a queue, if it is used.

    Args:
        name: The POSIX name of the queue, or None to check only the limits.
        wanted: The size that it should have.
        mode: The permission bits that it should have; None without a configuration.
        transport: `queue.transport`; None if there is no configuration.
    """
    if transport == "spool":
        found = "not used (queue.transport = spool)"
        yield skipped(Code.QUEUE_UNUSED, "queue", found, fields={"queue": name})
        return
    try:
        info = None if name is None else inspect_queue(name)
    except EventQueueUnavailableError as exc:
        yield from _check_limits(name, wanted)
        found, _, remedy = exc.problem.partition("; ")
        fields = {"queue": exc.name}
        if isinstance(exc, EventQueuePermissionError):
            *mount, let_in = commands = _let_in(exc.name)
            yield problem(
                Code.QUEUE_FORBIDDEN,
                "queue",
                f"{name}: {found}",
                "run services, publisher and doctor as the same user; or give them a common group, set "
                f"queue.mode to 0660, and as root: `{let_in}`"
                + "".join(f", after `{command}`" for command in mount),
                commands=commands,
                fields=fields,
            )
        else:
            yield problem(
                Code.QUEUE_UNAVAILABLE, "queue", f"{name}: {found}", remedy or _NO_QUEUES, fields=fields
            )
        return
    if info is None:
        limits, neighbours = yield from _check_limits(name, wanted)
        taken = sum(neighbours.values())
        yield judge_absence(name, wanted, limits, taken, optional=transport == "both")
        size = expected_size(wanted, limits, taken)
        if size is not None:
            yield judge_memory(size, read_memory_limit())
    else:
        if not info.size.covers(wanted):
            yield from _check_limits(name, wanted)
        yield judge_queue_size(info, wanted)
        yield judge_queue_depth(info)
        yield judge_memory(info.size, read_memory_limit())
        access = QueueAccess.here(
            info.name,
            uid=info.uid,
            gid=info.gid,
            mode=info.mode,
            # Without a configuration, its group may be meant to use it.
            wanted_mode=info.mode & ~stat.S_IRWXO | _OWNER if mode is None else mode,
        )
        yield judge_queue_owner(info, access)
        yield judge_queue_access(info, access)


def _let_in(name: str) -> list[str]:
    """Return the commands with which root lets a group use a queue, in order."""
    path = shlex.quote(f"/dev/mqueue{name}")
    let_in = f"chgrp GROUP {path} && chmod 0660 {path}"
    return [let_in] if queue_status(name) is not None else [MOUNT_COMMAND, let_in]


def _check_limits(
    name: str | None, wanted: QueueSize
) -> Generator[Check, None, tuple[HostLimits, dict[str, int]]]:
    """Check the limits; return them, and the bytes charged for this user's other queues."""
    limits, neighbours = read_limits(), charges_of_others(name)
    yield judge_sysctls(wanted, limits)
    yield judge_rlimit(wanted, limits, neighbours)
    return limits, neighbours


def charges_of_others(name: str | None) -> dict[str, int]:
    """Return the bytes charged for this user's other queues, by POSIX name."""
    return {other: _charge(other) for other in queues_of_user(other_than=name or "")}


def _charge(name: str) -> int:
    """Return the bytes charged for a queue; 0 if unknown."""
    with contextlib.suppress(EventQueueUnavailableError):
        info = inspect_queue(name)
        if info is not None:
            return info.size.bytes_charged
    return 0
