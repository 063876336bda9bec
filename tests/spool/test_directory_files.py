"""The files in a spool: created, locked, renamed, deleted and measured, among other files."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.spool import directory as directory_module
from baseplate_events.spool.directory import READER_LOCK, FileStatus
from baseplate_events.spool.format import NEW_SUFFIX, SEGMENT_SUFFIX
from baseplate_events.spool.permissions import SHARED
from tests.support.commands import run
from tests.support.queues import needs_root
from tests.support.spool_directories import (
    MODES,
    TEAM,
    USER,
    as_member,
    fake_mountinfo,
    folder_of,
    fresh_place,
    names_in,
    spool_in,
    write_file,
)
from tests.support.tools import need_command

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


#: Bytes that a file may take more than its data.
SLACK: Final = 128 * 1_024


@given(
    files=st.lists(st.tuples(st.integers(0, 40_000), st.integers(0, 10_000_000)), max_size=4),
    mode=st.sampled_from(MODES),
)
def test_what_is_used_is_data_in_files(files: list[tuple[int, int]], mode: int) -> None:
    """Holes don't count, nor do the rest of a file's last block and files that aren't segments."""
    with fresh_place() as place:
        spool = spool_in(place, mode)
        outside = place / "large"
        outside.write_bytes(bytes(100_000))
        for number, (data, hole) in enumerate(files):
            with spool.open() as folder:
                fd = folder.create(f"{number}{NEW_SUFFIX if number % 2 else SEGMENT_SUFFIX}")
                spool.write(fd, b"x" * data)
                os.ftruncate(fd, data + hole)
                spool.close(fd)
        inside = folder_of(place)
        (inside / "ledger.sqlite").write_bytes(bytes(100_000))
        (inside / "link.segment").symlink_to(outside)
        (inside / "folder.segment").mkdir()
        (inside / "folder.segment" / "large").write_bytes(bytes(100_000))
        os.mkfifo(inside / "pipe.segment")
        with socket.socket(socket.AF_UNIX) as bound, spool.open() as folder:
            bound.bind(str(inside / "socket.segment"))
            used = folder.used()
            assert used == folder.used()
        # A file system has blocks, and may reserve some for a file that grows.
        most = sum(min(data + hole, data + SLACK if hole else data) for data, hole in files)
        assert sum(data for data, _ in files) <= used <= most


def test_space_that_is_given_back_doesnt_count(place: Path) -> None:
    """Punching holes into a file keeps its size."""
    need_command("fallocate")
    spool = spool_in(place)
    write_file(spool, "one.segment", bytes(range(1, 251)) * 1_000)
    with spool.open() as folder:
        assert 250_000 == folder.used()
        run(
            "fallocate", "--punch-hole", "--offset=4096", "--length=200704", spool.path + "/one.segment"
        ).check()
        assert 250_000 - 200_704 <= folder.used() <= 250_000 - 200_704 + 4_096
    assert 250_000 == (folder_of(place) / "one.segment").stat().st_size


def test_sizes_count_where_blocks_arent_counted(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that reports no blocks would never be full."""

    def report_nothing(_: int) -> bool:
        return False

    fake_mountinfo(place, "fuse.x", monkeypatch)
    monkeypatch.setattr(directory_module, "probe", report_nothing)
    spool = spool_in(place)
    with spool.open() as folder:
        fd = folder.create("one.segment")
        os.ftruncate(fd, 12_345)
        spool.close(fd)
        assert 12_345 == folder.used()


def test_files_that_are_deleted_meanwhile_dont_count(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader deletes files while writers add them up."""
    spool = spool_in(place)
    for name in ("one.segment", "two.segment", "three.segment"):
        write_file(spool, name)
    scandir = os.scandir

    @contextlib.contextmanager
    def list_then_delete(descriptor: int) -> Generator[list[os.DirEntry[str]]]:
        with scandir(descriptor) as entries:
            listed = list(entries)
        (folder_of(place) / "two.segment").unlink()
        yield listed

    monkeypatch.setattr(os, "scandir", list_then_delete)
    with spool.open() as folder:
        assert 8 == folder.used()


def test_a_file_is_created_once_and_appended_to(place: Path) -> None:
    """An existing file or link of its name stays as it is, and the file isn't inherited by other programs."""
    spool = spool_in(place)
    (place / "theirs").write_bytes(b"theirs")
    (folder_of(place) / "link").symlink_to(place / "theirs")
    (folder_of(place) / "dangling").symlink_to(place / "missing")
    os.mkfifo(folder_of(place) / "pipe")
    with spool.open() as folder:
        fd = folder.create("one")
        for name in ("one", "link", "dangling", "pipe"):
            with pytest.raises(FileExistsError):
                folder.create(name)
        other = os.open(f"{spool.path}/one", os.O_WRONLY | os.O_APPEND)
        for handle in (fd, other, fd):
            spool.write(handle, str(handle == fd).encode())
        os.close(other)
        assert not os.get_inheritable(fd)
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        assert os.O_WRONLY | os.O_APPEND == flags & (os.O_ACCMODE | os.O_APPEND)
        spool.close(fd)
        with pytest.raises(OSError, match="Bad file descriptor"):
            spool.status(fd)
    assert b"TrueFalseTrue" == (folder_of(place) / "one").read_bytes()
    assert b"theirs" == (place / "theirs").read_bytes()
    assert not (place / "missing").exists()


@pytest.mark.parametrize("exc", [PermissionError(errno.EPERM, "no"), KeyboardInterrupt()])
def test_a_file_that_cant_get_its_mode_isnt_there(
    place: Path, exc: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that can't be prepared is deleted and closed, and the error is passed on."""
    spool = spool_in(place)

    def fail(*_: object) -> None:
        assert {"one"} == names_in(folder_of(place))
        raise exc

    with spool.open() as folder, monkeypatch.context() as patch:
        patch.setattr(os, "fchmod", fail)
        with pytest.raises(type(exc)):
            folder.create("one")
    assert set() == names_in(folder_of(place))


def test_a_file_keeps_its_identity(place: Path) -> None:
    """A file stays the same when it is published; after its deletion it has no name."""
    spool = spool_in(place)
    with spool.open() as folder:
        fd = folder.create("one")
        before = spool.status(fd)
        named = (folder_of(place) / "one").stat()
        assert FileStatus(named.st_dev, named.st_ino, links=1, size=0) == before
        folder.publish("one", "two")
        spool.write(fd, b"data")
        assert before._replace(size=4) == spool.status(fd)
        assert {"two"} == names_in(folder_of(place))
        with pytest.raises(FileNotFoundError):
            folder.remove("one")
        with pytest.raises(FileNotFoundError):
            folder.publish("one", "three")
        folder.remove("two")
        assert before._replace(size=4, links=0) == spool.status(fd)
        spool.close(fd)


def test_a_folder_is_closed_once(place: Path) -> None:
    """Files that were opened through it stay open, and a reused descriptor number isn't closed."""
    spool = spool_in(place)
    with spool.open() as folder:
        fd = folder.create("one")
        folder.close()
        reused = os.open(place, os.O_RDONLY)
    os.fstat(reused)
    os.close(reused)
    spool.write(fd, b"data")
    spool.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        folder.create("two")


def test_a_writer_keeps_the_publisher_out(place: Path) -> None:
    """Its lock is shared with other writers, and lasts until the last process closes the file."""
    spool = spool_in(place)
    with spool.open() as folder:
        fd = folder.create("one")
        assert spool.lock(fd)
        other = os.open(f"{spool.path}/one", os.O_RDONLY)
        assert spool.lock(other)
        os.close(other)
        publisher = os.open(f"{spool.path}/one", os.O_RDONLY)
        inherited = os.dup(fd)  # as a forked child has it
        spool.close(fd)
        with pytest.raises(BlockingIOError):
            fcntl.flock(publisher, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(inherited)
        fcntl.flock(publisher, fcntl.LOCK_EX | fcntl.LOCK_NB)
        late = os.open(f"{spool.path}/one", os.O_WRONLY)
        assert not spool.lock(late)
        os.close(late)
        os.close(publisher)


def test_a_publisher_is_noticed(place: Path) -> None:
    """There is a reader while its lock is held; the check leaves no lock and no file behind."""
    spool = spool_in(place)
    lock = folder_of(place) / READER_LOCK
    with spool.open() as folder:
        assert folder.has_reader() is False
        assert not lock.exists()
        lock.touch()
        for _ in range(2):
            assert folder.has_reader() is False
            publisher = os.open(lock, os.O_RDWR)
            fcntl.flock(publisher, fcntl.LOCK_EX | fcntl.LOCK_NB)
            assert folder.has_reader() is True
            os.close(publisher)


def test_what_isnt_the_publishers_file_says_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links aren't followed, pipes don't block, and errors are swallowed."""
    spool = spool_in(place)
    lock = folder_of(place) / READER_LOCK
    with spool.open() as folder:
        os.mkfifo(lock)
        assert folder.has_reader() is None
        lock.unlink()
        lock.symlink_to(place / "missing")
        assert folder.has_reader() is None
        lock.unlink()
        lock.touch()

        def fail(*_: object) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", fail)
        assert folder.has_reader() is None


@needs_root
def test_a_publisher_that_cant_be_checked(place: Path) -> None:
    """The lock file may be closed to this user."""
    os.chown(place, 0, TEAM)
    place.chmod(0o2770)
    spool = spool_in(place, SHARED)
    lock = folder_of(place) / READER_LOCK
    lock.touch(0o600)
    with as_member(USER, TEAM), spool.open() as folder:
        assert folder.has_reader() is None


def test_looking_for_a_publisher_leaves_no_lock_in_a_fork(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is forked at that moment doesn't keep the lock, which would shut publishers out."""
    spool = spool_in(place)
    lock = folder_of(place) / READER_LOCK
    lock.touch()
    flock = fcntl.flock
    inherited: list[int] = []

    def fork_then_lock(handle: int, how: int) -> None:
        if not inherited:
            inherited.append(os.dup(handle))
        flock(handle, how)

    monkeypatch.setattr(fcntl, "flock", fork_then_lock)
    with spool.open() as folder:
        assert folder.has_reader() is False
    publisher = os.open(lock, os.O_RDWR)
    flock(publisher, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(publisher)
    os.close(inherited[0])
