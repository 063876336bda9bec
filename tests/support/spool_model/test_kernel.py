"""The simulated kernel does what the real one does."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from contextlib import ExitStack
from typing import TYPE_CHECKING, Literal, TypeAlias

from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.spool_model.kernel import Kernel

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.spool_model.kernel import Folder, Process

Call: TypeAlias = Literal[
    "create",
    "open",
    "close",
    "share",
    "exclude",
    "write",
    "read",
    "status",
    "rename",
    "unlink",
    "fork",
    "exit",
]

#: What matters most comes more often.
CALLS: tuple[Call, ...] = (
    *("create", "open", "open", "close", "share", "share", "exclude", "exclude", "write", "read", "status"),
    *("rename", "unlink", "fork", "exit"),
)

NAMES = ("a", "b")


def outcome(call: Callable[[], object]) -> object:
    """Return what a call returns, or the number of its error."""
    try:
        return call()
    except OSError as exc:
        return errno.errorcode[exc.errno or 0]


class Both:
    """The same processes twice: simulated, and as descriptors of this process; dup(2) shares like fork(2)."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.kernel = Kernel()
        self.folder: Folder = self.kernel.directory()
        self.processes: list[Process] = [self.kernel.start("first"), self.kernel.start("second")]
        self.real: list[dict[int, int]] = [{}, {}]
        self.inodes: dict[int, int] = {}

    def file(self, name: str) -> str:
        """Return the path of a real file."""
        return os.path.join(self.path, name)  # noqa: PTH118 - as os has the calls that are compared

    def do(self, call: Call, at: int, name: str, other: str, fd_at: int) -> None:
        """Make a call in both, and compare the results."""
        at %= len(self.processes)
        process, real = self.processes[at], self.real[at]
        fds = sorted(process.descriptors)
        fd = fds[fd_at % len(fds)] if fds else -1
        kernel, folder = self.kernel, self.folder
        if call in {"create", "open"}:
            flags = (
                os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if call == "create" else 0)
            )
            mine = outcome(lambda: getattr(kernel, call)(process, folder, name))
            theirs = outcome(lambda: os.open(self.file(name), flags, 0o600))
            assert isinstance(mine, int) == isinstance(theirs, int)
            if isinstance(mine, int) and isinstance(theirs, int):
                real[mine] = theirs
            else:
                assert mine == theirs
        elif call == "rename":
            assert outcome(lambda: kernel.rename(folder, name, other)) == outcome(
                lambda: os.rename(self.file(name), self.file(other))  # noqa: PTH104 - likewise
            )
        elif call == "unlink":
            assert outcome(lambda: kernel.unlink(folder, name)) == outcome(
                lambda: os.unlink(self.file(name))  # noqa: PTH108 - likewise
            )
        elif call == "fork" and len(self.processes) < 5:
            self.processes.append(kernel.fork(process, "child"))
            self.real.append({one: os.dup(number) for one, number in real.items()})
        elif call == "exit":
            kernel.exit(process)
            for number in real.values():
                os.close(number)
            real.clear()
        elif fds:
            self._use(call, process, fd, real)

    def _use(self, call: Call, process: Process, fd: int, real: dict[int, int]) -> None:
        kernel, number = self.kernel, real[fd]
        if call == "close":
            kernel.close(process, fd)
            os.close(real.pop(fd))
        elif call in {"share", "exclude"}:
            how = fcntl.LOCK_SH if call == "share" else fcntl.LOCK_EX
            theirs = outcome(lambda: fcntl.flock(number, how | fcntl.LOCK_NB))
            assert kernel.lock(process, fd, exclusive=call == "exclude") == (theirs is None)
        elif call == "write":
            assert kernel.write(process, fd, b"data") == os.write(number, b"data")
        elif call == "read":
            assert kernel.read(process, fd, 2) == os.pread(number, 1 << 16, 2)
        elif call == "status":
            mine, theirs = kernel.status(process, fd), os.fstat(number)
            assert (mine.links, mine.size) == (theirs.st_nlink, theirs.st_size)
            assert self.inodes.setdefault(mine.inode, theirs.st_ino) == theirs.st_ino

    def end(self) -> None:
        """Compare the final states, and close both."""
        assert sorted(self.folder.names) == sorted(os.listdir(self.path))  # noqa: PTH208 - likewise
        for name, inode in self.folder.names.items():
            with open(self.file(name), "rb") as file:  # noqa: PTH123 - likewise
                assert file.read() == inode.data
        for real in self.real:
            for number in real.values():
                os.close(number)


@example([("create", 0, "a", "a", 0), ("rename", 0, "a", "a", 0), ("status", 0, "a", "a", 0)])
@example(
    [
        *[("create", 0, "a", "a", 0), ("open", 1, "a", "a", 0), ("share", 0, "a", "a", 0)],
        *[("share", 1, "a", "a", 0), ("exclude", 0, "a", "a", 0), ("exclude", 1, "a", "a", 0)],
    ]
)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(CALLS),
            st.integers(0, 4),
            st.sampled_from(NAMES),
            st.sampled_from(NAMES),
            st.integers(0, 3),
        ),
        min_size=15,
        max_size=60,
    )
)
def test_it_is_like_linux(calls: list[tuple[Call, int, str, str, int]]) -> None:
    """Names, links, contents, locks, and the errors of calls are the same, whatever is done."""
    with ExitStack() as stack:
        both = Both(stack.enter_context(tempfile.TemporaryDirectory()))
        for call in calls:
            both.do(*call)
        both.end()
