"""A sandbox with its own mounts, POSIX queues and sysctls, which leaves the host unchanged."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.commands import run
from tests.support.processes import PIPE, hear, started
from tests.support.tools import missing, need_command

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from tests.support.commands import Result


class Sandbox:
    """Namespaces of Linux for files and queues, which end with the process that holds them.

    Args:
        pid: That process.
        namespaces: Which, as options of unshare(1) and nsenter(1).
        folder: Where stand-ins for files can be created.
    """

    def __init__(self, pid: int, namespaces: Sequence[str], folder: Path) -> None:
        self._enter = ("nsenter", f"--target={pid}", *namespaces)
        self._folder = folder

    def command(self, folder: Path, *command: str) -> list[str]:
        """Return the command prefix that runs a command there, in a folder."""
        return [*self._enter, "env", f"--chdir={folder}", *command]

    def run(self, *command: str) -> Result:
        """Run a command there, in the folder of the tests; `python` is their interpreter."""
        return run(*self.command(Path.cwd(), *command), environ=with_python())

    def set_up(self, *command: str) -> None:
        """Run a command there that can't fail; without it, the test lacks a tool."""
        need_command(command[0], with_python()["PATH"])
        self.run(*command).check()

    def replace(self, path: str, text: str) -> None:
        """Mount a file with this text over an existing one."""
        other = self._folder / path.replace("/", "-")
        other.write_text(text)
        self.set_up("mount", "--bind", str(other), path)

    def show_queues(self) -> None:
        """Make queues visible in the file system, even if they aren't on this host."""
        self.hide_queues()
        self.set_up("sh", "-c", "mkdir /dev/mqueue && mount -t mqueue none /dev/mqueue")

    def hide_queues(self) -> None:
        """Hide queues from the file system."""
        self.set_up("mount", "-t", "tmpfs", "none", "/dev")


def with_python() -> dict[str, str]:
    """Return an environment with the interpreter of the tests as `python`."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@contextlib.contextmanager
def sandbox(folder: Path, *, own_queues: bool = True) -> Generator[Sandbox]:
    """Yield a sandbox; without one, the test lacks a tool.

    Args:
        folder: Where stand-ins for files can be created.
        own_queues: Whether it has its own queues, or the host's.
    """
    if os.geteuid() != 0:
        missing("only root can mount")
    for tool in ("unshare", "nsenter", "mount"):
        need_command(tool)
    namespaces = ["--mount", "--ipc"] if own_queues else ["--mount"]
    # It ends with its standard input.
    command = ("unshare", *namespaces, "sh", "-c", "echo ready; cat")
    with started(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE) as holder:
        try:
            hear(holder)
        except ChildProcessError:
            missing("this user may not have namespaces of its own")
        yield Sandbox(holder.pid, namespaces, folder)
