from __future__ import annotations

import select
from typing import TYPE_CHECKING

from baseplate_events.event_publisher.unlink_watch import watch_unlink
from baseplate_events.transport.posix import unlink_queue
from tests.support.queues import fresh_name, open_files, reader

if TYPE_CHECKING:
    from baseplate_events.event_publisher.unlink_watch import UnlinkWatch


def is_readable(watch: UnlinkWatch) -> bool:
    """Return whether a poller would wake now."""
    poller = select.poll()
    poller.register(watch, select.POLLIN)
    return bool(poller.poll(0))


def test_only_a_removal_wakes_the_watch() -> None:
    """A watch becomes readable when its queue is unlinked, not when it is used, until it is cleared."""
    with fresh_name() as name, reader(name) as queue:
        watch = watch_unlink(queue.fileno())
        assert watch is not None
        watch.clear()  # there is nothing to clear
        queue.put(b"x")
        assert queue.get() == b"x"
        assert not is_readable(watch)
        unlink_queue(name)
        assert is_readable(watch)
        watch.clear()
        assert not is_readable(watch)
        watch.close()


def test_a_watch_is_no_descriptor_left_open() -> None:
    """A watch that can't be made leaves nothing open, and neither does one that is closed."""
    before = open_files()
    assert watch_unlink(-1) is None
    with fresh_name() as name, reader(name) as queue:
        watch = watch_unlink(queue.fileno())
        assert watch is not None
        watch.close()
    assert before == open_files()
