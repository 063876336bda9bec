"""A system with a real systemd as its first process, in namespaces of this host, to try units in."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

DEPLOY: Final = Path(__file__).parent.parent.parent / "deploy"

#: What stands for the top folder of the project in the system; only `deploy/` is in it.
PROJECT: Final = "/mnt/project"

#: Seconds until what should happen is given up; only a failing test waits for so long.
PATIENCE: Final = 60.0

#: The hierarchies of control groups that systemd needs: version 1 beside version 2, or version 2 alone.
_CGROUPS: Final = Path("/sys/fs/cgroup")

#: What an installation in /opt/event-publisher holds.
_PACKAGES: Final = ("baseplate_events", "thrift", "posix_ipc")

#: Puts a process into the control groups before `--`, and makes it what comes after.
_JOIN: Final = 'while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs"; shift; done; shift; exec "$@"'

_NAMESPACES: Final = ("--pid", "--mount", "--ipc", "--uts", "--net", "--cgroup")


class System:
    """A system that runs.

    Args:
        init: The process id of its systemd, as this host counts.
    """

    def __init__(self, init: int) -> None:
        self._init = init

    def run(self, *command: str, check: bool = True, stdin: str = "") -> str:
        """Run a command there as root, and return what it wrote to stdout and stderr.

        Raises:
            AssertionError: It failed, and `check` is true.
        """
        done = subprocess.run(
            ["nsenter", f"--target={self._init}", "--all", "--", *command],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
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
def booted(folder: Path) -> Generator[System]:
    """Boot a system with `deploy/` in /mnt/project and this package installed in /opt/event-publisher.

    Args:
        folder: An empty folder.

    Raises:
        OSError, AssertionError: This host doesn't allow it; the message says what failed.
    """
    installation, mounts = folder / "installation", folder / "mounts"
    mounts.mkdir()
    _install(installation)
    binds = (
        f"{DEPLOY}:{PROJECT}/deploy",
        f"{sys.base_prefix}:/opt/python",
        f"{installation}:/opt/event-publisher",
    )
    with _control_groups() as groups, (folder / "boot.log").open("w+") as log:
        join = ["sh", "-euc", _JOIN, "sh", *groups, "--"]
        boot = ["sh", str(Path(__file__).with_name("boot.sh")), str(mounts), *binds]
        unshare = subprocess.Popen(
            [*join, "unshare", *_NAMESPACES, "--fork", "--kill-child", *boot],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            system = System(_first_process(unshare, log.name))
            system.run("systemctl", "is-system-running", "--wait")
            # A Python that was built with a shared library looks for it where it was built.
            system.write("/etc/ld.so.conf.d/python.conf", "/opt/python/lib\n")
            system.run("ldconfig")
            yield system
        finally:
            unshare.kill()  # and with it the first process of the namespace, and so all of them
            unshare.wait()


def _install(installation: Path) -> None:
    """Make what `python -m venv` and `pip install` would, from what this Python has."""
    version = f"python3.{sys.version_info.minor}"
    packages = installation / "lib" / version / "site-packages"
    packages.mkdir(parents=True)
    for name in _PACKAGES:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        origin = Path(spec.origin)
        if origin.name == "__init__.py":
            shutil.copytree(origin.parent, packages / name)
        else:
            shutil.copy(origin, packages)
    (installation / "pyvenv.cfg").write_text("home = /opt/python/bin\n")
    (installation / "bin").mkdir()
    (installation / "bin" / "python").symlink_to(f"/opt/python/bin/{version}")


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


def _first_process(unshare: subprocess.Popen[bytes], log: str) -> int:
    """Wait until systemd answers in the namespace, and return its process id."""
    children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children")
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and unshare.poll() is None:
        for child in children.read_text().split():
            if Path(f"/proc/{child}/root/run/systemd/private").exists():
                return int(child)
        time.sleep(0.05)
    raise AssertionError(f"systemd doesn't start: {Path(log).read_text()}")
