"""Machines in which the project is installed as docs/operations.md says.

They are saved, so that they start in some seconds. They have a disk for spools, /dev/vdb, with an empty file
system that isn't mounted.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.machine.image import GUEST, GUIDE, is_online
from tests.machine.nbd import NbdServer
from tests.machine.qemu import Hardware, Machine, choose_accelerator, running
from tests.machine.volatile_disk import VolatileDisk

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from tests.machine.agent import Guest
    from tests.machine.image import Image

#: Bytes of the disk for spools; XFS takes no less than 300 MiB.
DISK_SIZE: Final = 512 * 2**20

#: MiB of memory of a machine.
_MEMORY: Final = 512

#: Where the disk is mounted: the directory that `deploy/tmpfiles` makes.
SPOOLS: Final = "/var/spool/events"

#: How programs of `guest/` are run.
PYTHON: Final = ("env", f"PYTHONPATH={GUEST}", "/opt/event-publisher/bin/python", "-m")

#: Loads into memory what the publisher and the services use.
_WARM: Final = (
    "import baseplate_events.event_publisher.publisher, baseplate_events.event_publisher.__main__, "
    "baseplate_events, tests.machine.guest.numbered, sqlite3"
)

#: This host, as the machine sees it.
HOST: Final = "10.0.2.2"


@dataclass(frozen=True)
class Prepared:
    """A machine that was saved.

    Attributes:
        image: What it booted from.
        accelerator: What runs its code.
        state: The file of the machine.
        disk: The file with the contents of its disk.
    """

    image: Image
    accelerator: str
    state: Path
    disk: Path


def accelerator_for(image: Image) -> str:
    """Return what runs machines here; it is found out once for each image."""
    known = image.folder / "accelerator"
    if not known.exists():
        _write_whole(known, choose_accelerator(image))
    return known.read_text()


def installation() -> Iterator[str]:
    """Yield the blocks of the guide from the files that are installed to the one before the configuration."""
    offline = itertools.dropwhile(is_online, GUIDE)
    return itertools.takewhile(lambda block: "/etc/event-publisher/" not in block, offline)


def prepare(image: Image, file_system: str) -> Prepared:
    """Save a machine whose disk has this file system (`ext4` or `xfs`), if it isn't saved yet."""
    accelerator = accelerator_for(image)
    made = Prepared(
        image, accelerator, image.folder / f"{file_system}.state", image.folder / f"{file_system}.disk"
    )
    with (image.folder / f"{file_system}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.state.exists():
            _save(made, file_system)
    return made


def _save(made: Prepared, file_system: str) -> None:
    empty = made.disk.with_suffix(".empty")
    empty.write_bytes(b"")
    with contextlib.closing(VolatileDisk(empty, DISK_SIZE)) as disk, powered(disk) as (server, drive):
        hardware = Hardware(_MEMORY, (drive,), made.accelerator)
        with running(made.image, hardware) as machine:
            guest = machine.guest
            guest.run("systemctl", "is-system-running", "--wait")
            for block in installation():
                guest.paste(block)
            guest.run("systemd-sysusers", "--inline", "u shop -")
            guest.run("modprobe", "xfs")
            guest.run(f"mkfs.{file_system}", "-q", "/dev/vdb")
            guest.run(*PYTHON[:-1], "-c", _WARM)
            guest.shell("sync; udevadm settle; blockdev --flushbufs /dev/vdb")
            unfinished = made.state.with_suffix(".new")
            machine.save(unfinished)
        server.cut()
        disk.flush()
        disk.dump(made.disk)
        unfinished.rename(made.state)
    empty.unlink()


@contextlib.contextmanager
def powered(disk: VolatileDisk) -> Generator[tuple[NbdServer, str]]:
    """Serve a disk; yields the server, and the value of `-drive` for it."""
    with tempfile.TemporaryDirectory(prefix="disk-") as folder:
        path = Path(folder) / "socket"
        server = NbdServer(disk, path)
        try:
            yield server, f"file=nbd+unix:///?socket={path},format=raw,if=virtio,cache=writeback"
        finally:
            server.close()


@contextlib.contextmanager
def restored(prepared: Prepared, drive: str) -> Generator[Machine]:
    """Restore a machine with another disk, mount it, and make its directory the one of the spools."""
    hardware = Hardware(_MEMORY, (drive,), prepared.accelerator)
    with running(prepared.image, hardware, prepared.state) as machine:
        mount(machine.guest)
        yield machine


def mount(guest: Guest) -> None:
    """Mount the disk of a machine as the directory of spools."""
    guest.shell(
        f"blockdev --flushbufs /dev/vdb; mount /dev/vdb {SPOOLS} || {{ dmesg | tail -n 20; exit 1; }}; "
        "systemd-tmpfiles --create /etc/tmpfiles.d/event-spool.conf"
    )


def configuration(port: int, **options: str) -> str:
    """Return an INI file for the queue v2 and a collector of this host.

    Args:
        port: That of the collector.
        options: More options; `__` in a name stands for the dot.
    """
    values = {
        "collector.hostname": f"{HOST}:{port}",
        "collector.scheme": "http",
        "collector.version": "2j",
        "key.name": "TestKey",
        "key.secret": "c2VjcmV0",
        "queue.mode": "0660",
        "spool.directory": SPOOLS,
        **{name.replace("__", "."): value for name, value in options.items()},
    }
    lines = [f"{name} = {value}" for name, value in values.items()]
    return "\n".join(["[event-publisher:v2]", *lines, ""])


#: The key of a collector that takes batches of such a publisher.
KEYS: Final = {"TestKey": b"secret"}


def configure(guest: Guest, port: int, **options: str) -> None:
    """Write the configuration of the publisher of the queue v2."""
    text = configuration(port, **options)
    guest.write("/etc/event-publisher/v2.ini", text, owner="event-publisher", mode="0400")


def _write_whole(path: Path, text: str) -> None:
    new = path.with_suffix(f".{os.getpid()}")
    new.write_text(text)
    new.rename(path)
