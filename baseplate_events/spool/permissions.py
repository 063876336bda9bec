"""What the folder of a spool must look like: kind, owner, group and permission bits.

`DirectoryAccess.judge` is the only place that decides this: for services, for the publisher, and for the
commands that inspect a spool.

Rules:

1. It is a folder, not a link to one. A link isn't followed, since another user could have made it.
2. A spool is private (mode 0600), and only the user who owns its folder uses it; or shared by a group (mode
   0660), and members of its folder's group use it.
3. A shared folder may belong to any user if its group is one of this process' groups, as only root or a
   member can have given it to the group. (There is an exception: a setgid directory that all users may write
   to. A pod may have one, since all of its users belong together; a host should not.) Root needn't be a
   member if the folder is root's.
4. A private folder is 0700 and a shared one 2770: setgid, so that files get its group. A process corrects the
   bits of its own folder, and refuses another user's.
5. A private folder may be open to a group that this process is in, since fsGroup of Kubernetes adds such
   bits. The bits of any other group are taken away.
6. In a sticky folder, other users can't delete the owner's files, so it can't be shared.
"""

from __future__ import annotations

import enum
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from .._compat import assert_never
from .problems import not_a_folder, quoted

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

#: Permission bits of segment files.
PRIVATE = 0o600
SHARED = 0o660

#: Permission bits that the folder of a shared spool must have.
_SHARED_FOLDER = stat.S_ISGID | stat.S_IRWXU | stat.S_IRWXG


def file_mode(mode: int) -> int:
    """Return the mode of the files in a folder, which a service has set, by the mode of the folder."""
    return SHARED if mode & _SHARED_FOLDER == _SHARED_FOLDER else PRIVATE


class Fault(enum.Enum):
    """Why this process must not use a folder."""

    KIND = enum.auto()
    OWNER = enum.auto()
    GROUP = enum.auto()
    STICKY = enum.auto()
    OTHERS = enum.auto()
    BITS = enum.auto()


class DirectoryAccess(NamedTuple):
    """The folder of a spool, and the process that wants to use it.

    Attributes:
        owner: Its user.
        group: Its group.
        mode: Its permission bits, with setgid and sticky.
        user: The effective user of the process.
        groups: The effective and supplementary groups of the process.
        shared: Whether the spool is meant to be shared by a group.
        kind: The type of the file, as `stat.S_IFMT` gives it.
    """

    owner: int
    group: int
    mode: int
    user: int
    groups: AbstractSet[int]
    shared: bool
    kind: int = stat.S_IFDIR

    @classmethod
    def here(cls, status: os.stat_result, mode: int) -> DirectoryAccess:
        """Return what a folder is to this process.

        Args:
            status: Its status; that of a link if it is one.
            mode: The mode of the spool's files, `PRIVATE` or `SHARED`.
        """
        return cls(
            owner=status.st_uid,
            group=status.st_gid,
            mode=stat.S_IMODE(status.st_mode),
            user=os.geteuid(),
            groups={os.getegid(), *os.getgroups()},
            shared=mode == SHARED,
            kind=stat.S_IFMT(status.st_mode),
        )

    def judge(self) -> int | Fault:
        """Return the permission bits that the folder must be given, or why it can't be used. Pure.

        They are those that it has, unless the process owns it.
        """
        if self.kind != stat.S_IFDIR:
            return Fault.KIND
        is_owner = self.owner == self.user
        is_member = self.group in self.groups
        if self.shared:
            if not is_member and not (is_owner and self.user == 0):
                return Fault.GROUP
            if self.mode & stat.S_ISVTX:
                return Fault.STICKY
            if is_owner:
                return self.mode & ~stat.S_IRWXO | _SHARED_FOLDER
            if self.mode & stat.S_IRWXO:
                return Fault.OTHERS
            return self.mode if file_mode(self.mode) == SHARED else Fault.BITS
        if not is_owner:
            return Fault.OWNER
        taken = stat.S_IRWXO if is_member else stat.S_IRWXO | stat.S_IRWXG
        return self.mode & ~taken | stat.S_IRWXU

    def explain(self, fault: Fault, path: str) -> str:
        """Say why the folder at a path can't be used, and what to do.

        Args:
            fault: What `judge` returned.
            path: The folder.
        """
        if fault is Fault.KIND:
            return not_a_folder(path)
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
    """Name a user. User names aren't looked up, since a directory service may be slow."""
    return "root" if uid == 0 else f"user {uid}"
