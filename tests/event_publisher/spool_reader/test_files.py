from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import stat
from typing import TYPE_CHECKING

import pytest

from baseplate_events import EventQueueUnavailableError
from baseplate_events.event_publisher.spool_reader.files import TAKEN, ReaderFolder, SegmentName
from baseplate_events.spool.directory import READER_LOCK, SpoolDirectory
from tests.support.queues import open_files
from tests.support.spool_directories import MODES, folder_of, mode_of, names_in, spool_in, umask

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

#: Debian's libffi keeps a file open from its first use on; that is no leak of a test.
_LIBC = ctypes.CDLL(None)


@pytest.fixture
def directory(tmp_path: Path) -> Generator[SpoolDirectory]:
    """A spool; nothing must be left open."""
    before = open_files()
    yield spool_in(tmp_path)
    assert open_files() <= before


class Sleeps:
    """The sleeps of a starting publisher, during which a service may act."""

    def __init__(self, *actions: object) -> None:
        self.actions = list(actions)
        self.count = 0

    def __call__(self, seconds: float) -> None:
        assert 0 < seconds < 0.1
        self.count += 1
        if self.actions:
            action = self.actions.pop(0)
            assert callable(action)
            action()


def test_a_second_publisher_is_refused(directory: SpoolDirectory) -> None:
    """A second publisher is refused with the name of the folder, until the first one has ended."""
    first = ReaderFolder(directory)
    sleeps = Sleeps()
    with pytest.raises(
        EventQueueUnavailableError, match=r"events-v2: another event publisher is using it; stop"
    ) as caught:
        ReaderFolder(directory, sleep=sleeps)
    assert caught.value.problem == TAKEN
    assert sleeps.count > 10, "services have the lock for moments"
    with directory.open() as opened:
        assert opened.has_reader()
    first.close()
    with directory.open() as opened:
        assert opened.has_reader() is False
    ReaderFolder(directory).close()


def test_a_second_publisher_is_refused_also_if_the_lock_was_deleted(
    directory: SpoolDirectory, tmp_path: Path
) -> None:
    """A second publisher is refused even if the lock file was deleted: the folder is locked too."""
    with contextlib.closing(ReaderFolder(directory)):
        (folder_of(tmp_path) / READER_LOCK).unlink()
        with pytest.raises(EventQueueUnavailableError) as caught:
            ReaderFolder(directory)
        assert caught.value.args == (directory.path, TAKEN)
    ReaderFolder(directory).close()


def test_a_service_that_looks_for_a_publisher_is_waited_for(directory: SpoolDirectory) -> None:
    """A service that checks for a publisher holds a shared lock for a moment, so the start retries."""
    ReaderFolder(directory).close()
    fd = os.open(f"{directory.path}/{READER_LOCK}", os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_SH)
    sleeps = Sleeps(lambda: None, lambda: os.close(fd))
    ReaderFolder(directory, sleep=sleeps).close()
    assert sleeps.count == 2


def test_the_folder_at_the_path_counts(directory: SpoolDirectory, tmp_path: Path) -> None:
    """A replaced folder is read and locked; a deleted one is recreated."""
    with contextlib.closing(ReaderFolder(directory)) as folder:
        (folder_of(tmp_path) / "old").touch()
        before = folder.version()
        assert set(folder.names()) == {"old", READER_LOCK}
        folder_of(tmp_path).rename(tmp_path / "away")
        assert folder.version() != before
        assert folder.names() == [READER_LOCK]
        (folder_of(tmp_path) / "new").touch()
        assert set(folder.names()) == {"new", READER_LOCK}
        assert "old" not in folder.names()
        with directory.open() as opened:
            assert opened.has_reader()
        fd = os.open(tmp_path / "away" / READER_LOCK, os.O_RDONLY)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(fd)
        shutil.rmtree(folder_of(tmp_path))
        assert "new" not in folder.names()
        assert folder.names() == [READER_LOCK]


def test_a_folder_that_is_replaced_while_it_is_locked(directory: SpoolDirectory, tmp_path: Path) -> None:
    """If the folder is replaced during locking, the lock is for the one at the path."""
    ReaderFolder(directory).close()
    fd = os.open(f"{directory.path}/{READER_LOCK}", os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_SH)

    def replace() -> None:
        folder_of(tmp_path).rename(tmp_path / "away")
        os.close(fd)

    with contextlib.closing(ReaderFolder(directory, sleep=Sleeps(replace))) as folder:
        assert folder.names() == [READER_LOCK]
        assert names_in(folder_of(tmp_path)) == {READER_LOCK}
        with directory.open() as opened:
            assert opened.has_reader()


def test_another_publisher_in_a_new_folder_is_an_error(directory: SpoolDirectory, tmp_path: Path) -> None:
    """If another publisher has the new folder, nothing is read until it ends."""
    with contextlib.closing(ReaderFolder(directory, sleep=Sleeps())) as folder:
        (folder_of(tmp_path) / "old").touch()
        folder_of(tmp_path).rename(tmp_path / "away")
        other = ReaderFolder(directory)
        for _ in range(2):
            with pytest.raises(EventQueueUnavailableError) as caught:
                folder.names()
            assert caught.value.args == (directory.path, TAKEN)
        for call in (folder.size_of, folder.open, folder.delete):
            with pytest.raises(FileNotFoundError):
                call("old")
        with pytest.raises(FileNotFoundError):
            folder.sync_names()
        other.close()
        assert folder.names() == [READER_LOCK]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("directory", os.strerror(errno.EISDIR)),
        ("symlink", os.strerror(errno.ELOOP)),
        ("fifo", "isn't a regular file; remove it"),
    ],
)
def test_a_lock_that_is_no_file_is_an_error(
    kind: str, reason: str, directory: SpoolDirectory, tmp_path: Path
) -> None:
    """A link or pipe in place of the lock file isn't followed and doesn't block."""
    path = folder_of(tmp_path) / READER_LOCK
    if kind == "directory":
        path.mkdir()
    elif kind == "symlink":
        path.symlink_to(tmp_path / "outside")
    else:
        os.mkfifo(path)
    with pytest.raises(EventQueueUnavailableError, match=rf"events-v2: {READER_LOCK} in it .*{reason}"):
        ReaderFolder(directory)
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("mask", [0o022, 0o077, 0])
def test_services_can_check_the_lock(mode: int, mask: int, tmp_path: Path) -> None:
    """All users of the spool can open the lock file, whatever the umask; no one else can."""
    with umask(mask):
        spool = spool_in(tmp_path, mode)
        ReaderFolder(spool).close()
    assert mode_of(folder_of(tmp_path) / READER_LOCK) == mode


def test_only_regular_files_are_opened(directory: SpoolDirectory, tmp_path: Path) -> None:
    """No link is followed, and no pipe waits for a writer."""
    path = folder_of(tmp_path)
    (tmp_path / "outside").write_bytes(b"secret")
    (path / "link").symlink_to(tmp_path / "outside")
    (path / "link to a folder").symlink_to(tmp_path)
    os.mkfifo(path / "pipe")
    (path / "folder").mkdir()
    (path / "file").write_bytes(b"data")
    with contextlib.closing(ReaderFolder(directory)) as folder:
        for name in ("link", "link to a folder"):
            with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
                folder.open(name)
        for name in ("pipe", "folder"):
            with pytest.raises(OSError, match="not a regular file"):
                folder.open(name)
        assert folder.size_of("file") == 4
        assert folder.size_of("link") > 0
        for call in (folder.size_of, folder.open, folder.delete):
            with pytest.raises(FileNotFoundError):
                call("nothing")
        fd = folder.open("file")
        assert (folder.size(fd), folder.read(fd, 10, 1)) == (4, b"ata")
        folder.close_file(fd)
        folder.delete("file")
        assert "file" not in folder.names()


@pytest.mark.needs_root
def test_a_file_that_may_only_be_read_is_read(directory: SpoolDirectory, tmp_path: Path) -> None:
    """A file that may not be written is opened for reading; holes can't be punched then."""
    (folder_of(tmp_path) / "file").write_bytes(bytes(200_000))
    (folder_of(tmp_path) / "file").chmod(0o444)
    folder_of(tmp_path).chmod(0o755)
    tmp_path.chmod(0o755)
    with contextlib.closing(ReaderFolder(directory)) as folder:
        os.chown(tmp_path, 65534, -1)
        os.seteuid(65534)
        try:
            fd = folder.open("file")
        finally:
            os.seteuid(0)
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            folder.punch(fd, 4096, 8192)
        folder.close_file(fd)
        assert folder.punches is None


def test_a_file_that_a_process_has_open_cannot_be_locked(directory: SpoolDirectory, tmp_path: Path) -> None:
    """A service's lock lasts until it closes the file."""
    with contextlib.closing(ReaderFolder(directory)) as folder:
        with directory.open() as opened:
            writer = opened.create("file")
        assert directory.lock(writer)
        fd = folder.open("file")
        assert not folder.lock(fd)
        os.close(writer)
        assert folder.lock(fd)
        assert folder.lock(fd)
        folder.close_file(fd)
        assert names_in(folder_of(tmp_path)) == {"file", READER_LOCK}


def test_each_change_of_the_folder_is_another_version(directory: SpoolDirectory, tmp_path: Path) -> None:
    """Changes within one tick of the clock are noticed: the version differs a moment later."""
    now = folder_of(tmp_path).stat().st_mtime_ns
    clock = [now]
    with contextlib.closing(ReaderFolder(directory, wall_time_ns=lambda: clock[0])) as folder:
        clock[0] = folder_of(tmp_path).stat().st_mtime_ns + 1_000_000
        seen = folder.version()
        assert folder.version() == seen
        stamp = folder_of(tmp_path).stat()
        (folder_of(tmp_path) / "file").touch()
        os.utime(folder_of(tmp_path), ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        clock[0] += 30_000_000
        assert folder.version() != seen
        seen = folder.version()
        clock[0] += 30_000_000
        assert folder.version() == seen
        (folder_of(tmp_path) / "file").rename(folder_of(tmp_path) / "other")
        os.utime(folder_of(tmp_path), ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
        assert folder.version() != seen


def test_names_of_segments_are_recognised() -> None:
    """Only names of segments are parsed."""
    identity = bytes(range(16))
    stem = f"{7:020d}-{'0123456789abcdef'}-{identity.hex()}"
    assert SegmentName.parse(f"{stem}.segment") == (7, "0123456789abcdef", identity, True)
    assert SegmentName.parse(f"{stem}.new") == (7, "0123456789abcdef", identity, False)
    for name in (
        "",
        READER_LOCK,
        stem,
        f"{stem}.segment~",
        f"x{stem}.new",
        f"{stem}.news",
        f"{stem}.segment\n",
    ):
        assert SegmentName.parse(name) is None
    assert SegmentName.parse(f"{stem}.segment".replace("a", "A")) is None
    assert SegmentName.parse(f"{stem}.segment".replace("7", "\uff17")) is None


def test_holes_are_not_tried_again_where_there_are_none(directory: SpoolDirectory) -> None:
    """Whether holes can be punched is known after the first attempt."""
    with contextlib.closing(ReaderFolder(directory)) as folder:
        assert folder.punches is None
        device = os.open("/dev/null", os.O_RDWR)
        folder.punch(device, 0, 4096)
        assert not folder.punches
        os.close(device)
        folder.punch(device, 0, 4096)


def test_the_lock_file_is_private_to_the_folder(directory: SpoolDirectory, tmp_path: Path) -> None:
    """The lock file is a regular file, and stays."""
    ReaderFolder(directory).close()
    assert stat.S_ISREG((folder_of(tmp_path) / READER_LOCK).lstat().st_mode)
