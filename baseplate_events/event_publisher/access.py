"""Whether others can get at the events in the queue, or at the secret in the configuration file.

Rules:

1. A queue is *foreign* if it belongs to neither this process' user nor root. Its owner may read every event,
   and remove the queue. One of a group of this process isn't foreign if `queue.mode` lets a group in: only a
   member of that group, or root, can have given it to the group.
2. A queue is *open* to whoever its mode lets in and `queue.mode` doesn't, and to all users in any case.
3. A configuration file with the secret in it is open if all users may read it, and any file if all may write
   to it. A group may read it, since deployments give it to the publisher that way. A folder that lets no one
   through closes it, and a secret that is named as `$VARIABLE` isn't in it.

Everything except the functions at the end is pure. The publisher logs what is found, and `doctor` reports it.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .config.values import is_variable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

#: Permission bits to read and to write, of the group and of all others.
_GROUP: Final = stat.S_IRGRP | stat.S_IWGRP
_OTHERS: Final = stat.S_IROTH | stat.S_IWOTH

#: What can be done with a queue, by the bits that allow it.
_VERBS: Final = {
    "take events away from": stat.S_IRGRP | stat.S_IROTH,
    "put events into": stat.S_IWGRP | stat.S_IWOTH,
}


@dataclass(frozen=True, slots=True)
class QueueAccess:
    """Who gets at a queue, and who may.

    Attributes:
        name: POSIX name of the queue.
        uid: Its owner.
        gid: Its group.
        mode: Its permission bits.
        wanted_mode: Those that it should have (`queue.mode`).
        user: The user of this process.
        groups: The groups of this process.
    """

    name: str
    uid: int
    gid: int
    mode: int
    wanted_mode: int
    user: int
    groups: Collection[int]

    @classmethod
    def here(cls, name: str, *, uid: int, gid: int, mode: int, wanted_mode: int) -> QueueAccess:
        """Return what a queue is to this process."""
        return cls(name, uid, gid, mode, wanted_mode, os.geteuid(), {os.getegid(), *os.getgroups()})

    @property
    def closed_mode(self) -> int:
        """The mode that it should have, without what that gives to all users."""
        return self.wanted_mode & ~stat.S_IRWXO

    @property
    def foreign(self) -> bool:
        """Whether it belongs to a user who has no business with it."""
        if self.uid in {0, self.user}:
            return False
        return not (self.wanted_mode & _GROUP and self.gid in self.groups)

    @property
    def writable_by_all(self) -> bool:
        """Whether every user of this host may put events, which are then signed like any other."""
        return bool(self.mode & stat.S_IWOTH)

    @property
    def open_to_group(self) -> bool:
        """Whether its group gets at it, though the mode that it should have doesn't let a group in."""
        return bool(self.mode & ~self.wanted_mode & _GROUP)

    def warnings(self) -> Iterator[str]:
        """Give a line for each way in which it isn't as it should be, with the remedy."""
        if self.foreign:
            yield (
                f"{self.name} belongs to user {self.uid}, who can read all events and remove it; stop that "
                "user's process and remove the queue as root, then start the publisher first; or give both a "
                "common group and set queue.mode to 0660"
            )
        exposed = {
            "all users of this host": self.mode & _OTHERS,
            f"group {self.gid}": self.mode & _GROUP & ~self.wanted_mode,
        }
        for who, bits in exposed.items():
            if bits:
                verbs = [verb for verb, may in _VERBS.items() if bits & may]
                yield f"{who} can {' and '.join(verbs)} {self.name} (mode {self.mode:04o}); {self._remedy}"
                return  # the remedy is for both

    @property
    def _remedy(self) -> str:
        closed = self.closed_mode
        setting = "" if closed == self.wanted_mode else f", and set queue.mode to {closed:04o}"
        path = shlex.quote(f"/dev/mqueue{self.name}")
        return f"as its owner: `chmod {closed:04o} {path}`{setting}"


@dataclass(frozen=True, slots=True)
class FileAccess:
    """Who gets at a configuration file.

    Attributes:
        path: The file.
        mode: Its permission bits.
        uid: Its owner.
        gid: Its group.
        reachable: Whether the folders above let all users through.
        holds_secret: Whether the secret itself is in it.
    """

    path: str
    mode: int
    uid: int
    gid: int
    reachable: bool
    holds_secret: bool

    @property
    def readable_by_all(self) -> bool:
        """Whether every user of this host may read the secret in it."""
        return self.holds_secret and self.reachable and bool(self.mode & stat.S_IROTH)

    @property
    def writable_by_all(self) -> bool:
        """Whether every user of this host may write to it, and redirect events to a host of their own."""
        return self.reachable and bool(self.mode & stat.S_IWOTH)

    @property
    def chmod(self) -> str:
        """The command by which its owner or root closes it."""
        return f"chmod o-rwx {shlex.quote(self.path)}"

    def warnings(self) -> Iterator[str]:
        """Give a line for each way in which it isn't as it should be, with the remedy."""
        if self.readable_by_all:
            yield (
                f"all users of this host can read key.secret in {self.path} (mode {self.mode:04o}); as its "
                f"owner: `{self.chmod}`, or name the secret as $VARIABLE; and have the key replaced if "
                "others use this host"
            )
        if self.writable_by_all:
            yield (
                f"all users of this host can write to {self.path} (mode {self.mode:04o}), which says where "
                f"events go; as its owner: `{self.chmod}`"
            )


def holds_secret(text: str, section: str) -> bool:
    """Return whether the text of an INI file has a section's secret in it, rather than a variable's name.

    A text that can't be parsed counts as having it.
    """
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text)
        value = parser.get(section, "key.secret", fallback="").strip()
    except configparser.Error:
        return True
    return bool(value) and not is_variable(value)


def inspect_queue_access(descriptor: int, name: str, wanted_mode: int) -> QueueAccess:
    """Return who has access to the queue of an open descriptor."""
    status = os.fstat(descriptor)
    return QueueAccess.here(
        name,
        uid=status.st_uid,
        gid=status.st_gid,
        mode=stat.S_IMODE(status.st_mode),
        wanted_mode=wanted_mode,
    )


def inspect_file(path: str | os.PathLike[str], section: str) -> FileAccess | None:
    """Return who has access to a configuration file; None if it can't be read, or isn't a file."""
    try:
        file = os.path.realpath(path, strict=True)
        status = os.stat(file)  # noqa: PTH116 - pathlib takes a third of a megabyte
        if not stat.S_ISREG(status.st_mode):
            return None
        with open(file, encoding="utf-8-sig", errors="replace") as opened:  # noqa: PTH123 - likewise
            text = opened.read()
        reachable = all(
            os.stat(file[: slash.end()]).st_mode & stat.S_IXOTH  # noqa: PTH116
            for slash in re.finditer("/", file)
        )
    except (OSError, ValueError):
        return None
    mode = stat.S_IMODE(status.st_mode)
    return FileAccess(
        os.fspath(path), mode, status.st_uid, status.st_gid, reachable, holds_secret(text, section)
    )
