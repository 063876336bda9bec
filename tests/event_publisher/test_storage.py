"""Properties of the real folder: its own, locked, and as full, read-only or killed as it may be."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from baseplate_events.event_publisher.config.settings import Sync
from baseplate_events.event_publisher.storage import Folder, SpoolError
from tests.support.commands import run
from tests.support.disks import mounted
from tests.support.queues import as_user, needs_root
from tests.support.spools import FIRST, NONE, append_all, folder_at, recovered, spool_on

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from baseplate_events.event_publisher.policy.store import StoredBatch

#: A user that is neither root nor the owner of any folder.
NOBODY = 65_534


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Give the path of a folder that isn't there yet."""
    return tmp_path / "spool"


def mode(path: Path) -> int:
    """Tell the permissions of a file."""
    return path.stat().st_mode & 0o7777


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_nobody_else_gets_in(place: Path, mask: int) -> None:
    """Folder and files are their owner's alone, whatever the umask, also below folders that aren't there."""
    before = os.umask(mask)
    try:
        with folder_at(place / "deep" / "down") as folder:
            append_all(spool_on(folder), [b"one"])
            assert 0o700 == mode(place / "deep" / "down")
            assert 0o600 == mode(place / "deep" / "down" / FIRST)
    finally:
        os.umask(before)


@pytest.mark.parametrize("wide", [0o755, 0o770, 0o777, 0o701])
def test_an_empty_folder_is_closed_to_others(place: Path, wide: int) -> None:
    """A folder made for the spool becomes its owner's alone."""
    place.mkdir()
    place.chmod(wide)
    with folder_at(place):
        assert 0o700 == mode(place)


@pytest.mark.parametrize(("wide", "name"), [(0o755, "theirs"), (0o750, FIRST), (0o1777, None)])
def test_a_folder_that_others_use_isnt_taken_away(place: Path, wide: int, name: str | None) -> None:
    """A folder that is open to others and in use, or meant for all, is refused as it is."""
    place.mkdir()
    if name is not None:
        (place / name).write_bytes(b"theirs")
    place.chmod(wide)
    with pytest.raises(SpoolError, match=rf"mode {wide:04o}"):
        Folder(str(place))
    assert wide == mode(place)
    place.chmod(0o700)
    with folder_at(place) as folder:
        assert [name] * (name is not None) == folder.names()


@needs_root
def test_a_folder_of_somebody_else_is_refused(place: Path) -> None:
    """Its owner could read and change what is in it, also if this is root."""
    place.mkdir(0o700)
    os.chown(place, NOBODY, NOBODY)
    with pytest.raises(SpoolError, match=f"belongs to user {NOBODY}"):
        Folder(str(place))


@needs_root
def test_a_folder_that_cant_be_made_says_so() -> None:
    """A user without the right to make it gets an error that names the folder."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        with as_user(NOBODY), pytest.raises(SpoolError, match="Permission denied"):
            Folder(f"{directory}/spool")
        Path(directory).chmod(0o733)  # to be added to, but not read
        with as_user(NOBODY):
            Folder(f"{directory}/spool").release()


def test_a_file_isnt_a_folder(place: Path) -> None:
    """Something else in the place of the folder is left alone, with an error that names it."""
    place.write_bytes(b"theirs")
    for path in (place, place / "below"):
        with pytest.raises(SpoolError, match="Not a directory"):
            Folder(str(path))
    assert b"theirs" == place.read_bytes()


def test_a_link_to_a_folder_is_followed(tmp_path: Path, place: Path) -> None:
    """A folder may be a link, as service managers make them; one to nowhere is an error."""
    place.symlink_to(tmp_path / "real")
    with pytest.raises(SpoolError):
        Folder(str(place))
    (tmp_path / "real").mkdir(0o700)
    with folder_at(place) as folder:
        append_all(spool_on(folder), [b"one"])
    assert (tmp_path / "real" / FIRST).exists()


def test_a_folder_has_one_user(place: Path) -> None:
    """A second user of a folder, in this process or another, is told; the first one's end lets it in."""
    code = "import sys; from baseplate_events.event_publisher.storage import Folder; Folder(sys.argv[1])"
    with folder_at(place) as folder:
        with pytest.raises(SpoolError, match="another publisher uses it"):
            Folder(str(place))
        other = run(sys.executable, "-c", code, place)
        assert other.status == 1
        assert "another publisher uses it" in other.err
        folder.release()
        run(sys.executable, "-c", code, place).check()
        folder.release()
        with pytest.raises(OSError, match="Bad file descriptor"):
            folder.names()


@pytest.mark.parametrize("kind", ["folder", "link", "pipe", "large"])
def test_what_isnt_a_file_of_ours_isnt_read(place: Path, kind: str) -> None:
    """A folder, link, pipe or huge file with a segment's name is named in the error, at once."""
    with folder_at(place) as folder:
        path = place / FIRST
        if kind == "folder":
            path.mkdir()
        elif kind == "link":
            append_all(spool_on(folder), [b"one"])
            path.symlink_to(path.rename(place.parent / "elsewhere"))
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            path.touch()
            os.truncate(path, 1 << 40)
        with pytest.raises(SpoolError, match=FIRST):
            spool_on(folder).recover()
        assert path.is_symlink() or path.exists()


def test_a_file_that_is_there_isnt_made(place: Path) -> None:
    """A segment is never written over another."""
    with folder_at(place) as folder:
        append_all(spool_on(folder), [b"one"])
        with pytest.raises(FileExistsError):
            folder.create(FIRST)
        with pytest.raises(SpoolError, match="File exists"):
            spool_on(folder).append(b"two")
        assert ([b"one"], 0) == recovered(folder)


#: Appends numbers until it is killed; tells each that `append` returned for, so that nothing is in between.
APPENDER = """
import os, sys
from baseplate_events.event_publisher.config.settings import Sync
from baseplate_events.event_publisher.spool.spool import Spool
from baseplate_events.event_publisher.storage import Folder
spool = Spool(Folder(sys.argv[1]), "", version="2", max_size=10**9, sync=Sync(sys.argv[2]))
number = sum(segment.count for segment in spool.recover())
while True:
    spool.append(b"%d" % number + b"." * 5_000)
    os.write(1, b"%d\\n" % number)
    number += 1
    if number % 7 == 0:
        spool.close_segment()
"""


@pytest.mark.parametrize("sync", Sync)
def test_a_killed_process_loses_nothing(place: Path, sync: Sync) -> None:
    """After SIGKILL all that `append` returned for is there, and one more at most; the lock is free."""
    for kills in range(1, 4):
        with subprocess.Popen(
            [sys.executable, "-c", APPENDER, place, sync.value], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            told = [process.stdout.readline() for _ in range(20)]
            process.send_signal(signal.SIGKILL)
            told += process.stdout.read().splitlines()
        last = int(told[-1])
        with folder_at(place) as folder:
            found, cut = recovered(folder)
        assert [b"%d" % number for number in range(len(found))] == [event.rstrip(b".") for event in found]
        assert last < len(found) <= last + 2
        assert cut <= kills


def small_file_system(path: Path, kind: str = "tmpfs") -> AbstractContextManager[None]:
    """Mount a file system in memory, of 64 KiB if its kind has a limit."""
    return mounted(path, "-t", kind, "-o", "size=64k,mode=0700", kind)


@needs_root
@pytest.mark.parametrize("sync", Sync)
@pytest.mark.parametrize("journal_size", [NONE, 7_000, 20_000])
def test_a_real_disk_that_is_full(place: Path, sync: Sync, journal_size: int) -> None:
    """A full disk refuses events until segments are released, keeps the others, and counts right."""
    with small_file_system(place), folder_at(place) as folder:
        spool = spool_on(folder, sync, journal_size=journal_size)
        appended: list[bytes] = []
        segments: list[StoredBatch] = []
        for _ in range(3):
            try:
                while True:
                    event = b"%d" % len(appended) + b"." * 3_000
                    spool.append(event)
                    appended.append(event)
            except SpoolError as exc:
                assert "No space left" in str(exc)  # noqa: PT017 - what came before it counts
            assert spool.size == folder.used
            segments += filter(None, [spool.close_segment()])
            assert appended == [event for segment in segments for event in spool.load(segment)]
            spool.release(segments.pop(0).number)
            del appended[: len(appended) - sum(segment.count for segment in segments)]
        assert (appended, 0) == recovered(folder)


@needs_root
@pytest.mark.parametrize(("kind", "maps"), [("tmpfs", True), ("ramfs", False)])
def test_only_file_systems_that_are_known_are_mapped(place: Path, kind: str, *, maps: bool) -> None:
    """Journals are used where a mapped file can always be written again, and nowhere else."""
    with small_file_system(place, kind):
        folder = Folder(str(place))
        try:
            assert maps == folder.maps
            append_all(spool_on(folder, journal_size=1_000), [b"one"])
            assert maps == folder.names()[0].startswith("journal-")
            assert ([b"one"], 0) == recovered(folder)
        finally:
            folder.release()


def test_a_file_is_cut_and_no_other(place: Path) -> None:
    """Cutting a file that isn't open keeps its first bytes, makes none, and doesn't follow a link."""
    with folder_at(place) as folder:
        (place / "file").write_bytes(b"12345")
        (place / "link").symlink_to(place / "file")
        folder.cut("file", 3)
        for name in ("link", "nothing"):
            with pytest.raises(OSError, match=name):
                folder.cut(name, 0)
        assert b"123" == (place / "file").read_bytes()
        assert {"file", "link"} == set(folder.names())


@needs_root
def test_a_read_only_disk_can_be_read(place: Path) -> None:
    """A disk that became read-only gives its events, refuses others, and counts what it can't delete."""
    with small_file_system(place):
        with folder_at(place) as folder:
            append_all(spool_on(folder), [b"one"])
        run("mount", "-o", "remount,ro", place).check()
        with folder_at(place) as folder:
            spool = spool_on(folder)
            (segment,) = spool.recover()
            assert (b"one",) == spool.load(segment)
            with pytest.raises(SpoolError, match="Read-only file system"):
                spool.append(b"two")
            spool.release(segment.number)
            assert segment.size == spool.size


@needs_root
def test_a_read_only_folder_cant_be_closed_to_others(place: Path) -> None:
    """A folder that can't be made its owner's alone isn't used, and is free for others afterwards."""
    with small_file_system(place):
        place.chmod(0o755)
        run("mount", "-o", "remount,ro", place).check()
        with pytest.raises(SpoolError, match="Read-only file system"):
            Folder(str(place))
        run("mount", "-o", "remount,rw", place).check()
        with folder_at(place):
            assert 0o700 == mode(place)


def test_a_quota_is_a_full_disk(place: Path) -> None:
    """Where a file can't grow the event is refused, all before are there, and the next segment takes it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with folder_at(place) as folder:
        spool = spool_on(folder)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
        try:
            spool.append(bytes(900))
            with pytest.raises(SpoolError, match="File too large"):
                spool.append(bytes(100))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert (place / FIRST).stat().st_size == spool.size
        spool.close_segment()
        spool.append(bytes(100))
        assert ([bytes(900), bytes(100)], 0) == recovered(folder)
