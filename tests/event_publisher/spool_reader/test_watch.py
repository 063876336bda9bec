from __future__ import annotations

import contextlib
import errno
import os
import select
import shutil
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.inotify import NO_WATCH, Inotify, InotifyEvent
from baseplate_events.event_publisher.spool_reader.files import FolderVersion
from baseplate_events.event_publisher.spool_reader.watch import GRACE, POLL_PAUSE, SpoolWatch
from tests.support.clocks import FakeClock
from tests.support.spool_scene import Scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def wakes(scene: Scene) -> bool:
    """Return whether a waiting publisher would wake now."""
    descriptor = scene.reader.wait_descriptor
    assert descriptor is not None
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(0))


def wait(scene: Scene) -> None:
    """Get ready to wait, with nothing to read."""
    assert scene.read_all() == []
    assert scene.reader.wait_time(1.0) == POLL_PAUSE
    assert not wakes(scene)


def test_each_event_wakes_the_publisher(scene: Scene) -> None:
    """An event wakes the publisher, be it in an existing or a new segment, or in a new folder."""
    writer = scene.writer()
    wait(scene)
    for number in range(20):
        if number % 5 == 1:
            writer.rotate()
        elif number % 5 == 2:
            writer = scene.writer()
        elif number % 5 == 3:
            scene.deliver()
            shutil.rmtree(scene.folder)
            scene.data.clear()
            assert scene.reader.wait_time(1.0) in {0.0, POLL_PAUSE}
            scene.deliver()
            assert scene.reader.wait_time(1.0) in {0.0, POLL_PAUSE}
            scene.clock.sleep(2.0)
            wait(scene)
            scene.writers.clear()
            writer = scene.writer()
        writer.put([b"%d" % number])
        assert wakes(scene)
        assert scene.read_all() == [b"%d" % number]
        wait(scene)
    assert scene.reader.status().watch_problem is None


def test_a_deleted_folder_wakes_the_publisher(scene: Scene) -> None:
    """The deletion of the folder wakes it, so that it locks the next one."""
    wait(scene)
    shutil.rmtree(scene.folder)
    assert wakes(scene)
    wait(scene)
    assert scene.folder.exists()
    scene.writer().put([b"1"])
    assert wakes(scene)
    assert scene.read_all() == [b"1"]


def test_a_folder_that_was_replaced_unnoticed_is_watched(scene: Scene) -> None:
    """The next poll watches the folder at the path, even if a process has the old one open."""
    wait(scene)
    kept = os.open(scene.folder, os.O_RDONLY)
    (scene.folder / "reader.lock").rename(scene.folder.parent / "lock")
    scene.folder.rmdir()
    assert not wakes(scene), "the kernel doesn't announce it"
    wait(scene)
    scene.writer().put([b"1"])
    assert wakes(scene)
    assert scene.read_all() == [b"1"]
    assert scene.reader.status().watch_problem is None
    os.close(kept)


def test_what_is_found_in_a_new_folder_proves_nothing(scene: Scene) -> None:
    """A replaced folder doesn't make inotify untrusted."""
    wait(scene)
    kept = os.open(scene.folder, os.O_RDONLY)
    (scene.folder / "reader.lock").rename(scene.folder.parent / "lock")
    scene.folder.rmdir()
    for number in range(3):
        scene.clock.sleep(POLL_PAUSE)
        scene.writer().put([b"%d" % number])
        assert scene.read_all() == [b"%d" % number]
    wait(scene)
    assert scene.reader.status().watch_problem is None
    os.close(kept)


def test_nothing_is_watched_while_there_is_something_to_read(scene: Scene) -> None:
    """While the reader is busy nothing is watched."""
    writer = scene.writer()
    writer.put([b"1", b"2"])
    assert scene.reader.wait_time(1.0) == 0.0
    assert len(scene.read(1, 1000)) == 1
    assert not wakes(scene)
    writer.put([b"3"])
    assert not wakes(scene)
    assert scene.reader.wait_time(1.0) == 0.0
    assert len(scene.read(10, 1000)) == 2
    wait(scene)
    writer.put([b"4"])
    assert wakes(scene)
    assert len(scene.read(10, 1000)) == 1
    assert not wakes(scene), "it was cleared"
    writer.put([b"5"])
    assert not wakes(scene), "it isn't armed"


def test_what_comes_before_the_watch_is_armed_is_found(scene: Scene) -> None:
    """An event between the last read and arming is found by the poll after arming."""
    writer = scene.writer()
    wait(scene)
    writer.put([b"1"])
    assert scene.read_all() == [b"1"]
    writer.put([b"2"])
    assert scene.reader.wait_time(1.0) == 0.0
    writer.rotate()
    assert scene.read_all() == [b"2"]
    writer.put([b"3"])
    assert scene.reader.wait_time(1.0) == 0.0
    assert scene.read_all() == [b"3"]
    assert scene.reader.status().watch_problem is None


def test_what_came_in_the_tick_of_a_listing_is_found(scene: Scene) -> None:
    """A change within one tick of the folder's time is found."""
    scene.files.stopped = FolderVersion("some tick", sure=False)
    assert scene.read_all() == []
    scene.writer().put([b"1"])
    assert scene.read_all() == []
    assert scene.reader.wait_time(1.0) == 0.0
    assert scene.read_all() == [b"1"]


def test_what_the_publisher_writes_itself_does_not_end_the_watch(scene: Scene) -> None:
    """The publisher's own writes don't end the watch, even if it doesn't read in between."""
    relay, service = scene.writer(), scene.writer()
    relay.put([b"first"])
    assert scene.read_all() == [b"first"]
    for number in range(3):
        wait(scene)
        relay.put([b"relayed"])
        scene.note()
        scene.reader.skip([scene.events(relay.name)[-1].span])
        assert scene.reader.wait_time(1.0) == POLL_PAUSE
        assert not wakes(scene)
        service.put([b"%d" % number])
        assert wakes(scene)
        assert scene.payloads() == [b"%d" % number]


class SilentInotify(Inotify):
    """An instance of inotify that announces what the test says."""

    def __init__(self) -> None:
        self.events: list[InotifyEvent] = []
        self.watches: list[int] = []
        self.error = 0

    def fileno(self) -> int:
        return 77

    def add(self, path: bytes, mask: int) -> int:
        del path, mask
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        self.watches.append(len(self.watches) + 1)
        return self.watches[-1]

    def remove(self, watch: int) -> None:
        assert watch in self.watches

    def read(self) -> Iterator[InotifyEvent]:
        events, self.events = self.events, []
        return iter(events)

    def announce(self) -> None:
        self.events.append(InotifyEvent(self.watches[-1], 2))

    def close(self) -> None:
        return


class Watch:
    """A watch on a silent instance of inotify."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.inotify = SilentInotify()
        self.watch = SpoolWatch("/spool", self.clock, lambda: self.inotify)

    def wait(self) -> None:
        self.watch.arm()
        self.watch.record_poll(found=False)


def test_inotify_that_is_silent_is_not_trusted() -> None:
    """It isn't trusted after a poll finds an event that isn't announced within a second."""
    one = Watch()
    one.wait()
    assert one.watch.pause(1.0) == POLL_PAUSE
    one.watch.record_poll(found=True)
    assert one.watch.problem is None
    one.clock.sleep(GRACE / 2)
    one.watch.record_poll(found=False)
    assert one.watch.problem is None
    one.clock.sleep(GRACE / 2)
    one.watch.record_poll(found=False)
    assert "doesn't announce" in str(one.watch.problem)
    assert one.watch.pause(1.0) == 1.0
    assert one.watch.pause(100.0) == POLL_PAUSE
    assert not one.watch.arm()


def test_what_is_announced_late_is_announced() -> None:
    """A writer may be interrupted before the kernel announces what it wrote."""
    one = Watch()
    one.wait()
    one.watch.record_poll(found=True)
    one.inotify.announce()
    one.clock.sleep(10)
    one.watch.record_poll(found=False)
    assert one.watch.problem is None


def test_what_is_found_by_the_poll_after_arming_proves_nothing() -> None:
    """An event that was there before arming proves nothing."""
    one = Watch()
    one.watch.arm()
    one.watch.record_poll(found=True)
    one.clock.sleep(10)
    one.watch.record_poll(found=True)
    assert one.watch.problem is None


@given(steps=st.lists(st.sampled_from(["arm", "look", "find", "sleep"]), max_size=30))
def test_inotify_that_announces_everything_is_trusted(steps: list[str]) -> None:
    """It is trusted, whatever the order of events."""
    one = Watch()
    for step in steps:
        if step == "arm":
            one.watch.arm()
        elif step == "sleep":
            one.clock.sleep(GRACE)
        elif step == "find":
            if one.inotify.watches:
                one.inotify.announce()
            one.watch.record_poll(found=True)
        else:
            one.watch.record_poll(found=False)
        assert one.watch.problem is None


def test_lost_events_count_as_an_announcement() -> None:
    """A queue overflow counts as an announcement."""
    one = Watch()
    one.wait()
    one.inotify.events.append(InotifyEvent(NO_WATCH, 0x4000))
    one.watch.record_poll(found=True)
    one.clock.sleep(10)
    one.watch.record_poll(found=True)
    assert one.watch.problem is None


def no_instance() -> SilentInotify:
    """Fail as if there were no instance left."""
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOSPC])
def test_without_inotify_the_spool_is_polled(number: int) -> None:
    """Without inotify the spool is polled, and the status says why."""
    if number == errno.EMFILE:
        watch = SpoolWatch("/spool", FakeClock(), no_instance)
        assert watch.descriptor is None
    else:
        one = Watch()
        one.inotify.error = number
        watch = one.watch
        watch.arm()
    assert os.strerror(number) in str(watch.problem)
    assert watch.pause(0.5) == 0.5
    watch.record_poll(found=True)
    assert not watch.arm()
    watch.close()


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES])
def test_a_folder_that_is_gone_or_closed_is_watched_later(number: int) -> None:
    """A folder that can't be watched is recreated by the next poll, or its mode is corrected."""
    one = Watch()
    one.inotify.error = number
    assert one.watch.arm()
    one.watch.record_poll(found=False)
    assert one.watch.problem is None
    one.inotify.error = 0
    assert one.watch.arm()
    assert one.watch.pause(0.1) == POLL_PAUSE


def test_events_with_names_are_read(tmp_path: Path) -> None:
    """Events with names are parsed."""
    clock = FakeClock()
    make: Callable[[], SpoolWatch] = lambda: SpoolWatch(str(tmp_path), clock)  # noqa: E731
    with contextlib.closing(make()) as watch:
        for name in ("a", "b" * 200):
            (tmp_path / name).touch()
            watch.arm()
            watch.record_poll(found=False)
            (tmp_path / name).write_bytes(b"x")
            poller = select.poll()
            poller.register(watch.descriptor or 0, select.POLLIN)
            assert poller.poll(0)
            watch.record_poll(found=True)
            assert not poller.poll(0)
        assert watch.problem is None


def test_a_reader_polls_what_is_not_announced() -> None:
    """Without inotify it polls as often as an event may wait, and lists the folder each time."""
    scene = Scene()
    scene.reader._watch = scene.reader._turns._watch = SpoolWatch(  # pyright: ignore[reportPrivateUsage]
        str(scene.folder), scene.clock, SilentInotify
    )
    writer = scene.writer()
    assert scene.reader.wait_time(0.5) == POLL_PAUSE
    scene.clock.sleep(POLL_PAUSE)
    writer.put([b"1"])
    assert scene.read_all() == [b"1"]
    assert scene.reader.status().watch_problem is None
    scene.clock.sleep(GRACE)
    assert scene.reader.wait_time(0.5) == POLL_PAUSE
    assert scene.reader.wait_time(0.5) == 0.5
    assert scene.reader.status().watch_problem is not None
    before = scene.files.calls["names"]
    for _ in range(3):
        scene.clock.sleep(0.5)
        assert scene.reader.wait_time(0.5) == 0.5
    assert scene.files.calls["names"] == before + 3
    writer.put([b"2"])
    scene.clock.sleep(0.5)
    assert scene.reader.wait_time(0.5) == 0.0
    assert scene.read_all() == [b"2"]
    scene.close()
