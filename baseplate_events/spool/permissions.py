"""Who may use the directory of a spool: owner, group and permission bits. Pure.

Rules:

1. A spool is private (mode 0600), and only the user who owns its directory uses it, or shared by a group
   (mode 0660), and members of its directory's group use it.
2. A shared directory may belong to anyone if its group is one of this process' groups, as only root or a
   member can have given it to the group. (There is an exception: a setgid directory that all users may write
   to. A pod may have one, since all of its users belong together; a host should not.) Root needn't be a
   member if the directory is root's.
3. A private directory is 0700 and a shared one 2770: setgid, so that files get its group. A process corrects
   the bits of its own directory, and refuses another user's.
4. Bits for a group that this process is in are accepted also in a private directory, since fsGroup of
   Kubernetes adds them. Those of any other group are taken away.
5. Whoever else uses a sticky directory can't delete the owner's files there, so it can't be shared.
"""

from __future__ import annotations

import enum
import stat
from typing import TYPE_CHECKING, NamedTuple

from .._compat import assert_never
from .problems import quoted

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

#: Permission bits of segment files.
PRIVATE = 0o600
SHARED = 0o660

#: Permission bits that the directory of a shared spool must have.
_SHARED_DIRECTORY = stat.S_ISGID | stat.S_IRWXU | stat.S_IRWXG


class Fault(enum.Enum):
    """Why this process must not use a directory."""

    OWNER = enum.auto()
    GROUP = enum.auto()
    STICKY = enum.auto()
    OTHERS = enum.auto()
    BITS = enum.auto()


class DirectoryAccess(NamedTuple):
    """A directory, and the process that wants to use it.

    Attributes:
        owner: Its user.
        group: Its group.
        mode: Its permission bits, with setgid and sticky.
        user: The effective user of the process.
        groups: The effective and supplementary groups of the process.
        shared: Whether the spool is meant to be shared by a group.
    """

    owner: int
    group: int
    mode: int
    user: int
    groups: AbstractSet[int]
    shared: bool

    def judge(self) -> int | Fault:
        """Return the permission bits that the directory must be given, or why it can't be used.

        They are those that it has, unless the process owns it.
        """
        is_owner = self.owner == self.user
        is_member = self.group in self.groups
        if self.shared:
            if not is_member and not (is_owner and self.user == 0):
                return Fault.GROUP
            if self.mode & stat.S_ISVTX:
                return Fault.STICKY
            if is_owner:
                return self.mode & ~stat.S_IRWXO | _SHARED_DIRECTORY
            if self.mode & stat.S_IRWXO:
                return Fault.OTHERS
            if self.mode & _SHARED_DIRECTORY != _SHARED_DIRECTORY:
                return Fault.BITS
            return self.mode
        if not is_owner:
            return Fault.OWNER
        taken = stat.S_IRWXO if is_member else stat.S_IRWXO | stat.S_IRWXG
        return self.mode & ~taken | stat.S_IRWXU

    def explain(self, fault: Fault, path: str) -> str:
        """Say why the directory at a path can't be used, and what to do.

        Args:
            fault: What `judge` returned.
            path: The directory.
        """
        owner, user, folder = _user(self.owner), _user(self.user), quoted(path)
        problem = f"it belongs to {owner}, and this process runs as {user}"
        remedy = f"run `chgrp GROUP {folder} && chmod 2770 {folder}`"
        if fault is Fault.OWNER:
            if self.user == 0:
                problem += ", whose files the owner couldn't read"
            remedy = (
                "run the service and its publisher as the same user (Kubernetes: runAsUser), or give both a "
                "common group (Kubernetes: fsGroup), set mode=0o660 for the service and queue.mode = 0660 "
                f"for the publisher, and {remedy}"
            )
        elif fault is Fault.GROUP:
            groups = ", ".join(map(str, sorted(self.groups)))
            problem += f", which isn't in its group {self.group} (only in {groups})"
            remedy = (
                "mode=0o660 needs a group that the users of the service and of its publisher are both in: "
                f"add them to one (Kubernetes: fsGroup), and {remedy}"
            )
        elif fault is Fault.STICKY:
            problem += (
                f"; it is sticky (mode {self.mode:04o}), so that with mode=0o660 the publisher couldn't "
                "delete the files of other users"
            )
            remedy = f"run `chmod -t {folder}` as {owner}"
        elif fault is Fault.OTHERS:
            problem += f"; it is open to all users (mode {self.mode:04o})"
            remedy = f"run `chmod o-rwx {folder}` as {owner}"
        elif fault is Fault.BITS:
            problem += f"; its mode {self.mode:04o} isn't enough for its group {self.group}"
            remedy = (
                "set mode=0o660 for the service and queue.mode = 0660 for the publisher, and run "
                f"`chmod 2770 {folder}` as {owner}"
            )
        else:
            assert_never(fault)
        return f"{problem}; {remedy}"


def _user(uid: int) -> str:
    """Name a user. Names of users aren't looked up, as a directory service may take its time."""
    return "root" if uid == 0 else f"user {uid}"
