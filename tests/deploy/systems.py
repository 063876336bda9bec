"""A system with a real systemd as its first process, in namespaces of this host, to try units in."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

DEPLOY: Final = Path(__file__).parent.parent.parent / "deploy"

#: The top folder of the project in a system.
PROJECT: Final = Path("/root/project")

#: Seconds until what should happen is given up; only a failing test waits for so long.
PATIENCE: Final = 60.0

#: The same for commands that get packages from a registry, which may be far.
_ONLINE_PATIENCE: Final = 600.0

#: The hierarchies of control groups that systemd needs: version 1 beside version 2, or version 2 alone.
_CGROUPS: Final = Path("/sys/fs/cgroup")

#: Puts a process into the control groups before `--`, and makes it what comes after.
_JOIN: Final = 'while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs"; shift; done; shift; exec "$@"'

#: The namespaces of a system.
_NAMESPACES: Final = ("--pid", "--mount", "--ipc", "--uts", "--cgroup")
_NETWORK: Final = "--net"

#: Ends what comes after it with the process that started it, even if that is killed.
_WITH_PARENT: Final = ("setpriv", "--pdeathsig=KILL")


class System:
    """A system that runs.

    Args:
        init: The process id of its systemd, as this host counts.
    """

    def __init__(self, init: int) -> None:
        self._init = init

    def run(self, *command: str, check: bool = True, stdin: str = "", online: bool = False) -> str:
        """Run a command there as root, and return what it wrote to stdout and stderr.

        Args:
            command: The command and its arguments.
            check: Whether a failure is raised.
            stdin: What it reads.
            online: Whether this command has the network of this host, in place of the system's own, which is
                nothing but a loopback interface.

        Raises:
            AssertionError: It failed, and `check` is true.
        """
        namespaces = _NAMESPACES if online else (*_NAMESPACES, _NETWORK)
        done = subprocess.run(
            ["nsenter", f"--target={self._init}", *namespaces, "--", *command],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_ONLINE_PATIENCE if online else PATIENCE,
            check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
        if check and done.returncode != 0:
            # How the units are says more than the command.
            journal = self.run("journalctl", "--no-pager", "--lines=60", check=False) if command else ""
            raise AssertionError(f"{command} ended with {done.returncode}: {done.stdout}\n{journal}")
        return done.stdout

    def write(self, path: str, text: str, *, owner: str = "root", mode: str = "0644") -> None:
        """Write a file there, and the folders that it is in."""
        self.run("install", "-D", "-o", owner, "-m", mode, "/dev/stdin", path, stdin=text)

    def read(self, path: str) -> str:
        """Read a file there; nothing if it doesn't exist."""
        return self.run("sh", "-c", 'test ! -e "$1" || cat "$1"', "sh", path)

    def show(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def wait(self, what: str, true: Callable[[], bool]) -> None:
        """Wait until something holds.

        Raises:
            AssertionError: It doesn't for `PATIENCE` seconds.
        """
        deadline = time.monotonic() + PATIENCE
        while not true():
            if time.monotonic() > deadline:
                journal = self.run("journalctl", "--no-pager", "--lines=60", check=False)
                raise AssertionError(f"waited in vain: {what}\n{journal}")
            time.sleep(0.05)


@contextlib.contextmanager
def booted(mounts: Path, *layers: Path) -> Generator[System]:
    """Boot a system.

    Args:
        mounts: An empty folder.
        layers: The folders of which it is made, the uppermost first. They aren't changed: what the system
            writes is in memory, and ends with it.

    Raises:
        OSError, AssertionError: This host doesn't allow it; the message says what failed.
    """
    with _control_groups() as groups, tempfile.TemporaryFile("w+") as log:
        join = ["sh", "-euc", _JOIN, "sh", *groups, "--"]
        boot = ["sh", str(Path(__file__).with_name("boot.sh")), str(mounts), ":".join(map(str, layers))]
        unshare = subprocess.Popen(
            [*join, *_WITH_PARENT, "unshare", *_NAMESPACES, _NETWORK, "--fork", "--kill-child", *boot],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            system = System(_first_process(unshare, log))
            system.run("systemctl", "is-system-running", "--wait")
            yield system
        finally:
            unshare.kill()  # and with it the first process of the namespace, and so all of them
            unshare.wait()


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
    """Remove a control group and those in it, once the kernel has taken the last of their processes away."""
    for inner in group.iterdir():
        if inner.is_dir():
            _remove(inner)
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            group.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _first_process(unshare: subprocess.Popen[bytes], log: TextIO) -> int:
    """Wait until systemd answers in the namespace, and return its process id."""
    children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children")
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and unshare.poll() is None:
        for child in children.read_text().split():
            if Path(f"/proc/{child}/root/run/systemd/private").exists():
                return int(child)
        time.sleep(0.05)
    log.seek(0)
    raise AssertionError(f"systemd doesn't start: {log.read()}")
