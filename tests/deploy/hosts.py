"""Hosts of their own, in namespaces of this one: their first process, and commands that are run there."""

from __future__ import annotations

import abc
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: Seconds until what should happen is given up; only a failing test waits for so long.
PATIENCE: Final = 60.0

#: The same for commands that get packages from a registry, which may be far.
_ONLINE_PATIENCE: Final = 600.0

#: The namespace that a command leaves to be online.
NETWORK: Final = "--net"


class Host(abc.ABC):
    """A host that runs.

    Args:
        init: Its first process, as this host counts.
        namespaces: The namespaces that it has, beside that of the network, as options of nsenter.
    """

    def __init__(self, init: int, namespaces: Iterable[str]) -> None:
        self._enter = ("nsenter", f"--target={init}", *namespaces)

    def call(self, *command: str, stdin: str, online: bool) -> tuple[int, str]:
        """Run a command there as root.

        Args:
            command: The command and its arguments.
            stdin: What it reads.
            online: Whether this command has the network of this host, in place of the host's own.

        Returns:
            Its exit status, and what it wrote to stdout and stderr.
        """
        network = () if online else (NETWORK,)
        done = subprocess.run(
            [*self._enter, *network, "--", *command],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_ONLINE_PATIENCE if online else PATIENCE,
            check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
        return done.returncode, done.stdout

    def wait(self, what: str, true: Callable[[], bool]) -> None:
        """Wait until something holds.

        Raises:
            AssertionError: It doesn't for `PATIENCE` seconds.
        """
        deadline = time.monotonic() + PATIENCE
        while not true():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited in vain: {what}\n{self.logs()}")
            time.sleep(0.05)

    @abc.abstractmethod
    def logs(self) -> str:
        """Return what helps to see why something failed."""


def first_process(unshare: subprocess.Popen[bytes], ready: str, said: Callable[[], str]) -> int:
    """Wait until the first process in the namespaces of an `unshare --fork` is ready, and return its id.

    Args:
        unshare: What made the namespaces.
        ready: The path of a file there that tells that it is ready.
        said: Tells what was said meanwhile.

    Raises:
        AssertionError: It ended, or isn't ready for `PATIENCE` seconds.
    """
    children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children")
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and unshare.poll() is None:
        for child in children.read_text().split():
            if Path(f"/proc/{child}/root{ready}").exists():
                return int(child)
        time.sleep(0.05)
    raise AssertionError(f"the host doesn't start (unshare: {unshare.poll()}): {said()}")
