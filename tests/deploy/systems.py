"""A system with a real systemd as its first process, in namespaces of this host, for trying units."""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

from tests.deploy.hosts import NETWORK, PATIENCE, Host, first_process
from tests.support.processes import DEVNULL, started
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Generator

DEPLOY: Final = Path(__file__).parent.parent.parent / "deploy"

#: The top folder of the project in a system.
PROJECT: Final = Path("/root/project")

#: The hierarchies of control groups that systemd needs: version 1 beside version 2, or version 2 alone.
_CGROUPS: Final = Path("/sys/fs/cgroup")

#: Puts a process into the control groups before `--`, and executes the command after it.
_JOIN: Final = 'while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs"; shift; done; shift; exec "$@"'

#: The namespaces of a system, besides the network's.
_NAMESPACES: Final = ("--pid", "--mount", "--ipc", "--uts", "--cgroup")

#: Runs a command that ends with the process that started it, even if that is killed.
_WITH_PARENT: Final = ("setpriv", "--pdeathsig=KILL")


class System(Host):
    """A system that runs.

    Args:
        init: The process id of its systemd, as this host counts.
    """

    def __init__(self, init: int) -> None:
        super().__init__(init, _NAMESPACES)

    def run(self, *command: str, check: bool = True, stdin: str = "", online: bool = False) -> str:
        """Run a command there as root, and return what it wrote to stdout and stderr.

        Args:
            command: The command and its arguments.
            check: Whether to raise an error if it fails.
            stdin: Its input.
            online: Whether this command has the network of this host, in place of the system's own, which is
                only a loopback interface.

        Raises:
            AssertionError: It failed, and `check` is true.
        """
        result = self.call(*command, stdin=stdin, online=online)
        if check and result.status != 0:
            # The state of the units says more than the command.
            raise AssertionError(f"{command} ended with {result.status}: {result.out}\n{self.logs()}")
        return result.out

    def logs(self) -> str:
        """Return the end of the journal."""
        return self.run("journalctl", "--no-pager", "--lines=60", check=False)

    def write(self, path: str, text: str, *, owner: str = "root", mode: str = "0644") -> None:
        """Write a file there, and the folders that it is in."""
        self.run("install", "-D", "-o", owner, "-m", mode, "/dev/stdin", path, stdin=text)

    def read(self, path: str) -> str:
        """Read a file there; nothing if it doesn't exist."""
        return self.run("sh", "-c", 'test ! -e "$1" || cat "$1"', "sh", path)

    def show(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()


@contextlib.contextmanager
def booted(mounts: Path, *layers: Path) -> Generator[System]:
    """Boot a system.

    Args:
        mounts: An empty folder.
        layers: The folders of its root file system, the uppermost first. They aren't changed: the system
            writes to memory, which is lost when it ends.

    Raises:
        OSError, AssertionError: This host doesn't allow it; the message says what failed.
    """
    with _control_groups() as groups, tempfile.TemporaryFile("w+") as log:
        join = ["sh", "-euc", _JOIN, "sh", *groups, "--"]
        boot = ["sh", str(Path(__file__).with_name("boot.sh")), str(mounts), ":".join(map(str, layers))]
        command = [*join, *_WITH_PARENT, "unshare", *_NAMESPACES, NETWORK, "--fork", "--kill-child", *boot]
        # When it is killed, so is the first process of the namespace, and with that all of them.
        with started(*command, stdin=DEVNULL, stdout=log.fileno(), stderr=log.fileno()) as unshare:
            system = System(first_process(unshare, "/run/systemd/private", lambda: _text(log)))
            system.run("systemctl", "is-system-running", "--wait")
            yield system


@contextlib.contextmanager
def _control_groups() -> Generator[list[str]]:
    """Make a control group for a system in each hierarchy, and remove them afterwards."""
    hybrid = (_CGROUPS / "systemd").is_dir()
    roots = [_CGROUPS / "systemd", _CGROUPS / "unified"] if hybrid else [_CGROUPS]
    groups = [root / f"test-{uuid.uuid4().hex}" for root in roots]
    try:
        for group in groups:
            group.mkdir()
        yield [str(group) for group in groups]
    finally:
        for group in groups:
            if group.exists():
                _remove(group)


def _remove(group: Path) -> None:
    """Remove a control group and those in it, once the kernel has removed the last of their processes."""
    for inner in group.iterdir():
        if inner.is_dir():
            _remove(inner)

    def removed() -> bool:
        try:
            group.rmdir()
        except OSError:
            return False
        return True

    wait_until(removed, f"{group} cannot be removed", patience=PATIENCE)


def _text(log: TextIO) -> str:
    log.seek(0)
    return log.read()
