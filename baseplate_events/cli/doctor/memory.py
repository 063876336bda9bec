"""Finds and judges the memory limit of the control group (cgroup) that this process runs in.

The kernel charges the messages of a POSIX queue to the cgroup of the process that puts them, until they are
received. A service that fills its queue beyond that limit is killed; it does not get `EventQueueFullError`.

A host has cgroups of version 2 (`memory.max`), of version 1 (`memory.limit_in_bytes`), or both side by side.
The limits of all cgroups above count too. A container often sees only its own, as the root of its mount.
All but `read_memory_limit` is pure.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, NamedTuple

from ..._words import counted
from .findings import Code, ok, warning

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...transport.limits import QueueSize
    from .findings import Check, Field

#: A version 1 limit this large means none: it is the largest number of whole pages.
_NO_LIMIT: Final = 2**62

#: Bytes that a small service needs besides its queue.
PROCESS_MEMORY: Final = 64 * 1024 * 1024

#: Bytes of a page, of the header in a message's first page, and of that in its other pages (ipc/msgutil.c).
_PAGE: Final = 4_096
_FIRST_HEADER: Final = 48
_NEXT_HEADER: Final = 8

#: Bytes of the kernel's smallest slab object; the next sizes double.
_SMALLEST_PIECE: Final = 64

#: The hierarchies of both versions: their lines in `/proc/PID/cgroup`, the folders where systems mount them
#: (the second one of version 2 beside version 1), and the names of their limit files.
_HIERARCHIES: Final = (
    (re.compile(r"^0::(/.*)", re.MULTILINE), "/sys/fs/cgroup", "memory.max"),
    (re.compile(r"^0::(/.*)", re.MULTILINE), "/sys/fs/cgroup/unified", "memory.max"),
    (
        re.compile(r"^[0-9]+:(?:[^:\n]*,)?memory(?:,[^:\n]*)?:(/.*)", re.MULTILINE),
        "/sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
    ),
)


class MemoryLimit(NamedTuple):
    """The limit that is reached first.

    Attributes:
        size: Its bytes.
        path: The file that contains it.
    """

    size: int
    path: str


def limit_files(cgroups: str) -> list[str]:
    """Return the files that may limit the memory of a process; some may not exist.

    In a container without a cgroup namespace, the mount is its own cgroup, and has none of the folders below.

    Args:
        cgroups: `/proc/PID/cgroup` of the process; malformed lines are ignored.
    """
    return [
        str(PurePosixPath(f"{point}{folder}", file))
        for pattern, point, file in _HIERARCHIES
        for path in map(PurePosixPath, pattern.findall(cgroups))
        for folder in (path, *path.parents)
    ]


def parse_limit(text: str) -> int | None:
    """Parse the text of such a file: bytes, or None for no limit."""
    words = text.strip()
    if not (words.isascii() and words.isdigit()):
        return None  # "max"
    size = int(words[:20])
    return size if size < _NO_LIMIT else None


def memory_limit(read: Callable[[str], str | None]) -> MemoryLimit | None:
    """Find the lowest limit of this process, or None if there is none.

    Args:
        read: Returns the text of a file, or None if it can't be read.
    """
    found = [
        MemoryLimit(size, path)
        for path in limit_files(read("/proc/self/cgroup") or "")
        if (text := read(path)) is not None and (size := parse_limit(text)) is not None
    ]
    return min(found, key=lambda limit: limit.size, default=None)


def read_memory_limit() -> MemoryLimit | None:
    """Find the lowest limit of this process in the system's files."""

    def read(path: str) -> str | None:
        try:
            return Path(path).read_text("utf-8", errors="surrogateescape")
        except (OSError, ValueError):
            return None

    return memory_limit(read)


def message_memory(size: int) -> int:
    """Return the most kernel memory, in bytes, for a message of `size` bytes."""
    first = _PAGE - _FIRST_HEADER
    if size <= first:
        return _piece(_FIRST_HEADER + size)
    whole, rest = divmod(size - first, _PAGE - _NEXT_HEADER)
    return _PAGE * (1 + whole) + (_piece(_NEXT_HEADER + rest) if rest else 0)


def _piece(size: int) -> int:
    """Return the bytes of the slab object for `size` bytes."""
    return max(_SMALLEST_PIECE, 1 << (size - 1).bit_length())


def judge_spool_memory(max_size: int, limit: MemoryLimit | None) -> Check:
    """Judge whether a full spool in memory (tmpfs) fits into the memory limit of its writers.

    Args:
        max_size: Bytes of undelivered events that it may hold; they are charged to their writers.
        limit: The limit of this process, or None for no limit.
    """
    name = "spool memory"
    advised = max_size + PROCESS_MEMORY
    fields: dict[str, Field] = {
        "max_size": max_size,
        "limit": None if limit is None else limit.size,
        "path": None if limit is None else limit.path,
    }
    if limit is None:
        found = f"in memory; a full spool takes {counted(max_size, 'byte')}, and there is no limit"
        return ok(Code.SPOOL_MEMORY_UNLIMITED, name, found, fields=fields)
    memory = counted(limit.size, "byte")
    found = f"in memory; a full spool takes {max_size:,} of {memory} ({limit.path})"
    if advised <= limit.size:
        return ok(Code.SPOOL_MEMORY_SUFFICIENT, name, found, fields=fields)
    fitting = max(0, limit.size - PROCESS_MEMORY)
    return warning(
        Code.SPOOL_MEMORY_TOO_SMALL,
        name,
        f"{found}: its writers will be killed before the spool is full",
        f"set spool.max_size, and max_spool_size of each service, to {fitting} or less; or use a disk; or "
        f"raise the limit to {advised} or more",
        fields={**fields, "advised": advised, "fitting": fitting},
    )


def judge_memory(size: QueueSize, limit: MemoryLimit | None) -> Check:
    """Judge whether a full queue fits into the memory limit of its producers.

    Args:
        size: The size that the queue has, or will have.
        limit: The limit of this process, or None for no limit.
    """
    name = "memory limit"
    each = message_memory(size.max_message_size)
    full = size.max_messages * each
    fields: dict[str, Field] = {
        "needed": full,
        "limit": None if limit is None else limit.size,
        "path": None if limit is None else limit.path,
    }
    if limit is None:
        return ok(
            Code.MEMORY_UNLIMITED, name, f"none (a full queue takes {counted(full, 'byte')})", fields=fields
        )
    found = f"{counted(limit.size, 'byte')} ({limit.path}); a full queue takes {full:,} of them"
    if full + PROCESS_MEMORY <= limit.size:
        return ok(Code.MEMORY_SUFFICIENT, name, found, fields=fields)
    advised = full + PROCESS_MEMORY
    fitting = max(0, limit.size - PROCESS_MEMORY) // each
    smaller = f"set max_queue_size to {fitting} or less, or " if fitting else ""
    return warning(
        Code.MEMORY_TOO_SMALL,
        name,
        f"{found}: a service under this limit will be killed before its queue is full",
        f"{smaller}set a smaller max_event_size, and recreate the queue; or raise the limit of each service "
        f"that puts events: `MemoryMax={advised}` with systemd, `--memory {advised}` with docker, "
        f'`limits.memory: "{advised}"` in a pod',
        fields={**fields, "advised": advised, "fitting": fitting},
    )
