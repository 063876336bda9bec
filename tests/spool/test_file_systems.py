"""Which file systems a spool may be on: the search for their types, and the probe."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
from collections import deque
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.spool import file_systems
from baseplate_events.spool.file_systems import (
    Suitability,
    UnsuitableError,
    can_lock,
    file_system_of,
    find_file_system,
    judge_file_system,
    probe,
    try_lock,
    unlock,
)
from tests.support.commands import run
from tests.support.queues import needs_root, open_files
from tests.support.sandbox import sandbox
from tests.support.tools import need_command

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

# --- types ---

#: Few, so that mounts cover each other, and strange, since a directory may have any name.
names = st.sampled_from(
    [b"a", b"b", b"aa", b" ", b"a b", b"\\", b"\\040", b"-", b"\n", b"\t-\r", b"\xff", "é".encode()]
)
paths = st.lists(names, max_size=3).map(tuple)
kinds = st.sampled_from(["ext4", "tmpfs", "nfs4", "fuse.sshfs"])


def as_path(parts: tuple[bytes, ...]) -> bytes:
    """Return the path of these parts."""
    return b"/" + b"/".join(parts)


def escaped(text: bytes) -> bytes:
    """Write a path as mountinfo does (`mangle` of fs/seq_file.c of Linux)."""
    for letter in b"\\ \t\n":
        text = text.replace(bytes([letter]), b"\\%03o" % letter)
    return text


@st.composite
def mounts(draw: st.DrawFn) -> tuple[tuple[bytes, ...], str, bytes]:
    """Return a mount: the parts of its path, its type, and its line."""
    point, kind = draw(paths), draw(kinds)
    tags = b"".join(draw(st.lists(st.sampled_from([b"shared:1 ", b"master:2 ", b"unbindable "]), max_size=2)))
    root = escaped(as_path(draw(paths)))
    source = draw(st.sampled_from([b"none", b"/dev/vda", b"-", b"host:/a\\040b"]))
    line = b"36 35 98:0 %b %b rw,noatime %b- %b %b rw,errors=continue\n" % (
        *(root, escaped(as_path(point)), tags, kind.encode(), source),
    )
    return point, kind, line


@given(st.lists(mounts(), max_size=6), paths)
def test_the_type_is_that_of_the_last_of_the_longest_mounts(
    table: list[tuple[tuple[bytes, ...], str, bytes]], path: tuple[bytes, ...]
) -> None:
    """A mount counts if the path is in it, part by part, and covers what was mounted there before."""
    expected = None
    for length in range(len(path) + 1):
        for point, kind, _ in table:
            if point == path[:length]:
                expected = kind
    text = b"".join(line for _, _, line in table)
    assert expected == find_file_system(text, as_path(path))


@given(
    st.binary(),
    st.lists(mounts(), max_size=2),
    st.lists(st.sampled_from([b" ", b"-", b"/", b"\n", b"\\777"])),
)
def test_no_text_breaks_the_search(
    text: bytes, table: list[tuple[tuple[bytes, ...], str, bytes]], pieces: list[bytes]
) -> None:
    """Lines that can't be read are skipped, and the others count."""
    find_file_system(text + b"".join(pieces), b"/a")
    lines = b"".join(line for _, _, line in table)
    cut = [line[: len(line) // 2] for _, _, line in table]
    assert find_file_system(lines, b"/a") == find_file_system(b"\n".join([*cut, b"\n", b" - ", lines]), b"/a")


def test_the_lines_of_a_container() -> None:
    """An example: a volume within the file system of a container."""
    text = (
        b"1054 940 0:198 / / rw,relatime master:287 - overlay overlay rw,lowerdir=/l/X,upperdir=/u\n"
        b"1055 1054 0:200 / /proc rw,nosuid - proc proc rw\n"
        b"1061 1054 8:1 /var/lib/kubelet/pods/x/volumes/spool /spool rw,relatime - ext4 /dev/sda1 rw\n"
        b"1062 1054 0:77 / /spool/old rw - nfs4 10.0.0.7:/exports rw,vers=4.2\n"
    )
    for path, kind in (
        (b"/spool/events-v2", "ext4"),
        (b"/spool/old", "nfs4"),
        (b"/spool/older", "ext4"),
        (b"/spools/events-v2", "overlay"),
        (b"/", "overlay"),
    ):
        assert kind == find_file_system(text, path)
    assert find_file_system(b"", b"/") is None


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("ext4", Suitability.SUITABLE),
        ("xfs", Suitability.SUITABLE),
        ("btrfs", Suitability.SUITABLE),
        ("tmpfs", Suitability.SUITABLE),
        ("overlay", Suitability.SUITABLE),
        ("nfs", Suitability.UNSUITABLE),
        ("nfs4", Suitability.UNSUITABLE),
        ("cifs", Suitability.UNSUITABLE),
        ("ceph", Suitability.UNSUITABLE),
        ("lustre", Suitability.UNSUITABLE),
        ("fuse.glusterfs", Suitability.UNSUITABLE),
        ("fuse.sshfs", Suitability.UNSUITABLE),
        ("fuse.bindfs", Suitability.UNPROVEN),
        ("fuse.ext4", Suitability.UNPROVEN),
        ("fuse", Suitability.UNPROVEN),
        ("fuseblk", Suitability.UNPROVEN),
        ("9p", Suitability.UNPROVEN),
        ("virtiofs", Suitability.UNPROVEN),
        ("vboxsf", Suitability.UNPROVEN),
        ("", Suitability.UNPROVEN),
        (None, Suitability.UNPROVEN),
    ],
)
def test_file_systems_are_judged_by_their_types(kind: str | None, expected: Suitability) -> None:
    """Local file systems are suitable, network ones aren't, and all others need a probe."""
    assert expected is judge_file_system(kind)


def test_the_type_is_that_of_the_system(tmp_path: Path) -> None:
    """The result agrees with the system for any directory, also through a link, and for missing paths."""
    need_command("df")
    (tmp_path / "link").symlink_to("/proc")
    for path in ("/", "/proc", "/dev", str(tmp_path), str(tmp_path / "link")):
        expected = run("df", "--output=fstype", path).check().split()[-1]
        assert expected == file_system_of(path)
        assert expected == file_system_of(f"{path}/missing")


@needs_root
def test_mounts_in_a_namespace_of_their_own(tmp_path: Path) -> None:
    """The last mount of a path counts, whatever its name is, also through a link and a bind mount."""
    folder = tmp_path / os.fsdecode(b"a b\\040\n\xff")
    folder.mkdir()
    (tmp_path / "bound").mkdir()
    (tmp_path / "link").symlink_to(folder)
    code = (
        "import sys; from baseplate_events.spool.file_systems import file_system_of as find; "
        "print(*map(find, sys.argv[1:]))"
    )
    look = (
        "python",
        "-c",
        code,
        *(str(tmp_path / name) for name in (folder, f"{folder}/x", "link", "bound")),
        "/",
    )
    outside = file_system_of(str(tmp_path))
    with sandbox(tmp_path, own_queues=False) as place:
        place.set_up("mount", "-t", "ramfs", "none", str(folder))
        place.set_up("mount", "--bind", str(folder), str(tmp_path / "bound"))
        assert ["ramfs"] * 4 == place.run(*look).check().split()[:4]
        place.set_up("mount", "-t", "tmpfs", "none", str(folder))
        assert ["tmpfs", "tmpfs", "tmpfs", "ramfs"] == place.run(*look).check().split()[:4]
        place.set_up("umount", str(folder))
        place.set_up("umount", str(folder))
        assert [outside] * 3 == place.run(*look).check().split()[:3]


def test_a_system_without_mountinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without mountinfo, no type is known."""
    monkeypatch.setattr(file_systems, "_MOUNTINFO", str(tmp_path / "missing"))
    assert file_system_of("/") is None


# --- the probe ---


@pytest.fixture
def directory(tmp_path: Path) -> Generator[int]:
    """Yield the descriptor of an empty directory, in which and of which nothing must be left."""
    folder = tmp_path / "probed"
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    before = open_files()
    yield descriptor
    assert open_files() <= before
    assert [] == list(folder.iterdir())
    os.close(descriptor)


def test_a_local_disk_passes(directory: int) -> None:
    """A real file system passes the probe, and reports blocks."""
    assert probe(directory) is True


def lock_nothing(*_: object) -> None:
    """Stand in for a `flock` that does nothing."""


def refuse(*_: object, **__: object) -> None:
    """Stand in for a system call that the file system lacks."""
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def test_a_file_system_without_locks_fails(directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks that keep no one out, and those that can't be taken, are noticed."""
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", lock_nothing)
        with pytest.raises(UnsuitableError, match=re.escape("keep out another process (flock)")):
            probe(directory)
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", refuse)
        with pytest.raises(UnsuitableError, match="Function not implemented"):
            probe(directory)


def test_locks_that_stay_are_noticed(directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that outlives its file would keep a segment forever, so it is noticed."""
    kept: list[int] = []
    flock = fcntl.flock

    def keep(handle: int, how: int) -> None:
        if how & fcntl.LOCK_SH:
            kept.append(os.dup(handle))
        flock(handle, how)

    monkeypatch.setattr(fcntl, "flock", keep)
    with pytest.raises(UnsuitableError, match="isn't released"):
        probe(directory)
    assert len(kept) == 1
    os.close(kept[0])


def test_a_file_system_that_doesnt_append_fails(directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers that overwrite each other are noticed."""
    real = os.open

    def open_plainly(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        return real(path, flags & ~os.O_APPEND, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", open_plainly)
    with pytest.raises(UnsuitableError, match="overwrite each other's data"):
        probe(directory)


def test_a_file_system_that_renames_by_copying_fails(directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that leads to another file after a rename is noticed."""

    def copy(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        folder = f"/proc/self/fd/{src_dir_fd}"
        shutil.copy(f"{folder}/{source}", f"{folder}/{target}")
        os.unlink(source, dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "rename", copy)
    with pytest.raises(UnsuitableError, match="another inode number"):
        probe(directory)


def test_a_file_system_that_cant_rename_fails(directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unsupported operation is an error that says so."""
    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(UnsuitableError, match="Function not implemented"):
        probe(directory)


def test_a_full_disk_is_no_failure_of_the_file_system(
    directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk the probe can't be made."""

    def write(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match="No space left"):
        probe(directory)


# --- locks ---


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(["shared", "exclusive", "unlock", "reopen"])),
        max_size=20,
    )
)
def test_locks_are_those_of_a_model(steps: list[tuple[int, str]]) -> None:
    """Any number of open files has a shared lock, or one an exclusive lock; closing ends a lock."""
    path = os.memfd_create("locks")
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, path)
        handles = [os.open(f"/proc/self/fd/{path}", os.O_RDWR) for _ in range(3)]
        stack.callback(lambda: deque(map(os.close, handles), 0))
        held: dict[int, str] = {}
        for which, step in steps:
            others = {how for other, how in held.items() if other != which}
            if step == "unlock":
                unlock(handles[which])
                held.pop(which, None)
            elif step == "reopen":
                os.close(handles[which])
                handles[which] = os.open(f"/proc/self/fd/{path}", os.O_RDWR)
                held.pop(which, None)
            else:
                possible = not others if step == "exclusive" else "exclusive" not in others
                assert possible == try_lock(handles[which], exclusive=step == "exclusive")
                held.pop(which, None)  # a lock that can't be changed is lost: flock(2)
                if possible:
                    held[which] = step


def test_this_system_has_locks() -> None:
    """The systems of these tests have file locks."""
    assert can_lock()
