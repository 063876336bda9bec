"""Files, names, descriptors and locks of one directory, as in Linux.

1. A file lives as long as a name or an open description refers to it.
2. A forked child shares open descriptions; their locks end when the last descriptor is closed.
3. The lowest free number becomes the next descriptor.
4. A removed directory accepts no more files; one of the same name is a new one.
5. A full disk accepts a part of a write, then fails.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from typing import Literal

from baseplate_events.spool.segment import FileStatus

#: The first descriptor of a process; those below are its standard streams.
FIRST_DESCRIPTOR = 3


def os_error(number: int) -> OSError:
    """Return the error of the operating system with this number."""
    return OSError(number, os.strerror(number))


@dataclass(eq=False)
class Inode:
    """A file.

    Attributes:
        number: Its number.
        data: Its content.
        links: Names that it has.
        locked: Open descriptions that lock it.
        busy: Whether a write to it is in progress; others wait for it.
        cut_by: By process: when the call with a short write to it ended.
        destroyed: When an operator deleted it, or None.
        orphaned_at: When a reader deleted it because of a lying lock, in seconds, or None.
        holes: Bytes of punched holes.
    """

    number: int
    data: bytearray = field(default_factory=bytearray)
    links: int = 1
    locked: list[Description] = field(default_factory=list["Description"])
    busy: bool = False
    cut_by: dict[int, int] = field(default_factory=dict[int, int])
    destroyed: int | None = None
    orphaned_at: float | None = None
    holes: int = 0


@dataclass(eq=False)
class Description:
    """An open file description.

    Attributes:
        inode: The file.
        users: Descriptors of it, of every process.
        lock: How it locks the file.
    """

    inode: Inode
    users: int = 1
    lock: Literal["", "shared", "exclusive"] = ""


@dataclass(eq=False)
class Folder:
    """A directory.

    Attributes:
        names: Its files by name.
        removed: Whether it was deleted.
        changes: How often names appeared or disappeared.
        changed_at: When one last did, in seconds.
    """

    names: dict[str, Inode] = field(default_factory=dict[str, Inode])
    removed: bool = False
    changes: int = 0
    changed_at: float = 0.0


@dataclass(eq=False)
class Process:
    """A process, as the kernel knows it.

    Attributes:
        pid: Its number.
        name: Its name in schedules.
        descriptors: Its open descriptors.
        inherited: Descriptors that it got from its parent.
        alive: Whether it runs.
        killed: Whether it ended by SIGKILL.
    """

    pid: int
    name: str
    descriptors: dict[int, Description] = field(default_factory=dict[int, Description])
    inherited: frozenset[int] = frozenset()
    alive: bool = True
    killed: bool = False

    def description(self, fd: int) -> Description:
        """Return what a descriptor refers to, or raise EBADF."""
        found = self.descriptors.get(fd)
        if found is None:
            raise os_error(errno.EBADF)
        return found


class Kernel:
    """The one directory, and all processes.

    Attributes:
        folder: The directory that is at the path now, or None.
        capacity: Bytes for all files together, or None.
        processes: All processes that ever ran.
        inodes: All files that ever existed.
        now: The time in seconds.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.folder: Folder | None = Folder()
        self.capacity: int | None = None
        self.processes: list[Process] = []
        self.inodes: list[Inode] = []

    def start(self, name: str) -> Process:
        """Start a process."""
        process = Process(100 + len(self.processes), name)
        self.processes.append(process)
        return process

    def fork(self, parent: Process, name: str) -> Process:
        """Start a child of a process."""
        child = self.start(name)
        child.descriptors = dict(parent.descriptors)
        child.inherited = frozenset(parent.descriptors)
        for description in child.descriptors.values():
            description.users += 1
        return child

    def exit(self, process: Process) -> None:
        """End a process."""
        process.alive = False
        for fd in list(process.descriptors):
            self.close(process, fd)

    def directory(self) -> Folder:
        """Return the directory, created if it is missing."""
        if self.folder is None:
            self.folder = Folder()
        return self.folder

    def destroy_file(self, name: str, now: int) -> None:
        """Delete a file as an operator does."""
        if self.folder is not None and name in self.folder.names:
            self.folder.names[name].destroyed = now
            self.unlink(self.folder, name)

    def destroy(self, now: int) -> None:
        """Delete the directory and all that is in it, as an operator does."""
        folder = self.folder
        if folder is not None:
            for name in list(folder.names):
                self.destroy_file(name, now)
            folder.removed = True
            self.folder = None

    def create(self, process: Process, folder: Folder, name: str) -> int:
        """Create a file; return a descriptor of it."""
        if folder.removed:
            raise os_error(errno.ENOENT)
        if name in folder.names:
            raise os_error(errno.EEXIST)
        inode = Inode(1 + len(self.inodes))
        self.inodes.append(inode)
        folder.names[name] = inode
        self._touch(folder)
        return self._descriptor(process, inode)

    def open(self, process: Process, folder: Folder, name: str) -> int:
        """Open a file; return a descriptor of it."""
        inode = folder.names.get(name)
        if inode is None:
            raise os_error(errno.ENOENT)
        return self._descriptor(process, inode)

    def close(self, process: Process, fd: int) -> None:
        """Close a descriptor."""
        description = process.description(fd)
        del process.descriptors[fd]
        description.users -= 1
        if not description.users and description.lock:
            description.inode.locked.remove(description)

    def lock(self, process: Process, fd: int, *, exclusive: bool) -> bool:
        """Lock a file without waiting; return whether that succeeded. On failure a former lock is lost."""
        description = process.description(fd)
        locked = description.inode.locked
        wanted: Literal["shared", "exclusive"] = "exclusive" if exclusive else "shared"
        if description.lock == wanted:
            return True
        if description.lock:
            locked.remove(description)
            description.lock = ""
        if any(exclusive or other.lock == "exclusive" for other in locked):
            return False
        locked.append(description)
        description.lock = wanted
        return True

    def write(self, process: Process, fd: int, data: bytes) -> int:
        """Append to a file; return the bytes written."""
        inode = process.description(fd).inode
        if self.capacity is not None:
            room = self.capacity - self.stored()
            if room <= 0:
                raise os_error(errno.ENOSPC)
            data = data[:room]
        inode.data += data
        return len(data)

    def read(self, process: Process, fd: int, offset: int) -> bytes:
        """Return the content of a file from an offset on."""
        return bytes(process.description(fd).inode.data[offset:])

    def status(self, process: Process, fd: int) -> FileStatus:
        """Return the status of an open file."""
        inode = process.description(fd).inode
        return FileStatus(1, inode.number, inode.links, len(inode.data))

    def rename(self, folder: Folder, name: str, final: str) -> None:
        """Rename a file, and replace what has the new name."""
        if name not in folder.names:
            raise os_error(errno.ENOENT)
        if name == final:
            return
        replaced = folder.names.pop(final, None)
        if replaced is not None:
            replaced.links -= 1
        folder.names[final] = folder.names.pop(name)
        self._touch(folder)

    def unlink(self, folder: Folder, name: str) -> None:
        """Delete a name."""
        inode = folder.names.pop(name, None)
        if inode is None:
            raise os_error(errno.ENOENT)
        inode.links -= 1
        self._touch(folder)

    def punch(self, process: Process, fd: int, start: int, end: int) -> None:
        """Punch a hole into a part of a file."""
        inode = process.description(fd).inode
        inode.data[start:end] = bytes(end - start)
        inode.holes += end - start

    def used(self, folder: Folder) -> int:
        """Return the bytes in a directory."""
        if folder.removed:
            raise os_error(errno.ENOENT)
        return sum(len(inode.data) - inode.holes for inode in folder.names.values())

    def stored(self) -> int:
        """Return the bytes of all files that still exist."""
        opened = {
            description.inode.number
            for process in self.processes
            for description in process.descriptors.values()
        }
        return sum(
            len(inode.data) - inode.holes for inode in self.inodes if inode.links or inode.number in opened
        )

    def _touch(self, folder: Folder) -> None:
        folder.changes += 1
        folder.changed_at = self.now

    @staticmethod
    def _descriptor(process: Process, inode: Inode) -> int:
        fd = FIRST_DESCRIPTOR
        while fd in process.descriptors:
            fd += 1
        process.descriptors[fd] = Description(inode)
        return fd
