"""Finds and judges the memory limit of the control group (cgroup) that this process runs in.

The kernel charges the messages of a POSIX queue to the cgroup of the process that puts them, until they are
received. A service that fills its queue beyond that limit is killed; it does not get `EventQueueFullError`.

A host has cgroups of version 2 (`memory.max`), of version 1 (`memory.limit_in_bytes`), or both side by side.
The limits of all cgroups above count too. A container often sees only its own, as the root of its mount.
All but `read_memory_limit` is pure.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from ..._words import counted
from .findings import Code, ok, warning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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

#: The escapes of mountinfo for blanks, tabs, newlines and backslashes.
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")

#: Fields of a line of mountinfo before the optional ones, and of the part after them.
_FIELDS: Final = 6
_FIELDS_AFTER: Final = 3


class MemoryLimit(NamedTuple):
    """The limit that is reached first.

    Attributes:
        size: Its bytes.
        path: The file that contains it.
    """

    size: int
    path: str


class _Mount(NamedTuple):
    """A mounted hierarchy: which of its folders is mounted where, and the name of its limit files."""

    root: str
    point: str
    file: str


def limit_files(cgroups: str, mountinfo: str) -> list[str]:
    """Return the files that may limit the memory of a process, its own cgroup's first.

    Args:
        cgroups: `/proc/PID/cgroup` of the process; malformed lines are ignored.
        mountinfo: Its `/proc/PID/mountinfo`, likewise.
    """
    files: dict[str, None] = {}
    mounts = list(_mounts(mountinfo))
    for line in cgroups.splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if not colon:
            continue
        if hierarchy == "0" and not controllers:
            name = "memory.max"
        elif "memory" in controllers.split(","):
            name = "memory.limit_in_bytes"
        else:
            continue
        for mount in mounts:
            if mount.file == name:
                files.update(dict.fromkeys(_files_of(mount, path)))
    return list(files)


def _mounts(mountinfo: str) -> Iterator[_Mount]:
    """Find the mounts that have memory limits."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(" "), after.split(" ")
        if len(fields) < _FIELDS or len(kinds) < _FIELDS_AFTER:
            continue
        root, point = map(_unescape, fields[3:5])
        if kinds[0] == "cgroup2":
            yield _Mount(root, point, "memory.max")
        elif kinds[0] == "cgroup" and "memory" in kinds[2].split(","):
            yield _Mount(root, point, "memory.limit_in_bytes")


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def _files_of(mount: _Mount, path: str) -> Iterator[str]:
    """Yield the limit files of a cgroup and of those above it that the mount shows."""
    root = mount.root.rstrip("/")
    # A path outside the mount, as in a container without a cgroup namespace: the mount is its own cgroup.
    below = path[len(root) :] if path == root or path.startswith(f"{root}/") else ""
    parts = [part for part in below.split("/") if part]
    if ".." in parts:
        parts = []
    point = mount.point.rstrip("/")
    for count in range(len(parts), -1, -1):
        yield "/".join([point, *parts[:count], mount.file])


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
    cgroups, mountinfo = read("/proc/self/cgroup"), read("/proc/self/mountinfo")
    if cgroups is None or mountinfo is None:
        return None
    found = [
        MemoryLimit(size, path)
        for path in limit_files(cgroups, mountinfo)
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
    piece = _SMALLEST_PIECE
    while piece < size:
        piece *= 2
    return piece


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
