"""Hosts in namespaces of this one: finding their first process, and running commands there."""

from __future__ import annotations

import abc
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.support.commands import run
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.support.commands import Result
    from tests.support.processes import Process

#: Longest wait in seconds for something that should happen; only a failing test waits for so long.
PATIENCE: Final = 60.0

#: The same for commands that get packages from a registry, which may be far.
_ONLINE_PATIENCE: Final = 600.0

#: Seconds between two looks at a host.
_GLANCE: Final = 0.05

#: The namespace that a command leaves in order to be online.
NETWORK: Final = "--net"


class Host(abc.ABC):
    """A host that runs.

    Args:
        init: Its first process, as this host counts.
        namespaces: Its namespaces, besides the network's, as options of nsenter.
    """

    def __init__(self, init: int, namespaces: Iterable[str]) -> None:
        self._enter = ("nsenter", f"--target={init}", *namespaces)

    def call(self, *command: str, stdin: str, online: bool) -> Result:
        """Run a command there as root.

        Args:
            command: The command and its arguments.
            stdin: Its input.
            online: Whether this command has the network of this host, in place of the host's own.

        Returns:
            The finished process; its stderr is included in its stdout.
        """
        network = () if online else (NETWORK,)
        return run(
            *(*self._enter, *network, "--", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *command),
            stdin=stdin,
            merged=True,
            timeout=_ONLINE_PATIENCE if online else PATIENCE,
        )

    def wait(self, what: str, true: Callable[[], bool]) -> None:
        """Wait until a condition holds.

        Raises:
            TimeoutError: It didn't hold within `PATIENCE` seconds.
        """
        wait_until(
            true, lambda: f"waited in vain: {what}\n{self.logs()}", patience=PATIENCE, interval=_GLANCE
        )

    @abc.abstractmethod
    def logs(self) -> str:
        """Return diagnostics for a failure."""


def first_process(unshare: Process, ready: str, said: Callable[[], str]) -> int:
    """Wait until the first process in the namespaces of an `unshare --fork` is ready, and return its id.

    Args:
        unshare: The process that made the namespaces.
        ready: The path of a file whose existence means that it is ready.
        said: Returns what has been logged so far.

    Raises:
        TimeoutError: It ended, or isn't ready for `PATIENCE` seconds.
    """
    children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children")

    def ready_child() -> int:
        for child in children.read_text().split():
            if Path(f"/proc/{child}/root{ready}").exists():
                return int(child)
        return 0

    return wait_until(
        ready_child,
        lambda: f"the host does not start: {said()}",
        process=unshare,
        patience=PATIENCE,
        interval=_GLANCE,
    )
