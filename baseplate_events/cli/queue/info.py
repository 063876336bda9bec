"""Inspects a POSIX queue without changing it: its size, depth, owner and permissions."""

from __future__ import annotations

import os
import shlex
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ...transport.descriptor import find_queue
from ...transport.limits import queue_status

if TYPE_CHECKING:
    from ...transport.limits import QueueSize

#: The command with which root makes queues visible in the file system.
MOUNT_COMMAND: Final = "mkdir -p /dev/mqueue && mount -t mqueue none /dev/mqueue"


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """The state of a queue at one moment.

    Attributes:
        name: Its POSIX name.
        size: Its size, fixed when it was created.
        depth: Events in it.
        uid: Its owner, to whom its bytes are charged.
        gid: Its group.
        mode: Its permission bits.
        shown: Whether it is visible in the file system, under `/dev/mqueue`.
    """

    name: str
    size: QueueSize
    depth: int
    uid: int
    gid: int
    mode: int
    shown: bool

    @property
    def readers(self) -> str:
        """Who may read (and so remove) events, in words; root always may."""
        if self.open_to_all:
            return "every user of this host"
        readers: list[str] = []
        if self.mode & stat.S_IRUSR:
            readers.append(f"user {user_name(self.uid)}")
        if self.mode & stat.S_IRGRP:
            readers.append(f"group {group_name(self.gid)}")
        return " and ".join(readers) or "only root"

    @property
    def open_to_all(self) -> bool:
        """Whether every user of this host may read events."""
        return bool(self.mode & stat.S_IROTH)

    def chmod_commands(self, mode: int) -> list[str]:
        """Return the commands that set these permission bits, in order.

        The last command is for the owner. One before it is for root, and makes the queue visible in the file
        system.
        """
        chmod = f"chmod {mode:04o} {shlex.quote(f'/dev/mqueue{self.name}')}"
        return [chmod] if self.shown else [MOUNT_COMMAND, chmod]

    def chmod_command(self, mode: int) -> str:
        """Format the command with which its owner sets these permission bits."""
        *mount, chmod = self.chmod_commands(mode)
        return f"`{chmod}` as its owner" + "".join(f", after `{command}` as root" for command in mount)


def inspect_queue(name: str) -> QueueInfo | None:
    """Inspect the queue of this valid POSIX name; None if there is none.

    Raises:
        EventQueuePermissionError: It belongs to another user, and this process may not open it.
        EventQueueUnavailableError: It can't be opened for another reason.
    """
    # Opened for writing, which more users may; nothing is written.
    descriptor = find_queue(name, read=False)
    if descriptor is None:
        return None
    try:
        status = os.fstat(descriptor.fd)
        return QueueInfo(
            name=name,
            size=descriptor.size,
            depth=descriptor.depth,
            uid=status.st_uid,
            gid=status.st_gid,
            mode=stat.S_IMODE(status.st_mode),
            shown=queue_status(name) is not None,
        )
    finally:
        descriptor.close()


def user_name(uid: int) -> str:
    """Format a user: `deploy (1000)`, or only the number if it has no name."""
    import pwd  # noqa: PLC0415 - not there on Windows, where this package can be imported

    try:
        return f"{pwd.getpwuid(uid).pw_name} ({uid})"
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    """Format a group likewise."""
    import grp  # noqa: PLC0415 - likewise

    try:
        return f"{grp.getgrgid(gid).gr_name} ({gid})"
    except KeyError:
        return str(gid)
