"""What the next process finds, whatever else is in the folder."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from baseplate_events.event_publisher.spool.segment_format import SegmentFormat
from baseplate_events.event_publisher.storage import SpoolError
from tests.support.simulated_disk import SimulatedDisk
from tests.support.spools import FIRST, HEADER, append_all, recovered, spool_on


@given(data=st.binary(min_size=len(HEADER), max_size=200))
@example(data=b"PK\x03\x04" + bytes(100))
@example(data=b"event-spool 3 2\nwhat the future holds")
@example(data=b"event-spool 1 2j\n")
@example(data=bytes(100))
def test_a_file_of_others_is_refused_by_name(data: bytes) -> None:
    """What looks like a segment by its name only is named in the error, and nothing is changed."""
    disk = SimulatedDisk()
    append_all(spool_on(disk), [b"one"])
    disk.put("segment-0000000007", b"")
    disk.put("segment-0000000009", data)
    names = disk.names()
    spool = spool_on(disk, path="/where")
    if HEADER.startswith(data[: len(HEADER)].rstrip(b"\0")):  # torn
        assert [1] == [segment.count for segment in spool.recover()]
    else:
        with pytest.raises(SpoolError) as caught:
            spool.recover()
        assert "/where/segment-0000000009" == caught.value.path
        assert (names, 0, 0) == (disk.names(), spool.size, spool.cut)
        disk.remove("segment-0000000009")
        assert [1] == [segment.count for segment in spool.recover()]


@given(
    numbers=st.sets(
        st.integers(0, 20) | st.integers(10**10 - 3, 10**10 + 3) | st.integers(0, 10**30), max_size=6
    )
)
def test_numbers_have_gaps_and_no_end(numbers: set[int]) -> None:
    """Segments come by number, however large, and a new one comes behind all of them."""
    disk = SimulatedDisk()
    for number in numbers:
        frames = SegmentFormat("2").frame(b"%d" % number)
        disk.put(f"segment-{number:010d}", HEADER + frames)
    spool = spool_on(disk)
    assert sorted(numbers) == [segment.number for segment in spool.recover()]
    segment = append_all(spool, [b"new"])
    assert segment is not None
    assert segment.number == max(numbers, default=-1) + 1
    assert ([*(b"%d" % number for number in sorted(numbers)), b"new"], 0) == recovered(disk)


@pytest.mark.parametrize(
    "name",
    [
        "lock",
        "rejected",
        "segment-1",
        "segment-00000000001",
        "segment-0000000001.bak",
        "segment-0000000001\n",
        "segment-000000000\u0661",
        "StoredBatch-0000000001",
    ],
)
def test_other_files_are_left_alone(name: str) -> None:
    """What isn't named like a segment is neither read nor deleted."""
    disk = SimulatedDisk()
    disk.put(name, b"mine")
    spool = spool_on(disk)
    assert ([], 0) == (spool.recover(), spool.size)
    assert b"mine" == disk.content(name)


def test_reading_errors_name_the_file() -> None:
    """A segment that can't be read is named, by recovery and by load; a folder that can't is too."""
    disk = SimulatedDisk()
    spool = spool_on(disk, path="/where")
    segment = append_all(spool, [b"one"])
    assert segment is not None
    disk.fail("read", times=2)
    for act in (lambda: spool.load(segment), spool_on(disk, path="/where").recover):
        with pytest.raises(SpoolError, match=rf"/where/{FIRST}: can't be read: Input/output error"):
            act()
    disk.fail("names")
    with pytest.raises(SpoolError, match="/where: can't be read"):
        spool_on(disk, path="/where").recover()


@given(count=st.integers(0, 6))
def test_recovery_tells_how_far_it_is(count: int) -> None:
    """After each file that was read it is told how many were, of how many."""
    disk = SimulatedDisk()
    spool = spool_on(disk)
    for _ in range(count):
        append_all(spool, [b"{}"])
    told: list[tuple[int, int]] = []
    assert count == len(spool_on(disk).recover(lambda done, total: told.append((done, total))))
    assert [(done, count) for done in range(1, count + 1)] == told
