"""The files of the spool on a disk that fails, or that takes less than it is given."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.storage import SpoolError
from tests.support import strategies
from tests.support.simulated_disk import SimulatedDisk
from tests.support.spools import FIRST, append_all, recovered, spool_on

if TYPE_CHECKING:
    from baseplate_events.event_publisher.config.settings import Sync


@given(sync=strategies.syncs)
def test_a_segment_that_didnt_close_well_is_written_anew(sync: Sync) -> None:
    """A file whose close failed is closed and not trusted; its events come once."""
    disk = SimulatedDisk()
    spool = spool_on(disk, sync)
    disk.fail("close", errno.EDQUOT)
    with pytest.raises(SpoolError, match="quota"):
        append_all(spool, [b"one", b"two"])
    assert (segment := spool.close_segment()) is not None
    assert (b"one", b"two") == spool.load(segment)
    assert (1, 0) == (len(disk.names()), disk.open_handles)
    assert spool.size == disk.used


def test_a_file_that_cant_be_deleted_counts_until_it_is() -> None:
    """A segment that the disk keeps takes room until it can be deleted, which is tried when room is short."""
    disk = SimulatedDisk()
    spool = spool_on(disk, max_size=100)
    segment = append_all(spool, [bytes(60)])
    assert segment is not None
    disk.read_only = True
    spool.release(segment.number)
    spool.release(segment.number)
    assert segment.size == spool.size == disk.used
    assert not spool.has_room(60)
    disk.read_only = False
    assert spool.has_room(60)
    assert 0 == spool.size == disk.used


def test_a_later_deletion_takes_what_couldnt_be_deleted_along() -> None:
    """Files that couldn't be deleted are tried again after one that could."""
    disk = SimulatedDisk()
    spool = spool_on(disk)
    segments = [append_all(spool, [b"event"]) for _ in range(5)]
    disk.fail("delete", times=3)
    for segment in filter(None, segments):
        spool.release(segment.number)
    assert 0 == spool.size == disk.used


def test_a_number_that_is_taken_is_passed_over() -> None:
    """A file that somebody put in the way is left alone, and the next call takes another number."""
    disk = SimulatedDisk()
    spool = spool_on(disk)
    spool.recover()
    disk.put(FIRST, b"theirs")
    with pytest.raises(SpoolError):
        spool.append(b"one")
    spool.append(b"one")
    assert b"theirs" == disk.content(FIRST)


@given(
    events=st.lists(strategies.spooled_events, max_size=8), sizes=st.lists(st.integers(1, 30), max_size=20)
)
def test_writes_that_take_a_part_are_gone_on_with(events: list[bytes], sizes: list[int]) -> None:
    """A write that takes fewer bytes than it was given is no failure by itself."""
    disk = SimulatedDisk()
    spool = spool_on(disk)
    for event, size in zip(events, [*sizes, *[100] * len(events)], strict=False):
        disk.shorten(size)
        spool.append(event)
    assert (events, 0) == recovered(disk)


def test_a_disk_that_takes_nothing_is_full() -> None:
    """A write that takes no bytes, and gives no error either, isn't tried for ever."""
    disk = SimulatedDisk()
    spool = spool_on(disk)
    spool.append(b"one")
    disk.shorten(0)
    with pytest.raises(SpoolError, match="No space left"):
        spool.append(b"two")
    assert ([b"one"], 0) == recovered(disk)

    class Void(SimulatedDisk):
        def write(self, _handle: int, _data: bytes, /) -> int:
            return 0

    with pytest.raises(SpoolError, match="No space left"):
        spool_on(Void()).append(b"one")
