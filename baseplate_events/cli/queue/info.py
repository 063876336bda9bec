"""What can be known of a queue without changing it: its size, its depth, whose it is and who gets at it."""

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

#: What root runs to let queues show in the file system.
MOUNT_COMMAND: Final = "mkdir -p /dev/mqueue && mount -t mqueue none /dev/mqueue"


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """A queue at one moment.

    Attributes:
        name: Its POSIX name.
        size: Its size, fixed when it was made.
        depth: Events in it.
        uid: The user whose it is, and to whom its bytes are charged.
        gid: Its group.
        mode: Its permission bits.
        shown: Whether it shows in the file system, under `/dev/mqueue`.
    """

    name: str
    size: QueueSize
    depth: int
    uid: int
    gid: int
    mode: int
    shown: bool

    @property
    def takers(self) -> str:
        """Who may take events away, in words; root may in any case."""
        if self.open_to_all:
            return "every user of this host"
        takers: list[str] = []
        if self.mode & stat.S_IRUSR:
            takers.append(f"user {user_name(self.uid)}")
        if self.mode & stat.S_IRGRP:
            takers.append(f"group {group_name(self.gid)}")
        return " and ".join(takers) or "nobody but root"

    @property
    def open_to_all(self) -> bool:
        """Whether every user of this host may take events away."""
        return bool(self.mode & stat.S_IROTH)

    def chmod_commands(self, mode: int) -> list[str]:
        """Give the commands that give it these permission bits, in their order.

        The last one is for its owner. One before it is for root, and lets the queue show in the file system.
        """
        chmod = f"chmod {mode:04o} {shlex.quote(f'/dev/mqueue{self.name}')}"
        return [chmod] if self.shown else [MOUNT_COMMAND, chmod]

    def chmod_command(self, mode: int) -> str:
        """Tell how its owner gives it these permission bits."""
        *mount, chmod = self.chmod_commands(mode)
        return f"`{chmod}` as its owner" + "".join(f", after `{command}` as root" for command in mount)


def inspect_queue(name: str) -> QueueInfo | None:
    """Look at the queue of this valid POSIX name; None if there is none.

    Raises:
        EventQueuePermissionError: It belongs to another user who doesn't let this process in.
        EventQueueUnavailableError: It can't be opened for another reason.
    """
    # Opened to put, which more users may: nothing is put.
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
    """Name a user, with the number: `deploy (1000)`; the number alone where it has no name."""
    import pwd  # noqa: PLC0415 - not there on Windows, where this package can be imported

    try:
        return f"{pwd.getpwuid(uid).pw_name} ({uid})"
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    """Name a group likewise."""
    import grp  # noqa: PLC0415 - likewise

    try:
        return f"{grp.getgrgid(gid).gr_name} ({gid})"
    except KeyError:
        return str(gid)
