"""Services with a spool whose disk is full, read-only or limited, and whose folder is deleted below them."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from pathlib import Path
from time import monotonic
from typing import final

import pytest

from baseplate_events import EventQueue, EventQueueFullError
from baseplate_events.spool import MIN_SPOOL_SIZE, writer
from baseplate_events.spool.directory import READER_LOCK
from baseplate_events.spool.format import Header, SegmentParser
from tests.support.commands import run
from tests.support.disks import delete_in_use, largest_file, mounted
from tests.support.queues import event_of, needs_root, outlast_trust
from tests.support.records import feed
from tests.support.spool_reader import SpoolFileReader
from tests.support.spool_services import (
    TINY,
    Putters,
    WatchedQueue,
    open_queue,
    read_all,
    spool_of,
)
from tests.support.tools import missing, need_command
from tests.support.waiting import wait_until

#: An event of which a few hundred fill the small disks here, and that isn't a part of a page.
EVENT = b"x" * 2_500

#: What the errors say is full.
NO_SPACE = "no space or no inodes left"
READ_ONLY = "the file system is read-only"
FILE_SIZE = "the limit of file sizes was reached; raise `ulimit -f` (RLIMIT_FSIZE)"
QUOTA = "the disk quota is used up"


@final
class Attempts:
    """A queue whose attempts to start a segment are counted.

    Attributes:
        queue: The queue.
        put: The events whose put returned.
        times: When each attempt began to open the folder of the spool, by the clock of the queue.
    """

    def __init__(self, directory: Path) -> None:
        self.times: list[float] = []
        self.put: list[bytes] = []
        self.queue = WatchedQueue(directory, self._note, max_spool_size=MIN_SPOOL_SIZE)

    def try_to_put(self) -> str | None:
        """Put an event; return the text of the error if there is no room.

        Keeping the error itself would keep its segment alive through the traceback.
        """
        event = b"{%d %b}" % (len(self.put), EVENT)
        try:
            self.queue.put(event)
        except EventQueueFullError as error:
            return str(error)
        self.put.append(event)
        return None

    def fill(self) -> str:
        """Put until there is no room, and return the text of that error."""
        while True:
            error = self.try_to_put()
            if error is not None:
                return error

    def check_refusals(self, problem: str) -> None:
        """Check that refusals give the reason, cost one attempt per pause, and leave nothing behind."""
        directory = spool_of(self.queue.directory)
        before = files(directory)
        self.times.clear()
        while len(self.times) < 3:
            error = self.try_to_put()
            assert error is not None
            assert problem in error
            assert files(directory) == before
        assert [] == [
            late - early
            for early, late in zip(self.times, self.times[1:], strict=False)
            if late - early < writer.FULL_PAUSE
        ]
        assert all(name.endswith(".segment") and size for name, size in before.items())

    def check_recovery(self) -> None:
        """Check that the first attempt from now on succeeds."""
        self.times.clear()
        wait_until(lambda: self.try_to_put() is None, "there is no room", interval=0.001)
        assert len(self.times) == 1

    def check_all(self, directory: Path) -> None:
        """Check that what was put arrives, in order."""
        self.queue.close()
        assert self.put == read_all(directory)

    def _note(self, step: str) -> None:
        if step == "open":
            self.times.append(monotonic())


def files(folder: Path) -> dict[str, int]:
    """Return the sizes of all files of writers in a folder."""
    return {file.name: file.stat().st_size for file in folder.iterdir() if file.name != READER_LOCK}


# --- no room ---


@needs_root
def test_a_full_disk_refuses_until_there_is_room(tmp_path: Path) -> None:
    """A full disk refuses events with its reason at little cost, and takes them again within a pause."""
    disk = tmp_path / "disk"
    with mounted(disk, "-t", "tmpfs", "-o", "size=400k", "none"):
        other = disk / "other"
        other.write_bytes(b"." * 100_000)
        attempts = Attempts(disk)
        attempts.fill()
        assert len(attempts.put) > 50
        attempts.check_refusals(NO_SPACE)
        other.unlink()
        attempts.check_recovery()
        attempts.fill()
        attempts.check_refusals(NO_SPACE)
        with SpoolFileReader(spool_of(disk)) as reader:  # which frees what was delivered
            reader.read()
            attempts.check_recovery()
            attempts.queue.close()
            assert attempts.put == reader.drain()


@needs_root
def test_a_disk_without_inodes_refuses_until_one_is_free(tmp_path: Path) -> None:
    """Without free inodes no segment starts, but the current one goes on."""
    disk = tmp_path / "disk"
    with mounted(disk, "-t", "tmpfs", "-o", "size=20m,nr_inodes=20", "none"):
        attempts = Attempts(disk)
        assert attempts.try_to_put() is None
        with SpoolFileReader(spool_of(disk)):
            others = use_inodes(disk)
        attempts.fill()
        assert len(attempts.put) > 50
        attempts.check_refusals(NO_SPACE)
        others[0].unlink()
        attempts.check_recovery()
        others[1].unlink()
        attempts.check_all(disk)


def use_inodes(disk: Path) -> list[Path]:
    """Make files until no more can be made."""
    made: list[Path] = []
    with contextlib.suppress(OSError):
        for number in range(1_000):
            made.append(disk / f"{os.urandom(4).hex()} {number}")
            made[-1].touch()
    return made[:-1]


def test_a_limit_of_files_makes_segments_small(tmp_path: Path) -> None:
    """With RLIMIT_FSIZE, as of `ulimit -f`, segments are as large as it allows, and nothing is lost."""
    attempts = Attempts(tmp_path)
    with largest_file(10_000):
        for _ in range(20):
            assert attempts.try_to_put() is None
        assert {10_000} == set(files(spool_of(tmp_path)).values()) - {min(files(spool_of(tmp_path)).values())}
    attempts.check_all(tmp_path)


def test_a_limit_of_files_below_an_event_refuses_it(tmp_path: Path) -> None:
    """If no file may become as large as an event, that is refused with its reason."""
    attempts = Attempts(tmp_path)
    with largest_file(2_000):
        assert attempts.fill() is not None
        attempts.check_refusals(FILE_SIZE)
    attempts.check_recovery()
    attempts.check_all(tmp_path)


@pytest.mark.usefixtures("tiny_segments")
@pytest.mark.parametrize("step", ["open", "used", "create", "lock", "write", "publish"])
@pytest.mark.parametrize(
    ("number", "problem"),
    [
        (errno.ENOSPC, NO_SPACE),
        (errno.EDQUOT, QUOTA),
        (errno.EFBIG, FILE_SIZE),
        (errno.EROFS, READ_ONLY),
    ],
)
def test_a_lack_of_room_is_refused_with_its_reason(
    tmp_path: Path, step: str, number: int, problem: str
) -> None:
    """Wherever space runs out, the error says so, and nothing is left behind."""
    failing: list[bool] = []
    opened: list[str] = []

    def fail(now: str) -> None:
        if now == "open":
            opened.append(now)
        if failing and now == step:
            raise OSError(number, os.strerror(number))

    queue = WatchedQueue(tmp_path, fail)
    queue.put(b"{before}")
    before = files(spool_of(tmp_path))
    failing.append(True)
    opened.clear()
    with pytest.raises(EventQueueFullError, match=re.escape(problem)):
        queue.put(event_of(TINY))  # for which a segment has to start
    assert len(opened) == 1
    assert files(spool_of(tmp_path)) == before
    failing.clear()

    def put() -> bool:
        with contextlib.suppress(EventQueueFullError):
            queue.put(b"{after}")
            return True
        return False

    wait_until(put, "there is no room")
    queue.close()
    assert [b"{before}", b"{after}"] == read_all(tmp_path)


@needs_root
def test_a_disk_that_is_mounted_read_only_refuses_until_it_is_writable(tmp_path: Path) -> None:
    """A disk that is read-only refuses with that reason, and takes events again when it is writable."""
    disk = tmp_path / "disk"
    with mounted(disk, "-t", "tmpfs", "none"):
        attempts = Attempts(disk)
        run("mount", "-o", "remount,ro", disk).check()
        assert attempts.try_to_put() is not None
        attempts.check_refusals(READ_ONLY)
        run("mount", "-o", "remount,rw", disk).check()
        attempts.check_recovery()
        attempts.check_all(disk)


@needs_root
def test_a_disk_that_becomes_read_only_below_a_writer(tmp_path: Path) -> None:
    """A failing disk, which its kernel makes read-only, refuses with that reason, and keeps what it has."""
    need_command("mkfs.ext4")
    disk, image = tmp_path / "disk", tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(8 << 20)
    run("mkfs.ext4", "-q", image).check()
    with mounted(disk, "-o", "loop,errors=remount-ro", image):
        attempts = Attempts(disk)
        for _ in range(10):
            assert attempts.try_to_put() is None
        os.sync()
        device = disk.stat().st_dev
        node = (Path("/sys/dev/block") / f"{os.major(device)}:{os.minor(device)}").resolve().name
        trigger = Path("/sys/fs/ext4") / node / "trigger_fs_error"
        if not trigger.exists():
            missing("this kernel can't have a file system fail")
        trigger.write_text("test")
        before = attempts.put.copy()
        attempts.fill()
        attempts.check_refusals(READ_ONLY)
        (segment,) = spool_of(disk).glob("*.segment")
        data = segment.read_bytes()
        header = Header.decode(data)
        assert header is not None
        size = len(header.encode())
        records = feed(SegmentParser(header, size), data[size:])
        assert before == [record.payload for record in records[: len(before)]]


# --- no folder ---


@pytest.mark.parametrize("deleted", ["the folder", "the directory"])
def test_a_folder_that_is_deleted_is_made_again(tmp_path: Path, deleted: str) -> None:
    """Threads go on while the folder of the spool, or the directory that it is in, is deleted repeatedly.

    What was put after the last deletion and the millisecond of trust arrives, with the right permissions.
    """
    directory = tmp_path / "directory"
    directory.mkdir(mode=0o750)
    target = spool_of(directory) if deleted == "the folder" else directory
    with open_queue(directory) as queue, Putters(queue) as putters:
        for _ in range(30):
            putters.wait_for_each(20)
            delete_in_use(target)
        outlast_trust()
        putters.wait_for_each(2)  # so that each began one after that
        before = [len(put) for put in putters.put]
        putters.wait_for_each(100)
    assert (directory.stat().st_mode & 0o7777, spool_of(directory).stat().st_mode & 0o7777) == (0o750, 0o700)
    arrived = read_all(directory)
    for count, put in zip(before, putters.put, strict=True):
        assert set(put[count:]) <= set(arrived)


def test_a_folder_that_is_deleted_costs_nothing_that_was_read(tmp_path: Path) -> None:
    """A reader that has a segment open gets what was put up to the deletion, and what is put after it."""
    with open_queue(tmp_path) as queue:
        queue.put(b"{first}")
        with SpoolFileReader(spool_of(tmp_path)) as reader:
            reader.read()
            queue.put(b"{second}")
            shutil.rmtree(spool_of(tmp_path))
            outlast_trust()
            queue.put(b"{third}")
            reader.read()
            queue.close()
            assert [b"{first}", b"{second}", b"{third}"] == reader.drain()
            assert reader.vanished == 1


def put_if_possible(queue: EventQueue[bytes]) -> bool:
    """Put an event, and return whether there was room."""
    try:
        queue.put(b"{x}")
    except EventQueueFullError:
        return False
    return True


@needs_root
def test_a_service_starts_on_a_full_disk(tmp_path: Path) -> None:
    """A queue that starts on a full disk works as soon as there is room, without reopening."""
    disk = tmp_path / "disk"
    with mounted(disk, "-t", "tmpfs", "-o", "size=64k,nr_inodes=1", "none"):
        with EventQueue("test", bytes, spool_directory=disk, strict_size=True) as queue:
            with pytest.raises(EventQueueFullError, match=NO_SPACE):
                queue.put(b"{x}")
            run("mount", "-o", "remount,nr_inodes=10", disk).check()
            wait_until(lambda: put_if_possible(queue), "there is no room", interval=0.001)
        assert [b"{x}"] == read_all(disk)
