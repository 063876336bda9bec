from __future__ import annotations

import contextlib
import ctypes
import os
import select
import sys
from typing import TYPE_CHECKING

import pytest

from baseplate_events.event_publisher.unlink_watch import UnlinkWatch
from baseplate_events.transport.posix import unlink_queue
from tests.support.queues import fresh_name, open_files, reader

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.fixture
def name() -> Generator[str]:
    """Yield the name of a queue of the test's own."""
    with fresh_name() as name:
        yield name


def test_only_a_removal_wakes_the_watch(name: str) -> None:
    """A watch becomes readable when its queue is unlinked, not when it is used, until it is cleared."""
    with contextlib.closing(reader(name)) as queue, contextlib.closing(UnlinkWatch()) as watch:
        watch.watch(queue.fileno())
        assert not watch.clear(), "there is nothing to clear"
        queue.put(b"x")
        assert queue.get() == b"x"
        assert not ready(watch)
        unlink_queue(name)
        assert ready(watch)
        assert watch.clear()
        assert not ready(watch)


def ready(watch: UnlinkWatch) -> bool:
    """Return whether a poller would wake now."""
    poller = select.poll()
    poller.register(watch.fileno(), select.POLLIN)
    return bool(poller.poll(0))


def test_what_comes_late_about_the_queue_before_counts_for_nothing(name: str) -> None:
    """Changes of a queue that was watched before wake no one, whether they came before or come after."""
    with (
        contextlib.closing(UnlinkWatch()) as watch,
        contextlib.closing(reader(name)) as before,
    ):
        watch.watch(before.fileno())
        unlink_queue(name)
        os.fchmod(before.fileno(), 0o640)
        assert ready(watch)
        with contextlib.closing(reader(name)) as after:
            watch.watch(after.fileno())
            assert not ready(watch)
            os.fchmod(before.fileno(), 0o600)
            assert not ready(watch)
            assert not watch.clear()
            os.fchmod(after.fileno(), 0o640)
            assert ready(watch)
            assert watch.clear()
            assert not watch.clear()
            unlink_queue(name)
            assert watch.clear()


def test_a_late_event_is_read_away(name: str) -> None:
    """A late event of another watch is ignored, and doesn't wake again."""
    with (
        contextlib.closing(UnlinkWatch()) as watch,
        contextlib.closing(reader(name)) as queue,
        fresh_name() as other_name,
        contextlib.closing(reader(other_name)) as other,
    ):
        watch.watch(queue.fileno())
        ctypes.CDLL(None).inotify_add_watch(watch.fileno(), b"/proc/self/fd/%d" % other.fileno(), 0x4)
        os.fchmod(other.fileno(), 0o640)
        assert ready(watch)
        assert not watch.clear()
        assert not ready(watch)


def test_a_watch_that_fails_can_be_set_again(name: str) -> None:
    """A queue that can't be watched is an error, leaves no watch and nothing open; the next may go well."""
    before = open_files()
    with contextlib.closing(reader(name)) as queue:
        watch = UnlinkWatch()
        watch.watch(queue.fileno())
        with pytest.raises(OSError, match="No such file"):
            watch.watch(-1)
        watching = [watch.watching]
        os.fchmod(queue.fileno(), 0o640)
        assert not ready(watch)
        watch.watch(queue.fileno())
        watch.watch(queue.fileno())
        watching.append(watch.watching)
        assert watching == [False, True]
        os.fchmod(queue.fileno(), 0o600)
        assert watch.clear()
        watch.close()
    assert open_files() <= before


def test_a_watch_that_the_system_removes_is_known_to_be_gone(name: str) -> None:
    """After the system has removed the watch, which it says, no queue counts as watched."""
    with contextlib.closing(reader(name)) as queue, contextlib.closing(UnlinkWatch()) as watch:
        watch.watch(queue.fileno())
        ctypes.CDLL(None).inotify_rm_watch(watch.fileno(), 1)
        assert watch.clear()
        assert not watch.watching


def test_a_python_without_ctypes_has_no_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python may be built without libffi; then nothing is announced, which the callers can handle."""
    monkeypatch.setitem(sys.modules, "ctypes", None)
    with pytest.raises(OSError, match="ctypes"):
        UnlinkWatch()
