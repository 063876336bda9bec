"""Builds what the machine boots from: a kernel, an initrd, and a Debian in which the project is installed.

It is built once and kept in a folder, `MACHINE_FOLDER` of the environment or one in the user's cache. The
Debian is built again when its packages change, the rest when the project does. To get newer packages, delete
the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.deploy.debian import SUITE, clone
from tests.deploy.guide import guide
from tests.support.commands import run

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

HERE: Final = Path(__file__).parent

#: The commands of docs/operations.md for such a host.
GUIDE: Final = guide("On a Debian host with systemd")

#: The folder of the project in the machine.
PROJECT: Final = "/root/project"

#: Where the modules of `guest/` are in the machine, as below the top folder of the project.
GUEST: Final = "/opt/machine"

#: What a host has beyond a minimal Debian, the machine's own needs, and those of building its initrd.
_PACKAGES: Final = (
    *("systemd", "systemd-sysv", "dbus", "udev", "libpam-systemd"),
    *("kmod", "iproute2", "python3", "xfsprogs", "e2fsprogs"),
    *("busybox-static", "cpio"),
)

#: What no test looks at.
_LEFT_OUT: Final = ("/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*")

#: Units that would only take time.
_MASKED: Final = (
    *("serial-getty@ttyS0.service", "getty@tty1.service", "systemd-update-utmp.service"),
    *(
        "apt-daily.timer",
        "apt-daily-upgrade.timer",
        "dpkg-db-backup.timer",
        "e2scrub_all.timer",
        "e2scrub_reap.service",
        "fstrim.timer",
    ),
    "systemd-networkd-wait-online.service",
)

#: Where an administrator of this host put certificates of his own, which its way to the registries may need.
_CERTIFICATES: Final = Path("/usr/local/share/ca-certificates")

#: Seconds for each step that uses the network.
_PATIENCE: Final = 900.0

#: Bytes of the image of the root file system, most of them a hole.
_IMAGE_SIZE: Final = 3 * 2**30

#: Becomes a process whose root is the machine's tree, with what commands expect to be mounted.
_ENTER: Final = (
    'mount -t proc proc "$1/proc"; mount --rbind /dev "$1/dev"; tree=$1; shift; exec chroot "$tree" "$@"'
)


@dataclass(frozen=True)
class Image:
    """What a machine boots from.

    Attributes:
        folder: Holds `vmlinuz`, `initrd` and `root.img`; machines that were saved may be kept there.
        package: Names the version of the package in it.
    """

    folder: Path
    package: str


@contextlib.contextmanager
def built(folder: Path | None = None) -> Generator[Image]:
    """Build the image if it isn't there, and keep it while the context lasts.

    Images of other versions of the project that no process uses are deleted.

    Args:
        folder: Where images are kept; None for the usual one.

    Raises:
        OSError, AssertionError: A tool is missing or failed; the message has what it said.
        subprocess.TimeoutExpired: A step takes longer than 15 minutes.
    """
    folder = folder or _usual_folder()
    folder.mkdir(parents=True, exist_ok=True)
    # Beside the folder of the project, as it is in git, there may be files that don't belong to it.
    with tempfile.TemporaryDirectory(dir=folder, prefix="project-") as name:
        project = Path(name)
        clone(project)
        package = _digest(project, ("baseplate_events",))
        key = _digest(
            project,
            ("baseplate_events", "deploy", "pyproject.toml", "tests/machine/guest", "tests/machine/boot"),
        )
        with _locked(folder / "building", fcntl.LOCK_EX):
            debian = _debian(folder)
            place = folder / f"image-{_key(debian.name, key, *GUIDE)}"
            if not (place / "root.img").exists():
                _build(place, debian, project)
            lock = _lock(place / "lock", fcntl.LOCK_SH)
            _forget(folder, place)
    try:
        yield Image(place, package)
    finally:
        os.close(lock)


def paste(block: str) -> tuple[str, ...]:
    """Return the command that a strict root gives who pastes these lines into a shell."""
    return ("bash", "--login", "-euc", f"umask 077\ncd {PROJECT}\n{block}")


def is_online(block: str) -> bool:
    """Return whether a block of the guide gets packages from a registry."""
    return re.search(r"apt-get|\bpip\b", block) is not None


def _usual_folder() -> Path:
    chosen = os.environ.get("MACHINE_FOLDER")
    return Path(chosen) if chosen else Path.home() / ".cache" / "baseplate-events-machine"


def _debian(folder: Path) -> Path:
    """Return the tree of a Debian with a kernel, which is bootstrapped if it isn't there."""
    scripts = [path.read_text() for path in sorted((HERE / "boot").iterdir())]
    place = folder / f"debian-{_key(SUITE, *_PACKAGES, *_LEFT_OUT, *scripts)}"
    if not place.exists():
        for old in folder.glob("debian-*"):
            shutil.rmtree(old)
        with tempfile.TemporaryDirectory(dir=folder, prefix="bootstrap-") as name:
            tree = Path(name) / "tree"
            options = [
                f"--include={','.join(_PACKAGES)}",
                *(f"--dpkgopt=path-exclude={path}" for path in _LEFT_OUT),
            ]
            _run("mmdebstrap", "--variant=minbase", *options, SUITE, tree)
            if _CERTIFICATES.is_dir():
                shutil.copytree(_CERTIFICATES, tree / _CERTIFICATES.relative_to("/"), dirs_exist_ok=True)
            shutil.copytree(HERE / "boot", tree / "boot", dirs_exist_ok=True)
            _run_in(tree, "sh", "/boot/kernel.sh", "/boot")
            tree.rename(place)
    return place


def _build(place: Path, debian: Path, project: Path) -> None:
    """Install the project in a copy of the tree, as the guide says, and make the image of it."""
    work = place.with_suffix(".new")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    tree = work / "tree"
    _run("cp", "--archive", "--reflink=auto", debian, tree)
    shutil.copytree(project, tree / PROJECT.removeprefix("/"))
    (tree / "root").chmod(0o700)
    for block in GUIDE:
        if not is_online(block):
            break
        _run_in(tree, *paste(block))
    _furnish(tree)
    for name in ("vmlinuz", "initrd"):
        shutil.move(tree / "boot" / name, work / name)
    with (work / "root.img").open("wb") as image:
        image.truncate(_IMAGE_SIZE)
    _run("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", tree, work / "root.img")
    shutil.rmtree(tree)
    shutil.rmtree(place, ignore_errors=True)
    work.rename(place)


def _furnish(tree: Path) -> None:
    """Put in what the host needs to control the machine."""
    guest = tree / GUEST.removeprefix("/") / "tests" / "machine" / "guest"
    shutil.copytree(HERE / "guest", guest, ignore=shutil.ignore_patterns("__pycache__"))
    units = tree / "etc" / "systemd" / "system"
    wanted = units / "multi-user.target.wants"
    wanted.mkdir(exist_ok=True)
    shutil.copy(HERE / "boot" / "machine-agent.service", units)
    (wanted / "machine-agent.service").symlink_to("../machine-agent.service")
    for unit in _MASKED:
        (units / unit).unlink(missing_ok=True)
        (units / unit).symlink_to("/dev/null")
    (tree / "etc" / "hostname").write_text("machine\n")
    (tree / "etc" / "hosts").write_text("127.0.0.1 localhost machine\n")
    (tree / "etc" / "machine-id").write_text(f"{'0123456789abcdef' * 2}\n")
    resolver = tree / "etc" / "resolv.conf"
    resolver.unlink(missing_ok=True)
    resolver.write_text("nameserver 10.0.2.3\n")  # qemu's, which asks this host's
    # Python writes nothing down while the machine runs: a saved machine has all it needs.
    _run_in(tree, "python3", "-m", "compileall", "-q", GUEST)


def _run_in(tree: Path, *command: str) -> None:
    """Run a command in a tree, with the network of this host."""
    clean = (
        "env",
        "-i",
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME=/root",
        "DEBIAN_FRONTEND=noninteractive",
    )
    _run("unshare", "--mount", "--fork", "--kill-child", "sh", "-euc", _ENTER, "sh", tree, *clean, *command)


def _run(*command: str | os.PathLike[str]) -> None:
    done = run(*command, merged=True, timeout=_PATIENCE)
    assert done.status == 0, f"{command} ended with {done.status}: {done.out[-3000:]}"


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _digest(top: Path, names: Iterable[str]) -> str:
    """Name the contents of files and folders."""
    digest = hashlib.sha256()
    for name in names:
        path = top / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(top)}\0{file.stat().st_mode & 0o777:o}\0".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _lock(path: Path, how: int) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, how)
    except OSError:
        os.close(fd)
        raise
    return fd


@contextlib.contextmanager
def _locked(path: Path, how: int) -> Generator[None]:
    fd = _lock(path, how)
    try:
        yield
    finally:
        os.close(fd)


def _forget(folder: Path, kept: Path) -> None:
    """Delete images that no process uses."""
    for old in folder.glob("image-*"):
        if old != kept:
            with contextlib.suppress(OSError), _locked(old / "lock", fcntl.LOCK_EX | fcntl.LOCK_NB):
                shutil.rmtree(old)


def missing_tools() -> list[str]:
    """Return the names of the commands that this host lacks."""
    tools = ("mmdebstrap", "qemu-system-x86_64", "mke2fs", "git", "unshare", "setpriv")
    return [tool for tool in tools if shutil.which(tool) is None]


if __name__ == "__main__":
    with built() as image:
        print(run("ls", "-las", image.folder).check())
