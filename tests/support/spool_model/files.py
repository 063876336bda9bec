"""The simulated directory of a spool: a `SpoolFolder` for writers, `ReaderFiles` for readers."""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING

from .kernel import os_error

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from baseplate_events.spool.segment import FileStatus

    from .kernel import Folder, Inode, Process
    from .machine import Machine


class SimulatedDirectory:
    """A `SpoolFolder` for the writer of one process.

    Args:
        machine: Where it runs.
        process: The process.
        published: Called with each file that got its final name.
        written: Called after each write.
    """

    def __init__(
        self,
        machine: Machine,
        process: Process,
        published: Callable[[Inode], None],
        written: Callable[[Inode], None],
    ) -> None:
        self.machine = machine
        self.process = process
        self.published = published
        self.written = written
        self.errors: dict[str, list[int]] = {}  # by call: errors that the next ones end with; 0 for none
        self.calls: list[str] = []
        self.lockable = True

    @property
    def path(self) -> str:
        """See `SpoolFolder`."""
        return "/spool/events-test"

    def open(self) -> OpenSimulatedDirectory:
        """See `SpoolFolder`."""
        self.begin("open")
        return OpenSimulatedDirectory(self, self.machine.kernel.directory())

    def lock(self, fd: int, /) -> bool:
        """See `SpoolFolder`."""
        self.begin("lock", fd)
        return self.lockable and self.machine.kernel.lock(self.process, fd, exclusive=False)

    def write(self, fd: int, data: bytes, /) -> int:
        """See `SpoolFolder`."""
        self.fail("write")
        kernel = self.machine.kernel
        opened = self.process.descriptors.get(fd)
        inode = opened.inode if opened is not None else None
        option = self.machine.step(self.process, "write", data, inode=inode)
        if option.kind == "fail":
            raise os_error(int(option.target) or errno.ENOSPC)
        inode = self.process.description(fd).inode
        self.machine.check_write(self.process, inode)
        first = data if option.kind == "go" else data[: int(option.target)]
        written = kernel.write(self.process, fd, first)
        if option.kind == "torn":
            self.machine.kill(self.process)
        elif option.kind == "split" and written == len(first):
            self.machine.pause(self.process, inode)
            with contextlib.suppress(OSError):  # what was written counts
                written += kernel.write(self.process, fd, data[written:])
        if written < len(data):
            self.machine.note_cut(inode)
        self.written(inode)
        return written

    def status(self, fd: int, /) -> FileStatus:
        """See `SpoolFolder`."""
        self.begin("status", fd)
        return self.machine.kernel.status(self.process, fd)

    def close(self, fd: int, /) -> None:
        """See `SpoolFolder`."""
        self.begin("close", fd)
        self.machine.kernel.close(self.process, fd)

    def begin(self, call: str, detail: object = "") -> None:
        """Do what is due before a call."""
        self.fail(call)
        option = self.machine.step(self.process, call, detail)
        if option.kind == "fail":
            raise os_error(int(option.target) or errno.ENOSPC)

    def fail(self, call: str) -> None:
        """Fail as the test says."""
        self.calls.append(call)
        planned = self.errors.get(call)
        number = planned.pop(0) if planned else 0
        if number:
            raise os_error(number)


class OpenSimulatedDirectory:
    """An `OpenSpoolFolder`; its own descriptor is left out, as it is closed by `with`."""

    def __init__(self, directory: SimulatedDirectory, folder: Folder) -> None:
        self._directory = directory
        self._folder = folder
        self._kernel = directory.machine.kernel

    def used(self) -> int:
        """See `OpenSpoolFolder`."""
        self._directory.begin("used")
        return self._kernel.used(self._folder)

    def create(self, name: str, /) -> int:
        """See `OpenSpoolFolder`."""
        self._directory.begin("create", name)
        return self._kernel.create(self._directory.process, self._folder, name)

    def publish(self, name: str, final: str, /) -> None:
        """See `OpenSpoolFolder`."""
        self._directory.begin("publish", final)
        self._kernel.rename(self._folder, name, final)
        self._directory.published(self._folder.names[final])

    def remove(self, name: str, /) -> None:
        """See `OpenSpoolFolder`."""
        self._directory.begin("remove", name)
        self._kernel.unlink(self._folder, name)

    def has_reader(self) -> bool | None:
        """See `OpenSpoolFolder`."""
        self._directory.begin("has_reader")
        return True

    def __enter__(self) -> OpenSimulatedDirectory:  # noqa: PYI034 - typing has Self from Python 3.11 on
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return


class ReaderFiles:
    """The reader's interface to the directory; each method is one system call."""

    def __init__(self, machine: Machine, process: Process) -> None:
        self.machine = machine
        self.process = process

    def names(self) -> list[str]:
        """Return the names in the directory."""
        self.machine.step(self.process, "names")
        folder = self.machine.kernel.folder
        return [] if folder is None else sorted(folder.names)

    def open(self, name: str) -> int | None:
        """Open a file; return its descriptor, or None if it is gone."""
        self.machine.step(self.process, "open file", name)
        folder = self.machine.kernel.folder
        if folder is None or name not in folder.names:
            return None
        return self.machine.kernel.open(self.process, folder, name)

    def lock(self, fd: int) -> bool:
        """Lock a file exclusively, without waiting; return whether that succeeded."""
        self.machine.step(self.process, "lock exclusively", fd)
        return self.machine.kernel.lock(self.process, fd, exclusive=True)

    def read(self, fd: int, offset: int) -> bytes:
        """Return the content of a file from an offset on."""
        self.machine.step(self.process, "read", (fd, offset))
        return self.machine.kernel.read(self.process, fd, offset)

    def delete(self, name: str) -> None:
        """Delete a file, unless it is gone."""
        self.machine.step(self.process, "delete", name)
        folder = self.machine.kernel.folder
        if folder is not None and name in folder.names:
            self.machine.kernel.unlink(folder, name)

    def close(self, fd: int) -> None:
        """Close a file."""
        self.machine.step(self.process, "close file", fd)
        self.machine.kernel.close(self.process, fd)
