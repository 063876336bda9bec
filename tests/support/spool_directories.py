"""Directories of spools on real file systems, and users of this machine who share them."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from baseplate_events.spool import file_systems, problems
from baseplate_events.spool.directory import FileStatus, SpoolDirectory
from baseplate_events.spool.permissions import PRIVATE, SHARED

if TYPE_CHECKING:
    from collections.abc import Generator

    import pytest

#: Users and groups that no machine has.
USER: Final = 1_234_567
OTHER: Final = 1_234_568
TEAM: Final = 1_234_569

MODES: Final = (PRIVATE, SHARED)


@contextlib.contextmanager
def as_member(user: int, group: int, *others: int) -> Generator[None]:
    """Run as a user in these groups, without the privileges of root; root stays root."""
    before = os.getgroups()
    os.setgroups(others)
    os.setresgid(group, group, 0)
    os.setresuid(user, user, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        os.setgroups(before)


@contextlib.contextmanager
def umask(mask: int) -> Generator[None]:
    """Use this umask within the context."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def fresh_place() -> Generator[Path]:
    """Yield a directory that all users can reach, but only its owner can write to."""
    with tempfile.TemporaryDirectory() as path:
        Path(path).chmod(0o755)
        yield Path(path)


def spool_in(place: Path, mode: int = PRIVATE) -> SpoolDirectory:
    """Return a spool that is ready for use."""
    spool = SpoolDirectory(str(place), "v2", mode=mode)
    spool.prepare()
    return spool


def folder_of(place: Path) -> Path:
    """Return the folder of the spool."""
    return place / "events-v2"


def unusable(folder: Path, number: int) -> str:
    """Return the problem of a folder that can't be used because of an error of the system."""
    return problems.unusable(str(folder), OSError(number, os.strerror(number)))


def mode_of(path: Path) -> int:
    """Return the permission bits of a file."""
    return stat.S_IMODE(path.lstat().st_mode)


def write_file(spool: SpoolDirectory, name: str, data: bytes = b"data") -> FileStatus:
    """Make a file as a writer does, and close it."""
    with spool.open() as folder:
        fd = folder.create(f".{name}")
        try:
            assert spool.lock(fd)
            assert len(data) == spool.write(fd, data)
            folder.publish(f".{name}", name)
            return spool.status(fd)
        finally:
            spool.close(fd)


def fake_mountinfo(place: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that a directory is on a file system of some type."""
    path = str(place.resolve())
    file = place / "mountinfo"
    file.write_text(f"1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:99 / {path} rw - {kind} host:/x rw\n")
    monkeypatch.setattr(file_systems, "_MOUNTINFO", str(file))


def names_in(path: Path) -> set[str]:
    """Return the names of the files in a folder."""
    return {entry.name for entry in path.iterdir()}
